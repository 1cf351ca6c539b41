// The sections of a run's page that show images.
#ifndef PAGES_REPORT_IMAGES_H
#define PAGES_REPORT_IMAGES_H

#include "pages/html.h"
#include "pages/report_facts.h"

// Which classes are taken for which, and the worst mistakes.
void report_test_images(Html *h, const ReportFacts *f);

// What goes into the network, and what its first layer looks for.
void report_inputs(Html *h, const ReportFacts *f);

#endif
