// JPEG: every segment up to the EOI marker, what each scan needs of tables and restart markers, and
// whether all components get pixels.
#include <string.h>

#include "data/decode/formats.h"
#include "data/decode/image.h"

enum {
    SOF0 = 0xc0,
    SOF2 = 0xc2,
    DHT = 0xc4,
    JPG = 0xc8,
    DAC = 0xcc,
    SOF15 = 0xcf,
    RST0 = 0xd0,
    RST7 = 0xd7,
    SOI = 0xd8,
    EOI = 0xd9,
    SOS = 0xda,
    DQT = 0xdb,
    DRI = 0xdd,
    APP0 = 0xe0,
    APP1 = 0xe1,
    APP14 = 0xee,
    TEM = 0x01,
};

typedef struct Component {
    int id, h, v, table; // h, v: sampling factors; table: of quantisation
    uint64_t complete;   // bit k: coefficient k came with its last bit
} Component;

typedef struct Jpeg {
    const uint8_t *b;
    size_t size, at;
    int h, w, n, h_max, v_max;
    bool progressive, jfif;
    int adobe; // the transform in Adobe's marker, -1 without
    Component component[4];
    bool quantisation[4];
    int shortest[2][4]; // of the codes in each Huffman table for DC and AC; 0: there is no table
    int restart;        // MCUs between two markers; 0: there are none
} Jpeg;

// A table of Huffman codes has at most 256 symbols.
static int read_huffman_tables(Jpeg *j, const uint8_t *b, size_t size, Error *e)
{
    while (size > 0) {
        size_t symbols = 0;
        int shortest = 0;
        for (int i = 1; i <= 16 && size >= 17; i++) {
            symbols += b[i];
            if (b[i] && !shortest) shortest = i;
        }
        if (size < 17 || symbols > 256 || 17 + symbols > size || b[0] >> 4 > 1 || (b[0] & 15) > 3)
            return fail(e, STATUS_DATA, "JPEG with a bad Huffman table");
        j->shortest[b[0] >> 4][b[0] & 15] = shortest;
        b += 17 + symbols;
        size -= 17 + symbols;
    }
    return 0;
}

static int read_quantisation_tables(Jpeg *j, const uint8_t *b, size_t size, Error *e)
{
    while (size > 0) {
        const size_t bytes = b[0] >> 4 ? 129 : 65;
        if (b[0] >> 4 > 1 || (b[0] & 15) > 3 || size < bytes)
            return fail(e, STATUS_DATA, "JPEG with a bad quantisation table");
        j->quantisation[b[0] & 15] = true;
        b += bytes;
        size -= bytes;
    }
    return 0;
}

static int read_frame(Jpeg *j, int marker, const uint8_t *b, size_t size, Error *e)
{
    if (marker > SOF2)
        return fail(e, STATUS_DATA, "JPEG of a kind that is not read (SOF%d)", marker - SOF0);
    if (j->n) return fail(e, STATUS_DATA, "JPEG with two frames");
    if (size < 6 || size != 6 + 3 * (size_t)b[5])
        return fail(e, STATUS_DATA, "JPEG with a bad frame header");
    if (b[0] != 8) return fail(e, STATUS_DATA, "JPEG of %d bits, expected 8", b[0]);
    j->progressive = marker == SOF2;
    j->h = (int)big16(b + 1);
    j->w = (int)big16(b + 3);
    j->n = b[5];
    if (j->n != 1 && j->n != 3 && j->n != 4)
        return fail(e, STATUS_DATA, "JPEG with %d components, expected 1, 3 or 4", j->n);
    if (j->h == 0) return fail(e, STATUS_DATA, "JPEG of 0 lines");
    for (int k = 0; k < j->n; k++) {
        const uint8_t *c = b + 6 + (size_t)3 * (size_t)k;
        j->component[k] = (Component){.id = c[0], .h = c[1] >> 4, .v = c[1] & 15, .table = c[2]};
        const Component *new = &j->component[k];
        if (new->h < 1 || new->h > 4 || new->v < 1 || new->v > 4 || new->table > 3)
            return fail(e, STATUS_DATA, "JPEG with a bad frame header");
        if (new->h > j->h_max) j->h_max = new->h;
        if (new->v > j->v_max) j->v_max = new->v;
    }
    return 0;
}

static int64_t ceil_divide(int64_t x, int64_t by)
{
    return (x + by - 1) / by;
}

// Passes over a scan's coded bytes. *bytes: those that code something.
static void pass_coded(Jpeg *j, int64_t *bytes, int64_t *restarts)
{
    *bytes = *restarts = 0;
    for (; j->at + 1 < j->size; j->at++) {
        const uint8_t *b = j->b + j->at;
        if (b[0] != 0xff) {
            ++*bytes;
        } else if (b[1] == 0) {
            ++*bytes;
            j->at++;
        } else if (b[1] >= RST0 && b[1] <= RST7) {
            ++*restarts;
            j->at++;
        } else if (b[1] != 0xff) {
            return;
        }
    }
}

// What a scan codes: `units` between which restart markers are counted, and the fewest bits.
static int read_scan(Jpeg *j, const uint8_t *b, size_t size, int64_t *units, int64_t *bits,
                     Error *e)
{
    const int n = size ? b[0] : 0;
    if (j->n == 0 || n < 1 || n > j->n || size != 4 + 2 * (size_t)n)
        return fail(e, STATUS_DATA, "JPEG with a bad scan header");
    const int start = b[1 + 2 * n], end = j->progressive ? b[2 + 2 * n] : 63;
    const int high = b[3 + 2 * n] >> 4, low = b[3 + 2 * n] & 15;
    if (start > end || end > 63) return fail(e, STATUS_DATA, "JPEG with a bad scan header");
    int64_t blocks = 0, bits_each = 0;
    *units = ceil_divide(j->w, INT64_C(8) * j->h_max) * ceil_divide(j->h, INT64_C(8) * j->v_max);
    for (int k = 0; k < n; k++) {
        Component *c = j->component;
        while (c < j->component + j->n && c->id != b[1 + 2 * k]) c++;
        const int dc = b[2 + 2 * k] >> 4, ac = b[2 + 2 * k] & 15;
        if (c == j->component + j->n || dc > 3 || ac > 3)
            return fail(e, STATUS_DATA, "JPEG with a bad scan header");
        if (n == 1)
            *units = ceil_divide(ceil_divide((int64_t)j->w * c->h, j->h_max), 8) *
                     ceil_divide(ceil_divide((int64_t)j->h * c->v, j->v_max), 8);
        const bool need_dc = start == 0 && high == 0, need_ac = !j->progressive || start > 0;
        if ((need_dc && !j->shortest[0][dc]) || (need_ac && !j->shortest[1][ac]))
            return fail(e, STATUS_DATA,
                        "JPEG without its Huffman tables, as a webcam's frame (MJPEG): convert it");
        if (!j->quantisation[c->table])
            return fail(e, STATUS_DATA, "JPEG without its quantisation tables");
        if (low == 0) c->complete |= UINT64_MAX >> (63 - end + start) << start;
        // A later scan of a progressive picture has a bit a block, or runs of blocks.
        bits_each = need_dc ? j->shortest[0][dc] : start == 0;
        if (!j->progressive) bits_each += j->shortest[1][ac];
        blocks += bits_each * (n == 1 ? 1 : c->h * c->v);
    }
    *bits = *units * blocks;
    return 0;
}

static int check_scan(Jpeg *j, const uint8_t *b, size_t size, Error *e)
{
    int64_t units = 0, bits = 0, bytes, restarts;
    const int status = read_scan(j, b, size, &units, &bits, e);
    if (status) return status;
    pass_coded(j, &bytes, &restarts);
    if (j->at + 1 >= j->size) return 0; // there is no EOI
    // A last one at the very end does no harm.
    const int64_t expected = j->restart ? (units - 1) / j->restart : 0;
    if (restarts < expected || restarts > expected + (j->restart != 0))
        return fail(e, STATUS_DATA, "JPEG with %lld restart markers in a scan, expected %lld",
                    (long long)restarts, (long long)expected);
    if (8 * bytes < bits)
        return fail(e, STATUS_DATA, "JPEG scan of %lld bytes, expected at least %lld",
                    (long long)bytes, (long long)ceil_divide(bits, 8));
    return 0;
}

// Adobe's marker and the names of the components say which colours they are. The decoder believes
// the names first, others the marker.
static int check_colors(const Jpeg *j, Error *e)
{
    const Component *c = j->component;
    if (j->n == 4 && j->adobe != 0 && j->adobe != 2)
        return fail(e, STATUS_DATA,
                    "JPEG with four components but without Adobe's marker, which says what colours "
                    "they are");
    if (j->n == 3 && c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B' &&
        (j->jfif || j->adobe > 0))
        return fail(e, STATUS_DATA, "JPEG with components named RGB and a marker for YCbCr");
    return 0;
}

static int check_whole(const Jpeg *j, ImageInfo *i, Error *e)
{
    uint64_t complete = j->n > 0 ? UINT64_MAX : 0;
    for (int k = 0; k < j->n; k++) complete &= j->component[k].complete;
    if (complete == 0) return fail(e, STATUS_DATA, "JPEG without a scan of each component");
    if (complete != UINT64_MAX) return fail(e, STATUS_DATA, "JPEG without its last scans");
    i->h = j->h;
    i->w = j->w;
    return check_colors(j, e);
}

static int read_segment(Jpeg *j, int marker, const uint8_t *b, size_t size, ImageInfo *i, Error *e)
{
    if (marker == DHT) return read_huffman_tables(j, b, size, e);
    if (marker == DQT) return read_quantisation_tables(j, b, size, e);
    if (marker == SOS) return check_scan(j, b, size, e);
    if (marker >= SOF0 && marker <= SOF15 && marker != JPG && marker != DAC)
        return read_frame(j, marker, b, size, e);
    if (marker == DRI && size == 2) j->restart = (int)big16(b);
    if (marker == APP0 && size >= 5 && memcmp(b, "JFIF", 5) == 0) j->jfif = true;
    if (marker == APP1 && size > 6 && memcmp(b, "Exif\0", 6) == 0 && i->orientation == 1)
        i->orientation = exif_orientation(b + 6, size - 6);
    if (marker == APP14 && size >= 12 && memcmp(b, "Adobe", 6) == 0) j->adobe = b[11];
    return 0;
}

int jpeg_check(const uint8_t *b, size_t size, ImageInfo *i, Error *e)
{
    Jpeg j = {.b = b, .size = size, .at = 2, .adobe = -1};
    while (j.at + 1 < size) {
        const uint8_t marker = b[j.at + 1];
        // Between segments: filling.
        if (b[j.at] != 0xff || marker == 0 || (marker >= RST0 && marker <= RST7) ||
            marker == 0xff) {
            j.at++;
            continue;
        }
        j.at += 2;
        if (marker == EOI) return check_whole(&j, i, e);
        if (marker == TEM || marker == SOI) continue;
        const size_t length = size - j.at < 2 ? 0 : big16(b + j.at);
        if (length < 2 || length > size - j.at) break;
        const uint8_t *segment = b + j.at + 2;
        j.at += length;
        const int status = read_segment(&j, marker, segment, length - 2, i, e);
        if (status) return status;
    }
    return fail(e, STATUS_DATA, "JPEG ends early (no EOI marker)");
}
