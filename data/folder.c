// A folder of images, one directory a class.
//
// Images come in an order keyed by the hash of their path, not class by class: whoever looks at the
// first few thousand images sees all classes. Files that cannot be used are left out and listed;
// the run fails if they are more than one in a hundred. This process reads the files; what looks at
// their contents are the processes of data/sandbox.h.
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

#include "data/image.h"
#include "data/sandbox.h"
#include "data/sha256.h"
#include "data/source.h"

// For one image; the largest pictures need a few.
enum { CPU_SECONDS = 30, STALL_SECONDS = 10 };

typedef struct Entry {
    char *path;   // below the source directory
    uint64_t key; // the order
    int label;
    char *bad; // why the file cannot be read, or NULL
} Entry;

typedef struct Entries {
    Entry *list;
    int64_t n, capacity;
} Entries;

typedef struct LeftOut {
    char *path, *reason;
} LeftOut;

// What the decoding processes make of an image.
typedef struct Wanted {
    int h, w, c; // h = 0: its size is asked for, no pixels
    bool crop;
    bool exact; // no other size will do
} Wanted;

typedef struct Folder {
    const char *dir;
    FolderOptions options;
    bool split; // the directory holds train/ and test/
    char **classes;
    int class_count;
    Entries images[2];

    LeftOut *left_out;
    int64_t left_out_count, left_out_capacity;
    int64_t bad; // of those, the ones that look like images by their name

    const char *first_path; // of the image that gave the size
    Wanted wanted;
    Sandbox *sandbox;
    int64_t put[2], taken[2]; // images that went into the sandbox, and came out
} Folder;

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

static int leave_out(Folder *f, const char *path, const char *reason, Error *e)
{
    LeftOut *list = grow(f->left_out, f->left_out_count, &f->left_out_capacity, sizeof *list);
    if (!list) return no_memory(e);
    f->left_out = list;
    LeftOut *l = &list[f->left_out_count++];
    l->path = strdup(path);
    l->reason = strdup(reason);
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

static int add_image(Folder *f, Split split, const char *path, const char *inside, int label,
                     Error *e)
{
    uint64_t key, where;
    hash_path(inside, &key, &where);
    if (!f->split && (double)where < f->options.test_fraction * 0x1p64) split = SPLIT_TEST;
    Entries *l = &f->images[split];
    Entry *list = grow(l->list, l->n, &l->capacity, sizeof *list);
    if (!list) return no_memory(e);
    l->list = list;
    l->list[l->n] = (Entry){strdup(path), key, label, NULL};
    return l->list[l->n++].path ? 0 : no_memory(e);
}

static int compare_entries(const void *a, const void *b)
{
    const Entry *x = a, *y = b;
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

static bool is_image_name(const char *name)
{
    static const char *const endings[] = {".jpg", ".jpeg", ".png", ".bmp"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(dot, endings[i]) == 0) return true;
    return false;
}

static const char *why_not(mode_t type, const char *name)
{
    if (!class_name_valid(name, strlen(name)))
        return "the name is not UTF-8 or has control characters";
    if (type == S_IFLNK) return "a symbolic link";
    if (type == S_IFDIR) return "a directory inside a class";
    if (type != S_IFREG) return "not a regular file";
    return is_image_name(name) ? NULL : "not .jpg, .jpeg, .png or .bmp";
}

// Files of one class directory; `prefix` is "" or the split's directory with a slash.
static int scan_class(Folder *f, Split split, const char *prefix, int label, Error *e)
{
    char inside[1024], path[4096], full[8192];
    snprintf(path, sizeof path, "%s%s", prefix, f->classes[label]);
    snprintf(full, sizeof full, "%s/%s", f->dir, path);
    DIR *list = opendir(full);
    if (!list && errno == ENOENT && *prefix) return 0; // a class of the other split
    if (!list) return fail_errno(e, STATUS_DATA, "%s: cannot open", full);
    int64_t before = f->images[0].n + f->images[1].n;
    int status = 0;
    for (struct dirent *entry; !status && (entry = readdir(list));) {
        if (entry->d_name[0] == '.') continue;
        snprintf(inside, sizeof inside, "%s/%s", f->classes[label], entry->d_name);
        snprintf(path, sizeof path, "%s%s", prefix, inside);
        const char *reason = why_not(type_of(dirfd(list), entry), entry->d_name);
        status =
            reason ? leave_out(f, path, reason, e) : add_image(f, split, path, inside, label, e);
    }
    closedir(list);
    if (!status && f->images[0].n + f->images[1].n == before)
        status =
            fail(e, STATUS_DATA, "%s: class \"%s\" is empty: no .jpg, .jpeg, .png or .bmp in it",
                 full, f->classes[label]);
    return status;
}

// Adds the class directories below `prefix` that are not known yet.
static int scan_classes(Folder *f, const char *prefix, int64_t *capacity, Error *e)
{
    char full[8192], path[4096];
    snprintf(full, sizeof full, "%s/%s", f->dir, prefix);
    DIR *list = opendir(full);
    if (!list) return fail_errno(e, STATUS_DATA, "%s: cannot open", full);
    const int known = f->class_count;
    int status = 0;
    for (struct dirent *entry; !status && (entry = readdir(list));) {
        const char *name = entry->d_name;
        if (name[0] == '.') continue;
        const mode_t type = type_of(dirfd(list), entry);
        snprintf(path, sizeof path, "%s%s", prefix, name);
        if (type != S_IFDIR || !class_name_valid(name, strlen(name))) {
            const char *reason = type == S_IFDIR ? why_not(type, name) : "not a class's directory";
            status = leave_out(f, path, reason, e);
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
    if (f->class_count)
        qsort(f->classes, (size_t)f->class_count, sizeof *f->classes, compare_strings);
    return status;
}

static bool has_directory(const Folder *f, const char *name)
{
    char full[8192];
    struct stat st;
    snprintf(full, sizeof full, "%s/%s", f->dir, name);
    return stat(full, &st) == 0 && S_ISDIR(st.st_mode);
}

static int find_layout(Folder *f, Error *e)
{
    const bool train = has_directory(f, "train"), test = has_directory(f, "test");
    f->split = train && test;
    if (train != test)
        return fail(e, STATUS_DATA,
                    "%s: has %s/ but no %s/: give both (val/ is to be renamed), or classes alone",
                    f->dir, train ? "train" : "test", train ? "test" : "train");
    if (f->split && f->options.test_fraction > 0)
        return fail(e, STATUS_USAGE, "--test-fraction: %s is split already, into train/ and test/",
                    f->dir);
    if (f->options.test_fraction <= 0) f->options.test_fraction = 0.1;
    return 0;
}

static int scan(Folder *f, Error *e)
{
    static const char *const prefixes[2] = {"train/", "test/"};
    int64_t capacity = 0;
    int status = find_layout(f, e);
    for (int s = 0; s < (f->split ? 2 : 1) && !status; s++)
        status = scan_classes(f, f->split ? prefixes[s] : "", &capacity, e);
    if (!status && f->class_count < 2)
        status = fail(e, STATUS_DATA,
                      "%s: holds %d class directories, expected two or more: DIR/CLASS/*.jpg",
                      f->dir, f->class_count);
    for (int s = 0; s < (f->split ? 2 : 1); s++)
        for (int k = 0; k < f->class_count && !status; k++)
            status = scan_class(f, (Split)s, f->split ? prefixes[s] : "", k, e);
    for (int s = 0; s < 2 && !status; s++)
        if (f->images[s].n)
            qsort(f->images[s].list, (size_t)f->images[s].n, sizeof(Entry), compare_entries);
    return status;
}

// ---- decoding -----------------------------------------------------------------------------------

static void full_path(const Folder *f, const Entry *entry, char path[8192])
{
    snprintf(path, 8192, "%s/%s", f->dir, entry->path);
}

// In a decoding process.
static void decode(const void *context, const uint8_t *bytes, size_t size, uint8_t *image,
                   SandboxResult *r)
{
    const Wanted *want = context;
    Error e = {0};
    int h = 0, w = 0;
    r->status = image_info(bytes, size, &h, &w, &e);
    if (!r->status) {
        r->h = h;
        r->w = w;
        if (want->exact && (h != want->h || w != want->w))
            r->status = fail(&e, STATUS_DATA, "%dx%d", h, w);
        else if (want->h)
            r->status =
                image_decode(image, want->h, want->w, want->c, want->crop, bytes, size, h, w, &e);
    }
    snprintf(r->reason, sizeof r->reason, "%.199s", r->status ? e.message : "");
}

static int open_sandbox(Source *s, Folder *f, int64_t images, Error *e)
{
    int workers = f->options.workers;
    if (images < 64 * (int64_t)workers) workers = (int)(images / 64) + 1;
    const SandboxConfig config = {
        .work = decode,
        .context = &f->wanted,
        .out_bytes = (size_t)f->wanted.h * (size_t)f->wanted.w * (size_t)f->wanted.c,
        .max_input = IMAGE_MAX_BYTES,
        .workers = workers,
        .cpu_seconds = CPU_SECONDS,
        .stall_seconds = STALL_SECONDS,
    };
    const int status = sandbox_open(&f->sandbox, &config, e);
    if (!status && !sandbox_strict(f->sandbox))
        s->notice = "this system has no seccomp: images are decoded with limits on memory and time "
                    "alone";
    return status;
}

// Reads files into the sandbox until it is full or the split ends.
static int feed(Folder *f, Split split, Error *e)
{
    const Entries *l = &f->images[split];
    uint8_t *input;
    while (f->put[split] < l->n && (input = sandbox_input(f->sandbox))) {
        Entry *entry = &l->list[f->put[split]];
        char path[8192];
        size_t size;
        Error bad;
        full_path(f, entry, path);
        const int status = image_read(path, input, &size, &bad);
        if (status == STATUS_IO) return fail(e, STATUS_IO, "%s: %s", path, bad.message);
        if (!status)
            sandbox_put(f->sandbox, size);
        else if (!(entry->bad = strdup(bad.message)))
            return no_memory(e);
        f->put[split]++;
    }
    return 0;
}

// The next image's entry and what became of it; *entry is NULL after the last one.
static int take(Folder *f, Split split, Entry **entry, const uint8_t **image, SandboxResult *r,
                Error *e)
{
    *entry = NULL;
    int status = feed(f, split, e);
    if (status || f->taken[split] == f->images[split].n) return status;
    *entry = &f->images[split].list[f->taken[split]++];
    if (!(*entry)->bad) return sandbox_take(f->sandbox, image, r, e);
    *r = (SandboxResult){.status = STATUS_DATA};
    snprintf(r->reason, sizeof r->reason, "%s", (*entry)->bad);
    return 0;
}

// The size of all images, if none was asked for: that of the first one that is good.
static int find_size(Source *s, Folder *f, Error *e)
{
    int status = open_sandbox(s, f, 1, e);
    while (!status && s->h == 0) {
        const uint8_t *image;
        Entry *entry;
        SandboxResult r;
        status = take(f, SPLIT_TRAIN, &entry, &image, &r, e);
        if (!status && !entry)
            status = fail(e, STATUS_DATA, "%s: not one image can be read", f->dir);
        // A decoding process is not to be believed.
        if (status || r.status || r.h < 1 || r.w < 1 || r.h > SHARD_MAX_SIDE ||
            r.w > SHARD_MAX_SIDE)
            continue;
        s->h = r.h;
        s->w = r.w;
        f->first_path = entry->path;
    }
    sandbox_close(f->sandbox);
    f->sandbox = NULL;
    f->put[SPLIT_TRAIN] = f->taken[SPLIT_TRAIN] = 0;
    return status;
}

static int report_bad(const Source *s, Folder *f, const Entry *entry, const SandboxResult *r,
                      Error *e)
{
    if (f->wanted.exact && r->h && (r->h != s->h || r->w != s->w))
        return fail(e, STATUS_DATA,
                    "images differ in size: %s is %dx%d, %s is %dx%d; give --size %dx%d or another",
                    entry->path, r->h, r->w, f->first_path, s->h, s->w, s->h, s->w);
    const int64_t total = s->count[0] + s->count[1];
    if (++f->bad * 100 > total)
        return fail(e, STATUS_DATA,
                    "%s: more than 1%% of the %" PRId64 " images cannot be used; the last one is "
                    "%s: %s",
                    f->dir, total, entry->path, r->reason);
    return leave_out(f, entry->path, r->reason, e);
}

static int folder_next(Source *s, Split split, uint8_t *image, int *label, Error *e)
{
    Folder *f = s->state;
    *label = -1;
    for (;;) {
        const uint8_t *pixels;
        Entry *entry;
        SandboxResult r;
        int status = take(f, split, &entry, &pixels, &r, e);
        if (status || !entry) return status;
        if (r.status == 0) {
            memcpy(image, pixels, (size_t)s->h * (size_t)s->w * (size_t)s->c);
            *label = entry->label;
            return 0;
        }
        status = report_bad(s, f, entry, &r, e);
        if (status) return status;
    }
}

// ---- the list of what was left out --------------------------------------------------------------

// Names come from outside: everything but printable ASCII and UTF-8 letters is written as \xNN.
static void print_escaped(FILE *out, const char *text)
{
    const bool utf8 = class_name_valid(text, strlen(text));
    for (const char *s = text; *s; s++) {
        const unsigned char c = (unsigned char)*s;
        if (c < 0x20 || c == 0x7f || c == '\\' || (c >= 0x80 && !utf8))
            fprintf(out, "\\x%02x", c);
        else
            fputc(c, out);
    }
}

static char *folder_left_out(Source *s, int64_t *files)
{
    Folder *f = s->state;
    *files = f->left_out_count;
    if (f->left_out_count == 0) return NULL;
    qsort(f->left_out, (size_t)f->left_out_count, sizeof *f->left_out, compare_left_out);
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out) return NULL;
    for (int64_t i = 0; i < f->left_out_count; i++) {
        print_escaped(out, f->left_out[i].path);
        fputc('\t', out);
        print_escaped(out, f->left_out[i].reason);
        fputc('\n', out);
    }
    fclose(out);
    return text;
}

static void folder_close(Source *s)
{
    Folder *f = s->state;
    if (!f) return;
    for (int split = 0; split < 2; split++) {
        for (int64_t i = 0; i < f->images[split].n; i++) {
            free(f->images[split].list[i].path);
            free(f->images[split].list[i].bad);
        }
        free(f->images[split].list);
    }
    for (int64_t i = 0; i < f->left_out_count; i++) {
        free(f->left_out[i].path);
        free(f->left_out[i].reason);
    }
    for (int k = 0; k < f->class_count; k++) free(f->classes[k]);
    free(f->classes);
    free(f->left_out);
    sandbox_close(f->sandbox);
    free(f);
    s->state = NULL;
}

static int open_folder(Source *s, Folder *f, Error *e)
{
    int status = scan(f, e);
    s->h = f->options.h;
    s->w = f->options.w;
    if (!status && s->h == 0) status = find_size(s, f, e);
    if (status) return status;
    for (int i = 0; i < 2; i++) s->count[i] = f->images[i].n;
    s->classes = f->class_count;
    s->class_names = f->classes;
    f->wanted = (Wanted){s->h, s->w, s->c, f->options.crop, f->options.h == 0};
    return open_sandbox(s, f, s->count[0] + s->count[1], e);
}

int folder_open(Source *s, const char *dir, const FolderOptions *o, Error *e)
{
    *s = (Source){
        .c = o->c, .next = folder_next, .left_out = folder_left_out, .close = folder_close};
    Folder *f = s->state = calloc(1, sizeof *f);
    if (!f) return no_memory(e);
    f->dir = dir;
    f->options = *o;
    const int status = open_folder(s, f, e);
    if (status) folder_close(s);
    return status;
}
