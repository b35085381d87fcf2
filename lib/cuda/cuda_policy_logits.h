/* cuda_policy_logits.h - a policy loss straight from logits.
 *
 * In: a checked batch with its rows of logits. Out: loss, the logits' gradient, metrics. */
#ifndef GRADREG_LIB_CUDA_POLICY_LOGITS_H
#define GRADREG_LIB_CUDA_POLICY_LOGITS_H

#include "cuda_check.h"

/* What a device can hold of a row on the chip; when a context opens, its device current. */
gradreg_status gradreg_cuda_policy_logits_open(gr_cuda_context *c);
gradreg_status gradreg_cuda_policy_logits(gradreg_context *context,
                                          const gr_policy_logits_task *task);

#endif
