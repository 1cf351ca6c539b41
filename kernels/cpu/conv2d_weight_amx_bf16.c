// Weight gradient of the convolution in bfloat16 where there is a matrix unit: the common axis of
// its products is the images of the batch, 32 of them for each pixel.
//
//   dw[:, r, t, :] (cout,cin) = sum over pixels (i,j) of
//       dy[:, i, j, :]^T (cout,images) x[:, i*stride+r-pad, j*stride+t-pad, :] (images,cin)
//
//   A step is a pixel of 32 images, for any kernel, stride and padding, and what would multiply
//   the zeros around the map is left out. A tile register takes a kilobyte of scratch memory:
//     dy  (cout/16,groups of images,rows,columns) tiles (16 couts, 32 images); behind pooling
//         spread out to the places of the maxima, with zeros between
//     x   (cin/16,groups of images,rows,columns) tiles (16 pairs of images, 16 cins, 2)
//   A block of dw is two tiles of cout by three columns of (cin/16,kernel) of a row of the kernel:
//
//                         x[j]     x[j+1]   x[j+2]     the taps of a kernel of width 3
//         dy[j]   0-15    sums 0   sums 1   sums 2
//         dy[j]  16-31    sums 3   sums 4   sums 5
//
//   and goes through all pixels of a unit. A step loads seven tiles, through two registers, three
//   of which were not in the L1 cache.
//   A unit is a part of the map of up to 32 images, or several groups of so many if it is small.
//   A work item is a slice of cout and of cin and a part of the units, which it goes through in
//   order; a unit's operands and the sums stay in the L2 cache. The items follow from the shape, so
//   that the sums do not depend on the number of threads.
// Floor: 2 n oh ow cout kernel^2 cin FLOP over the rate of the matrix unit. Measured: 1,700 to
// 2,100 GFLOP/s a thread on the 3x3 layers of the CIFAR network from 64 channels on (bench/conv 500
// 1 bf16), half of what tiles in the L1 cache reach.
#include "kernels/cpu/conv2d_amx.h"

#if defined(__AMX_BF16__) && defined(__AVX512F__)

#include <omp.h>
#include <string.h>

#include "kernels/cpu/amx.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/memory.h"

enum {
    TILE = 16,              // rows of a tile, and columns of floats
    IMAGES = 32,            // of a step
    FEWEST_IMAGES = 12,     // of a batch, for this way to be the faster one
    TILE_ELEMENTS = 512,    // of dy or x
    TILE_SUMS = 256,        // of dw
    COLUMNS = 3,            // tiles of x in a block
    OUT_TILES = 8,          // of an item's cout, at most
    ITEM_SUMS = 160 * 1024, // floats
    ITEM_TILES = 1400,      // kilobytes of sums, and a unit of dy and x
    FEWEST_ROWS = 4,        // of a unit, and columns
    ITEMS = 16              // to share out, as far as the batch goes
};

typedef struct Work {
    const Element *dy, *x;
    const uint8_t *argmax;
    ConvDims d;
    int oh, ow, pool; // what is visited of the output; pool: 0 or 1
    int out_tiles, in_tiles, out_slices, in_slices;
    int rows, width, x_width; // of a unit at most: of dy, and of x
    int strips, side_by_side; // the units that a map is cut into
    int64_t groups, at_most;  // of images: in all, and in a unit
    int64_t sets, parts;      // of groups, of units
    int64_t columns, size;    // tiles of sums in a row of them, floats in an item's
    // The operands' elements for a group of images and 16 channels, and for all groups of a unit:
    int64_t dy_size, x_size, dy_plane, x_plane;
    float *sums; // (parts,out slices,in slices) of (kernel,cout/16,cin/16,kernel) tiles
} Work;

// A part of one axis of dy, and what it touches of x.
typedef struct Part {
    int first, end, x_first, x_end;
} Part;

// The part of a map for the images of groups group..group_end-1.
typedef struct Unit {
    int64_t group, group_end;
    Part rows, columns;
} Unit;

typedef struct Slice {
    int first, channels, tiles;
} Slice;

static Slice channel_slice(int channels, int tiles, int i)
{
    const int first = i * tiles * TILE, left = channels - first;
    Slice s = {first, min_int(left, tiles * TILE), tiles};
    s.tiles = (int)div_up(s.channels, TILE);
    return s;
}

// Part i of `parts` of an axis of dy with `length` values, in whole windows; x has `x_length`.
static Part get_part(const Work *w, int length, int x_length, int i, int parts)
{
    const int windows = length >> w->pool, stride = w->d.stride, pad = w->d.pad;
    Part p = {.first = (int)part_start(windows, i, parts) << w->pool,
              .end = (int)part_start(windows, i + 1, parts) << w->pool};
    p.x_first = max_int(0, p.first * stride - pad);
    p.x_end = max_int(p.x_first, min_int(x_length, (p.end - 1) * stride - pad + w->d.kernel));
    return p;
}

static Unit get_unit(const Work *w, int64_t index)
{
    const int units = w->strips * w->side_by_side, i = (int)(index % units);
    const int64_t set = index / units;
    return (Unit){part_start(w->groups, set, w->sets), part_start(w->groups, set + 1, w->sets),
                  get_part(w, w->oh, w->d.h, i / w->side_by_side, w->strips),
                  get_part(w, w->ow, w->d.w, i % w->side_by_side, w->side_by_side)};
}

// ---- packing -----------------------------------------------------------------------------------

// Where the images of a group lie; the last one again for those that are missing.
typedef struct Images {
    int count;
    int64_t offset[IMAGES]; // elements
} Images;

static Images get_images(int64_t size, int count)
{
    Images images = {.count = count};
    for (int i = 0; i < IMAGES; i++) images.offset[i] = size * min_int(i, count - 1);
    return images;
}

// Four lanes of eight channels, of images i, i + 8, i + 16 and i + 24.
INLINE __m512i load_lanes(const Element *x, const int64_t *offset)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i_u *)(x + offset[0])));
    v = _mm512_mask_broadcast_i32x4(v, 0x00f0, _mm_loadu_si128((const __m128i_u *)(x + offset[8])));
    v = _mm512_mask_broadcast_i32x4(v, 0x0f00,
                                    _mm_loadu_si128((const __m128i_u *)(x + offset[16])));
    return _mm512_mask_broadcast_i32x4(v, 0xf000,
                                       _mm_loadu_si128((const __m128i_u *)(x + offset[24])));
}

// Eight channels of a pixel: (8,IMAGES), zeros for missing images.
INLINE void transpose_eight(Element *to, const Element *x, const Images *images)
{
    const __mmask32 present = (__mmask32)(0xffffffffu >> (IMAGES - images->count));
    __m512i v[8], u[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) v[i] = load_lanes(x, images->offset + i);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        u[i] = _mm512_unpacklo_epi16(v[i], v[i + 1]);
        u[i + 1] = _mm512_unpackhi_epi16(v[i], v[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) { // channels 0 and 1, 2 and 3, ...
        v[i] = _mm512_unpacklo_epi32(u[i], u[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi32(u[i], u[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi32(u[i + 1], u[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi32(u[i + 1], u[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        u[2 * i] = _mm512_unpacklo_epi64(v[i], v[i + 4]);
        u[2 * i + 1] = _mm512_unpackhi_epi64(v[i], v[i + 4]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        _mm512_store_si512(to + i * IMAGES, _mm512_maskz_mov_epi16(present, u[i]));
}

// One pixel of dy as (cout/16,16,IMAGES), `plane` elements from a tile to the next, and zeros up to
// whole tiles. Fetches what lies `ahead`.
static void transpose_pixel(Element *tiles, int64_t plane, const Element *dy, const Images *images,
                            int64_t ahead, Slice s)
{
    for (int c = 0; c < s.tiles * TILE; c += 8) {
        Element *const to = tiles + c / TILE * plane + c % TILE * IMAGES;
        for (int i = 0; i < 8; i++)
            __builtin_prefetch(dy + c / 32 * 32 + ahead + images->offset[c % 32 + i]);
        if (c + 8 <= s.channels) {
            transpose_eight(to, dy + c, images);
        } else {
            memset(to, 0, 8 * IMAGES * sizeof *to);
            for (int j = c; j < s.channels; j++)
                for (int i = 0; i < images->count; i++)
                    to[(j - c) * IMAGES + i] = dy[j + images->offset[i]];
        }
    }
}

// The four pixels of a window, of a pooled one.
static void unpool_pixel(Element *tiles, int64_t plane, int64_t row_size, const Element *dy,
                         const uint8_t *argmax, const Images *images, int64_t ahead, Slice s)
{
    enum { CHANNELS = OUT_TILES * TILE, SIZE = CHANNELS * IMAGES };
    Element __attribute__((aligned(64))) values[SIZE], wide[SIZE], places[SIZE];
    const Images rows = get_images(CHANNELS, images->count);
    for (int i = 0; i < images->count; i++) {
        __builtin_prefetch(argmax + images->offset[i] + ahead);
        for (int c = 0; c < s.channels; c++) wide[i * CHANNELS + c] = argmax[images->offset[i] + c];
    }
    transpose_pixel(values, TILE_ELEMENTS, dy, images, ahead, s);
    transpose_pixel(places, TILE_ELEMENTS, wide, &rows, 0, s);
    for (int i = 0; i < s.tiles * TILE; i++) {
        const __m512i v = _mm512_load_si512(values + i * IMAGES),
                      p = _mm512_load_si512(places + i * IMAGES);
        Element *const to = tiles + i / TILE * plane + i % TILE * IMAGES;
        for (int place = 0; place < 4; place++) {
            const __mmask32 here = _mm512_cmpeq_epi16_mask(p, _mm512_set1_epi16((short)place));
            _mm512_store_si512(to + place / 2 * row_size + place % 2 * TILE_ELEMENTS,
                               _mm512_maskz_mov_epi16(here, v));
        }
    }
}

static void pack_dy(Element *tiles, const Work *w, const Unit *u, int64_t first, int count, Slice s)
{
    const int64_t width = conv_out(w->d.w, w->d.kernel, w->d.stride, w->d.pad) >> w->pool,
                  height = conv_out(w->d.h, w->d.kernel, w->d.stride, w->d.pad) >> w->pool,
                  image_size = width * height * w->d.cout, row_size = w->width * TILE_ELEMENTS;
    const Images images = get_images(image_size, count);
    for (int i = u->rows.first; i < u->rows.end; i += 1 + w->pool) {
        for (int j = u->columns.first; j < u->columns.end; j += 1 + w->pool) {
            const int64_t from = first * image_size +
                                 ((i >> w->pool) * width + (j >> w->pool)) * w->d.cout + s.first;
            Element *const to =
                tiles + (i - u->rows.first) * row_size + (j - u->columns.first) * TILE_ELEMENTS;
            if (w->pool)
                unpool_pixel(to, w->dy_plane, row_size, w->dy + from, w->argmax + from, &images,
                             w->d.cout, s);
            else
                transpose_pixel(to, w->dy_plane, w->dy + from, &images, w->d.cout, s);
        }
    }
}

// Up to 16 channels of a pixel as (IMAGES/2,16,2), and zeros for what is missing.
INLINE void pair_images(Element *tile, const Element *x, const Images *images, int channels)
{
    const __mmask16 all = (__mmask16)(channels < TILE ? (1u << channels) - 1 : 0xffff);
#pragma GCC unroll 4
    for (int i = 0; i < IMAGES; i += 2) {
        const __mmask16 first = i < images->count ? all : 0,
                        second = i + 1 < images->count ? all : 0;
        const __m256i even = _mm256_maskz_loadu_epi16(first, x + images->offset[i]),
                      odd = _mm256_maskz_loadu_epi16(second, x + images->offset[i + 1]);
        const __m512i upper = _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16);
        _mm512_store_si512(tile + i * TILE, _mm512_or_si512(_mm512_cvtepu16_epi32(even), upper));
    }
}

static void pack_x(Element *tiles, const Work *w, const Unit *u, int64_t first, int count, Slice s)
{
    const int64_t image_size = (int64_t)w->d.h * w->d.w * w->d.cin;
    const Images images = get_images(image_size, count);
    for (int i = u->rows.x_first; i < u->rows.x_end; i++) {
        Element *row = tiles + (i - u->rows.x_first) * w->x_width * TILE_ELEMENTS;
        for (int j = u->columns.x_first; j < u->columns.x_end; j++, row += TILE_ELEMENTS) {
            const Element *const x =
                w->x + first * image_size + ((int64_t)i * w->d.w + j) * w->d.cin + s.first;
            for (int c = 0; c < s.channels; c += TILE) {
                for (int k = 0; k < IMAGES && c % 32 == 0; k++)
                    __builtin_prefetch(x + c + w->d.cin + images.offset[k]);
                pair_images(row + c / TILE * w->x_plane, x + c, &images, s.channels - c);
            }
        }
    }
}

// ---- products ----------------------------------------------------------------------------------

// Tiles 0 to 5 hold sums, 6 has one of dy, 7 one of x. One of the columns of a block, and the
// pixels of a row, first..end-1, for which it is inside the map.
typedef struct Column {
    int64_t offset; // in the tiles of x, from pixel j * stride
    int first, end;
} Column;

typedef struct Block {
    Column column[COLUMNS];
    int first, end; // pixels for which all columns are inside
} Block;

// The rows of dy and x in a unit that a row of the kernel meets, `count` for each group of images.
typedef struct Rows {
    const Element *dy, *x;
    int64_t dy_second;         // to the block's second row, the next 16 channels; 0: there is none
    int64_t dy_row, x_row;     // from a row to the next
    int64_t dy_group, x_group; // from a group of images to the next
    int64_t x_step;            // from what a pixel of dy meets to what the next one does
    int64_t groups;
    int count, width;
    bool add;            // to the sums
    int64_t sums_second; // to the sums of the block's second row
} Rows;

INLINE bool inside(Column c, int j)
{
    return j >= c.first && j < c.end;
}

// Pixels first..end-1 of a row. The border is looked at where `check` says so.
INLINE void add_pixels(const Rows *r, const Block *b, const Element *dy, const Element *x,
                       int first, int end, const bool check, const bool two, const int columns)
{
    const Column c0 = b->column[0], c1 = b->column[1], c2 = b->column[2];
    const int64_t x_step = r->x_step, dy_second = r->dy_second;
    const Element *const x0 = x + c0.offset, *const x1 = x + c1.offset, *const x2 = x + c2.offset;
    Vec awake = {0};
#pragma GCC unroll 1
    for (int j = first; j < end; j++) {
        const Element *const a = dy + j * TILE_ELEMENTS;
        const int64_t at = j * x_step;
        const bool in0 = !check || inside(c0, j), in1 = columns > 1 && (!check || inside(c1, j)),
                   in2 = columns > 2 && (!check || inside(c2, j));
        AMX_KEEP_AWAKE(awake);
        _tile_loadd(6, a, 64);
        if (in0) {
            _tile_loadd(7, x0 + at, 64);
            _tile_dpbf16ps(0, 6, 7);
        }
        if (in1) {
            _tile_loadd(7, x1 + at, 64);
            _tile_dpbf16ps(1, 6, 7);
        }
        if (in2) {
            _tile_loadd(7, x2 + at, 64);
            _tile_dpbf16ps(2, 6, 7);
        }
        if (!two) continue;
        _tile_loadd(6, a + dy_second, 64); // and back, the last tile of x is there
        if (in2) {
            if (check) _tile_loadd(7, x2 + at, 64);
            _tile_dpbf16ps(5, 6, 7);
        }
        if (in1) {
            if (check || columns > 2) _tile_loadd(7, x1 + at, 64);
            _tile_dpbf16ps(4, 6, 7);
        }
        if (in0) {
            if (check || columns > 1) _tile_loadd(7, x0 + at, 64);
            _tile_dpbf16ps(3, 6, 7);
        }
    }
}

INLINE void add_block(float *sums, const Rows *r, const Block *b, const bool two, const int columns)
{
    float *const second = sums + r->sums_second;
    AMX_MEMORY_IS_READ;
    if (r->add) {
        _tile_loadd(0, sums, 64);
        if (columns > 1) _tile_loadd(1, sums + TILE_SUMS, 64);
        if (columns > 2) _tile_loadd(2, sums + 2 * TILE_SUMS, 64);
        if (two && columns > 2) _tile_loadd(5, second + 2 * TILE_SUMS, 64);
        if (two && columns > 1) _tile_loadd(4, second + TILE_SUMS, 64);
        if (two) _tile_loadd(3, second, 64);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        _tile_zero(4);
        _tile_zero(5);
    }
    for (int64_t g = 0; g < r->groups; g++) {
        for (int i = 0; i < r->count; i++) {
            const Element *const dy = r->dy + g * r->dy_group + i * r->dy_row, *const x =
                                                                                   r->x +
                                                                                   g * r->x_group +
                                                                                   i * r->x_row;
            add_pixels(r, b, dy, x, 0, b->first, true, two, columns);
            add_pixels(r, b, dy, x, b->first, b->end, false, two, columns);
            add_pixels(r, b, dy, x, b->end, r->width, true, two, columns);
        }
    }
    _tile_stored(0, sums, 64);
    if (columns > 1) _tile_stored(1, sums + TILE_SUMS, 64);
    if (columns > 2) _tile_stored(2, sums + 2 * TILE_SUMS, 64);
    if (two && columns > 2) _tile_stored(5, second + 2 * TILE_SUMS, 64);
    if (two && columns > 1) _tile_stored(4, second + TILE_SUMS, 64);
    if (two) _tile_stored(3, second, 64);
}

static void add_columns(float *sums, const Rows *r, const Block *b, int columns)
{
    if (r->dy_second && columns == 3)
        add_block(sums, r, b, true, 3);
    else if (r->dy_second && columns == 2)
        add_block(sums, r, b, true, 2);
    else if (r->dy_second)
        add_block(sums, r, b, true, 1);
    else if (columns == 3)
        add_block(sums, r, b, false, 3);
    else if (columns == 2)
        add_block(sums, r, b, false, 2);
    else
        add_block(sums, r, b, false, 1);
}

// The values of a part of dy for which those of x that are `shift` after them are inside the map.
static Part inside_part(const Work *w, Part p, int x_length, int shift)
{
    const int stride = w->d.stride;
    if (shift < 0) p.first = max_int(p.first, (int)div_up(-shift, stride));
    p.end = min_int(p.end, shift < x_length ? (int)div_up(x_length - shift, stride) : 0);
    p.end = max_int(p.first, p.end);
    return p;
}

// Columns first..first+count-1 of (cin/16,kernel).
static Block new_block(const Work *w, Part columns, int first, int count)
{
    const int width = columns.end - columns.first, start = columns.first * w->d.stride;
    Block b = {.end = width};
    for (int i = 0; i < count; i++) {
        const int shift = (first + i) % w->d.kernel - w->d.pad, tile = (first + i) / w->d.kernel;
        const Part in = inside_part(w, columns, w->d.w, shift);
        b.column[i] =
            (Column){(start + shift - columns.x_first) * TILE_ELEMENTS + tile * w->x_plane,
                     in.first - columns.first, in.end - columns.first};
        b.first = max_int(b.first, b.column[i].first);
        b.end = min_int(b.end, b.column[i].end);
    }
    b.first = min_int(b.first, width);
    b.end = max_int(b.end, b.first);
    return b;
}

// Sets or adds to the sums of row r of the kernel.
static void add_kernel_row(const Work *w, float *sums, bool add, const Unit *u, int r, Slice out,
                           Slice in, const Element *dy, const Element *x)
{
    const int shift = r - w->d.pad, stride = w->d.stride, columns = in.tiles * w->d.kernel;
    const Part inside = inside_part(w, u->rows, w->d.h, shift);
    const int64_t x_row = (int64_t)w->x_width * TILE_ELEMENTS;
    Rows rows = {.x = x + (inside.first * stride + shift - inside.x_first) * x_row,
                 .dy_row = (int64_t)w->width * TILE_ELEMENTS,
                 .x_row = stride * x_row,
                 .dy_group = w->dy_size,
                 .x_group = w->x_size,
                 .x_step = stride * TILE_ELEMENTS,
                 .groups = u->group_end - u->group,
                 .count = inside.end - inside.first,
                 .width = u->columns.end - u->columns.first,
                 .add = add,
                 .sums_second = w->columns * TILE_SUMS};
    for (int c = 0; c < columns; c += COLUMNS) {
        const int count = min_int(COLUMNS, columns - c);
        const Block b = new_block(w, u->columns, c, count);
        for (int t = 0; t < out.tiles; t += 2) {
            rows.dy = dy + t * w->dy_plane + (inside.first - u->rows.first) * rows.dy_row;
            rows.dy_second = t + 1 < out.tiles ? w->dy_plane : 0;
            add_columns(sums + ((r * w->out_tiles + t) * w->columns + c) * TILE_SUMS, &rows, &b,
                        count);
        }
    }
}

// ---- items -------------------------------------------------------------------------------------

static void work_item(const Work *w, int64_t item, Element *dy, Element *x)
{
    const int64_t slices = w->out_slices * w->in_slices, s = item % slices, part = item / slices,
                  units = w->sets * w->strips * w->side_by_side,
                  begin = part_start(units, part, w->parts),
                  end = part_start(units, part + 1, w->parts);
    const Slice out = channel_slice(w->d.cout, w->out_tiles, (int)(s / w->in_slices)),
                in = channel_slice(w->d.cin, w->in_tiles, (int)(s % w->in_slices));
    float *const sums = w->sums + item * w->size;
    amx_set_rows((int[AMX_TILES]){TILE, TILE, TILE, TILE, TILE, TILE, TILE, TILE});
    for (int64_t i = begin; i < end; i++) {
        const Unit u = get_unit(w, i);
        for (int64_t g = u.group; g < u.group_end; g++) {
            const int64_t first = part_start(w->d.n, g, w->groups);
            const int images = (int)(part_start(w->d.n, g + 1, w->groups) - first);
            pack_dy(dy + (g - u.group) * w->dy_size, w, &u, first, images, out);
            pack_x(x + (g - u.group) * w->x_size, w, &u, first, images, in);
        }
        for (int r = 0; r < w->d.kernel; r++)
            add_kernel_row(w, sums, i > begin, &u, r, out, in, dy, x);
    }
    _tile_release();
}

// dw (cout,kernel,kernel,cin), the part of a tile of cout, one of cin and a row of the kernel.
static void store_tiles(float *dw, const Work *w, int out, int in, int r, bool add)
{
    const int kernel = w->d.kernel, rows = min_int(TILE, w->d.cout - out * TILE),
              count = w->d.cin - in * TILE;
    const int64_t next_part = w->out_slices * w->in_slices * w->size,
                  item = out / w->out_tiles * w->in_slices + in / w->in_tiles,
                  row = r * w->out_tiles + out % w->out_tiles;
    const float *from =
        w->sums + item * w->size + (row * w->columns + in % w->in_tiles * kernel) * TILE_SUMS;
    for (int t = 0; t < kernel; t++, from += TILE_SUMS) {
        for (int i = 0; i < rows; i++) {
            float *const at =
                dw + (((int64_t)(out * TILE + i) * kernel + r) * kernel + t) * w->d.cin + in * TILE;
            Vec sum = add ? vec_load_up_to(at, count) : (Vec){0};
            for (int64_t part = 0; part < w->parts; part++)
                sum += vec_load(from + part * next_part + i * TILE);
            vec_store_up_to(at, sum, count);
        }
    }
}

static void cut_channels(Work *w)
{
    const int out = (int)div_up(w->d.cout, TILE), in = (int)div_up(w->d.cin, TILE),
              tap_sums = w->d.kernel * w->d.kernel * TILE_SUMS;
    w->out_slices = (int)div_up(out, OUT_TILES);
    w->out_tiles = (int)div_up(out, w->out_slices);
    if (w->out_slices > 1) w->out_tiles += w->out_tiles % 2;
    w->out_slices = (int)div_up(out, w->out_tiles);
    w->in_slices = (int)div_up(in, max_int(1, ITEM_SUMS / (tap_sums * w->out_tiles)));
    w->in_tiles = (int)div_up(in, w->in_slices);
    w->in_slices = (int)div_up(in, w->in_tiles);
    w->columns = (int64_t)w->in_tiles * w->d.kernel;
    w->size = (int64_t)w->out_tiles * w->in_tiles * tap_sums;
}

// Cuts maps into parts of which a unit's operands fit the L2 cache beside the sums: strips of whole
// rows, or where these would be too low, several side by side. False: not even then.
static bool cut_maps(Work *w)
{
    const ConvDims d = w->d;
    const int64_t room = ITEM_TILES - w->size / TILE_SUMS;
    int64_t rows, map;
    do {
        w->side_by_side++;
        w->width = (int)div_up(w->ow >> w->pool, w->side_by_side) << w->pool;
        w->x_width = min_int(d.w, (w->width - 1) * d.stride + d.kernel);
        const int64_t dy_row = (int64_t)w->width * w->out_tiles,
                      x_row = (int64_t)w->x_width * w->in_tiles;
        rows = (room - (d.kernel - d.stride) * x_row) / (dy_row + d.stride * x_row);
        map = w->oh * dy_row + d.h * x_row;
    } while (rows < min_int(FEWEST_ROWS, w->oh) && w->width > FEWEST_ROWS);
    if (rows < 1 + w->pool) return false;
    w->strips = (int)div_up(w->oh, rows >> w->pool << w->pool);
    w->rows = (int)div_up(w->oh >> w->pool, w->strips) << w->pool;
    w->at_most = w->strips * w->side_by_side > 1 ? 1 : max_int(1, (int)(room / map));
    return true;
}

static bool plan_work(Work *w)
{
    cut_channels(w);
    if (!cut_maps(w)) return false;
    const int64_t slices = (int64_t)w->out_slices * w->in_slices;
    w->groups = div_up(w->d.n, IMAGES);
    w->sets = div_up(w->groups, w->at_most);
    w->at_most = div_up(w->groups, w->sets);
    w->parts = conv_parts(ITEMS, w->sets * w->strips * w->side_by_side, slices, slices * w->size);
    w->dy_size = (int64_t)w->rows * w->width * TILE_ELEMENTS;
    w->x_size = ((int64_t)(w->rows - 1) * w->d.stride + w->d.kernel) * w->x_width * TILE_ELEMENTS;
    w->dy_plane = w->at_most * w->dy_size;
    w->x_plane = w->at_most * w->x_size;
    return true;
}

// Fewer images leave most of a step empty.
static bool applies(ConvDims d)
{
    return gemm_best_run() == TILE && d.n >= FEWEST_IMAGES;
}

bool conv_backward_weight_amx(float *dw, const Element *dy, const uint8_t *argmax, const Element *x,
                              GradMode mode, ConvDims d)
{
    const int pool = argmax != NULL;
    Work w = {.dy = dy,
              .argmax = argmax,
              .x = x,
              .d = d,
              .pool = pool,
              .oh = conv_out(d.h, d.kernel, d.stride, d.pad) >> pool << pool,
              .ow = conv_out(d.w, d.kernel, d.stride, d.pad) >> pool << pool};
    if (!applies(d) || w.oh == 0 || w.ow == 0 || !plan_work(&w)) return false;
    const int64_t out = div_up(d.cout, TILE), in = div_up(d.cin, TILE),
                  items = w.parts * w.out_slices * w.in_slices,
                  dy_size = carved_elements(w.out_tiles * w.dy_plane),
                  own = dy_size + carved_elements(w.in_tiles * w.x_plane);
    float *scratch =
        cpu_scratch((size_t)(carved(items * w.size) + cpu_threads * own) * sizeof(float));
    if (!scratch) return true;
    w.sums = carve(&scratch, items * w.size);

#pragma omp parallel num_threads(cpu_threads)
    {
        float *const mine = scratch + omp_get_thread_num() * own;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < items; i++)
            work_item(&w, i, (Element *)mine, (Element *)(mine + dy_size));
#pragma omp for schedule(static)
        for (int64_t i = 0; i < out * in * d.kernel; i++)
            store_tiles(dw, &w, (int)(i / in / d.kernel), (int)(i / d.kernel % in),
                        (int)(i % d.kernel), mode == ADD);
    }
    return true;
}

#else

bool conv_backward_weight_amx(float *dw, const Element *dy, const uint8_t *argmax, const Element *x,
                              GradMode mode, ConvDims d)
{
    (void)dw, (void)dy, (void)argmax, (void)x, (void)mode, (void)d;
    return false;
}

#endif
