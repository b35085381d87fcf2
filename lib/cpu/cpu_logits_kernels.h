/* cpu_logits_kernels.h - a row of logits: its sums, and its gradient.
 *
 * In: a typed row. Out: what logits_math.h makes of it; compiled once per vector path, with the same
 * bits on each. */
#ifndef GRADREG_LIB_CPU_LOGITS_KERNELS_H
#define GRADREG_LIB_CPU_LOGITS_KERNELS_H

#include <stddef.h>

#include "../logits_math.h"
#include "cpu_kernels.h"

typedef struct gr_cpu_logits_kernels {
    /* n >= 1 logits times `inverse`. With turns 0 the part's turn means nothing. */
    gr_logits_part (*measure[GR_TYPES])(const void *row, size_t n, float inverse, int turns);
    /* out may be row. Every element as if it were not the target; LEVEL or TILTED. `next`: the row
     * that is measured after this one, or NULL. */
    void (*slope[GR_TYPES])(void *out, const void *row, size_t n, float inverse,
                            const gr_logits_slope *slope, const void *next);
} gr_cpu_logits_kernels;

extern const gr_cpu_logits_kernels gradreg_cpu_logits_kernels_scalar;
extern const gr_cpu_logits_kernels gradreg_cpu_logits_kernels_v2;
extern const gr_cpu_logits_kernels gradreg_cpu_logits_kernels_v3;
extern const gr_cpu_logits_kernels gradreg_cpu_logits_kernels_v4;

#endif
