// The page of one run: reads what it is drawn from.
#include <stdio.h>

#include "pages/report_page.h"
#include "pages/runs.h"

// A run that was continued can have the profile of the process before: it counts once that of this
// one is written.
static bool has_profile(const ReportFacts *f)
{
    const JsonNode *option = json_get(json_get(f->summary, "options"), "profile");
    return !f->live && option && option->type == JSON_BOOL && option->boolean;
}

static int name_file(char path[static PATH_MAX], const SavedRun *r, const char *name, Error *e)
{
    if (snprintf(path, PATH_MAX, "%s/%s", r->path, name) < PATH_MAX) return STATUS_OK;
    return fail(e, STATUS_DATA, "path is too long: %.80s...", r->path);
}

int runs_report(const SavedRun *r, char path[static PATH_MAX], Error *e)
{
    ReportFacts facts;
    JsonDocument profile = {0};
    if (name_file(path, r, "report.safetensors", e) || report_facts_read(&facts, path, e))
        return e->status;
    int status = name_file(path, r, "report.html", e);
    if (status == STATUS_OK && has_profile(&facts))
        status = saved_run_json(&profile, r->path, "profile.json", e);
    if (status == STATUS_OK) {
        const ReportPage page = {&facts, &r->log, profile.root};
        status = report_page_write(&page, path, e);
    }
    json_document_free(&profile);
    report_facts_free(&facts);
    return status;
}
