/* regularizer_settings.c - what a caller asks and tells between steps.
 *
 * In: new settings, signals, losses. Out: settings in backend memory, multipliers, answers. */
#include "regularizer.h"

#include <math.h>
#include <stdint.h>

#include "element.h"
#include "status.h"
#include "types.h"

/* ---- questions ------------------------------------------------------------------- */

typedef struct gr_answer {
    int32_t *number;
    double *value;
    gradreg_buffers *buffers;
    double target;
} gr_answer;

static gradreg_status extra_passes(gradreg_regularizer *reg, void *task)
{
    const gr_answer *a = task;
    *a->number = gradreg_i_regularizer_extra_passes(reg);
    return GRADREG_OK;
}

gradreg_status gradreg_regularizer_extra_passes(gradreg_regularizer *reg, int32_t *out)
{
    gr_answer a = { out, NULL, NULL, 0 };
    GR_ENTER();
    GR_REQUIRE_POINTER(out);
    return gradreg_i_regularizer_call(reg, extra_passes, &a);
}

gradreg_status gradreg_regularizer_first_needed_layer(const gradreg_regularizer *regularizer,
                                                      int32_t *out)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(regularizer);
    GR_REQUIRE_POINTER(out);
    const gradreg_regularizer_params *p = &regularizer->work.step.options;
    int32_t lowest = p->layer_count;
    for (size_t i = 0; i < regularizer->table.segment_count; i++) {
        const gr_segment *s = &regularizer->table.segments[i];
        if ((s->flags & GR_SEGMENT_SEEN) != 0 && s->layer < lowest)
            lowest = s->layer;
    }
    /* Outside the blocks may mean before them: the embedding. */
    *out = p->second_pass == GRADREG_SECOND_PASS_FULL ? GRADREG_LAYER_NONE : lowest;
    return GRADREG_OK;
}

/* ---- settings -------------------------------------------------------------------- */

typedef struct gr_setting {
    enum gr_decision which;
    gr_decision_input input;
} gr_setting;

static gradreg_status set(gradreg_regularizer *reg, void *task)
{
    const gr_setting *setting = task;
    GR_TRY(gradreg_i_regularizer_expect(reg, GR_STATE_IDLE, GR_STATE_NOISY));
    return reg->ops->decide(&reg->work, setting->which, &setting->input);
}

gradreg_status gradreg_regularizer_set_strength(gradreg_regularizer *reg, double strength)
{
    gr_setting setting = { GR_DECIDE_STRENGTH, { 0 } };
    GR_ENTER();
    GR_REQUIRE(isfinite(strength) && strength >= 0, "strength is %g, must be finite and >= 0",
               strength);
    setting.input.value = strength;
    return gradreg_i_regularizer_call(reg, set, &setting);
}

gradreg_status gradreg_regularizer_set_epsilon(gradreg_regularizer *reg, double epsilon)
{
    gr_setting setting = { GR_DECIDE_EPSILON, { 0 } };
    GR_ENTER();
    GR_REQUIRE(isfinite(epsilon) && epsilon > 0, "epsilon is %g, must be finite and > 0",
               epsilon);
    setting.input.value = epsilon;
    return gradreg_i_regularizer_call(reg, set, &setting);
}

gradreg_status gradreg_regularizer_set_step(gradreg_regularizer *reg, uint64_t step)
{
    gr_setting setting = { GR_DECIDE_STEP, { 0 } };
    GR_ENTER();
    GR_REQUIRE(step <= UINT64_C(1) << 53, "step is %llu, must be at most 2^53",
               (unsigned long long)step);
    setting.input.step = step;
    return gradreg_i_regularizer_call(reg, set, &setting);
}

/* ---- observations ---------------------------------------------------------------- */

typedef struct gr_signals {
    const double *values;
    size_t count;
} gr_signals;

static double mean_average(const gradreg_regularizer *reg, double unit)
{
    const int32_t layers = reg->work.step.options.layer_count;
    double sum = 0.0;
    for (int32_t l = 0; l < layers; l++)
        sum += reg->averages[l] * unit;
    return sum / layers;
}

/* a_l = clamp((ema_l / mean)^power), with 1 for the ratio while all are 0; all 1 before the first
 * signal, whatever the limits. */
gradreg_status gradreg_i_regularizer_store_adaptive(gradreg_regularizer *reg)
{
    const gradreg_regularizer_params *p = &reg->work.step.options;
    const size_t bytes = ((size_t)p->layer_count + 1) * sizeof(double);
    double unit = 1.0, mean = mean_average(reg, unit);
    if (!isfinite(mean)) { /* a sum of large signals */
        unit = 0x1p-20;
        mean = mean_average(reg, unit);
    }
    for (int32_t l = 0; l < p->layer_count; l++) {
        double a = mean > 0.0 ? gr_pow(reg->averages[l] * unit / mean, p->adaptive.power) : 1.0;
        a = a > p->adaptive.a_min ? a : p->adaptive.a_min;
        a = a < p->adaptive.a_max ? a : p->adaptive.a_max;
        reg->adaptive[l + 1] = reg->has_averages ? a : 1.0;
    }
    return reg->ops->store(&reg->work, (void *)(uintptr_t)reg->work.step.adaptive,
                           reg->adaptive, bytes);
}

static gradreg_status check_signals(const gradreg_regularizer *reg, const gr_signals *s)
{
    const int32_t layers = reg->work.step.options.layer_count;
    GR_REQUIRE(s->count == (size_t)layers, "count is %zu, must be layer_count = %d", s->count,
               layers);
    for (size_t l = 0; l < s->count; l++)
        GR_REQUIRE(isfinite(s->values[l]) && s->values[l] >= 0,
                   "signals[%zu] is %g, must be finite and >= 0", l, s->values[l]);
    return GRADREG_OK;
}

static gradreg_status observe_layers(gradreg_regularizer *reg, void *task)
{
    const gr_signals *s = task;
    const gradreg_adaptive *adaptive = &reg->work.step.options.adaptive;
    if (adaptive->a_max == 0)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED,
                       "params.adaptive.a_max is 0: adaptive multipliers are off");
    GR_TRY(check_signals(reg, s));
    GR_TRY(gradreg_i_regularizer_expect(reg, GR_STATE_IDLE, GR_STATE_NOISY));
    for (size_t l = 0; l < s->count; l++)
        reg->averages[l] = reg->has_averages ? adaptive->ema * reg->averages[l] +
                                                   (1.0 - adaptive->ema) * s->values[l]
                                             : s->values[l];
    reg->has_averages = 1;
    return gradreg_i_regularizer_store_adaptive(reg);
}

gradreg_status gradreg_regularizer_observe_layers(gradreg_regularizer *reg,
                                                  const double *signals, size_t count)
{
    gr_signals s = { signals, count };
    GR_ENTER();
    GR_REQUIRE_POINTER(signals);
    GR_REQUIRE((uintptr_t)signals % sizeof(*signals) == 0,
               "argument 'signals' is %p, must be aligned to %zu bytes", (const void *)signals,
               sizeof(*signals));
    return gradreg_i_regularizer_call(reg, observe_layers, &s);
}

static gradreg_status observe_losses(gradreg_regularizer *reg, void *task)
{
    const gr_decision_input *input = task;
    const gr_pointer first = { "", "first", input->losses[0], -1 };
    const gr_pointer second = { "", "second", input->losses[1], -1 };
    GR_TRY(gradreg_i_regularizer_expect(reg, GR_STATE_IDLE, GR_STATE_IDLE));
    GR_TRY(gradreg_i_check_place(reg->context, &first));
    GR_TRY(gradreg_i_check_place(reg->context, &second));
    if (!reg->losses_expected)
        return GR_FAIL(GRADREG_ERROR_STATE,
                       "no step with a second pass has just been combined");
    return reg->ops->decide(&reg->work, GR_DECIDE_LOSSES, input);
}

gradreg_status gradreg_regularizer_observe_losses(gradreg_regularizer *reg, const float *first,
                                                  const float *second)
{
    gr_decision_input input = { 0 };
    GR_ENTER();
    GR_REQUIRE_POINTER(first);
    GR_REQUIRE_POINTER(second);
    GR_REQUIRE((uintptr_t)first % sizeof(*first) == 0,
               "argument 'first' is %p, must be aligned to %zu bytes", (const void *)first,
               sizeof(*first));
    GR_REQUIRE((uintptr_t)second % sizeof(*second) == 0,
               "argument 'second' is %p, must be aligned to %zu bytes", (const void *)second,
               sizeof(*second));
    input.losses[0] = first;
    input.losses[1] = second;
    return gradreg_i_regularizer_call(reg, observe_losses, &input);
}

/* ---- epsilon --------------------------------------------------------------------- */

/* Half an ulp at 1 of the coarsest type that the forward pass sees among perturbed weights. */
static double coarsest_half_ulp(const gradreg_regularizer *reg)
{
    double coarsest = 0x1p-24;
    for (size_t i = 0; i < reg->table.segment_count; i++) {
        const gr_segment *s = &reg->table.segments[i];
        const int32_t types[] = { s->param_type, s->compute_type };
        for (int k = 0; k < 2 && (s->flags & GR_SEGMENT_PERTURBED) != 0; k++) {
            const double u = types[k] != 0 ? gr_half_ulp(types[k]) : 0.0;
            coarsest = u > coarsest ? u : coarsest;
        }
    }
    return coarsest;
}

enum { GR_CANDIDATES = 24 };

/* The candidates' middle: there the step's RMS is half an ulp of the weights' RMS. */
static gradreg_status middle_candidate(gradreg_regularizer *reg, const gr_control *c,
                                       double *out)
{
    double theta = 0.0;
    for (size_t b = 0; b < reg->table.bin_count; b++) {
        double squares;
        GR_TRY(reg->ops->fetch(&reg->work, &squares,
                               gr_sum_row(&reg->work.step, GR_SUM_WEIGHTS) + b,
                               sizeof(squares)));
        theta += squares;
    }
    const double per_epsilon = c->delta_norm / c->epsilon_used;
    *out = theta > 0.0 ? coarsest_half_ulp(reg) * sqrt(theta) / per_epsilon : c->epsilon;
    return GRADREG_OK;
}

static gradreg_status try_candidate(gradreg_regularizer *reg, double epsilon, double *cosine)
{
    gr_decision_input input = { 0 };
    gr_control control;
    input.value = epsilon;
    GR_TRY(gradreg_i_regularizer_clear(reg, GR_SUM_FIRST_END, GR_SUM_SECOND_END));
    GR_TRY(reg->ops->decide(&reg->work, GR_DECIDE_CANDIDATE, &input));
    GR_TRY(reg->ops->rehearse(&reg->work));
    GR_TRY(gradreg_i_regularizer_reduce(reg, GR_SUM_FIRST_END, GR_SUM_SECOND_END,
                                        "(nothing has changed)"));
    GR_TRY(reg->ops->decide(&reg->work, GR_DECIDE_FIDELITY, &input));
    GR_TRY(reg->ops->fetch(&reg->work, &control, reg->work.step.control, sizeof(control)));
    *cosine = control.applied_cosine;
    return GRADREG_OK;
}

/* Works on the control block, which the caller puts back. */
static gradreg_status search(gradreg_regularizer *reg, const gr_answer *a)
{
    gradreg_buffers b;
    gr_control control;
    double middle, found = HUGE_VAL;
    GR_TRY(gradreg_i_regularizer_spans(reg, &b, a->buffers,
                                       gradreg_i_regularizer_needs_at_perturb(reg)));
    GR_TRY(gradreg_i_regularizer_clear(reg, GR_SUM_MASTER, GR_SUM_FIRST_END));
    GR_TRY(gradreg_i_regularizer_measure(reg, 1));
    gr_decision_input input = { 0 };
    input.grad_scale = b.grad_scale;
    GR_TRY(reg->ops->decide(&reg->work, GR_DECIDE_PERTURB, &input));
    GR_TRY(reg->ops->fetch(&reg->work, &control, reg->work.step.control, sizeof(control)));
    if (!control.first_usable)
        return GR_FAIL(GRADREG_ERROR_NON_FINITE,
                       "the gradient has %g elements that are not finite",
                       control.non_finite_first);
    if (!control.moves)
        return GR_FAIL(GRADREG_ERROR_NON_FINITE,
                       "the step has no direction: its norm is 0 or beyond f32");
    GR_TRY(middle_candidate(reg, &control, &middle));
    for (int i = 0; i < GR_CANDIDATES && found == HUGE_VAL; i++) {
        const double epsilon = middle * gr_pow(2.0, (i - GR_CANDIDATES / 2) / 2.0);
        double cosine;
        GR_TRY(try_candidate(reg, epsilon, &cosine));
        if (cosine >= a->target)
            found = epsilon;
    }
    *a->value = found;
    return GRADREG_OK;
}

static gradreg_status suggest(gradreg_regularizer *reg, void *task)
{
    gr_control before;
    GR_TRY(gradreg_i_regularizer_expect(reg, GR_STATE_IDLE, GR_STATE_NOISY));
    GR_TRY(reg->ops->fetch(&reg->work, &before, reg->work.step.control, sizeof(before)));
    const gradreg_status status = search(reg, task);
    const gradreg_status back =
        reg->ops->store(&reg->work, reg->work.step.control, &before, sizeof(before));
    return status != GRADREG_OK ? status : back;
}

gradreg_status gradreg_regularizer_suggest_epsilon(gradreg_regularizer *reg, double *out,
                                                   gradreg_buffers *buffers,
                                                   double target_cosine)
{
    gr_answer a = { NULL, out, buffers, target_cosine };
    GR_ENTER();
    GR_REQUIRE_POINTER(out);
    GR_REQUIRE(isfinite(target_cosine) && target_cosine > 0 && target_cosine < 1,
               "target_cosine is %g, must be between 0 and 1", target_cosine);
    return gradreg_i_regularizer_call(reg, suggest, &a);
}
