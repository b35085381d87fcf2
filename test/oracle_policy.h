/* oracle_policy.h - the policy losses in double, from their published formulas.
 *
 * In: a composition and a batch of doubles. Out: the loss and all metrics, and slopes: differences of
 * the loss itself, in which what a formula holds constant stays where it was. Includes nothing of the
 * library but the header's names, and has no derivative in it that could be wrong in the same way. */
#ifndef GRADREG_TEST_ORACLE_POLICY_H
#define GRADREG_TEST_ORACLE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gradreg.h"

/* As gradreg_policy_batch; NULL means the same. */
typedef struct oracle_policy_batch {
    size_t sequences, length;
    const int64_t *row_offsets;
    bool advantages_per_token;
    const double *logp, *old_logp, *ref_logp, *rollout_logp, *token_weight, *entropy;
    const double *advantages;
    const uint8_t *mask;
    const int32_t *group;
} oracle_policy_batch;

typedef struct oracle_policy {
    gradreg_policy policy; /* zeros replaced by what they stand for */
    const oracle_policy_batch *batch;
    gradreg_policy_metrics metrics;
    size_t token_count;
    bool *counts;        /* per token: enters numerators and denominators */
    double *row_tokens;  /* per row: how many do */
    double *row_weights; /* per row: what the aggregation gives each of its tokens */
    double entropy_weight;
    /* How far a log-prob can move before some token meets a corner of its loss: there a slope has two
     * values, and differences across it mean nothing. */
    double margin;
} oracle_policy;

oracle_policy *oracle_policy_new(const gradreg_policy *policy,
                                 const oracle_policy_batch *batch);
void oracle_policy_free(oracle_policy *o);

size_t oracle_policy_row_begin(const oracle_policy_batch *batch, size_t row);
size_t oracle_policy_row_length(const oracle_policy_batch *batch, size_t row);

/* d loss / d logp of a token (its number in the arrays) of a row, by differences over
 * 2 x ORACLE_POLICY_REACH either way. 0 for a token that does not count. */
#define ORACLE_POLICY_REACH 2e-3
double oracle_policy_slope(const oracle_policy *o, size_t row, size_t token);
/* d loss / d entropy. */
double oracle_policy_entropy_slope(const oracle_policy *o, size_t row, size_t token);

#endif
