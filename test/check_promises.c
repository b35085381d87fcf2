/* check_promises.c - what the pages and the header promise in passing, and no other suite holds:
 * remarks at creation, how large things are, how often the ranks are asked, what a null step shows.
 *
 * The linker sends the library's malloc here. Promises about threads are in
 * check_promises_threads.c. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promises.h"
#include "rig.h"

enum { LAYERS = 3, SEGMENTS = 4 };

static const gradreg_segment table[SEGMENTS] = {
    { 0, 700, 0, 0, 0, GRADREG_ROLE_ATTENTION, 0, 0, 0, { 0 } },
    { 700, 300, 0, 0, 1, GRADREG_ROLE_MLP, 0, 0, 0, { 0 } },
    { 1000, 5000, 0, 0, 2, GRADREG_ROLE_ATTENTION, 0, 0, 0, { 0 } },
    { 6000, 40, 0, 0, GRADREG_LAYER_NONE, GRADREG_ROLE_HEAD, 0, 0, 0, { 0 } },
};
static const gradreg_segment others[1] = {
    { 0, 50, 0, 0, 1, GRADREG_ROLE_OTHER, 0, 0, 0, { 0 } },
};

static gradreg_regularizer_params plain_params(void)
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.layer_count = LAYERS;
    p.schedule.first_layer = 1;
    p.schedule.full_layer = 2;
    p.clip_first = p.clip_second = 0;
    return p;
}

/* ---- remarks at creation ----------------------------------------------------------- */

static const char clips[] = "a clip on one gradient only", strength[] = "params.strength is 0",
                  roles[] = "have nothing in common", none_moves[] = "none is perturbed",
                  none_counts[] = "none is regularized";

struct remark {
    const char *words[2];
    double clip_first, clip_second, strength;
    uint32_t perturbed;
    bool unknown; /* a table in which every segment is OTHER */
};
static const struct remark remarks[] = {
    { { NULL, NULL }, 0, 0, 0.5, 0, false },
    { { NULL, NULL }, 10, 5, 0.5, 0, false },
    { { clips, NULL }, 10, 0, 0.5, 0, false },
    { { clips, NULL }, 0, 10, 0.5, 0, false },
    { { strength, NULL }, 0, 0, 0, 0, false },
    { { roles, NULL }, 0, 0, 0.5, GRADREG_ROLE_HEAD, false },
    { { none_moves, none_counts }, 0, 0, 0.5, 0, true },
};
enum { REMARKS = sizeof(remarks) / sizeof(remarks[0]) };

START_TEST(creation_warns_of_settings_that_do_not_do_what_they_say)
{
    const struct remark *remark = &remarks[_i];
    gradreg_regularizer_params p = plain_params();
    log_collector log = { 0 };
    const rig_setup setup = { .log = &log };
    size_t expected = 0;

    p.clip_first = remark->clip_first;
    p.clip_second = remark->clip_second;
    p.strength = remark->strength;
    if (remark->perturbed != 0) {
        p.perturbed_roles = remark->perturbed;
        p.schedule.outside_multiplier = 1; /* so that something moves */
    }
    rig *r =
        rig_open(remark->unknown ? others : table, remark->unknown ? 1 : SEGMENTS, &p, &setup);
    for (; expected < 2 && remark->words[expected] != NULL; expected++)
        ck_assert_msg(log_has(&log, remark->words[expected]), "no word of \"%s\"",
                      remark->words[expected]);
    ck_assert_uint_eq(log.count, expected);
    for (size_t i = 0; i < expected; i++)
        ck_assert_int_eq(log.level[i], GRADREG_LOG_WARNING);
    rig_close(r);
}
END_TEST

START_TEST(a_number_out_of_range_is_told_its_range)
{
    static const struct {
        double strength, min_fidelity, ema;
        const char *words;
    } wrong[] = {
        { NAN, 0, 0, "params.strength is nan, must be finite" },
        { -1, 0, 0, "params.strength is -1, must be >= 0" },
        { 0.5, 2, 0, "params.min_fidelity is 2, must be >= 0 and <= 1" },
        { 0.5, 0, 1, "params.adaptive.ema is 1, must be >= 0 and < 1" },
    };
    gradreg_context *context = NULL;
    size_t bytes;

    assert_ok(gradreg_context_create(&context, NULL));
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        gradreg_regularizer_params p = plain_params();
        p.strength = wrong[i].strength;
        p.min_fidelity = wrong[i].min_fidelity;
        p.adaptive.ema = wrong[i].ema;
        assert_fails(gradreg_regularizer_workspace_bytes(&bytes, context, table, SEGMENTS, &p),
                     GRADREG_ERROR_INVALID_ARGUMENT, wrong[i].words);
        ck_assert_str_eq(strstr(gradreg_last_error(), "params."), wrong[i].words);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- sums over ranks --------------------------------------------------------------- */

/* The other rank has nothing to add. */
static int32_t count_sum(void *user, double *values, size_t count, void *stream)
{
    (void)values, (void)count, (void)stream;
    ++*(int *)user;
    return 0;
}

/* One step, and how often it asked. */
static int sums_of_a_step(rig *r, int *asked, uint64_t seed)
{
    const int before = *asked;

    if (r->params.noise.rule != GRADREG_NOISE_OFF)
        assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    rig_gradient(r, seed, true);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    rig_gradient(r, seed + 1, false);
    if (r->params.difference == GRADREG_DIFFERENCE_CENTRAL) {
        assert_ok(gradreg_regularizer_mirror(r->reg, &r->buffers));
        rig_gradient(r, seed + 2, false);
    }
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    return *asked - before;
}

START_TEST(a_step_asks_for_three_sums_and_a_fourth_with_noise)
{
    gradreg_regularizer_params p = plain_params();
    int asked = 0;

    p.world = 2;
    p.all_reduce.function = count_sum;
    p.all_reduce.user = &asked;
    p.difference = _i % 2 == 0 ? GRADREG_DIFFERENCE_FORWARD : GRADREG_DIFFERENCE_CENTRAL;
    p.step = (gradreg_step)(1 + _i / 2 % LAST_STEP);
    p.noise.rule = _i / 2 / LAST_STEP == 0 ? GRADREG_NOISE_OFF : GRADREG_NOISE_RELATIVE;
    rig *r = rig_open(table, SEGMENTS, &p, &(rig_setup){ .threads = 1 });
    rig_numbers(r, RIG_PARAMS, 1, -3);
    const int want = p.noise.rule == GRADREG_NOISE_OFF ? 3 : 4;
    for (uint64_t step = 0; step < 3; step++)
        ck_assert_int_eq(sums_of_a_step(r, &asked, 10 * step), want);
    rig_close(r);
}
END_TEST

/* ---- a null step ------------------------------------------------------------------- */

/* "direction CALLER with v = 0": what is left is the difference between the passes. */
START_TEST(a_null_step_shows_the_noise_of_the_passes_alone)
{
    gradreg_regularizer_params p = plain_params();
    double dot = 0, first = 0, second = 0, apart = 0;

    p.direction = GRADREG_DIRECTION_CALLER;
    rig *r = rig_open(table, SEGMENTS, &p, &(rig_setup){ .threads = 1 });
    rig_numbers(r, RIG_PARAMS, 1, -3);
    memset(r->flat[RIG_DIRECTION], 0, r->buffers.count * sizeof(float));
    char *theta = rig_gather(r, RIG_PARAMS);
    rig_numbers(r, RIG_GRADS, 2, -1);
    float *g1 = (void *)rig_gather(r, RIG_GRADS);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    rig_assert(r, RIG_PARAMS, theta, "a null step");
    float *g2 = (void *)rig_gather(r, RIG_GRADS);
    for (size_t i = 0; i < r->buffers.count; i++) {
        g2[i] = ((float *)(void *)r->flat[RIG_GRADS])[i] = g1[i] * (i % 3 == 0 ? 1.001f : 1);
        const double a = (double)g1[i], b = (double)g2[i];
        dot += a * b, first += a * a, second += b * b, apart += (b - a) * (b - a);
    }
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    rig_assert(r, RIG_GRADS, (char *)g1, "the gradient of a null step");
    const gradreg_terms terms = rig_terms(r);
    ck_assert_uint_eq(terms.flags, GRADREG_FLAG_NO_DIRECTION);
    ck_assert(fabs(terms.alignment - dot / sqrt(first * second)) < 1e-7);
    ck_assert(fabs(terms.difference_noise / (0x1p-24 * sqrt((first + second) / apart)) - 1) <
              1e-6);
    free(theta);
    free(g1);
    free(g2);
    rig_close(r);
}
END_TEST

/* ---- the report --------------------------------------------------------------------- */

/* "columns are the doubles of gradreg_terms in their order, then ..." */
static void check_row(const gradreg_terms *terms, const double *row)
{
    const double counts[] = { (double)terms->non_finite_first, (double)terms->non_finite_second,
                              (double)terms->absent, (double)terms->step,
                              (double)terms->flags };
    enum { COUNTS = sizeof(counts) / sizeof(counts[0]) };

    ck_assert_ptr_eq(&terms->strength + GRADREG_TERMS_COLUMNS - COUNTS,
                     (const double *)(const void *)&terms->non_finite_first);
    ck_assert_mem_eq(row, &terms->strength, (GRADREG_TERMS_COLUMNS - COUNTS) * sizeof(double));
    ck_assert_mem_eq(row + GRADREG_TERMS_COLUMNS - COUNTS, counts, sizeof(counts));
}

START_TEST(rows_that_are_not_waited_for_are_the_report_in_its_order)
{
    const gradreg_regularizer_params p = plain_params();
    gradreg_terms total = GRADREG_TERMS_INIT, layers[LAYERS] = { GRADREG_TERMS_INIT };
    int asked = 0;
    rig *r = rig_open(table, SEGMENTS, &p, &(rig_setup){ .threads = 1 });

    rig_numbers(r, RIG_PARAMS, 1, -3);
    for (uint64_t step = 0; step < 2; step++) {
        (void)sums_of_a_step(r, &asked, 10 * step);
        double *rows = rig_rows(r);
        assert_ok(gradreg_regularizer_terms(r->reg, &total, layers, LAYERS));
        check_row(&total, rows);
        for (size_t l = 0; l < LAYERS; l++)
            check_row(&layers[l], rows + (l + 1) * GRADREG_TERMS_COLUMNS);
        ck_assert_uint_eq(total.step, step + 1);
        free(rows);
    }
    rig_close(r);
}
END_TEST

/* ---- presets ------------------------------------------------------------------------ */

START_TEST(no_preset_turns_on_what_is_a_runs_own)
{
    size_t presets = 0;

    for (const char *name; (name = gradreg_policy_preset_name(presets)) != NULL; presets++) {
        gradreg_policy policy;
        assert_ok(gradreg_policy_preset(&policy, name));
        ck_assert_msg(policy.kl == GRADREG_KL_NONE && policy.kl_coefficient == 0, "%s: a KL",
                      name);
        ck_assert_msg(policy.entropy_coefficient == 0, "%s: an entropy bonus", name);
        ck_assert_msg(policy.rollout_mode == GRADREG_ROLLOUT_OFF, "%s: a rollout correction",
                      name);
        ck_assert_msg(policy.off_policy_threshold == 0, "%s: an off-policy mask", name);
    }
    ck_assert_uint_gt(presets, 20);
}
END_TEST

/* ---- how large ---------------------------------------------------------------------- */

static _Atomic size_t largest;

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes)
{
    if (bytes > atomic_load(&largest))
        atomic_store(&largest, bytes);
    return __real_malloc(bytes);
}

/* The table of runs is a power of two: the worst is right above one. */
START_TEST(memory_of_runs_is_at_most_52_bytes_a_token)
{
    static int32_t tokens[70000];
    double most = 0, share;

    for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++)
        tokens[i] = (int32_t)(i * 2654435761u);
    for (size_t power = 1; power <= 65536; power *= 2)
        for (size_t count = power - power / 2; count <= power + 2; count += 1 + power / 4) {
            atomic_store(&largest, 0);
            assert_ok(gradreg_distinct_ngrams(&share, tokens, count, 1));
            const double bytes = (double)atomic_load(&largest) / (double)count;
            ck_assert_msg(bytes <= 52, "%zu tokens: %.1f bytes each", count, bytes);
            most = bytes > most ? bytes : most;
        }
    printf("distinct n-grams: up to %.1f bytes a token\n", most);
    ck_assert(most > 40); /* else malloc is not seen any more */
}
END_TEST

static uint64_t bytes_held(const gradreg_context *context)
{
    return info_of(context).bytes_held;
}

static uint64_t bytes_of_probe(gradreg_context *context, int32_t layers)
{
    gradreg_probe_params params = GRADREG_PROBE_PARAMS_INIT;
    gradreg_probe *probe = NULL;
    const uint64_t before = bytes_held(context);

    params.layer_count = layers;
    assert_ok(gradreg_probe_create(&probe, context, &params));
    const uint64_t bytes = bytes_held(context) - before;
    assert_ok(gradreg_probe_destroy(probe));
    ck_assert_uint_eq(bytes_held(context), before);
    return bytes;
}

START_TEST(a_probe_takes_128_bytes_a_layer_and_some_kilobytes)
{
    gradreg_context *context = NULL;

    assert_ok(gradreg_context_create(&context, NULL));
    const uint64_t one = bytes_of_probe(context, 1), many = bytes_of_probe(context, 1001);
    printf("probe: %llu bytes with one layer, %.1f for each more\n", (unsigned long long)one,
           (double)(many - one) / 1000);
    ck_assert_uint_eq(many - one, 1000 * 128);
    ck_assert_uint_lt(one, 64 * 1024);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("promises");
    TCase *core = tcase_create("core");

    tcase_set_timeout(core, 60);
    tcase_add_loop_test(core, creation_warns_of_settings_that_do_not_do_what_they_say, 0,
                        REMARKS);
    tcase_add_test(core, a_number_out_of_range_is_told_its_range);
    tcase_add_loop_test(core, a_step_asks_for_three_sums_and_a_fourth_with_noise, 0,
                        4 * LAST_STEP);
    tcase_add_test(core, a_null_step_shows_the_noise_of_the_passes_alone);
    tcase_add_test(core, rows_that_are_not_waited_for_are_the_report_in_its_order);
    tcase_add_test(core, no_preset_turns_on_what_is_a_runs_own);
    tcase_add_test(core, memory_of_runs_is_at_most_52_bytes_a_token);
    tcase_add_test(core, a_probe_takes_128_bytes_a_layer_and_some_kilobytes);
    suite_add_tcase(suite, core);
    suite_add_tcase(suite, promises_about_threads());
    return run_suite(suite);
}
