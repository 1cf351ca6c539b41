// What a run shows while it trains: a panel of two lines on a terminal, which is redrawn in place,
// and lines that last. Without a terminal (piped, TERM=dumb) there are only these, without escapes.
#ifndef BASE_PROGRESS_H
#define BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

// NAN: not known, and not shown.
typedef struct Progress {
    int64_t step, steps; // done, in all
    double epoch, epochs;
    double loss;
    double train_accuracy, test_accuracy; // 0..1; the test's is of the last evaluation
    double test_loss;                     // of that; shown where it has no accuracy
    double images_per_s;
    double data_wait; // share of the time, 0..1
    double memory_bytes;
    double seconds_left;
} Progress;

// "48s", "12m05s", "3h07m"
void format_seconds(double seconds, char text[static 16]);

typedef struct Display {
    bool quiet, terminal, colors;
    int shown[2];    // letters of the panel's lines on the screen; 0: there is none
    double drawn_at; // os_seconds()
} Display;

// On stdout. There is one in a process: messages of base/error.h end its panel first. `quiet`
// shows nothing.
void display_open(Display *d, bool quiet);

// Draws the panel, at most ten times a second. It fits the terminal as wide as it is now: what is
// least important is left out.
void display_draw(Display *d, const Progress *p);

// Prints "epoch 2.0/8  step 240/960  loss 1.235  train 54.1%  test 56.71%  31200 img/s", and
// the panel below it.
void display_print(Display *d, const Progress *p);

// Removes the panel, so that the caller may print.
void display_clear(Display *d);

void display_close(Display *d);

#endif
