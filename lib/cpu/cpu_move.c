/* cpu_move.c - the passes that move weights: noise, the step, its mirror image.
 *
 * In: theta, a direction, coefficients. Out: theta', clean copies, kept gradients, and what of the
 * step reached the weights. */
#include "cpu_pass.h"

#include <string.h>

#include "../random.h"

enum { GR_MOVE_ROWS = GR_MOVE_SUMS + 2 }; /* sums, changed, saturated */

static void keep_sums(gr_cpu_block *b, const float *lanes, const uint64_t counts[2])
{
    for (int k = 0; k < GR_MOVE_SUMS; k++)
        b->sums[k] = b->kernels->fold(lanes + k * GR_LANES);
    b->sums[GR_MOVE_SUMS] = (double)counts[0];
    b->sums[GR_MOVE_SUMS + 1] = (double)counts[1];
}

/* ---- stochastic rounding --------------------------------------------------------- */

/* Rounds the exact sum into `to`; gives what a load would read back. */
static inline float round_into(const int32_t type, void *to, size_t i, double exact,
                               uint32_t bits, uint64_t *saturated)
{
    if (type == GRADREG_TYPE_F32)
        return ((float *)to)[i] = gr_round_stochastic_f32(exact, bits);
    uint16_t *half = (uint16_t *)to + i;
    *saturated += (uint64_t)gr_saturates_stochastic(type, exact, bits);
    *half = gr_round_stochastic_half(type, exact, bits);
    return gr_half_to_f32(type, *half);
}

/* As the kernels' move, element by element; every draw depends on the element's number alone. */
static inline __attribute__((always_inline)) void
move_stochastic(const int32_t type, const gr_cpu_block *b, const gr_move_block *m,
                const float *u, uint32_t purpose, float *lanes, uint64_t counts[2])
{
    const float *slope = m->slope;
    const uint64_t seed = b->work->step.options.seed;
    const uint64_t step = gr_draw_step(b->work->step.control);
    float base[GR_BLOCK];
    uint32_t words[4];
    b->kernels->widen[type](base, m->base, b->n);
    for (size_t i = 0; i < b->n; i++) {
        const uint64_t element = b->begin + i;
        if (i == 0 || element % 4 == 0)
            gr_random4(seed, step, b->index, purpose, element / 4, words);
        const uint32_t bits = words[element % 4];
        const double exact = GR_MOVE((double)base[i], (double)m->coefficient, (double)u[i]);
        const float stored = round_into(type, m->moved, i, exact, bits, &counts[1]);
        const float before = gr_round_to(m->compute, base[i]);
        const float after = gr_round_to(m->compute, stored);
        const float applied = (after - before) * m->scale_applied;
        float *lane = lanes + GR_LANE_OF(i);
        counts[0] += before != after;
        lane[0] = GR_ACCUMULATE(lane[0], applied, applied);
        lane[GR_LANES] = GR_ACCUMULATE(lane[GR_LANES], applied, u[i] * m->scale_u);
        if (slope != NULL)
            lane[2 * GR_LANES] =
                GR_ACCUMULATE(lane[2 * GR_LANES], applied, slope[i] * m->scale_slope);
    }
}

/* The same, in code of each type's own. */
static void move_stochastic_any(const gr_cpu_block *b, const gr_move_block *m, const float *u,
                                uint32_t purpose, float *lanes, uint64_t counts[2])
{
#define GR_MOVE_AS(T)                                                       \
    case GRADREG_TYPE_##T:                                                  \
        move_stochastic(GRADREG_TYPE_##T, b, m, u, purpose, lanes, counts); \
        break;
    switch (b->segment->param_type) {
        GR_EACH_TYPE(GR_MOVE_AS)
    }
#undef GR_MOVE_AS
}

/* ---- one block ------------------------------------------------------------------- */

/* Copies that the vector kernels make on their way. */
static void copies_first(const gr_cpu_block *b, const gr_move_block *m, int32_t u_type)
{
    const size_t p = gr_type_bytes(b->segment->param_type), g = gr_type_bytes(u_type);
    if (m->clean != NULL)
        b->kernels->copy(m->clean, m->base, b->n * p, b->work->streaming);
    if (m->kept != NULL)
        b->kernels->copy(m->kept, m->u, b->n * g, b->work->streaming);
}

static void move_block(gr_cpu_block *b, gr_move_block *m, int32_t u_type, uint32_t purpose)
{
    _Alignas(64) float lanes[GR_MOVE_SUMS * GR_LANES] = { 0 };
    uint64_t counts[2] = { 0, 0 };
    m->compute = b->segment->compute_type;
    m->streaming = b->work->streaming;
    if (b->work->step.options.rounding == GRADREG_ROUNDING_NEAREST) {
        b->kernels->move[b->segment->param_type][u_type](m, b->n, lanes, counts);
    } else {
        float u[GR_BLOCK];
        copies_first(b, m, u_type);
        b->kernels->widen[u_type](u, m->u, b->n);
        move_stochastic_any(b, m, u, purpose, lanes, counts);
        if (m->zeroed != NULL)
            memset(m->zeroed, 0, b->n * gr_type_bytes(u_type));
    }
    keep_sums(b, lanes, counts);
}

/* ---- noise ----------------------------------------------------------------------- */

/* round(base + noise) into `to`; sums are of the caller's choosing. */
static void add_noise(gr_cpu_block *b, const char *base, void *to, void *clean)
{
    gr_move_block m = { 0 };
    m.base = base;
    m.moved = to;
    m.clean = clean;
    m.u = gr_cpu_at(b->span->noise, b->at, GRADREG_TYPE_F32);
    m.coefficient = b->coefficients->noise;
    m.scale_applied = b->coefficients->noise_scale_applied;
    m.scale_u = b->coefficients->noise_scale_u;
    move_block(b, &m, GRADREG_TYPE_F32, GR_RANDOM_ROUND_NOISE);
}

static void copy_params(const gr_cpu_block *b, void *to, const void *from)
{
    if (to != NULL && to != from)
        b->kernels->copy(to, from, b->n * gr_type_bytes(b->segment->param_type),
                         b->work->streaming);
}

static void inject_body(gr_cpu_block *b)
{
    const int32_t type = b->segment->param_type;
    const char *params = gr_cpu_at(b->span->params, b->at, type);
    char *moved = gr_cpu_at(b->span->moved, b->at, type);
    if ((b->segment->flags & GR_SEGMENT_NOISY) == 0) {
        copy_params(b, moved, params);
        return;
    }
    char *clean = gr_cpu_at(b->span->clean, b->at, type);
    if (b->coefficients->noise != 0.0f) {
        add_noise(b, params, moved, clean);
        return;
    }
    copy_params(b, clean, params);
    copy_params(b, moved, params);
}

static double noise_unit(const gr_coefficients *k, int row)
{
    return row < GR_MOVE_SLOPE ? gr_move_unit(k, row, 1) : 1.0;
}

gradreg_status gradreg_cpu_inject(gr_work *work)
{
    gradreg_cpu_pass(work, inject_body, 0, GR_MOVE_ROWS, GR_SUM_NOISE_APPLIED, noise_unit);
    return GRADREG_OK;
}

/* ---- the step -------------------------------------------------------------------- */

static double move_unit(const gr_coefficients *k, int row)
{
    return row < GR_MOVE_SUMS ? gr_move_unit(k, row, 0) : 1.0;
}

/* Whether this block's weights are stepped at all. Along the gradient, no gradient is no step. */
static int steps(const gr_cpu_block *b, const char *gradient)
{
    return (b->segment->flags & GR_SEGMENT_PERTURBED) != 0 && b->coefficients->move != 0.0f &&
           (gradient != NULL || !gr_along_gradient(&b->work->step));
}

/* Steps base by `sign` delta into `to`. `gradient` (g1) may be NULL if the direction is another. */
static void step_block(gr_cpu_block *b, gr_move_block *m, const char *gradient, float sign,
                       uint32_t purpose)
{
    const int32_t type = b->segment->grad_type;
    float direction[GR_BLOCK], slope[GR_BLOCK];
    m->coefficient = sign * b->coefficients->move;
    m->scale_applied = b->coefficients->scale_applied;
    m->scale_u = b->coefficients->scale_u;
    m->scale_slope = b->coefficients->scale_slope;
    if (gr_along_gradient(&b->work->step)) {
        m->u = gradient;
        move_block(b, m, type, purpose);
        return;
    }
    m->u = gradreg_cpu_direction(b, direction);
    if (gradient != NULL) {
        b->kernels->widen[type](slope, gradient, b->n);
        m->slope = slope;
    }
    move_block(b, m, GRADREG_TYPE_F32, purpose);
}

/* Keeps g1, and zeroes what the next backward pass adds into. */
static void keep_gradient(const gr_cpu_block *b, char *copy)
{
    const size_t bytes = b->n * gr_type_bytes(b->segment->grad_type);
    char *grads = gr_cpu_at(b->span->grads, b->at, b->segment->grad_type);
    if (grads == NULL)
        return;
    if (copy != NULL)
        b->kernels->copy(copy, grads, bytes, b->work->streaming);
    if (b->work->step.options.second_gradient == GRADREG_SECOND_GRADIENT_ADDS)
        memset(grads, 0, bytes);
}

/* Where the clean copy goes; NULL where inject has made it already, or where none is held. */
static char *new_clean(const gr_cpu_block *b)
{
    if (b->work->noisy && (b->segment->flags & GR_SEGMENT_NOISY) != 0)
        return NULL;
    if ((b->segment->flags & GR_SEGMENT_PERTURBED) == 0)
        return NULL;
    return gr_cpu_at(b->span->clean, b->at, b->segment->param_type);
}

static void perturb_body(gr_cpu_block *b)
{
    const int32_t type = b->segment->param_type, grad = b->segment->grad_type;
    const char *gradient = gr_cpu_at(b->span->first, b->at, grad);
    gr_move_block m = { 0 };
    m.moved = gr_cpu_at(b->span->moved, b->at, type);
    m.base = b->work->noisy ? m.moved : gr_cpu_at(b->span->params, b->at, type);
    m.clean = new_clean(b);
    char *first_copy = gr_cpu_at(b->span->first_copy, b->at, grad);

    if ((b->segment->flags & GR_SEGMENT_FROZEN) != 0) {
        copy_params(b, m.moved, m.base);
        return;
    }
    if (!steps(b, gradient)) {
        copy_params(b, m.clean, m.base);
        copy_params(b, m.moved, m.base);
        keep_gradient(b, first_copy);
        return;
    }
    const int one_pass = gr_along_gradient(&b->work->step) && gradient != NULL &&
                         b->span->first == b->span->grads;
    if (one_pass) {
        m.kept = first_copy;
        if (b->work->step.options.second_gradient == GRADREG_SECOND_GRADIENT_ADDS)
            m.zeroed = gr_cpu_at(b->span->grads, b->at, grad);
    }
    step_block(b, &m, gradient, 1.0f, GR_RANDOM_ROUND_PERTURB);
    if (!one_pass)
        keep_gradient(b, first_copy);
}

gradreg_status gradreg_cpu_perturb(gr_work *work)
{
    gradreg_cpu_pass(work, perturb_body, 0, GR_MOVE_ROWS, GR_SUM_APPLIED, move_unit);
    return GRADREG_OK;
}

static void rehearse_body(gr_cpu_block *b)
{
    const int32_t type = b->segment->param_type;
    const char *gradient = gr_cpu_at(b->span->first, b->at, b->segment->grad_type);
    float scratch[GR_BLOCK];
    gr_move_block m = { 0 };
    if ((b->segment->flags & GR_SEGMENT_FROZEN) != 0 || !steps(b, gradient))
        return;
    m.base = gr_cpu_at(b->work->noisy ? b->span->moved : b->span->params, b->at, type);
    m.moved = scratch;
    step_block(b, &m, gradient, 1.0f, GR_RANDOM_ROUND_PERTURB);
}

gradreg_status gradreg_cpu_rehearse(gr_work *work)
{
    gradreg_cpu_pass(work, rehearse_body, 0, GR_MOVE_ROWS, GR_SUM_APPLIED, move_unit);
    return GRADREG_OK;
}

/* ---- the mirror image ------------------------------------------------------------ */

static void mirror_body(gr_cpu_block *b)
{
    const int32_t type = b->segment->param_type;
    const char *gradient = gr_cpu_at(b->span->first, b->at, b->segment->grad_type);
    float clean[GR_BLOCK], noisy[GR_BLOCK];
    gr_move_block m = { 0 };
    if ((b->segment->flags & GR_SEGMENT_FROZEN) != 0)
        return;
    keep_gradient(b, gr_cpu_at(b->span->plus, b->at, b->segment->grad_type));
    if (!steps(b, gradient))
        return; /* perturb left these weights where they belong */
    m.base = gradreg_cpu_clean(b, clean);
    m.moved = gr_cpu_at(b->span->moved, b->at, type);
    if (b->work->noisy && b->coefficients->noise != 0.0f &&
        (b->segment->flags & GR_SEGMENT_NOISY) != 0) {
        add_noise(b, m.base, noisy, NULL);
        m.base = (const char *)noisy;
    }
    step_block(b, &m, gradient, -1.0f, GR_RANDOM_ROUND_MIRROR);
}

gradreg_status gradreg_cpu_mirror(gr_work *work)
{
    gradreg_cpu_pass(work, mirror_body, 0, GR_MOVE_ROWS, GR_SUM_MIRROR_APPLIED, move_unit);
    return GRADREG_OK;
}
