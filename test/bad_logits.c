/* bad_logits.c - the caller whose arguments tests spoil, see bad_logits.h. */
#include "bad_logits.h"

#include <string.h>

belongings own;

void set_up(void)
{
    const gradreg_logits_params params = GRADREG_LOGITS_PARAMS_INIT;
    const gradreg_linear_params linear = GRADREG_LINEAR_PARAMS_INIT;
    const gradreg_policy policy = GRADREG_POLICY_INIT;
    const gradreg_policy_batch batch = GRADREG_POLICY_BATCH_INIT;
    const gradreg_policy_metrics metrics = GRADREG_POLICY_METRICS_INIT;
    refusals_open(&own, sizeof(own));
    own.params = params;
    own.params.rows = ROWS;
    own.params.vocabulary = VOCABULARY;
    for (size_t i = 0; i < MATRIX + SPARE; i++)
        own.logits[i] = (float)(i % 5);
    for (size_t k = 0; k < ARRAYS; k++)
        for (size_t i = 0; i < ROWS + SPARE; i++)
            own.arrays[k][i] = 1.0f + (float)k;
    own.linear = linear;
    own.linear.rows = ROWS;
    own.linear.width = WIDTH;
    own.linear.vocabulary = VOCABULARY;
    own.policy = policy;
    own.batch = batch;
    own.metrics = metrics;
    own.batch.sequences = 1;
    own.batch.length = ROWS;
    own.batch.advantages = own.arrays[LOGP] + ROWS + 4;
}

/* ---- refusals --------------------------------------------------------------------- */

void refuse_both(gradreg_status want, const char *word, const char *value)
{
    float *const *a = (float *const[]){ own.arrays[0], own.arrays[1], own.arrays[2],
                                        own.arrays[3], own.arrays[4] };
    assert_refused(gradreg_logprobs_forward(context, a[LOGP], a[ENTROPY], a[LSE], own.logits,
                                            own.targets, &own.params),
                   want, word, value);
    assert_refused(gradreg_logprobs_backward(context, own.dlogits, own.logits, own.targets,
                                             a[LSE], a[ENTROPY], a[DLOGP], a[DENTROPY],
                                             &own.params),
                   want, word, value);
}

void accept_both(void)
{
    assert_accepted(gradreg_logprobs_forward(context, own.arrays[LOGP], own.arrays[ENTROPY],
                                             own.arrays[LSE], own.logits, own.targets,
                                             &own.params));
    assert_accepted(gradreg_logprobs_backward(
        context, own.dlogits, own.logits, own.targets, own.arrays[LSE], own.arrays[ENTROPY],
        own.arrays[DLOGP], own.arrays[DENTROPY], &own.params));
}

void refuse_fused(gradreg_status want, const char *word, const char *value)
{
    assert_refused(gradreg_policy_logits(context, &own.metrics, own.dlogits, own.arrays[LOGP],
                                         own.arrays[ENTROPY], own.logits, own.targets,
                                         &own.batch, &own.policy, &own.params),
                   want, word, value);
}

void accept_fused(void)
{
    assert_accepted(gradreg_policy_logits(context, &own.metrics, own.dlogits, own.arrays[LOGP],
                                          own.arrays[ENTROPY], own.logits, own.targets,
                                          &own.batch, &own.policy, &own.params));
}

void refuse_linear(gradreg_status want, const char *word, const char *value)
{
    float(*const a)[ROWS + SPARE] = own.arrays;
    assert_refused(gradreg_linear_logprobs_forward(context, a[LOGP], a[ENTROPY], a[LSE],
                                                   own.hidden, own.weight, own.targets,
                                                   &own.linear),
                   want, word, value);
    assert_refused(gradreg_linear_logprobs_backward(
                       context, own.dhidden, own.dweight, own.hidden, own.weight, own.targets,
                       a[LSE], a[ENTROPY], a[DLOGP], a[DENTROPY], &own.linear),
                   want, word, value);
}

void accept_linear(void)
{
#if GR_TEST_BLAS
    float(*const a)[ROWS + SPARE] = own.arrays;
    assert_accepted(gradreg_linear_logprobs_forward(context, a[LOGP], a[ENTROPY], a[LSE],
                                                    own.hidden, own.weight, own.targets,
                                                    &own.linear));
    assert_accepted(gradreg_linear_logprobs_backward(
        context, own.dhidden, own.dweight, own.hidden, own.weight, own.targets, a[LSE],
        a[ENTROPY], a[DLOGP], a[DENTROPY], &own.linear));
#else
    refuse_linear(GRADREG_ERROR_UNSUPPORTED, "libopenblas-dev", "blas");
#endif
}

float *shifted(float *at, size_t bytes)
{
    return (float *)(void *)((char *)at + bytes);
}
