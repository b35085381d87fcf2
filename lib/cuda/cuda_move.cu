/* cuda_move.cu - the passes that move weights: noise, the step, its mirror image.
 *
 * In: theta, a direction, coefficients. Out: theta', clean copies, kept gradients, and what of the
 * step reached the weights. Nearly every step goes along the gradient and rounds to nearest: it has
 * a kernel of its own per pair of types, everything else shares one. */
#include "cuda_stages.h"

#include "cuda_direction.cuh"

enum { GR_MOVE_ROWS = GR_MOVE_SUMS + 2 }; /* sums, changed, saturated */

enum gr_move_kind { GR_MOVE_INJECT, GR_MOVE_PERTURB, GR_MOVE_REHEARSE, GR_MOVE_MIRROR };

/* ---- one element ----------------------------------------------------------------- */

/* What a block's elements add up to in one thread. */
typedef struct gr_move_sums {
    float lane[GR_MOVE_SUMS][4];
    uint32_t changed, saturated;
} gr_move_sums;

typedef struct gr_move_factors {
    float coefficient, scale_applied, scale_u, scale_slope;
    int32_t compute;
} gr_move_factors;

GR_DEVICE float gr_round_compute(int32_t type, float x)
{
    if (type == GRADREG_TYPE_BF16)
        return gr_bf16_to_f32(gr_f32_to_bf16(x));
    if (type == GRADREG_TYPE_F16)
        return gr_f16_to_f32(gr_f32_to_f16_saturating(x));
    return x;
}

GR_DEVICE void gr_move_add(gr_move_sums *sums, const gr_move_factors &f, int k, float before,
                           float after, float u)
{
    if (f.compute != 0) {
        before = gr_round_compute(f.compute, before);
        after = gr_round_compute(f.compute, after);
    }
    sums->changed += before != after;
    const float applied = (after - before) * f.scale_applied;
    float *squares = &sums->lane[GR_MOVE_APPLIED][k % 4],
          *along = &sums->lane[GR_MOVE_ALONG][k % 4];
    *squares = GR_ACCUMULATE(*squares, applied, applied);
    *along = GR_ACCUMULATE(*along, applied, u * f.scale_u);
}

GR_DEVICE void gr_move_add_slope(gr_move_sums *sums, const gr_move_factors &f, int k,
                                 float before, float after, float slope)
{
    before = gr_round_compute(f.compute, before);
    after = gr_round_compute(f.compute, after);
    const float applied = (after - before) * f.scale_applied;
    float *sum = &sums->lane[GR_MOVE_SLOPE][k % 4];
    *sum = GR_ACCUMULATE(*sum, applied, slope * f.scale_slope);
}

GR_DEVICE void gr_move_finish(const gr_move_sums &sums, double *out)
{
    GR_UNROLL
    for (int k = 0; k < GR_MOVE_SUMS; k++)
        gr_give(out, k, gr_tree_quads(sums.lane[k]));
    gr_give(out, GR_MOVE_SUMS, static_cast<double>(gr_total(sums.changed)));
    gr_give(out, GR_MOVE_SUMS + 1, static_cast<double>(gr_total(sums.saturated)));
}

/* ---- the pointers of a block ----------------------------------------------------- */

/* Where the clean copy goes; NULL where inject has made it already, or where none is held. */
GR_DEVICE char *gr_new_clean(const gr_cuda_block &b)
{
    if ((b.walk->noisy && (b.flags & GR_SEGMENT_NOISY) != 0) ||
        (b.flags & GR_SEGMENT_PERTURBED) == 0)
        return NULL;
    return gr_at_word(b, GR_WORD_CLEAN, gr_size_any(b.param_type));
}

GR_DEVICE void gr_copy_if(char *to, const char *from, uint32_t bytes)
{
    if (to != NULL && to != from)
        gr_copy_bytes(to, from, bytes);
}

/* Along the gradient, no gradient is no step. */
GR_DEVICE bool gr_steps(const gr_cuda_block &b, const char *gradient)
{
    return (b.flags & GR_SEGMENT_PERTURBED) != 0 && b.coefficients->move != 0.0f &&
           (gradient != NULL || !gr_along_gradient(b.step));
}

/* Keeps g1, and zeroes what the next backward pass adds into. */
GR_DEVICE void gr_keep_gradient(const gr_cuda_block &b, char *copy, uint32_t size)
{
    char *grads = gr_at_word(b, GR_WORD_GRADS, size);
    if (grads == NULL)
        return;
    __syncwarp();
    if (copy != NULL)
        gr_copy_bytes(copy, grads, b.n * size);
    __syncwarp();
    if (b.step->options.second_gradient == GRADREG_SECOND_GRADIENT_ADDS)
        gr_clear_bytes(grads, b.n * size);
}

GR_DEVICE gr_move_factors gr_factors(const gr_cuda_block &b, float sign)
{
    const gr_coefficients *k = b.coefficients;
    return { sign * k->move, k->scale_applied, k->scale_u, k->scale_slope, b.compute_type };
}

/* ---- a plain step ---------------------------------------------------------------- */

/* Where a plain step reads and writes; all may be NULL but base, moved and gradient. */
typedef struct gr_plain {
    const char *base, *gradient;
    char *moved, *clean, *copy, *zeroed;
} gr_plain;

template <int P, int G>
GR_DEVICE void gr_plain_tile(const gr_cuda_block &b, const gr_plain &p,
                             const gr_move_factors &f, uint32_t i, bool wide,
                             gr_move_sums *sums)
{
    gr_tile<P> theta;
    gr_tile<G> u;
    gr_load(&theta, p.base, p.clean, i, b.n, wide, b.stage);
    gr_load(&u, p.gradient, p.copy, i, b.n, wide, b.stage);
    GR_UNROLL
    for (int k = 0; k < 8; k++) {
        const float before = gr_get(theta, k), direction = gr_get(u, k);
        const float sum = GR_MOVE(before, f.coefficient, direction);
        const float after = gr_put(&theta, k, sum, &sums->saturated);
        gr_move_add(sums, f, k, before, after, direction);
    }
    gr_store(p.moved, theta, i, b.n, wide, b.stage);
    if (p.zeroed != NULL)
        gr_clear<G>(p.zeroed, i, b.n, wide);
}

/* Along the gradient, to nearest, forward: reads theta and g1 once and makes all copies on the way. */
template <int P, int G>
GR_DEVICE void gr_plain_step(const gr_cuda_block &b, const char *base, const char *gradient,
                             double *out)
{
    const gr_move_factors f = gr_factors(b, 1.0f);
    char *grads = gr_at_word(b, GR_WORD_GRADS, gr_size_of<G>());
    const gr_plain p = {
        base,
        gradient,
        gr_at_word(b, GR_WORD_MOVED, gr_size_of<P>()),
        gr_new_clean(b),
        grads == gradient ? gr_at_word(b, GR_WORD_FIRST_COPY, gr_size_of<G>()) : NULL,
        b.step->options.second_gradient == GRADREG_SECOND_GRADIENT_ADDS ? grads : NULL
    };
    const bool aligned = gr_is_wide(base) && gr_is_wide(p.moved) && gr_is_wide(p.clean) &&
                         gr_is_wide(gradient) && gr_is_wide(p.copy) && gr_is_wide(p.zeroed);
    gr_move_sums sums = {};
    GR_NO_UNROLL
    for (uint32_t i = 0; i < b.n; i += GR_TILE)
        gr_plain_tile<P, G>(b, p, f, i, aligned && i + GR_TILE <= b.n, &sums);
    gr_move_finish(sums, out);
}

/* Segments that stay: their copies are made all the same. */
GR_DEVICE void gr_stand(const gr_cuda_block &b, const char *base)
{
    const uint32_t p = gr_size_any(b.param_type), g = gr_size_any(b.grad_type);
    char *moved = gr_at_word(b, GR_WORD_MOVED, p);
    if ((b.flags & GR_SEGMENT_FROZEN) == 0)
        gr_copy_if(gr_new_clean(b), base, b.n * p);
    gr_copy_if(moved, base, b.n * p);
    if ((b.flags & GR_SEGMENT_FROZEN) == 0)
        gr_keep_gradient(b, gr_at_word(b, GR_WORD_FIRST_COPY, g), g);
}

template <int P, int G> struct gr_plain_body {
    static constexpr int ROWS = GR_MOVE_ROWS;

    GR_DEVICE_MEMBER bool takes(int32_t param_type, int32_t grad_type) const
    {
        return param_type == P && grad_type == G;
    }

    GR_DEVICE_MEMBER void run(const gr_cuda_block &b, double *out) const
    {
        const char *gradient = gr_at(b, gr_first_of(b), gr_size_of<G>());
        const char *base = b.walk->noisy ? gr_at_word(b, GR_WORD_MOVED, gr_size_of<P>())
                                         : gr_at_word(b, GR_WORD_PARAMS, gr_size_of<P>());
        if ((b.flags & GR_SEGMENT_FROZEN) != 0 || !gr_steps(b, gradient))
            gr_stand(b, base);
        else
            gr_plain_step<P, G>(b, base, gradient, out);
    }
};

template <int P, int G>
__global__ void __launch_bounds__(GR_PASS_THREADS, GR_PASS_RESIDENT)
    gradreg_cuda_k_perturb(const gr_walk walk, const gr_step step)
{
    const gr_plain_body<P, G> body = {};
    (void)gr_pass(walk, step, body);
}

/* ---- any step -------------------------------------------------------------------- */

/* One move: where from, where to, along what. Types are the segment's, and no constants. */
typedef struct gr_move {
    gr_clean base;
    char *moved; /* NULL: only the sums */
    char *clean;
    const char *gradient; /* u, or the slope when u is another direction */
    int along;            /* u is the gradient */
    int noise;            /* u is the kept noise direction */
    int adds_noise;       /* base is clean + noise */
    uint32_t purpose;
    gr_move_factors factors;
} gr_move;

/* Rounds the exact sum; gives the bit pattern. */
GR_DEVICE uint32_t gr_encode_stochastic(int32_t type, double exact, uint32_t random,
                                        uint32_t *saturated)
{
    if (type == GRADREG_TYPE_F32)
        return gr_f32_bits(gr_round_stochastic_f32(exact, random));
    if (type == GRADREG_TYPE_BF16)
        return gr_round_stochastic_bf16(exact, random);
    *saturated += static_cast<uint32_t>(gr_f16_saturates_stochastic(exact, random));
    return gr_round_stochastic_f16(exact, random);
}

GR_DEVICE bool gr_to_nearest(const gr_cuda_block &b)
{
    return b.step->options.rounding == GRADREG_ROUNDING_NEAREST;
}

/* theta + coefficient u in theta's type, either way of rounding. */
GR_DEVICE uint32_t gr_move_one(const gr_cuda_block &b, float before, float coefficient, float u,
                               uint32_t random, uint32_t *saturated)
{
    if (gr_to_nearest(b))
        return gr_encode_any(b.param_type, GR_MOVE(before, coefficient, u), saturated);
    const double exact = GR_MOVE(static_cast<double>(before), static_cast<double>(coefficient),
                                 static_cast<double>(u));
    return gr_encode_stochastic(b.param_type, exact, random, saturated);
}

GR_DEVICE void gr_rounding_words(const gr_cuda_block &b, uint32_t purpose, uint32_t i,
                                 uint32_t out[8])
{
    if (!gr_to_nearest(b)) {
        gr_draw_8(b, GR_DRAW_WORDS, purpose, i, out);
        return;
    }
    GR_UNROLL
    for (int k = 0; k < 8; k++)
        out[k] = 0;
}

/* round(theta + noise), as inject made it. */
GR_DEVICE void gr_add_noise(const gr_cuda_block &b, uint32_t theta[8], uint32_t i)
{
    float noise[8];
    uint32_t random[8], ignored = 0;
    gr_load_any(noise, GRADREG_TYPE_F32, b, gr_at_word(b, GR_WORD_NOISE, 4), i);
    gr_rounding_words(b, GR_RANDOM_ROUND_NOISE, i, random);
    GR_UNROLL
    for (int k = 0; k < 8; k++)
        theta[k] = gr_move_one(b, gr_decode_any(b.param_type, theta[k]), b.coefficients->noise,
                               noise[k], random[k], &ignored);
}

GR_DEVICE void gr_move_tile(const gr_cuda_block &b, const gr_move &m, uint32_t i,
                            gr_move_sums *sums)
{
    const bool slopes = !m.along && !m.noise && m.gradient != NULL;
    uint32_t theta[8], random[8];
    float u[8], slope[8];
    gr_load_clean_any(theta, b, m.base, m.clean, i);
    if (m.adds_noise)
        gr_add_noise(b, theta, i);
    if (m.noise)
        gr_load_any(u, GRADREG_TYPE_F32, b, gr_at_word(b, GR_WORD_NOISE, 4), i);
    else if (m.along)
        gr_load_any(u, b.grad_type, b, m.gradient, i);
    else
        gr_direction(b, i, u);
    if (slopes)
        gr_load_any(slope, b.grad_type, b, m.gradient, i);
    gr_rounding_words(b, m.purpose, i, random);
    GR_UNROLL
    for (int k = 0; k < 8; k++) {
        const float before = gr_decode_any(b.param_type, theta[k]);
        theta[k] =
            gr_move_one(b, before, m.factors.coefficient, u[k], random[k], &sums->saturated);
        const float after = gr_decode_any(b.param_type, theta[k]);
        gr_move_add(sums, m.factors, k, before, after, u[k]);
        if (slopes)
            gr_move_add_slope(sums, m.factors, k, before, after, slope[k]);
    }
    if (m.moved != NULL)
        gr_store_bits(m.moved, b.param_type, b, theta, i);
}

GR_DEVICE void gr_move_tiles(const gr_cuda_block &b, const gr_move &m, double *out)
{
    gr_move_sums sums = {};
    GR_NO_UNROLL
    for (uint32_t i = 0; i < b.n; i += GR_TILE)
        gr_move_tile(b, m, i, &sums);
    gr_move_finish(sums, out);
}

/* Whether there is something to move; the copies that need no move are made here. */
GR_DEVICE bool gr_prepare_inject(const gr_cuda_block &b, gr_move *m)
{
    const gr_coefficients *k = b.coefficients;
    const uint32_t size = gr_size_any(b.param_type), bytes = b.n * size;
    const char *params = gr_at_word(b, GR_WORD_PARAMS, size);
    m->base = { params, NULL };
    m->moved = gr_at_word(b, GR_WORD_MOVED, size);
    m->clean = gr_at_word(b, GR_WORD_CLEAN, size);
    m->noise = 1;
    m->purpose = GR_RANDOM_ROUND_NOISE;
    m->factors = { k->noise, k->noise_scale_applied, k->noise_scale_u, 1.0f, b.compute_type };
    if ((b.flags & GR_SEGMENT_NOISY) != 0 && k->noise != 0.0f)
        return true;
    if ((b.flags & GR_SEGMENT_NOISY) != 0)
        gr_copy_if(m->clean, params, bytes);
    gr_copy_if(m->moved, params, bytes);
    return false;
}

GR_DEVICE bool gr_prepare_perturb(const gr_cuda_block &b, bool rehearses, gr_move *m)
{
    const uint32_t size = gr_size_any(b.param_type);
    char *moved = gr_at_word(b, GR_WORD_MOVED, size);
    const char *base = b.walk->noisy ? moved : gr_at_word(b, GR_WORD_PARAMS, size);
    m->gradient = gr_at(b, gr_first_of(b), gr_size_any(b.grad_type));
    if ((b.flags & GR_SEGMENT_FROZEN) != 0 || !gr_steps(b, m->gradient)) {
        if (!rehearses)
            gr_stand(b, base);
        return false;
    }
    m->base = { base, NULL };
    m->moved = rehearses ? NULL : moved;
    m->clean = rehearses ? NULL : gr_new_clean(b);
    m->along = gr_along_gradient(b.step);
    m->purpose = GR_RANDOM_ROUND_PERTURB;
    m->factors = gr_factors(b, 1.0f);
    return true;
}

GR_DEVICE bool gr_prepare_mirror(const gr_cuda_block &b, gr_move *m)
{
    const uint32_t size = gr_size_any(b.grad_type);
    m->gradient = gr_at(b, gr_first_of(b), size);
    if ((b.flags & GR_SEGMENT_FROZEN) != 0)
        return false;
    gr_keep_gradient(b, gr_at_word(b, GR_WORD_PLUS, size), size);
    __syncwarp();
    if (!gr_steps(b, m->gradient))
        return false; /* perturb left these weights where they belong */
    m->base = gr_clean_any(b);
    m->moved = gr_at_word(b, GR_WORD_MOVED, gr_size_any(b.param_type));
    m->along = gr_along_gradient(b.step);
    m->adds_noise =
        b.walk->noisy && b.coefficients->noise != 0.0f && (b.flags & GR_SEGMENT_NOISY) != 0;
    m->purpose = GR_RANDOM_ROUND_MIRROR;
    m->factors = gr_factors(b, -1.0f);
    return true;
}

struct gr_move_body {
    static constexpr int ROWS = GR_MOVE_ROWS;
    int kind;

    GR_DEVICE_MEMBER bool takes(int32_t param_type, int32_t grad_type) const
    {
        (void)param_type, (void)grad_type;
        return true;
    }

    GR_DEVICE_MEMBER void run(const gr_cuda_block &b, double *out) const
    {
        const uint32_t size = gr_size_any(b.grad_type);
        gr_move m = {};
        const bool moves = kind == GR_MOVE_INJECT ? gr_prepare_inject(b, &m)
                           : kind == GR_MOVE_MIRROR
                               ? gr_prepare_mirror(b, &m)
                               : gr_prepare_perturb(b, kind == GR_MOVE_REHEARSE, &m);
        if (!moves)
            return;
        gr_move_tiles(b, m, out);
        if (kind == GR_MOVE_PERTURB)
            gr_keep_gradient(b, gr_at_word(b, GR_WORD_FIRST_COPY, size), size);
    }
};

__global__ void __launch_bounds__(GR_PASS_THREADS)
    gradreg_cuda_k_move(const gr_walk walk, const gr_step step, int kind)
{
    const gr_move_body body = { kind };
    (void)gr_pass(walk, step, body);
}

/* ---- the ops --------------------------------------------------------------------- */

template <int P, int G> static gradreg_status launch_pair(gr_work *work, const gr_walk *walk)
{
    const gr_cuda_context *c = gr_cuda_of(work->context);
    GR_LAUNCH((gradreg_cuda_k_perturb<P, G>),
              gr_cuda_grid(c, walk->unit_count, GR_PASS_PER_PROCESSOR), GR_PASS_THREADS, 0,
              c->stream, *walk, work->step);
    GR_CUDA_TRY_LAUNCH("perturb");
    return GRADREG_OK;
}

static gradreg_status start_walk(gr_work *work, gr_walk *walk, int first_row, int units)
{
    GR_TRY(gradreg_cuda_flush(work, NULL));
    GR_TRY(gradreg_cuda_walk(work, walk));
    walk->rows = GR_MOVE_ROWS;
    walk->first_row = first_row;
    walk->units = units;
    walk->folds = 1;
    return GRADREG_OK;
}

/* One launch per pair of types that is there. */
static gradreg_status launch_plain(gr_work *work, gr_walk *walk)
{
    uint32_t pairs = gradreg_cuda_pairs(work);
    if (pairs == 0) /* nothing is here: the sums are zeros all the same */
        pairs = 1u << (GRADREG_TYPE_F32 * 4 + GRADREG_TYPE_F32);
    for (int pair = 0; pairs >> pair != 0; pair++) {
        walk->folds = pairs >> (pair + 1) == 0;
        if ((pairs >> pair & 1u) == 0)
            continue;
#define PAIR(P, G)                                                             \
    case GRADREG_TYPE_##P * 4 + GRADREG_TYPE_##G:                              \
        GR_TRY((launch_pair<GRADREG_TYPE_##P, GRADREG_TYPE_##G>(work, walk))); \
        break
        switch (pair) {
            PAIR(F32, F32);
            PAIR(BF16, F32);
            PAIR(BF16, BF16);
            PAIR(F16, F32);
            PAIR(F16, F16);
        default: break; /* options.c knows no other pair */
        }
#undef PAIR
    }
    return GRADREG_OK;
}

static gradreg_status launch_any(gr_work *work, int kind, int first_row, int units)
{
    const gr_cuda_context *c = gr_cuda_of(work->context);
    gr_walk walk;
    GR_TRY(start_walk(work, &walk, first_row, units));
    GR_LAUNCH(gradreg_cuda_k_move, gr_cuda_grid(c, walk.unit_count, GR_PASS_PER_PROCESSOR),
              GR_PASS_THREADS, 0, c->stream, walk, work->step, kind);
    GR_CUDA_TRY_LAUNCH("move");
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_inject(gr_work *work)
{
    return launch_any(work, GR_MOVE_INJECT, GR_SUM_NOISE_APPLIED, GR_UNITS_NOISE);
}

gradreg_status gradreg_cuda_perturb(gr_work *work)
{
    const gradreg_regularizer_params *p = &work->step.options;
    gr_walk walk;
    if (p->rounding != GRADREG_ROUNDING_NEAREST || p->direction != GRADREG_DIRECTION_GRADIENT)
        return launch_any(work, GR_MOVE_PERTURB, GR_SUM_APPLIED, GR_UNITS_MOVE);
    GR_TRY(start_walk(work, &walk, GR_SUM_APPLIED, GR_UNITS_MOVE));
    return launch_plain(work, &walk);
}

gradreg_status gradreg_cuda_rehearse(gr_work *work)
{
    return launch_any(work, GR_MOVE_REHEARSE, GR_SUM_APPLIED, GR_UNITS_MOVE);
}

gradreg_status gradreg_cuda_mirror(gr_work *work)
{
    return launch_any(work, GR_MOVE_MIRROR, GR_SUM_MIRROR_APPLIED, GR_UNITS_MOVE);
}
