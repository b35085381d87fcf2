/* cuda_row_sums.cuh - sums over a row or run of elements by a thread block, with the CPU's bits.
 *
 * In: a row's width, and a body that a warp runs on one block (of reduce.h). Out: the tree over the blocks'
 * sums. Blocks are shared among the thread block's warps and their results are folded level by level in
 * shared memory, GR_TREE_BLOCKS at a time: a power of two, so that each batch is a node of the tree, and a
 * binary counter takes the batches. */
#ifndef GRADREG_LIB_CUDA_ROW_SUMS_CUH
#define GRADREG_LIB_CUDA_ROW_SUMS_CUH

#include "cuda_tile.cuh"

#include "../reduce.h"

enum {
    ROW_THREADS = 256,
    ROW_WARPS = ROW_THREADS / 32,
    GR_TREE_BLOCKS = 64,
    GR_TREE_LEVELS = 48
};

/* The running tree of a row: kept in shared memory, used by thread 0. */
typedef struct gr_row_tree {
    double block[GR_TREE_BLOCKS];
    double subtree[GR_TREE_LEVELS];
    uint32_t held;
    uint64_t batches;
    double sum;
} gr_row_tree;

/* One block of a row, as a warp sees it. */
typedef struct gr_row_block {
    uint64_t begin; /* in the row */
    uint32_t n;
} gr_row_block;

/* The counter of gr_tree_blocks_strided, batch by batch. */
GR_DEVICE void gr_tree_take(gr_row_tree *tree, uint32_t count)
{
    double sum = gr_tree_blocks(tree->block, count);
    for (uint64_t carry = tree->batches++; carry % 2 != 0; carry /= 2)
        sum = tree->subtree[--tree->held] + sum;
    tree->subtree[tree->held++] = sum;
}

GR_DEVICE double gr_tree_end(gr_row_tree *tree)
{
    if (tree->held == 0)
        return 0.0;
    double sum = tree->subtree[--tree->held];
    while (tree->held > 0)
        sum = tree->subtree[--tree->held] + sum;
    return sum;
}

/* The tree over body.sum(block) of all blocks of `width` elements; every thread gets it. */
template <class BODY>
GR_DEVICE double gr_sum_row(gr_row_tree *tree, uint64_t width, const BODY &body)
{
    const uint64_t blocks = (width + GR_BLOCK - 1) / GR_BLOCK;
    __syncthreads();
    if (threadIdx.x == 0)
        tree->held = 0, tree->batches = 0;
    for (uint64_t first = 0; first < blocks; first += GR_TREE_BLOCKS) {
        const uint32_t here = blocks - first < GR_TREE_BLOCKS
                                  ? static_cast<uint32_t>(blocks - first)
                                  : static_cast<uint32_t>(GR_TREE_BLOCKS);
        __syncthreads();
        for (uint32_t k = threadIdx.x / 32; k < here; k += ROW_WARPS) {
            const uint64_t begin = (first + k) * GR_BLOCK;
            const gr_row_block block = { begin, width - begin < GR_BLOCK
                                                    ? static_cast<uint32_t>(width - begin)
                                                    : static_cast<uint32_t>(GR_BLOCK) };
            const double sum = body.sum(block);
            if (threadIdx.x % 32 == 0)
                tree->block[k] = sum;
        }
        __syncthreads();
        if (threadIdx.x == 0)
            gr_tree_take(tree, here);
    }
    if (threadIdx.x == 0)
        tree->sum = gr_tree_end(tree);
    __syncthreads();
    return tree->sum;
}

/* ---- squares of a row ------------------------------------------------------------ */

/* reduce.h, steps 1 to 4, in the natural order of quads: thread t has lanes 4t to 4t + 3. */
template <class VALUE>
GR_DEVICE double gr_squares_of(const gr_row_block &block, const VALUE &value, uint32_t *bad)
{
    float lane[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
    uint32_t seen = 0;
    for (uint32_t i = 4 * (threadIdx.x % 32); i < block.n; i += GR_LANES)
        for (uint32_t c = 0; c < 4 && i + c < block.n; c++) {
            const float x = value.narrow(block.begin + i + c);
            lane[c] = GR_ACCUMULATE(lane[c], x, x);
            seen |= value.seen(x);
        }
    __syncwarp();
    if (gr_lanes_in_range_warp(lane[0], lane[1], lane[2], lane[3]))
        return gr_tree_warp(lane[0], lane[1], lane[2], lane[3]);
    for (int offset = 16; offset >= 1; offset /= 2)
        seen |= __shfl_xor_sync(0xffffffffu, seen, offset);
    if (seen == 0)
        return 0.0;
    double sum = 0.0;
    for (uint32_t i = 4 * (threadIdx.x % 32); i < block.n; i += GR_LANES)
        for (uint32_t c = 0; c < 4 && i + c < block.n; c++) {
            const double x = value.wide(block.begin + i + c, bad);
            sum = GR_ACCUMULATE(sum, x, x);
        }
    __syncwarp();
    return gr_tree_warp_doubles(sum);
}

#endif
