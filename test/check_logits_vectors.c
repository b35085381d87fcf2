/* check_logits_vectors.c - log-probs, entropies and gradients that PyTorch's autograd has computed in
 * float64.
 *
 * In: vectors/logits.json (its folder is the first argument). Out: the oracle, given the published
 * doubles, gives the published numbers to 1e-12; the library, given them rounded to f32, gives what
 * those roundings imply: a logit is off by u |x|, so z by at most e = 2 u max|z| with the rounded 1/t,
 * a log-prob by 2e, p by 2e p; H moves by at most e times the mean distance from the mean. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "logits_rig.h"
#include "vectors.h"

#define U 0x1p-24

static const char *folder = "test/vectors";
static cJSON *cases;

enum { CASES = 4 };

typedef struct published {
    size_t rows, vocabulary;
    double temperature;
    double *logits, *target, *dlogp, *dentropy, *logp, *entropy, *dlogits;
} published;

static published read_case(const cJSON *item)
{
    published p;
    const cJSON *in = vectors_member(item, "inputs"), *out = vectors_member(item, "expect");
    p.rows = (size_t)vectors_member(item, "rows")->valuedouble;
    p.vocabulary = (size_t)vectors_member(item, "vocab")->valuedouble;
    p.temperature = vectors_member(item, "temperature")->valuedouble;
    p.logits = vectors_numbers(in, "logits", p.rows * p.vocabulary);
    p.target = vectors_numbers(in, "target", p.rows);
    p.dlogp = vectors_numbers(in, "dlogp", p.rows);
    p.dentropy = vectors_numbers(in, "dentropy", p.rows);
    p.logp = vectors_numbers(out, "logp", p.rows);
    p.entropy = vectors_numbers(out, "entropy", p.rows);
    p.dlogits = vectors_numbers(out, "dlogits", p.rows * p.vocabulary);
    return p;
}

static void free_case(published *p)
{
    free(p->logits), free(p->target), free(p->dlogp), free(p->dentropy);
    free(p->logp), free(p->entropy), free(p->dlogits);
}

static void close_to(double got, double want, double slack, const char *what, size_t i)
{
    if (!(fabs(got - want) <= slack))
        ck_abort_msg("%s %zu: %.17g, published %.17g, slack %.3g", what, i, got, want, slack);
}

START_TEST(the_oracle_gives_the_published_doubles)
{
    published p = read_case(cJSON_GetArrayItem(cases, _i));
    double *z = calloc(p.vocabulary, sizeof(double));
    for (size_t r = 0; r < p.rows; r++) {
        for (size_t j = 0; j < p.vocabulary; j++)
            z[j] = p.logits[r * p.vocabulary + j] / p.temperature;
        const oracle_logits o = oracle_logits_row(z, p.vocabulary, (size_t)p.target[r]);
        close_to(o.logp, p.logp[r], 1e-12 * (1 + fabs(p.logp[r])), "logp", r);
        close_to(o.entropy, p.entropy[r], 1e-12 * (1 + fabs(p.entropy[r])), "entropy", r);
        for (size_t j = 0; j < p.vocabulary; j++) {
            const double got = oracle_logits_slope(z, j, (size_t)p.target[r], o.log_sum_exp,
                                                   o.entropy, p.dlogp[r], p.dentropy[r]) /
                               p.temperature;
            close_to(got, p.dlogits[r * p.vocabulary + j], 1e-11, "dlogits", j);
        }
    }
    free(z);
    free_case(&p);
}
END_TEST

static double largest(const double *x, size_t n)
{
    double most = 0.0;
    for (size_t j = 0; j < n; j++)
        if (isfinite(x[j]) && fabs(x[j]) > most)
            most = fabs(x[j]);
    return most;
}

static void check_row(const published *p, const logits_rig *rig, size_t r)
{
    const size_t at = r * p->vocabulary, n = p->vocabulary;
    const double e = 2 * U * largest(p->logits + at, n) / p->temperature;
    const double sum = 40 * U, h = fabs(p->entropy[r]), z = e / (2 * U);
    close_to((double)rig->logp[r], p->logp[r], 2 * e + sum + U * fabs(p->logp[r]), "logp", r);
    close_to((double)rig->entropy[r], p->entropy[r], (2 * e + sum) * (1 + h), "entropy", r);
    /* dlogits: p off by what z and the rounded log_sum_exp are; ln p + H at most 2 max|z| + H */
    const double by_p = 2 * e + U * z + sum;
    const double slack =
        (fabs(p->dlogp[r]) * by_p + fabs(p->dentropy[r]) * by_p * (1 + h + fmin(2 * z, 60))) /
            p->temperature +
        0x1p-120;
    for (size_t j = 0; j < n; j++)
        close_to((double)((float *)rig->dlogits)[at + j], p->dlogits[at + j],
                 slack + U * fabs(p->dlogits[at + j]), "dlogits", j);
}

START_TEST(the_library_gives_them_as_far_as_f32_reaches)
{
    published p = read_case(cJSON_GetArrayItem(cases, _i));
    gradreg_context *context = logits_context(1, NULL);
    uint64_t state = 1;
    logits_rig *rig = logits_rig_new(p.rows, p.vocabulary, GRADREG_TYPE_F32, 0, 0, 1.0, &state);
    rig->params.temperature = (float)p.temperature;
    for (size_t i = 0; i < p.rows * p.vocabulary; i++)
        ((float *)rig->logits)[i] = (float)p.logits[i];
    for (size_t r = 0; r < p.rows; r++) {
        rig->targets[r] = (int32_t)p.target[r];
        rig->dlogp[r] = (float)p.dlogp[r];
        rig->dentropy[r] = (float)p.dentropy[r];
    }
    logits_rig_run(rig, context);
    for (size_t r = 0; r < p.rows; r++)
        check_row(&p, rig, r);
    logits_rig_free(rig);
    free_case(&p);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("logits vectors");
    TCase *tc = tcase_create("core");
    folder = argc > 1 ? argv[1] : folder;
    cases = vectors_read(folder, "logits");
    if (cJSON_GetArraySize(cases) != CASES) {
        fprintf(stderr, "expected %d cases\n", CASES);
        return EXIT_FAILURE;
    }
    add_loop_test(tc, the_oracle_gives_the_published_doubles, 0, CASES);
    add_loop_test(tc, the_library_gives_them_as_far_as_f32_reaches, 0, CASES);
    suite_add_tcase(suite, tc);
    const int result = run_suite(suite);
    cJSON_Delete(cases);
    return result;
}
