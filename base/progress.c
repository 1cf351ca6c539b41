#include "base/progress.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/os.h"

enum { STDOUT = 1, LINE_SIZE = 256, BAR_MAX = 40, BAR_MIN = 10 };
static const double REDRAW_SECONDS = 0.1;

// ---- text ---------------------------------------------------------------------------------------

// Adds a field after two spaces if it fits in `columns`.
__attribute__((format(printf, 3, 4))) static void add_text(char line[static LINE_SIZE], int columns,
                                                           const char *format, ...)
{
    char field[LINE_SIZE];
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(field, sizeof field, format, args);
    va_end(args);
    const int used = (int)strlen(line), gap = used > 0 ? 2 : 0;
    if (used + gap + length > columns || used + gap + length >= LINE_SIZE) return;
    snprintf(line + used, LINE_SIZE - (size_t)used, "%*s%s", gap, "", field);
}

void format_seconds(double seconds, char text[static 16])
{
    const int64_t s = seconds > 0 ? (int64_t)(fmin(seconds, 3e7) + 0.5) : 0;
    const int m = (int)(s / 60 % 60), h = (int)(s / 3600 % 10000);
    if (s < 60)
        snprintf(text, 16, "%ds", (int)s);
    else if (s < 3600)
        snprintf(text, 16, "%dm%02ds", m, (int)(s % 60));
    else
        snprintf(text, 16, "%dh%02dm", h, m);
}

// What a line may show, in this order.
enum { EPOCH = 1, LEFT = 2, STEP = 4, SHARE = 8, RESULTS = 16, MACHINE = 32 };

// Sets the line to those of the fields that are known and fit in `columns`, as in
//     epoch 2.4/8  left 48s  step 123/960  13%
//     loss 1.235  train 54.1%  test 56.71%  31200 img/s  data wait 2%  130 MB
static void format_line(char line[static LINE_SIZE], int columns, int fields, const Progress *p)
{
    char text[24];
    line[0] = '\0';
    if (fields & EPOCH && p->epochs < 1) {
        add_text(line, columns, "epoch %.2g/%.2g", p->epoch, p->epochs);
    } else if (fields & EPOCH) {
        snprintf(text, sizeof text, "%.6g", p->epochs);
        add_text(line, columns, "epoch %*.1f/%s", (int)strcspn(text, ".") + 2, p->epoch, text);
    }
    if (fields & LEFT && isfinite(p->seconds_left)) {
        format_seconds(p->seconds_left, text);
        add_text(line, columns, "left %s", text);
    }
    if (fields & STEP) {
        const int digits = snprintf(NULL, 0, "%lld", (long long)p->steps);
        add_text(line, columns, "step %*lld/%lld", digits, (long long)p->step, (long long)p->steps);
    }
    if (fields & SHARE)
        add_text(line, columns, "%3.0f%%", 100.0 * (double)p->step / (double)p->steps);
    if (fields & RESULTS) {
        if (isfinite(p->loss)) add_text(line, columns, "loss %.3f", p->loss);
        if (isfinite(p->train_accuracy))
            add_text(line, columns, "train %4.1f%%", 100 * p->train_accuracy);
        if (isfinite(p->test_accuracy))
            add_text(line, columns, "test %5.2f%%", 100 * p->test_accuracy);
        else if (isfinite(p->test_loss))
            add_text(line, columns, "test %.4f", p->test_loss);
        if (isfinite(p->images_per_s)) add_text(line, columns, "%.0f img/s", p->images_per_s);
    }
    if (fields & MACHINE) {
        if (isfinite(p->data_wait)) add_text(line, columns, "data wait %.0f%%", 100 * p->data_wait);
        if (isfinite(p->memory_bytes)) add_text(line, columns, "%.0f MB", p->memory_bytes / 1e6);
    }
}

// ---- the screen ---------------------------------------------------------------------------------

static Display *open_display; // for messages

static void clear_for_message(void)
{
    if (open_display) display_clear(open_display);
}

void display_open(Display *d, bool quiet)
{
    *d = (Display){
        .quiet = quiet,
        .terminal = os_is_terminal(STDOUT),
        .colors = os_wants_colors(),
    };
    open_display = d;
    error_before_message(clear_for_message);
}

void display_close(Display *d)
{
    display_clear(d);
    error_before_message(NULL);
    open_display = NULL;
}

// Moves to where the panel begins. Terminals break its lines anew when they become narrower.
static void rewind_panel(const Display *d)
{
    const int width = os_terminal_width(STDOUT);
    int rows = 0;
    for (int i = 0; i < 2; i++) rows += d->shown[i] > width ? (d->shown[i] + width - 1) / width : 1;
    printf("\r\033[%dA", rows - 1);
}

void display_clear(Display *d)
{
    if (d->shown[0] == 0) return;
    rewind_panel(d);
    fputs("\033[J", stdout);
    fflush(stdout);
    d->shown[0] = 0;
}

static void print_bar(const Display *d, int letters, double done)
{
    const int full = (int)(done * letters + 0.5);
    fputs(d->colors ? " [\033[32m" : " [", stdout);
    for (int i = 0; i < letters; i++) putchar(i < full ? '=' : ' ');
    fputs(d->colors ? "\033[0m]" : "]", stdout);
}

void display_draw(Display *d, const Progress *p)
{
    const double now = os_seconds();
    if (d->quiet || !d->terminal || (d->shown[0] > 0 && now - d->drawn_at < REDRAW_SECONDS)) return;
    char first[LINE_SIZE], second[LINE_SIZE];
    const int columns = os_terminal_width(STDOUT) - 1; // a full line would make some scroll
    format_line(first, columns, EPOCH | LEFT | STEP | SHARE, p);
    format_line(second, columns, RESULTS | MACHINE, p);
    const int room = columns - (int)strlen(first) - 3;
    const int bar = room < BAR_MIN ? 0 : room > BAR_MAX ? BAR_MAX : room;
    if (d->shown[0] > 0) rewind_panel(d);
    fputs(first, stdout);
    if (bar > 0) print_bar(d, bar, (double)p->step / (double)p->steps);
    printf("\033[K\n%s\033[J", second);
    fflush(stdout);
    d->shown[0] = (int)strlen(first) + (bar > 0 ? bar + 3 : 0);
    d->shown[1] = (int)strlen(second);
    d->drawn_at = now;
}

void display_print(Display *d, const Progress *p)
{
    char line[LINE_SIZE];
    if (d->quiet) return;
    format_line(line, LINE_SIZE, EPOCH | STEP | RESULTS, p);
    if (d->terminal && (int)strlen(line) >= os_terminal_width(STDOUT)) // it would break
        format_line(line, LINE_SIZE, EPOCH | RESULTS, p);
    display_clear(d);
    puts(line);
    fflush(stdout);
    display_draw(d, p); // at once: what follows, a save, may take its time
}
