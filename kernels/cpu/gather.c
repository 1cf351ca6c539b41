// Stored pictures to inputs: gather, move, mirror, cut, normalise. Floor: the bytes of the result.
#include <omp.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/memory.h"
#include "kernels/random.h"

// What a thread works with, each for one row of w*c values.
typedef struct Work {
    float *scale, *shift; // result = byte * scale + shift
    int32_t *column;      // (w) where an output column comes from
    uint8_t *bytes;       // (w,c) a row that was moved or mirrored
} Work;

static int64_t work_floats(GatherDims d)
{
    return 4 * div_up((int64_t)d.w * d.c, 16) * 16;
}

static Work work_of(float *scratch, GatherDims d)
{
    const int64_t size = (int64_t)d.w * d.c;
    Work w;
    w.scale = carve(&scratch, size);
    w.shift = carve(&scratch, size);
    w.column = (int32_t *)carve(&scratch, size);
    w.bytes = (uint8_t *)scratch;
    return w;
}

// Whether its columns are.
static bool is_moved(const AugmentDraw *draw)
{
    return draw->mirror || draw->dx != 0;
}

static void prepare(Work w, const AugmentDraw *draw, GatherDims d)
{
    for (int x = 0; x < d.w && is_moved(draw); x++)
        w.column[x] = draw_reflect((draw->mirror ? d.w - 1 - x : x) + draw->dx, d.w);
    for (int c = 0; c < d.c; c++) {
        const double factor = draw->factor, mean = d.mean[c], std = d.std[c];
        const float scale = (float)(factor / (255 * std)),
                    shift = (float)((factor * (double)draw->offset - mean) / std);
        for (int x = c; x < d.w * d.c; x += d.c) w.scale[x] = scale, w.shift[x] = shift;
    }
}

static const uint8_t *moved_row(Work w, const uint8_t *row, const AugmentDraw *draw, GatherDims d)
{
    if (!is_moved(draw)) return row;
    for (int x = 0; x < d.w; x++)
        for (int c = 0; c < d.c; c++) w.bytes[x * d.c + c] = row[w.column[x] * d.c + c];
    return w.bytes;
}

static int within(int i, int size)
{
    return i < 0 ? 0 : i > size ? size : i;
}

static Vec normalized(const uint8_t *bytes, Work w, int i, int count)
{
    const Vec v = __builtin_convertvector(vec_load_bytes_up_to(bytes + i, count), Vec);
    return v * vec_load(w.scale + i) + vec_load(w.shift + i);
}

// The last vector of a row overlaps the one before.
static void normalize_row(Element *to, const uint8_t *bytes, Work w, int size)
{
    if (size < VEC) {
        elem_store_part(to, normalized(bytes, w, 0, size), size);
        return;
    }
    for (int next = 0; next < size; next += VEC) {
        const int i = next < size - VEC ? next : size - VEC;
        elem_store(to + i, normalized(bytes, w, i, VEC));
    }
}

static void gather_image(Element *to, const uint8_t *image, Work w, const AugmentDraw *draw,
                         int cutout, GatherDims d)
{
    const int size = d.w * d.c;
    const int left = within(draw->cut_x, d.w), right = within(draw->cut_x + cutout, d.w);
    prepare(w, draw, d);
    for (int y = 0; y < d.h; y++, to += size) {
        const uint8_t *row = image + (int64_t)draw_reflect(y + draw->dy, d.h) * size;
        const uint8_t *bytes = moved_row(w, row, draw, d);
        normalize_row(to, bytes, w, size);
        if (y >= draw->cut_y && y < draw->cut_y + cutout && left < right)
            memset(to + left * d.c, 0, (size_t)((right - left) * d.c) * sizeof *to);
    }
}

// Images lie anywhere in the set; the processor does not guess the next one.
static void prefetch(const uint8_t *image, int64_t size)
{
    for (int64_t i = 0; i < size; i += 64) __builtin_prefetch(image + i);
}

static void gather(void *x, int32_t *labels_out, const uint8_t *images, const int32_t *labels,
                   const uint32_t *ids, const uint32_t *rows, GatherDims d, Augment a)
{
    const int64_t size = (int64_t)d.h * d.w * d.c, own = work_floats(d);
    float *scratch = cpu_scratch((size_t)(cpu_threads * own) * sizeof *scratch);
    if (!scratch) return;
#pragma omp parallel for schedule(static) num_threads(cpu_threads)
    for (int64_t n = 0; n < d.n; n++) {
        const int64_t from = rows ? rows[n] : n;
        if (rows && n + 1 < d.n) prefetch(images + rows[n + 1] * size, size);
        const AugmentDraw draw = draw_augment(a, d.h, d.w, cpu_step.seed, cpu_step.epoch, ids[n]);
        labels_out[n] = labels[from];
        gather_image((Element *)x + n * size, images + from * size,
                     work_of(scratch + omp_get_thread_num() * own, d), &draw, a.cutout, d);
    }
}

void cpu_gather_ops(Kernels *k)
{
    k->gather = gather;
}
