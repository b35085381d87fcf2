/* trainer_step.c - one step of a trainer and of the oracle, side by side.
 *
 * In: a trainer whose buffers hold theta, and a function that makes gradients. Out: theta', g_hat and
 * the terms compared, or the end of the test; see trainer.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"
#include "trainer.h"

/* ---------------------------------------------------------------------------- comparing */

static void assert_between(const trainer *t, const char *what, size_t s, size_t i,
                           gradreg_type type, double got, double want, double slack)
{
    const double low = oracle_store(type, want - slack);
    const double high = oracle_store(type, want + slack);

    if (isnan(want) && isnan(got))
        return;
    assert_that(got >= low && got <= high,
                "%s: %s[%zu] of segment %zu: got %a, want %a within %a", t->setup.name, what, i,
                s, got, want, slack);
}

/* there = round(begin + side delta) */
static void check_moved(const trainer *t, const double *there, double side)
{
    const oracle *o = t->oracle;
    const oracle_step *step = t->step;

    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++) {
            const bool still = !step->moved || !o->perturbed[s];
            if (still)
                assert_that(there[i] == t->begin[i] || isnan(t->begin[i]),
                            "%s: element %zu of segment %zu moved", t->setup.name,
                            i - o->start[s], s);
            else
                assert_between(t, "theta'", s, i - o->start[s], oracle_param_type(o, s),
                               there[i], t->begin[i] + side * step->delta[i],
                               step->delta_slack[i]);
        }
}

static void check_update(const trainer *t)
{
    const oracle *o = t->oracle;

    for (size_t s = 0; s < o->segment_count; s++) {
        if (o->segments[s].flags & GRADREG_SEGMENT_FROZEN)
            continue;
        if (t->absent_second != NULL && t->absent_second[s])
            continue; /* the library had no place to write to */
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++)
            assert_between(t, "g_hat", s, i - o->start[s], oracle_grad_type(o, s), t->stored[i],
                           t->step->update[i], t->step->update_slack[i]);
    }
}

static void check_row(const trainer *t, const gradreg_terms *got, int32_t scope)
{
    const double *values = &got->strength;
    oracle_terms want;

    oracle_report(t->oracle, t->step, t->stored, scope, &want);
    for (int k = 0; k < ORACLE_TERM_COUNT; k++) {
        const bool same = isnan(want.value[k])
                              ? isnan(values[k])
                              : fabs(values[k] - want.value[k]) <= want.slack[k];
        assert_that(same || isinf(want.slack[k]),
                    "%s: %s of %d: got %.17g, want %.17g within %g", t->setup.name,
                    oracle_term_names[k], scope, values[k], want.value[k], want.slack[k]);
    }
    assert_that(got->non_finite_first == want.non_finite_first &&
                    got->non_finite_second == want.non_finite_second,
                "%s: %d counts %d and %d elements that are not finite", t->setup.name, scope,
                (int)got->non_finite_first, (int)got->non_finite_second);
    assert_that(got->absent == want.absent, "%s: %d: absent %d, want %d", t->setup.name, scope,
                (int)got->absent, (int)want.absent);
    ck_assert_uint_eq(got->step, want.step);
    assert_that((got->flags & ~(uint32_t)GRADREG_FLAG_SATURATED) == want.flags,
                "%s: %d: flags %x, want %x", t->setup.name, scope, got->flags, want.flags);
}

void trainer_check_terms(const trainer *t)
{
    const size_t layers = (size_t)t->oracle->params.layer_count;
    gradreg_terms total = GRADREG_TERMS_INIT;
    gradreg_terms *rows = calloc(layers, sizeof(*rows));

    for (size_t l = 0; l < layers; l++)
        rows[l].struct_size = (uint32_t)sizeof(*rows);
    assert_ok(gradreg_regularizer_terms(t->regularizer, &total, rows, layers));
    check_row(t, &total, ORACLE_EVERYTHING);
    for (size_t l = 0; l < layers; l++)
        check_row(t, &rows[l], (int32_t)l);
    free(rows);
}

/* ---------------------------------------------------------------------------- a step */

static void begin_step(trainer *t)
{
    oracle_step_free(t->step);
    t->step = oracle_step_new(t->oracle);
    trainer_read(t, TRAINER_PARAMS, t->theta);
    t->step->theta = t->theta;
    t->step->first = t->first;
    t->step->plus = t->plus;
    t->step->second = t->second;
    t->step->absent_first = t->absent_first;
    t->step->absent_plus = t->absent_plus;
    t->step->absent_second = t->absent_second;
    t->step->grad_scale = (double)t->scale;
    t->step->with_noise = t->with_noise;
    t->step->direction = t->drawn;
    if (trainer_needs(t, TRAINER_DIRECTION)) {
        trainer_read(t, TRAINER_DIRECTION, t->direction);
        t->step->direction = t->direction;
    }
}

static void check_noise(const trainer *t)
{
    const oracle *o = t->oracle;

    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++)
            assert_between(t, "noisy theta", s, i - o->start[s], oracle_param_type(o, s),
                           t->begin[i], t->theta[i] + t->step->noise[i],
                           fabs(t->step->noise[i]) *
                               (6.0 * ORACLE_ROUNDING + 3.0 * o->norm_error));
}

static void inject(trainer *t)
{
    oracle_inject(t->oracle, t->step);
    memcpy(t->begin, t->theta, oracle_size(t->oracle) * sizeof(double));
    if (!t->with_noise)
        return;
    assert_ok(gradreg_regularizer_inject_noise(t->regularizer, &t->buffers));
    trainer_read(t, trainer_moved(t), t->begin);
    check_noise(t);
    /* What rounding made of it is where the step begins. */
    memcpy(t->step->begin, t->begin, oracle_size(t->oracle) * sizeof(double));
    t->step->applied_begin = t->begin;
}

/* What a backward pass leaves in the buffer; values receives it as stored. */
static void give(trainer *t, enum trainer_buffer buffer, const double *g, double *values,
                 const bool *absent, bool truncated)
{
    const oracle *o = t->oracle;
    const double scale = t->scale != 0.0f ? (double)t->scale : 1.0;

    for (size_t s = 0; s < o->segment_count; s++) {
        const gradreg_type type = trainer_type(t, buffer, s);
        const bool skip =
            (absent != NULL && absent[s]) || (o->segments[s].flags & GRADREG_SEGMENT_FROZEN);
        for (size_t i = 0; !skip && i < o->segments[s].count; i++) {
            const bool unmade = truncated && t->setup.poison && !o->seen[s];
            typed_set(t->piece[buffer][s], type, i,
                      unmade ? NAN : type_round(scale * g[o->start[s] + i], type));
            values[o->start[s] + i] = typed_get(t->piece[buffer][s], type, i);
        }
        if (buffer == TRAINER_GRADS || trainer_needs(t, TRAINER_FIRST))
            t->passed[s] = absent != NULL && absent[s] ? NULL : t->piece[TRAINER_GRADS][s];
    }
}

static void assert_zeroed(const trainer *t, const bool *absent)
{
    const oracle *o = t->oracle;

    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = 0; i < o->segments[s].count; i++)
            if (!(o->segments[s].flags & GRADREG_SEGMENT_FROZEN) && !(absent && absent[s]))
                assert_that(
                    typed_bits(t->piece[TRAINER_GRADS][s], oracle_grad_type(o, s), i) == 0,
                    "%s: ADDS needs zeros in element %zu of segment %zu", t->setup.name, i, s);
}

/* One call between two passes: grads zeroed or left alone, theta' where it should be. */
static void go_on(trainer *t, gradreg_status (*call)(gradreg_regularizer *, gradreg_buffers *),
                  double *there, double side, const bool *absent)
{
    char *grads = trainer_copy(t, TRAINER_GRADS);

    assert_ok(call(t->regularizer, &t->buffers));
    if (t->oracle->params.second_gradient == GRADREG_SECOND_GRADIENT_ADDS)
        assert_zeroed(t, absent);
    else
        trainer_assert_same(t, TRAINER_GRADS, grads, "grads of an overwriting pass");
    free(grads);
    trainer_read(t, trainer_moved(t), there);
    check_moved(t, there, side);
}

static void second_passes(trainer *t, trainer_gradient *gradient, void *user, double *g)
{
    oracle_perturb(t->oracle, t->step);
    go_on(t, gradreg_regularizer_perturb, t->there, 1.0, t->absent_first);
    t->step->applied_plus = t->there;
    if (t->oracle->params.difference == GRADREG_DIFFERENCE_CENTRAL) {
        gradient(user, g, t->there);
        give(t, TRAINER_GRADS, g, t->plus, t->absent_plus, true);
        go_on(t, gradreg_regularizer_mirror, t->mirrored, -1.0, t->absent_plus);
        t->step->applied_minus = t->mirrored;
    }
    gradient(user, g, t->step->applied_minus != NULL ? t->mirrored : t->there);
    give(t, TRAINER_GRADS, g, t->second, t->absent_second, true);
}

static void end_step(trainer *t, enum trainer_ending ending)
{
    if (ending == TRAINER_FALLBACK) {
        assert_ok(gradreg_regularizer_fallback(t->regularizer, &t->buffers));
        oracle_fallback(t->oracle, t->step);
    } else {
        assert_ok(gradreg_regularizer_combine(t->regularizer, &t->buffers));
        oracle_combine(t->oracle, t->step);
    }
    trainer_read(t, TRAINER_GRADS, t->stored);
}

void trainer_run(trainer *t, trainer_gradient *gradient, void *user, enum trainer_ending ending)
{
    const enum trainer_buffer first_at = trainer_first_at(t);
    double *g = oracle_reals(t->oracle);
    char *clean = trainer_copy(t, TRAINER_PARAMS);
    int32_t passes = -1;

    begin_step(t);
    inject(t);
    gradient(user, g, t->begin);
    give(t, first_at, g, t->first, t->absent_first, false);
    char *first = trainer_copy(t, first_at);
    assert_ok(gradreg_regularizer_extra_passes(t->regularizer, &passes));
    ck_assert_int_eq(passes, oracle_extra_passes(t->oracle));
    if (passes > 0)
        second_passes(t, gradient, user, g);
    end_step(t, ending);

    trainer_assert_same(t, TRAINER_PARAMS, clean, "theta after the step");
    if (first_at == TRAINER_FIRST)
        trainer_assert_same(t, TRAINER_FIRST, first, "first_grads");
    check_update(t);
    if (!t->setup.skip_terms)
        trainer_check_terms(t);
    free(first);
    free(clean);
    free(g);
}
