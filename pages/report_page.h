// The page of a run, RUN/report.html, from what its training process has left: `runs page`.
#ifndef PAGES_REPORT_PAGE_H
#define PAGES_REPORT_PAGE_H

#include "base/json.h"
#include "pages/log_file.h"
#include "pages/report_facts.h"

typedef struct ReportPage {
    const ReportFacts *facts;
    const LogFile *log;      // the run's so far
    const JsonNode *profile; // profile.json; NULL: no such section
} ReportPage;

int report_page_write(const ReportPage *p, const char *path, Error *e);

#endif
