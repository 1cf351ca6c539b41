#include "data/decode/picture_list.h"

#include <errno.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int class_of(const char *name, char *const *class_names, int classes)
{
    for (int k = 0; k < classes; k++)
        if (strcmp(name, class_names[k]) == 0) return k;
    return -1;
}

static int compare_names(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

// The class of a directory; one that the user gave may be "." or a link: then that of what it is.
static int class_of_directory(const FTSENT *entry, char *const *class_names, int classes)
{
    int k = class_of(entry->fts_name, class_names, classes);
    char *path = k < 0 && entry->fts_level == 0 ? realpath(entry->fts_path, NULL) : NULL;
    if (path) k = class_of(strrchr(path, '/') + 1, class_names, classes);
    free(path);
    return k;
}

// fts_number of a directory: its class + 1.
static int add_entry(ScanList *l, FTS *tree, FTSENT *entry, char *const *class_names, int classes,
                     Error *e)
{
    const bool hidden = entry->fts_level > 0 && entry->fts_name[0] == '.';
    switch (entry->fts_info) {
    case FTS_D:
        if (hidden) fts_set(tree, entry, FTS_SKIP);
        entry->fts_number = class_of_directory(entry, class_names, classes) + 1;
        return 0;
    case FTS_F:
        if (hidden || !scan_is_image_name(entry->fts_name)) return 0;
        break;
    case FTS_DNR: // reading it as a picture will say why
    case FTS_NS:
    case FTS_ERR:
        break;
    default:
        return 0;
    }
    return scan_list_add(l, entry->fts_path, 0, (int)entry->fts_parent->fts_number - 1, e);
}

static int add_folder(ScanList *l, char *path, char *const *class_names, int classes, Error *e)
{
    const int64_t before = l->n;
    FTS *tree =
        fts_open((char *[]){path, NULL}, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, compare_names);
    if (!tree) return fail_errno(e, STATUS_IO, "%s: cannot list", path);
    int status = 0;
    FTSENT *entry;
    errno = 0;
    while (!status && (entry = fts_read(tree)))
        status = add_entry(l, tree, entry, class_names, classes, e);
    if (!status && errno) status = fail_errno(e, STATUS_IO, "%s: cannot list", path);
    fts_close(tree);
    if (!status && l->n == before)
        status = fail(e, STATUS_DATA, "%s: no .jpg, .jpeg, .png or .bmp in it", path);
    return status;
}

int named_open(NamedPictures *p, char *const *paths, int count, const Dataset *d, int workers,
               Error *e)
{
    const Wanted wanted = {.h = d->h, .w = d->w, .c = d->c, .crop = d->crop};
    int status = 0;
    *p = (NamedPictures){.queue.list = &p->list};
    for (int i = 0; i < count && !status; i++) {
        struct stat st;
        const bool folder =
            strcmp(paths[i], "-") != 0 && stat(paths[i], &st) == 0 && S_ISDIR(st.st_mode);
        p->folders |= folder;
        status = folder ? add_folder(&p->list, paths[i], d->class_names, d->classes, e)
                        : scan_list_add(&p->list, paths[i], 0, -1, e);
    }
    if (!status) status = decoder_open(&p->decoder, &wanted, p->list.n, workers, e);
    if (status) scan_list_free(&p->list);
    return status;
}

void named_close(NamedPictures *p)
{
    decoder_close(&p->decoder);
    scan_list_free(&p->list);
}
