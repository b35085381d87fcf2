/* logits_data.h - checked tasks over rows of logits, for the front and the backends.
 *
 * In: nothing. Out: the call's arguments as plain pointers and numbers. */
#ifndef GRADREG_LIB_LOGITS_DATA_H
#define GRADREG_LIB_LOGITS_DATA_H

#include <stddef.h>
#include <stdint.h>

#include "gradreg.h"
#include "policy_data.h"

/* [rows x vocabulary], row r at r * row_stride elements. */
typedef struct gr_logits_view {
    gradreg_type type;
    size_t rows, vocabulary, row_stride;
    double inverse; /* 1 / temperature */
} gr_logits_view;

/* logp, entropy and log_sum_exp of every row. */
typedef struct gr_logprobs_task {
    gr_logits_view view;
    const void *logits;
    const int32_t
        *targets; /* GR_PADDING or below vocabulary: host_reads backends have checked it */
    float *logp, *entropy, *log_sum_exp; /* the last two may be NULL */
} gr_logprobs_task;

/* The gradient of what they were used for. */
typedef struct gr_logprobs_slope_task {
    gr_logits_view view;
    const void *logits;
    void *dlogits; /* may be logits */
    const int32_t *targets;
    const float *log_sum_exp, *entropy, *dlogp,
        *dentropy; /* entropy: with dentropy; both may be NULL */
} gr_logprobs_slope_task;

/* Loss and gradient of a batch straight from its logits: row r is token r. */
typedef struct gr_policy_logits_task {
    gr_policy_task
        policy; /* batch.logp and .entropy, dlogp and dentropy: what follows, writable */
    gr_logits_view view;
    const void *logits;
    void *dlogits; /* may be logits */
    const int32_t *targets;
    float *logp, *entropy, *log_sum_exp; /* per token; the caller's or scratch */
    double *weights;                     /* scratch, per sequence: before the rows were read */
    int twice; /* rows are visited twice: what was written could not be made right afterwards */
} gr_policy_logits_task;

enum { GR_PADDING = -1 };

#endif
