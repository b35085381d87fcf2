/* cuda_perturb.cu - the step that nearly every call takes: along the gradient, forward, to nearest.
 *
 * In: theta, g1, coefficients. Out: theta', clean copies, kept gradients, and what of the step reached the
 * weights. A kernel per pair of types, which reads theta and g1 once. */
#include "cuda_move.cuh"

#include "cuda_stages.h"
#include "cuda_types.h"

/* ---- a plain step ---------------------------------------------------------------- */

/* What a plain step reads and writes; all may be NULL but base, moved and gradient. In shared memory,
 * one a warp: registers are for the tile. */
typedef struct gr_plain {
    const char *base, *gradient;
    char *moved, *clean, *copy, *zeroed;
    gr_move_factors factors;
    int aligned;
} gr_plain;

template <int P, int G>
GR_DEVICE void gr_plain_tile(const gr_cuda_block &b, const gr_plain &p, uint32_t i,
                             gr_move_sums<GR_MOVE_SUMS> *sums)
{
    const bool wide = p.aligned && i + GR_TILE <= b.warp->n;
    gr_tile<P> theta;
    gr_tile<G> u;
    gr_load(&theta, p.base, p.clean, i, b.warp->n, wide, gr_stage(b));
    gr_load(&u, p.gradient, p.copy, i, b.warp->n, wide, gr_stage(b));
    GR_UNROLL
    for (int k = 0; k < 8; k++) {
        const float before = gr_get(theta, k), direction = gr_get(u, k);
        const float sum = GR_MOVE(before, p.factors.coefficient, direction);
        const float after = gr_put(&theta, k, sum, &sums->saturated);
        gr_move_add(sums, p.factors, k, before, after, direction);
    }
    gr_store(p.moved, theta, i, b.warp->n, wide, gr_stage(b));
    if (p.zeroed != NULL)
        gr_clear<G>(p.zeroed, i, b.warp->n, wide);
}

/* Along the gradient, to nearest, forward: reads theta and g1 once and makes all copies on the way. */
template <int P, int G>
GR_DEVICE void gr_plain_step(const gr_cuda_block &b, const char *base, const char *gradient,
                             const gr_rows &out)
{
    GR_SHARED(gr_plain, all, GR_PASS_WARPS);
    char *grads = gr_at_word(b, GR_WORD_GRADS, gr_size_of<G>());
    gr_plain mine = {
        base,
        gradient,
        gr_at_word(b, GR_WORD_MOVED, gr_size_of<P>()),
        gr_new_clean(b),
        grads == gradient ? gr_at_word(b, GR_WORD_FIRST_COPY, gr_size_of<G>()) : NULL,
        b.step->options.second_gradient == GRADREG_SECOND_GRADIENT_ADDS ? grads : NULL,
        gr_factors(b, 1.0f),
        0
    };
    mine.aligned = gr_is_wide(base) && gr_is_wide(mine.moved) && gr_is_wide(mine.clean) &&
                   gr_is_wide(gradient) && gr_is_wide(mine.copy) && gr_is_wide(mine.zeroed);
    gr_move_sums<GR_MOVE_SUMS> sums = {};
    __syncwarp();
    if (gr_thread() == 0)
        all[threadIdx.x / 32] = mine;
    __syncwarp();
    GR_NO_UNROLL
    for (uint32_t i = 0; i < b.warp->n; i += GR_TILE)
        gr_plain_tile<P, G>(b, all[threadIdx.x / 32], i, &sums);
    gr_move_finish(&sums, out);
}

template <int P, int G> struct gr_plain_body {
    static constexpr int ROWS = GR_MOVE_ROWS;

    GR_DEVICE_MEMBER bool takes(int32_t param_type, int32_t grad_type) const
    {
        return param_type == P && grad_type == G;
    }

    GR_DEVICE_MEMBER void run(const gr_cuda_block &b, const gr_rows &out) const
    {
        const char *gradient = gr_at(b, gr_first_of(b), gr_size_of<G>());
        const char *base = b.walk->noisy ? gr_at_word(b, GR_WORD_MOVED, gr_size_of<P>())
                                         : gr_at_word(b, GR_WORD_PARAMS, gr_size_of<P>());
        if ((b.unit->flags & GR_SEGMENT_FROZEN) != 0 || !gr_steps(b, gradient))
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

/* ---- the op ---------------------------------------------------------------------- */

template <int P, int G> static gradreg_status launch_pair(gr_work *work, const gr_walk *walk)
{
    const gr_cuda_context *c = gr_cuda_of(work->context);
    GR_LAUNCH((gradreg_cuda_k_perturb<P, G>),
              gr_cuda_grid(c, walk->unit_count, GR_PASS_PER_PROCESSOR), GR_PASS_THREADS, 0,
              c->stream, *walk, work->step);
    GR_CUDA_TRY_LAUNCH("perturb");
    return GRADREG_OK;
}

/* One launch per pair of types that is there. */
gradreg_status gradreg_cuda_perturb_plainly(gr_work *work)
{
    gr_walk walk;
    GR_TRY(gradreg_cuda_start_move(work, &walk, GR_SUM_APPLIED, GR_UNITS_MOVE));
    return gr_cuda_for_pairs(gradreg_cuda_pairs(work), [&](auto p, auto g, int last) {
        walk.folds = last;
        return launch_pair<p, g>(work, &walk);
    });
}

gradreg_status gradreg_cuda_load_perturb(void)
{
    return gr_cuda_for_pairs(GR_ALL_PAIRS, [](auto p, auto g, int) {
        return gr_cuda_load(gradreg_cuda_k_perturb<p, g>);
    });
}
