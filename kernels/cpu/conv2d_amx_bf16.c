// The convolution of conv2d.c, forward and data gradient, on AMX. What bounds it there is less the
// matrix unit than the cache lines on their way to tile registers: the L2 cache delivers about one
// in two cycles, and a product of tiles takes 16. So a tile of A is one pixel of up to 16 images,
// and neighbouring pixels, whose windows overlap, share their tiles while they are in the L1 cache:
//
//   padded copy of a unit    (rows, width, channels / 32, 16 images, 32 channels); a tile is 1 KB
//
//                             B, 32 channels of y
//                          k  +------+------+    k goes through all columns and channels of a row
//   pixel x     16 images  A0 |  C0  |  C1  |    of the kernel, then to its next row. Rows that are
//   pixel x + 1            A1 |  C2  |  C3  |    above or below the map are left out, columns
//   pixel x + 2            A2 |  C4  |  C5  |    beside it are zeros
//                             +------+------+
//                             6 registers of sums, one for A, one for B: a tile of B that is
//                             needed again is loaded again, from L1; 7 loads for 6 products
//
// Where a panel of B stays in the L1 cache, two pixels at once are a little faster, since then both
// of A's tiles keep a register. A unit is up to 16 images, whole or in strips of rows; it goes
// through B panel by panel.
// Floor: 2 n oh ow cout kernel^2 cin FLOP over the rate of tiles. Measured: 28 to 66% of it on the
// 3x3 layers of the CIFAR network (bench/conv 500 2 bf16).
#include "kernels/cpu/conv2d_amx.h"

#include <omp.h>
#include <string.h>

#include "kernels/cpu/amx.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/memory.h"

#if defined(__AMX_BF16__)

enum {
    TILE = AMX_ROWS * GEMM_STEP, // elements
    PANEL_STEP = GEMM_STEP * GEMM_NR,
    CELLS = 3,                  // pixels, or pooling windows, in a block
    UNIT_ELEMENTS = 384 * 1024, // of a unit's padded copy, as far as that can be
    MOST_ELEMENTS = 2 * UNIT_ELEMENTS,
    L1_ELEMENTS = 20 * 1024, // of a panel, to stay in the L1 cache
    FEWEST_UNITS = 16,       // to share out among threads
    FEWEST_IMAGES = 8,
    BLOCK = 4 * CELLS * AMX_ROWS * GEMM_NR
};

// One call of conv_slide_amx().
typedef struct Slide {
    const ConvOutput *o;
    const ConvMap *map;
    ConvUnits units;
    int height;            // rows of the map that are not zero everywhere
    int steps;             // of GEMM_STEP channels
    int cells;             // in a block, at most
    int64_t row_size;      // elements of a row of the padded copy
    int64_t panel_size;    // elements
    const Element *panels; // of B
    int64_t stats_size;    // floats of a unit
} Slide;

// A unit, and whose memory it is worked on in.
typedef struct Own {
    ConvUnit unit;
    int images;      // that the tile registers are set for
    int first, end;  // rows of the map that there is a copy of
    Element *padded; // (end - first, width, steps, AMX_ROWS, GEMM_STEP)
    float *block;    // BLOCK
} Own;

// ---- the padded copy ---------------------------------------------------------------------------

// The first `count` elements of p, GEMM_STEP at most, and zeros.
static inline __m512i load_up_to(const Element *p, int count)
{
    return count >= GEMM_STEP ? _mm512_loadu_si512(p)
                              : _mm512_maskz_loadu_epi16((1u << count) - 1, p);
}

// Row i of an image's map to its tiles, of which `to` is the first image's in column 0.
static void copy_row(Element *to, const Slide *s, int64_t image, int i)
{
    const ConvMap *const m = s->map;
    const int64_t step = s->steps * TILE;
    const Element *x = m->x + (image * m->h + i) * m->w * m->c;
    to += m->before * step;
    for (int j = 0; j < m->w; j++, x += m->c, to += step) {
        for (int k = 0; k < m->c; k += GEMM_STEP)
            _mm512_store_si512(to + k * AMX_ROWS, load_up_to(x + k, m->c - k));
    }
}

// The same where the map was pooled: values go back to where they are from, the others are zero.
static void spread_row(Element *to, const Slide *s, int64_t image, int i)
{
    const ConvMap *const m = s->map;
    const int64_t source = (image * m->h + i / 2) * m->w * m->c, step = s->steps * TILE;
    const Element *x = m->x + source;
    const uint8_t *argmax = m->argmax + source;
    const __m256i left = _mm256_set1_epi8((char)(i % 2 * 2)),
                  right = _mm256_set1_epi8((char)(i % 2 * 2 + 1));
    to += m->before * step;
    for (int j = 0; j < m->w; j++, x += m->c, argmax += m->c, to += 2 * step) {
        for (int k = 0; k < m->c; k += GEMM_STEP) {
            const int count = m->c - k;
            const __m512i value = load_up_to(x + k, count);
            const __m256i place = count >= GEMM_STEP
                                      ? _mm256_loadu_si256((const __m256i *)(argmax + k))
                                      : _mm256_maskz_loadu_epi8((1u << count) - 1, argmax + k);
            const __mmask32 is_left = _mm256_cmpeq_epi8_mask(place, left),
                            is_right = _mm256_cmpeq_epi8_mask(place, right);
            Element *const tile = to + k * AMX_ROWS;
            _mm512_store_si512(tile, _mm512_maskz_mov_epi16(is_left, value));
            _mm512_store_si512(tile + step, _mm512_maskz_mov_epi16(is_right, value));
        }
    }
}

static void copy_unit(const Slide *s, Own *own)
{
    const ConvUnit *const unit = &own->unit;
    const int top = unit->row - s->map->before;
    own->first = max_int(top, 0);
    own->end = min_int(top + unit->rows + s->units.kernel - 1, s->height);
    for (int i = own->first; i < own->end; i++) {
        for (int image = 0; image < unit->images; image++)
            (s->map->argmax ? spread_row : copy_row)(own->padded + (i - own->first) * s->row_size +
                                                         image * GEMM_STEP,
                                                     s, unit->image + image, i);
    }
}

// ---- products ----------------------------------------------------------------------------------

// Registers 0 to 5 are sums, or 4 and 5 two pixels of A; 6 is A, 7 is B.
static void set_images(Own *own)
{
    const int n = own->unit.images;
    if (own->images == n) return;
    own->images = n;
    amx_set_rows((int[AMX_TILES]){n, n, n, n, n, n, n, AMX_ROWS});
}

// The sums of neighbouring pixels to c[0], c[1], ...: a is the first one's tile in the kernel's
// first column, b the panel, both from the first kernel row on that is not skipped.
INLINE void product(float *const c[CELLS], const Element *a, int64_t row_size, int step,
                    const Element *b, int kernel_rows, int64_t kernel_steps, const int pixels)
{
    const int64_t row = AMX_BYTES, b_row = 2 * GEMM_NR * sizeof(Element),
                  c_row = GEMM_NR * sizeof(float), right = 2 * VEC;
    Vec awake = {0};
    AMX_MEMORY_IS_READ;
    _tile_zero(0);
    _tile_zero(1);
    if (pixels > 1) _tile_zero(2);
    if (pixels > 1) _tile_zero(3);
    if (pixels > 2) _tile_zero(4);
    if (pixels > 2) _tile_zero(5);
    for (int r = 0; r < kernel_rows; r++, a += row_size) {
        const Element *p = a;
#pragma GCC unroll 1
        for (int64_t k = 0; k < kernel_steps; k++, p += TILE, b += PANEL_STEP) {
            AMX_KEEP_AWAKE(awake);
            if (pixels == 3) {
                _tile_loadd(6, p, row);
                _tile_loadd(7, b, b_row);
                _tile_dpbf16ps(0, 6, 7);
                _tile_loadd(7, b + right, b_row);
                _tile_dpbf16ps(1, 6, 7);
                _tile_loadd(6, p + step, row);
                _tile_dpbf16ps(3, 6, 7);
                _tile_loadd(7, b, b_row);
                _tile_dpbf16ps(2, 6, 7);
                _tile_loadd(6, p + 2 * step, row);
                _tile_dpbf16ps(4, 6, 7);
                _tile_loadd(7, b + right, b_row);
                _tile_dpbf16ps(5, 6, 7);
            } else {
                _tile_loadd(4, p, row);
                _tile_loadd(7, b, b_row);
                _tile_dpbf16ps(0, 4, 7);
                if (pixels > 1) _tile_loadd(5, p + step, row);
                if (pixels > 1) _tile_dpbf16ps(2, 5, 7);
                _tile_loadd(7, b + right, b_row);
                _tile_dpbf16ps(1, 4, 7);
                if (pixels > 1) _tile_dpbf16ps(3, 5, 7);
            }
        }
    }
    _tile_stored(0, c[0], c_row);
    _tile_stored(1, c[0] + VEC, c_row);
    if (pixels > 1) _tile_stored(2, c[1], c_row);
    if (pixels > 1) _tile_stored(3, c[1] + VEC, c_row);
    if (pixels > 2) _tile_stored(4, c[2], c_row);
    if (pixels > 2) _tile_stored(5, c[2] + VEC, c_row);
}

// The sums of `pixels` columns from x on in row y of the output.
static void multiply(const Slide *s, const Own *own, float *const c[CELLS], int y, int x,
                     int pixels, const Element *panel)
{
    const int kernel = s->units.kernel, top = y - s->map->before, skipped = max_int(-top, 0),
              rows = min_int(top + kernel, s->height) - (top + skipped), step = s->steps * TILE;
    const int64_t kernel_steps = (int64_t)kernel * s->steps, row = s->row_size;
    const Element *const a = own->padded + (top + skipped - own->first) * row + (int64_t)x * step,
                         *const b = panel + skipped * kernel_steps * PANEL_STEP;
    if (pixels == 3)
        product(c, a, row, step, b, rows, kernel_steps, 3);
    else if (pixels == 2)
        product(c, a, row, step, b, rows, kernel_steps, 2);
    else
        product(c, a, row, step, b, rows, kernel_steps, 1);
}

// ---- a unit ------------------------------------------------------------------------------------

// The block of some cells from x on in row y: (cells,images,GEMM_NR), or where cells are pooling
// windows (4,cells,images,GEMM_NR), their four places.
static void multiply_cells(const Slide *s, const Own *own, int y, int x, int cells,
                           const Element *panel)
{
    const int pool = s->units.pool, columns = cells << pool,
              together = columns % s->cells ? 2 : s->cells;
    const int64_t size = (int64_t)own->unit.images * GEMM_NR;
    for (int row = 0; row <= pool; row++) {
        for (int j = 0; j < columns; j += together) {
            const int pixels = min_int(together, columns - j);
            float *c[CELLS];
            for (int i = 0; i < pixels; i++) {
                const int column = j + i, place = pool * (2 * row + column % 2);
                c[i] = own->block + (place * cells + (column >> pool)) * size;
            }
            multiply(s, own, c, (y << pool) + row, (x << pool) + j, pixels, panel);
        }
    }
}

static void multiply_panel(const Slide *s, const Own *own, int64_t p, float *stats)
{
    const ConvUnits *const u = &s->units;
    const int pool = u->pool, width = u->width >> pool, height = u->rows >> pool,
              parts = (int)div_up(width, s->cells), images = own->unit.images;
    const int64_t image_size = (int64_t)height * width, first = own->unit.image * image_size;
    int64_t place[CELLS * AMX_ROWS];
    for (int i = 0; i < CELLS * images; i++) place[i] = i % images * image_size + i / images;
    ConvTarget target = {.o = s->o, .channel = (int)p * GEMM_NR, .place = place};
    int64_t count = 0; // in stats
    for (int y = own->unit.row >> pool; y < (own->unit.row + own->unit.rows) >> pool; y++) {
        for (int i = 0; i < parts; i++) {
            const int x = (int)part_start(width, i, parts),
                      cells = (int)part_start(width, i + 1, parts) - x, rows = cells * images;
            multiply_cells(s, own, y, x, cells, s->panels + p * s->panel_size);
            target.row = first + (int64_t)y * width + x;
            target.pixel = rows;
            conv_finish(&target, own->block, 0, rows << 2 * pool);
            if (stats) conv_add_stats(stats, stats + s->stats_size / 2, count, own->block, rows);
            count += rows;
        }
    }
}

// ---- the batch ---------------------------------------------------------------------------------

// The batch in groups of images, and these in strips of rows. False: this way is not for the shape,
// because tiles were half empty, or a unit's padded copy would be far too large.
static bool cut_batch(Slide *s, ConvDims d)
{
    ConvUnits *const u = &s->units;
    const int64_t groups = div_up(d.n, AMX_ROWS);
    const int cells = u->rows >> u->pool,
              rows = (int)(UNIT_ELEMENTS / s->row_size) - (d.kernel - 1); // of a strip
    if (d.n < FEWEST_IMAGES || u->rows == 0 || u->width == 0) return false;
    u->strips =
        s->height <= rows + d.kernel - 1 ? 1 : (int)div_up(cells, max_int(rows >> u->pool, 1));
    u->strips = max_int(u->strips, min_int((int)div_up(FEWEST_UNITS, groups), cells));
    u->count = groups * u->strips;
    u->unit_rows = (int)div_up(cells, u->strips) << u->pool;
    u->padded_rows = min_int(u->unit_rows + d.kernel - 1, s->height);
    return u->padded_rows * s->row_size <= MOST_ELEMENTS;
}

static bool new_slide(Slide *s, const ConvOutput *o, const ConvSlide *slide)
{
    const ConvMap *const map = &slide->map;
    const ConvWindows w = slide->windows;
    const int64_t row = gemm_padded((int64_t)w.kernel * map->c), // of a window, as conv2d.c has it
        tiles = w.kernel * gemm_padded(map->c);
    if (gemm_best_run() < AMX_ROWS || w.stride > 1 || map->dilation > 1 || o->channels <= VEC ||
        tiles * 3 > row * 4)
        return false;
    *s = (Slide){.o = o,
                 .map = map,
                 .units = {.n = w.n,
                           .rows = w.pool ? w.rows / 2 * 2 : w.rows,
                           .width = w.pool ? w.width / 2 * 2 : w.width,
                           .pool = w.pool,
                           .kernel = w.kernel},
                 .height = map->h << (map->argmax != NULL),
                 .steps = (int)div_up(map->c, GEMM_STEP)};
    s->row_size = (int64_t)map->width * s->steps * TILE;
    s->panel_size = (int64_t)w.kernel * w.kernel * s->steps * PANEL_STEP;
    s->cells = s->panel_size < L1_ELEMENTS ? 2 : CELLS;
    s->stats_size = o->stats ? 2 * div_up(o->channels, GEMM_NR) * GEMM_NR : 0;
    return cut_batch(s, slide->d);
}

bool conv_slide_amx(const ConvOutput *o, const ConvSlide *slide)
{
    const int kernel = slide->windows.kernel, pool = slide->windows.pool;
    Slide s;
    if (!new_slide(&s, o, slide)) return false;
    const ConvUnits u = s.units;
    const int64_t panels = div_up(o->channels, GEMM_NR),
                  weights = carved_elements(panels * s.panel_size),
                  padded = carved_elements(u.padded_rows * s.row_size), own_size = padded + BLOCK;
    float *scratch = cpu_scratch((size_t)(weights + carved(u.count * s.stats_size) +
                                          carved(u.count) + cpu_threads * own_size) *
                                 sizeof(float));
    if (!scratch) return true;
    Element *const packed = (Element *)carve(&scratch, weights);
    float *const unit_stats = carve(&scratch, u.count * s.stats_size);
    int32_t *const counts = (int32_t *)carve(&scratch, u.count);
    s.panels = packed;

#pragma omp parallel num_threads(cpu_threads)
    {
        float *const mine = scratch + omp_get_thread_num() * own_size;
        Own own = {.block = mine, .padded = (Element *)(mine + BLOCK)};
        memset(own.padded, 0, (size_t)padded * sizeof(float)); // what copy_unit() leaves alone
#pragma omp for schedule(static)
        for (int64_t p = 0; p < panels; p++)
            conv_pack_weights(packed + p * s.panel_size, slide, kernel * kernel, (int)p * GEMM_NR);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < u.count; i++) {
            own.unit = conv_unit(&u, i);
            counts[i] = own.unit.pixels >> 2 * pool;
            set_images(&own);
            copy_unit(&s, &own);
            for (int64_t p = 0; p < panels; p++)
                multiply_panel(&s, &own, p,
                               o->stats ? unit_stats + i * s.stats_size + p * GEMM_NR : NULL);
        }
        _tile_release();
        if (o->stats) conv_merge_stats(o, u.count, counts, unit_stats);
    }
    return true;
}

#else

bool conv_slide_amx(const ConvOutput *o, const ConvSlide *slide)
{
    (void)o, (void)slide;
    return false;
}

#endif
