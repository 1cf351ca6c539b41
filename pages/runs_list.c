#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/progress.h"
#include "base/utf8.h"
#include "pages/runs.h"

enum { DATE, NAME, NETWORK, DATA, DEVICE, TEST, TIME, COLUMNS, CELL_SIZE = 1024 };

static const struct {
    const char *title;
    size_t least; // characters it may be cut to; 0: it stays whole
    bool number;
} columns[COLUMNS] = {
    [DATE] = {"started", 0, false},    [NAME] = {"run", 27, false},
    [NETWORK] = {"network", 8, false}, [DATA] = {"data", 6, false},
    [DEVICE] = {"device", 6, false},   [TEST] = {"test", 0, true},
    [TIME] = {"trained", 0, true},
};

typedef struct Line {
    char date[RUN_DATE_SIZE]; // what the list is sorted by
    char cells[COLUMNS][CELL_SIZE];
} Line;

typedef struct List {
    Line *lines;
    size_t count;
    const char *dir;  // that is being read
    bool short_names; // of the runs in runs/
    bool out_of_memory;
} List;

// ---- a run's line -------------------------------------------------------------------------------

static void set(Line *line, int column, const char *text)
{
    utf8_escape(line->cells[column], CELL_SIZE, text, 0);
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

// "cpu", or the GPU's name out of "NVIDIA H200, sm_90, 132 SMs, 139.8 GB".
static void device_name(const SavedRun *r, char name[static CELL_SIZE])
{
    const char *kind = json_text(saved_run_get(r, "device_kind"));
    const char *device = json_text(saved_run_get(r, "device"));
    if (strncmp(device, "NVIDIA ", 7) == 0) device += 7;
    if (strcmp(kind, "cpu") == 0) device = kind;
    snprintf(name, CELL_SIZE, "%.*s", (int)strcspn(device, ","), device);
}

// "mlp hidden=512,512" without the words before =.
static void network_name(const SavedRun *r, char name[static CELL_SIZE])
{
    snprintf(name, CELL_SIZE, "%s", json_text(saved_run_get(r, "network")));
    for (char *equals; (equals = strchr(name, '='));) {
        char *word = equals;
        while (word > name && word[-1] != ' ') word--;
        memmove(word, equals + 1, strlen(equals + 1) + 1);
    }
}

static void describe(Line *line, const SavedRun *r, bool short_name)
{
    char text[CELL_SIZE];
    saved_run_date(r, line->date);
    const char *date = line->date; // 2026-11-20-235901 as 11-20 23:59
    snprintf(line->cells[DATE], CELL_SIZE, "%.5s %.2s:%.2s", date + 5, date + 11, date + 13);
    set(line, NAME, short_name ? r->name : r->path);
    network_name(r, text);
    set(line, NETWORK, text);
    set(line, DATA, last_part(json_text(saved_run_get(r, "data"))));
    device_name(r, text);
    set(line, DEVICE, text);
    const double accuracy = saved_run_result(r, "test_accuracy"),
                 loss = saved_run_result(r, "test_loss");
    if (!isnan(accuracy))
        snprintf(line->cells[TEST], CELL_SIZE, "%.2f%%", 100 * accuracy);
    else
        snprintf(line->cells[TEST], CELL_SIZE, isnan(loss) ? "-" : "%.4f", loss);
    if (r->state == RUN_FINISHED)
        format_seconds(json_number(saved_run_get(r, "train_seconds")), line->cells[TIME]);
    else
        set(line, TIME, run_state_names[r->state]);
}

static void add_run(List *l, const char *dir)
{
    Error e;
    SavedRun r;
    if (!saved_run_is(dir)) return;
    if (saved_run_open(&r, dir, false, &e)) {
        warn("left out: %s", e.message);
        return;
    }
    Line *more = realloc(l->lines, (l->count + 1) * sizeof *more);
    if (more) {
        l->lines = more;
        describe(&l->lines[l->count++], &r, l->short_names);
    } else {
        l->out_of_memory = true;
    }
    saved_run_close(&r);
}

static void add_inside(const char *name, void *list)
{
    List *l = list;
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", l->dir, name) < PATH_MAX) add_run(l, path);
}

// ---- the table ----------------------------------------------------------------------------------

static int by_date(const void *a, const void *b)
{
    const Line *x = a, *y = b;
    const int order = strcmp(x->date, y->date);
    return order != 0 ? order : strcmp(x->cells[NAME], y->cells[NAME]);
}

static size_t letters(const char *text)
{
    char whole[CELL_SIZE];
    return utf8_shorten(whole, sizeof whole, text, CELL_SIZE);
}

// As wide as what they hold. While the line is too long, the column furthest above its least width
// loses a character. Returns what is between two columns.
static size_t find_widths(const List *l, size_t most, size_t widths[static COLUMNS])
{
    const size_t gaps = COLUMNS - 1;
    size_t total = 0;
    for (int c = 0; c < COLUMNS; c++) {
        widths[c] = strlen(columns[c].title);
        for (size_t i = 0; i < l->count; i++) {
            const size_t width = letters(l->lines[i].cells[c]);
            if (width > widths[c]) widths[c] = width;
        }
        total += widths[c];
    }
    if (total + 2 * gaps <= most) return 2;
    while (total + gaps > most) {
        int widest = -1;
        size_t excess = 0;
        for (int c = 0; c < COLUMNS; c++) {
            if (columns[c].least == 0 || widths[c] <= columns[c].least + excess) continue;
            excess = widths[c] - columns[c].least;
            widest = c;
        }
        if (widest < 0) break;
        widths[widest]--, total--;
    }
    return 1;
}

static void print_cell(const char *text, int column, size_t width, size_t gap)
{
    char cut[CELL_SIZE];
    const size_t used = utf8_shorten(cut, sizeof cut, text, width);
    const int before = (int)(columns[column].number ? width - used : 0);
    const int after = (int)(column + 1 < COLUMNS ? width - used - (size_t)before + gap : 0);
    printf("%*s%s%*s", before, "", cut, after, "");
}

static void print(const List *l, int most)
{
    size_t widths[COLUMNS];
    const size_t gap = find_widths(l, (size_t)most, widths);
    for (int c = 0; c < COLUMNS; c++) print_cell(columns[c].title, c, widths[c], gap);
    putchar('\n');
    for (size_t i = 0; i < l->count; i++) {
        for (int c = 0; c < COLUMNS; c++) print_cell(l->lines[i].cells[c], c, widths[c], gap);
        putchar('\n');
    }
}

int runs_list(char *const *dirs, size_t count, int most, Error *e)
{
    static char *const standard[] = {"runs"};
    List l = {.short_names = count == 0};
    int status = STATUS_OK;
    if (count == 0) dirs = standard, count = 1;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        l.dir = dirs[i];
        if (saved_run_is(l.dir))
            add_run(&l, l.dir);
        else if (!l.short_names || os_exists(l.dir))
            status = os_list(l.dir, add_inside, &l, e);
    }
    if (status == STATUS_OK && l.out_of_memory)
        status = fail(e, STATUS_IO, "not enough memory for a list of %zu runs", l.count);
    if (status == STATUS_OK && l.count == 0)
        status = fail(e, STATUS_DATA, "no run in %s/; train one first, or name a directory of runs",
                      dirs[0]);
    if (status == STATUS_OK) {
        qsort(l.lines, l.count, sizeof *l.lines, by_date);
        print(&l, most);
    }
    free(l.lines);
    return status;
}
