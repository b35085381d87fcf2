/* bad_policy.c - the caller whose arguments tests spoil, see bad_policy.h. */
#include "bad_policy.h"

#include <string.h>

belongings own;

void set_up(void)
{
    const gradreg_policy policy = GRADREG_POLICY_INIT;
    const gradreg_policy_batch batch = GRADREG_POLICY_BATCH_INIT;
    const gradreg_policy_gradient out = GRADREG_POLICY_GRADIENT_INIT;
    const gradreg_policy_metrics metrics = GRADREG_POLICY_METRICS_INIT;
    const gradreg_advantage_params params = GRADREG_ADVANTAGE_PARAMS_INIT;
    refusals_open(&own, sizeof(own));
    own.policy = policy;
    own.batch = batch;
    own.out = out;
    own.metrics = own.read = metrics;
    own.params = params;
    for (size_t k = 0; k < ARRAYS; k++)
        for (size_t i = 0; i < TOKENS + SPARE; i++)
            own.arrays[k][i] = (float)(0.25 * (double)k - 0.125 * (double)i);
    memset(own.mask, 1, sizeof(own.mask));
    own.batch.sequences = ROWS;
    own.batch.length = LENGTH;
    own.batch.logp = own.arrays[LOGP];
    own.batch.old_logp = own.arrays[OLD];
    own.batch.ref_logp = own.arrays[REF];
    own.batch.rollout_logp = own.arrays[ROLLOUT];
    own.batch.token_weight = own.arrays[WEIGHT];
    own.batch.entropy = own.arrays[ENTROPY];
    own.batch.advantages = own.arrays[ADVANTAGES];
    own.batch.mask = own.mask;
    own.batch.group = own.group;
    own.out.dlogp = own.arrays[DLOGP];
    own.out.dentropy = own.arrays[DENTROPY];
    for (int i = 0; i <= ROWS; i++)
        own.offsets[i] = i * LENGTH;
}

/* ---- refusals --------------------------------------------------------------------- */

void refuse_loss(gradreg_status want, const char *word, const char *value)
{
    assert_refused(
        gradreg_policy_loss(context, &own.metrics, &own.out, &own.batch, &own.policy), want,
        word, value);
}

void accept_loss(void)
{
    assert_accepted(
        gradreg_policy_loss(context, &own.metrics, &own.out, &own.batch, &own.policy));
}
