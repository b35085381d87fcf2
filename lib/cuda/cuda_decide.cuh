/* cuda_decide.cuh - the step's decisions (step.h, step_second.h, terms.h) on the device.
 *
 * In: sums per bin, settings. Out: coefficients, control, terms. One thread decides; rows of the
 * report are shared among the block's threads. */
#ifndef GRADREG_LIB_CUDA_DECIDE_CUH
#define GRADREG_LIB_CUDA_DECIDE_CUH

#include "cuda_check.h"

#include "../terms.h"

enum { GR_DECIDE_NOTHING = -1 };

typedef struct gr_decision_task {
    int which; /* gr_decision, or GR_DECIDE_NOTHING */
    gr_decision_input input;
} gr_decision_task;

GR_DEVICE void gr_note_found(const gr_step *s, const gr_decision_input *input)
{
    const int32_t found = GRADREG_FLAG_NON_FINITE_FIRST | GRADREG_FLAG_NON_FINITE_SECOND;
    if (input->found_inf != NULL && (s->control->flags & found) != 0)
        *input->found_inf = 1.0f;
}

/* What a pass of squares is followed by. */
GR_DEVICE void gr_decide_after_squares(const gr_step *s, const gr_decision_task *task)
{
    switch (task->which) {
    case GR_DECIDE_NOISE: gr_decide_noise(s, task->input.verified); break;
    case GR_DECIDE_PERTURB:
        gr_decide_perturb(s, task->input.grad_scale, task->input.verified);
        break;
    case GR_DECIDE_COMBINE: gr_decide_combine(s); break;
    case GR_DECIDE_REUSE: gr_decide_reuse(s, task->input.grad_scale); break;
    default: return;
    }
    gr_note_found(s, &task->input);
}

#endif
