#include "data/decode/sandbox.h"

#include <assert.h>
#include <errno.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "data/decode/arena.h"
#include "base/os.h"

enum {
    BATCH = 64,            // inputs in one message at most
    BATCH_BYTES = 1 << 20, // a batch of that many bytes of input or results is sent
    SLOTS = 2,             // batches of a worker: one at work, one that waits or is being filled
    CHANNEL = 0,           // the worker's descriptor of its socket, the only one it has
    STACK_BYTES = 1 << 20, // of a worker; it cannot get more later
};

// The largest picture that folder.c lets through needs 1.8 GiB at most: 16 bits, interlaced PNG.
// Only what is touched takes memory, and a worker that may have touched much ends: that gives it
// back.
static const size_t arena_bytes = (size_t)2 << 30, arena_kept = (size_t)128 << 20;

// What goes through the socket: to the worker the number of a slot to work on, back the same when
// it is done, and once at the start one of these.
enum { READY_STRICT = 'S', READY_LIMITS = 'L' };

enum { NO_ROOM = 2 }; // a worker's exit status: there is no address space for its memory

// One batch, in memory shared with its worker. The parent believes nothing that it reads there.
typedef struct Slot {
    uint32_t first, n;        // the inputs to work on
    atomic_uint begun, ended; // inputs that the worker has begun and ended, from 0 on
    struct {
        size_t at, size;
    } input[BATCH];
    SandboxResult result[BATCH];
} Slot;

// The parent's side of a batch.
typedef struct Batch {
    uint32_t n, taken;
    size_t input_bytes;
    uint32_t first; // where the worker that has it now began
    bool sent, done;
} Batch;

typedef struct Worker {
    pid_t pid;
    int fd;         // -1: no worker
    uint8_t *slots; // shared, SLOTS times slot_bytes
    bool ready;
    int futile;       // times in a row that it died without progress
    bool stalled_out; // it was killed because it did nothing
    double cpu;       // seconds it has used, as seen last
    int idle_ticks;
} Worker;

struct Sandbox {
    SandboxConfig config;
    size_t input_at, input_bytes, out_at, slot_bytes; // inside a slot's memory
    uint32_t batch;                                   // inputs in a batch at most
    Worker *workers;
    Batch *batches;     // (workers * SLOTS); batch b is at b modulo that
    int64_t head, tail; // the batch that results are taken from, the one that is being filled
    bool strict;
};

// Batches go to the workers in turn, so the result's order and place follow from its number.
static Worker *worker_of(const Sandbox *s, int64_t batch)
{
    return &s->workers[batch % s->config.workers];
}

static int slot_number(const Sandbox *s, int64_t batch)
{
    return (int)(batch / s->config.workers % SLOTS);
}

static Batch *batch_of(const Sandbox *s, int64_t batch)
{
    return &s->batches[batch % ((int64_t)s->config.workers * SLOTS)];
}

static Slot *slot_of(const Sandbox *s, const Worker *w, int number)
{
    return (Slot *)(void *)(w->slots + (size_t)number * s->slot_bytes);
}

// ---- a worker -----------------------------------------------------------------------------------

// AddressSanitizer needs memory and system calls of its own.
#ifdef __SANITIZE_ADDRESS__
static const bool sanitized = true;
#else
static const bool sanitized = false;
#endif

static _Noreturn void leave(int status)
{
    for (;;) syscall(SYS_exit, status); // exit_group(), which exit() calls, is forbidden
}

static void limit(__rlimit_resource_t resource, rlim_t most)
{
    setrlimit(resource, &(struct rlimit){most, most});
}

static void close_all_but_channel(int fd)
{
    if (fd != CHANNEL) dup2(fd, CHANNEL);
    const unsigned first = sanitized ? STDERR_FILENO + 1 : CHANNEL + 1;
    if (syscall(SYS_close_range, first, ~0u, 0) == 0) return;
    const long most = sysconf(_SC_OPEN_MAX); // before Linux 5.9
    for (int i = (int)first; i < most; i++) close(i);
}

// The stack grows on demand, which the limit on memory would forbid.
static void __attribute__((noinline)) touch_stack(void)
{
    volatile uint8_t stack[STACK_BYTES];
    for (size_t i = 0; i < sizeof stack; i += 4096) stack[i] = 0;
}

// Gives up every right that working does not need. Returns the message that says what was possible.
static char confine(void)
{
    if (sanitized) return READY_STRICT;
    void *block = mmap(NULL, arena_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) leave(NO_ROOM);
    arena_use(block, arena_bytes);
    touch_stack();
    limit(RLIMIT_AS, 0);
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_NOFILE, 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0 ? READY_STRICT : READY_LIMITS;
}

static void work_on_slot(const Sandbox *s, Slot *slot)
{
    const SandboxConfig *c = &s->config;
    for (uint32_t i = slot->first; i < slot->n; i++) {
        SandboxResult *r = &slot->result[i];
        const uint8_t *base = (const uint8_t *)slot;
        atomic_store(&slot->begun, i + 1);
        *r = (SandboxResult){0};
        c->work(c->context, base + s->input_at + slot->input[i].at, slot->input[i].size,
                (uint8_t *)slot + s->out_at + i * c->out_bytes, r);
        atomic_store(&slot->ended, i + 1);
        if (arena_most() > arena_kept) leave(0);
        if (!sanitized) arena_reset();
    }
}

static _Noreturn void run_worker(const Sandbox *s, const Worker *w, int fd, pid_t parent)
{
    setpgid(0, 0); // the keyboard's signals are the parent's business
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) leave(1);
    for (int i = 1; i < NSIG; i++) signal(i, SIG_DFL);
    limit(RLIMIT_CORE, 0);
    for (int k = 0; k < s->config.workers; k++)
        if (&s->workers[k] != w) munmap(s->workers[k].slots, SLOTS * s->slot_bytes);
    close_all_but_channel(fd);
    const char ready = confine();
    if (write(CHANNEL, &ready, 1) != 1) leave(1);
    for (uint8_t number; read(CHANNEL, &number, 1) == 1;) {
        work_on_slot(s, slot_of(s, w, number % SLOTS));
        if (write(CHANNEL, &number, 1) != 1) break;
    }
    leave(0);
}

// ---- starting and ending workers ----------------------------------------------------------------

static int start_worker(const Sandbox *s, Worker *w, Error *e)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
        return fail_errno(e, STATUS_IO, "cannot make a socket for a decoding process");
    const pid_t parent = getpid();
    w->pid = fork();
    if (w->pid == 0) run_worker(s, w, fds[1], parent);
    const int error = errno;
    close(fds[1]);
    if (w->pid < 0) {
        close(fds[0]);
        errno = error;
        return fail_errno(e, STATUS_IO, "cannot start a decoding process");
    }
    w->fd = fds[0];
    w->ready = w->stalled_out = false;
    w->cpu = 0;
    w->idle_ticks = 0;
    return 0;
}

// Returns what waitpid() says.
static int end_worker(Worker *w)
{
    int status = 0;
    if (w->fd < 0) return 0;
    close(w->fd);
    w->fd = -1;
    kill(w->pid, SIGKILL); // no effect on one that is dead already
    while (waitpid(w->pid, &status, 0) < 0 && errno == EINTR) continue;
    return status;
}

// A clock of the processor time that the worker has used.
static double cpu_seconds(const Worker *w)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(w->pid, &clock) || clock_gettime(clock, &t)) return 0;
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Sends a batch, or what is left of it. If the worker is dead, that is noticed when it is waited
// for.
static void send_batch(const Sandbox *s, int64_t b, uint32_t first)
{
    Worker *w = worker_of(s, b);
    Batch *batch = batch_of(s, b);
    const uint8_t number = (uint8_t)slot_number(s, b);
    Slot *slot = slot_of(s, w, number);
    slot->first = batch->first = first;
    slot->n = batch->n;
    atomic_store(&slot->begun, first);
    atomic_store(&slot->ended, first);
    batch->sent = true;
    // The limit is the kernel's: a worker that never ends ends there.
    const rlim_t most = (rlim_t)cpu_seconds(w) + 1 + (rlim_t)s->config.cpu_seconds;
    prlimit(w->pid, RLIMIT_CPU, &(struct rlimit){most, RLIM_INFINITY}, NULL);
    w->idle_ticks = 0;
    (void)!send(w->fd, &number, 1, MSG_NOSIGNAL);
}

// The oldest batch that was sent to the worker and is not done; -1 if there is none.
static int64_t oldest_batch(const Sandbox *s, const Worker *w)
{
    for (int64_t b = s->head; b < s->tail; b++)
        if (worker_of(s, b) == w && batch_of(s, b)->sent && !batch_of(s, b)->done) return b;
    return -1;
}

static void name_cause(const Sandbox *s, const Worker *w, int status, char reason[200])
{
    if (w->stalled_out)
        snprintf(reason, 200, "the decoder hung");
    else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)
        snprintf(reason, 200, "the decoder took more than %d s", s->config.cpu_seconds);
    else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        snprintf(reason, 200, "the decoder was killed: no memory, or a forbidden system call");
    else if (WIFSIGNALED(status))
        snprintf(reason, 200, "the decoder crashed with signal %d", WTERMSIG(status));
    else if (WEXITSTATUS(status) == NO_ROOM)
        snprintf(reason, 200, "no room for %zu bytes of address space (see ulimit -v)",
                 arena_bytes);
    else
        snprintf(reason, 200, "the decoder ended");
}

// The worker is dead, or must die: finds the input that is to blame, starts another worker and
// sends it what is left.
static int replace_worker(Sandbox *s, Worker *w, Error *e)
{
    char reason[200];
    const int status = end_worker(w);
    name_cause(s, w, status, reason);
    const int64_t b = oldest_batch(s, w);
    uint32_t first = 0;
    bool progress = false;
    if (b >= 0) {
        Batch *batch = batch_of(s, b);
        Slot *slot = slot_of(s, w, slot_number(s, b));
        const uint32_t begun = atomic_load(&slot->begun), ended = atomic_load(&slot->ended);
        first = ended >= batch->first && ended <= batch->n ? ended : batch->first;
        const bool inside = begun == first + 1 && first < batch->n;
        // The limit on time is of the whole batch: whoever hits it has all of it the second time.
        const bool again =
            WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU && first > batch->first;
        if (inside && !again) {
            SandboxResult *r = &slot->result[first++];
            *r = (SandboxResult){.status = STATUS_DATA};
            memcpy(r->reason, reason, sizeof r->reason);
        }
        progress = first > batch->first;
    }
    w->futile = progress ? 0 : w->futile + 1;
    if (w->futile > 3) return fail(e, STATUS_IO, "decoding processes cannot work here: %s", reason);
    const int failed = start_worker(s, w, e);
    for (int64_t k = b; !failed && k >= 0 && k < s->tail; k++)
        if (worker_of(s, k) == w && batch_of(s, k)->sent && !batch_of(s, k)->done)
            send_batch(s, k, k == b ? first : 0);
    return failed;
}

// ---- waiting ------------------------------------------------------------------------------------

// A second went by without a message. A worker that computes is ended by its limit; one that does
// not even do that, by us.
static void count_idle_second(const Sandbox *s, Worker *w)
{
    const double cpu = cpu_seconds(w);
    w->idle_ticks = cpu > w->cpu ? 0 : w->idle_ticks + 1;
    w->cpu = cpu;
    if (w->idle_ticks < s->config.stall_seconds) return;
    w->stalled_out = true;
    kill(w->pid, SIGKILL);
}

// Waits for one message of the worker, at most a second.
static int receive(Sandbox *s, Worker *w, Error *e)
{
    struct pollfd p = {.fd = w->fd, .events = POLLIN};
    if (os_check_stop(e)) return e->status;
    const int n = poll(&p, 1, 1000);
    if (n < 0 && errno == EINTR) return 0;
    if (n < 0) return fail_errno(e, STATUS_IO, "cannot wait for a decoding process");
    if (n == 0) {
        count_idle_second(s, w);
        return 0;
    }
    uint8_t message;
    if (recv(w->fd, &message, 1, 0) != 1) return replace_worker(s, w, e);
    const int64_t b = oldest_batch(s, w);
    if (!w->ready && (message == READY_STRICT || message == READY_LIMITS)) {
        w->ready = true;
        if (message == READY_LIMITS) s->strict = false;
    } else if (b >= 0 && message == slot_number(s, b)) {
        batch_of(s, b)->done = true;
        w->futile = 0;
    } else
        return replace_worker(s, w, e); // it says what an honest worker never says
    return 0;
}

// ---- the queue ----------------------------------------------------------------------------------

static size_t round_up(size_t x, size_t unit)
{
    return (x + unit - 1) / unit * unit;
}

static int make_room(Sandbox *s, Error *e)
{
    const SandboxConfig *c = &s->config;
    const size_t fit = c->out_bytes ? BATCH_BYTES / c->out_bytes : BATCH;
    s->batch = fit < 1 ? 1 : fit < BATCH ? (uint32_t)fit : BATCH;
    s->input_at = round_up(sizeof(Slot), 4096);
    s->input_bytes = BATCH_BYTES + c->max_input;
    s->out_at = s->input_at + round_up(s->input_bytes, 4096);
    s->slot_bytes = s->out_at + round_up(s->batch * c->out_bytes, 4096);
    const size_t workers = (size_t)c->workers;
    s->workers = calloc(workers, sizeof *s->workers);
    for (size_t k = 0; s->workers && k < workers; k++) s->workers[k].fd = -1; // not started
    s->batches = calloc(workers * SLOTS, sizeof *s->batches);
    if (!s->workers || !s->batches) return fail(e, STATUS_IO, "no memory");
    for (size_t k = 0; k < workers; k++) {
        void *shared = mmap(NULL, SLOTS * s->slot_bytes, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (shared == MAP_FAILED)
            return fail_errno(e, STATUS_IO, "no memory: %zu bytes for a decoding process",
                              SLOTS * s->slot_bytes);
        s->workers[k].slots = shared;
    }
    return 0;
}

int sandbox_open(Sandbox **out, const SandboxConfig *c, Error *e)
{
    assert(c->workers > 0);
    *out = NULL;
    Sandbox *s = calloc(1, sizeof *s);
    if (!s) return fail(e, STATUS_IO, "no memory");
    s->config = *c;
    s->strict = true;
    int status = make_room(s, e);
    for (int k = 0; k < c->workers && !status; k++) status = start_worker(s, &s->workers[k], e);
    for (int k = 0; k < c->workers; k++)
        while (!status && !s->workers[k].ready) status = receive(s, &s->workers[k], e);
    if (status)
        sandbox_close(s);
    else
        *out = s;
    return status;
}

bool sandbox_strict(const Sandbox *s)
{
    return s->strict;
}

static uint8_t *slot_memory(const Sandbox *s, int64_t b)
{
    return worker_of(s, b)->slots + (size_t)slot_number(s, b) * s->slot_bytes;
}

uint8_t *sandbox_input(Sandbox *s)
{
    if (s->tail - s->head == (int64_t)s->config.workers * SLOTS) return NULL;
    return slot_memory(s, s->tail) + s->input_at + batch_of(s, s->tail)->input_bytes;
}

void sandbox_put(Sandbox *s, size_t size)
{
    assert(size <= s->config.max_input);
    Batch *batch = batch_of(s, s->tail);
    Slot *slot = (Slot *)(void *)slot_memory(s, s->tail);
    slot->input[batch->n].at = batch->input_bytes;
    slot->input[batch->n].size = size;
    batch->n++;
    batch->input_bytes += size;
    if (batch->n == s->batch || batch->input_bytes >= BATCH_BYTES) send_batch(s, s->tail++, 0);
}

int sandbox_take(Sandbox *s, const uint8_t **out, SandboxResult *r, Error *e)
{
    const int64_t b = s->head;
    Batch *batch = batch_of(s, b);
    assert(batch->taken < batch->n);
    if (!batch->sent) send_batch(s, s->tail++, 0);
    while (!batch->done) {
        const int status = receive(s, worker_of(s, b), e);
        if (status) return status;
    }
    const Slot *slot = (const Slot *)(void *)slot_memory(s, b);
    *r = slot->result[batch->taken];
    r->reason[sizeof r->reason - 1] = '\0';
    if (r->status) r->status = STATUS_DATA;
    *out = slot_memory(s, b) + s->out_at + batch->taken * s->config.out_bytes;
    if (++batch->taken == batch->n) {
        *batch = (Batch){0};
        s->head++;
    }
    return 0;
}

void sandbox_close(Sandbox *s)
{
    if (!s) return;
    for (int k = 0; s->workers && k < s->config.workers; k++) {
        end_worker(&s->workers[k]);
        if (s->workers[k].slots) munmap(s->workers[k].slots, SLOTS * s->slot_bytes);
    }
    free(s->workers);
    free(s->batches);
    free(s);
}
