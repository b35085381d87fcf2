/* fuzz_logits.c - any text as rows of logits, and calls over them.
 *
 * In: words. "type N", "rows N", "vocabulary N", "stride N", "temperature X", "length N", "width N",
 * "chunk N", "entropy X" (coefficient), "aggregation N", "target N" and "logit X" (the next one's),
 * "mask N", "in_place"; whatever else is skipped. Out: an abort, with the text, unless every call either
 * refuses, saying why and writing nothing, or gives log-probs and entropies that are possible, zeros for
 * padding, nothing between rows, and the same gradient from the three calls and from the one.
 *
 *      clang -fsanitize=fuzzer,address,undefined -Iinclude -Ibuild/lib test/fuzz/fuzz_logits.c \
 *          build/lib/libgradreg.a -lm -lpthread -lopenblas
 *
 * or any compiler with -DGR_FUZZ_STANDALONE (standalone.h). */
#ifdef GR_FUZZ_STANDALONE
#define _POSIX_C_SOURCE 200809L /* scandir */
#endif

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gradreg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_ROWS = 8, MOST_ELEMENTS = 600, MOST_WIDTH = 24 };

typedef struct described {
    const char *text;
    gradreg_logits_params params;
    gradreg_linear_params linear;
    gradreg_policy policy;
    gradreg_policy_batch batch;
    size_t logit_next, target_next, mask_next;
    float logits[MOST_ELEMENTS];
    int32_t targets[MOST_ROWS];
    uint8_t mask[MOST_ROWS];
    float advantages[MOST_ROWS];
    int in_place;
} described;

static void complain(const described *d, const char *what)
{
    fprintf(stderr, "%s: %s\n%s\n", what, gradreg_last_error(), d->text);
    abort();
}

/* ---- the language ----------------------------------------------------------------- */

static size_t as_size(double x)
{
    return x >= 0 && x < 1e18 ? (size_t)x : SIZE_MAX;
}

static int32_t as_int(double x)
{
    return x > -2e9 && x < 2e9 ? (int32_t)x : INT32_MAX;
}

static void take(described *d, const char *word, double x)
{
    if (strcmp(word, "type") == 0)
        d->params.type = d->linear.type = as_int(x);
    else if (strcmp(word, "rows") == 0)
        d->params.rows = d->linear.rows = d->batch.sequences = as_size(x), d->batch.length = 1;
    else if (strcmp(word, "vocabulary") == 0)
        d->params.vocabulary = d->linear.vocabulary = as_size(x);
    else if (strcmp(word, "stride") == 0)
        d->params.row_stride = as_size(x);
    else if (strcmp(word, "temperature") == 0)
        d->params.temperature = d->linear.temperature = (float)x;
    else if (strcmp(word, "length") == 0)
        d->batch.length = as_size(x);
    else if (strcmp(word, "width") == 0)
        d->linear.width = as_size(x);
    else if (strcmp(word, "chunk") == 0)
        d->linear.chunk_rows = as_size(x);
    else if (strcmp(word, "entropy") == 0)
        d->policy.entropy_coefficient = x;
    else if (strcmp(word, "aggregation") == 0)
        d->policy.aggregation = as_int(x);
    else if (strcmp(word, "target") == 0)
        d->targets[d->target_next++ % MOST_ROWS] = as_int(x);
    else if (strcmp(word, "mask") == 0)
        d->mask[d->mask_next++ % MOST_ROWS] = (uint8_t)(x != 0);
    else if (strcmp(word, "logit") == 0)
        d->logits[d->logit_next++ % MOST_ELEMENTS] = (float)x;
}

static void describe(described *d, char *text)
{
    const gradreg_logits_params params = GRADREG_LOGITS_PARAMS_INIT;
    const gradreg_linear_params linear = GRADREG_LINEAR_PARAMS_INIT;
    const gradreg_policy policy = GRADREG_POLICY_INIT;
    const gradreg_policy_batch batch = GRADREG_POLICY_BATCH_INIT;
    char *rest = text, *end;
    d->params = params;
    d->linear = linear;
    d->policy = policy;
    d->batch = batch;
    take(d, "rows", 2);
    take(d, "vocabulary", 20);
    d->linear.width = 3;
    for (size_t i = 0; i < MOST_ELEMENTS; i++)
        d->logits[i] = (float)(i * 7 % 13) * 0.5f - 3.0f;
    for (int r = 0; r < MOST_ROWS; r++)
        d->mask[r] = 1, d->advantages[r] = (float)(r % 3) - 1.0f, d->targets[r] = r;
    for (char *word; (word = strtok_r(rest, " \n\t", &rest)) != NULL;) {
        if (strcmp(word, "in_place") == 0) {
            d->in_place = 1;
            continue;
        }
        char *number = strtok_r(rest, " \n\t", &rest);
        const double x = number == NULL ? 0.0 : strtod(number, &end);
        take(d, word, x);
    }
    d->batch.mask = d->mask;
    d->batch.advantages = d->advantages;
    d->batch.group = d->targets; /* any numbers */
}

/* Beyond what the arrays hold nothing can be run; refusals of such sizes are other suites' matter. */
static int fits(const described *d)
{
    const gradreg_logits_params *p = &d->params;
    const size_t stride = p->row_stride > p->vocabulary ? p->row_stride : p->vocabulary;
    return p->rows <= MOST_ROWS && stride <= MOST_ELEMENTS &&
           p->rows * stride <= MOST_ELEMENTS && d->batch.length <= MOST_ROWS &&
           d->linear.width <= MOST_WIDTH &&
           d->linear.vocabulary * d->linear.width <= MOST_ELEMENTS;
}

/* ---- the calls -------------------------------------------------------------------- */

typedef struct outputs {
    float dlogits[MOST_ELEMENTS], logp[MOST_ROWS], entropy[MOST_ROWS], log_sum_exp[MOST_ROWS];
    float dlogp[MOST_ROWS], dentropy[MOST_ROWS];
    gradreg_policy_metrics metrics;
} outputs;

static gradreg_context *context_once(void)
{
    static gradreg_context *context;
    gradreg_context_params how = GRADREG_CONTEXT_PARAMS_INIT;
    how.threads = 1;
    if (context == NULL && gradreg_context_create(&context, &how) != GRADREG_OK)
        abort();
    return context;
}

static void must_be_untouched(const described *d, const outputs *o)
{
    static const outputs clean;
    if (memcmp(o, &clean, offsetof(outputs, metrics)) != 0)
        complain(d, "a refusal has written something");
    if (gradreg_last_error()[0] == '\0')
        complain(d, "a refusal without a sentence");
}

static void check_numbers(const described *d, const outputs *o)
{
    for (size_t r = 0; r < d->params.rows; r++) {
        const float logp = o->logp[r], h = o->entropy[r];
        if (d->targets[r] == -1 && (logp != 0 || h != 0 || o->log_sum_exp[r] != 0))
            complain(d, "padding has numbers");
        if (logp > 1e-5f || h < 0 || h > 1.00001f * logf((float)d->params.vocabulary) + 1e-6f)
            complain(d, "a log-prob or an entropy that cannot be");
    }
}

static int three_calls(const described *d, outputs *o)
{
    gradreg_context *c = context_once();
    gradreg_policy_gradient out = GRADREG_POLICY_GRADIENT_INIT;
    gradreg_policy_batch batch = d->batch;
    if (gradreg_logprobs_forward(c, o->logp, o->entropy, o->log_sum_exp, d->logits, d->targets,
                                 &d->params) != GRADREG_OK) {
        must_be_untouched(d, o);
        return 0;
    }
    check_numbers(d, o);
    batch.logp = o->logp, batch.entropy = o->entropy;
    out.dlogp = o->dlogp, out.dentropy = o->dentropy;
    if (batch.sequences * batch.length != d->params.rows ||
        gradreg_policy_loss(c, &o->metrics, &out, &batch, &d->policy) != GRADREG_OK)
        return 0;
    if (d->in_place)
        memcpy(o->dlogits, d->logits, sizeof(o->dlogits));
    if (gradreg_logprobs_backward(c, o->dlogits, d->in_place ? o->dlogits : d->logits,
                                  d->targets, o->log_sum_exp, o->entropy, o->dlogp, o->dentropy,
                                  &d->params) != GRADREG_OK)
        complain(d, "forward accepted what backward does not");
    return 1;
}

/* Both count the same tokens; rows that lost their distribution make the one in place round again. */
static void compare(const described *d, const outputs *three, const outputs *one)
{
    const int exact = !d->in_place || three->metrics.non_finite == 0;
    if (memcmp(&three->metrics, &one->metrics, sizeof(one->metrics)) != 0)
        complain(d, "metrics differ");
    if (exact && memcmp(three->dlogits, one->dlogits, sizeof(one->dlogits)) != 0)
        complain(d, "the fused gradient differs");
}

static void one_call(const described *d, const outputs *three, int wants)
{
    static outputs o;
    memset(&o, 0, sizeof(o));
    o.metrics.struct_size = sizeof(o.metrics);
    if (d->in_place)
        memcpy(o.dlogits, d->logits, sizeof(o.dlogits));
    const gradreg_status status = gradreg_policy_logits(
        context_once(), &o.metrics, o.dlogits, o.logp, o.entropy,
        d->in_place ? o.dlogits : d->logits, d->targets, &d->batch, &d->policy, &d->params);
    if (wants && status != GRADREG_OK)
        complain(d, "the three calls accepted what the one does not");
    if (!wants && status == GRADREG_OK)
        complain(d, "the one call accepted what the three do not");
    if (wants)
        compare(d, three, &o);
}

static void linear_calls(const described *d)
{
    static float dhidden[MOST_ROWS * MOST_WIDTH], dweight[MOST_ELEMENTS];
    static outputs o;
    memset(&o, 0, sizeof(o));
    if (gradreg_linear_logprobs_forward(context_once(), o.logp, o.entropy, o.log_sum_exp,
                                        d->logits, d->logits + 100, d->targets,
                                        &d->linear) != GRADREG_OK) {
        must_be_untouched(d, &o);
        return;
    }
    for (int r = 0; r < MOST_ROWS; r++)
        o.dlogp[r] = 1.0f;
    if (gradreg_linear_logprobs_backward(context_once(), dhidden, dweight, d->logits,
                                         d->logits + 100, d->targets, o.log_sum_exp, o.entropy,
                                         o.dlogp, NULL, &d->linear) != GRADREG_OK)
        complain(d, "linear forward accepted what backward does not");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static described d;
    static outputs three;
    char text[4096], words[4096];
    if (size >= sizeof(text))
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    memcpy(words, text, sizeof(words));
    memset(&d, 0, sizeof(d));
    memset(&three, 0, sizeof(three));
    three.metrics.struct_size = sizeof(three.metrics);
    d.text = text;
    describe(&d, words);
    if (!fits(&d))
        return 0;
    one_call(&d, &three, three_calls(&d, &three));
    if (d.linear.rows * d.linear.width <= 100 &&
        d.linear.vocabulary * d.linear.width <= MOST_ELEMENTS - 100)
        linear_calls(&d);
    return 0;
}

#ifdef GR_FUZZ_STANDALONE
static const char *const fuzz_words[] = {
    " type 0",
    " type 1",
    " type 2",
    " type 3",
    " type 4",
    " rows 0",
    " rows 1",
    " rows 5",
    " rows 8",
    " vocabulary 0",
    " vocabulary 1",
    " vocabulary 17",
    " vocabulary 64",
    " vocabulary 3e9",
    " stride 0",
    " stride 70",
    " stride 3",
    " temperature 0",
    " temperature 0.5",
    " temperature -1",
    " temperature nan",
    " temperature 1e-42",
    " length 0",
    " length 2",
    " width 0",
    " width 5",
    " chunk 1",
    " chunk 3",
    " entropy 0.1",
    " entropy nan",
    " aggregation 2",
    " aggregation 3",
    " aggregation 6",
    " target -1",
    " target -2",
    " target 0",
    " target 16",
    " target 64",
    " logit nan",
    " logit inf",
    " logit -inf",
    " logit 1e38",
    " logit -3e38",
    " logit 1e4",
    " logit 1e-45",
    " mask 0",
    " mask 1",
    " in_place",
    NULL,
};
#include "standalone.h"
#endif
