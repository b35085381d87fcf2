/* policy_data.h - what a policy loss is computed from, for the front and the backends.
 *
 * In: nothing. Out: the checked batch as plain pointers, and what is kept per row. */
#ifndef GRADREG_LIB_POLICY_DATA_H
#define GRADREG_LIB_POLICY_DATA_H

#include "gradreg.h"

/* Sums over the tokens of a row, then over rows. */
enum gr_policy_sum {
    GR_POLICY_TOKENS,
    GR_POLICY_NON_FINITE,
    GR_POLICY_LOG_RATIO, /* d, or GMPO's clipped d */
    GR_POLICY_DRIFT,     /* l_s - l, or l' - l */
    GR_POLICY_ROLLOUT,   /* l' - l_s */
    GR_POLICY_FIRST_SUMS,
    GR_POLICY_RHO = GR_POLICY_FIRST_SUMS, /* w W rho */
    GR_POLICY_WEIGHTED_KL,                /* w k */
    GR_POLICY_KL,
    GR_POLICY_ENTROPY,
    GR_POLICY_RATIO,
    GR_POLICY_LOW,
    GR_POLICY_HIGH,
    GR_POLICY_LIMITED,
    GR_POLICY_WEIGHT, /* rollout weights up to 2^40, see gr_weight_sums */
    GR_POLICY_WEIGHT_SQUARES,
    GR_POLICY_LARGE_WEIGHT, /* the others */
    GR_POLICY_LARGE_SQUARES,
    GR_POLICY_SUMS
};

typedef struct gr_policy_row {
    double sums[GR_POLICY_SUMS];
    double ratio_min, ratio_max;
    double prompt_tokens; /* of the row's prompt */
} gr_policy_row;

typedef struct gr_policy_task {
    gradreg_policy policy;
    gradreg_policy_batch batch;
    float *dlogp, *dentropy;
    gradreg_policy_metrics *metrics; /* or NULL */
    gr_policy_row *rows;
    int64_t *order; /* PROMPT_MEAN: row numbers by group */
    double longest; /* row length */
    size_t tokens;
    int from_logits; /* logp and entropy come with the call */
    void
        *spare; /* GR_POLICY_SPARE bytes, and GR_POLICY_SPARE_EACH per row, the backend's own */
} gr_policy_task;

enum { GR_POLICY_SPARE = 128, GR_POLICY_SPARE_EACH = 8 };

/* Rewards, checked. */
typedef struct gr_advantage_task {
    gradreg_advantage_params params;
    float *out;
    const float *rewards;
    size_t count, group_size;
    int64_t *order; /* with group ids: reward numbers by group */
    void *spare;    /* GR_ADVANTAGE_SPARE bytes, unless backend memory is the host's */
} gr_advantage_task;

enum { GR_ADVANTAGE_SPARE = 64 };

/* Denominators, once they are known. */
typedef struct gr_policy_totals {
    double tokens, sequences, prompts; /* as divided by, never 0 */
    double own_tokens, own_rows;       /* of this batch: tokens, rows with a token */
} gr_policy_totals;

#endif
