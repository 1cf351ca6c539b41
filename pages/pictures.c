#include "pages/pictures.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#ifdef __clang_analyzer__ // which finds a leak in stb_image_write where memory is short
unsigned char *stbi_write_png_to_mem(const unsigned char *pixels, int row_bytes, int w, int h,
                                     int c, int *size);
#else

// zlib instead of stb_image_write's own compressor: a page with 50 mistakes takes 12 ms, not 20.
static unsigned char *compress_png(unsigned char *data, int size, int *compressed, int quality)
{
    uLongf length = compressBound((uLong)size);
    unsigned char *out = malloc(length);
    (void)quality;
    if (!out || compress2(out, &length, data, (uLong)size, Z_BEST_SPEED) != Z_OK) {
        free(out);
        return NULL;
    }
    *compressed = (int)length;
    return out;
}

#define STBIW_ZLIB_COMPRESS compress_png
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_IMPLEMENTATION
#pragma GCC diagnostic ignored "-Wunused-function" // most of stb_image_write
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop
#endif

enum { MAX_SIDE = 64, GAP = 2, MIN_SIDE = 16 }; // MIN_SIDE: in a sheet

static uint8_t *pixel(const Pictures *p, int i, int y, int x)
{
    return p->pixels +
           (((size_t)i * (size_t)p->h + (size_t)y) * (size_t)p->w + (size_t)x) * (size_t)p->c;
}

// Sets picture i from an image (h,w,c), of which `shrink` rows and columns become one.
static void set_picture(Pictures *p, int i, const uint8_t *image, int h, int w, int c, int shrink)
{
    // a side shorter than `shrink` has fewer
    const int rows = shrink < h ? shrink : h, columns = shrink < w ? shrink : w, n = rows * columns;
    for (int y = 0; y < p->h; y++)
        for (int x = 0; x < p->w; x++)
            for (int channel = 0; channel < p->c; channel++) {
                int sum = 0;
                for (int dy = 0; dy < rows; dy++) {
                    const int row = (y * shrink + dy) * w + x * shrink;
                    for (int dx = 0; dx < columns; dx++)
                        sum += image[(int64_t)(row + dx) * c + channel];
                }
                pixel(p, i, y, x)[channel] = (uint8_t)((sum + n / 2) / n);
            }
}

Pictures pictures_of(const uint8_t *images, int count, int h, int w, int c)
{
    const int side = h > w ? h : w, shrink = (side + MAX_SIDE - 1) / MAX_SIDE;
    Pictures p = {
        .count = count,
        .h = h / shrink > 0 ? h / shrink : 1,
        .w = w / shrink > 0 ? w / shrink : 1,
        .c = c >= 3 ? 3 : 1,
    };
    p.pixels = malloc((size_t)(count * p.h * p.w * p.c) + 1);
    if (!p.pixels) return (Pictures){0};
    for (int i = 0; i < count; i++)
        set_picture(&p, i, images + (int64_t)i * h * w * c, h, w, c, shrink);
    return p;
}

void pictures_free(Pictures *p)
{
    free(p->pixels);
    *p = (Pictures){0};
}

static void write_base64(FILE *out, const uint8_t *data, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        const size_t left = size - i;
        const unsigned bits = (unsigned)data[i] << 16 |
                              (left > 1 ? (unsigned)data[i + 1] << 8 : 0) |
                              (left > 2 ? (unsigned)data[i + 2] : 0);
        putc(digits[bits >> 18], out);
        putc(digits[bits >> 12 & 63], out);
        putc(left > 1 ? digits[bits >> 6 & 63] : '=', out);
        putc(left > 2 ? digits[bits & 63] : '=', out);
    }
}

// Pixels (h,w,c) as an <img>; without memory it has its text only.
static void write_image(Html *out, const uint8_t *pixels, int h, int w, int c, const char *text)
{
    int size = 0;
    uint8_t *png = stbi_write_png_to_mem(pixels, w * c, w, h, c, &size);
    html_raw(out, "<img width=\"%d\" height=\"%d\" alt=\"", w, h);
    html_text(out, "%s", text);
    html_raw(out, "\" src=\"data:image/png;base64,");
    if (png) write_base64(out->out, png, (size_t)size);
    html_raw(out, "\">");
    free(png);
}

void picture_write(Html *h, const Pictures *p, int i, const char *text)
{
    write_image(h, pixel(p, i, 0, 0), p->h, p->w, p->c, text);
}

void pictures_write(Html *h, const Pictures *p, int columns, const char *text)
{
    const int side = p->h > p->w ? p->h : p->w, zoom = side < MIN_SIDE ? MIN_SIDE / side : 1;
    const int step_y = zoom * p->h + GAP, step_x = zoom * p->w + GAP;
    const int rows = (p->count + columns - 1) / columns, c = p->c + 1; // the gaps are transparent
    const int height = rows * step_y - GAP, width = columns * step_x - GAP;
    uint8_t *sheet = p->count > 0 ? calloc((size_t)height * (size_t)width, (size_t)c) : NULL;
    if (!sheet) return;
    for (int i = 0; i < p->count; i++)
        for (int y = 0; y < zoom * p->h; y++)
            for (int x = 0; x < zoom * p->w; x++) {
                const int row = i / columns * step_y + y, column = i % columns * step_x + x;
                uint8_t *to = sheet + ((ptrdiff_t)row * width + column) * c;
                memcpy(to, pixel(p, i, y / zoom, x / zoom), (size_t)p->c);
                to[p->c] = 255;
            }
    write_image(h, sheet, height, width, c, text);
    free(sheet);
}
