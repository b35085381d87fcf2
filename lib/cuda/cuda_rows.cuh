/* cuda_rows.cuh - a row of logits by a thread block: what logits_math.h makes of it, and its gradient.
 *
 * In: a typed row, in device memory or, where a kernel has brought it there, in shared memory. Out: the
 * parts of its blocks, a warp each, joined by thread 0 in the order of the tree; slopes, in place or not. */
#ifndef GRADREG_LIB_CUDA_ROWS_CUH
#define GRADREG_LIB_CUDA_ROWS_CUH

#include "cuda_tile.cuh"

#include "../logits_math.h"

enum { GR_ROW_THREADS = 256, GR_ROW_WARPS = GR_ROW_THREADS / 32, GR_PARTS = 64 };

GR_DEVICE uint32_t gr_warp()
{
    return threadIdx.x / 32;
}

GR_DEVICE uint32_t gr_warps()
{
    return blockDim.x / 32;
}

GR_DEVICE uint64_t gr_row_offset(const gr_logits_view &v, uint64_t row)
{
    return row * v.row_stride * gr_type_bytes(v.type);
}

/* ---- a block --------------------------------------------------------------------- */

/* The block's largest logit, not yet scaled; NaN if one is NaN. */
template <int TYPE> GR_DEVICE float gr_block_top(const char *x, uint32_t n, char *stage)
{
    const bool aligned = gr_is_wide(x);
    float top = -HUGE_VALF;
    uint32_t nan = 0;
    GR_UNROLL_2
    for (uint32_t i = 0; i < n; i += GR_TILE) {
        gr_tile<TYPE> tile;
        gr_load(&tile, x, NULL, i, n, aligned && i + GR_TILE <= n, stage);
        GR_UNROLL
        for (uint32_t k = 0; k < 8; k++) {
            const float v = gr_get(tile, static_cast<int>(k));
            if (i + gr_place_of(k) < n) {
                nan |= static_cast<uint32_t>(v != v);
                top = v > top ? v : top;
            }
        }
    }
    for (int offset = 16; offset >= 1; offset /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, top, offset);
        top = other > top ? other : top;
        nan |= __shfl_xor_sync(0xffffffffu, nan, offset);
    }
    return nan != 0 ? static_cast<float>(NAN) : top;
}

/* Steps 2 and 3 of logits_math.h. */
template <int TYPE>
GR_DEVICE gr_logits_part gr_block_part(const char *x, uint32_t n, float inverse, char *stage)
{
    const bool aligned = gr_is_wide(x);
    gr_logits_part part = { 0.0, 0.0, 0.0, gr_block_top<TYPE>(x, n, stage) * inverse, 0.0f };
    float rest[4] = { 0.0f, 0.0f, 0.0f, 0.0f }, turn[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
    uint32_t tops = 0;
    if (gr_is_non_finite(part.top))
        return part;
    GR_NO_UNROLL
    for (uint32_t i = 0; i < n; i += GR_TILE) {
        gr_tile<TYPE> tile;
        gr_load(&tile, x, NULL, i, n, aligned && i + GR_TILE <= n, stage);
        GR_UNROLL
        for (uint32_t k = 0; k < 8; k++) {
            const float d = gr_get(tile, static_cast<int>(k)) * inverse - part.top;
            if (i + gr_place_of(k) >= n)
                continue;
            tops += d == 0.0f;
            if (d < 0.0f && d >= GR_EXP_LEAST) {
                const float e = gr_exp_f32(d);
                rest[k % 4] = rest[k % 4] + e;
                turn[k % 4] = turn[k % 4] + d * e;
            }
        }
    }
    part.tops = static_cast<double>(gr_total(tops));
    part.rest = gr_tree_quads(rest);
    part.turn = gr_tree_quads(turn);
    return part;
}

/* ---- a row ----------------------------------------------------------------------- */

typedef struct gr_row_memory {
    gr_logits_part part[GR_PARTS];
    gr_logits_stack stack;
    gr_logits_row result;
} gr_row_memory;

/* Blocks [first, first + count) of n elements, a warp a block. */
template <int TYPE>
GR_DEVICE void gr_measure_blocks(gr_logits_part *part, const char *row, uint64_t n,
                                 uint64_t first, uint32_t count, float inverse, char *stage)
{
    for (uint32_t k = gr_warp(); k < count; k += gr_warps()) {
        const uint64_t begin = (first + k) * GR_BLOCK, left = n - begin;
        const uint32_t length = static_cast<uint32_t>(left < GR_BLOCK ? left : GR_BLOCK);
        const gr_logits_part one =
            gr_block_part<TYPE>(row + begin * gr_size_of<TYPE>(), length, inverse, stage);
        if (gr_thread() == 0)
            part[k] = one;
    }
}

/* A whole row; every thread gets the result. The memory may be used again after a barrier. */
template <int TYPE>
GR_DEVICE gr_logits_row gr_measure_row(gr_row_memory *m, const char *row, uint64_t n,
                                       float inverse, float target, char *stage)
{
    const uint64_t blocks = (n + GR_BLOCK - 1) / GR_BLOCK;
    if (threadIdx.x == 0)
        m->stack.held = 0, m->stack.count = 0;
    for (uint64_t first = 0; first < blocks; first += GR_PARTS) {
        const uint64_t left = blocks - first;
        const uint32_t here = static_cast<uint32_t>(left < GR_PARTS ? left : GR_PARTS);
        __syncthreads();
        gr_measure_blocks<TYPE>(m->part, row, n, first, here, inverse, stage);
        __syncthreads();
        for (uint32_t k = 0; threadIdx.x == 0 && k < here; k++)
            gr_logits_push(&m->stack, m->part[k]);
    }
    if (threadIdx.x == 0) {
        const gr_logits_row own = gr_logits_finish(gr_logits_whole(&m->stack), target);
        m->result = own;
    }
    __syncthreads();
    return m->result;
}

/* ---- the gradient ---------------------------------------------------------------- */

GR_DEVICE float gr_slope_at(const gr_logits_slope &s, float z)
{
    const float l = z - s.log_sum_exp;
    if (s.kind == GR_SLOPE_NAN)
        return static_cast<float>(NAN);
    if (s.kind == GR_SLOPE_ZERO || !(l >= GR_EXP_LEAST))
        return 0.0f;
    const float p = gr_exp_f32(l);
    return s.kind == GR_SLOPE_TILTED ? GR_LOGITS_TILTED(p, s.level, s.tilt, l)
                                     : GR_LOGITS_SLOPE(p, s.level);
}

/* Zeros over a row that is not read, by the whole thread block. */
template <int TYPE> GR_DEVICE void gr_clear_row(char *out, uint64_t vocabulary)
{
    for (uint64_t at = (uint64_t)gr_warp() * GR_BLOCK; at < vocabulary;
         at += (uint64_t)gr_warps() * GR_BLOCK) {
        const uint64_t left = vocabulary - at;
        gr_clear_bytes(out + at * gr_size_of<TYPE>(),
                       static_cast<uint32_t>(left < GR_BLOCK ? left : GR_BLOCK) *
                           gr_size_of<TYPE>());
    }
}

/* `target` is the element that has its own gradient; a number past the row: it is not here. */
template <int TYPE>
GR_DEVICE void gr_slope_row(char *out, const char *row, uint64_t vocabulary, float inverse,
                            const gr_logits_slope &slope, uint64_t target, char *stage)
{
    uint32_t ignored = 0;
    for (uint64_t at = (uint64_t)gr_warp() * GR_BLOCK; at < vocabulary;
         at += (uint64_t)gr_warps() * GR_BLOCK) {
        const uint64_t left = vocabulary - at;
        const uint32_t n = static_cast<uint32_t>(left < GR_BLOCK ? left : GR_BLOCK);
        const char *from = row + at * gr_size_of<TYPE>();
        char *to = out + at * gr_size_of<TYPE>();
        const bool aligned = gr_is_wide(from) && gr_is_wide(to);
        GR_NO_UNROLL
        for (uint32_t i = 0; i < n; i += GR_TILE) {
            const bool wide = aligned && i + GR_TILE <= n;
            gr_tile<TYPE> tile;
            gr_load(&tile, from, NULL, i, n, wide, stage);
            GR_UNROLL
            for (uint32_t k = 0; k < 8; k++) {
                const float z = gr_get(tile, static_cast<int>(k)) * inverse;
                const float g = at + i + gr_place_of(k) == target && slope.kind != GR_SLOPE_NAN
                                    ? slope.target
                                    : gr_slope_at(slope, z);
                gr_put(&tile, static_cast<int>(k), g, &ignored);
            }
            gr_store(to, tile, i, n, wide, stage);
        }
    }
}

#endif
