/* fuzz_policy.c - any text as a policy loss and a batch for it.
 *
 * In: words. "preset NAME", "FIELD NUMBER" for a field of the policy, "sequences N", "length N",
 * "offset N" (the next row's end), "drop ARRAY", "ARRAY NUMBER" (the array's next element), "in_place";
 * whatever else is skipped. Out: an abort, with the text, unless the call either refuses, saying why
 * and writing nothing, or gives gradients that are 0 where nothing counts, metrics that are possible,
 * and all of it a second time to the last bit.
 *
 *      clang -fsanitize=fuzzer,address,undefined -Iinclude -Ibuild/lib test/fuzz/fuzz_policy.c \
 *          build/lib/libgradreg.a -lm -lpthread
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

enum { MOST_ROWS = 16, MOST_TOKENS = 96, FLOATS = 7 };

enum { LOGP, OLD, REF, ROLLOUT, WEIGHT, ENTROPY, ADVANTAGES };
static const char *const array_names[FLOATS] = { "logp",   "old",     "ref",      "rollout",
                                                 "weight", "entropy", "advantage" };

typedef struct described {
    const char *text;
    gradreg_policy policy;
    gradreg_policy_batch batch;
    int64_t offsets[MOST_ROWS + 1];
    size_t offset_count, next[FLOATS], mask_next;
    float values[FLOATS][MOST_TOKENS];
    uint8_t mask[MOST_TOKENS];
    int32_t group[MOST_ROWS];
    int dropped[FLOATS], drop_mask, in_place;
} described;

static void complain(const described *d, const char *what)
{
    fprintf(stderr, "%s: %s\n%s\n", what, gradreg_last_error(), d->text);
    abort();
}

/* ---- the language ----------------------------------------------------------------- */

#define INTEGER(field)                             \
    {                                              \
#field, offsetof(gradreg_policy, field), 0 \
    }
#define REAL(field)                                \
    {                                              \
#field, offsetof(gradreg_policy, field), 1 \
    }
static const struct field {
    const char *name;
    size_t at;
    int real;
} fields[] = {
    INTEGER(ratio_level),
    INTEGER(surrogate),
    INTEGER(kl),
    INTEGER(aggregation),
    INTEGER(rollout_mode),
    INTEGER(kl_ratio_weighted),
    REAL(clip_low),
    REAL(clip_high),
    REAL(cap),
    REAL(dual_clip),
    REAL(gate_positive),
    REAL(gate_negative),
    REAL(log_ratio_limit),
    REAL(kl_coefficient),
    REAL(kl_limit),
    REAL(entropy_coefficient),
    REAL(off_policy_threshold),
    REAL(rollout_low),
    REAL(rollout_high),
    REAL(token_total),
    REAL(sequence_total),
    REAL(prompt_total),
    REAL(max_length),
    REAL(loss_scale),
    INTEGER(count_empty_rows),
};

static int32_t to_integer(double x)
{
    return x >= -2147483648.0 && x <= 2147483647.0 ? (int32_t)x : 99;
}

static size_t to_size(double x)
{
    return x >= 0.0 && x < 1.8e19 ? (size_t)x : 0;
}

static int set_field(described *d, const char *name, double x)
{
    for (size_t k = 0; k < sizeof(fields) / sizeof(fields[0]); k++) {
        unsigned char *at = (unsigned char *)&d->policy + fields[k].at;
        const int32_t integer = to_integer(x);
        if (strcmp(name, fields[k].name) != 0)
            continue;
        memcpy(at, fields[k].real ? (const void *)&x : &integer,
               fields[k].real ? sizeof(x) : sizeof(integer));
        return 1;
    }
    return 0;
}

static int set_element(described *d, const char *name, double x)
{
    for (size_t k = 0; k < FLOATS; k++)
        if (strcmp(name, array_names[k]) == 0) {
            d->values[k][d->next[k]++ % MOST_TOKENS] = (float)x;
            return 1;
        }
    if (strcmp(name, "mask") != 0)
        return 0;
    d->mask[d->mask_next++ % MOST_TOKENS] = (uint8_t)to_integer(x);
    return 1;
}

static void set_shape(described *d, const char *name, double x)
{
    if (strcmp(name, "sequences") == 0)
        d->batch.sequences = to_size(x);
    else if (strcmp(name, "length") == 0)
        d->batch.length = to_size(x);
    else if (strcmp(name, "per_token") == 0)
        d->batch.advantages_per_token = to_integer(x);
    else if (strcmp(name, "offset") == 0 && d->offset_count < MOST_ROWS)
        d->offsets[++d->offset_count] = (int64_t)fmax(fmin(x, 9e18), -9e18);
}

static void drop(described *d, const char *name)
{
    for (size_t k = 0; k < FLOATS; k++)
        d->dropped[k] |= strcmp(name, array_names[k]) == 0;
    d->drop_mask |= strcmp(name, "mask") == 0;
}

static void understand(described *d, const char *word, const char *next)
{
    const gradreg_policy before = d->policy;
    const double x = strtod(next, NULL);
    if (strcmp(word, "preset") == 0) {
        if (gradreg_policy_preset(&d->policy, next) != GRADREG_OK &&
            memcmp(&before, &d->policy, sizeof(before)) != 0)
            complain(d, "an unknown preset wrote");
    } else if (strcmp(word, "drop") == 0)
        drop(d, next);
    else if (strcmp(word, "in_place") == 0)
        d->in_place = 1;
    else if (!set_field(d, word, x) && !set_element(d, word, x))
        set_shape(d, word, x);
}

static void read_text(described *d, char *text)
{
    char *word = strtok(text, " \n\t\r");
    while (word != NULL) {
        char *next = strtok(NULL, " \n\t\r");
        understand(d, word, next != NULL ? next : "");
        word = next;
    }
}

/* ---- the call --------------------------------------------------------------------- */

/* A described size is either one that must be refused, or made to fit. */
static size_t fit_shape(described *d)
{
    gradreg_policy_batch *b = &d->batch;
    if (b->sequences > MOST_ROWS && b->sequences <= (size_t)1 << 40)
        b->sequences = MOST_ROWS;
    if (b->sequences > MOST_ROWS)
        return 0;
    if (d->offset_count > 0) {
        b->row_offsets = d->offsets;
        for (size_t r = 1; r <= b->sequences; r++) {
            if (r > d->offset_count)
                d->offsets[r] = d->offsets[r - 1];
            if (d->offsets[r] > MOST_TOKENS && d->offsets[r] < (int64_t)(SIZE_MAX / 16))
                d->offsets[r] = MOST_TOKENS;
        }
        const int64_t tokens = d->offsets[b->sequences];
        return tokens >= 0 && tokens <= MOST_TOKENS ? (size_t)tokens : 0;
    }
    if (b->sequences == 0 || b->length > SIZE_MAX / 16 / b->sequences)
        return 0;
    if (b->length > MOST_TOKENS / b->sequences)
        b->length = MOST_TOKENS / b->sequences;
    return b->sequences * b->length;
}

/* Memory of exactly the size that the batch has. */
static void *exactly(const void *from, size_t bytes)
{
    void *to = malloc(bytes + (bytes == 0));
    if (to == NULL)
        abort();
    memcpy(to, from, bytes);
    return to;
}

typedef struct outcome {
    float *dlogp, *dentropy;
    gradreg_policy_metrics metrics;
    gradreg_status status;
} outcome;

enum { UNTOUCHED = 0x5a };

static outcome run(gradreg_context *context, const described *d, size_t tokens)
{
    const gradreg_policy_metrics metrics = GRADREG_POLICY_METRICS_INIT;
    gradreg_policy_batch b = d->batch;
    gradreg_policy_gradient out = GRADREG_POLICY_GRADIENT_INIT;
    const float **const places[FLOATS] = { &b.logp,         &b.old_logp,     &b.ref_logp,
                                           &b.rollout_logp, &b.token_weight, &b.entropy,
                                           &b.advantages };
    const size_t rows = b.sequences <= MOST_ROWS ? b.sequences : 0;
    outcome o = { calloc(tokens + 1, sizeof(float)), calloc(tokens + 1, sizeof(float)), metrics,
                  GRADREG_OK };
    void *copies[FLOATS];
    uint8_t *mask = exactly(d->mask, tokens);
    int32_t *group = exactly(d->group, rows * sizeof(*group));
    for (size_t k = 0; k < FLOATS; k++) {
        const size_t count = k == ADVANTAGES && b.advantages_per_token != 1 ? rows : tokens;
        copies[k] = exactly(d->values[k], count * sizeof(float));
        *places[k] = d->dropped[k] ? NULL : copies[k];
    }
    b.mask = d->drop_mask ? NULL : mask;
    b.group = group;
    memset(o.dlogp, UNTOUCHED, tokens * sizeof(float));
    memset(o.dentropy, UNTOUCHED, tokens * sizeof(float));
    out.dlogp = d->in_place ? copies[LOGP] : o.dlogp;
    out.dentropy = o.dentropy;
    o.status = gradreg_policy_loss(context, &o.metrics, &out, &b, &d->policy);
    if (d->in_place && o.status == GRADREG_OK)
        memcpy(o.dlogp, copies[LOGP], tokens * sizeof(float));
    for (size_t k = 0; k < FLOATS; k++)
        free(copies[k]);
    free(mask);
    free(group);
    return o;
}

/* ---- what must hold --------------------------------------------------------------- */

static void check_refusal(const described *d, const outcome *o, size_t tokens)
{
    if (o->status != GRADREG_ERROR_INVALID_ARGUMENT)
        complain(d, "a status that nothing here can cause");
    if (strncmp(gradreg_last_error(), "gradreg_policy_loss: ", 21) != 0)
        complain(d, "no sentence");
    for (size_t i = 0; i < tokens * sizeof(float); i++)
        if (((const unsigned char *)o->dlogp)[i] != UNTOUCHED)
            complain(d, "a refusal wrote");
}

static int is_fraction(double x)
{
    return x >= 0.0 && x <= 1.0 + 1e-12;
}

/* Where overflow can make an infinity of finite inputs, and two of them a NaN. */
static int may_overflow(const described *d, const gradreg_policy_metrics *m)
{
    for (size_t k = 0; k < sizeof(fields) / sizeof(fields[0]); k++) {
        double x = 0.0;
        if (fields[k].real)
            memcpy(&x, (const unsigned char *)&d->policy + fields[k].at, sizeof(x));
        if (x != 0.0 && (fabs(x) > 1e20 || fabs(x) < 1e-20))
            return 1;
    }
    return !(m->ratio_max < 1e100) || !(fabs(m->kl) < 1e100);
}

static void check_answer(const described *d, const outcome *o, size_t tokens)
{
    const gradreg_policy_metrics *m = &o->metrics;
    size_t masked_in = 0;
    for (size_t i = 0; i < tokens; i++) {
        const int counts = d->drop_mask || d->mask[i] != 0;
        masked_in += (size_t)counts;
        if ((!counts || !isfinite(d->values[LOGP][i])) &&
            (o->dlogp[i] != 0.0f || o->dentropy[i] != 0.0f))
            complain(d, "a gradient where nothing counts");
        if (isnan(o->dlogp[i]) && !may_overflow(d, m))
            complain(d, "a gradient that is no number");
    }
    if (m->tokens + m->non_finite != masked_in || m->sequences != d->batch.sequences ||
        m->empty_sequences > m->sequences)
        complain(d, "counts");
    if (m->tokens == 0 && (m->loss != 0.0 || m->kl != 0.0 || m->ratio_mean != 1.0))
        complain(d, "a loss of nothing");
    if (!is_fraction(m->clip_low_fraction) || !is_fraction(m->clip_high_fraction) ||
        !is_fraction(m->limited_fraction) || !is_fraction(m->effective_sample_size))
        complain(d, "a fraction that is none");
    if (!(m->ratio_min <= m->ratio_mean * (1.0 + 1e-12) &&
          m->ratio_mean <= m->ratio_max * (1.0 + 1e-12)))
        complain(d, "a mean outside its range");
    if (isnan(m->loss) && !may_overflow(d, m))
        complain(d, "a loss that is no number");
}

static void check_again(const described *d, const outcome *a, const outcome *b, size_t tokens)
{
    if (a->status != b->status || memcmp(a->dlogp, b->dlogp, tokens * sizeof(float)) != 0 ||
        memcmp(a->dentropy, b->dentropy, tokens * sizeof(float)) != 0 ||
        memcmp(&a->metrics, &b->metrics, sizeof(a->metrics)) != 0)
        complain(d, "another answer the second time");
}

static void start(described *d, const char *text)
{
    const gradreg_policy policy = GRADREG_POLICY_INIT;
    const gradreg_policy_batch batch = GRADREG_POLICY_BATCH_INIT;
    memset(d, 0, sizeof(*d));
    memset(d->mask, 1, sizeof(d->mask));
    d->text = text;
    d->policy = policy;
    d->batch = batch;
    d->batch.sequences = 3;
    d->batch.length = 4;
    for (int r = 0; r < MOST_ROWS; r++)
        d->group[r] = r / 2;
    for (size_t k = 0; k < FLOATS; k++)
        for (size_t i = 0; i < MOST_TOKENS; i++)
            d->values[k][i] = k == ADVANTAGES ? (float)(i % 3) - 1.0f
                              : k >= WEIGHT   ? 1.0f
                                              : -0.125f * (float)((i * (k + 1)) % 17);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static gradreg_context *context;
    static described d;
    char *text = calloc(1, size + 1), *words = calloc(1, size + 1);
    if (text == NULL || words == NULL ||
        (context == NULL && gradreg_context_create(&context, NULL) != GRADREG_OK))
        abort();
    if (size > 0) {
        memcpy(text, data, size);
        memcpy(words, data, size);
    }
    start(&d, text);
    read_text(&d, words);
    const size_t tokens = fit_shape(&d);
    outcome first = run(context, &d, tokens), second = run(context, &d, tokens);
    if (first.status == GRADREG_OK)
        check_answer(&d, &first, tokens);
    else
        check_refusal(&d, &first, tokens);
    check_again(&d, &first, &second, tokens);
    free(first.dlogp), free(first.dentropy), free(second.dlogp), free(second.dentropy);
    free(text);
    free(words);
    return 0;
}

#ifdef GR_FUZZ_STANDALONE
static const char *const fuzz_words[] = {
    " preset gspo",
    " preset gmpo",
    " preset sapo@trl",
    " preset cispo@verl",
    " preset luspo",
    " preset ppo@verl",
    " ratio_level 2",
    " ratio_level 3",
    " surrogate 2",
    " surrogate 4",
    " surrogate 5",
    " kl 2",
    " kl 4",
    " kl_coefficient 0.1",
    " kl_ratio_weighted 1",
    " kl_limit 1",
    " cap 1.5",
    " dual_clip 3",
    " log_ratio_limit 20",
    " aggregation 3",
    " aggregation 5",
    " aggregation 6",
    " rollout_mode 2",
    " rollout_mode 5",
    " off_policy_threshold 0.1",
    " entropy_coefficient 0.01",
    " loss_scale -1",
    " token_total 100",
    " sequences 5",
    " sequences 0",
    " sequences 1e13",
    " length 0",
    " length 1e19",
    " per_token 1",
    " offset 0",
    " offset 7",
    " offset 20",
    " offset -1",
    " offset 9e18",
    " drop old",
    " drop mask",
    " drop ref",
    " drop entropy",
    " in_place",
    " mask 0",
    " logp -inf",
    " logp nan",
    " logp -1000",
    " old -1000",
    " ref 200",
    " rollout -30",
    " weight 0",
    " weight nan",
    " advantage -1",
    " advantage -0",
    " nan",
    " inf",
    " -1",
    " 1e308",
    " 4e-324",
    NULL,
};
#include "standalone.h"
#endif
