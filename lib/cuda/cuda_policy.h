/* cuda_policy.h - the losses' op table, and a policy loss in its steps for the op that has its logits at
 * hand.
 *
 * In: a checked batch or rewards (policy_data.h). Out: loss, gradient by log-prob, metrics; advantages. */
#ifndef GRADREG_LIB_CUDA_POLICY_H
#define GRADREG_LIB_CUDA_POLICY_H

#include "cuda_check.h"

/* In the task's spare bytes. */
typedef struct gr_policy_spare {
    gr_policy_totals totals;
    double tokens_before; /* totals.tokens when the rows of logits were written */
    uint32_t prompts;     /* with a token that counts */
    uint32_t lost;        /* rows of logits without a distribution */
    int64_t offsets[1];   /* rows + 1 */
} gr_policy_spare;

static_assert(sizeof(gr_policy_spare) <= GR_POLICY_SPARE,
              "spare bytes hold what is kept there");

typedef struct gr_policy_launch {
    gr_policy_task task; /* row_offsets and group lie on the device once they are sent */
    gr_policy_spare *spare;
} gr_policy_launch;

gr_policy_launch gradreg_cuda_policy_open(const gr_policy_task *task);
/* Row offsets and group ids, which are the host's, into scratch. */
gradreg_status gradreg_cuda_policy_send(const gr_cuda_context *c, gr_policy_launch *launch);
/* The first walk over the rows, and the denominators. */
gradreg_status gradreg_cuda_policy_count(const gr_cuda_context *c,
                                         const gr_policy_launch *launch);
/* The second walk, and the metrics. */
gradreg_status gradreg_cuda_policy_write(const gr_cuda_context *c,
                                         const gr_policy_launch *launch);

extern const gr_loss_ops gradreg_cuda_losses;
gradreg_status gradreg_cuda_advantages(gradreg_context *context, const gr_advantage_task *task);

/* See gr_cuda_load(). */
gradreg_status gradreg_cuda_load_policy(void);
gradreg_status gradreg_cuda_load_advantages(void);

#endif
