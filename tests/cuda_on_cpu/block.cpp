// Runs a grid: its blocks one after the other, the threads of a block as fibers of one OS thread.
//
// A CUDA thread runs until it waits at a barrier or a warp operation; one that ends leaves its
// stack to the next, so that a kernel without barriers never switches.
#include <algorithm>
#include <map>
#include <stdlib.h>
#include <string>
#include <vector>

#include "tests/cuda_on_cpu/fiber.h"
#include "tests/cuda_on_cpu/internal.h"
#include "tests/cuda_on_cpu/sanitizer.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emu
{
namespace
{
constexpr int LANES = 32, WARPS = 32;

struct Thread {
    Fiber *fiber; // NULL before it starts
    uint3 index;
    const char *file; // of the barrier it waits at
    int line;
    const void *object; // that it waits for, `what` says which
    const char *what;
};

// Sets of lanes. A lane that has begun and is in no set is running, or waits for its turn.
struct Warp {
    uint32_t exists, ready, ended, at_barrier, at_collective, at_object;
    Collective calls[LANES]; // of the lanes at_collective
};

const Grid *grid;
Thread threads[LANES * WARPS];
Warp warps[WARPS];
uint32_t ready_warps;
int thread_count, warp_count, ended, at_barrier, predicates, predicates_of_last;
int current, current_warp;

// Never destroyed, so that at the end LeakSanitizer still finds what they point to.
std::vector<Fiber *> &fibers = *new std::vector<Fiber *>, &idle_fibers = *new std::vector<Fiber *>;
int slots, slot_rotation;

// TSan's clocks of a barrier. Generations alternate: who has already arrived at the next barrier
// must not seem to have been seen by who is only leaving this one. Each block has its own.
struct Clocks {
    char barrier[4][8], warp[WARPS][4][8];
};
Clocks *clocks;
unsigned barrier_generation, warp_generation[WARPS];
char start_clock[8], end_clock[8], fence_clock[8];

bool has(uint32_t set, int lane)
{
    return set >> lane & 1;
}

int choose(uint32_t set) // one of it, by the order
{
    if (order == FORWARD) return __builtin_ctz(set);
    if (order == REVERSE) return LANES - 1 - __builtin_clz(set);
    for (uint32_t skip = random_below((uint32_t)__builtin_popcount(set)); skip > 0; skip--)
        set &= set - 1;
    return __builtin_ctz(set);
}

void make_ready(int warp, uint32_t lanes)
{
    warps[warp].ready |= lanes;
    if (warps[warp].ready) ready_warps |= 1u << warp;
}

int take_ready() // a thread that can run, -1: none; the same warp's while it has one
{
    int w = current_warp;
    if (!warps[w].ready || (order == RANDOM && random_below(8) == 0)) {
        if (!ready_warps) return -1;
        w = choose(ready_warps);
    }
    const int lane = choose(warps[w].ready);
    warps[w].ready &= ~(1u << lane);
    if (!warps[w].ready) ready_warps &= ~(1u << w);
    return w * LANES + lane;
}

void set_current(int t)
{
    current = t;
    current_warp = t / LANES;
    threadIdx = threads[t].index;
}

void thread_main();

void run_thread(int t) // from whatever runs now, until that is switched to again
{
    Fiber *f = threads[t].fiber;
    if (f)
        set_current(t);
    else {
        if (TSAN)
            f = fibers[(size_t)fiber_slot(t)];
        else if (idle_fibers.empty())
            fibers.push_back(f = fiber_create(thread_main));
        else {
            f = idle_fibers.back();
            idle_fibers.pop_back();
        }
        f->start = t;
    }
    fiber_switch(f);
}

[[noreturn]] void fail_stuck()
{
    std::map<std::string, std::vector<int>> places;
    for (int t = 0; t < thread_count; t++) {
        const Warp &w = warps[t / LANES];
        const int lane = t % LANES;
        const Collective &c = w.calls[lane];
        if (has(w.ended, lane))
            places["ended"].push_back(t);
        else if (has(w.at_barrier, lane))
            places["__syncthreads at " + std::string(threads[t].file) + ":" +
                   std::to_string(threads[t].line)]
                .push_back(t);
        else if (has(w.at_object, lane))
            places[threads[t].what + std::string(" at ") + threads[t].file + ":" +
                   std::to_string(threads[t].line)]
                .push_back(t);
        else if (has(w.at_collective, lane))
            places["warp operation at " + std::string(c.file) + ":" + std::to_string(c.line)]
                .push_back(t);
    }
    for (const auto &p : places)
        fprintf(stderr, "cuda_on_cpu:   %zu threads, the first %d, the last %d: %s\n",
                p.second.size(), p.second.front(), p.second.back(), p.first.c_str());
    fail("threads of a block wait at different places, or for one that has ended");
}

void wait() // the current thread, until somebody makes it ready
{
    const int self = current;
    threads[self].fiber = current_fiber;
    const int next = take_ready();
    if (next < 0) fail_stuck();
    if (next != self) run_thread(next);
    set_current(self);
}

void release_barrier()
{
    const Thread *first = nullptr;
    for (int t = 0; t < thread_count; t++) {
        if (!has(warps[t / LANES].at_barrier, t % LANES)) continue;
        if (!first) first = &threads[t];
        if (threads[t].line != first->line || strcmp(threads[t].file, first->file)) fail_stuck();
    }
    for (int w = 0; w < warp_count; w++) {
        make_ready(w, warps[w].at_barrier);
        warps[w].at_barrier = 0;
    }
    predicates_of_last = predicates;
    at_barrier = predicates = 0;
    barrier_generation++;
}

void end_thread(int t)
{
    Warp &w = warps[t / LANES];
    cp_async_end_thread(t);
    w.ended |= 1u << t % LANES;
    ended++;
    release(end_clock);
    for (int lane = 0; lane < LANES; lane++)
        if (has(w.at_collective, lane) && has(w.calls[lane].mask, t % LANES)) fail_stuck();
    if (at_barrier && at_barrier + ended == thread_count) fail_stuck();
}

// What a fiber does: CUDA threads, one after the other.
void thread_main()
{
    Fiber *self = current_fiber;
    for (int t = self->start;; t = self->start) {
        int next = t;
        do {
            set_current(t = next);
            threads[t].fiber = self;
            cp_async_begin_thread(t);
            acquire(start_clock);
            grid->body->run();
            end_thread(t);
            next = take_ready();
        } while (!TSAN && next >= 0 && !threads[next].fiber);
        if (next < 0 && ended < thread_count) fail_stuck();
        if (!TSAN) idle_fibers.push_back(self);
        if (next < 0)
            fiber_switch(fiber_host());
        else
            run_thread(next);
    }
}

// TSan has a history of each fiber. A CUDA thread of the next block must not be taken for one of
// this, so blocks rotate over more fibers than they have threads. They are created here, by the
// host: a fiber begins with what its creator has seen.
void begin_tsan_grid()
{
    slots = std::max(thread_count, std::min(LANES * WARPS, thread_count * 4));
    while ((int)fibers.size() < slots) fibers.push_back(fiber_create(thread_main));
}

void begin_tsan_block()
{
    slot_rotation = (int)random_below((uint32_t)slots);
    free(clocks);
    clocks = (Clocks *)malloc(sizeof *clocks);
}

void run_block(unsigned x, unsigned y, unsigned z)
{
    blockIdx = {x, y, z};
    ended = at_barrier = predicates = 0;
    ready_warps = 0;
    for (int w = 0; w < warp_count; w++) {
        const int lanes = std::min(LANES, thread_count - w * LANES);
        warps[w].exists = lanes == LANES ? ~0u : (1u << lanes) - 1;
        warps[w].ready = warps[w].ended = 0;
        warps[w].at_barrier = warps[w].at_collective = warps[w].at_object = 0;
        make_ready(w, warps[w].exists);
    }
    for (int t = 0; t < thread_count; t++) threads[t].fiber = nullptr;
    current_warp = order == FORWARD ? 0 : choose(ready_warps);
    if (TSAN) begin_tsan_block();
    shared_begin_block();
    wgmma_begin_block();
    release(start_clock);
    run_thread(take_ready());
}

std::vector<size_t> block_order(size_t blocks)
{
    std::vector<size_t> list(blocks);
    for (size_t i = 0; i < blocks; i++) list[i] = order == REVERSE ? blocks - 1 - i : i;
    for (size_t i = blocks; order == RANDOM && i > 1; i--)
        std::swap(list[i - 1], list[random_below((uint32_t)i)]);
    return list;
}
} // namespace

void run_grid(const Grid &g)
{
    grid = &g;
    gridDim = g.grid;
    blockDim = g.block;
    thread_count = (int)(g.block.x * g.block.y * g.block.z);
    warp_count = (thread_count + LANES - 1) / LANES;
    for (int t = 0; t < thread_count; t++) {
        const unsigned i = (unsigned)t, row = i / g.block.x;
        threads[t].index = {i % g.block.x, row % g.block.y, row / g.block.y};
    }
    fiber_enter_host();
    if (TSAN) begin_tsan_grid();
    shared_begin_grid(g);
    const size_t layer = (size_t)g.grid.x * g.grid.y;
    for (const size_t i : block_order(layer * g.grid.z))
        run_block((unsigned)(i % g.grid.x), (unsigned)(i % layer / g.grid.x),
                  (unsigned)(i / layer));
    acquire(end_clock);
    shared_end_grid();
    grid = nullptr;
}

int current_thread()
{
    return current;
}

int fiber_slot(int thread)
{
    return (thread + slot_rotation) % slots;
}

int fiber_slots()
{
    return slots;
}

void print_running(FILE *f)
{
    if (!grid) return;
    fprintf(f,
            "cuda_on_cpu:   the kernel launched at %s:%d, grid (%u,%u,%u), block (%u,%u,%u),"
            " %zu bytes of dynamic shared memory; blockIdx (%u,%u,%u), threadIdx (%u,%u,%u)\n",
            grid->file, grid->line, gridDim.x, gridDim.y, gridDim.z, blockDim.x, blockDim.y,
            blockDim.z, grid->shared_bytes, blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x,
            threadIdx.y, threadIdx.z);
    shared_print(f);
}

int barrier_count(bool predicate, const char *file, int line)
{
    threads[current].file = file;
    threads[current].line = line;
    warps[current_warp].at_barrier |= 1u << current % LANES;
    at_barrier++;
    predicates += predicate;
    void *clock = TSAN ? clocks->barrier[barrier_generation % 4] : nullptr;
    release(clock);
    if (at_barrier == thread_count)
        release_barrier();
    else if (at_barrier + ended == thread_count)
        fail_stuck();
    wait();
    acquire(clock);
    return predicates_of_last;
}

void barrier(const char *file, int line)
{
    barrier_count(false, file, line);
}

static void run_collective(Warp *w, const Collective &c)
{
    void *arguments[LANES] = {};
    for (int lane = 0; lane < LANES; lane++) {
        if (!has(c.mask, lane)) continue;
        const Collective &other = w->calls[lane];
        if (other.mask != c.mask || other.run != c.run || other.line != c.line ||
            strcmp(other.file, c.file))
            fail("lanes of a warp meet in different operations: %s:%d with mask %08x, lane %d at "
                 "%s:%d with mask %08x",
                 c.file, c.line, c.mask, lane, other.file, other.line, other.mask);
        arguments[lane] = other.argument;
    }
    c.run(arguments, c.mask);
    w->at_collective &= ~c.mask;
}

void collective(const Collective &c)
{
    const int warp = current_warp, lane = current % LANES;
    Warp &w = warps[warp];
    if (!has(c.mask, lane))
        fail("%s:%d: lane %d calls, but is not in the mask %08x", c.file, c.line, lane, c.mask);
    if (c.mask & (~w.exists | w.ended))
        fail("%s:%d: the mask %08x names lanes that ended or never were: %08x", c.file, c.line,
             c.mask, c.mask & (~w.exists | w.ended));
    w.calls[lane] = c;
    w.at_collective |= 1u << lane;
    void *clock = TSAN && c.synchronizes ? clocks->warp[warp][warp_generation[warp] % 4] : nullptr;
    if (clock) release(clock);
    if ((w.at_collective & c.mask) != c.mask)
        wait();
    else {
        run_collective(&w, c);
        warp_generation[warp]++;
        // The order of those that go on is as free as before.
        make_ready(warp, order == FORWARD ? c.mask & ~(1u << lane) : c.mask);
        if (order != FORWARD) wait();
    }
    if (clock) acquire(clock);
}

void wait_for(const void *object, const char *what, const char *file, int line)
{
    Thread &t = threads[current];
    t.object = object;
    t.what = what;
    t.file = file;
    t.line = line;
    warps[current_warp].at_object |= 1u << current % LANES;
    wait();
}

void wake(const void *object)
{
    for (int t = 0; t < thread_count; t++) {
        uint32_t &waiting = warps[t / LANES].at_object;
        if (!has(waiting, t % LANES) || threads[t].object != object) continue;
        waiting &= ~(1u << t % LANES);
        make_ready(t / LANES, 1u << t % LANES);
    }
}

void fence()
{
    release(fence_clock);
    acquire(fence_clock);
}

void after_atomic()
{
    if (order != RANDOM || random_below(16)) return;
    make_ready(current_warp, 1u << current % LANES);
    wait();
}
} // namespace emu
