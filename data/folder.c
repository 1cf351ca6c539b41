// A folder of images, one directory a class.
//
// Images come in an order keyed by the hash of their path, not class by class: whoever looks at the
// first few thousand images sees all classes. Files that cannot be used are left out and listed;
// the run fails if they are more than one in a hundred.
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
#include "data/sha256.h"
#include "data/source.h"

enum {
    CHUNK_IMAGES = 1024, // decoded at a time, by all threads
    CHUNK_BYTES = 64 << 20,
};

typedef struct Entry {
    char *path;   // below the source directory
    uint64_t key; // the order
    int label;
} Entry;

typedef struct Entries {
    Entry *list;
    int64_t n, capacity;
} Entries;

typedef struct LeftOut {
    char *path, *reason;
} LeftOut;

// One image of the chunk that is being decoded.
typedef struct Decoded {
    int status;
    bool other_size; // than the first image, and no size was asked for
    Error error;
} Decoded;

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

    const char *first_path;        // of the image that gave the size
    uint8_t *pixels;               // (chunk, H, W, C)
    Decoded *decoded;              // (chunk)
    int64_t chunk;                 // images that fit
    int64_t next[2], chunk_end[2]; // the next image to give out, and the end of what is decoded
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
    l->list[l->n] = (Entry){strdup(path), key, label};
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

// The size of all images, if none was asked for: that of the first one that is good.
static int find_size(Source *s, Folder *f, Error *e)
{
    s->h = f->options.h;
    s->w = f->options.w;
    for (int64_t i = 0; i < f->images[SPLIT_TRAIN].n && s->h == 0; i++) {
        const Entry *entry = &f->images[SPLIT_TRAIN].list[i];
        char path[8192];
        uint8_t *bytes;
        size_t size;
        Error bad;
        full_path(f, entry, path);
        if (image_read(path, &bytes, &size, &bad)) continue;
        if (image_info(bytes, size, &s->h, &s->w, &bad)) s->h = 0;
        f->first_path = entry->path;
        free(bytes);
    }
    return s->h ? 0 : fail(e, STATUS_DATA, "%s: not one image can be read", f->dir);
}

static void decode(const Source *s, const Entry *entry, uint8_t *image, Decoded *d)
{
    const Folder *f = s->state;
    char path[8192];
    uint8_t *bytes;
    size_t size;
    int h, w;
    *d = (Decoded){0};
    full_path(f, entry, path);
    d->status = image_read(path, &bytes, &size, &d->error);
    if (!d->status && f->first_path) {
        d->status = image_info(bytes, size, &h, &w, &d->error);
        if (!d->status && (h != s->h || w != s->w)) {
            d->other_size = true;
            d->status = fail(&d->error, STATUS_DATA, "%dx%d", h, w);
        }
    }
    if (!d->status)
        d->status = image_decode(image, s->h, s->w, s->c, f->options.crop, bytes, size, &d->error);
    free(bytes);
}

static void decode_chunk(const Source *s, Folder *f, Split split)
{
    const Entries *l = &f->images[split];
    const int64_t first = f->next[split], left = l->n - first;
    const int64_t n = left < f->chunk ? left : f->chunk;
    const size_t image_bytes = (size_t)s->h * (size_t)s->w * (size_t)s->c;
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t i = 0; i < n; i++)
        decode(s, &l->list[first + i], f->pixels + (size_t)i * image_bytes, &f->decoded[i]);
    f->chunk_end[split] = first + n;
}

static int report_bad(const Source *s, Folder *f, const Entry *entry, const Decoded *d, Error *e)
{
    if (d->status == STATUS_IO) // ours, not the image's fault
        return fail(e, STATUS_IO, "%s/%s: %s", f->dir, entry->path, d->error.message);
    if (d->other_size)
        return fail(e, STATUS_DATA,
                    "images differ in size: %s is %s, %s is %dx%d; give --size %dx%d or another",
                    entry->path, d->error.message, f->first_path, s->h, s->w, s->h, s->w);
    const int64_t total = s->count[0] + s->count[1];
    if (++f->bad * 100 > total)
        return fail(e, STATUS_DATA,
                    "%s: more than 1%% of the %" PRId64 " images cannot be used; the last one is "
                    "%s: %s",
                    f->dir, total, entry->path, d->error.message);
    return leave_out(f, entry->path, d->error.message, e);
}

static int folder_next(Source *s, Split split, uint8_t *image, int *label, Error *e)
{
    Folder *f = s->state;
    const size_t image_bytes = (size_t)s->h * (size_t)s->w * (size_t)s->c;
    *label = -1;
    while (f->next[split] < f->images[split].n) {
        if (f->next[split] == f->chunk_end[split]) decode_chunk(s, f, split);
        // What is decoded are the last images before chunk_end; the chunk starts a whole number of
        // chunks into the split.
        const int64_t place = f->next[split] % f->chunk;
        const Entry *entry = &f->images[split].list[f->next[split]++];
        if (f->decoded[place].status == 0) {
            memcpy(image, f->pixels + (size_t)place * image_bytes, image_bytes);
            *label = entry->label;
            return 0;
        }
        const int status = report_bad(s, f, entry, &f->decoded[place], e);
        if (status) return status;
    }
    return 0;
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
        fprintf(out, "\t%s\n", f->left_out[i].reason);
    }
    fclose(out);
    return text;
}

static void folder_close(Source *s)
{
    Folder *f = s->state;
    if (!f) return;
    for (int split = 0; split < 2; split++) {
        for (int64_t i = 0; i < f->images[split].n; i++) free(f->images[split].list[i].path);
        free(f->images[split].list);
    }
    for (int64_t i = 0; i < f->left_out_count; i++) {
        free(f->left_out[i].path);
        free(f->left_out[i].reason);
    }
    for (int k = 0; k < f->class_count; k++) free(f->classes[k]);
    free(f->classes);
    free(f->left_out);
    free(f->pixels);
    free(f->decoded);
    free(f);
    s->state = NULL;
}

static int open_folder(Source *s, Folder *f, Error *e)
{
    int status = scan(f, e);
    if (!status) status = find_size(s, f, e);
    if (status) return status;
    const int64_t image_bytes = (int64_t)s->h * s->w * s->c;
    f->chunk = CHUNK_BYTES / image_bytes;
    if (f->chunk > CHUNK_IMAGES) f->chunk = CHUNK_IMAGES;
    if (f->chunk < 1) f->chunk = 1;
    f->pixels = malloc((size_t)(f->chunk * image_bytes));
    f->decoded = malloc((size_t)f->chunk * sizeof *f->decoded);
    if (!f->pixels || !f->decoded)
        return fail(e, STATUS_IO, "no memory for %" PRId64 " images of %dx%d", f->chunk, s->h,
                    s->w);
    s->classes = f->class_count;
    s->class_names = f->classes;
    for (int i = 0; i < 2; i++) s->count[i] = f->images[i].n;
    return 0;
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
