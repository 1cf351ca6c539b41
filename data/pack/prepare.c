// prepare: makes a data set of shards from idx files (MNIST), the binary CIFAR files or a folder of
// images, and looks at shards.
//     data/prepare folder photos --size 64x64 --out data/photos
//     ./train_cnn --data data/photos
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/dataset.h"
#include "data/decode/image.h"
#include "data/pack/pack.h"
#include "data/pack/source.h"
#include "base/args.h"
#include "base/mounts.h"
#include "base/os.h"

static const char usage[] =
    "usage: prepare idx|cifar|folder SRC --out DIR [options]\n"
    "       prepare info FILE.nns\n"
    "       prepare check FILE.nns|DIR\n"
    "\n"
    "  idx     SRC holds the four files of MNIST or Fashion-MNIST, as they are or as .gz\n"
    "  cifar   SRC holds the binary version of CIFAR-10 or CIFAR-100, unpacked\n"
    "  folder  SRC/CLASS/*.jpg, .jpeg, .png, .bmp; or SRC/train/CLASS/* and SRC/test/CLASS/*\n"
    "  info    prints what a shard says about itself\n"
    "  check   reads a shard or a data set whole and checks every sum\n";

typedef struct Options {
    const char *source, *out, *size;
    bool grey, rgb, crop, exif, skip_bad, force;
    double test_fraction;
    int64_t shard_bytes, workers;
} Options;

static Options o = {.exif = true, .shard_bytes = 1 << 30};

static Arg table[] = {
    ARG_POSITIONAL("SRC", &o.source, "the directory with the data"),
    ARG_STRING("out", &o.out, "DIR", "where the data set appears, whole or not at all"),
    ARG_FLAG("force", &o.force, "replace a data set that is there"),
    ARG_STRING("size", &o.size, "HxW", "resize all images"),
    ARG_FLAG("crop", &o.crop, "with --size: cut to its shape; without, images are stretched"),
    ARG_FLAG("grey", &o.grey, "one channel"),
    ARG_FLAG("rgb", &o.rgb, "three channels"),
    ARG_ONOFF("exif", &o.exif, "turn photos as their metadata say (EXIF)"),
    ARG_FLAG("skip-bad", &o.skip_bad, "leave out bad images, however many there are"),
    ARG_DOUBLE("test-fraction", &o.test_fraction, 0, 0.9,
               "of a folder without train/ and test/; 0: a tenth"),
    ARG_INT("shard-bytes", &o.shard_bytes, 1, SHARD_MAX_BYTES, "images in one file"),
    ARG_INT("workers", &o.workers, 0, 1024, "processes that decode a folder; 0: as processors"),
};
enum { TABLE = sizeof table / sizeof *table };

// ---- packing ------------------------------------------------------------------------------------

static int parse_size(int *h, int *w, Error *e)
{
    char rest;
    if (!o.size) return 0;
    if (sscanf(o.size, "%5dx%5d%c", h, w, &rest) == 2 && *h >= 1 && *w >= 1 &&
        *h <= SHARD_MAX_SIDE && *w <= SHARD_MAX_SIDE)
        return 0;
    return fail(e, STATUS_USAGE,
                "--size %s: expected height x width of 1..%d each, as --size 64x64", o.size,
                SHARD_MAX_SIDE);
}

static int check_options(const char *command, Error *e)
{
    if (!o.source)
        return fail(e, STATUS_USAGE,
                    "%s: give the directory with the data: prepare %s SRC --out DIR", command,
                    command);
    if (!o.out) return fail(e, STATUS_USAGE, "give the new data set's directory: --out DIR");
    if (o.grey && o.rgb) return fail(e, STATUS_USAGE, "give --grey or --rgb, not both");
    if (o.crop && !o.size) return fail(e, STATUS_USAGE, "--crop needs --size HxW");
    if (o.test_fraction > 0 && strcmp(command, "folder") != 0)
        return fail(e, STATUS_USAGE, "--test-fraction: %s data is split already", command);
    if ((!o.exif || o.skip_bad) && strcmp(command, "folder") != 0)
        return fail(e, STATUS_USAGE, "--exif and --skip-bad: %s data holds no image files",
                    command);
    if (o.workers > 0 && strcmp(command, "folder") != 0)
        return fail(e, STATUS_USAGE, "--workers: %s data needs no decoding", command);
    return 0;
}

// What makes an image of the source one of the data set. A folder does this while it decodes.
typedef struct Conversion {
    int h, w, c;
    uint8_t *from, *channels, *to; // as it comes; with c channels; the result
} Conversion;

static int convert(const Source *s, const Conversion *v, const uint8_t **image, Error *e)
{
    const size_t pixels = (size_t)s->h * (size_t)s->w;
    const uint8_t *x = v->from;
    if (s->c != v->c) {
        if (v->c == 1)
            image_to_grey(v->channels, x, pixels);
        else
            for (size_t i = 0; i < 3 * pixels; i++) v->channels[i] = x[i / 3];
        x = v->channels;
    }
    *image = x;
    if (s->h == v->h && s->w == v->w) return 0;
    *image = v->to;
    return image_resize(v->to, v->h, v->w, x, s->h, s->w, v->c, o.crop, e);
}

typedef struct Progress {
    bool shown;
    double start, last;
    int64_t done, total;
} Progress;

static void show_progress(Progress *p)
{
    p->done++;
    if (!p->shown || p->done % 64) return;
    const double now = os_seconds();
    if (now - p->last < 0.1) return;
    p->last = now;
    fprintf(stderr, "\r\033[K%" PRId64 " of %" PRId64 " images, %.0f/s", p->done, p->total,
            (double)p->done / (now - p->start));
}

static void end_progress(const Progress *p)
{
    if (p->shown) fprintf(stderr, "\r\033[K");
}

// Images of each class and split.
typedef int64_t (*Counts)[2];

static int pack_split(Source *s, Split split, const Conversion *v, Packer *packer, Counts counts,
                      Progress *progress, Error *e)
{
    for (;;) {
        int label;
        const uint8_t *image;
        int status = s->next(s, split, v->from, &label, e);
        if (status || label < 0) return status;
        status = convert(s, v, &image, e);
        if (!status) status = packer_add(packer, split, image, label, e);
        if (!status) status = os_check_stop(e);
        if (status) return status;
        counts[label][split]++;
        show_progress(progress);
    }
}

static const char list_heading[] = "# left out by data/prepare: a path, a tab and the reason\n";

// Opens a list of ours anew; -1 if it cannot be, as for a file of others.
static int open_list(const char *path)
{
    char text[sizeof list_heading] = "";
    const int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (fd < 0) return -1;
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
        (st.st_size == 0 || (pread(fd, text, sizeof text - 1, 0) == sizeof text - 1 &&
                             strcmp(text, list_heading) == 0 && ftruncate(fd, 0) == 0)))
        return fd;
    close(fd);
    return -1;
}

// There is no data set to hold the list after a refusal: it lies beside its place.
static void write_list(Source *s, Error *e)
{
    Error ignored;
    int64_t files = 0;
    char path[4200], *text = s->left_out ? s->left_out(s, &files, &ignored) : NULL;
    size_t length = strlen(o.out);
    while (length > 1 && o.out[length - 1] == '/') length--;
    snprintf(path, sizeof path, "%.*s.bad_files.tsv", (int)length, o.out);
    const int fd = text && files ? open_list(path) : -1;
    FILE *list = fd < 0 ? NULL : fdopen(fd, "w");
    const bool written = list && fprintf(list, "%s%s", list_heading, text) > 0;
    if (list && fclose(list) == 0 && written) {
        const Error refusal = *e;
        fail(e, refusal.status, "%.700s (list: %.250s)", refusal.message, path);
    }
    free(text);
}

// The list of files that were left out goes into the data set's directory.
static int add_left_out(Source *s, Packer *packer, int64_t *files, Error *e)
{
    if (!s->left_out) return 0;
    char *text = s->left_out(s, files, e);
    if (!text) return e->status;
    int status = 0;
    if (*files) status = packer_add_file(packer, "bad_files.tsv", text, strlen(text), e);
    free(text);
    return status;
}

static int check_classes(const Source *s, Counts counts, Error *e)
{
    int first = -1, more = 0;
    for (int k = 0; k < s->classes; k++) {
        if (counts[k][SPLIT_TRAIN] > 0) continue;
        if (first < 0)
            first = k;
        else
            more++;
    }
    if (first < 0) return 0;
    return fail(e, STATUS_DATA,
                "class \"%s\"%s has no usable image in the train split: take it out",
                s->class_names[first], more ? " (and others)" : "");
}

// A word of a shell command.
static void print_word(const char *word)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
    const bool quoted = word[strspn(word, plain)] != '\0';
    if (quoted) putchar('\'');
    for (; *word; word++)
        if (*word == '\'')
            printf("'\\''");
        else
            putchar(*word);
    if (quoted) putchar('\'');
}

static void print_summary(const Source *s, const Conversion *v, const PackSummary *p, Counts counts,
                          int64_t left_out, double seconds)
{
    printf("%s: %" PRId64 " train and %" PRId64 " test images of %dx%dx%d, %d classes\n", o.out,
           p->n[0], p->n[1], v->h, v->w, v->c, s->classes);
    for (int k = 0; k < s->classes && k < 20; k++)
        printf("  %-20s %9" PRId64 " train %9" PRId64 " test\n", s->class_names[k], counts[k][0],
               counts[k][1]);
    if (s->classes > 20) printf("  and %d more\n", s->classes - 20);
    printf("mean");
    for (int k = 0; k < v->c; k++) printf(" %.6f", (double)p->mean[k]);
    printf("  std");
    for (int k = 0; k < v->c; k++) printf(" %.6f", (double)p->std[k]);
    printf("  (of x/255)\n");
    if (left_out)
        printf("%" PRId64 " files were left out: see %s/bad_files.tsv\n", left_out, o.out);
    printf("%d files, %.1f MB, %.2f s\n", p->shards, (double)p->bytes * 1e-6, seconds);
    printf("next: ./train_%s --data ", v->c == 1 ? "mlp" : "cnn");
    print_word(o.out);
    printf("\n");
}

static int open_source(Source *s, const char *command, int h, int w, Error *e)
{
    const FolderOptions folder = {.h = h,
                                  .w = w,
                                  .c = o.grey ? 1 : 3,
                                  .crop = o.crop,
                                  .as_stored = !o.exif,
                                  .skip_bad = o.skip_bad,
                                  .test_fraction = o.test_fraction,
                                  .workers = o.workers ? (int)o.workers : os_cpu_count()};
    if (strcmp(command, "idx") == 0) return idx_open(s, o.source, e);
    if (strcmp(command, "cifar") == 0) return cifar_open(s, o.source, e);
    return folder_open(s, o.source, &folder, e);
}

static int pack_all(Source *s, const Conversion *v, Packer *packer, Counts counts, double start,
                    Error *e)
{
    Progress progress = {.shown = os_is_terminal(STDERR_FILENO),
                         .start = os_seconds(),
                         .total = s->count[0] + s->count[1]};
    PackSummary summary;
    int64_t left_out = 0;
    int status = 0;
    for (int split = 0; split < 2 && !status; split++)
        status = pack_split(s, (Split)split, v, packer, counts, &progress, e);
    end_progress(&progress);
    if (!status) status = check_classes(s, counts, e);
    if (!status) status = add_left_out(s, packer, &left_out, e);
    if (!status) status = packer_commit(packer, &summary, e);
    if (!status) print_summary(s, v, &summary, counts, left_out, os_seconds() - start);
    return status;
}

static int pack_source(Source *s, const char *command, int h, int w, double start, Error *e)
{
    Conversion v = {.h = h ? h : s->h, .w = w ? w : s->w, .c = o.grey ? 1 : o.rgb ? 3 : s->c};
    char options[256];
    snprintf(options, sizeof options, "%s %dx%dx%d crop %d test-fraction %g shard-bytes %" PRId64,
             command, v.h, v.w, v.c, o.crop, o.test_fraction, o.shard_bytes);
    const PackConfig config = {.h = v.h,
                               .w = v.w,
                               .c = v.c,
                               .classes = s->classes,
                               .class_names = s->class_names,
                               .crop = o.crop,
                               .most = {s->count[0], s->count[1]},
                               .shard_bytes = o.shard_bytes,
                               .options = options,
                               .force = o.force};
    Packer *packer = NULL;
    Counts counts = calloc((size_t)s->classes, sizeof *counts);
    v.from = malloc((size_t)s->h * (size_t)s->w * 3);
    v.channels = malloc((size_t)s->h * (size_t)s->w * 3);
    v.to = malloc((size_t)v.h * (size_t)v.w * 3);
    int status = 0;
    if (!counts || !v.from || !v.channels || !v.to)
        status = fail(e, STATUS_IO, "no memory for images of %dx%d", s->h, s->w);
    if (!status) status = packer_open(&packer, o.out, &config, e);
    if (!status) status = pack_all(s, &v, packer, counts, start, e);
    packer_close(packer);
    free(counts);
    free(v.from);
    free(v.channels);
    free(v.to);
    return status;
}

static int pack(const char *command, int argc, char **argv, Error *e)
{
    const double start = os_seconds();
    int h = 0, w = 0;
    int status = args_parse(table, TABLE, argc, argv, e);
    if (!status) status = check_options(command, e);
    if (!status) status = parse_size(&h, &w, e);
    if (status) return status;
    os_catch_stop_signals(); // a run that is told to stop cleans up and ends
    Source source;
    status = open_source(&source, command, h, w, e);
    if (!status) {
        if (source.notice) warn("%s", source.notice);
        if (source.missing) warn("%s", source.missing);
        if (on_windows_drive(o.source)) warn("%s is on a Windows drive: reading is slow", o.source);
        status = pack_source(&source, command, h, w, start, e);
    }
    if (status == STATUS_DATA) write_list(&source, e);
    source.close(&source);
    return status;
}

// ---- looking at shards --------------------------------------------------------------------------

static void print_header(const Shard *s)
{
    const ShardHeader *h = &s->header;
    printf("%s: %s shard %u of %u\n", s->path, split_names[h->split], h->shard, h->shards);
    printf("images   %" PRIu64 " of %ux%ux%u, indices %" PRIu64 "..%" PRIu64 " of %" PRIu64 "\n",
           h->n, h->h, h->w, h->c, h->first_index, h->first_index + h->n - 1, h->dataset_n);
    printf("file     version %d.%d, %" PRIu64 " bytes, %" PRId64 " blocks\n", h->major, h->minor,
           h->file_bytes, s->blocks);
    for (uint32_t k = 0; k < h->c; k++)
        printf("channel  %u: mean %.6f std %.6f\n", k, (double)h->mean[k], (double)h->std[k]);
    printf("id       ");
    for (size_t i = 0; i < sizeof h->id; i++) printf("%02x", h->id[i]);
    printf("\nclasses  %u\n", h->classes);
    for (uint32_t k = 0; k < h->classes; k++)
        printf("  %-5u %-20s %" PRIu64 "\n", k, s->names[k], s->counts[k]);
}

static int info(const char *path, Error *e)
{
    Shard s;
    const int status = shard_open(&s, path, e);
    if (status) return status;
    print_header(&s);
    shard_close(&s);
    return 0;
}

static int check_data_set(const char *dir, Error *e)
{
    Dataset d;
    const int status = dataset_open(&d, dir, true, e);
    if (status) return status;
    printf("%s: %" PRId64 " train and %" PRId64 " test images of %dx%dx%d are intact\n", dir,
           d.n[0], d.n[1], d.h, d.w, d.c);
    dataset_close(&d);
    return 0;
}

static int check_shard(const char *path, Error *e)
{
    Shard s;
    int status = shard_open(&s, path, e);
    if (status) return status;
    status = shard_verify(&s, e);
    if (!status) printf("%s: %" PRIu64 " images are intact\n", path, s.header.n);
    shard_close(&s);
    return status;
}

static int look(const char *command, int argc, char **argv, Error *e)
{
    const char *path = NULL;
    Arg positional[] = {ARG_POSITIONAL("FILE", &path, "a shard or a data set")};
    const int status = args_parse(positional, 1, argc, argv, e);
    if (status) return status;
    if (!path)
        return fail(e, STATUS_USAGE, "%s: give the file: prepare %s FILE.nns", command, command);
    if (strcmp(command, "info") == 0) return info(path, e);
    struct stat st;
    const bool directory = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    return directory ? check_data_set(path, e) : check_shard(path, e);
}

int main(int argc, char **argv)
{
    os_open_streams();
    os_check_output_at_exit();
    if (args_help_asked(argc, argv)) {
        args_help(table, TABLE, stdout, usage);
        return 0;
    }
    const char *command = argc > 1 ? argv[1] : "";
    Error e;
    int status;
    if (strcmp(command, "idx") == 0 || strcmp(command, "cifar") == 0 ||
        strcmp(command, "folder") == 0)
        status = pack(command, argc - 1, argv + 1, &e);
    else if (strcmp(command, "info") == 0 || strcmp(command, "check") == 0)
        status = look(command, argc - 1, argv + 1, &e);
    else
        status =
            fail(&e, STATUS_USAGE,
                 "unknown command \"%s\": idx, cifar, folder, info or check; see --help", command);
    check(status, &e);
    return 0;
}
