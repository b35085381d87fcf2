/* cuda_policy.h - the losses' op table. */
#ifndef GRADREG_LIB_CUDA_POLICY_H
#define GRADREG_LIB_CUDA_POLICY_H

#include "cuda_check.h"

extern const gr_loss_ops gradreg_cuda_losses;
gradreg_status gradreg_cuda_advantages(gradreg_context *context, const gr_advantage_task *task);

#endif
