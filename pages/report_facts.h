// What a training process leaves for the page of its run, RUN/report.safetensors (docs/runs.md has
// its tensors), checked: sizes and types are as said here, and numbers in their ranges.
#ifndef PAGES_REPORT_FACTS_H
#define PAGES_REPORT_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/safetensors.h"

typedef struct ReportFacts {
    const char *state;       // "Finished", "Running: step 60 of 128, ..."
    bool live;               // the process goes on
    const JsonNode *summary; // what summary.json would have held then; an object
    const char *source;      // of the data, a folder
    bool embedded;           // they are drawn instead
    int64_t train, test;     // images
    int h, w, c, classes;
    const char **class_names;          // (classes)
    int64_t tested;                    // of the test images, in the last evaluation
    const uint16_t *label, *predicted; // (tested), below `classes`
    const float *probability;          // (tested) of the predicted class
    int mistakes, inputs;              // pictures
    const uint32_t *mistake;           // (mistakes), test images below `tested`, the worst first
    const uint8_t *mistake_pixels;     // (mistakes,h,w,c)
    const uint8_t *input_pixels;       // (inputs,h,w,c), training images as they went in last
    const char *first_layer;           // name of the tensor that the filters are of
    int filters, filter_h, filter_w, filter_c;
    const float *filter_weights; // (filters,filter_h,filter_w,filter_c)
    // What the pointers above point into.
    SafeFile file;
    JsonDocument summary_text, run_text;
} ReportFacts;

// STATUS_DATA with a line that says what is wrong with the file; nothing is left to free then.
int report_facts_read(ReportFacts *f, const char *path, Error *e);
void report_facts_free(ReportFacts *f);

#endif
