/* linear_data.h - log-probs from hidden states and a head weight, checked, for the front and the
 * backends.
 *
 * In: nothing. Out: the call as plain pointers and numbers, and how a chunk lies in scratch:
 *
 *      logits [chunk x vocabulary] | hidden [chunk x width] | dhidden [chunk x width]
 *                                  | panel [panel x width] | rows [chunk]               all but rows f32
 *
 * CUDA widens no bf16 weight: there a panel's memory holds pieces of slopes (cuda/cuda_pieces.h). */
#ifndef GRADREG_LIB_LINEAR_DATA_H
#define GRADREG_LIB_LINEAR_DATA_H

#include <stddef.h>
#include <stdint.h>

#include "gradreg.h"

typedef struct gr_linear_task {
    gradreg_type type, gradient_type;
    int add_weight_gradient;
    size_t rows, width, vocabulary, hidden_stride, weight_stride;
    size_t chunk;   /* rows at a time, at least 1 */
    size_t panel;   /* rows of the weight that are converted at a time; 0: it is f32 */
    double inverse; /* 1 / temperature */
    const void *hidden, *weight;
    const int32_t *targets;
    /* forward */
    float *logp, *entropy, *log_sum_exp; /* the last two may be NULL */
    /* backward */
    void *dhidden;  /* or NULL */
    float *dweight; /* or NULL */
    const float *given_log_sum_exp, *given_entropy, *dlogp, *dentropy;
    /* scratch */
    float *chunk_logits, *chunk_hidden, *chunk_dhidden, *panel_weight;
    size_t *chunk_rows;
} gr_linear_task;

#endif
