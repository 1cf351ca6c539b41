#include "train/init.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"

enum { PATCH_MAX = 64 }; // values of a whitening patch: size * size * C

static float *host_floats(int64_t n)
{
    float *p = malloc((size_t)n * sizeof(float));
    if (!p) die(STATUS_IO, "out of memory for %.0f MB of initial weights", (double)n * 4e-6);
    return p;
}

// FNV-1a, the tensor's number for the random stream.
static uint32_t name_hash(const char *name)
{
    uint32_t h = 2166136261u;
    for (const char *s = name; *s; s++) h = (h ^ (unsigned char)*s) * 16777619u;
    return h;
}

int64_t fan_in(const Tensor *t)
{
    return t->n / t->shape[0];
}

static void draw_uniform(float *w, const Tensor *t, uint64_t seed)
{
    const uint32_t number = name_hash(t->name);
    const double inputs = t->init.fan_in > 0 ? t->init.fan_in : (double)fan_in(t);
    const double bound = 1.0 / sqrt(inputs);
    for (int64_t i = 0; i < t->n; i++) {
        const Philox r = philox(seed, STREAM_INIT, (uint64_t)i / 4, number);
        w[i] = (float)(bound * (2.0 * (double)philox_unit(r.v[i % 4]) - 1.0));
    }
}

// Filter o of (Cout,KH,KW,Cin) passes input o through: 1 at its centre, 0 elsewhere.
static void make_identities(float *w, const Tensor *t)
{
    const int64_t cin = t->shape[3], filter = fan_in(t);
    const int64_t identities = t->shape[0] < cin ? t->shape[0] : cin;
    const int64_t centre = (t->shape[1] / 2 * t->shape[2] + t->shape[2] / 2) * cin;
    memset(w, 0, (size_t)(identities * filter) * sizeof(float));
    for (int64_t o = 0; o < identities; o++) w[o * filter + centre + o] = 1.0f;
}

void init_parameters(const Tensors *t, const Kernels *k, uint64_t seed)
{
    for (int i = 0; i < t->count; i++) {
        const Tensor *x = &t->list[i];
        if (x->kind != PARAMETER) continue;
        float *w = host_floats(x->n);
        draw_uniform(w, x, seed);
        if (x->init.kind == INIT_DIRAC) make_identities(w, x);
        for (int64_t j = 0; x->init.kind == INIT_ONES && j < x->n; j++) w[j] = 1.0f;
        tensor_upload(x, k, w);
        free(w);
    }
}

void init_unit_std(const Tensor *t, const Kernels *k)
{
    float *w = host_floats(t->n);
    k->download(w, t->master, (size_t)t->n * sizeof *w);
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < t->n; i++) sum += (double)w[i];
    const double mean = sum / (double)t->n;
    for (int64_t i = 0; i < t->n; i++) squares += (w[i] - mean) * (w[i] - mean);
    const double scale = 1.0 / sqrt(squares / (double)(t->n - 1));
    for (int64_t i = 0; i < t->n; i++) w[i] = (float)(w[i] * scale);
    tensor_upload(t, k, w);
    free(w);
}

// ---- whitening ----------------------------------------------------------------------------------

// Exact sums over all patches of some images of uint8 values u_a and products u_a u_b.
typedef struct PatchSums {
    int size, p; // p = size * size * C values a patch
    int64_t patches;
    int64_t first[PATCH_MAX], second[PATCH_MAX][PATCH_MAX];
} PatchSums;

// One image's sums fit 32 bits (255 * 255 * 33,000 patches), which vectorises well.
static void add_image(PatchSums *s, const uint8_t *image, int h, int w, int c)
{
    int32_t patch[PATCH_MAX] = {0}, first[PATCH_MAX] = {0}, second[PATCH_MAX][PATCH_MAX] = {{0}};
    const int run = s->size * c; // contiguous values of one row of a patch
    assert(h * w <= 33000);
    for (int y = 0; y + s->size <= h; y++)
        for (int x = 0; x + s->size <= w; x++) {
            for (int i = 0; i < s->size; i++)
                for (int j = 0; j < run; j++) patch[i * run + j] = image[((y + i) * w + x) * c + j];
            for (int a = 0; a < s->p; a++) {
                first[a] += patch[a];
                for (int b = 0; b < s->p; b++) second[a][b] += patch[a] * patch[b];
            }
            s->patches++;
        }
    for (int a = 0; a < s->p; a++) {
        s->first[a] += first[a];
        for (int b = 0; b < s->p; b++) s->second[a][b] += second[a][b];
    }
}

// E[z_a z_b] of the normalised values z = (u/255 - mean) / std.
static void second_moments(double m[PATCH_MAX][PATCH_MAX], const PatchSums *s, const Dataset *d)
{
    for (int a = 0; a < s->p; a++)
        for (int b = 0; b <= a; b++) {
            const double n = (double)s->patches;
            const double ma = (double)d->mean[a % d->c], mb = (double)d->mean[b % d->c];
            const double ea = (double)s->first[a] / n / 255.0, eb = (double)s->first[b] / n / 255.0;
            const double eab = (double)s->second[a][b] / n / (255.0 * 255.0);
            m[a][b] = (eab - ma * eb - mb * ea + ma * mb) /
                      ((double)d->std[a % d->c] * (double)d->std[b % d->c]);
            m[b][a] = m[a][b];
        }
}

// One Jacobi rotation that makes m[p][q] zero; v collects the rotations.
static void rotate(double m[PATCH_MAX][PATCH_MAX], double v[PATCH_MAX][PATCH_MAX], int n, int p,
                   int q)
{
    const double theta = (m[q][q] - m[p][p]) / (2.0 * m[p][q]);
    const double t = (theta >= 0 ? 1.0 : -1.0) / (fabs(theta) + sqrt(theta * theta + 1.0));
    const double c = 1.0 / sqrt(t * t + 1.0), s = t * c;
    for (int i = 0; i < n; i++) {
        const double a = m[i][p], b = m[i][q];
        m[i][p] = c * a - s * b;
        m[i][q] = s * a + c * b;
    }
    for (int i = 0; i < n; i++) {
        const double a = m[p][i], b = m[q][i];
        m[p][i] = c * a - s * b;
        m[q][i] = s * a + c * b;
        const double x = v[i][p], y = v[i][q];
        v[i][p] = c * x - s * y;
        v[i][q] = s * x + c * y;
    }
}

// Eigenvectors in the columns of v, eigenvalues on the diagonal of m: cyclic Jacobi, which
// converges quadratically; 30 sweeps are far more than these small matrices need.
static void eigen_symmetric(double m[PATCH_MAX][PATCH_MAX], double v[PATCH_MAX][PATCH_MAX], int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) v[i][j] = i == j;
    for (int sweep = 0; sweep < 30; sweep++)
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++)
                if (fabs(m[p][q]) > 1e-300) rotate(m, v, n, p, q);
}

// The columns of v by eigenvalue, largest first.
static void sort_eigenvectors(int order[PATCH_MAX], double m[PATCH_MAX][PATCH_MAX], int n)
{
    bool used[PATCH_MAX] = {false};
    for (int rank = 0; rank < n; rank++) {
        int i = -1; // the one with the largest eigenvalue that is left
        for (int j = 0; j < n; j++)
            if (!used[j] && (i < 0 || m[j][j] > m[i][i])) i = j;
        used[i] = true;
        order[rank] = i;
    }
}

// Along a direction in which the pictures do not vary, as between three equal channels, a filter's
// output is one number and rounding. A convolution that passes it on has a batch norm multiply that
// rounding, and the gradient, by up to 1e6: nothing else would be learnt. Such a filter becomes a
// copy of one that sees something, each of them in turn.
static void replace_idle(int order[PATCH_MAX], double m[PATCH_MAX][PATCH_MAX], int n, double eps)
{
    const double idle = 1e-3 * eps; // the variance is then below 0.001 after whitening
    int seeing = 0;
    while (seeing < n && m[order[seeing]][order[seeing]] >= idle) seeing++;
    for (int rank = seeing; seeing > 0 && rank < n; rank++) order[rank] = order[rank % seeing];
}

static void write_filters(float *w, double m[PATCH_MAX][PATCH_MAX], double v[PATCH_MAX][PATCH_MAX],
                          int n, double eps)
{
    int order[PATCH_MAX];
    sort_eigenvectors(order, m, n);
    replace_idle(order, m, n, eps);
    for (int rank = 0; rank < n; rank++) {
        const int i = order[rank];
        int largest = 0;
        for (int a = 1; a < n; a++)
            if (fabs(v[a][i]) > fabs(v[largest][i])) largest = a;
        const double sign = v[largest][i] < 0 ? -1.0 : 1.0;
        const double scale = sign / sqrt(fmax(m[i][i], 0.0) + eps);
        for (int a = 0; a < n; a++) {
            w[rank * n + a] = (float)(scale * v[a][i]);
            w[(n + rank) * n + a] = -w[rank * n + a];
        }
    }
}

int init_whitening(const Tensor *weight, const Kernels *k, const Dataset *d, int64_t images,
                   double eps, Error *e)
{
    static PatchSums sums;
    static double m[PATCH_MAX][PATCH_MAX], v[PATCH_MAX][PATCH_MAX];
    enum { CHUNK = 256 }; // images, which an embedded set draws in parallel
    const int size = (int)weight->shape[1];
    sums = (PatchSums){.size = size, .p = size * size * d->c};
    assert(sums.p <= PATCH_MAX && weight->shape[0] == 2 * (int64_t)sums.p);

    uint8_t *buffer = malloc((size_t)(CHUNK * d->image_bytes));
    if (!buffer) return fail(e, STATUS_IO, "out of memory for whitening");
    if (images > d->n[SPLIT_TRAIN]) images = d->n[SPLIT_TRAIN];
    int status = STATUS_OK;
    for (int64_t i = 0; i < images && status == STATUS_OK; i += CHUNK) {
        const int64_t n = images - i < CHUNK ? images - i : CHUNK;
        status = dataset_read(d, SPLIT_TRAIN, i, n, buffer, NULL, e);
        for (int64_t j = 0; j < n && status == STATUS_OK; j++)
            add_image(&sums, buffer + j * d->image_bytes, d->h, d->w, d->c);
    }
    free(buffer);
    if (status != STATUS_OK) return status;

    second_moments(m, &sums, d);
    eigen_symmetric(m, v, sums.p);
    float *w = host_floats(weight->n);
    write_filters(w, m, v, sums.p, eps);
    tensor_upload(weight, k, w);
    free(w);
    return STATUS_OK;
}
