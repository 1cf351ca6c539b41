// Convolution, NHWC, forward and data gradient: both slide a kernel over a map.
//
//   For a unit (a few images, or a strip of one), which one thread does from its start to its end:
//     copy it with its zeros around it into scratch memory (L2)
//     for each panel of GEMM_NR output channels:
//       block (pixels,GEMM_NR) = windows x packed weights   gemm_*.c; a window is `kernel` runs of
//                                                           kernel * c values, so nothing is copied
//       pool, bias, statistics, activation on the block, then store it
//
// Data gradient: the same with flipped weights over dy, spread out where the stride was 2, or put
// back at the maxima of the pooling windows.
// Where winograd_wins() says so, Winograd's way takes the place of both (winograd.h); where
// conv_slide_amx() does, in bf16, AMX's (conv2d_amx_bf16.c).
// Floor: 2 n oh ow cout kernel^2 cin FLOP over the rate of multiply-adds. Measured: 78 to 92%
// of it on the 3x3 layers of the CIFAR network (bench/conv 100 1).
#include "kernels/cpu/conv2d.h"

#include <omp.h>

#include "kernels/cpu/conv2d_amx.h"
#include "kernels/cpu/conv2d_pool.h"
#include "kernels/cpu/conv2d_units.h"
#include "kernels/cpu/conv2d_weight.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/winograd.h"

static void slide(const ConvOutput *o, const ConvSlide *s)
{
    if (!CPU_BF16 && winograd_wins(WINO_SLIDE, s->windows, s->map.c, o->channels)) {
        winograd_slide(o, s);
        return;
    }
    if (CPU_BF16 && conv_slide_amx(o, s)) return;
    const ConvMap *const map = &s->map;
    const int kernel = s->windows.kernel, pool = s->windows.pool;
    const ConvUnits u = conv_units(
        map, s->windows, (ConvUnitSize){.pixels = CONV_PIXELS, .elements = CONV_L2_ELEMENTS});
    const GemmAxis windows = {kernel, (int64_t)kernel * map->c, (int64_t)map->width * map->c};
    const int64_t panels = div_up(o->channels, GEMM_NR),
                  panel_size = carved_elements(gemm_panel_size(windows)),
                  stats_size = o->stats ? 2 * panels * GEMM_NR : 0,
                  block_size = (int64_t)u.max_pixels * GEMM_NR,
                  own_size = block_size + carved_elements(conv_padded_size(&u, map));
    float *scratch =
        cpu_scratch((size_t)(panels * panel_size + 2 * carved(u.max_pixels) + carved(u.count) +
                             carved(u.count * stats_size) + cpu_threads * own_size) *
                    sizeof(float));
    if (!scratch) return;
    float *const weights = carve(&scratch, panels * panel_size);
    float *const unit_stats = carve(&scratch, u.count * stats_size);
    int32_t *const counts = (int32_t *)carve(&scratch, u.count); // of the statistics
    int32_t *const offset = (int32_t *)carve(&scratch, u.max_pixels);
    int32_t *const run = (int32_t *)carve(&scratch, u.max_pixels);
    const int interleave = pool ? 4 : 1;
    conv_offsets(offset, &u, map);
    gemm_runs(run, offset, u.max_pixels, interleave);

#pragma omp parallel num_threads(cpu_threads)
    {
        float *const block = scratch + omp_get_thread_num() * own_size;
        Element *const padded = (Element *)(block + block_size);
#pragma omp for schedule(static)
        for (int64_t p = 0; p < panels; p++)
            conv_pack_weights((Element *)(weights + p * panel_size), s, kernel, (int)p * GEMM_NR);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < u.count; i++) {
            const ConvUnit unit = conv_unit(&u, i);
            const GemmRows unit_rows = {offset, run, unit.pixels, interleave};
            counts[i] = unit.pixels >> 2 * pool;
            conv_pad(padded, &u, &unit, map);
            for (int64_t p = 0; p < panels; p++) {
                const int channel = (int)p * GEMM_NR;
                ConvTarget target = {.o = o, .row = unit.pixel >> 2 * pool, .channel = channel};
                gemm_block(block, min_int(o->channels - channel, GEMM_NR), padded, unit_rows,
                           windows, (const Element *)(weights + p * panel_size), conv_finish,
                           &target);
                if (o->stats) {
                    float *const stats = unit_stats + i * stats_size + channel;
                    conv_add_stats(stats, stats + panels * GEMM_NR, 0, block, counts[i]);
                }
            }
        }
        if (o->stats) conv_merge_stats(o, u.count, counts, unit_stats);
    }
}

void conv_forward(const ConvOutput *o, const Element *x, const Element *w, ConvDims d)
{
    const ConvSlide s = {
        .map = conv_map(x, d), .windows = conv_windows(d, o->pool), .w = w, .d = d};
    slide(o, &s);
}

static void conv2d_forward(void *y, void *z, float *stats, const void *x, const void *w,
                           const float *bias, Activation act, ConvDims d)
{
    const ConvOutput o = {
        .y = y, .z = z, .stats = stats, .bias = bias, .act = act, .channels = d.cout};
    conv_forward(&o, x, w, d);
}

static void conv2d_pool_forward(void *y, uint8_t *argmax, float *stats, const void *x,
                                const void *w, const float *bias, Activation act, ConvDims d)
{
    const ConvOutput o = {.y = y,
                          .pool = true,
                          .argmax = argmax,
                          .stats = stats,
                          .bias = bias,
                          .act = act,
                          .channels = d.cout};
    if (!CPU_BF16 && conv_pool_forward_grey(&o, (const float *)x, (const float *)w, d)) return;
    conv_forward(&o, x, w, d);
}

void conv_backward_data(Element *dx, const Element *dy, const uint8_t *argmax, const Element *w,
                        ConvDims d)
{
    const int oh = conv_out(d.h, d.kernel, d.stride, d.pad),
              ow = conv_out(d.w, d.kernel, d.stride, d.pad);
    const ConvMap map = {.x = dy,
                         .argmax = argmax,
                         .h = argmax ? oh / 2 : oh,
                         .w = argmax ? ow / 2 : ow,
                         .c = d.cout,
                         .dilation = d.stride,
                         .before = d.kernel - 1 - d.pad,
                         .width = d.w + d.kernel - 1};
    const ConvOutput o = {.y = dx, .channels = d.cin};
    const ConvWindows windows = {
        .n = d.n, .rows = d.h, .width = d.w, .kernel = d.kernel, .stride = 1};
    slide(&o, &(ConvSlide){.map = map, .windows = windows, .w = w, .flipped = true, .d = d});
}

static void conv2d_backward_data(void *dx, const void *dy, const void *w, ConvDims d)
{
    conv_backward_data(dx, dy, NULL, w, d);
}

static void conv2d_backward_weight(float *dw, const void *dy, const void *x, GradMode mode,
                                   ConvDims d)
{
    conv_backward_weight(dw, dy, NULL, x, mode, d);
}

void cpu_conv2d_ops(Kernels *k)
{
    k->conv2d_forward = conv2d_forward;
    k->conv2d_pool_forward = conv2d_pool_forward;
    k->conv2d_backward_data = conv2d_backward_data;
    k->conv2d_backward_weight = conv2d_backward_weight;
}
