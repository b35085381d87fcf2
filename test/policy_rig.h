/* policy_rig.h - batches for policy losses, and the comparison of a call with the oracle.
 *
 * In: sizes and a seed. Out: a batch with everything in it, on a grid that doubles and floats both
 * hold exactly; tests take away what they do not want. Outputs lie between canaries. */
#ifndef GRADREG_TEST_POLICY_RIG_H
#define GRADREG_TEST_POLICY_RIG_H

#include "oracle_policy.h"
#include "support.h"

typedef struct policy_rig {
    gradreg_policy policy;
    gradreg_policy_batch batch; /* points at what follows */
    size_t tokens;
    int64_t *row_offsets;
    float *logp, *old_logp, *ref_logp, *rollout_logp, *token_weight, *entropy, *advantages;
    uint8_t *mask;
    int32_t *group;
    gradreg_policy_gradient out;
    float *dlogp, *dentropy;
    gradreg_policy_metrics metrics;
} policy_rig;

/* Padded: rows of `length`. Packed: rows of 0 to `length`. */
policy_rig *policy_rig_new(size_t rows, size_t length, bool packed, bool per_token,
                           uint64_t *state);
void policy_rig_free(policy_rig *rig);

size_t policy_rig_begin(const policy_rig *rig, size_t row);
size_t policy_rig_end(const policy_rig *rig, size_t row);

/* Into the rig's own outputs, which must be whole afterwards. */
void policy_rig_run(policy_rig *rig, gradreg_context *context);

/* The same numbers as doubles. The view keeps the rig's mask, groups and offsets. */
oracle_policy_batch *policy_rig_view(const policy_rig *rig);
void policy_rig_view_free(oracle_policy_batch *view);

/* Loss, metrics, and every element of both gradients against the oracle: metrics within `slack`
 * roundings of double, gradients within one rounding to f32 of the slope, which differences give to
 * 1e-10 of what the row's tokens weigh. Returns the worst gradient in units of its bound. */
double policy_rig_check(const policy_rig *rig, const oracle_policy *o, const char *what);

gradreg_context *policy_context(int32_t threads);

#endif
