/* cuda_squares.cu - the passes that only read: squared norms, non-finite counts, master check.
 *
 * In: gradients, a direction, or weights. Out: sums of squares and counts per bin, and, when a
 * decision follows, what it decides: the thread block that ends the pass makes it, so that a
 * decision costs no launch. A pass therefore waits on the host until the next op is known. */
#include "cuda_stages.h"

#include "cuda_decide.cuh"
#include "cuda_direction.cuh"
#include "cuda_types.h"

/* ---- one block ------------------------------------------------------------------- */

/* How a block's numbers come: stored (or rounded from master) in their own type, a tile at a time, or
 * as a direction, which is summed in f32, a row at a time. */
enum { GR_STORED, GR_DIRECTED };

template <int HOW> GR_DEVICE constexpr int gr_each()
{
    return HOW == GR_STORED ? GR_TILE_EACH : GR_TILE_EACH / 2;
}

/* The type that numbers stored as STORED are summed in. */
template <int STORED, int HOW> GR_DEVICE constexpr int gr_summed()
{
    return HOW == GR_STORED ? STORED : static_cast<int>(GRADREG_TYPE_F32);
}

template <int STORED, int HOW>
GR_DEVICE void gr_load_numbers(gr_tile<gr_summed<STORED, HOW>()> *tile, const gr_cuda_block &b,
                               const gr_clean &from, uint32_t i)
{
    const bool full = i + GR_TILE <= b.warp->n;
    if constexpr (HOW == GR_STORED) {
        gr_load_clean(tile, b, from, NULL, i, full);
    } else {
        float x[4];
        gr_direction(b, i, x);
        GR_UNROLL
        for (int k = 0; k < 4; k++)
            gr_set_bits(tile, k, gr_f32_bits(x[k]));
    }
}

/* Step 4 of reduce.h: the block again, in double. */
template <int STORED, int HOW>
GR_DEVICE double gr_squares_again(const gr_cuda_block &b, const gr_clean &from, uint32_t *bad)
{
    double sum = 0.0;
    GR_NO_UNROLL
    for (uint32_t i = 0; i < b.warp->n; i += 32 * gr_each<HOW>()) {
        gr_tile<gr_summed<STORED, HOW>()> tile = {};
        gr_load_numbers<STORED, HOW>(&tile, b, from, i);
        GR_UNROLL
        for (int k = 0; k < gr_each<HOW>(); k++) {
            const double x = static_cast<double>(gr_get(tile, k));
            sum = GR_ACCUMULATE(sum, x, x);
            *bad += static_cast<uint32_t>(gr_is_non_finite(gr_get(tile, k)));
        }
    }
    return gr_butterfly_quads(sum);
}

GR_DEVICE uint32_t gr_largest_magnitude(const float lane[4])
{
    uint32_t largest = 0;
    GR_UNROLL
    for (int c = 0; c < 4; c++) {
        const uint32_t magnitude = gr_f32_bits(lane[c]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    GR_UNROLL
    for (int offset = 16; offset >= 1; offset /= 2) {
        const uint32_t other = __shfl_xor_sync(0xffffffffu, largest, offset);
        largest = other > largest ? other : largest;
    }
    return largest;
}

/* A tile, or a row. */
template <int STORED, int HOW>
GR_DEVICE void gr_sum_numbers(const gr_cuda_block &b, const gr_clean &from, uint32_t i,
                              float lane[4], uint32_t *seen)
{
    gr_tile<gr_summed<STORED, HOW>()> tile = {};
    gr_load_numbers<STORED, HOW>(&tile, b, from, i);
    GR_UNROLL
    for (int w = 0; w < gr_tile<gr_summed<STORED, HOW>()>::WORDS; w++)
        *seen |= tile.word[w];
    GR_UNROLL
    for (int k = 0; k < gr_each<HOW>(); k++) {
        const float x = gr_get(tile, k);
        lane[k % 4] = GR_ACCUMULATE(lane[k % 4], x, x);
    }
}

template <int STORED, int HOW>
GR_DEVICE void gr_sum_block(const gr_cuda_block &b, const gr_clean &from, const gr_rows &out)
{
    float lane[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
    uint32_t seen = 0;
    if constexpr (HOW == GR_STORED) {
        GR_UNROLL_2
        for (uint32_t i = 0; i < b.warp->n; i += 32 * gr_each<HOW>())
            gr_sum_numbers<STORED, HOW>(b, from, i, lane, &seen);
    } else {
        GR_NO_UNROLL /* a draw is long */
            for (uint32_t i = 0; i < b.warp->n; i += 32 * gr_each<HOW>())
                gr_sum_numbers<STORED, HOW>(b, from, i, lane, &seen);
    }
    if (gr_magnitude_in_range(gr_largest_magnitude(lane))) {
        gr_give(out, 0, gr_tree_quads(lane));
        return;
    }
    GR_UNROLL
    for (int offset = 16; offset >= 1; offset /= 2)
        seen |= __shfl_xor_sync(0xffffffffu, seen, offset);
    if (seen == 0) /* rows that no token touched need no second look */
        return;
    uint32_t bad = 0;
    gr_give(out, 0, gr_squares_again<STORED, HOW>(b, from, &bad));
    gr_give(out, 1, static_cast<double>(gr_total(bad)));
}

/* ---- which block, of what -------------------------------------------------------- */

GR_DEVICE bool gr_reads(int source, uint32_t flags)
{
    if ((flags & GR_SEGMENT_FROZEN) != 0)
        return false;
    const uint32_t wanted = source == GR_SOURCE_SECOND          ? GR_SEGMENT_SEEN
                            : source == GR_SOURCE_NOISE_WEIGHTS ? GR_SEGMENT_NOISY
                                                                : GR_SEGMENT_PERTURBED;
    return source == GR_SOURCE_FIRST || (flags & wanted) != 0;
}

template <int STORED> GR_DEVICE gr_clean gr_find_numbers(const gr_cuda_block &b, int source)
{
    const bool noisy = b.walk->noisy && (b.unit->flags & GR_SEGMENT_NOISY) != 0;
    if (source == GR_SOURCE_FIRST)
        return { gr_at(b, gr_first_of(b), gr_size_of<STORED>()), NULL };
    if (source == GR_SOURCE_SECOND)
        return { gr_at_word(b, GR_WORD_GRADS, gr_size_of<STORED>()), NULL };
    if (noisy)
        return gr_clean_of<STORED>(b);
    return { gr_at_word(b, GR_WORD_PARAMS, gr_size_of<STORED>()), NULL };
}

template <int STORED, int HOW> struct gr_squares_body {
    static constexpr int ROWS = 2;
    int source;

    GR_DEVICE_MEMBER bool takes(int32_t param_type, int32_t grad_type) const
    {
        if (HOW == GR_DIRECTED)
            return true;
        const bool weights = source == GR_SOURCE_WEIGHTS || source == GR_SOURCE_NOISE_WEIGHTS;
        return (weights ? param_type : grad_type) == STORED;
    }

    GR_DEVICE_MEMBER void run(const gr_cuda_block &b, const gr_rows &out) const
    {
        gr_clean from = { NULL, NULL };
        if (!gr_reads(source, b.unit->flags))
            return;
        if (HOW == GR_STORED)
            from = gr_find_numbers<STORED>(b, source);
        if (HOW == GR_DIRECTED || from.stored != NULL || from.master != NULL)
            gr_sum_block<STORED, HOW>(b, from, out);
    }
};

template <int STORED, int HOW>
__global__ void __launch_bounds__(GR_PASS_THREADS, GR_PASS_RESIDENT)
    gradreg_cuda_k_squares(const gr_walk walk, const gr_step step, int source,
                           const gr_decision_task decision)
{
    const gr_squares_body<STORED, HOW> body = { source };
    const bool ends = gr_pass(walk, step, body);
    if (ends && threadIdx.x == 0)
        gr_decide_after_squares(&step, &decision);
}

/* ---- the op ---------------------------------------------------------------------- */

template <int STORED, int HOW>
static gradreg_status launch_squares(gr_work *work, const gr_walk *walk, int source,
                                     const gr_decision_task *decision)
{
    const gr_cuda_context *c = gr_cuda_of(work->context);
    GR_LAUNCH((gradreg_cuda_k_squares<STORED, HOW>),
              gr_cuda_grid(c, walk->unit_count, GR_PASS_PER_PROCESSOR), GR_PASS_THREADS, 0,
              c->stream, *walk, work->step, source, *decision);
    GR_CUDA_TRY_LAUNCH("squares");
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_flush(gr_work *work, const gr_decision_task *decision)
{
    gr_decision_task nothing = {};
    gr_pending *pending = gradreg_cuda_pending(work);
    const int source = pending->source;
    const int weights = source == GR_SOURCE_WEIGHTS || source == GR_SOURCE_NOISE_WEIGHTS;
    gr_walk walk;
    if (!pending->waits)
        return GRADREG_OK;
    pending->waits = 0;
    nothing.which = GR_DECIDE_NOTHING;
    GR_TRY(gradreg_cuda_walk(work, &walk));
    walk.rows = weights ? 1 : 2;
    walk.first_row = pending->row;
    walk.folds = 1;
    if (source == GR_SOURCE_DIRECTION) /* of any type, in one launch */
        return launch_squares<GRADREG_TYPE_F32, GR_DIRECTED>(
            work, &walk, source, decision != NULL ? decision : &nothing);
    return gr_cuda_for_types(gradreg_cuda_types(work, weights), [&](auto type, int last) {
        walk.folds = last;
        return launch_squares<type, GR_STORED>(work, &walk, source,
                                               last && decision != NULL ? decision : &nothing);
    });
}

gradreg_status gradreg_cuda_squares(gr_work *work, enum gr_source source, int row)
{
    gr_pending *pending = gradreg_cuda_pending(work);
    GR_TRY(gradreg_cuda_flush(work, NULL));
    pending->waits = 1;
    pending->source = source;
    pending->row = row;
    return GRADREG_OK;
}

/* ---- master weights -------------------------------------------------------------- */

template <int P> struct gr_verify_body {
    static constexpr int ROWS = 1;

    GR_DEVICE_MEMBER bool takes(int32_t param_type, int32_t grad_type) const
    {
        (void)grad_type;
        return param_type == P;
    }

    GR_DEVICE_MEMBER void run(const gr_cuda_block &b, const gr_rows &out) const
    {
        uint32_t differ = 0;
        if ((b.unit->flags & (GR_SEGMENT_PERTURBED | GR_SEGMENT_NOISY)) == 0)
            return;
        const gr_clean master = { NULL, gr_at_word(b, GR_WORD_MASTER, 4) };
        const gr_clean params = { gr_at_word(b, GR_WORD_PARAMS, gr_size_of<P>()), NULL };
        for (uint32_t i = 0; i < b.warp->n; i += GR_TILE) {
            gr_tile<P> rounded, stored;
            const bool full = i + GR_TILE <= b.warp->n;
            gr_load_clean(&rounded, b, master, NULL, i, full);
            gr_load_clean(&stored, b, params, NULL, i, full);
            GR_UNROLL
            for (int k = 0; k < 8; k++) {
                const uint32_t shift = P == GRADREG_TYPE_F32 ? 0u : k % 2 * 16u;
                const uint32_t mask = P == GRADREG_TYPE_F32 ? 0xffffffffu : 0xffffu;
                const int word = P == GRADREG_TYPE_F32 ? k : k / 2;
                differ += ((rounded.word[word] ^ stored.word[word]) >> shift & mask) != 0;
            }
        }
        gr_give(out, 0, static_cast<double>(gr_total(differ)));
    }
};

template <int P>
__global__ void __launch_bounds__(GR_PASS_THREADS, GR_PASS_RESIDENT)
    gradreg_cuda_k_verify(const gr_walk walk, const gr_step step)
{
    const gr_verify_body<P> body = {};
    (void)gr_pass(walk, step, body);
}

template <int P> static gradreg_status launch_verify(gr_work *work, const gr_walk *walk)
{
    const gr_cuda_context *c = gr_cuda_of(work->context);
    GR_LAUNCH((gradreg_cuda_k_verify<P>),
              gr_cuda_grid(c, walk->unit_count, GR_PASS_PER_PROCESSOR), GR_PASS_THREADS, 0,
              c->stream, *walk, work->step);
    GR_CUDA_TRY_LAUNCH("verify_master");
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_verify_master(gr_work *work, int row)
{
    gr_walk walk;
    GR_TRY(gradreg_cuda_flush(work, NULL));
    GR_TRY(gradreg_cuda_walk(work, &walk));
    walk.rows = 1;
    walk.first_row = row;
    walk.every_copy = 1;
    return gr_cuda_for_types(gradreg_cuda_types(work, 1), [&](auto type, int last) {
        walk.folds = last;
        return launch_verify<type>(work, &walk);
    });
}

gradreg_status gradreg_cuda_load_squares(void)
{
    GR_TRY(gr_cuda_load(gradreg_cuda_k_squares<GRADREG_TYPE_F32, GR_DIRECTED>));
    return gr_cuda_for_types(GR_ALL_TYPES, [](auto type, int) {
        return gr_cuda_load(gradreg_cuda_k_squares<type, GR_STORED>,
                            gradreg_cuda_k_verify<type>);
    });
}
