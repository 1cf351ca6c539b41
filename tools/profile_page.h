// The profile of a step as a section of a page.
#ifndef TOOLS_PROFILE_PAGE_H
#define TOOLS_PROFILE_PAGE_H

#include "runtime/html.h"
#include "runtime/json.h"

// A chart of the layers and a table of the operations, from what profile.json holds.
void profile_page(Html *h, const JsonNode *profile);

#endif
