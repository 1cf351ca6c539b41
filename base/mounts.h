// Which file system a path lies on.
#ifndef BASE_MOUNTS_H
#define BASE_MOUNTS_H

#include <stdbool.h>

// A Windows drive as WSL shows it, such as /mnt/c: correct, but opening a file takes a hundred
// times as long as on a Linux file system.
bool on_windows_drive(const char *path);

// The same from what it looks at: the text of /proc/self/mounts, the path without links, and
// whether this is WSL.
bool on_windows_drive_from(const char *mounts, const char *path, bool wsl);

#endif
