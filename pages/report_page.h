// The page of a run, RUN/report.html, from what its training process has left.
#ifndef PAGES_REPORT_PAGE_H
#define PAGES_REPORT_PAGE_H

#include "pages/html.h"
#include "pages/report_facts.h"
#include "pages/saved_run.h"

// Reads what the page needs and writes it into the run's directory; sets where. STATUS_DATA where
// the process left no facts for that.
int report_page_draw(SavedRun *r, char path[static PATH_MAX], Error *e);

typedef struct ReportPage {
    const ReportFacts *facts;
    SavedLog *log;           // the run's so far
    const JsonNode *profile; // profile.json; NULL: no such section
} ReportPage;

int report_page_write(const ReportPage *p, const char *path, Error *e);

// ---- its sections in files of their own ---------------------------------------------------------

// Which classes are taken for which, and the worst mistakes.
void report_test_images(Html *h, const ReportFacts *f);

// What goes into the network, and what its first layer looks for.
void report_inputs(Html *h, const ReportFacts *f);

// The layers and the operations of a step, from what profile.json holds; nothing without any.
void report_profile(Html *h, const JsonNode *profile);

#endif
