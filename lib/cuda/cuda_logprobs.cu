/* cuda_logprobs.cu - log-probs of rows of logits, and their gradient: a thread block a row.
 *
 * In: checked tasks; targets are in device memory, so a target that is none gives NaN and no gradient
 * instead of a sentence. Out: logp, entropy, log_sum_exp; or dlogits; by logits_math.h, with the CPU's
 * bits: a warp takes a block of the row, thread 0 joins the blocks' parts in the order of the tree. */
#include "cuda_logprobs.h"

#include "cuda_rows.cuh"
#include "cuda_types.h"

template <int TYPE>
__global__ void __launch_bounds__(GR_ROW_THREADS, 4)
    gradreg_cuda_k_logprobs(const gr_logprobs_task task)
{
    GR_SHARED(gr_row_memory, memory, 1);
    GR_SHARED(uint4, stages, GR_ROW_WARPS * GR_STAGE_BYTES / 16);
    char *stage = reinterpret_cast<char *>(stages) + gr_warp() * GR_STAGE_BYTES;
    const gr_logits_view &v = task.view;
    const float inverse = static_cast<float>(v.inverse);
    for (uint64_t r = blockIdx.x; r < v.rows; r += gridDim.x) {
        const char *row = static_cast<const char *>(task.logits) + gr_row_offset(v, r);
        const int32_t target = task.targets[r];
        const bool known = target >= 0 && static_cast<uint64_t>(target) < v.vocabulary;
        gr_logits_row values = { 0.0f, 0.0f, 0.0f };
        if (known)
            values = gr_measure_row<TYPE>(
                memory, row, v.vocabulary, inverse,
                gr_element(TYPE, row, static_cast<uint64_t>(target)) * inverse, stage);
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

template <int TYPE>
__global__ void __launch_bounds__(GR_ROW_THREADS, 4)
    gradreg_cuda_k_logprobs_slope(const gr_logprobs_slope_task task)
{
    GR_SHARED(uint4, stages, GR_ROW_WARPS * GR_STAGE_BYTES / 16);
    const gr_logits_view &v = task.view;
    const float inverse = static_cast<float>(v.inverse);
    char *stage = reinterpret_cast<char *>(stages) + gr_warp() * GR_STAGE_BYTES;
    for (uint64_t r = blockIdx.x; r < v.rows; r += gridDim.x) {
        const uint64_t offset = gr_row_offset(v, r);
        const char *row = static_cast<const char *>(task.logits) + offset;
        char *out = static_cast<char *>(task.dlogits) + offset;
        const int32_t target = task.targets[r];
        const bool known = target >= 0 && static_cast<uint64_t>(target) < v.vocabulary;
        const float dlogp = task.dlogp[r];
        const float dentropy = task.dentropy != NULL ? task.dentropy[r] : 0.0f;
        if (!known || (dlogp == 0.0f && dentropy == 0.0f)) {
            gr_clear_row<TYPE>(out, v.vocabulary);
            continue;
        }
        const float at = gr_element(TYPE, row, static_cast<uint64_t>(target)) * inverse;
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
    GR_LAUNCH((gradreg_cuda_k_logprobs<TYPE>), gr_cuda_grid(c, task->view.rows, 8),
              GR_ROW_THREADS, 0, c->stream, *task);
    GR_CUDA_TRY_LAUNCH("logprobs");
    return GRADREG_OK;
}

template <int TYPE>
static gradreg_status launch_backward(const gr_cuda_context *c,
                                      const gr_logprobs_slope_task *task)
{
    GR_LAUNCH((gradreg_cuda_k_logprobs_slope<TYPE>), gr_cuda_grid(c, task->view.rows, 8),
              GR_ROW_THREADS, 0, c->stream, *task);
    GR_CUDA_TRY_LAUNCH("logprobs_slope");
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_logprobs_run_forward(const gr_cuda_context *c,
                                                 const gr_logprobs_task *task)
{
    if (task->view.rows == 0)
        return GRADREG_OK;
    return gr_cuda_with_type(task->view.type,
                             [&](auto type) { return launch_forward<type>(c, task); });
}

gradreg_status gradreg_cuda_logprobs_run_backward(const gr_cuda_context *c,
                                                  const gr_logprobs_slope_task *task)
{
    if (task->view.rows == 0)
        return GRADREG_OK;
    return gr_cuda_with_type(task->view.type,
                             [&](auto type) { return launch_backward<type>(c, task); });
}

gradreg_status gradreg_cuda_logprobs_forward(gradreg_context *context,
                                             const gr_logprobs_task *task)
{
    return gr_cuda_run(context, gradreg_cuda_logprobs_run_forward, task);
}

gradreg_status gradreg_cuda_logprobs_backward(gradreg_context *context,
                                              const gr_logprobs_slope_task *task)
{
    return gr_cuda_run(context, gradreg_cuda_logprobs_run_backward, task);
}

gradreg_status gradreg_cuda_load_logprobs(void)
{
    return gr_cuda_for_types(GR_ALL_TYPES, [](auto type, int) {
        return gr_cuda_load(gradreg_cuda_k_logprobs<type>, gradreg_cuda_k_logprobs_slope<type>);
    });
}
