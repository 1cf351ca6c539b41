// A tree of names: a line an entry, "KIND PATH", where KIND is f for a file, d for a directory, l
// for a symbolic link to itself, u for one to "..", p for a FIFO. Directories on the way are made.
#include <dirent.h>
#include <ftw.h>

#include "data/decode/scan.h"
#include "tests/fuzz/fuzz.h"

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    return where->level > 0 ? remove(path) : 0;
}

static void make_entry(const char *dir, char kind, char *inside)
{
    char path[4096];
    if (strstr(inside, "..") || strlen(inside) > 2000) return; // outside, or too long to make
    snprintf(path, sizeof path, "%s/%s", dir, inside);
    for (char *s = path + strlen(dir) + 1; (s = strchr(s, '/')); *s++ = '/') {
        *s = '\0';
        struct stat st; // a link would lead out of `dir`
        mkdir(path, 0700);
        if (lstat(path, &st) || !S_ISDIR(st.st_mode)) return;
    }
    if (kind == 'd') mkdir(path, 0700);
    if (kind == 'p') (void)!mkfifo(path, 0600);
    if (kind == 'l') (void)!symlink(strrchr(path, '/') + 1, path);
    if (kind == 'u') (void)!symlink("..", path);
    if (kind == 'f') close(open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0600));
}

static void check_scan(Scan *s)
{
    Error e;
    for (int split = 0; split < 2; split++)
        for (int64_t i = 0; i < s->images[split].n; i++) {
            const ScanImage *image = &s->images[split].list[i];
            assert(image->label >= 0 && image->label < s->class_count);
            assert(class_name_valid(image->path, strlen(image->path)));
            assert(!strstr(image->path, ".."));
        }
    for (int k = 0; k < s->class_count; k++) {
        assert(class_name_valid(s->classes[k], strlen(s->classes[k])));
        assert(k == 0 || strcmp(s->classes[k - 1], s->classes[k]) < 0);
    }
    char *text = scan_left_out(s, &e);
    int64_t lines = 0;
    for (const char *c = text; *c; c++) {
        lines += *c == '\n';
        assert((unsigned char)*c >= 0x20 || *c == '\n' || *c == '\t');
    }
    assert(lines == s->left_out_count);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    const char *dir = directory_in_memory();
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    char *text = malloc(size + 1);
    memcpy(text, bytes, size);
    text[size] = '\0';
    int entries = 0;
    for (char *rest = text, *line; (line = strsep(&rest, "\n")) && entries++ < 100;)
        if (line[0] && line[1] == ' ' && line[2] && line[2] != '/')
            make_entry(dir, line[0], line + 2);
    Scan s;
    Error e = {0};
    const int status = scan_open(&s, dir, 0, &e);
    check_failure(status, &e);
    if (!status) check_scan(&s);
    scan_close(&s);
    free(text);
    return 0;
}
