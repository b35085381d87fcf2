/* cuda_decide.cu - decisions that no pass of squares can make at its end.
 *
 * In: control, sums. Out: the same, decided. One thread block; a decision that only follows a pass
 * of squares is left to that pass (cuda_squares.cu). */
#include "cuda_decide.cuh"

#include "cuda_stages.h"

enum { DECIDE_THREADS = 128, DECIDE_BOUND = 1024 };

/* The report: rows are shared out. */
GR_DEVICE void finish(const gr_step *s)
{
    if (threadIdx.x == 0)
        gr_finish_begin(s);
    __threadfence_block();
    __syncthreads();
    for (int l = static_cast<int>(threadIdx.x) - 1; l < s->options.layer_count;
         l += DECIDE_THREADS)
        gr_finish_row(s, l);
    __syncthreads();
    if (threadIdx.x == 0)
        gr_finish_end(s);
}

__global__ void __launch_bounds__(DECIDE_THREADS) gradreg_cuda_k_finish(const gr_step step)
{
    finish(&step);
}

GR_DEVICE void decide_alone(const gr_step *s, const gr_decision_task *task)
{
    gr_control *c = s->control;
    switch (task->which) {
    case GR_DECIDE_CANDIDATE:
        c->epsilon_used = task->input.value;
        gr_step_lengths(s);
        break;
    case GR_DECIDE_FIDELITY:
        c->applied_cosine = gr_applied_cosine(s, GR_SUM_APPLIED, 0, 1);
        break;
    case GR_DECIDE_FALLBACK:
        gr_decide_fallback(s, task->input.mirrored);
        gr_note_found(s, &task->input);
        break;
    case GR_DECIDE_CLEAR_TERMS: gr_clear_terms(s); break;
    case GR_DECIDE_VOID_TERMS: gr_void_terms(s); break;
    case GR_DECIDE_ABANDON: c->noise_in = 0; break;
    case GR_DECIDE_LOSSES:
        gr_note_losses(s, task->input.losses[0], task->input.losses[1]);
        break;
    case GR_DECIDE_STRENGTH: c->strength = task->input.value; break;
    case GR_DECIDE_EPSILON: c->epsilon = task->input.value; break;
    case GR_DECIDE_STEP: c->step = task->input.step; break;
    default: gr_decide_after_squares(s, task); break; /* with ranks in between */
    }
}

/* One thread; the bound is what keeps the compiler to 64 registers. */
__global__ void __launch_bounds__(DECIDE_BOUND)
    gradreg_cuda_k_decide(const gr_step step, const gr_decision_task task)
{
    if (threadIdx.x == 0)
        decide_alone(&step, &task);
}

/* Whether the pass of squares that waits may make this decision: nothing has come in between. */
static int rides(enum gr_decision which)
{
    return which == GR_DECIDE_NOISE || which == GR_DECIDE_PERTURB ||
           which == GR_DECIDE_COMBINE || which == GR_DECIDE_REUSE;
}

gradreg_status gradreg_cuda_decide(gr_work *work, enum gr_decision which,
                                   const gr_decision_input *input)
{
    const gr_cuda_context *c = gr_cuda_of(work->context);
    const gr_decision_task task = { which, *input };
    if (gradreg_cuda_pending(work)->waits && rides(which))
        return gradreg_cuda_flush(work, &task);
    GR_TRY(gradreg_cuda_flush(work, NULL));
    if (which == GR_DECIDE_FINISH)
        GR_LAUNCH(gradreg_cuda_k_finish, 1, DECIDE_THREADS, 0, c->stream, work->step);
    else
        GR_LAUNCH(gradreg_cuda_k_decide, 1, 32, 0, c->stream, work->step, task);
    GR_CUDA_TRY_LAUNCH("decide");
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_load_decide(void)
{
    return gr_cuda_load(gradreg_cuda_k_finish, gradreg_cuda_k_decide);
}
