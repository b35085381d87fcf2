/* cuda_logprobs.cu - log-probs of rows of logits, and their gradient: a thread block a row.
 *
 * In: checked tasks; targets are in device memory, so a target that is none gives NaN and no gradient
 * instead of a sentence. Out: logp, entropy, log_sum_exp; or dlogits; by logits_math.h, with the CPU's
 * bits: a warp takes a block of the row, thread 0 joins the blocks' parts in the order of the tree. */
#include "cuda_logprobs.h"

#include "cuda_tile.cuh"

#include "../logits_math.h"

enum { ROW_THREADS = 256, ROW_WARPS = ROW_THREADS / 32, GR_PARTS = 64 };

GR_DEVICE uint64_t gr_row_offset(const gr_logits_view &v, uint64_t row)
{
    return row * v.row_stride * (v.type == GRADREG_TYPE_F32 ? 4 : 2);
}

GR_DEVICE float gr_logit(int32_t type, const char *row, uint64_t i)
{
    if (type == GRADREG_TYPE_F32)
        return reinterpret_cast<const float *>(row)[i];
    const uint16_t half = reinterpret_cast<const uint16_t *>(row)[i];
    return type == GRADREG_TYPE_BF16 ? gr_bf16_to_f32(half) : gr_f16_to_f32(half);
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
    gr_logits_part part = { 0.0, 0.0, 0.0, gr_block_top<TYPE>(x, n, stage) * inverse };
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
    uint4 stages[ROW_WARPS * GR_STAGE_BYTES / 16];
} gr_row_memory;

template <int TYPE>
GR_DEVICE gr_logits_row gr_measure_row(gr_row_memory *m, const char *row, uint64_t vocabulary,
                                       float inverse, float target)
{
    const uint64_t blocks = (vocabulary + GR_BLOCK - 1) / GR_BLOCK;
    const uint32_t warp = threadIdx.x / 32;
    char *stage = reinterpret_cast<char *>(m->stages) + warp * GR_STAGE_BYTES;
    if (threadIdx.x == 0)
        m->stack.held = 0, m->stack.count = 0;
    for (uint64_t first = 0; first < blocks; first += GR_PARTS) {
        const uint32_t here = blocks - first < GR_PARTS ? static_cast<uint32_t>(blocks - first)
                                                        : static_cast<uint32_t>(GR_PARTS);
        __syncthreads();
        for (uint32_t k = warp; k < here; k += ROW_WARPS) {
            const uint64_t begin = (first + k) * GR_BLOCK;
            const uint32_t n = vocabulary - begin < GR_BLOCK
                                   ? static_cast<uint32_t>(vocabulary - begin)
                                   : static_cast<uint32_t>(GR_BLOCK);
            const gr_logits_part part =
                gr_block_part<TYPE>(row + begin * gr_size_of<TYPE>(), n, inverse, stage);
            if (threadIdx.x % 32 == 0)
                m->part[k] = part;
        }
        __syncthreads();
        for (uint32_t k = 0; threadIdx.x == 0 && k < here; k++)
            gr_logits_push(&m->stack, m->part[k]);
    }
    if (threadIdx.x == 0)
        m->result = gr_logits_finish(gr_logits_whole(&m->stack), target);
    __syncthreads();
    return m->result;
}

template <int TYPE>
__global__ void __launch_bounds__(ROW_THREADS)
    gradreg_cuda_k_logprobs(const gr_logprobs_task task)
{
    GR_SHARED(gr_row_memory, memory, 1);
    const gr_logits_view &v = task.view;
    const float inverse = static_cast<float>(v.inverse);
    for (uint64_t r = blockIdx.x; r < v.rows; r += gridDim.x) {
        const char *row = static_cast<const char *>(task.logits) + gr_row_offset(v, r);
        const int32_t target = task.targets[r];
        const bool known = target >= 0 && static_cast<uint64_t>(target) < v.vocabulary;
        gr_logits_row values = { 0.0f, 0.0f, 0.0f };
        if (known)
            values = gr_measure_row<TYPE>(memory, row, v.vocabulary, inverse,
                                          gr_logit(TYPE, row, static_cast<uint64_t>(target)) *
                                              inverse);
        else if (target != GR_PADDING)
            values.logp = values.entropy = values.log_sum_exp = static_cast<float>(NAN);
        if (threadIdx.x == 0) {
            task.logp[r] = values.logp;
            if (task.entropy != NULL)
                task.entropy[r] = values.entropy;
            if (task.log_sum_exp != NULL)
                task.log_sum_exp[r] = values.log_sum_exp;
        }
        __syncthreads(); /* memory is used again */
    }
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
template <int TYPE> GR_DEVICE void gr_clear_row(char *out, uint64_t vocabulary, char *stage)
{
    (void)stage;
    for (uint64_t at = (uint64_t)(threadIdx.x / 32) * GR_BLOCK; at < vocabulary;
         at += (uint64_t)ROW_WARPS * GR_BLOCK) {
        const uint64_t left = vocabulary - at;
        gr_clear_bytes(out + at * gr_size_of<TYPE>(),
                       static_cast<uint32_t>(left < GR_BLOCK ? left : GR_BLOCK) *
                           gr_size_of<TYPE>());
    }
}

template <int TYPE>
GR_DEVICE void gr_slope_row(char *out, const char *row, uint64_t vocabulary, float inverse,
                            const gr_logits_slope &slope, uint64_t target, char *stage)
{
    uint32_t ignored = 0;
    for (uint64_t at = (uint64_t)(threadIdx.x / 32) * GR_BLOCK; at < vocabulary;
         at += (uint64_t)ROW_WARPS * GR_BLOCK) {
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

template <int TYPE>
__global__ void __launch_bounds__(ROW_THREADS)
    gradreg_cuda_k_logprobs_slope(const gr_logprobs_slope_task task)
{
    GR_SHARED(uint4, stages, ROW_WARPS * GR_STAGE_BYTES / 16);
    const gr_logits_view &v = task.view;
    const float inverse = static_cast<float>(v.inverse);
    char *stage = reinterpret_cast<char *>(stages) + threadIdx.x / 32 * GR_STAGE_BYTES;
    for (uint64_t r = blockIdx.x; r < v.rows; r += gridDim.x) {
        const uint64_t offset = gr_row_offset(v, r);
        const char *row = static_cast<const char *>(task.logits) + offset;
        char *out = static_cast<char *>(task.dlogits) + offset;
        const int32_t target = task.targets[r];
        const bool known = target >= 0 && static_cast<uint64_t>(target) < v.vocabulary;
        const float dlogp = task.dlogp[r];
        const float dentropy = task.dentropy != NULL ? task.dentropy[r] : 0.0f;
        if (!known || (dlogp == 0.0f && dentropy == 0.0f)) {
            gr_clear_row<TYPE>(out, v.vocabulary, stage);
            continue;
        }
        const float at = gr_logit(TYPE, row, static_cast<uint64_t>(target)) * inverse;
        const double entropy =
            task.entropy != NULL ? static_cast<double>(task.entropy[r]) : 0.0;
        const gr_logits_slope slope =
            gr_logits_slope_of(at, task.log_sum_exp[r], entropy, static_cast<double>(dlogp),
                               static_cast<double>(dentropy), v.inverse);
        __syncthreads(); /* the target's logit has been read by all: out may be the logits */
        gr_slope_row<TYPE>(out, row, v.vocabulary, inverse, slope,
                           static_cast<uint64_t>(target), stage);
    }
}

/* ---- the ops --------------------------------------------------------------------- */

template <int TYPE>
static gradreg_status launch_forward(const gr_cuda_context *c, const gr_logprobs_task *task)
{
    GR_LAUNCH((gradreg_cuda_k_logprobs<TYPE>), gr_cuda_grid(c, task->view.rows, 8), ROW_THREADS,
              0, c->stream, *task);
    GR_CUDA_TRY_LAUNCH("logprobs");
    return GRADREG_OK;
}

template <int TYPE>
static gradreg_status launch_backward(const gr_cuda_context *c,
                                      const gr_logprobs_slope_task *task)
{
    GR_LAUNCH((gradreg_cuda_k_logprobs_slope<TYPE>), gr_cuda_grid(c, task->view.rows, 8),
              ROW_THREADS, 0, c->stream, *task);
    GR_CUDA_TRY_LAUNCH("logprobs_slope");
    return GRADREG_OK;
}

static gradreg_status run_forward(const gr_cuda_context *c, const gr_logprobs_task *task)
{
    if (task->view.rows == 0)
        return GRADREG_OK;
    switch (task->view.type) {
    case GRADREG_TYPE_BF16: return launch_forward<GRADREG_TYPE_BF16>(c, task);
    case GRADREG_TYPE_F16: return launch_forward<GRADREG_TYPE_F16>(c, task);
    default: return launch_forward<GRADREG_TYPE_F32>(c, task);
    }
}

static gradreg_status run_backward(const gr_cuda_context *c, const gr_logprobs_slope_task *task)
{
    if (task->view.rows == 0)
        return GRADREG_OK;
    switch (task->view.type) {
    case GRADREG_TYPE_BF16: return launch_backward<GRADREG_TYPE_BF16>(c, task);
    case GRADREG_TYPE_F16: return launch_backward<GRADREG_TYPE_F16>(c, task);
    default: return launch_backward<GRADREG_TYPE_F32>(c, task);
    }
}

gradreg_status gradreg_cuda_logprobs_forward(gradreg_context *context,
                                             const gr_logprobs_task *task)
{
    gr_cuda_context *c = gr_cuda_of(context);
    gr_device_guard guard;
    GR_TRY(gradreg_cuda_enter(c, &guard));
    const gradreg_status status = run_forward(c, task);
    gradreg_cuda_leave(c, &guard);
    return status;
}

gradreg_status gradreg_cuda_logprobs_backward(gradreg_context *context,
                                              const gr_logprobs_slope_task *task)
{
    gr_cuda_context *c = gr_cuda_of(context);
    gr_device_guard guard;
    GR_TRY(gradreg_cuda_enter(c, &guard));
    const gradreg_status status = run_backward(c, task);
    gradreg_cuda_leave(c, &guard);
    return status;
}
