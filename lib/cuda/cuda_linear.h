/* cuda_linear.h - log-probs from hidden states and a head weight.
 *
 * In: a checked task (linear_data.h). Out: log-probs and entropies, or both gradients. */
#ifndef GRADREG_LIB_CUDA_LINEAR_H
#define GRADREG_LIB_CUDA_LINEAR_H

#include "cuda_check.h"

gradreg_status gradreg_cuda_linear_forward(gradreg_context *context,
                                           const gr_linear_task *task);
gradreg_status gradreg_cuda_linear_backward(gradreg_context *context,
                                            const gr_linear_task *task);

/* See gr_cuda_load(). */
gradreg_status gradreg_cuda_load_linear(void);

#endif
