/* cuda_move.cu - the other passes that move weights: noise, any step, its mirror image.
 *
 * In: theta, a direction, coefficients. Out: theta', clean copies, kept gradients, and what of the
 * step reached the weights. One kernel for all of them and all types. */
#include "cuda_move.cuh"

#include "cuda_stages.h"

enum gr_move_kind { GR_MOVE_INJECT, GR_MOVE_PERTURB, GR_MOVE_REHEARSE, GR_MOVE_MIRROR };

/* One move: where from, where to, along what. Types are the segment's, and no constants. */
typedef struct gr_move {
    gr_clean base;
    char *moved; /* NULL: only the sums */
    char *clean;
    const char *gradient; /* u, or the slope when u is another direction */
    int along;            /* u is the gradient */
    int noise;            /* u is the kept noise direction */
    int adds_noise;       /* base is clean + noise */
    int slopes;           /* the slope is summed too: gradient is another direction's */
    uint32_t purpose;
    gr_move_factors factors;
} gr_move;

/* Rounds the exact sum; gives the bit pattern. */
GR_DEVICE uint32_t gr_encode_stochastic(int32_t type, double exact, uint32_t random,
                                        uint32_t *saturated)
{
    if (type == GRADREG_TYPE_F32)
        return gr_f32_bits(gr_round_stochastic_f32(exact, random));
    *saturated += static_cast<uint32_t>(gr_saturates_stochastic(type, exact, random));
    return gr_round_stochastic_half(type, exact, random);
}

GR_DEVICE bool gr_to_nearest(const gr_cuda_block &b)
{
    return b.step->options.rounding == GRADREG_ROUNDING_NEAREST;
}

/* theta + coefficient u in theta's type, either way of rounding, for four elements. Stochastic
 * rounding is in double: one element after another, each in turn the first, saves registers. */
GR_DEVICE void gr_move_quad(const gr_cuda_block &b, uint32_t theta[4], float coefficient,
                            float u[4], gr_four random, uint32_t *saturated)
{
    const int32_t type = b.unit->param_type;
    if (gr_to_nearest(b)) {
        GR_UNROLL
        for (int k = 0; k < 4; k++)
            theta[k] = gr_encode_any(
                type, GR_MOVE(gr_decode_any(type, theta[k]), coefficient, u[k]), saturated);
        return;
    }
    GR_NO_UNROLL
    for (int k = 0; k < 4; k++) {
        const double before = static_cast<double>(gr_decode_any(type, theta[0]));
        const double exact =
            GR_MOVE(before, static_cast<double>(coefficient), static_cast<double>(u[0]));
        const uint32_t moved = gr_encode_stochastic(type, exact, random.word[0], saturated);
        const float first = u[0];
        theta[0] = theta[1], theta[1] = theta[2], theta[2] = theta[3], theta[3] = moved;
        u[0] = u[1], u[1] = u[2], u[2] = u[3], u[3] = first;
        random = { { random.word[1], random.word[2], random.word[3], 0u } };
    }
}

GR_DEVICE gr_four gr_rounding_words(const gr_cuda_block &b, uint32_t purpose, uint32_t i)
{
    const gr_four none = {};
    return gr_to_nearest(b)
               ? none
               : gr_draw_4(b, GR_DRAW_WORDS, purpose, b.warp->begin + i + 4 * gr_quad());
}

/* round(theta + noise), as inject made it. */
GR_DEVICE void gr_add_noise(const gr_cuda_block &b, uint32_t theta[4], uint32_t i)
{
    float noise[4];
    uint32_t ignored = 0;
    const gr_four random = gr_rounding_words(b, GR_RANDOM_ROUND_NOISE, i);
    gr_load_numbers_row(noise, GRADREG_TYPE_F32, b, gr_at_word(b, GR_WORD_NOISE, 4), i);
    gr_move_quad(b, theta, gr_coefficients_of(b)->noise, noise, random, &ignored);
}

GR_DEVICE void gr_load_along(const gr_cuda_block &b, const gr_move &m, uint32_t i, float u[4])
{
    if (m.noise)
        gr_load_numbers_row(u, GRADREG_TYPE_F32, b, gr_at_word(b, GR_WORD_NOISE, 4), i);
    else if (m.along)
        gr_load_numbers_row(u, b.unit->grad_type, b, m.gradient, i);
    else
        gr_direction(b, i, u);
}

/* A row at a time, draws first: they need the most registers. */
GR_DEVICE void gr_move_row(const gr_cuda_block &b, const gr_move &m, uint32_t i,
                           gr_move_sums<0> *sums)
{
    const int32_t type = b.unit->param_type;
    uint32_t theta[4], moved[4];
    float u[4], slope[4];
    const gr_four random = gr_rounding_words(b, m.purpose, i);
    gr_load_along(b, m, i, u);
    gr_load_clean_row(theta, b, m.base, i);
    if (m.clean != NULL)
        gr_store_row(m.clean, b.unit->param_type, b, theta, i);
    if (m.adds_noise)
        gr_add_noise(b, theta, i);
    if (m.slopes)
        gr_load_numbers_row(slope, b.unit->grad_type, b, m.gradient, i);
    GR_UNROLL
    for (int k = 0; k < 4; k++)
        moved[k] = theta[k];
    gr_move_quad(b, moved, m.factors.coefficient, u, random, &sums->saturated);
    GR_UNROLL
    for (int k = 0; k < 4; k++) {
        const float before = gr_decode_any(type, theta[k]),
                    after = gr_decode_any(type, moved[k]);
        gr_move_add(sums, m.factors, k, before, after, u[k]);
        if (m.slopes)
            gr_move_add_slope(sums, m.factors, k, before, after, slope[k]);
    }
    if (m.moved != NULL)
        gr_store_row(m.moved, type, b, moved, i);
}

GR_DEVICE void gr_move_rows(const gr_cuda_block &b, const gr_move &m, const gr_rows &out)
{
    GR_SHARED(float, lanes, (gr_lanes<GR_MOVE_SUMS, 0>::SHARED));
    gr_move_sums<0> sums;
    gr_clear_lanes(&sums.lanes, lanes);
    sums.changed = sums.saturated = 0;
    GR_NO_UNROLL
    for (uint32_t i = 0; i < b.warp->n; i += GR_LANES)
        gr_move_row(b, m, i, &sums);
    gr_move_finish(&sums, out);
}

/* Whether there is something to move; the copies that need no move are made here. */
GR_DEVICE bool gr_prepare_inject(const gr_cuda_block &b, gr_move *m)
{
    const gr_coefficients *k = gr_coefficients_of(b);
    const uint32_t size = gr_size_any(b.unit->param_type), bytes = b.warp->n * size;
    const char *params = gr_at_word(b, GR_WORD_PARAMS, size);
    m->base = { params, NULL };
    m->moved = gr_at_word(b, GR_WORD_MOVED, size);
    m->clean = gr_at_word(b, GR_WORD_CLEAN, size);
    m->noise = 1;
    m->purpose = GR_RANDOM_ROUND_NOISE;
    m->factors = { k->noise, k->noise_scale_applied, k->noise_scale_u, 1.0f,
                   b.unit->compute_type };
    if ((b.unit->flags & GR_SEGMENT_NOISY) != 0 && k->noise != 0.0f)
        return true;
    if ((b.unit->flags & GR_SEGMENT_NOISY) != 0)
        gr_copy_if(m->clean, params, bytes);
    gr_copy_if(m->moved, params, bytes);
    return false;
}

GR_DEVICE bool gr_prepare_perturb(const gr_cuda_block &b, bool rehearses, gr_move *m)
{
    const uint32_t size = gr_size_any(b.unit->param_type);
    char *moved = gr_at_word(b, GR_WORD_MOVED, size);
    const char *base = b.walk->noisy ? moved : gr_at_word(b, GR_WORD_PARAMS, size);
    m->gradient = gr_at(b, gr_first_of(b), gr_size_any(b.unit->grad_type));
    if ((b.unit->flags & GR_SEGMENT_FROZEN) != 0 || !gr_steps(b, m->gradient)) {
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
    const uint32_t size = gr_size_any(b.unit->grad_type);
    m->gradient = gr_at(b, gr_first_of(b), size);
    if ((b.unit->flags & GR_SEGMENT_FROZEN) != 0)
        return false;
    gr_keep_gradient(b, gr_at_word(b, GR_WORD_PLUS, size), size);
    __syncwarp();
    if (!gr_steps(b, m->gradient))
        return false; /* perturb left these weights where they belong */
    m->base = gr_clean_any(b);
    m->moved = gr_at_word(b, GR_WORD_MOVED, gr_size_any(b.unit->param_type));
    m->along = gr_along_gradient(b.step);
    m->adds_noise = b.walk->noisy && gr_coefficients_of(b)->noise != 0.0f &&
                    (b.unit->flags & GR_SEGMENT_NOISY) != 0;
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

    GR_DEVICE_MEMBER bool prepare(const gr_cuda_block &b, gr_move *m) const
    {
        const gr_move none = {};
        *m = none;
        const bool moves = kind == GR_MOVE_INJECT ? gr_prepare_inject(b, m)
                           : kind == GR_MOVE_MIRROR
                               ? gr_prepare_mirror(b, m)
                               : gr_prepare_perturb(b, kind == GR_MOVE_REHEARSE, m);
        m->slopes = !m->along && !m->noise && m->gradient != NULL;
        return moves;
    }

    /* What a row needs of the move lies in shared memory, one a warp: registers are for the row. */
    GR_DEVICE_MEMBER void run(const gr_cuda_block &b, const gr_rows &out) const
    {
        GR_SHARED(gr_move, all, GR_PASS_WARPS);
        gr_move *mine = &all[threadIdx.x / 32];
        gr_move m;
        const bool moves = prepare(b, &m);
        const uint32_t size = gr_size_any(b.unit->grad_type);
        if (!moves)
            return;
        __syncwarp();
        if (gr_thread() == 0)
            *mine = m;
        __syncwarp();
        gr_move_rows(b, *mine, out);
        if (kind == GR_MOVE_PERTURB)
            gr_keep_gradient(b, gr_at_word(b, GR_WORD_FIRST_COPY, size), size);
    }
};

__global__ void __launch_bounds__(GR_PASS_THREADS, GR_PASS_RESIDENT)
    gradreg_cuda_k_move(const gr_walk walk, const gr_step step, int kind)
{
    const gr_move_body body = { kind };
    (void)gr_pass(walk, step, body);
}

/* ---- the ops --------------------------------------------------------------------- */

gradreg_status gradreg_cuda_start_move(gr_work *work, gr_walk *walk, int first_row, int units)
{
    GR_TRY(gradreg_cuda_flush(work, NULL));
    GR_TRY(gradreg_cuda_walk(work, walk));
    walk->rows = GR_MOVE_ROWS;
    walk->first_row = first_row;
    walk->units = units;
    walk->folds = 1;
    return GRADREG_OK;
}

static gradreg_status launch_any(gr_work *work, int kind, int first_row, int units)
{
    const gr_cuda_context *c = gr_cuda_of(work->context);
    gr_walk walk;
    GR_TRY(gradreg_cuda_start_move(work, &walk, first_row, units));
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
    if (p->rounding != GRADREG_ROUNDING_NEAREST || p->direction != GRADREG_DIRECTION_GRADIENT)
        return launch_any(work, GR_MOVE_PERTURB, GR_SUM_APPLIED, GR_UNITS_MOVE);
    return gradreg_cuda_perturb_plainly(work);
}

gradreg_status gradreg_cuda_rehearse(gr_work *work)
{
    return launch_any(work, GR_MOVE_REHEARSE, GR_SUM_APPLIED, GR_UNITS_MOVE);
}

gradreg_status gradreg_cuda_mirror(gr_work *work)
{
    return launch_any(work, GR_MOVE_MIRROR, GR_SUM_MIRROR_APPLIED, GR_UNITS_MOVE);
}

gradreg_status gradreg_cuda_load_move(void)
{
    return gr_cuda_load(gradreg_cuda_k_move);
}
