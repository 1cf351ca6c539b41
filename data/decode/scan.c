#include "data/decode/scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sha256.h"
#include "base/utf8.h"

// ---- lists --------------------------------------------------------------------------------------

static int no_memory(Error *e)
{
    return fail(e, STATUS_IO, "no memory for the list of images");
}

// The array with room for one element more than `n`, or NULL; it may have moved.
static void *grow(void *array, int64_t n, int64_t *capacity, size_t element)
{
    if (n < *capacity) return array;
    const int64_t more = 2 * *capacity + 64;
    void *grown = realloc(array, (size_t)more * element);
    if (grown) *capacity = more;
    return grown;
}

int scan_list_add(ScanList *l, const char *path, uint64_t key, int label, Error *e)
{
    ScanImage *list = grow(l->list, l->n, &l->capacity, sizeof *list);
    if (!list) return no_memory(e);
    l->list = list;
    l->list[l->n] = (ScanImage){strdup(path), key, label, NULL};
    return l->list[l->n++].path ? 0 : no_memory(e);
}

void scan_list_free(ScanList *l)
{
    for (int64_t i = 0; i < l->n; i++) {
        free(l->list[i].path);
        free(l->list[i].bad);
    }
    free(l->list);
    *l = (ScanList){0};
}

int scan_leave_out(Scan *f, const char *path, const char *reason, Error *e)
{
    LeftOut *list = grow(f->left_out, f->left_out_count, &f->left_out_capacity, sizeof *list);
    if (!list) return no_memory(e);
    f->left_out = list;
    LeftOut *l = &list[f->left_out_count++];
    l->path = strdup(path);
    l->reason = strdup(reason);
    l->folder = false;
    return l->path && l->reason ? 0 : no_memory(e);
}

// The order and the split depend on where the file lies below the source (or its train or test
// directory), never on the order in which the file system lists it.
static void hash_path(const char *path, uint64_t *order, uint64_t *split)
{
    uint8_t digest[32];
    Sha256 sum;
    sha256_init(&sum);
    sha256_add(&sum, path, strlen(path));
    sha256_finish(&sum, digest);
    memcpy(order, digest, sizeof *order);
    memcpy(split, digest + 8, sizeof *split);
}

static int add_image(Scan *f, Split split, const char *path, const char *inside, int label,
                     Error *e)
{
    uint64_t key, where;
    hash_path(inside, &key, &where);
    if (!f->split && (double)where < f->test_fraction * 0x1p64) split = SPLIT_TEST;
    return scan_list_add(&f->images[split], path, key, label, e);
}

static int compare_entries(const void *a, const void *b)
{
    const ScanImage *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return strcmp(x->path, y->path);
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int compare_left_out(const void *a, const void *b)
{
    return strcmp(((const LeftOut *)a)->path, ((const LeftOut *)b)->path);
}

// ---- looking through the directories ------------------------------------------------------------

// S_IFREG, S_IFDIR and so on; 0 if unknown. Links are not followed.
static mode_t type_of(int dir, const struct dirent *entry)
{
    if (entry->d_type != DT_UNKNOWN) return DTTOIF(entry->d_type);
    struct stat st;
    return fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) ? 0 : st.st_mode & S_IFMT;
}

bool scan_is_image_name(const char *name)
{
    static const char *const endings[] = {".jpg", ".jpeg", ".png", ".bmp"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(dot, endings[i]) == 0) return true;
    return false;
}

static int leave_out_entry(Scan *f, int dir, const struct dirent *entry, const char *path,
                           const char *reason, Error *e)
{
    struct stat st;
    const int status = scan_leave_out(f, path, reason, e);
    if (!status && fstatat(dir, entry->d_name, &st, 0) == 0)
        f->left_out[f->left_out_count - 1].folder = S_ISDIR(st.st_mode);
    return status;
}

static const char *why_not(mode_t type, const char *name)
{
    if (!class_name_valid(name, strlen(name)))
        return "the name is not UTF-8 or has control characters";
    if (type == S_IFLNK) return "a symbolic link";
    if (type == S_IFDIR) return "a directory inside a class";
    if (type != S_IFREG) return "not a regular file";
    return scan_is_image_name(name) ? NULL : "not .jpg, .jpeg, .png or .bmp";
}

// The next name that does not start with a dot; false at the end, and with *status set if the
// directory cannot be read to its end.
static bool next_entry(DIR *list, const char *path, struct dirent **entry, int *status, Error *e)
{
    do {
        errno = 0;
        *entry = readdir(list);
    } while (*entry && (*entry)->d_name[0] == '.');
    if (!*entry && errno) *status = fail_errno(e, STATUS_IO, "%s: cannot read", path);
    return *entry != NULL;
}

// A class whose images all fell into the test split, from `first` on, would have none to learn
// from. The one whose hash is nearest to those for training goes there, whatever the order of the
// directory.
static int keep_one_for_training(Scan *f, int64_t first, Error *e)
{
    ScanList *test = &f->images[SPLIT_TEST];
    int64_t chosen = first;
    uint64_t key, where, most = 0;
    for (int64_t i = first; i < test->n; i++) {
        hash_path(test->list[i].path, &key, &where);
        if (where >= most) chosen = i;
        if (where >= most) most = where;
    }
    const ScanImage moved = test->list[chosen];
    const int status =
        scan_list_add(&f->images[SPLIT_TRAIN], moved.path, moved.key, moved.label, e);
    if (status) return status;
    test->list[chosen] = test->list[--test->n];
    free(moved.path);
    return 0;
}

// Files of one class directory; `prefix` is "" or the split's directory with a slash.
static int scan_class(Scan *f, Split split, const char *prefix, int label, Error *e)
{
    char inside[1024], path[4096], full[8192];
    snprintf(path, sizeof path, "%s%s", prefix, f->classes[label]);
    snprintf(full, sizeof full, "%s/%s", f->dir, path);
    const int fd = open(full, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    // A class of the other split; what has its name here was left out.
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR) && *prefix) return 0;
    if (fd < 0) return fail_errno(e, open_status(errno), "%s: cannot open", full);
    DIR *list = fdopendir(fd);
    if (!list) {
        close(fd);
        return no_memory(e);
    }
    const int64_t train = f->images[SPLIT_TRAIN].n, test = f->images[SPLIT_TEST].n;
    int status = 0;
    for (struct dirent *entry; !status && next_entry(list, full, &entry, &status, e);) {
        snprintf(inside, sizeof inside, "%s/%s", f->classes[label], entry->d_name);
        snprintf(path, sizeof path, "%s%s", prefix, inside);
        const char *reason = why_not(type_of(dirfd(list), entry), entry->d_name);
        status = reason ? leave_out_entry(f, dirfd(list), entry, path, reason, e)
                        : add_image(f, split, path, inside, label, e);
    }
    closedir(list);
    if (status || f->images[SPLIT_TRAIN].n > train) return status;
    if (f->images[SPLIT_TEST].n > test) return f->split ? 0 : keep_one_for_training(f, test, e);
    return fail(e, STATUS_DATA, "%s: class \"%s\" is empty: no .jpg, .jpeg, .png or .bmp in it",
                full, f->classes[label]);
}

// Adds the class directories below `prefix` that are not known yet.
static int scan_classes(Scan *f, const char *prefix, int64_t *capacity, Error *e)
{
    char full[8192], path[4096];
    snprintf(full, sizeof full, "%s/%s", f->dir, prefix);
    DIR *list = opendir(full);
    if (!list) return fail_errno(e, open_status(errno), "%s: cannot open", full);
    const int known = f->class_count;
    int status = 0;
    for (struct dirent *entry; !status && next_entry(list, full, &entry, &status, e);) {
        const char *name = entry->d_name;
        const mode_t type = type_of(dirfd(list), entry);
        snprintf(path, sizeof path, "%s%s", prefix, name);
        if (type != S_IFDIR || !class_name_valid(name, strlen(name))) {
            const char *reason = type == S_IFDIR || type == S_IFLNK ? why_not(type, name)
                                                                    : "not a class's directory";
            status = leave_out_entry(f, dirfd(list), entry, path, reason, e);
            continue;
        }
        // classes[0..known) are sorted: those of the split before.
        if (known > 0 &&
            bsearch(&name, f->classes, (size_t)known, sizeof *f->classes, compare_strings))
            continue;
        char **classes = grow(f->classes, f->class_count, capacity, sizeof *classes);
        if (classes) f->classes = classes;
        if (!classes || !(f->classes[f->class_count] = strdup(name)))
            status = no_memory(e);
        else if (++f->class_count > SHARD_MAX_CLASSES)
            status = fail(e, STATUS_DATA, "%s: more than %d classes", full, SHARD_MAX_CLASSES);
    }
    closedir(list);
    if (f->classes) qsort(f->classes, (size_t)f->class_count, sizeof *f->classes, compare_strings);
    return status;
}

// S_IFDIR, S_IFLNK for a link to a directory, or 0.
static mode_t directory_type(const Scan *f, const char *name)
{
    char full[8192];
    struct stat st, seen;
    snprintf(full, sizeof full, "%s/%s", f->dir, name);
    if (stat(full, &st) || !S_ISDIR(st.st_mode) || lstat(full, &seen)) return 0;
    return seen.st_mode & S_IFMT;
}

static int find_layout(Scan *f, Error *e)
{
    static const char *const names[2] = {"train", "test"};
    mode_t type[2];
    for (int s = 0; s < 2; s++) type[s] = directory_type(f, names[s]);
    for (int s = 0; s < 2; s++) {
        if (type[s] == S_IFLNK && type[!s])
            return fail(e, STATUS_DATA, "%s/%s: is a symbolic link, which is not followed", f->dir,
                        names[s]);
        if (type[s] && !type[!s])
            return fail(e, STATUS_DATA,
                        "%s: has %s/ but no %s/: give both (val/ is to be renamed), or classes "
                        "alone",
                        f->dir, names[s], names[!s]);
    }
    f->split = type[0] != 0;
    if (f->split && f->test_fraction > 0)
        return fail(e, STATUS_USAGE, "--test-fraction: %s is split already, into train/ and test/",
                    f->dir);
    if (f->test_fraction <= 0) f->test_fraction = 0.1;
    return 0;
}

// What lies beside the splits, val/ for instance, is left out.
static int scan_beside_splits(Scan *f, Error *e)
{
    DIR *list = opendir(f->dir);
    if (!list) return fail_errno(e, open_status(errno), "%s: cannot open", f->dir);
    int status = 0;
    for (struct dirent *entry; !status && next_entry(list, f->dir, &entry, &status, e);)
        if (strcmp(entry->d_name, "train") != 0 && strcmp(entry->d_name, "test") != 0)
            status =
                leave_out_entry(f, dirfd(list), entry, entry->d_name, "beside train/ and test/", e);
    closedir(list);
    return status;
}

static int too_few_classes(const Scan *f, Error *e)
{
    const LeftOut *first;
    const bool missing = scan_folders_left_out(f, &first) > 0;
    return fail(e, STATUS_DATA,
                "%s: holds %d class directories, expected two or more: DIR/CLASS/*.jpg%s%s%s%s",
                f->dir, f->class_count, missing ? "; " : "", missing ? first->path : "",
                missing ? " is left out: " : "", missing ? first->reason : "");
}

static int scan(Scan *f, Error *e)
{
    static const char *const prefixes[2] = {"train/", "test/"};
    int64_t capacity = 0;
    int status = find_layout(f, e);
    if (!status && f->split) status = scan_beside_splits(f, e);
    for (int s = 0; s < (f->split ? 2 : 1) && !status; s++)
        status = scan_classes(f, f->split ? prefixes[s] : "", &capacity, e);
    if (!status && f->class_count < 2) status = too_few_classes(f, e);
    for (int s = 0; s < (f->split ? 2 : 1); s++)
        for (int k = 0; k < f->class_count && !status; k++)
            status = scan_class(f, (Split)s, f->split ? prefixes[s] : "", k, e);
    if (!status && !f->split && f->images[SPLIT_TEST].n == 0)
        status = fail(e, STATUS_DATA,
                      "%s: none of %" PRId64 " images falls into the test split; take a larger "
                      "--test-fraction or more pictures",
                      f->dir, f->images[SPLIT_TRAIN].n);
    for (int s = 0; s < 2 && !status; s++)
        if (f->images[s].n)
            qsort(f->images[s].list, (size_t)f->images[s].n, sizeof(ScanImage), compare_entries);
    return status;
}

int scan_open(Scan *f, const char *dir, double test_fraction, Error *e)
{
    *f = (Scan){.dir = dir, .test_fraction = test_fraction};
    return scan(f, e);
}

// ---- the list of what was left out --------------------------------------------------------------

// Names come from outside: a terminal must not obey them, and a backslash is none of ours.
static void print_escaped(FILE *out, const char *text)
{
    char escaped[4096];
    utf8_escape(escaped, sizeof escaped, text, '\\');
    fputs(escaped, out);
}

int64_t scan_folders_left_out(const Scan *f, const LeftOut **first)
{
    int64_t folders = 0;
    *first = NULL;
    for (int64_t i = 0; i < f->left_out_count; i++) {
        const LeftOut *l = &f->left_out[i];
        if (!l->folder) continue;
        if (folders++ == 0 || compare_left_out(l, *first) < 0) *first = l;
    }
    return folders;
}

char *scan_left_out(Scan *f, Error *e)
{
    if (f->left_out_count > 0)
        qsort(f->left_out, (size_t)f->left_out_count, sizeof *f->left_out, compare_left_out);
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    for (int64_t i = 0; out && i < f->left_out_count; i++) {
        print_escaped(out, f->left_out[i].path);
        fputc('\t', out);
        print_escaped(out, f->left_out[i].reason);
        fputc('\n', out);
    }
    const bool failed = !out || ferror(out);
    if ((!out || fclose(out) == 0) && !failed && text) return text; // glibc may lose it in fclose()
    free(text);
    fail(e, STATUS_IO, "no memory for the list of files that were left out");
    return NULL;
}

void scan_close(Scan *f)
{
    for (int split = 0; split < 2; split++) scan_list_free(&f->images[split]);
    for (int64_t i = 0; i < f->left_out_count; i++) {
        free(f->left_out[i].path);
        free(f->left_out[i].reason);
    }
    for (int k = 0; k < f->class_count; k++) free(f->classes[k]);
    free(f->classes);
    free(f->left_out);
    *f = (Scan){0};
}
