/* kernels.cu - every case of cases.h as a CUDA kernel, for nvcc and for emulator.h.
 *
 * In: words a[] and b[]. Out: words out[], those of one item after those of the other. All
 * kernels take the same arguments and are launched with a whole number of items per block. */
#ifdef __CUDACC__
#define GR_SHARED(type, name, count) __shared__ type name[count]
#else
#include "emulator.h"
#endif

#include "cases.h"

#define KERNEL(name)                                                               \
    extern "C" __global__ void device_##name(const uint64_t *__restrict__ a_words, \
                                             const uint64_t *__restrict__ b_words, \
                                             uint64_t *__restrict__ out_words, uint32_t items)

/* The item a thread works for, and the thread's place among those of the item. */
static __device__ __forceinline__ uint32_t item_of_thread(uint32_t threads)
{
    return (blockIdx.x * blockDim.x + threadIdx.x) / threads;
}

#define DEFINE_WORD_KERNEL(name, inputs, expression)             \
    KERNEL(name)                                                 \
    {                                                            \
        const uint32_t item = item_of_thread(1);                 \
        if (item < items) {                                      \
            const uint64_t a = a_words[item], b = b_words[item]; \
            (void)a, (void)b;                                    \
            out_words[item] = (expression);                      \
        }                                                        \
    }
WORD_CASES(DEFINE_WORD_KERNEL)

KERNEL(tree_lanes)
{
    const uint32_t item = item_of_thread(1);
    (void)b_words;
    if (item < items)
        out_words[item] = result_f64(
            gr_tree_lanes(reinterpret_cast<const float *>(a_words) + GR_LANES * item));
}

KERNEL(lanes_in_range)
{
    const uint32_t item = item_of_thread(1);
    (void)b_words;
    if (item < items)
        out_words[item] = (uint64_t)gr_lanes_in_range(reinterpret_cast<const float *>(a_words) +
                                                      GR_LANES * item);
}

KERNEL(tree_doubles)
{
    const uint32_t item = item_of_thread(1);
    (void)b_words;
    if (item < items)
        out_words[item] = result_f64(gr_tree_doubles(reinterpret_cast<const double *>(a_words) +
                                                     GR_ACCUMULATORS * item));
}

KERNEL(tree_blocks)
{
    const uint32_t item = item_of_thread(1);
    (void)b_words;
    if (item < items) {
        const double *from = reinterpret_cast<const double *>(a_words) + BLOCKS_LONGEST * item;
        double *x = reinterpret_cast<double *>(out_words) + BLOCKS_LONGEST * item;
        for (int i = 0; i < BLOCKS_LONGEST; i++)
            x[i] = from[i];
        x[BLOCKS_LONGEST - 1] += gr_tree_blocks(x, blocks_of_item(item));
    }
}

KERNEL(tree_blocks_strided)
{
    const uint32_t item = item_of_thread(1);
    (void)b_words;
    if (item < items) {
        const double *x = reinterpret_cast<const double *>(a_words) + 3 * BLOCKS_LONGEST * item;
        out_words[item] =
            result_f64(gr_tree_blocks_strided(x, blocks_of_item(item), 1 + item % 3));
    }
}

/* ---- warps: 32 threads an item ---------------------------------------------------- */

KERNEL(tree_warp)
{
    const uint32_t item = item_of_thread(32), t = threadIdx.x % 32;
    (void)b_words;
    if (item < items) {
        const float *lane = reinterpret_cast<const float *>(a_words) + GR_LANES * item + 4 * t;
        out_words[32 * item + t] = result_f64(gr_tree_warp(lane[0], lane[1], lane[2], lane[3]));
    }
}

KERNEL(lanes_in_range_warp)
{
    const uint32_t item = item_of_thread(32), t = threadIdx.x % 32;
    (void)b_words;
    if (item < items) {
        const float *lane = reinterpret_cast<const float *>(a_words) + GR_LANES * item + 4 * t;
        out_words[32 * item + t] =
            (uint64_t)gr_lanes_in_range_warp(lane[0], lane[1], lane[2], lane[3]);
    }
}

KERNEL(tree_warp_doubles)
{
    const uint32_t item = item_of_thread(32), t = threadIdx.x % 32;
    (void)b_words;
    if (item < items) {
        const double acc = gr_bits_f64(a_words[GR_ACCUMULATORS * item + t]);
        out_words[32 * item + t] = result_f64(gr_tree_warp_doubles(acc));
    }
}

/* ---- a segment: four warps, a block each in turn ----------------------------------- */

static __device__ __forceinline__ double sum_block_again(const float *x, const float *y,
                                                         uint32_t n)
{
    double acc = 0.0;
    for (uint32_t i = 4 * (threadIdx.x % 32); i < n; i += GR_LANES)
        for (uint32_t k = i; k < i + 4 && k < n; k++)
            acc = GR_ACCUMULATE(acc, (double)x[k], (double)y[k]);
    return gr_tree_warp_doubles(acc);
}

static __device__ __forceinline__ double sum_block(const float *x, const float *y, uint32_t n)
{
    float lane[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
    for (uint32_t i = 4 * (threadIdx.x % 32); i < n; i += GR_LANES)
        for (uint32_t c = 0; c < 4; c++)
            if (i + c < n)
                lane[c] = GR_ACCUMULATE(lane[c], x[i + c], y[i + c]);
    if (gr_lanes_in_range_warp(lane[0], lane[1], lane[2], lane[3]))
        return gr_tree_warp(lane[0], lane[1], lane[2], lane[3]);
    return sum_block_again(x, y, n);
}

KERNEL(segment_sum)
{
    GR_SHARED(double, results, SEGMENT_LONGEST / GR_BLOCK + 1);
    const uint32_t item = item_of_thread(128);
    if (item >= items)
        return;
    const float *x = reinterpret_cast<const float *>(a_words) + SEGMENT_LONGEST * item;
    const float *y = reinterpret_cast<const float *>(b_words) + SEGMENT_LONGEST * item;
    const uint32_t n = elements_of_item(item), blocks = (n + GR_BLOCK - 1) / GR_BLOCK;

    for (uint32_t block = threadIdx.x / 32; block < blocks; block += blockDim.x / 32) {
        const uint32_t begin = block * GR_BLOCK, rest = n - begin;
        const double sum = sum_block(x + begin, y + begin, rest < GR_BLOCK ? rest : GR_BLOCK);
        if (threadIdx.x % 32 == 0)
            results[block] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0)
        out_words[item] = result_f64(gr_tree_blocks_strided(results, blocks, 1));
}
