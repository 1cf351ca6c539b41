// What the files of the shim share.
#ifndef TESTS_CUDA_ON_CPU_INTERNAL_H
#define TESTS_CUDA_ON_CPU_INTERNAL_H

#include <functional>
#include <mutex>
#include <stdint.h>
#include <stdio.h>

#include "tests/cuda_on_cpu/emulate.h"

namespace emu
{
// What the order of execution may be, which CUDA does not promise (NN_EMU_ORDER):
//   forward  threads and blocks upwards; streams run at once; cp.async copies at once
//   reverse  downwards; streams run when somebody waits; cp.async copies at its wait
//   random   (NN_EMU_SEED) any thread; streams now or later; graphs in any order they allow
enum Order { FORWARD, REVERSE, RANDOM };
extern const Order order;
uint32_t random_below(uint32_t n);

// CUDA calls may come from several host threads.
extern std::recursive_mutex api_mutex;
#define EMU_LOCK const std::lock_guard<std::recursive_mutex> lock(emu::api_mutex)

// ---- running a grid (block.cpp) ----------------------------------------------------------------

void run_grid(const Grid &g);
void print_running(FILE *f); // the kernel, block and thread; nothing when none runs
int current_thread();

// One operation of a whole warp. The lane that arrives last runs it for all.
struct Collective {
    uint32_t mask;
    void (*run)(void **arguments, uint32_t mask); // [lane]
    void *argument;                               // of this lane
    bool synchronizes;                            // orders memory
    const char *file;
    int line;
};
void collective(const Collective &c);

// The current thread waits until another wakes all that wait for this object.
void wait_for(const void *object, const char *what, const char *file, int line);
void wake(const void *object);

// ---- shared memory, cp.async (shared.cpp) ------------------------------------------------------

// A grid's, a block's and a thread's begin, a thread's and a grid's end.
void shared_begin_grid(const Grid &g);
void shared_begin_block();
void shared_end_grid();
void shared_print(FILE *f);
void *shared_at(uint32_t address, size_t bytes, const char *what); // fails outside of its arrays
int unfenced_writer(uint32_t address); // the thread that wrote there without a fence, or -1
void cp_async_begin_thread(int thread);
void cp_async_end_thread(int thread);

// TSan shall see a read by something that begins after what the current thread has done, and ends
// before asynchronous_end() and nothing else. `thread`: on whose behalf; `generation`: which of 8
// under way.
void asynchronous_read(int thread, const void *p, size_t bytes, unsigned generation);
void asynchronous_end(int thread, unsigned generation);

// wgmma.cpp
void wgmma_begin_block();

// Which of the TSan fibers a CUDA thread is; blocks rotate over them (block.cpp).
int fiber_slot(int thread);
int fiber_slots();

// ---- memory (memory.cpp) -----------------------------------------------------------------------

enum { DEVICE = 1, PINNED = 2 }; // kinds of memory that CUDA gave
int memory_kind(const void *p);  // 0: neither

// Fails unless [p, p + bytes) is inside one block of a kind in `kinds` that is not freed.
void memory_check(const void *p, size_t bytes, int kinds, const char *what);

// While one lives, device memory can be accessed; else it is protected from the host.
struct DeviceAccess {
    DeviceAccess();
    ~DeviceAccess();
};

// ---- streams (stream.cpp) ----------------------------------------------------------------------

// Adds to a stream, or to the graph it is capturing. False: it cannot run yet.
typedef std::function<bool()> Operation;
void stream_push(cudaStream_t stream, const Operation &operation);
// One that other processes wait for: it is run at once, or when its graph is launched.
void stream_push_urgent(cudaStream_t stream, const Operation &operation);
int urgent_graphs(); // executable graphs with such operations
void stream_finish(cudaStream_t stream);
void streams_finish();
bool stream_capturing(cudaStream_t stream);

// A capture is going on, which the call that asks spoils. Returns the error to return, or 0.
cudaError_t capture_spoiled();

// ---- the device (device.cpp) -------------------------------------------------------------------

cudaError_t remember(cudaError_t code); // for cudaGetLastError()
cudaError_t planted_fault(const char *kind);
// First in a call of CUDA that may fail on request (device.cpp).
#define EMU_CALL(kind)                                                                             \
    EMU_LOCK;                                                                                      \
    if (const cudaError_t planted = emu::planted_fault(kind)) return planted
size_t dynamic_shared_allowed(const void *kernel);
} // namespace emu

#endif
