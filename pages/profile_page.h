// The profile of a step as a section of a page.
#ifndef PAGES_PROFILE_PAGE_H
#define PAGES_PROFILE_PAGE_H

#include "pages/html.h"
#include "base/json.h"

// A chart of the layers and a table of the operations, from what profile.json holds.
void profile_page(Html *h, const JsonNode *profile);

#endif
