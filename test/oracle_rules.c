/* oracle_rules.c - what a step rests on: types, schedule, strength over time, refusals.
 *
 * In: parameters and table. Out: numbers and masks; see oracle.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "oracle.h"

const char *const oracle_term_names[ORACLE_TERM_COUNT] = {
    "strength",          "effective_strength",
    "effective_epsilon", "penalty",
    "first_norm",        "second_norm",
    "clip_first",        "clip_second",
    "direction_norm",    "hvp_norm",
    "curvature",         "alignment",
    "correction_share",  "update_norm",
    "perturbation_norm", "applied_norm",
    "applied_cosine",    "changed_fraction",
    "difference_noise",  "stored_share",
    "noise_norm",        "noise_applied_cosine",
    "first_order_ratio",
};

/* ---------------------------------------------------------------------------- types */

struct format {
    int precision; /* significant bits */
    int least;     /* exponent of the smallest normal number */
    double largest;
};

static struct format format_of(gradreg_type type)
{
    const struct format f32 = { 24, -126, 0x1.fffffep127 };
    const struct format bf16 = { 8, -126, 0x1.fep127 };
    const struct format f16 = { 11, -14, 65504.0 };

    return type == GRADREG_TYPE_BF16 ? bf16 : type == GRADREG_TYPE_F16 ? f16 : f32;
}

double oracle_round(gradreg_type type, double x)
{
    const struct format f = format_of(type);

    if (x == 0.0 || isnan(x))
        return x;
    if (type == GRADREG_TYPE_F16 && fabs(x) > f.largest)
        return copysign(f.largest, x);
    if (isinf(x))
        return x;
    const int exponent = ilogb(x) > f.least ? ilogb(x) : f.least;
    const double quantum = ldexp(1.0, exponent - f.precision + 1);
    const double rounded = copysign(nearbyint(fabs(x) / quantum) * quantum, x);
    if (fabs(rounded) > f.largest)
        return type == GRADREG_TYPE_F16 ? copysign(f.largest, x) : copysign(INFINITY, x);
    return rounded;
}

double oracle_store(gradreg_type type, double x)
{
    return oracle_round(type, oracle_round(GRADREG_TYPE_F32, x));
}

double oracle_half_ulp(gradreg_type type)
{
    return ldexp(1.0, -format_of(type).precision);
}

gradreg_type oracle_param_type(const oracle *o, size_t segment)
{
    const gradreg_type own = o->segments[segment].param_type;
    return own != 0 ? own : o->params.param_type;
}

gradreg_type oracle_grad_type(const oracle *o, size_t segment)
{
    const gradreg_type own = o->segments[segment].grad_type;
    return own != 0 ? own : o->params.grad_type;
}

gradreg_type oracle_compute_type(const oracle *o, size_t segment)
{
    return o->params.compute_type != 0 ? o->params.compute_type : oracle_param_type(o, segment);
}

/* ---------------------------------------------------------------------------- schedule */

static void schedule_range(const gradreg_schedule *schedule, int32_t n, int32_t *first,
                           int32_t *full)
{
    *first = schedule->first_layer;
    *full = schedule->full_layer;
    if (*first < 0) {
        *first = (int32_t)((12 * (int64_t)n + 36) / 72);
        *full = (int32_t)((44 * (int64_t)n + 36) / 72);
        if (*full > n - 1)
            *full = n - 1;
    }
}

double oracle_multiplier(const gradreg_schedule *schedule, int32_t layer_count, int32_t layer)
{
    int32_t first, full;

    if (layer == GRADREG_LAYER_NONE)
        return schedule->outside_multiplier;
    if (schedule->curve == GRADREG_CURVE_TABLE)
        return schedule->table[layer];
    schedule_range(schedule, layer_count, &first, &full);
    if (layer < first)
        return 0.0;
    if (layer >= full)
        return 1.0;
    const double x = (layer - first + 1.0) / (full - first + 1.0);
    switch (schedule->curve) {
    case GRADREG_CURVE_COSINE: return (1.0 - cos(acos(-1.0) * x)) / 2.0;
    case GRADREG_CURVE_POWER: return pow(x, schedule->power);
    case GRADREG_CURVE_STEP: return 0.0;
    default: return x;
    }
}

double oracle_strength_factor(const gradreg_regularizer_params *params, uint64_t step)
{
    if (step < params->warmup_steps)
        return params->warmup == GRADREG_WARMUP_LINEAR
                   ? (double)step / (double)params->warmup_steps
                   : 0.0;
    if (params->decay != GRADREG_DECAY_LINEAR && params->decay != GRADREG_DECAY_COSINE)
        return 1.0;
    const double x =
        fmin(1.0, (double)(step - params->warmup_steps) / (double)params->decay_steps);
    const double end = params->strength_end;
    if (params->decay == GRADREG_DECAY_LINEAR)
        return 1.0 + (end - 1.0) * x;
    return end + (1.0 - end) * (1.0 + cos(acos(-1.0) * x)) / 2.0;
}

double oracle_weight(const oracle *o, size_t segment)
{
    const int32_t layer = o->segments[segment].layer;

    if (layer == GRADREG_LAYER_NONE)
        return o->params.schedule.outside_multiplier;
    return o->multiplier[layer] * o->adaptive[layer];
}

void oracle_observe_layers(oracle *o, const double *signals)
{
    const gradreg_adaptive *rule = &o->params.adaptive;
    const int32_t n = o->params.layer_count;
    double mean = 0.0;

    for (int32_t l = 0; l < n; l++) {
        o->average[l] = o->observed ? rule->ema * o->average[l] + (1.0 - rule->ema) * signals[l]
                                    : signals[l];
        mean += o->average[l] / n;
    }
    o->observed = true;
    for (int32_t l = 0; l < n; l++) {
        const double a = mean > 0.0 ? pow(o->average[l] / mean, rule->power) : 1.0;
        o->adaptive[l] = fmin(fmax(a, rule->a_min), rule->a_max);
    }
}

/* ---------------------------------------------------------------------------- masks */

static bool takes_noise(const gradreg_regularizer_params *p, const gradreg_segment *segment)
{
    int32_t first = p->noise.first_layer, last = p->noise.last_layer;
    const uint32_t roles = p->noise.roles != 0 ? p->noise.roles : GRADREG_ROLE_ATTENTION;

    if (p->noise.rule == 0 || p->noise.rule == GRADREG_NOISE_OFF ||
        p->output == GRADREG_OUTPUT_PRODUCT)
        return false;
    if (first < 0) {
        int32_t full;
        schedule_range(&p->schedule, p->layer_count, &first, &full);
        last = first - 1;
        first = 0;
    }
    return !(segment->flags & GRADREG_SEGMENT_FROZEN) && (segment->role & roles) &&
           segment->layer >= first && segment->layer <= last;
}

static uint32_t mask_or_default(uint32_t roles)
{
    return roles != 0 ? roles : GRADREG_ROLE_ATTENTION | GRADREG_ROLE_MLP | GRADREG_ROLE_NORM;
}

static bool is_perturbed(const gradreg_regularizer_params *p, const gradreg_segment *segment)
{
    return !(segment->flags & GRADREG_SEGMENT_FROZEN) &&
           (segment->role & mask_or_default(p->perturbed_roles)) &&
           (segment->layer >= 0 || p->schedule.outside_multiplier > 0.0);
}

static void set_masks(oracle *o, size_t s)
{
    const gradreg_segment *segment = &o->segments[s];
    const bool frozen = segment->flags & GRADREG_SEGMENT_FROZEN;

    o->counted[s] = !frozen && !(segment->flags & GRADREG_SEGMENT_REPLICA);
    o->perturbed[s] = is_perturbed(&o->params, segment);
    o->measured[s] = o->perturbed[s] && o->counted[s];
    o->regularized[s] =
        !frozen && (segment->role & mask_or_default(o->params.regularized_roles));
    o->seen[s] = !frozen;
    if (o->params.second_pass == GRADREG_SECOND_PASS_TRUNCATED)
        o->seen[s] =
            o->regularized[s] &&
            oracle_multiplier(&o->params.schedule, o->params.layer_count, segment->layer) > 0.0;
    o->noised[s] = takes_noise(&o->params, segment);
}

int32_t oracle_first_needed_layer(const oracle *o)
{
    int32_t lowest = o->params.layer_count;

    if (o->params.second_pass != GRADREG_SECOND_PASS_TRUNCATED)
        return GRADREG_LAYER_NONE;
    for (size_t s = 0; s < o->segment_count; s++)
        if (o->seen[s] && o->segments[s].layer < lowest)
            lowest = o->segments[s].layer;
    return lowest;
}

/* ---------------------------------------------------------------------------- defaults */

static void or_default(int32_t *value, int32_t preset)
{
    if (*value == 0)
        *value = preset;
}

static void fill_defaults(gradreg_regularizer_params *p)
{
    or_default(&p->param_type, GRADREG_TYPE_F32);
    or_default(&p->grad_type, GRADREG_TYPE_F32);
    or_default(&p->step, GRADREG_STEP_RAW);
    or_default(&p->difference, GRADREG_DIFFERENCE_FORWARD);
    or_default(&p->penalty, GRADREG_PENALTY_SQUARED_NORM);
    or_default(&p->depth, GRADREG_DEPTH_ON_UPDATE);
    or_default(&p->direction, GRADREG_DIRECTION_GRADIENT);
    or_default(&p->output, GRADREG_OUTPUT_REGULARIZED);
    or_default(&p->second_pass, GRADREG_SECOND_PASS_FULL);
    or_default(&p->non_finite_first, GRADREG_NON_FINITE_ZERO);
    or_default(&p->non_finite_second, GRADREG_NON_FINITE_KEEP_FIRST);
    or_default(&p->interval, 1);
    or_default(&p->noise.rule, GRADREG_NOISE_OFF);
    or_default(&p->warmup, GRADREG_WARMUP_ZERO);
    or_default(&p->decay, GRADREG_DECAY_CONSTANT);
    or_default(&p->schedule.curve, GRADREG_CURVE_LINEAR);
    if (p->output == GRADREG_OUTPUT_PRODUCT) {
        p->clip_first = p->clip_second = 0.0;
        p->depth = GRADREG_DEPTH_ON_UPDATE;
        p->penalty = GRADREG_PENALTY_SQUARED_NORM;
        p->interval = 1;
    }
    if (p->noise.scale == 0.0)
        p->noise.scale = p->noise.rule == GRADREG_NOISE_NEFTUNE ? 5.0
                         : p->noise.rule == GRADREG_NOISE_STEP  ? 1.0
                                                                : 0x1p-7;
}

/* ---------------------------------------------------------------------------- life */

size_t oracle_size(const oracle *o)
{
    return o->start[o->segment_count];
}

double *oracle_reals(const oracle *o)
{
    return calloc(oracle_size(o) + 1, sizeof(double));
}

/* Every element adds the rounding of its product and that of its addition to a lane of 128. */
static double error_of_sums(const gradreg_segment *segments, size_t count)
{
    double deepest = 1.0;

    for (size_t s = 0; s < count; s++)
        deepest = fmax(deepest, fmin(32.0, ceil((double)segments[s].count / 128.0)));
    return deepest * ORACLE_ROUNDING * (1.0 + 1e-5) + 1e-12;
}

static void make_table(oracle *o, const gradreg_segment *segments)
{
    memcpy(o->segments, segments, o->segment_count * sizeof(*segments));
    for (size_t s = 0; s < o->segment_count; s++) {
        o->start[s + 1] = o->start[s] + (size_t)segments[s].count;
        set_masks(o, s);
    }
    for (int32_t l = 0; l < o->params.layer_count; l++) {
        o->multiplier[l] = oracle_multiplier(&o->params.schedule, o->params.layer_count, l);
        o->adaptive[l] = 1.0;
    }
    o->sum_error = error_of_sums(segments, o->segment_count);
    o->norm_error = o->sum_error / 2.0;
}

oracle *oracle_new(const gradreg_segment *segments, size_t segment_count,
                   const gradreg_regularizer_params *params)
{
    oracle *o = calloc(1, sizeof(*o));
    const size_t n = segment_count, layers = (size_t)params->layer_count;

    o->params = *params;
    fill_defaults(&o->params);
    o->segment_count = n;
    o->segments = calloc(n, sizeof(*o->segments));
    o->start = calloc(n + 1, sizeof(*o->start));
    o->multiplier = calloc(3 * layers, sizeof(double));
    o->adaptive = o->multiplier + layers;
    o->average = o->adaptive + layers;
    o->counted = calloc(6 * n, sizeof(bool));
    o->perturbed = o->counted + n;
    o->regularized = o->perturbed + n;
    o->measured = o->regularized + n;
    o->seen = o->measured + n;
    o->noised = o->seen + n;
    make_table(o, segments);
    o->correction = oracle_reals(o);
    o->correction_slack = oracle_reals(o);
    o->noise_direction = oracle_reals(o);
    o->noise_step = oracle_reals(o);
    return o;
}

void oracle_free(oracle *o)
{
    if (o == NULL)
        return;
    free(o->segments);
    free(o->start);
    free(o->multiplier);
    free(o->counted);
    free(o->correction);
    free(o->correction_slack);
    free(o->noise_direction);
    free(o->noise_step);
    free(o);
}

/* ---------------------------------------------------------------------------- refusals */

/* Out of range, for an enumeration in which 0 is the default. */
static bool outside(int32_t value, int32_t last)
{
    return value < 0 || value > last;
}

static bool unknown_constant(const gradreg_regularizer_params *p)
{
    return outside(p->param_type, 3) || outside(p->grad_type, 3) ||
           outside(p->compute_type, 3) || outside(p->update_type, 3) || outside(p->step, 3) ||
           outside(p->difference, 3) || outside(p->penalty, 2) || outside(p->depth, 2) ||
           outside(p->direction, 4) || outside(p->output, 3) || outside(p->first_gradient, 3) ||
           outside(p->second_gradient, 2) || outside(p->second_pass, 2) ||
           outside(p->placement, 2) || outside(p->restore, 2) || outside(p->rounding, 2) ||
           outside(p->non_finite_first, 2) || outside(p->non_finite_second, 3) ||
           p->non_finite_second == GRADREG_NON_FINITE_PROPAGATE || outside(p->warmup, 2) ||
           outside(p->decay, 3) || outside(p->noise.rule, 4) || outside(p->common_clip, 1) ||
           outside(p->perturb_from_master, 1) || outside(p->realised_step, 1);
}

static bool bad_number(const gradreg_regularizer_params *p)
{
    const bool decays = p->decay == GRADREG_DECAY_LINEAR || p->decay == GRADREG_DECAY_COSINE;

    return !(p->strength >= 0.0 && isfinite(p->strength)) ||
           !(p->epsilon > 0.0 && isfinite(p->epsilon)) ||
           !(p->clip_first >= 0.0 && isfinite(p->clip_first)) ||
           !(p->clip_second >= 0.0 && isfinite(p->clip_second)) ||
           !(p->min_fidelity >= 0.0 && p->min_fidelity <= 1.0) || p->interval < 0 ||
           !(p->strength_end >= 0.0 && isfinite(p->strength_end)) ||
           (decays && p->decay_steps == 0) || p->layer_count < 1 || p->layer_count > 65536;
}

static bool not_in_this_version(const gradreg_regularizer_params *p)
{
    return p->difference == GRADREG_DIFFERENCE_BACKWARD || p->output == GRADREG_OUTPUT_SECOND ||
           p->first_gradient == GRADREG_FIRST_GRADIENT_ACCUMULATED || p->perturb_from_master ||
           p->realised_step || p->update_type != 0;
}

static bool contradiction(const gradreg_regularizer_params *p)
{
    const bool truncated = p->second_pass == GRADREG_SECOND_PASS_TRUNCATED;

    if (p->output == GRADREG_OUTPUT_PRODUCT && (p->step == GRADREG_STEP_RELATIVE || truncated))
        return true;
    if (truncated && p->depth == GRADREG_DEPTH_ON_PENALTY)
        return true;
    if (truncated && p->clip_second > 0.0 && !p->common_clip)
        return true;
    return p->placement == GRADREG_PLACEMENT_OUT_OF_PLACE &&
           p->restore == GRADREG_RESTORE_MASTER;
}

/* Noise as long as delta where there is none, or where rounding decides what is left of it. */
static bool hollow_noise(const gradreg_segment *segment, const gradreg_regularizer_params *p)
{
    const gradreg_type own = segment->param_type != 0 ? segment->param_type : p->param_type;

    if (own > GRADREG_TYPE_F32 || p->compute_type > GRADREG_TYPE_F32)
        return true;
    return !is_perturbed(p, segment) ||
           (p->depth == GRADREG_DEPTH_ON_PENALTY &&
            oracle_multiplier(&p->schedule, p->layer_count, segment->layer) == 0.0);
}

/* Its default place is before the first regularized layer; there has to be one. */
static bool noise_without_place(const gradreg_regularizer_params *p)
{
    int32_t first, full;

    schedule_range(&p->schedule, p->layer_count, &first, &full);
    return p->noise.rule > GRADREG_NOISE_OFF && p->output != GRADREG_OUTPUT_PRODUCT &&
           p->noise.first_layer < 0 && first == 0;
}

gradreg_status oracle_refusal(const gradreg_segment *segments, size_t segment_count,
                              const gradreg_regularizer_params *params)
{
    if (unknown_constant(params) || bad_number(params) || noise_without_place(params))
        return GRADREG_ERROR_INVALID_ARGUMENT;
    if (not_in_this_version(params) || contradiction(params))
        return GRADREG_ERROR_UNSUPPORTED;
    if (params->noise.rule != GRADREG_NOISE_STEP || params->output == GRADREG_OUTPUT_PRODUCT)
        return GRADREG_OK;
    for (size_t s = 0; s < segment_count; s++)
        if (takes_noise(params, &segments[s]) && hollow_noise(&segments[s], params))
            return GRADREG_ERROR_UNSUPPORTED;
    /* The noise lies along g~; delta does not. */
    return params->direction != GRADREG_DIRECTION_GRADIENT ? GRADREG_ERROR_UNSUPPORTED
                                                           : GRADREG_OK;
}
