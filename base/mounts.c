#include "base/mounts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

// Spaces and such in a mount point are written as \040; drives have none, so they need no decoding.
bool on_windows_drive_from(const char *mounts, const char *path, bool wsl)
{
    size_t longest = 0;
    bool drive = false;
    for (const char *line = mounts; line && *line; line = strchr(line, '\n')) {
        char place[256], type[32], options[512];
        if (*line == '\n') line++;
        if (sscanf(line, "%*s %255s %31s %511s", place, type, options) != 3) continue;
        const size_t n = strcmp(place, "/") == 0 ? 0 : strlen(place);
        const bool inside = strncmp(path, place, n) == 0 && (path[n] == '/' || path[n] == '\0');
        if (!inside || n < longest) continue; // the last one on a place hides those before
        longest = n;
        const bool shared = strcmp(type, "9p") == 0 || strcmp(type, "virtiofs") == 0;
        drive = strcmp(type, "drvfs") == 0 || (shared && (wsl || strstr(options, "aname=drvfs")));
    }
    return drive;
}

bool on_windows_drive(const char *path)
{
    char *real = realpath(path, NULL), *mounts = NULL;
    size_t size = 0;
    bool drive = false;
    FILE *file = fopen("/proc/self/mounts", "r");
    if (real && file && getdelim(&mounts, &size, '\0', file) > 0)
        drive = on_windows_drive_from(mounts, real, strncmp(os_platform(), "wsl", 3) == 0);
    if (file) fclose(file);
    free(mounts);
    free(real);
    return drive;
}
