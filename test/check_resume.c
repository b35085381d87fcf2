/* check_resume.c - stop anywhere, go on elsewhere: a run of twelve steps with everything on gives
 * the same bits to its end from every saved state, and what is no such state is refused whole. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"

enum { LAYERS = 4, SEGMENTS = 7, STEPS = 12, VARIANTS = 8 };

/* With gaps between them. */
static const gradreg_segment table[SEGMENTS] = {
    { .offset = 0, .count = 131, .layer = 0, .role = GRADREG_ROLE_ATTENTION },
    { .offset = 131, .count = 64, .layer = 1, .role = GRADREG_ROLE_MLP },
    { .offset = 196, .count = 33, .layer = 1, .role = GRADREG_ROLE_ATTENTION },
    { .offset = 231, .count = 5, .layer = 2, .role = GRADREG_ROLE_NORM },
    { .offset = 239, .count = 130, .layer = 3, .role = GRADREG_ROLE_MLP },
    { .offset = 373, .count = 40, .layer = GRADREG_LAYER_NONE, .role = GRADREG_ROLE_EMBEDDING },
    { .offset = 418, .count = 12, .layer = 3, .role = GRADREG_ROLE_ATTENTION },
};

/* ---- a run with everything on ----------------------------------------------------- */

static gradreg_regularizer_params run_params(int variant)
{
    static const gradreg_type params[] = { GRADREG_TYPE_F32, GRADREG_TYPE_BF16,
                                           GRADREG_TYPE_F16, GRADREG_TYPE_F32 };
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.param_type = params[variant % 4];
    p.grad_type = variant == 1 ? GRADREG_TYPE_BF16 : GRADREG_TYPE_F32;
    p.layer_count = LAYERS;
    p.schedule.first_layer = 1;
    p.schedule.full_layer = 3;
    p.difference = variant % 2 == 0 ? GRADREG_DIFFERENCE_FORWARD : GRADREG_DIFFERENCE_CENTRAL;
    p.step = GRADREG_STEP_RAW + variant % LAST_STEP;
    p.penalty = GRADREG_PENALTY_SQUARED_NORM + variant / 2 % 2;
    p.depth = variant / 4 == 0 ? GRADREG_DEPTH_ON_UPDATE : GRADREG_DEPTH_ON_PENALTY;
    p.direction = variant == 2   ? GRADREG_DIRECTION_RADEMACHER
                  : variant == 5 ? GRADREG_DIRECTION_GAUSSIAN
                                 : GRADREG_DIRECTION_GRADIENT;
    p.rounding = GRADREG_ROUNDING_STOCHASTIC;
    p.seed = 123;
    p.epsilon = 0.05;
    p.strength = 0.2;
    p.clip_first = p.clip_second = 1.0;
    p.common_clip = variant % 3 == 1;
    p.interval = 3;
    p.min_fidelity = 0.3;
    p.warmup = GRADREG_WARMUP_LINEAR;
    p.warmup_steps = 4;
    p.decay = GRADREG_DECAY_COSINE;
    p.decay_steps = 6;
    p.strength_end = 0.25;
    p.adaptive.a_min = 0.5;
    p.adaptive.a_max = 1.5;
    p.adaptive.power = 0.7;
    p.noise.rule = variant == 3 || variant == 7 ? GRADREG_NOISE_STEP
                   : variant % 2 == 0           ? GRADREG_NOISE_RELATIVE
                                                : GRADREG_NOISE_NEFTUNE;
    p.noise.first_layer = 1; /* where delta is not 0 ON_PENALTY, as STEP wants */
    p.noise.last_layer = 3;
    if (p.noise.rule == GRADREG_NOISE_STEP) {
        p.noise.roles = GRADREG_ROLE_ATTENTION;
        p.direction = GRADREG_DIRECTION_GRADIENT;
    }
    return p;
}

/* Theta moves on as an optimizer would move it. */
static void optimizer_step(rig *r)
{
    for (size_t s = 0; s < SEGMENTS; s++)
        for (size_t i = 0; i < table[s].count; i++) {
            const double g = typed_get(r->piece[RIG_GRADS][s], rig_type(r, RIG_GRADS, s), i);
            const double x = typed_get(r->piece[RIG_PARAMS][s], r->params.param_type, i);
            typed_set(r->piece[RIG_PARAMS][s], r->params.param_type, i, x - 0.05 * g);
        }
}

static void before_step(rig *r, int step)
{
    double signals[LAYERS];

    for (int l = 0; l < LAYERS; l++)
        signals[l] = 1.0 + (step * 7 + l * 3) % 5;
    if (step % 2 == 0)
        assert_ok(gradreg_regularizer_observe_layers(r->reg, signals, LAYERS));
    if (step == 5)
        assert_ok(gradreg_regularizer_set_strength(r->reg, 0.3));
    if (step == 7)
        assert_ok(gradreg_regularizer_set_epsilon(r->reg, 0.04));
    if (step == 8)
        assert_ok(gradreg_regularizer_set_step(r->reg, 6));
}

/* A cancelled attempt, a fallback and an unusable gradient are part of the run. */
static void one_step(rig *r, int step)
{
    const uint64_t seed = 10 * (uint64_t)step;

    before_step(r, step);
    if (step % 4 != 3)
        assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    for (int attempt = step == 3 ? 0 : 1; attempt < 2; attempt++) {
        const int32_t passes = rig_passes(r);
        rig_gradient(r, seed, true);
        for (int32_t pass = 0; pass < passes; pass++) {
            assert_ok(pass == 0 ? gradreg_regularizer_perturb(r->reg, &r->buffers)
                                : gradreg_regularizer_mirror(r->reg, &r->buffers));
            rig_gradient(r, seed + 1 + (uint64_t)pass, false);
        }
        if (attempt == 0)
            assert_ok(gradreg_regularizer_cancel(r->reg, &r->buffers));
    }
    const bool falls_back = step == 6 && rig_passes(r) > 0;
    if (falls_back)
        assert_ok(gradreg_regularizer_fallback(r->reg, &r->buffers));
    if (step == 10)
        typed_set(r->piece[RIG_GRADS][1], r->params.grad_type, 3, (double)NAN);
    if (!falls_back)
        assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
}

/* ---- the record of a run ---------------------------------------------------------- */

struct record {
    char *state[STEPS + 1], *theta[STEPS + 1]; /* before each step, and at the end */
    uint64_t g_hat[STEPS];
    double *rows[STEPS];
    size_t state_bytes;
    uint32_t flags; /* of all steps together */
};

static char *save(rig *r, size_t *bytes)
{
    assert_ok(gradreg_regularizer_state_bytes(r->reg, bytes));
    char *state = guarded_new(*bytes, 1); /* any alignment will do */
    assert_ok(gradreg_regularizer_state_save(r->reg, state, *bytes));
    guarded_check(state);
    return state;
}

static void set_theta(rig *r, const char *theta)
{
    for (size_t s = 0; s < SEGMENTS; s++) {
        const size_t bytes = table[s].count * type_bytes(r->params.param_type);
        memcpy(r->piece[RIG_PARAMS][s], theta, bytes);
        theta += bytes;
    }
}

static struct record *record_run(const gradreg_regularizer_params *p)
{
    const rig_setup setup = { .threads = 1 };
    struct record *record = calloc(1, sizeof(*record));
    rig *r = rig_open(table, SEGMENTS, p, &setup);

    ck_assert_ptr_nonnull(record);
    rig_numbers(r, RIG_PARAMS, 5, -2);
    for (int step = 0; step < STEPS; step++) {
        record->state[step] = save(r, &record->state_bytes);
        record->theta[step] = rig_gather(r, RIG_PARAMS);
        one_step(r, step);
        rig_assert(r, RIG_PARAMS, record->theta[step], "theta");
        record->g_hat[step] = rig_digest(r, RIG_GRADS);
        record->rows[step] = rig_rows(r);
        record->flags |= rig_terms(r).flags;
        optimizer_step(r);
    }
    record->state[STEPS] = save(r, &record->state_bytes);
    record->theta[STEPS] = rig_gather(r, RIG_PARAMS);
    rig_close(r);
    return record;
}

static void free_record(struct record *record)
{
    for (int step = 0; step <= STEPS; step++) {
        guarded_free(record->state[step]);
        free(record->theta[step]);
        if (step < STEPS)
            free(record->rows[step]);
    }
    free(record);
}

/* From the state before `from` to the end. */
static void go_on(rig *r, const struct record *record, int from)
{
    for (int step = from; step < STEPS; step++) {
        one_step(r, step);
        if (rig_digest(r, RIG_GRADS) != record->g_hat[step])
            ck_abort_msg("stopped before step %d: another g_hat in step %d", from, step);
        double *rows = rig_rows(r);
        if (memcmp(rows, record->rows[step], rig_rows_bytes(r)) != 0)
            ck_abort_msg("stopped before step %d: other terms in step %d", from, step);
        free(rows);
        optimizer_step(r);
        rig_assert(r, RIG_PARAMS, record->theta[step + 1], "theta after the optimizer");
    }
    size_t bytes;
    char *state = save(r, &bytes);
    ck_assert_int_eq(memcmp(state, record->state[STEPS], bytes), 0);
    guarded_free(state);
}

static void load(rig *r, const struct record *record, int step)
{
    size_t bytes;

    set_theta(r, record->theta[step]);
    assert_ok(gradreg_regularizer_state_bytes(r->reg, &bytes));
    ck_assert_uint_eq(bytes, record->state_bytes);
    assert_ok(gradreg_regularizer_state_load(r->reg, record->state[step], bytes));
    ck_assert(isnan(rig_terms(r).first_norm));
    ck_assert_uint_eq(rig_terms(r).flags, 0);
}

START_TEST(every_stop_resumes_with_the_same_bits)
{
    const gradreg_regularizer_params p = run_params(_i);
    struct record *record = record_run(&p);

    for (int stop = 0; stop <= STEPS; stop++) {
        /* Another process: other threads, another layout, a new context. */
        const rig_setup setup = { .threads = 1 + stop % 3,
                                  .scattered = stop % 2 == 1,
                                  .misalignment = (size_t)stop % 4 };
        rig *r = rig_open(table, SEGMENTS, &p, &setup);
        load(r, record, stop);
        go_on(r, record, stop);
        rig_close(r);
    }
    ck_assert_uint_ne(record->flags & GRADREG_FLAG_NON_FINITE_FIRST, 0);
    free_record(record);
}
END_TEST

/* A handle that has a past of its own, at rest at any point, forgets it. */
START_TEST(a_used_handle_resumes_like_a_new_one)
{
    const gradreg_regularizer_params p = run_params(_i);
    struct record *record = record_run(&p);
    const rig_setup setup = { .threads = 1 };
    rig *r = rig_open(table, SEGMENTS, &p, &setup);

    rig_numbers(r, RIG_PARAMS, 77, -2);
    for (int k = 0; k < 5; k++) {
        for (int step = 0; step <= k; step++)
            one_step(r, step + 2);
        load(r, record, (k * 5) % STEPS);
        go_on(r, record, (k * 5) % STEPS);
    }
    free_record(record);
    rig_close(r);
}
END_TEST

START_TEST(saving_changes_nothing)
{
    const gradreg_regularizer_params p = run_params(_i);
    struct record *record = record_run(&p); /* which saves before every step */
    const rig_setup setup = { .threads = 1 };
    rig *r = rig_open(table, SEGMENTS, &p, &setup);

    set_theta(r, record->theta[0]);
    go_on(r, record, 0); /* and this does not */
    free_record(record);
    rig_close(r);
}
END_TEST

/* ---- what is no state of this handle ---------------------------------------------- */

struct before {
    char *state;
    double *rows;
    size_t bytes;
};

static struct before look(rig *r)
{
    struct before b = { NULL, rig_rows(r), 0 };
    b.state = save(r, &b.bytes);
    return b;
}

static void assert_refused(rig *r, const struct before *b, const void *state, size_t bytes,
                           const char *what, size_t at)
{
    make_sentence_stale();
    const gradreg_status status = gradreg_regularizer_state_load(r->reg, state, bytes);
    if (status != GRADREG_ERROR_INVALID_ARGUMENT)
        ck_abort_msg("%s at %zu: %s", what, at, gradreg_status_name(status));
    check_sentence(__FILE__, __LINE__, "gradreg_regularizer_state_load(",
                   (const char *[]){ NULL });
    struct before now = look(r);
    if (now.bytes != b->bytes || memcmp(now.state, b->state, now.bytes) != 0 ||
        memcmp(now.rows, b->rows, rig_rows_bytes(r)) != 0)
        ck_abort_msg("%s at %zu: the handle has changed", what, at);
    guarded_free(now.state);
    free(now.rows);
}

static void forget(struct before *b)
{
    guarded_free(b->state);
    free(b->rows);
}

START_TEST(a_state_with_any_byte_changed_is_refused)
{
    const gradreg_regularizer_params p = run_params(_i);
    struct record *record = record_run(&p);
    const rig_setup setup = { .threads = 1 };
    const size_t bytes = record->state_bytes, stride = rig_is_small() ? 17 : 1;
    rig *r = rig_open(table, SEGMENTS, &p, &setup);
    char *state = malloc(bytes + 1);

    ck_assert_ptr_nonnull(state);
    load(r, record, 9);
    one_step(r, 9);
    struct before b = look(r);
    memcpy(state, record->state[4], bytes);
    state[bytes] = 0;
    for (size_t at = 0; at < bytes; at += at < 100 ? 1 : stride) {
        for (int bit = 0; bit < 8; bit += at < 100 ? 1 : 7) {
            state[at] = (char)(state[at] ^ (1 << bit));
            assert_refused(r, &b, state, bytes, "a flipped bit", at);
            state[at] = (char)(state[at] ^ (1 << bit));
        }
    }
    for (size_t at = 200; at + 16 < bytes; at += 61 * stride) { /* two words change places */
        char word[8];
        memcpy(word, state + at, 8);
        memmove(state + at, state + at + 8, 8);
        memcpy(state + at + 8, word, 8);
        if (memcmp(state, record->state[4], bytes) != 0)
            assert_refused(r, &b, state, bytes, "swapped words", at);
        memcpy(state, record->state[4], bytes);
    }
    assert_refused(r, &b, state, bytes - 1, "a byte less", 0);
    assert_refused(r, &b, state, bytes + 1, "a byte more", 0);
    assert_refused(r, &b, state, 0, "nothing", 0);
    forget(&b);
    load(r, record, 4); /* the untouched one is taken */
    free(state);
    free_record(record);
    rig_close(r);
}
END_TEST

/* Whatever shapes a state must be the same. */
static void change(int what, gradreg_segment *segments, gradreg_regularizer_params *p)
{
    switch (what) {
    case 0: segments[4].count--; break;
    case 1: segments[6].offset++; break;
    case 2: segments[1].role = GRADREG_ROLE_NORM; break;
    case 3: segments[3].layer = 1; break;
    case 4: segments[5].flags = GRADREG_SEGMENT_FROZEN; break;
    case 5: p->layer_count++; break;
    case 6: p->interval = 4; break;
    case 7: p->noise.rule = GRADREG_NOISE_NEFTUNE; break;
    case 8: p->noise.last_layer = 2; break;
    case 9: p->adaptive.a_max = 0; break;
    case 10: p->grad_type = GRADREG_TYPE_BF16; break;
    case 11: p->param_type = GRADREG_TYPE_F32; break;
    case 12: p->noise.rule = GRADREG_NOISE_OFF; break;
    default: p->regularized_roles = GRADREG_ROLE_MLP; break;
    }
}
enum { CHANGES = 14 };

START_TEST(a_state_of_another_table_or_of_other_parameters_is_refused)
{
    gradreg_regularizer_params p = run_params(4), other = p;
    const rig_setup setup = { .threads = 1, .scattered = true };
    gradreg_segment segments[SEGMENTS];
    size_t bytes;

    p.param_type = other.param_type = GRADREG_TYPE_BF16;
    memcpy(segments, table, sizeof(segments));
    change(_i, segments, &other);
    rig *r = rig_open(table, SEGMENTS, &p, &setup);
    rig_numbers(r, RIG_PARAMS, 5, -2);
    for (int step = 0; step < 2; step++)
        one_step(r, step);
    char *state = save(r, &bytes);
    rig_close(r);
    r = rig_open(segments, SEGMENTS, &other, &setup);
    struct before b = look(r);
    assert_refused(r, &b, state, bytes, "another table or parameter", (size_t)_i);
    forget(&b);
    guarded_free(state);
    rig_close(r);
}
END_TEST

/* What only steers the steps may differ: the saved settings are taken over. */
START_TEST(settings_come_with_the_state)
{
    gradreg_regularizer_params p = run_params(0), other = p;
    struct record *record = record_run(&p);
    const rig_setup setup = { .threads = 1 };

    other.strength = 9;
    other.epsilon = 9;
    rig *r = rig_open(table, SEGMENTS, &other, &setup);
    load(r, record, 6);
    go_on(r, record, 6);
    rig_close(r);
    free_record(record);
}
END_TEST

START_TEST(only_a_handle_at_rest_saves_and_loads)
{
    const gradreg_regularizer_params p = run_params(0);
    const rig_setup setup = { .threads = 1 };
    rig *r = rig_open(table, SEGMENTS, &p, &setup);
    size_t bytes;
    char *state = save(r, &bytes);

    rig_numbers(r, RIG_PARAMS, 5, -2);
    rig_gradient(r, 1, true);
    for (int k = 0; k < 2; k++) {
        assert_ok(k == 0 ? gradreg_regularizer_inject_noise(r->reg, &r->buffers)
                         : gradreg_regularizer_perturb(r->reg, &r->buffers));
        assert_fails(gradreg_regularizer_state_save(r->reg, state, bytes), GRADREG_ERROR_STATE,
                     k == 0 ? "noisy" : "perturbed", "idle");
        assert_fails(gradreg_regularizer_state_load(r->reg, state, bytes), GRADREG_ERROR_STATE,
                     k == 0 ? "noisy" : "perturbed", "idle");
    }
    assert_ok(gradreg_regularizer_cancel(r->reg, &r->buffers));
    assert_ok(gradreg_regularizer_state_load(r->reg, state, bytes));
    guarded_free(state);
    rig_close(r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("resume");
    TCase *tcase = tcase_create("resume");

    tcase_set_timeout(tcase, 60.0);
    add_loop_test(tcase, every_stop_resumes_with_the_same_bits, 0, VARIANTS);
    add_loop_test(tcase, a_used_handle_resumes_like_a_new_one, 0, VARIANTS);
    add_loop_test(tcase, saving_changes_nothing, 0, VARIANTS);
    add_loop_test(tcase, a_state_with_any_byte_changed_is_refused, 0, 2);
    add_loop_test(tcase, a_state_of_another_table_or_of_other_parameters_is_refused, 0,
                  CHANGES);
    tcase_add_test(tcase, settings_come_with_the_state);
    tcase_add_test(tcase, only_a_handle_at_rest_saves_and_loads);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
