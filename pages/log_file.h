// Reads the log.jsonl of a run, also of one that lives: docs/runs.md has its records.
#ifndef PAGES_LOG_FILE_H
#define PAGES_LOG_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/json.h"

typedef struct LogFile {
    JsonDocument *records;
    size_t count;
    bool damaged; // a line that is none follows, other than an unfinished last one
} LogFile;

// Takes the whole records up to the first damaged or unfinished one. STATUS_DATA if the file is
// missing, STATUS_IO if it cannot be read; there is nothing to free then.
int log_file_read(LogFile *l, const char *path, Error *e);
void log_file_free(LogFile *l);

// The records that have a member `kind` ("loss": steps; "test_loss": evaluations; "weight_norm":
// norms): of each the number `key`, or `key` inside the object `kind` if `inside`; NAN where there
// is none. Sets *count; free() the result. NULL if memory is short.
double *log_file_column(const LogFile *l, const char *kind, bool inside, const char *key,
                        size_t *count);

// The last record that has a member `kind`, or NULL.
const JsonNode *log_file_last(const LogFile *l, const char *kind);

#endif
