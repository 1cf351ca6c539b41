// Stored pictures to inputs: gather, move, mirror, cut, normalise. Floor: the bytes of the result
// and of the pictures over the memory bandwidth. Not measured yet.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/elements.cuh"
#include "kernels/random.h"

// result = byte * scale + shift
struct Colour {
    float scale[4], shift[4];
};

struct Picture {
    AugmentDraw draw;
    Colour colour;
    int64_t from; // in the set
};

__device__ __forceinline__ void colour_of(Colour *to, const AugmentDraw &draw, const GatherDims &d)
{
    for (int c = 0; c < 4 && c < d.c; c++) {
        to->scale[c] = draw.factor / (255.0f * d.std[c]);
        to->shift[c] = (draw.factor * draw.offset - d.mean[c]) / d.std[c];
    }
}

// One value of an image: element i of (h,w,c).
__device__ __forceinline__ float pixel(const uint8_t *image, int i, const Picture &p, int cutout,
                                       const GatherDims &d)
{
    const int place = i / d.c, channel = i - place * d.c, y = place / d.w, x = place - y * d.w;
    const AugmentDraw &draw = p.draw;
    const bool cut =
        y >= draw.cut_y && y < draw.cut_y + cutout && x >= draw.cut_x && x < draw.cut_x + cutout;
    if (cut) return 0.0f;
    const int row = draw_reflect(y + draw.dy, d.h);
    const int column = draw_reflect((draw.mirror ? d.w - 1 - x : x) + draw.dx, d.w);
    const float byte = (float)image[((int64_t)row * d.w + column) * d.c + channel];
    return byte * p.colour.scale[channel] + p.colour.shift[channel];
}

// Blocks blockIdx.y, + gridDim.y, ... of images; blockIdx.x counts the parts of an image.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    gather_kernel(T *x, int32_t *labels_out, const uint8_t *images, const int32_t *labels,
                  const uint32_t *ids, const uint32_t *rows, const StepValues *step, GatherDims d,
                  Augment a)
{
    constexpr int N = Vec16<T>::N;
    NN_SHARED(Picture, picture, [1]);
    const int size = d.h * d.w * d.c;
    const bool aligned = size % N == 0;
    for (int64_t n = blockIdx.y; n < d.n; n += gridDim.y) {
        __syncthreads(); // of the last image's readers
        if (threadIdx.x == 0) {
            picture[0].from = rows ? rows[n] : n;
            picture[0].draw = draw_augment(a, d.h, d.w, step->seed, step->epoch, ids[n]);
            colour_of(&picture[0].colour, picture[0].draw, d);
            if (blockIdx.x == 0) labels_out[n] = labels[picture[0].from];
        }
        __syncthreads();
        const uint8_t *image = images + picture[0].from * size;
        T *to = x + n * size;
        const int step_size = (int)(gridDim.x * THREADS) * N;
        for (int i = (int)(blockIdx.x * THREADS + threadIdx.x) * N; i < size; i += step_size) {
            float v[N];
#pragma unroll
            for (int j = 0; j < N; j++)
                v[j] = i + j < size ? pixel(image, i + j, picture[0], a.cutout, d) : 0.0f;
            if (aligned)
                store_up_to<N>(to, v, i, size);
            else
                for (int j = 0; j < N && i + j < size; j++) to[i + j] = to_element<T>(v[j]);
        }
    }
}

static void gather(void *x, int32_t *labels_out, const uint8_t *images, const int32_t *labels,
                   const uint32_t *ids, const uint32_t *rows, GatherDims d, Augment a)
{
    if (cuda_planning()) return;
#ifdef NN_EMU // so that blocks take more than one image in tests
    const int64_t most = 2;
#else
    const int64_t most = 65535;
#endif
    const unsigned images_at_once = (unsigned)(d.n < most ? d.n : most);
    BY_ELEMENT(const int size = d.h * d.w * d.c;
               const dim3 grid(blocks_of(size, 2 * Vec16<T>::N), images_at_once);
               nn_launch(gather_kernel<T>, grid, THREADS, 0, cuda_stream, (T *)x, labels_out,
                         images, labels, ids, rows, cuda_step, d, a));
}

void cuda_gather_ops(Kernels *k)
{
    k->gather = gather;
}
