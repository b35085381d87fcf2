/* cuda_direction.cuh - numbers that are drawn, and clean weights, for a thread's part of a tile.
 *
 * In: a block, a tile's place in it. Out: eight elements, by the formulas of random.h and
 * element.h, with the bits of cpu_pass.c's and cpu_move.c's. */
#ifndef GRADREG_LIB_CUDA_DIRECTION_CUH
#define GRADREG_LIB_CUDA_DIRECTION_CUH

#include "cuda_pass.cuh"

#include "../random.h"

/* Four numbers or words of elements that stand side by side. */
typedef struct gr_four {
    uint32_t word[4];
} gr_four;

/* Of the eight words of two groups those from `skip` on. */
GR_DEVICE gr_four gr_shift_4(const uint32_t low[4], const uint32_t high[4], uint32_t skip)
{
    gr_four out;
    GR_UNROLL
    for (uint32_t k = 0; k < 4; k++)
        out.word[k] = skip == 0   ? low[k]
                      : skip == 1 ? (k < 3 ? low[(k + 1) % 4] : high[(k + 1) % 4])
                      : skip == 2 ? (k < 2 ? low[(k + 2) % 4] : high[(k + 2) % 4])
                                  : (k < 1 ? low[(k + 3) % 4] : high[(k + 3) % 4]);
    return out;
}

/* Random words of elements e to e + 3; a group may end between them. */
GR_DEVICE gr_four gr_bits_4(uint64_t seed, uint64_t step, uint32_t segment, uint32_t purpose,
                            uint64_t e)
{
    const uint32_t skip = static_cast<uint32_t>(e & 3u);
    uint32_t low[4], high[4] = { 0, 0, 0, 0 };
    gr_random4(seed, step, segment, purpose, e >> 2, low);
    if (skip != 0)
        gr_random4(seed, step, segment, purpose, (e >> 2) + 1, high);
    return gr_shift_4(low, high, skip);
}

/* The bit patterns of the direction's numbers of elements e to e + 3. */
GR_DEVICE gr_four gr_gaussian_group(uint64_t seed, uint64_t step, uint32_t segment,
                                    uint64_t group)
{
    float four[4];
    gr_four out;
    gr_gaussian4(seed, step, segment, GR_RANDOM_DIRECTION, group, four);
    GR_UNROLL
    for (int k = 0; k < 4; k++)
        out.word[k] = gr_f32_bits(four[k]);
    return out;
}

GR_DEVICE gr_four gr_draw_4(const gr_cuda_block &b, uint64_t e)
{
    const gradreg_regularizer_params *p = &b.step->options;
    const uint64_t step = gr_draw_step(b.step->control);
    const uint32_t skip = static_cast<uint32_t>(e & 3u);
    if (p->direction == GRADREG_DIRECTION_GAUSSIAN) {
        const gr_four low = gr_gaussian_group(p->seed, step, b.index, e >> 2);
        gr_four high = low;
        if (skip != 0)
            high = gr_gaussian_group(p->seed, step, b.index, (e >> 2) + 1);
        return gr_shift_4(low.word, high.word, skip);
    }
    gr_four out = gr_bits_4(p->seed, step, b.index, GR_RANDOM_DIRECTION, e);
    GR_UNROLL
    for (int k = 0; k < 4; k++)
        out.word[k] = gr_f32_bits(gr_rademacher_from(out.word[k]));
    return out;
}

/* The direction on a thread's part of tile i: drawn, or the caller's of type G. Past the end of a
 * block it is 0. */
template <int G>
GR_DEVICE void gr_direction(const gr_cuda_block &b, uint32_t i, bool wide, float out[8])
{
    if (b.step->options.direction == GRADREG_DIRECTION_CALLER) {
        const char *from = gr_at_word(b, GR_WORD_DIRECTION, gr_size_of<G>());
        gr_tile<G> tile;
        gr_load(&tile, from, NULL, i, b.n, wide && gr_is_wide(from), b.stage);
        GR_UNROLL
        for (int k = 0; k < 8; k++)
            out[k] = gr_get(tile, k);
        return;
    }
    GR_UNROLL
    for (uint32_t row = 0; row < 2; row++) {
        const gr_four four = gr_draw_4(b, b.begin + i + gr_place_of(4 * row));
        GR_UNROLL
        for (uint32_t k = 0; k < 4; k++)
            out[4 * row + k] =
                i + gr_place_of(4 * row + k) < b.n ? gr_bits_f32(four.word[k]) : 0.0f;
    }
}

/* Where clean theta of a block is: in memory, or rounded from master. */
typedef struct gr_clean {
    const char *stored; /* of the weights' type, or NULL: */
    const char *master;
} gr_clean;

template <int P> GR_DEVICE gr_clean gr_clean_of(const gr_cuda_block &b)
{
    const char *clean = gr_at_word(b, GR_WORD_CLEAN, gr_size_of<P>());
    const char *master = gr_at_word(b, GR_WORD_MASTER, 4);
    if (clean != NULL)
        return { clean, NULL };
    if (master == NULL) /* OUT_OF_PLACE */
        return { gr_at_word(b, GR_WORD_PARAMS, gr_size_of<P>()), NULL };
    return { NULL, master };
}

/* Tile i of what was found; `copy` as for gr_load, and only for stored weights. */
template <int P>
GR_DEVICE void gr_load_clean(gr_tile<P> *tile, const gr_cuda_block &b, const gr_clean &clean,
                             char *copy, uint32_t i, bool full)
{
    if (clean.stored != NULL) {
        gr_load(tile, clean.stored, copy, i, b.n,
                full && gr_is_wide(clean.stored) && gr_is_wide(copy), b.stage);
        return;
    }
    gr_tile<GRADREG_TYPE_F32> exact;
    uint32_t ignored = 0;
    gr_load(&exact, clean.master, NULL, i, b.n, full && gr_is_wide(clean.master), b.stage);
    GR_UNROLL
    for (int k = 0; k < 8; k++)
        gr_put(tile, k, gr_get(exact, k), &ignored);
}

/* Clean theta back into params (cpu_pass.c, gradreg_cpu_put_back). */
template <int P> GR_DEVICE void gr_put_back(const gr_cuda_block &b)
{
    char *params = gr_at_word(b, GR_WORD_PARAMS, gr_size_of<P>());
    const char *clean = gr_at_word(b, GR_WORD_CLEAN, gr_size_of<P>());
    const char *master = gr_at_word(b, GR_WORD_MASTER, 4);
    if (clean != NULL) {
        gr_copy_bytes(params, clean, b.n * gr_size_of<P>());
        return;
    }
    if (master == NULL || !b.step->control->master_usable)
        return;
    const gr_clean from = { NULL, master };
    for (uint32_t i = 0; i < b.n; i += GR_TILE) {
        gr_tile<P> tile;
        const bool full = i + GR_TILE <= b.n;
        gr_load_clean(&tile, b, from, NULL, i, full);
        gr_store(params, tile, i, b.n, full && gr_is_wide(params), b.stage);
    }
}

#endif
