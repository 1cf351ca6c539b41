// The page of a run, from what is known of it now: runtime/report.h collects that.
#ifndef TOOLS_REPORT_PAGE_H
#define TOOLS_REPORT_PAGE_H

#include "data/dataset.h"
#include "runtime/json.h"
#include "tools/log_file.h"
#include "tools/pictures.h"
#include "runtime/predictions.h"
#include "runtime/profile.h"

typedef struct ReportPage {
    const char *path;        // of the page
    const char *state;       // "finished", "step 60 of 128"
    bool live;               // the page reloads itself
    const LogFile *log;      // the run's so far
    const JsonNode *summary; // what summary.json would hold now
    const Dataset *data;
    const Predictions *predictions; // of the last evaluation; NULL or none done: no such sections
    const Pictures *inputs;         // as the network sees them; count 0: none
    const Pictures *filters;        // of the first layer; count 0: none
    const char *filters_name;       // their tensor
    const ProfileReport *profile;   // no steps: no such section
} ReportPage;

int report_page_write(const ReportPage *p, Error *e);

#endif
