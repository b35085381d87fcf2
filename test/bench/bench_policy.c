/* bench_policy.c - how long a policy loss takes, in nanoseconds per token.
 *
 * In: bench_policy [ROWS LENGTH [REPETITIONS]], 1000 x 1000 tokens without. Out, on stdout: a table of
 * presets and settings for one and for all threads (best of the repetitions, gradient and metrics
 * included), next to what a copy of the same inputs and outputs takes. Ends with 1 when two thread
 * counts disagree in a bit. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../numbers.h"
#include "gradreg.h"
#include "measure.h"

typedef struct inputs {
    size_t rows, length, tokens;
    float *logp, *old_logp, *ref_logp, *advantages, *dlogp, *again;
    uint8_t *mask;
} inputs;

static inputs open_inputs(size_t rows, size_t length)
{
    const size_t n = rows * length;
    uint64_t state = 1;
    inputs in = { rows,
                  length,
                  n,
                  allocate(n * 4),
                  allocate(n * 4),
                  allocate(n * 4),
                  allocate(rows * 4),
                  allocate(n * 4),
                  allocate(n * 4),
                  allocate(n) };
    for (size_t i = 0; i < n; i++) {
        in.logp[i] = (float)(-3.0 * next_unit(&state));
        in.old_logp[i] = in.logp[i] + (float)(0.4 * (next_unit(&state) - 0.5));
        in.ref_logp[i] = in.logp[i] + (float)(0.8 * (next_unit(&state) - 0.5));
        in.mask[i] = 1;
    }
    for (size_t r = 0; r < rows; r++)
        in.advantages[r] = (float)(4.0 * (next_unit(&state) - 0.5));
    return in;
}

static void close_inputs(inputs *in)
{
    free(in->logp), free(in->old_logp), free(in->ref_logp), free(in->advantages);
    free(in->dlogp), free(in->again), free(in->mask);
}

/* ---- one measurement -------------------------------------------------------------- */

static double best_of(gradreg_context *context, const inputs *in, const gradreg_policy *policy,
                      float *dlogp, int repetitions)
{
    gradreg_policy_batch batch = GRADREG_POLICY_BATCH_INIT;
    gradreg_policy_gradient out = GRADREG_POLICY_GRADIENT_INIT;
    gradreg_policy_metrics metrics = GRADREG_POLICY_METRICS_INIT;
    double best = 0.0;
    batch.sequences = in->rows;
    batch.length = in->length;
    batch.logp = in->logp;
    batch.old_logp = in->old_logp;
    batch.ref_logp = in->ref_logp;
    batch.advantages = in->advantages;
    batch.mask = in->mask;
    out.dlogp = dlogp;
    for (int i = 0; i <= repetitions; i++) { /* the first warms up */
        const double begun = nanoseconds();
        require(gradreg_policy_loss(context, &metrics, &out, &batch, policy));
        const double took = nanoseconds() - begun;
        best = i == 1 || (i > 1 && took < best) ? took : best;
    }
    return best / (double)in->tokens;
}

/* Three arrays and a mask in, one array out. */
static double best_copy(const inputs *in, int repetitions)
{
    double best = 0.0;
    volatile float sink = 0.0f;
    for (int i = 0; i <= repetitions; i++) {
        const double begun = nanoseconds();
        float sum = 0.0f;
        for (size_t k = 0; k < in->tokens; k++)
            in->dlogp[k] = in->logp[k] + in->old_logp[k] + in->ref_logp[k] + (float)in->mask[k];
        sum += in->dlogp[in->tokens / 2];
        sink = sum;
        const double took = nanoseconds() - begun;
        best = i == 1 || (i > 1 && took < best) ? took : best;
    }
    (void)sink;
    return best / (double)in->tokens;
}

/* ---- the table -------------------------------------------------------------------- */

static const struct setting {
    const char *preset;
    gradreg_kl kl;
    int32_t weighted;
} settings[] = {
    { "grpo", GRADREG_KL_NONE, 0 },     { "grpo", GRADREG_KL_K3, 0 },
    { "grpo", GRADREG_KL_K3, 1 },       { "dapo", GRADREG_KL_NONE, 0 },
    { "ppo@verl", GRADREG_KL_NONE, 0 }, { "gspo", GRADREG_KL_NONE, 0 },
    { "gspo", GRADREG_KL_K3, 1 },       { "gspo@verl", GRADREG_KL_NONE, 0 },
    { "cispo", GRADREG_KL_NONE, 0 },    { "sapo", GRADREG_KL_NONE, 0 },
    { "gmpo", GRADREG_KL_NONE, 0 },     { "reinforce", GRADREG_KL_NONE, 0 },
};

static int print_row(gradreg_context *one, gradreg_context *all, const inputs *in,
                     const struct setting *s, int repetitions)
{
    gradreg_policy policy;
    require(gradreg_policy_preset(&policy, s->preset));
    policy.kl = s->kl;
    policy.kl_ratio_weighted = s->weighted;
    policy.kl_coefficient = s->kl == GRADREG_KL_NONE ? 0.0 : 0.04;
    const double alone = best_of(one, in, &policy, in->dlogp, repetitions);
    const double together = best_of(all, in, &policy, in->again, repetitions);
    printf("%-10s %-12s %8.1f %8.1f\n", s->preset,
           s->kl == GRADREG_KL_NONE ? ""
           : s->weighted            ? "k3 x ratio"
                                    : "k3",
           alone, together);
    return memcmp(in->dlogp, in->again, in->tokens * sizeof(float)) == 0;
}

static gradreg_context *open_context(int32_t threads)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context;
    params.threads = threads;
    require(gradreg_context_create(&context, &params));
    return context;
}

int main(int argc, char **argv)
{
    const size_t rows = argc > 2 ? strtoul(argv[1], NULL, 10) : 1000;
    const size_t length = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000;
    const int repetitions = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 5;
    const int32_t threads = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    inputs in = open_inputs(rows, length);
    gradreg_context *one = open_context(1), *all = open_context(threads);
    int same = 1;
    printf("%zu x %zu tokens, ns per token\n%-10s %-12s %8s %6d threads\n", rows, length,
           "loss", "kl", "1 thread", (int)threads);
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
        same = print_row(one, all, &in, &settings[i], repetitions) && same;
    printf("%-23s %8.1f\n", "reading and writing it", best_copy(&in, repetitions));
    require(gradreg_context_destroy(one));
    require(gradreg_context_destroy(all));
    close_inputs(&in);
    if (!same)
        fprintf(stderr, "threads changed a bit\n");
    return !same;
}
