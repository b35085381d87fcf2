/* cuda_move.cuh - what every move of weights shares: its sums, its factors, its pointers.
 *
 * In: a block, an element before and after. Out: the rows of sums behind the terms, copies and kept
 * gradients. cuda_perturb.cu has the step that nearly every call takes, cuda_move.cu the others. */
#ifndef GRADREG_LIB_CUDA_MOVE_CUH
#define GRADREG_LIB_CUDA_MOVE_CUH

#include "cuda_direction.cuh"

enum { GR_MOVE_ROWS = GR_MOVE_SUMS + 2 }; /* sums, changed, saturated */

/* ---- one element ----------------------------------------------------------------- */

/* What a block's elements add up to in one thread. */
template <int KEPT> struct gr_move_sums {
    gr_lanes<GR_MOVE_SUMS, KEPT> lanes; /* KEPT as there */
    uint32_t changed, saturated;
};

typedef struct gr_move_factors {
    float coefficient, scale_applied, scale_u, scale_slope;
    int32_t compute;
} gr_move_factors;

template <int KEPT>
GR_DEVICE void gr_move_add(gr_move_sums<KEPT> *sums, const gr_move_factors &f, int k,
                           float before, float after, float u)
{
    if (f.compute != 0) {
        before = gr_round_to(f.compute, before);
        after = gr_round_to(f.compute, after);
    }
    sums->changed += before != after;
    const float applied = (after - before) * f.scale_applied;
    gr_add(&sums->lanes, GR_MOVE_APPLIED, k, applied, applied);
    gr_add(&sums->lanes, GR_MOVE_ALONG, k, applied, u * f.scale_u);
}

template <int KEPT>
GR_DEVICE void gr_move_add_slope(gr_move_sums<KEPT> *sums, const gr_move_factors &f, int k,
                                 float before, float after, float slope)
{
    before = gr_round_to(f.compute, before);
    after = gr_round_to(f.compute, after);
    const float applied = (after - before) * f.scale_applied;
    gr_add(&sums->lanes, GR_MOVE_SLOPE, k, applied, slope * f.scale_slope);
}

template <int KEPT> GR_DEVICE void gr_move_finish(gr_move_sums<KEPT> *sums, const gr_rows &out)
{
    gr_give_lanes(&sums->lanes, out);
    gr_give(out, GR_MOVE_SUMS, static_cast<double>(gr_total(sums->changed)));
    gr_give(out, GR_MOVE_SUMS + 1, static_cast<double>(gr_total(sums->saturated)));
}

/* ---- the pointers of a block ----------------------------------------------------- */

/* Where the clean copy goes; NULL where inject has made it already, or where none is held. */
GR_DEVICE char *gr_new_clean(const gr_cuda_block &b)
{
    if ((b.walk->noisy && (b.unit->flags & GR_SEGMENT_NOISY) != 0) ||
        (b.unit->flags & GR_SEGMENT_PERTURBED) == 0)
        return NULL;
    return gr_at_word(b, GR_WORD_CLEAN, gr_size_any(b.unit->param_type));
}

GR_DEVICE void gr_copy_if(char *to, const char *from, uint32_t bytes)
{
    if (to != NULL && to != from)
        gr_copy_bytes(to, from, bytes);
}

/* Along the gradient, no gradient is no step. */
GR_DEVICE bool gr_steps(const gr_cuda_block &b, const char *gradient)
{
    return (b.unit->flags & GR_SEGMENT_PERTURBED) != 0 && gr_coefficients_of(b)->move != 0.0f &&
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
        gr_copy_bytes(copy, grads, b.warp->n * size);
    __syncwarp();
    if (b.step->options.second_gradient == GRADREG_SECOND_GRADIENT_ADDS)
        gr_clear_bytes(grads, b.warp->n * size);
}

GR_DEVICE gr_move_factors gr_factors(const gr_cuda_block &b, float sign)
{
    const gr_coefficients *k = gr_coefficients_of(b);
    return { sign * k->move, k->scale_applied, k->scale_u, k->scale_slope,
             b.unit->compute_type };
}

/* Segments that stay: their copies are made all the same. */
GR_DEVICE void gr_stand(const gr_cuda_block &b, const char *base)
{
    const uint32_t p = gr_size_any(b.unit->param_type), g = gr_size_any(b.unit->grad_type);
    char *moved = gr_at_word(b, GR_WORD_MOVED, p);
    if ((b.unit->flags & GR_SEGMENT_FROZEN) == 0)
        gr_copy_if(gr_new_clean(b), base, b.warp->n * p);
    gr_copy_if(moved, base, b.warp->n * p);
    if ((b.unit->flags & GR_SEGMENT_FROZEN) == 0)
        gr_keep_gradient(b, gr_at_word(b, GR_WORD_FIRST_COPY, g), g);
}

/* ---- on the host ----------------------------------------------------------------- */

/* Begins a walk that moves; its sums go to the rows from first_row on. */
gradreg_status gradreg_cuda_start_move(gr_work *work, gr_walk *walk, int first_row, int units);

/* Along the gradient, forward, to nearest. */
gradreg_status gradreg_cuda_perturb_plainly(gr_work *work);

#endif
