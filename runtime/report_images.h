// The sections of a run's page that show images.
#ifndef RUNTIME_REPORT_IMAGES_H
#define RUNTIME_REPORT_IMAGES_H

#include "runtime/html.h"
#include "runtime/report_page.h"

// Which classes are taken for which, and the worst mistakes.
void report_test_images(Html *h, const ReportPage *p);

// What goes into the network, and what its first layer looks for.
void report_inputs(Html *h, const ReportPage *p);

#endif
