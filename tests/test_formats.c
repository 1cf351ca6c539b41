// Files that the decoder alone would misread, built byte by byte from the formats' definitions: the
// right pixels, or a refusal that says why.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "data/decode/image.h"

#include <cmocka.h> // last: it defines a macro fail()

typedef struct File {
    uint8_t bytes[8192];
    size_t size;
} File;

static void add(File *f, const void *bytes, size_t size)
{
    assert_true(f->size + size <= sizeof f->bytes);
    memcpy(f->bytes + f->size, bytes, size);
    f->size += size;
}

#define ADD(f, ...) add(f, (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]){__VA_ARGS__})

static void add_little(File *f, uint64_t value, int bytes)
{
    for (int k = 0; k < bytes; k++, value >>= 8) ADD(f, (uint8_t)value);
}

static void add_big(File *f, uint64_t value, int bytes)
{
    for (int k = bytes; k--;) ADD(f, (uint8_t)(value >> 8 * k));
}

// The picture has this size and these RGB bytes; `rgb` NULL: any.
static void decodes(const File *f, bool exif, int h, int w, const uint8_t *rgb)
{
    uint8_t image[4096], *copy = malloc(f->size); // its own allocation: reading past it is seen
    ImageInfo info;
    Error e = {0};
    memcpy(copy, f->bytes, f->size);
    if (image_info(copy, f->size, exif, &info, &e)) fail_msg("%s", e.message);
    assert_int_equal(info.h, h);
    assert_int_equal(info.w, w);
    if (image_decode(image, h, w, 3, false, copy, f->size, &info, &e)) fail_msg("%s", e.message);
    if (rgb) assert_memory_equal(image, rgb, (size_t)(h * w * 3));
    free(copy);
}

static void refused(const File *f, const char *reason)
{
    ImageInfo info;
    Error e = {0};
    assert_int_equal(image_info(f->bytes, f->size, true, &info, &e), STATUS_DATA);
    if (!strstr(e.message, reason)) fail_msg("\"%s\" lacks \"%s\"", e.message, reason);
}

// ---- BMP ----------------------------------------------------------------------------------------

typedef struct BmpLayout {
    uint32_t header, bits, compression, used;
    size_t palette, gap; // bytes; the palette is 0, 1, 2, ... without a gap
    bool top_down;
    uint32_t masks[3];
} BmpLayout;

// Of 2x2 pixels: `rows` (8 bytes) from the bottom up.
static File bmp(const BmpLayout *l, const uint8_t rows[8])
{
    File f = {0};
    const bool old = l->header == 12, masks_behind = l->header == 40 && l->compression;
    const size_t at = 14 + l->header + (masks_behind ? 12 : 0) + l->palette + l->gap;
    ADD(&f, 'B', 'M');
    add_little(&f, 0, 8);
    add_little(&f, at, 4);
    add_little(&f, l->header, 4);
    add_little(&f, 2, old ? 2 : 4);
    add_little(&f, l->top_down ? -2u : 2, old ? 2 : 4);
    add_little(&f, 1, 2);
    add_little(&f, l->bits, 2);
    if (!old) add_little(&f, l->compression, 4);
    if (!old) add_little(&f, 0, 12);
    if (!old) add_little(&f, l->used, 8);
    for (int k = 0; k < 3 && (masks_behind || l->header > 40); k++) add_little(&f, l->masks[k], 4);
    while (f.size < at - l->palette - l->gap) ADD(&f, 0);
    for (size_t k = 0; k < l->palette; k++) ADD(&f, (uint8_t)k);
    while (f.size < at) ADD(&f, 0xaa);
    add(&f, rows, 4);
    add(&f, rows + 4, 4);
    return f;
}

// 24 bits: a row of two pixels has 6 bytes and 2 to fill up.
static File bmp24(const BmpLayout *l)
{
    static const uint8_t bottom[] = {3, 2, 1, 6, 5, 4, 0, 0}, top[] = {9, 8, 7, 12, 11, 10, 0, 0};
    File f = bmp(l, bottom);
    f.size -= 8;
    add(&f, l->top_down ? top : bottom, 8);
    add(&f, l->top_down ? bottom : top, 8);
    return f;
}

static void test_bmp_24(void **state)
{
    static const uint8_t rgb[] = {7, 8, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6};
    static const BmpLayout layouts[] = {
        {.header = 40, .bits = 24},
        {.header = 40, .bits = 24, .top_down = true},
        {.header = 40, .bits = 24, .palette = 40, .used = 10},
        {.header = 40, .bits = 24, .gap = 7},
        {.header = 12, .bits = 24},
        {.header = 52, .bits = 24},
        {.header = 56, .bits = 24, .gap = 1},
        {.header = 64, .bits = 24},
        {.header = 108, .bits = 24, .gap = 100, .top_down = true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        File f = bmp24(&layouts[i]);
        decodes(&f, true, 2, 2, rgb);
        f.size -= 2; // what fills up the last row
        decodes(&f, true, 2, 2, rgb);
        f.size--;
        refused(&f, "before its last pixel");
    }
}

// Colour k of a palette of four bytes each is (4k + 2, 4k + 1, 4k), of three (3k + 2, 3k + 1, 3k).
static void test_bmp_palettes(void **state)
{
    static const struct {
        BmpLayout layout;
        uint8_t rows[8], rgb[12];
    } cases[] = {
        // the last colours, which a reader loses that takes the 12-byte header for one of 24
        {{12, 8, .palette = 192},
         {60, 63, 0, 0, 1, 0},
         {5, 4, 3, 2, 1, 0, 182, 181, 180, 191, 190, 189}},
        {{12, 1, .palette = 6}, {0x40, 0, 0, 0, 0x80}, {5, 4, 3, 2, 1, 0, 2, 1, 0, 5, 4, 3}},
        {{12, 4, .palette = 48}, {0xf0, 0, 0, 0, 0x12}, {5, 4, 3, 8, 7, 6, 47, 46, 45, 2, 1, 0}},
        {{40, 8, .palette = 16, .used = 4},
         {3, 0, 0, 0, 1, 2},
         {6, 5, 4, 10, 9, 8, 14, 13, 12, 2, 1, 0}},
        {{40, 8, .palette = 16, .gap = 3},
         {3, 9, 0, 0, 1, 2},
         {6, 5, 4, 10, 9, 8, 14, 13, 12, 0, 0, 0}},
        {{64, 4, .palette = 64}, {0xf0, 0, 0, 0, 0x12}, {6, 5, 4, 10, 9, 8, 62, 61, 60, 2, 1, 0}},
        {{108, 1, .palette = 8}, {0x40, 0, 0, 0, 0x80}, {6, 5, 4, 2, 1, 0, 2, 1, 0, 6, 5, 4}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        File f = bmp(&cases[i].layout, cases[i].rows);
        decodes(&f, true, 2, 2, cases[i].rgb);
    }
    File f = bmp(&(BmpLayout){40, 8, .palette = 16, .used = 4}, cases[3].rows);
    f.bytes[10] = 54; // an offset that forgets the palette
    decodes(&f, true, 2, 2, cases[3].rgb);
}

static void test_bmp_masks(void **state)
{
    // 5-6-5 bits: red and green, blue and white
    static const uint8_t rows[8] = {0x1f, 0, 0xff, 0xff, 0, 0xf8, 0xe0, 7};
    static const uint8_t rgb[12] = {255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255};
    static const uint32_t headers[] = {40, 52, 56, 108, 124};
    (void)state;
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        File f = bmp(&(BmpLayout){headers[i], 16, 3, .masks = {0xf800, 0x7e0, 0x1f}}, rows);
        decodes(&f, true, 2, 2, rgb);
    }
    File f = bmp(&(BmpLayout){40, 16, 3, .masks = {0xf900, 0x7e0, 0x1f}}, rows);
    refused(&f, "mask of 0x0000f900");
    f = bmp(&(BmpLayout){40, 16, 3, .masks = {0xff80, 0x7e0, 0x1f}}, rows);
    refused(&f, "mask of 0x0000ff80");
}

static void test_bmp_refusals(void **state)
{
    static const struct {
        BmpLayout layout;
        const char *reason;
    } cases[] = {
        {{40, 8, 1, .palette = 1024}, "run-length coded BMP is not read"},
        {{64, 24, 4, .used = 0}, "run-length coded BMP is not read"},
        {{40, 24, 4, .used = 0}, "holds a JPEG or PNG"},
        {{40, 24, 3, .used = 0}, "masks for pixels of 24 bits"},
        {{41, 24, .used = 0}, "header of 41 bytes"},
        {{40, 2, .palette = 16}, "2 bits a pixel"},
        {{40, 8, .gap = 3}, "without its palette"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        File f = bmp(&cases[i].layout, (const uint8_t[8]){0});
        refused(&f, cases[i].reason);
    }
}

// ---- PNG and EXIF -------------------------------------------------------------------------------

static void add_chunk(File *f, const char *type, const void *data, size_t size)
{
    add_big(f, size, 4);
    const size_t start = f->size;
    add(f, type, 4);
    add(f, data, size);
    add_big(f, crc32(0, f->bytes + start, (unsigned)(4 + size)), 4);
}

static void start_png(File *f, int h, int w, int color)
{
    ADD(f, 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n');
    if (color < 0) add_chunk(f, "CgBI", "\x50\0\x20\2", 4);
    add_chunk(
        f, "IHDR",
        (uint8_t[]){0, 0, 0, (uint8_t)w, 0, 0, 0, (uint8_t)h, 8, (uint8_t)abs(color), 0, 0, 0}, 13);
}

// rows (h, 1 + bytes of a row)
static void end_png(File *f, const uint8_t *rows, size_t size, bool apple)
{
    uint8_t packed[512];
    uLongf length = sizeof packed;
    assert_int_equal(compress(packed, &length, rows, size), Z_OK);
    // Apple leaves out zlib's header and checksum.
    add_chunk(f, "IDAT", packed + (apple ? 2 : 0), length - (apple ? 6 : 0));
    add_chunk(f, "IEND", "", 0);
}

// A TIFF directory with the orientation as its second entry.
static void add_exif(File *f, bool big, unsigned orientation)
{
    void (*put)(File *, uint64_t, int) = big ? add_big : add_little;
    add(f, big ? "MM" : "II", 2);
    put(f, 42, 2);
    put(f, 8, 4);
    put(f, 2, 2);
    const unsigned entries[2][2] = {{0x10f, 7}, {0x112, orientation}};
    for (int k = 0; k < 2; k++) {
        put(f, entries[k][0], 2);
        put(f, 3, 2);
        put(f, 1, 4);
        put(f, entries[k][1], 2);
        put(f, 0, 2);
    }
    put(f, 0, 4);
}

// "abc" over "def" as it is stored; the eight ways to see it, from EXIF's definition: where the
// stored first row and first column are.
static const struct {
    int h, w;
    char seen[7];
} orientations[9] = {
    [1] = {2, 3, "abcdef"}, // top, left
    [2] = {2, 3, "cbafed"}, // top, right
    [3] = {2, 3, "fedcba"}, // bottom, right
    [4] = {2, 3, "defabc"}, // bottom, left
    [5] = {3, 2, "adbecf"}, // left, top
    [6] = {3, 2, "daebfc"}, // right, top
    [7] = {3, 2, "fcebda"}, // right, bottom
    [8] = {3, 2, "cfbead"}, // left, bottom
};

static void as_rgb(uint8_t rgb[18], const char seen[6])
{
    for (int i = 0; i < 18; i++) rgb[i] = (uint8_t)seen[i / 3];
}

static void test_orientations(void **state)
{
    static const uint8_t rows[] = {0, 'a', 'b', 'c', 0, 'd', 'e', 'f'};
    uint8_t rgb[18];
    (void)state;
    for (unsigned o = 0; o < 10; o++)
        for (int big = 0; big < 2; big++) {
            File f = {0}, exif = {0};
            const unsigned seen = o >= 1 && o <= 8 ? o : 1;
            add_exif(&exif, big, o);
            start_png(&f, 2, 3, 0);
            add_chunk(&f, "eXIf", exif.bytes, exif.size);
            end_png(&f, rows, sizeof rows, false);
            as_rgb(rgb, orientations[seen].seen);
            decodes(&f, true, orientations[seen].h, orientations[seen].w, rgb);
            as_rgb(rgb, "abcdef");
            decodes(&f, false, 2, 3, rgb);
        }
}

static void test_apple_png(void **state)
{
    static const uint8_t bgr[] = {0, 3, 2, 1, 6, 5, 4};
    static const uint8_t bgra[] = {0, 30, 20, 10, 127, 0, 0, 255, 255};
    File f = {0};
    (void)state;
    start_png(&f, 1, 2, -2);
    end_png(&f, bgr, sizeof bgr, true);
    decodes(&f, true, 1, 2, (uint8_t[]){1, 2, 3, 4, 5, 6});
    f = (File){0};
    start_png(&f, 1, 2, -6);
    end_png(&f, bgra, sizeof bgra, true);
    decodes(&f, true, 1, 2, (uint8_t[]){20, 40, 60, 255, 0, 0}); // divided by the opacity
    f = (File){0};
    start_png(&f, 1, 2, -4);
    end_png(&f, bgra, sizeof bgra, true);
    refused(&f, "CgBI");
}

// Each place to cut a file: its own allocation shows what is read past it.
static void test_cut_files(void **state)
{
    static const uint8_t rows[] = {0, 1, 2, 255};
    File f = {0};
    (void)state;
    start_png(&f, 1, 3, -3);
    add_chunk(&f, "PLTE", "\1\2\3\4\5\6", 6);
    end_png(&f, rows, sizeof rows, true);
    for (size_t size = 1; size < f.size; size++) {
        uint8_t *cut = malloc(size);
        ImageInfo info;
        Error e = {0};
        memcpy(cut, f.bytes, size);
        assert_int_equal(image_info(cut, size, true, &info, &e), STATUS_DATA);
        free(cut);
    }
}

static void test_short_palette(void **state)
{
    static const uint8_t rows[] = {0, 1, 2, 255};
    File f = {0};
    (void)state;
    start_png(&f, 1, 3, 3);
    add_chunk(&f, "PLTE", "\1\2\3\4\5\6", 6);
    end_png(&f, rows, sizeof rows, false);
    decodes(&f, true, 1, 3, (uint8_t[]){4, 5, 6, 0, 0, 0, 0, 0, 0});
}

// ---- JPEG ---------------------------------------------------------------------------------------

typedef struct JpegLayout {
    int components, restart, markers; // MCUs between restart markers; how many there are
    int adobe;                        // the transform in Adobe's marker + 1; 0: no marker
    bool no_huffman, no_quantisation, no_scan, short_scan, jfif, rgb, one_of_three;
    bool progressive, no_last_scan; // DC with a bit less, then AC, then the bit
    int orientation;
} JpegLayout;

static void add_segment(File *f, int marker, const void *data, size_t size)
{
    ADD(f, 0xff, (uint8_t)marker);
    add_big(f, size + 2, 2);
    add(f, data, size);
}

// DC codes: 0 is a difference of 0, 10 one of 7 bits. AC codes: 0 ends the block.
static void add_tables(File *f, const JpegLayout *l)
{
    uint8_t eights[65];
    memset(eights, 8, sizeof eights);
    eights[0] = 0;
    if (!l->no_quantisation) add_segment(f, 0xdb, eights, sizeof eights);
    if (l->no_huffman) return;
    add_segment(f, 0xc4, "\0\1\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\7", 19);
    add_segment(f, 0xc4, "\x10\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 18);
}

// 8 lines of 16 pixels, two blocks a component: the left one is 128, the right one 192.
static File jpeg(const JpegLayout *l)
{
    File f = {0}, exif = {0};
    ADD(&f, 0xff, 0xd8);
    add(&exif, "Exif\0\0", 6);
    add_exif(&exif, true, (unsigned)l->orientation);
    if (l->jfif) add_segment(&f, 0xe0, "JFIF\0\1\1\0\0\1\0\1\0\0", 14);
    if (l->orientation) add_segment(&f, 0xe1, exif.bytes, exif.size);
    const uint8_t adobe[12] = {'A', 'd', 'o', 'b', 'e', 0,
                               100, 0,   0,   0,   0,   (uint8_t)(l->adobe - 1)};
    if (l->adobe) add_segment(&f, 0xee, adobe, sizeof adobe);
    add_tables(&f, l);
    const int n = l->components;
    uint8_t frame[18] = {8, 0, 8, 0, 16, (uint8_t)n}, scan[12] = {l->one_of_three ? 1 : (uint8_t)n};
    for (int k = 0; k < n && k < 4; k++) {
        const uint8_t id = l->rgb ? (uint8_t) "RGB"[k] : (uint8_t)(k + 1);
        memcpy(frame + 6 + 3 * k, (uint8_t[]){id, 0x11, 0}, 3);
        scan[1 + 2 * k] = id;
    }
    add_segment(&f, l->progressive ? 0xc2 : 0xc0, frame, 6 + 3 * (size_t)n);
    if (l->restart) add_segment(&f, 0xdd, (uint8_t[]){0, (uint8_t)l->restart}, 2);
    const size_t at = 1 + 2 * (size_t)scan[0];
    scan[at + 1] = l->progressive ? 0 : 63;
    scan[at + 2] = l->progressive ? 1 : 0;
    if (!l->no_scan) add_segment(&f, 0xda, scan, at + 3);
    // 0 0 | 10 1000000 0: a block of 128, one that is 64 above it
    if (!l->no_scan && !l->short_scan && n == 1 && !l->progressive)
        for (int k = 0; k <= l->markers; k++) {
            if (k == 0)
                add(&f, l->markers ? "\x3f" : "\x28\x0f", l->markers ? 1 : 2);
            else
                ADD(&f, 0xff, (uint8_t)(0xd0 + k - 1), 0xa0, 0x1f);
        }
    else if (!l->no_scan && !l->short_scan)
        add(&f, "\0\0\0", 3);
    for (int k = 0; k < n && l->progressive; k++) {
        add_segment(&f, 0xda, (uint8_t[]){1, scan[1 + 2 * k], 0, 1, 63, 0}, 6);
        ADD(&f, 0);
    }
    scan[at + 2] = 0x10;
    if (l->progressive && !l->no_last_scan) {
        add_segment(&f, 0xda, scan, at + 3);
        ADD(&f, 0);
    }
    ADD(&f, 0xff, 0xd9);
    return f;
}

static void two_greys(uint8_t rgb[16 * 8 * 3])
{
    for (int i = 0; i < 16 * 8 * 3; i++) rgb[i] = i / 3 % 16 < 8 ? 128 : 192;
}

static void test_jpeg(void **state)
{
    uint8_t rgb[16 * 8 * 3];
    two_greys(rgb);
    (void)state;
    File f = jpeg(&(JpegLayout){.components = 1});
    decodes(&f, true, 8, 16, rgb);
    f = jpeg(&(JpegLayout){.components = 1, .restart = 1, .markers = 1});
    decodes(&f, true, 8, 16, rgb);
    f = jpeg(&(JpegLayout){.components = 1, .restart = 2});
    decodes(&f, true, 8, 16, rgb);
    f = jpeg(&(JpegLayout){.components = 1, .orientation = 3});
    for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = i / 3 % 16 < 8 ? 192 : 128;
    decodes(&f, true, 8, 16, rgb);
    f = jpeg(&(JpegLayout){.components = 1, .orientation = 6}); // turned to the right
    for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = i < sizeof rgb / 2 ? 128 : 192;
    decodes(&f, true, 16, 8, rgb);
    static const JpegLayout good[] = {
        {.components = 3},
        {.components = 3, .rgb = true},
        {.components = 3, .rgb = true, .adobe = 1},
        {.components = 4, .adobe = 1},
        {.components = 4, .adobe = 3},
        {.components = 3, .progressive = true},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        f = jpeg(&good[i]);
        decodes(&f, true, 8, 16, NULL);
    }
}

static void test_jpeg_refusals(void **state)
{
    static const struct {
        JpegLayout layout;
        const char *reason;
    } cases[] = {
        {{.components = 1, .no_huffman = true}, "without its Huffman tables"},
        {{.components = 3, .no_huffman = true, .progressive = true}, "without its Huffman tables"},
        {{.components = 1, .no_quantisation = true}, "without its quantisation tables"},
        {{.components = 1, .no_scan = true}, "without a scan"},
        {{.components = 3, .one_of_three = true}, "without a scan of each component"},
        {{.components = 3, .progressive = true, .no_last_scan = true}, "without its last scans"},
        {{.components = 1, .short_scan = true}, "scan of 0 bytes, expected at least 1"},
        {{.components = 1, .restart = 1}, "0 restart markers in a scan, expected 1"},
        {{.components = 1, .restart = 1, .markers = 3}, "3 restart markers in a scan, expected 1"},
        {{.components = 1, .markers = 1}, "1 restart markers in a scan, expected 0"},
        {{.components = 4}, "without Adobe's marker"},
        {{.components = 4, .adobe = 2}, "without Adobe's marker"},
        {{.components = 3, .rgb = true, .jfif = true}, "named RGB"},
        {{.components = 2}, "2 components"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        File f = jpeg(&cases[i].layout);
        refused(&f, cases[i].reason);
    }
    File f = jpeg(&(JpegLayout){.components = 1});
    uint8_t *frame = memmem(f.bytes, f.size, "\xff\xc0", 2);
    frame[1] = 0xc9;
    refused(&f, "SOF9");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bmp_24),        cmocka_unit_test(test_bmp_palettes),
        cmocka_unit_test(test_bmp_masks),     cmocka_unit_test(test_bmp_refusals),
        cmocka_unit_test(test_orientations),  cmocka_unit_test(test_apple_png),
        cmocka_unit_test(test_short_palette), cmocka_unit_test(test_cut_files),
        cmocka_unit_test(test_jpeg),          cmocka_unit_test(test_jpeg_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
