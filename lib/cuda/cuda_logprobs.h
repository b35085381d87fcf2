/* cuda_logprobs.h - the ops over rows of logits.
 *
 * In: a checked task (logits_data.h). Out: log-probs and entropies, or the logits' gradient. */
#ifndef GRADREG_LIB_CUDA_LOGPROBS_H
#define GRADREG_LIB_CUDA_LOGPROBS_H

#include "cuda_check.h"

gradreg_status gradreg_cuda_logprobs_forward(gradreg_context *context,
                                             const gr_logprobs_task *task);
gradreg_status gradreg_cuda_logprobs_backward(gradreg_context *context,
                                              const gr_logprobs_slope_task *task);

/* The same within a call that has entered. */
gradreg_status gradreg_cuda_logprobs_run_forward(const gr_cuda_context *c,
                                                 const gr_logprobs_task *task);
gradreg_status gradreg_cuda_logprobs_run_backward(const gr_cuda_context *c,
                                                  const gr_logprobs_slope_task *task);

/* See gr_cuda_load(). */
gradreg_status gradreg_cuda_load_logprobs(void);

#endif
