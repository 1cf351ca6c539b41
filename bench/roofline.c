// How near each operation of a training step is to what this machine can do:
//     ./train_cnn --profile --threads 2 --out RUN ... && bench/roofline 2 fp32 RUN/profile.json
// The ceilings that --profile measures are those of our own operations; these are the machine's. An
// operation's floor is the longer of its arithmetic at the peak rate and its bytes at the bandwidth
// of a working set as large as they are. The peak rate of AMX is that of tiles from the L2 cache,
// since the factors of none of these products fit the L1 cache.
#include <immintrin.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench/bench.h"
#include "base/json.h"
#include "base/os.h"

// ---- ceilings -----------------------------------------------------------------------------------

// FLOP of bf16 dot products in vectors: 32 multiply-adds each.
__attribute__((target("avx512bf16"), noinline)) static double bf16_vectors(void)
{
    enum { CHAINS = 24, PASSES = 40000 };
    __m512 acc[CHAINS];
    __m512i x = _mm512_setzero_si512();
    for (int i = 0; i < CHAINS; i++) acc[i] = _mm512_setzero_ps();
    for (int pass = 0; pass < PASSES; pass++) {
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = _mm512_dpbf16_ps(acc[i], (__m512bh)x, (__m512bh)x);
            __asm__ volatile("" : "+v"(acc[i]));
        }
    }
    return 64.0 * CHAINS * PASSES;
}

static void configure_tiles(void)
{
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1,
               .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
               .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    __asm__ volatile("ldtilecfg %0" : : "m"(shape));
}

// Values from 1 to 2: products of zeros would be faster than others.
static void fill_tiles(char *memory, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i += 2) {
        const uint16_t value = (uint16_t)(0x3f80 | (i * 2654435761u >> 24 & 0x7f));
        memcpy(memory + i, &value, sizeof value);
    }
}

// FLOP of AMX tile products: (16,32) times (32,16), into four tiles in turn.
__attribute__((target("amx-tile,amx-bf16"), noinline)) static double bf16_tiles(void)
{
    enum { PASSES = 20000, TILE = 1024 };
    static char tiles[2 * TILE];
    fill_tiles(tiles, sizeof tiles);
    configure_tiles();
    _tile_loadd(4, tiles, 64);
    _tile_loadd(5, tiles + TILE, 64);
    for (int pass = 0; pass < PASSES; pass++) {
        _tile_dpbf16ps(0, 4, 5);
        _tile_dpbf16ps(1, 4, 5);
        _tile_dpbf16ps(2, 4, 5);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_release();
    return 4.0 * 2 * 16 * 16 * 32 * PASSES;
}

// The same with factors from the L2 cache, as a convolution 3x3 of 256 channels needs them: for
// three pixels of 16 images and 32 channels of the output, 72 rounds of six products.
__attribute__((target("amx-tile,amx-bf16"), noinline)) static double bf16_tiles_from_l2(void)
{
    enum { PIXELS = 45, STEPS = 8, WIDTH = 9, ROUNDS = 72, TILE = 1024, PASSES = 20 };
    static _Thread_local char *a;
    if (!a) {
        if (posix_memalign((void **)&a, 2 << 20, 2 << 20)) exit(STATUS_IO);
        madvise(a, 2 << 20, MADV_HUGEPAGE);
        fill_tiles(a, 2 << 20);
    }
    const char *const b = a + (1 << 20);
    configure_tiles();
    double done = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        for (int pixel = 0; pixel + 2 * WIDTH + 5 <= PIXELS; pixel += 3) {
            for (int i = 0; i < ROUNDS; i++) {
                const char *const pixels =
                    a + (pixel + i / (3 * STEPS) * WIDTH) * STEPS * TILE + i % (3 * STEPS) * TILE;
                const char *const weights = b + 2 * TILE * i;
                _tile_loadd(6, pixels, 64);
                _tile_loadd(7, weights, 64);
                _tile_dpbf16ps(0, 6, 7);
                _tile_loadd(7, weights + TILE, 64);
                _tile_dpbf16ps(1, 6, 7);
                _tile_loadd(6, pixels + STEPS * TILE, 64);
                _tile_dpbf16ps(3, 6, 7);
                _tile_loadd(7, weights, 64);
                _tile_dpbf16ps(2, 6, 7);
                _tile_loadd(6, pixels + 2 * STEPS * TILE, 64);
                _tile_dpbf16ps(4, 6, 7);
                _tile_loadd(7, weights + TILE, 64);
                _tile_dpbf16ps(5, 6, 7);
            }
            done += 6.0 * 2 * 16 * 16 * 32 * ROUNDS;
        }
    }
    _tile_release();
    return done;
}

// AMX has to be asked for: its registers make a process's state larger.
static bool have_tiles(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18, AMX_BF16 = 1 << 22 };
    unsigned a, b, c, d;
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
    return (d & AMX_BF16) && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
}

static double best_rate(int threads, double (*work)(void))
{
    double best = 0;
    for (int i = 0; i < BENCH_ROUNDS; i++) best = bench_larger(best, bench_rate(threads, work));
    return best;
}

static double best_peak(int threads)
{
    double best = 0;
    for (int i = 0; i < BENCH_ROUNDS; i++) best = bench_larger(best, bench_peak(threads));
    return best;
}

enum { SIZES = 7 };
static const double sizes[SIZES] = {0x1p18, 0x1p20, 0x1p22, 0x1p24, 0x1p26, 0x1p28, 0x1p30};

// Bytes a second of a = b + s*c over three arrays of `bytes` together; each thread by its own
// clock, so that one that waits for a processor counts as if it had run.
static double triad(int threads, float *memory, double bytes)
{
    const int64_t part = (int64_t)(bytes / 12) / threads / 64 * 64, n = part * threads;
    const int64_t passes = 1 + (int64_t)(0x1p26 / bytes);
    double best = 0;
    for (int round = 0; round < BENCH_ROUNDS; round++) {
        double rate = 0;
#pragma omp parallel num_threads(threads) reduction(+ : rate)
        {
            float *restrict a = memory + part * omp_get_thread_num();
            const float *restrict b = a + n, *restrict c = a + 2 * n;
            const double start = bench_seconds();
            for (int64_t pass = 0; pass < passes; pass++) {
                for (int64_t i = 0; i < part; i++) a[i] = b[i] + 3.0f * c[i];
                __asm__ volatile("" : : : "memory");
            }
            rate += 12.0 * (double)(part * passes) / (bench_seconds() - start);
        }
        best = bench_larger(best, rate);
    }
    return best;
}

typedef struct Ceilings {
    double flop;             // a second, of the element type
    double bandwidth[SIZES]; // bytes a second
} Ceilings;

static Ceilings measure_ceilings(int threads, bool bf16)
{
    Ceilings c = {.flop = best_peak(threads)};
    printf("ceilings, %d thread%s: fp32 %.0f GFLOP/s", threads, threads == 1 ? "" : "s",
           1e-9 * c.flop);
    if (__builtin_cpu_supports("avx512bf16")) {
        const double rate = best_rate(threads, bf16_vectors);
        printf(", bf16 vectors %.0f", 1e-9 * rate);
        if (bf16) c.flop = bench_larger(c.flop, rate);
    }
    if (have_tiles()) {
        const double rate = best_rate(threads, bf16_tiles_from_l2);
        printf(", bf16 tiles %.0f, from the L2 cache %.0f", 1e-9 * best_rate(threads, bf16_tiles),
               1e-9 * rate);
        if (bf16) c.flop = bench_larger(c.flop, rate);
    }
    float *const memory = aligned_alloc(2 << 20, (size_t)sizes[SIZES - 1]);
    if (!memory) fprintf(stderr, "roofline: no memory\n"), exit(STATUS_IO);
    memset(memory, 0, (size_t)sizes[SIZES - 1]);
    printf("\ntriad, GB/s:");
    for (int i = 0; i < SIZES; i++) {
        c.bandwidth[i] = triad(threads, memory, sizes[i]);
        printf("  %.0f (%g MB)", 1e-9 * c.bandwidth[i], sizes[i] * 0x1p-20);
    }
    printf("\n");
    free(memory);
    return c;
}

// ---- the operations -----------------------------------------------------------------------------

typedef struct Operation {
    const char *name, *layer, *shape;
    double calls, ms, fastest, share, flop, bytes; // a step; flop and bytes of a call
} Operation;

static double floor_ms(const Operation *o, const Ceilings *c, const char **bound)
{
    int size = 0;
    while (size < SIZES - 1 && sizes[size] < o->bytes) size++;
    const double arithmetic = 1e3 * o->calls * o->flop / c->flop;
    const double memory = 1e3 * o->calls * o->bytes / c->bandwidth[size];
    *bound = arithmetic > memory ? "flop" : "bytes";
    return bench_larger(arithmetic, memory);
}

// What is slow and matters is marked: under half of its rate and over 5% of the step.
static void print_table(const Operation *o, int count, double step_ms, const Ceilings *c)
{
    double sum = 0;
    printf("%-27s %-12s %-27s %8s %6s %8s %6s %-5s %6s %7s\n", "operation", "layer", "shape",
           "ms/step", "share", "GFLOP/s", "GB/s", "bound", "floor", "fastest");
    for (int i = 0; i < count; i++) {
        const char *bound;
        const double least = floor_ms(&o[i], c, &bound);
        sum += least;
        const double giga = 1e-6 * o[i].calls / o[i].ms;
        printf("%-27s %-12s %-27s %8.3f %5.1f%% %8.1f %6.1f %-5s %5.0f%% %6.0f%%%s\n", o[i].name,
               o[i].layer, o[i].shape, o[i].ms, 100 * o[i].share, giga * o[i].flop,
               giga * o[i].bytes, bound, 100 * least / o[i].ms, 100 * least / o[i].fastest,
               o[i].share > 0.05 && least < 0.5 * o[i].fastest ? " <" : "");
    }
    printf("%-27s %-12s %-27s %8.3f %5.0f%% of the step's floor, %.3f ms\n", "the step", "-", "-",
           step_ms, 100 * sum / step_ms, sum);
}

static double number(const JsonNode *object, const char *key)
{
    const JsonNode *n = json_get(object, key);
    if (!n) fprintf(stderr, "roofline: no %s\n", key), exit(STATUS_DATA);
    return n->type == JSON_INT ? (double)n->integer : n->number;
}

static const char *text(const JsonNode *object, const char *key)
{
    const JsonNode *n = json_get(object, key);
    return n && n->type == JSON_STRING ? n->string : "-";
}

static Operation read_operation(const JsonNode *n)
{
    return (Operation){
        .name = text(n, "operation"),
        .layer = text(n, "layer"),
        .shape = text(n, "shape"),
        .calls = number(n, "calls"),
        .ms = number(n, "ms"),
        .fastest = number(n, "fastest_ms"),
        .share = number(n, "share"),
        .flop = number(n, "flop"),
        .bytes = number(n, "bytes"),
    };
}

int main(int argc, char **argv)
{
    enum { OPERATIONS_MAX = 512 };
    static Operation operations[OPERATIONS_MAX];
    const int threads = argc == 4 ? atoi(argv[1]) : 0;
    int count = 0;
    size_t size;
    void *data;
    JsonDocument d;
    Error e;
    if (threads < 1) return fprintf(stderr, "usage: roofline THREADS fp32|bf16 PROFILE.json\n"), 2;
    check(os_read_file(argv[3], &data, &size, &e), &e);
    check(json_parse(&d, data, size, &e), &e);
    const JsonNode *list = json_get(d.root, "operations");
    if (!list || list->type != JSON_ARRAY || list->count > OPERATIONS_MAX)
        return fprintf(stderr, "roofline: %s is no profile\n", argv[3]), 2;
    const JsonNode *n = json_first(list);
    for (; count < (int)list->count; n = json_next(n)) operations[count++] = read_operation(n);
    const Ceilings c = measure_ceilings(threads, strcmp(argv[2], "bf16") == 0);
    print_table(operations, count, number(d.root, "step_ms"), &c);
    json_document_free(&d);
    free(data);
    return 0;
}
