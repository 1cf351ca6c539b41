// The sections of a run's page that show images.
#ifndef TOOLS_REPORT_IMAGES_H
#define TOOLS_REPORT_IMAGES_H

#include "runtime/html.h"
#include "tools/report_facts.h"

// Which classes are taken for which, and the worst mistakes.
void report_test_images(Html *h, const ReportFacts *f);

// What goes into the network, and what its first layer looks for.
void report_inputs(Html *h, const ReportFacts *f);

#endif
