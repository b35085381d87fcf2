/* reduce.h - the fixed summation tree, once, for the CPU and for CUDA.
 *
 * In: the elements of a segment, in blocks. Out: the sum of x*y over them, in double, with
 * the same bits on every vector path, thread count and GPU, because every operation below
 * has one place. The error is at most 32 roundings of fp32, 1.9e-6, of the sum of |x*y|, and
 * only elements chosen for it come near that: of equal elements it is below 6e-8, of unrelated
 * ones below 2e-8 from one block on and below 2e-9 from 2^20 elements on (check_reduce.c).
 *
 * 1. Blocks. Element e of a segment, counted from the segment's global start, is element
 *    i = e % 4096 of block e / 4096. The last block may be short.
 * 2. Lanes. Element i goes to lane i % 128. A lane starts from +0.0f and takes its elements
 *    in increasing i, in fp32, product and sum each rounded once: acc = acc + (x * y).
 * 3. Within a block. The 128 lanes are converted to double (exact) and folded: for offset
 *    64, 32, 16, 8, 4 in this order d[i] = d[i] + d[i + offset] for all i < offset; then
 *    (d[0] + d[1]) + (d[2] + d[3]). A warp whose thread t holds lanes 4t to 4t+3 does the
 *    same by butterflies over 16, 8, 4, 2, 1 threads, one per component.
 * 4. Range. Unless the largest |lane| lies in [2^-100, 2^100] (a NaN or an infinity does
 *    not), fp32 may have lost the sum. A pass that only reads then takes the block again in
 *    double: element i goes to accumulator (i / 4) % 32, a warp's thread; accumulators start
 *    from +0.0 and take their elements in increasing i, acc = acc + (double)x * (double)y
 *    (the product is exact); then d[i] = d[i] + d[i + offset] for offset 16, 8, 4, 2, 1.
 * 5. Over blocks. The block results x[0 .. n) in order: while n > 1, x[i] = x[2i] + x[2i+1]
 *    for all pairs, an odd last one is carried up unchanged, n = (n + 1) / 2. No block: 0.
 *    Cutting x into runs of 2^k blocks, summing each by this rule and then the results by
 *    this rule gives the same bits: that is how threads and thread blocks share the work.
 * 6. Over segments. Those of a bin (table.h) are added one by one, from 0, in the table's order, then
 *    rank to rank in the ranks' order, and what runs over several bins takes them in the order in
 *    which the table first comes to each. */
#ifndef GRADREG_LIB_REDUCE_H
#define GRADREG_LIB_REDUCE_H

#include <stddef.h>

#include "element.h"

#define GR_BLOCK        4096 /* elements */
#define GR_LANES        128  /* fp32 lanes of a block */
#define GR_ACCUMULATORS 32   /* of the double form */

#define GR_LANE_OF(i)        ((i) % GR_LANES)
#define GR_ACCUMULATOR_OF(i) ((i) / 4 % GR_ACCUMULATORS)

/* Step 2, and step 4 with doubles: for scalars, GNU vectors and CUDA alike. */
#define GR_ACCUMULATE(acc, x, y) ((acc) + (x) * (y))

/* With a constant offset, compilers leave straight vector code. */
GR_FN void gr_tree_halve(double *d, const int offset)
{
    for (int i = 0; i < offset; i++)
        d[i] = d[i] + d[i + offset];
}

/* Step 3. */
GR_FN double gr_tree_lanes(const float lanes[GR_LANES])
{
    double d[GR_LANES / 2];

    for (int i = 0; i < GR_LANES / 2; i++)
        d[i] = (double)lanes[i] + (double)lanes[i + GR_LANES / 2];
    gr_tree_halve(d, 32);
    gr_tree_halve(d, 16);
    gr_tree_halve(d, 8);
    gr_tree_halve(d, 4);
    return (d[0] + d[1]) + (d[2] + d[3]);
}

/* Patterns of magnitudes order like the magnitudes, with NaN above infinity above all. */
GR_FN int gr_magnitude_in_range(uint32_t largest)
{
    return largest >= (127u - 100u) << 23 && largest <= (127u + 100u) << 23;
}

/* Step 4: whether the fp32 lanes can be trusted. */
GR_FN int gr_lanes_in_range(const float lanes[GR_LANES])
{
    uint32_t largest = 0;

    for (int i = 0; i < GR_LANES; i++) {
        const uint32_t magnitude = gr_f32_bits(lanes[i]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    return gr_magnitude_in_range(largest);
}

/* The end of step 4. */
GR_FN double gr_tree_doubles(const double acc[GR_ACCUMULATORS])
{
    double d[GR_ACCUMULATORS / 2];

    for (int i = 0; i < GR_ACCUMULATORS / 2; i++)
        d[i] = acc[i] + acc[i + GR_ACCUMULATORS / 2];
    for (int offset = GR_ACCUMULATORS / 4; offset >= 1; offset /= 2)
        for (int i = 0; i < offset; i++)
            d[i] = d[i] + d[i + offset];
    return d[0];
}

/* Step 5, level by level; x is used up. */
GR_FN double gr_tree_blocks(double *x, size_t n)
{
    if (n == 0)
        return 0.0;
    while (n > 1) {
        const size_t pairs = n / 2;

        for (size_t i = 0; i < pairs; i++)
            x[i] = x[2 * i] + x[2 * i + 1];
        if (n % 2 != 0)
            x[pairs] = x[n - 1];
        n -= pairs;
    }
    return x[0];
}

/* Step 5 for blocks that come one by one: start, push each, ask. A binary
 * counter: after i blocks the stack holds one finished subtree per set bit of i, largest first. */
typedef struct gr_tree {
    size_t count;
    int held;
    double subtree[8 * sizeof(size_t)];
} gr_tree;

GR_FN void gr_tree_start(gr_tree *t)
{
    t->count = 0;
    t->held = 0;
}

GR_FN void gr_tree_push(gr_tree *t, double block)
{
    double sum = block;

    for (size_t carry = t->count++; carry % 2 != 0; carry /= 2)
        sum = t->subtree[--t->held] + sum;
    t->subtree[t->held++] = sum;
}

GR_FN double gr_tree_sum(const gr_tree *t)
{
    int held = t->held;

    if (held == 0)
        return 0.0;
    double sum = t->subtree[--held];
    while (held > 0)
        sum = t->subtree[--held] + sum;
    return sum;
}

/* Step 5 over x[0], x[stride], ..., which stay as they are. */
GR_FN double gr_tree_blocks_strided(const double *x, size_t n, size_t stride)
{
    gr_tree t;

    gr_tree_start(&t);
    for (size_t i = 0; i < n; i++)
        gr_tree_push(&t, x[i * stride]);
    return gr_tree_sum(&t);
}

/* ---- a warp: every thread calls, every thread gets the result -------------------- */
#if defined(__CUDACC__) || defined(GR_CUDA_EMULATED)

static __device__ __forceinline__ double gr_butterfly(double d)
{
    for (int offset = 16; offset >= 1; offset /= 2)
        d = d + __shfl_xor_sync(0xffffffffu, d, offset);
    return d;
}

/* Step 3; the calling thread t holds lanes 4t (x) to 4t+3 (w). */
static __device__ __forceinline__ double gr_tree_warp(float x, float y, float z, float w)
{
    const double d0 = gr_butterfly((double)x), d1 = gr_butterfly((double)y);
    const double d2 = gr_butterfly((double)z), d3 = gr_butterfly((double)w);
    return (d0 + d1) + (d2 + d3);
}

/* The end of step 4; the calling thread t holds accumulator t. */
static __device__ __forceinline__ double gr_tree_warp_doubles(double acc)
{
    return gr_butterfly(acc);
}

/* Step 4 for the four lanes of every thread. */
static __device__ __forceinline__ int gr_lanes_in_range_warp(float x, float y, float z, float w)
{
    const float lanes[4] = { x, y, z, w };
    uint32_t largest = 0;

    for (int i = 0; i < 4; i++) {
        const uint32_t magnitude = gr_f32_bits(lanes[i]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    for (int offset = 16; offset >= 1; offset /= 2) {
        const uint32_t other = __shfl_xor_sync(0xffffffffu, largest, offset);
        largest = other > largest ? other : largest;
    }
    return gr_magnitude_in_range(largest);
}

#endif
#endif
