// The facts that a run's page is drawn from, and the page of those that are right. The length of
// the header, the first 8 bytes, is made to reach past its first end of line.
#include "tests/fuzz/fuzz.h"
#include "pages/report_page.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = malloc(size + 1);
    memcpy(copy, bytes, size);
    const uint8_t *end = size > 8 ? memchr(copy + 8, '\n', size - 8) : NULL;
    const uint64_t length = end ? (uint64_t)(end + 1 - copy - 8) : 0;
    if (end) memcpy(copy, &length, sizeof length);
    ReportFacts f;
    Error e = {0};
    const int status = report_facts_read(&f, file_in_memory(copy, size), &e);
    check_failure(status, &e);
    if (!status) {
        char path[300];
        SavedLog none = {0};
        const ReportPage page = {&f, &none, f.run_text.root}; // a profile from anywhere
        snprintf(path, sizeof path, "%s/report.html", directory_in_memory());
        if (report_page_write(&page, path, &e)) abort();
        unlink(path);
        saved_log_free(&none);
        report_facts_free(&f);
    }
    free(copy);
    return 0;
}
