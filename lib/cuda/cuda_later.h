/* cuda_later.h - op tables of stages that are still to come. */
#ifndef GRADREG_LIB_CUDA_LATER_H
#define GRADREG_LIB_CUDA_LATER_H

#include "cuda_check.h"

extern const gr_logits_ops gradreg_cuda_logits;

#endif
