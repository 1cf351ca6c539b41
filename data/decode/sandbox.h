// Works on bytes from outside in processes that can do nothing but that: no system call except
// reading and writing one socket (seccomp's strict mode), no memory beyond a fixed block, no other
// file, a limit on time. An input that makes its worker crash, hang or reach for the system costs
// that input; a new worker goes on with the next one.
//
// Inputs and results lie in memory that is shared with one worker. Many inputs make one message.
//     while (more && (input = sandbox_input(s))) sandbox_put(s, read_next(input));
//     sandbox_take(s, &out, &result, &e); // in the order of sandbox_put()
#ifndef DATA_DECODE_SANDBOX_H
#define DATA_DECODE_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct SandboxResult {
    int status; // 0, or STATUS_DATA with the reason
    int h, w;   // what else `work` wants to say
    char reason[200];
} SandboxResult;

typedef struct SandboxConfig {
    // Called in a worker: out (out_bytes) and *r, which is zero before, set. It takes its memory
    // from data/decode/arena.h and calls nothing that needs the system.
    void (*work)(const void *context, const uint8_t *bytes, size_t size, uint8_t *out,
                 SandboxResult *r);
    const void *context; // as it is when a worker starts
    size_t out_bytes, max_input;
    int workers;
    int cpu_seconds;   // for one input
    int stall_seconds; // without using the processor while there is work, as when it was stopped
} SandboxConfig;

typedef struct Sandbox Sandbox;

// All failures are STATUS_IO.
int sandbox_open(Sandbox **s, const SandboxConfig *c, Error *e);

// False where the system refuses seccomp: then workers have the other limits only.
bool sandbox_strict(const Sandbox *s);

// Where to write the next input, of at most max_input bytes; NULL: take a result first.
uint8_t *sandbox_input(Sandbox *s);
void sandbox_put(Sandbox *s, size_t size);

// Waits for the oldest input's result; there must be one. *out is valid until the next call.
int sandbox_take(Sandbox *s, const uint8_t **out, SandboxResult *r, Error *e);

void sandbox_close(Sandbox *s); // NULL is allowed

#endif
