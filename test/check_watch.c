/* check_watch.c - what a step notices and says: master weights that are others, steps that the
 * weights did not follow, a framework that adds, gradients that are not finite; and a loss scale,
 * which changes nothing. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "numbers.h"
#include "rig.h"

enum { LAYERS = 2, SEGMENTS = 4 };

static const gradreg_segment table[SEGMENTS] = {
    { .offset = 0, .count = 500, .layer = 0, .role = GRADREG_ROLE_ATTENTION },
    { .offset = 500, .count = 150, .layer = 0, .role = GRADREG_ROLE_MLP },
    { .offset = 650, .count = 4100, .layer = 1, .role = GRADREG_ROLE_ATTENTION },
    { .offset = 4750, .count = 40, .layer = GRADREG_LAYER_NONE, .role = GRADREG_ROLE_HEAD },
};

static gradreg_regularizer_params plain_params(gradreg_type param, gradreg_type grad)
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.param_type = param;
    p.grad_type = grad;
    p.layer_count = LAYERS;
    p.schedule.first_layer = 0;
    p.schedule.full_layer = 1;
    p.epsilon = 0.25;
    p.strength = 0.5;
    p.clip_first = p.clip_second = 0;
    return p;
}

static rig *open_rig(const gradreg_regularizer_params *p, log_collector *log)
{
    const rig_setup setup = { .threads = 1, .log = log };
    rig *r = rig_open(table, SEGMENTS, p, &setup);

    rig_numbers(r, RIG_PARAMS, 5, -3);
    if (p->restore == GRADREG_RESTORE_MASTER)
        rig_make_master(r, 6);
    return r;
}

static void first(rig *r, uint64_t seed)
{
    rig_numbers(r, rig_first(r), seed, -1);
}

static void second(rig *r, uint64_t seed)
{
    rig_numbers(r, RIG_GRADS, seed, -1);
}

static size_t count_remarks(const log_collector *log, const char *word)
{
    size_t count = 0;

    for (size_t i = 0; i < log->count && i < LOG_KEPT; i++)
        count += strstr(log->message[i], word) != NULL;
    return count;
}

/* A backend whose numbers the host does not read says nothing. */
static void assert_remarks(const log_collector *log, const char *word, size_t count)
{
    if (!on_cuda())
        ck_assert_uint_eq(count_remarks(log, word), count);
}

/* ---- master weights --------------------------------------------------------------- */

static void spoil_master(rig *r)
{
    const gradreg_type type = r->params.param_type;
    const double x = typed_get(r->piece[RIG_PARAMS][2], type, 4000);
    typed_set(r->piece[RIG_MASTER][2], GRADREG_TYPE_F32, 4000, 1.5 * x);
}

enum way { PERTURB_FIRST, PERTURB_ASKED, INJECT_FIRST, INJECT_ASKED, WAYS };

/* A step through every call that could move or restore: params keep their bits. */
static void mismatched_step(rig *r, bool noisy, const char *theta)
{
    if (noisy) {
        assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
        rig_assert(r, RIG_PARAMS, theta, "params after inject");
        r->buffers.verify_master = 0;
    }
    first(r, 20);
    char *g1 = rig_gather(r, RIG_GRADS);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    rig_assert(r, RIG_PARAMS, theta, "params after perturb");
    r->buffers.verify_master = 0;
    second(r, 21);
    if (r->params.difference == GRADREG_DIFFERENCE_CENTRAL) {
        assert_ok(gradreg_regularizer_mirror(r->reg, &r->buffers));
        rig_assert(r, RIG_PARAMS, theta, "params after mirror");
        second(r, 22);
    }
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    rig_assert(r, RIG_PARAMS, theta, "params after combine");
    rig_assert(r, RIG_GRADS, g1, "g_hat: g1");
    ck_assert_uint_ne(rig_terms(r).flags & GRADREG_FLAG_MASTER_MISMATCH, 0);
    free(g1);
}

static void good_step(rig *r, bool noisy)
{
    if (noisy) {
        assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
        r->buffers.verify_master = 0;
    }
    first(r, 30);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    r->buffers.verify_master = 0;
    second(r, 31);
    if (r->params.difference == GRADREG_DIFFERENCE_CENTRAL)
        assert_ok(gradreg_regularizer_mirror(r->reg, &r->buffers));
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    ck_assert_uint_eq(rig_terms(r).flags & GRADREG_FLAG_MASTER_MISMATCH, 0);
    ck_assert_double_gt(rig_terms(r).perturbation_norm, 0.0);
}

/* A mismatch that is noticed never overwrites params, in the step where it is noticed and after, and is
 * said when it begins. */
START_TEST(params_that_are_not_the_masters_stay_as_they_are)
{
    const enum way way = (enum way)(_i % WAYS);
    const bool noisy = way >= INJECT_FIRST, asked = way % 2 == 1;
    gradreg_regularizer_params p =
        plain_params(all_types[_i / WAYS % LAST_TYPE], GRADREG_TYPE_F32);
    log_collector log = { 0 };

    p.restore = GRADREG_RESTORE_MASTER;
    p.difference =
        _i / WAYS / LAST_TYPE == 0 ? GRADREG_DIFFERENCE_FORWARD : GRADREG_DIFFERENCE_CENTRAL;
    p.noise.rule = noisy ? GRADREG_NOISE_NEFTUNE : GRADREG_NOISE_OFF;
    p.noise.first_layer = p.noise.last_layer = 0;
    rig *r = open_rig(&p, &log);
    if (asked)
        good_step(r, false); /* also leaves a direction for the noise */
    char *theta = rig_gather(r, RIG_PARAMS);
    spoil_master(r);
    r->buffers.verify_master = asked;
    mismatched_step(r, noisy, theta);
    mismatched_step(r, noisy, theta); /* not asked again, and not forgotten */
    rig_make_master(r, 6);
    r->buffers.verify_master = on_cuda(); /* elsewhere seen to be right by itself */
    good_step(r, noisy);
    rig_assert(r, RIG_PARAMS, theta, "params after a good step");
    good_step(r, noisy);
    rig_assert(r, RIG_PARAMS, theta, "params after another");
    assert_remarks(&log, "round(master_params)", 1);
    spoil_master(r);
    r->buffers.verify_master = 1;
    mismatched_step(r, noisy, theta);
    assert_remarks(&log, "round(master_params)", 2);
    free(theta);
    rig_close(r);
}
END_TEST

/* -0 is not +0, and a NaN is its payload. */
START_TEST(master_weights_are_compared_bit_for_bit)
{
    static const uint32_t patterns[][2] = { { 0x00000000u, 0x80000000u },
                                            { 0x7fc00001u, 0x7fc00002u },
                                            { 0x3f800000u, 0x3f800001u } };
    gradreg_regularizer_params p = plain_params(GRADREG_TYPE_F32, GRADREG_TYPE_F32);

    p.restore = GRADREG_RESTORE_MASTER;
    for (int same = 0; same < 2; same++) {
        rig *r = open_rig(&p, NULL);
        typed_set_bits(r->piece[RIG_PARAMS][1], GRADREG_TYPE_F32, 9, patterns[_i][0]);
        typed_set_bits(r->piece[RIG_MASTER][1], GRADREG_TYPE_F32, 9, patterns[_i][!same]);
        char *theta = rig_gather(r, RIG_PARAMS);
        first(r, 1);
        assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
        second(r, 2);
        assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
        rig_assert(r, RIG_PARAMS, theta, "params");
        ck_assert_uint_eq(rig_terms(r).flags & GRADREG_FLAG_MASTER_MISMATCH,
                          same ? 0 : GRADREG_FLAG_MASTER_MISMATCH);
        free(theta);
        rig_close(r);
    }
}
END_TEST

/* ---- fidelity --------------------------------------------------------------------- */

/* A step of a thousandth of the weights does not reach bf16. */
START_TEST(dropped_corrections_are_flagged_and_logged_rarely)
{
    gradreg_regularizer_params p = plain_params(GRADREG_TYPE_BF16, GRADREG_TYPE_F32);
    log_collector log = { 0 };

    p.epsilon = 1e-5;
    p.min_fidelity = 0.9;
    rig *r = open_rig(&p, &log);
    const size_t before = log.count;
    for (int k = 1; k <= 205; k++) {
        first(r, (uint64_t)k);
        char *g1 = rig_gather(r, RIG_GRADS);
        assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
        second(r, 1000);
        assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
        rig_assert(r, RIG_GRADS, g1, "g_hat of a dropped correction");
        ck_assert_uint_eq(rig_terms(r).flags, GRADREG_FLAG_DROPPED);
        if (!on_cuda()) /* where the host does not know */
            ck_assert_uint_eq(log.count - before, k < 100 ? 1 : k < 200 ? 2 : 3);
        free(g1);
    }
    if (!on_cuda()) {
        ck_assert_uint_eq(count_remarks(&log, "min_fidelity"), 3);
        ck_assert(log_has(&log, "200"));
    }
    assert_ok(gradreg_regularizer_set_epsilon(r->reg, 1.0)); /* now it does */
    first(r, 1);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    second(r, 2);
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    ck_assert_uint_eq(rig_terms(r).flags, 0);
    ck_assert_double_ge(rig_terms(r).applied_cosine, 0.9);
    ck_assert_double_gt(rig_terms(r).correction_share, 0.01);
    rig_close(r);
}
END_TEST

/* Without min_fidelity such a step is used. */
START_TEST(a_step_that_does_not_arrive_is_said_once)
{
    const bool arrives = _i == 1;
    gradreg_regularizer_params p = plain_params(GRADREG_TYPE_BF16, GRADREG_TYPE_F32);
    log_collector log = { 0 };

    p.epsilon = arrives ? 1.0 : 1e-5;
    rig *r = open_rig(&p, &log);
    for (uint64_t k = 1; k <= 3; k++) {
        first(r, k);
        assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
        second(r, 1000);
        assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
        ck_assert_int_eq(rig_terms(r).applied_cosine >= 0.5, arrives);
        assert_remarks(&log, "suggest_epsilon", arrives ? 0 : 1);
    }
    rig_close(r);
}
END_TEST

/* CENTRAL: the worse of both steps decides. Rounded to nearest, theta + delta and theta - delta
 * differ where theta is a power of two. */
START_TEST(a_central_step_is_as_good_as_its_worse_half)
{
    gradreg_regularizer_params p = plain_params(GRADREG_TYPE_BF16, GRADREG_TYPE_F32);
    double cosine[3];

    p.difference = GRADREG_DIFFERENCE_CENTRAL;
    p.epsilon = 1.0;
    for (int k = 0; k < 3; k++) {
        p.min_fidelity = k == 0 ? 0 : k == 1 ? nextafter(cosine[0], 2) : cosine[0];
        rig *r = open_rig(&p, NULL);
        for (size_t s = 0; s < SEGMENTS; s++)
            for (size_t i = 0; i < table[s].count; i++)
                typed_set(r->piece[RIG_PARAMS][s], GRADREG_TYPE_BF16, i, 1.0);
        for (size_t s = 0; s < SEGMENTS; s++)
            for (size_t i = 0; i < table[s].count; i++)
                typed_set(r->piece[RIG_GRADS][s], GRADREG_TYPE_F32, i,
                          0x1p-9 * (1 + (double)(i % 7)));
        assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
        second(r, 2);
        assert_ok(gradreg_regularizer_mirror(r->reg, &r->buffers));
        second(r, 3);
        assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
        cosine[k] = rig_terms(r).applied_cosine;
        ck_assert_uint_eq(rig_terms(r).flags, k == 1 ? GRADREG_FLAG_DROPPED : 0);
        rig_close(r);
    }
    ck_assert_double_lt(cosine[0], 1.0);
    ck_assert_double_eq(cosine[0], cosine[2]);
}
END_TEST

/* ---- a framework that adds -------------------------------------------------------- */

/* grads := grads + what this pass would have overwritten them with. */
static void add_pass(rig *r, uint64_t seed)
{
    for (size_t s = 0; s < SEGMENTS; s++) {
        double *before = calloc(table[s].count, sizeof(double));
        for (size_t i = 0; i < table[s].count; i++)
            before[i] = typed_get(r->piece[RIG_GRADS][s], r->params.grad_type, i);
        uint64_t state = seed + s;
        for (size_t i = 0; i < table[s].count; i++) {
            const double g = sin((double)i + (double)s) + next_signed(&state, 0.05);
            typed_set(r->piece[RIG_GRADS][s], r->params.grad_type, i, before[i] + g);
        }
        free(before);
    }
}

static void zero_grads(rig *r)
{
    for (size_t s = 0; s < SEGMENTS; s++)
        memset(r->piece[RIG_GRADS][s], 0, table[s].count * type_bytes(r->params.grad_type));
}

static void adding_step(rig *r, bool overwrites)
{
    zero_grads(r);
    add_pass(r, 10);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    if (overwrites)
        zero_grads(r);
    add_pass(r, 20);
    if (r->params.difference == GRADREG_DIFFERENCE_CENTRAL) {
        assert_ok(gradreg_regularizer_mirror(r->reg, &r->buffers));
        if (overwrites)
            zero_grads(r);
        add_pass(r, 30);
    }
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
}

START_TEST(an_adding_backward_pass_is_noticed_on_the_first_step)
{
    gradreg_regularizer_params p = plain_params(GRADREG_TYPE_F32, GRADREG_TYPE_F32);
    const bool adds = _i % 2 == 1;
    log_collector log = { 0 };

    p.difference = _i / 2 == 0 ? GRADREG_DIFFERENCE_FORWARD : GRADREG_DIFFERENCE_CENTRAL;
    p.epsilon = 1e-4;
    rig *r = open_rig(&p, &log);
    adding_step(r, !adds);
    assert_remarks(&log, "GRADREG_SECOND_GRADIENT_ADDS", adds ? 1 : 0);
    adding_step(r, false);
    adding_step(r, true);
    assert_remarks(&log, "GRADREG_SECOND_GRADIENT_ADDS", adds ? 1 : 0);
    rig_close(r);
}
END_TEST

START_TEST(a_declared_adding_pass_is_right_and_silent)
{
    gradreg_regularizer_params p = plain_params(GRADREG_TYPE_F32, GRADREG_TYPE_F32);
    log_collector log = { 0 };
    char *g_hat = NULL;

    for (int adds = 0; adds < 2; adds++) {
        p.second_gradient =
            adds ? GRADREG_SECOND_GRADIENT_ADDS : GRADREG_SECOND_GRADIENT_OVERWRITES;
        rig *r = open_rig(&p, &log);
        adding_step(r, !adds);
        if (!adds)
            g_hat = rig_gather(r, RIG_GRADS);
        rig_assert(r, RIG_GRADS, g_hat, "g_hat");
        ck_assert_uint_eq(count_remarks(&log, "ADDS"), 0);
        rig_close(r);
    }
    free(g_hat);
}
END_TEST

/* ---- not finite ------------------------------------------------------------------- */

enum { NO_PASS = -1 };

/* Which calls have set found_inf, as bits: perturb, mirror, the ending. */
static int found_after(rig *r, int bad_pass, bool falls_back, double bad)
{
    float found = 0.0f;
    int seen = 0;

    r->buffers.found_inf = &found;
    first(r, 40);
    if (bad_pass == 0)
        typed_set(r->piece[rig_first(r)][3], r->params.grad_type, 7, bad);
    const int32_t passes = rig_passes(r);
    for (int32_t pass = 0; pass < passes; pass++) {
        assert_ok(pass == 0 ? gradreg_regularizer_perturb(r->reg, &r->buffers)
                            : gradreg_regularizer_mirror(r->reg, &r->buffers));
        seen |= found == 1.0f ? 1 << pass : 0;
        second(r, 41 + (uint64_t)pass);
        if (bad_pass == pass + 1)
            typed_set(r->piece[RIG_GRADS][0], r->params.grad_type, 499, bad);
    }
    assert_ok(falls_back ? gradreg_regularizer_fallback(r->reg, &r->buffers)
                         : gradreg_regularizer_combine(r->reg, &r->buffers));
    ck_assert(found == 0.0f || found == 1.0f);
    r->buffers.found_inf = NULL;
    return seen | (found == 1.0f ? 4 : 0);
}

START_TEST(found_inf_is_set_when_it_is_known_and_never_cleared)
{
    static const double bad[] = { (double)NAN, (double)INFINITY, -(double)INFINITY };
    gradreg_regularizer_params p = plain_params(GRADREG_TYPE_BF16, GRADREG_TYPE_BF16);

    p.difference = _i / 3 % 2 == 0 ? GRADREG_DIFFERENCE_FORWARD : GRADREG_DIFFERENCE_CENTRAL;
    p.interval = _i / 6 + 1;
    const int mirror = p.difference == GRADREG_DIFFERENCE_CENTRAL ? 2 : 0;
    const double x = bad[_i % 3];
    rig *r = open_rig(&p, NULL);
    ck_assert_int_eq(found_after(r, NO_PASS, false, x), 0);
    if (p.interval == 2) {
        ck_assert_int_eq(found_after(r, 0, false, x), 4); /* a step that reuses */
        ck_assert_uint_eq(rig_terms(r).flags, GRADREG_FLAG_NON_FINITE_FIRST);
        rig_close(r);
        return;
    }
    ck_assert_int_eq(found_after(r, 0, false, x), 1 | mirror | 4);
    ck_assert_uint_eq(rig_terms(r).flags & GRADREG_FLAG_NON_FINITE_FIRST,
                      GRADREG_FLAG_NON_FINITE_FIRST);
    ck_assert_uint_eq(rig_terms(r).non_finite_first, 1);
    ck_assert_int_eq(found_after(r, 1, false, x), 4);
    ck_assert_uint_eq(rig_terms(r).flags, GRADREG_FLAG_NON_FINITE_SECOND);
    ck_assert_uint_eq(rig_terms(r).non_finite_second, 1);
    ck_assert_int_eq(found_after(r, 0, true, x), 1 | mirror | 4);
    ck_assert_int_eq(found_after(r, NO_PASS, true, x), 0);
    float found = 1.0f;
    r->buffers.found_inf = &found;
    first(r, 50);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    assert_ok(gradreg_regularizer_fallback(r->reg, &r->buffers));
    ck_assert(found == 1.0f);
    rig_close(r);
}
END_TEST

/* ---- a loss scale ----------------------------------------------------------------- */

static void scale_buffer(rig *r, enum rig_buffer buffer, float scale)
{
    for (size_t s = 0; s < SEGMENTS; s++)
        for (size_t i = 0; i < table[s].count; i++) {
            const double x = typed_get(r->piece[buffer][s], r->params.grad_type, i);
            typed_set(r->piece[buffer][s], r->params.grad_type, i, (double)scale * x);
        }
}

static gradreg_regularizer_params scaled_params(int i)
{
    gradreg_regularizer_params p =
        plain_params(GRADREG_TYPE_BF16, i % 2 == 0 ? GRADREG_TYPE_F32 : GRADREG_TYPE_BF16);

    p.step = GRADREG_STEP_RAW + i % LAST_STEP;
    p.difference = i / 3 % 2 == 0 ? GRADREG_DIFFERENCE_FORWARD : GRADREG_DIFFERENCE_CENTRAL;
    p.penalty = i / 2 % 2 == 0 ? GRADREG_PENALTY_SQUARED_NORM : GRADREG_PENALTY_NORM;
    p.depth = i / 4 % 2 == 0 ? GRADREG_DEPTH_ON_UPDATE : GRADREG_DEPTH_ON_PENALTY;
    p.direction = i == 9 ? GRADREG_DIRECTION_GAUSSIAN : GRADREG_DIRECTION_GRADIENT;
    p.output = i == 10 ? GRADREG_OUTPUT_PRODUCT : GRADREG_OUTPUT_REGULARIZED;
    p.step = i == 10 ? GRADREG_STEP_NORMALIZED : p.step;
    p.interval = i == 11 ? 2 : 1;
    p.clip_first = p.clip_second = i % 4 == 1 ? 2.0 : 0;
    if (i % 5 == 3)
        p.noise.rule = GRADREG_NOISE_NEFTUNE, p.noise.last_layer = p.noise.first_layer = 0;
    return p;
}

/* g_hat out of one step whose gradients carry the scale; the scale taken out again. */
static void scaled_step(rig *r, float scale, uint64_t seed)
{
    if (r->params.noise.rule > GRADREG_NOISE_OFF)
        assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    first(r, seed);
    scale_buffer(r, rig_first(r), scale);
    const int32_t passes = rig_passes(r);
    for (int32_t pass = 0; pass < passes; pass++) {
        assert_ok(pass == 0 ? gradreg_regularizer_perturb(r->reg, &r->buffers)
                            : gradreg_regularizer_mirror(r->reg, &r->buffers));
        second(r, seed + 1 + (uint64_t)pass);
        scale_buffer(r, RIG_GRADS, scale);
    }
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    scale_buffer(r, RIG_GRADS, 1.0f / scale);
}

/* By a power of two nothing rounds differently: the same bits, in the terms too. */
START_TEST(a_loss_scale_of_a_power_of_two_changes_no_bit)
{
    static const float scales[] = { 1024.0f, 0.0078125f, 65536.0f };
    const gradreg_regularizer_params p = scaled_params(_i);

    for (int k = 0; k < 3; k++) {
        rig *plain = open_rig(&p, NULL), *scaled = open_rig(&p, NULL);
        scaled->buffers.grad_scale = &scales[k];
        for (uint64_t step = 0; step < 3; step++) {
            scaled_step(plain, 1.0f, 10 * step);
            scaled_step(scaled, scales[k], 10 * step);
            char *g_hat = rig_gather(plain, RIG_GRADS);
            rig_assert(scaled, RIG_GRADS, g_hat, "g_hat with a loss scale");
            double *rows = rig_rows(plain), *others = rig_rows(scaled);
            for (size_t i = 0; i < rig_rows_bytes(plain) / sizeof(double); i++)
                if (double_bits(rows[i]) != double_bits(others[i]) &&
                    !(isnan(rows[i]) && isnan(others[i])))
                    ck_abort_msg("scale %g: row %zu, column %zu: %a and %a", (double)scales[k],
                                 i / GRADREG_TERMS_COLUMNS, i % GRADREG_TERMS_COLUMNS, rows[i],
                                 others[i]);
            free(others);
            free(rows);
            free(g_hat);
        }
        rig_close(plain);
        rig_close(scaled);
    }
}
END_TEST

START_TEST(a_loss_scale_that_is_no_scale_makes_the_step_unusable)
{
    static const float scales[] = { 0.0f, INFINITY, NAN };
    const gradreg_regularizer_params p = plain_params(GRADREG_TYPE_F32, GRADREG_TYPE_F32);
    rig *r = open_rig(&p, NULL);
    char *theta = rig_gather(r, RIG_PARAMS);

    r->buffers.grad_scale = &scales[_i];
    first(r, 1);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    rig_assert(r, RIG_PARAMS, theta, "theta");
    second(r, 2);
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    rig_assert(r, RIG_PARAMS, theta, "theta");
    ck_assert_uint_ne(rig_terms(r).flags & GRADREG_FLAG_NON_FINITE_FIRST, 0);
    for (size_t i = 0; i < table[0].count; i++)
        ck_assert(typed_bits(r->piece[RIG_GRADS][0], GRADREG_TYPE_F32, i) == 0);
    free(theta);
    rig_close(r);
}
END_TEST

/* ---- gradients of 16 bits ---------------------------------------------------------- */

static double next_gaussian(uint64_t *state)
{
    double sum = -6;

    for (int i = 0; i < 12; i++)
        sum += next_unit(state);
    return sum;
}

/* g1 normally distributed, g2 beside it by a tenth. */
static gradreg_terms stored_step(double strength)
{
    gradreg_regularizer_params p = plain_params(GRADREG_TYPE_BF16, GRADREG_TYPE_BF16);
    uint64_t state = 7;

    p.schedule.full_layer = 0; /* all layers evenly */
    p.strength = strength;
    rig *r = open_rig(&p, NULL);
    for (int pass = 0; pass < 2; pass++) {
        for (int s = 0; s < SEGMENTS; s++)
            for (size_t i = 0; i < table[s].count; i++) {
                const double g1 = pass ? typed_get(r->piece[RIG_GRADS][s], p.grad_type, i) : 0;
                typed_set(r->piece[RIG_GRADS][s], p.grad_type, i,
                          g1 + (pass ? 0.1 : 1) * next_gaussian(&state));
            }
        assert_ok(pass ? gradreg_regularizer_combine(r->reg, &r->buffers)
                       : gradreg_regularizer_perturb(r->reg, &r->buffers));
    }
    const gradreg_terms terms = rig_terms(r);
    rig_close(r);
    return terms;
}

/* As docs/numerics.md says. */
START_TEST(a_bf16_gradient_keeps_nine_tenths_of_3e_3_and_half_of_1e_3)
{
    static const double size[] = { 3e-3, 1e-3 }, kept[] = { 0.93, 0.52 };
    const double at = 1e-3, share = stored_step(at).correction_share;

    for (int i = 0; i < 2; i++) {
        const gradreg_terms terms = stored_step(at * size[i] / share);
        ck_assert_double_eq_tol(terms.correction_share, size[i], 0.02 * size[i]);
        ck_assert_double_eq_tol(terms.stored_share, kept[i], 0.06);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("watch");
    TCase *tcase = tcase_create("watch");

    tcase_set_timeout(tcase, 60); /* hundreds of steps, perhaps in an emulated device */
    add_loop_test(tcase, params_that_are_not_the_masters_stay_as_they_are, 0,
                  WAYS * LAST_TYPE * 2);
    add_loop_test(tcase, master_weights_are_compared_bit_for_bit, 0, 3);
    tcase_add_test(tcase, dropped_corrections_are_flagged_and_logged_rarely);
    tcase_add_loop_test(tcase, a_step_that_does_not_arrive_is_said_once, 0, 2);
    tcase_add_test(tcase, a_central_step_is_as_good_as_its_worse_half);
    add_loop_test(tcase, an_adding_backward_pass_is_noticed_on_the_first_step, 0, 4);
    tcase_add_test(tcase, a_declared_adding_pass_is_right_and_silent);
    add_loop_test(tcase, found_inf_is_set_when_it_is_known_and_never_cleared, 0, 9);
    add_loop_test(tcase, a_loss_scale_of_a_power_of_two_changes_no_bit, 0, 12);
    add_loop_test(tcase, a_loss_scale_that_is_no_scale_makes_the_step_unusable, 0, 3);
    tcase_add_test(tcase, a_bf16_gradient_keeps_nine_tenths_of_3e_3_and_half_of_1e_3);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
