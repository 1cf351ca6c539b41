// Shared memory, of which there is one block's at a time, and asynchronous copies to it.
#include <stdint.h>
#include <sys/mman.h>
#include <vector>

#include "tests/cuda_on_cpu/fiber.h"
#include "tests/cuda_on_cpu/internal.h"
#include "tests/cuda_on_cpu/sanitizer.h"

namespace emu
{
namespace
{
constexpr size_t ARENA = 512 << 10, GAP = 128; // between arrays, poisoned
constexpr size_t STATIC_LIMIT = 48 << 10, LIMIT = 227 << 10, PAGE = 4096;
constexpr size_t PIECE = 16; // of which it is known who wrote it

char *arena;
size_t arena_used, static_bytes, dynamic_bytes;
void *dynamic;
uint64_t launch_number;
std::vector<SharedArray *> arrays;  // that the running grid has used
int16_t writers[ARENA / PIECE];     // by cp.async, not fenced yet: thread + 1
std::vector<size_t> unfenced[1024]; // the pieces of each thread

// NaN in every floating-point type. Not memset(), which sanitizers watch.
void fill(void *p, size_t bytes)
{
    asm volatile("rep stosb" : "+D"(p), "+c"(bytes) : "a"(0xff) : "memory");
}

char *map_arena(void *where, size_t bytes, int fixed)
{
    void *p =
        mmap(where, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0);
    if (p == MAP_FAILED) fail("no memory for shared memory");
    return (char *)p;
}

void *take(size_t bytes, size_t alignment)
{
    if (alignment < 16) alignment = 16;
    arena_used = (arena_used + alignment - 1) / alignment * alignment;
    char *p = arena + arena_used;
    arena_used += bytes + GAP;
    if (arena_used > ARENA) fail("a block uses more than %zu bytes of shared memory", LIMIT);
    unpoison(p, bytes);
    fill(p, bytes);
    return p;
}
} // namespace

void shared_begin_grid(const Grid &g)
{
    if (!arena || TSAN) arena = map_arena(arena, ARENA, arena ? MAP_FIXED : 0);
    poison(arena, ARENA);
    launch_number++;
    arena_used = GAP; // dynamic memory is aligned to no more than CUDA promises
    static_bytes = 0;
    dynamic_bytes = g.shared_bytes;
    arrays.clear();
    dynamic = take(dynamic_bytes, 128);
}

// A block finds NaN in it, and TSan new memory.
void shared_begin_block()
{
    if (TSAN) map_arena(arena, (arena_used + PAGE - 1) / PAGE * PAGE, MAP_FIXED);
    fill(dynamic, dynamic_bytes);
    for (const SharedArray *a : arrays) fill(a->address, a->bytes);
    for (std::vector<size_t> &pieces : unfenced) pieces.clear();
    memset(writers, 0, sizeof writers);
}

void shared_end_grid()
{
    poison(arena, ARENA);
}

void *shared_array(SharedArray *a)
{
    if (a->launch == launch_number) return a->address;
    a->launch = launch_number;
    static_bytes += a->bytes;
    if (static_bytes > STATIC_LIMIT) fail("more than 48 KB of static shared memory");
    if (static_bytes + dynamic_bytes > LIMIT) fail("more than 227 KB of shared memory");
    a->address = take(a->bytes, a->alignment);
    arrays.push_back(a);
    return a->address;
}

void *shared_dynamic()
{
    return dynamic;
}

uint32_t shared_address(const void *p)
{
    if ((const char *)p < arena || (const char *)p >= arena + ARENA)
        fail("%p is not in shared memory", p);
    return (uint32_t)((const char *)p - arena);
}

void *shared_at(uint32_t address, size_t bytes, const char *what)
{
    if (address + bytes > ARENA || first_poisoned(arena + address, bytes))
        fail("%s accesses %zu bytes outside of the arrays of shared memory, at %p", what, bytes,
             arena + address);
    return arena + address;
}

void shared_print(FILE *f)
{
    for (const SharedArray *a : arrays)
        fprintf(f, "cuda_on_cpu:   shared array '%s' of %s:%d: %zu bytes at %p\n", a->name, a->file,
                a->line, a->bytes, a->address);
    if (dynamic_bytes)
        fprintf(f, "cuda_on_cpu:   dynamic shared memory: %zu bytes at %p\n", dynamic_bytes,
                dynamic);
}

// ---- cp.async ----------------------------------------------------------------------------------

namespace
{
struct Copy {
    void *shared;
    const void *global;
    int bytes, read;
};

struct Copies { // of one thread
    std::vector<std::vector<Copy>> groups;
    std::vector<Copy> open;
    unsigned committed, arrived; // groups
};
Copies copies[1024];

// Sanitizers are to see the copies: these calls are intercepted.
void *(*volatile watched_memcpy)(void *, const void *, size_t) = memcpy;
void *(*volatile watched_memset)(void *, int, size_t) = memset;
int (*volatile watched_memcmp)(const void *, const void *, size_t) = memcmp;

void do_copy(const Copy &c, int thread)
{
    if (!TSAN) { // which sees what containers do
        const size_t piece = (size_t)((char *)c.shared - arena) / PIECE;
        writers[piece] = (int16_t)(thread + 1);
        unfenced[thread].push_back(piece);
    }
    if (c.read) watched_memcpy(c.shared, c.global, (size_t)c.read);
    if (c.read < c.bytes) watched_memset((char *)c.shared + c.read, 0, (size_t)(c.bytes - c.read));
}

// Under TSan a copy is done at once, by a fiber of its own that begins after the call and ends
// before the wait for its group and nothing else. So a missing wait is an ordinary race.
constexpr int GENERATIONS = 8; // groups in flight
struct Proxy {
    void *fiber;
    char issue_clock[8], arrive_clock[GENERATIONS][8];
};
std::vector<Proxy *> &proxies = *new std::vector<Proxy *>; // [fiber slot]

Proxy *proxy_of(int thread)
{
    return proxies[(size_t)fiber_slot(thread)];
}

void create_proxies() // by the host: a fiber begins with what its creator has seen
{
    void *self = tsan_fiber_current();
    tsan_fiber_switch(fiber_host()->tsan);
    while ((int)proxies.size() < fiber_slots())
        proxies.push_back(new Proxy{tsan_fiber_create(), {}, {}});
    tsan_fiber_switch(self);
}

void do_tsan_copy(const Copy &c, int thread)
{
    create_proxies();
    Proxy *p = proxy_of(thread);
    void *self = tsan_fiber_current();
    release(p->issue_clock);
    tsan_fiber_switch(p->fiber);
    acquire(p->issue_clock);
    do_copy(c, thread);
    release(p->arrive_clock[copies[thread].committed % GENERATIONS]);
    tsan_fiber_switch(self);
}
} // namespace

void cp_async_begin_thread(int thread)
{
    Copies &c = copies[thread];
    c.groups.clear();
    c.open.clear();
    c.committed = c.arrived = 0;
}

// What nobody waited for arrives when its thread ends.
void cp_async_end_thread(int thread)
{
    Copies &c = copies[thread];
    for (const auto &group : c.groups)
        for (const Copy &copy : group) do_copy(copy, thread);
    for (const Copy &copy : c.open) do_copy(copy, thread);
}

void cp_async(void *shared, const void *global, int bytes, int read)
{
    const int thread = current_thread();
    const Copy copy = {shared, global, bytes, read};
    if (((uintptr_t)shared | (uintptr_t)global) & (uintptr_t)(bytes - 1))
        fail("cp.async of %d bytes from %p to %p: not aligned", bytes, global, shared);
    if ((char *)shared < arena || (char *)shared + bytes > arena + ARENA)
        fail("cp.async to %p, which is not shared memory", shared);
    if (const void *p = first_poisoned(shared, (size_t)bytes))
        fail("cp.async writes outside of the arrays of shared memory, at %p", p);
    if (const void *p = read ? first_poisoned(global, (size_t)read) : nullptr)
        fail("cp.async reads outside of an allocation, at %p", p);
    if (TSAN)
        do_tsan_copy(copy, thread);
    else if (order == FORWARD)
        do_copy(copy, thread);
    else
        copies[thread].open.push_back(copy);
}

void cp_async_commit()
{
    Copies &c = copies[current_thread()];
    c.committed++;
    c.groups.push_back(c.open);
    c.open.clear();
}

void cp_async_wait(int groups)
{
    const int thread = current_thread();
    Copies &c = copies[thread];
    for (; c.committed - c.arrived > (unsigned)groups; c.arrived++) {
        for (const Copy &copy : c.groups[c.arrived]) do_copy(copy, thread);
        c.groups[c.arrived].clear();
        if (TSAN) acquire(proxy_of(thread)->arrive_clock[c.arrived % GENERATIONS]);
    }
}

// ---- what is read asynchronously ---------------------------------------------------------------

void asynchronous_read(int thread, const void *p, size_t bytes, unsigned generation)
{
    if (!TSAN) return;
    create_proxies();
    Proxy *proxy = proxy_of(thread);
    void *self = tsan_fiber_current();
    release(proxy->issue_clock);
    tsan_fiber_switch(proxy->fiber);
    acquire(proxy->issue_clock);
    watched_memcmp(p, p, bytes);
    release(proxy->arrive_clock[generation % GENERATIONS]);
    tsan_fiber_switch(self);
}

void asynchronous_end(int thread, unsigned generation)
{
    if (TSAN) acquire(proxy_of(thread)->arrive_clock[generation % GENERATIONS]);
}

void fence_async_proxy()
{
    const int thread = current_thread();
    for (const size_t piece : unfenced[thread])
        if (writers[piece] == thread + 1) writers[piece] = 0;
    unfenced[thread].clear();
}

int unfenced_writer(uint32_t address)
{
    return writers[address / PIECE] - 1;
}
} // namespace emu
