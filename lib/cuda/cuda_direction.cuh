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

/* What a draw is made into. */
enum { GR_DRAW_WORDS, GR_DRAW_SIGNS, GR_DRAW_GAUSSIANS };

/* One group of four, as bit patterns. */
GR_DEVICE gr_four gr_draw_group(int as, uint64_t seed, uint64_t step, uint32_t segment,
                                uint32_t purpose, uint64_t group)
{
    gr_four out;
    gr_random4(seed, step, segment, purpose, group, out.word);
    if (as == GR_DRAW_GAUSSIANS) {
        float four[4];
        gr_gaussian_from(out.word[0], out.word[1], four);
        gr_gaussian_from(out.word[2], out.word[3], four + 2);
        GR_UNROLL
        for (int k = 0; k < 4; k++)
            out.word[k] = gr_f32_bits(four[k]);
    } else if (as == GR_DRAW_SIGNS) {
        GR_UNROLL
        for (int k = 0; k < 4; k++)
            out.word[k] = gr_f32_bits(gr_rademacher_from(out.word[k]));
    }
    return out;
}

/* Draws of elements e to e + 3; a group may end between them. One text for both groups: it is
 * long. */
GR_DEVICE gr_four gr_draw_4(const gr_cuda_block &b, int as, uint32_t purpose, uint64_t e)
{
    const uint64_t seed = b.step->options.seed, step = gr_draw_step(b.step->control);
    const uint32_t skip = static_cast<uint32_t>(e & 3u);
    gr_four low = {}, high = {};
    GR_NO_UNROLL
    for (uint32_t part = 0; part < (skip != 0 ? 2u : 1u); part++) {
        const gr_four four = gr_draw_group(as, seed, step, b.index, purpose, (e >> 2) + part);
        GR_UNROLL
        for (int k = 0; k < 4; k++) {
            low.word[k] = part == 0 ? four.word[k] : low.word[k];
            high.word[k] = four.word[k];
        }
    }
    return gr_shift_4(low.word, high.word, skip);
}

/* Draws for a thread's part of tile i. */
GR_DEVICE void gr_draw_8(const gr_cuda_block &b, int as, uint32_t purpose, uint32_t i,
                         uint32_t out[8])
{
    GR_NO_UNROLL
    for (uint32_t row = 0; row < 2; row++) {
        const gr_four four = gr_draw_4(b, as, purpose, b.begin + i + gr_place_of(4 * row));
        GR_UNROLL
        for (int k = 0; k < 4; k++) {
            out[k] = row == 0 ? four.word[k] : out[k];
            out[4 + k] = four.word[k];
        }
    }
}

/* ---- any type -------------------------------------------------------------------- */

/* Elements as their bit patterns, where the type is no constant. */
template <int TYPE>
GR_DEVICE void gr_load_bits_of(uint32_t bits[8], const gr_cuda_block &b, const char *from,
                               char *copy, uint32_t i, bool wide)
{
    gr_tile<TYPE> tile;
    gr_load(&tile, from, copy, i, b.n, wide, b.stage);
    GR_UNROLL
    for (int k = 0; k < 8; k++)
        bits[k] = TYPE == GRADREG_TYPE_F32 ? tile.word[k % gr_tile<TYPE>::WORDS]
                                           : tile.word[k / 2] >> (k % 2 * 16) & 0xffffu;
}

GR_DEVICE void gr_load_bits(uint32_t bits[8], int32_t type, const gr_cuda_block &b,
                            const char *from, char *copy, uint32_t i)
{
    const bool wide = i + GR_TILE <= b.n && gr_is_wide(from) && gr_is_wide(copy);
    if (type == GRADREG_TYPE_F32)
        gr_load_bits_of<GRADREG_TYPE_F32>(bits, b, from, copy, i, wide);
    else /* both have 16 bits */
        gr_load_bits_of<GRADREG_TYPE_BF16>(bits, b, from, copy, i, wide);
}

GR_DEVICE float gr_decode_any(int32_t type, uint32_t bits)
{
    return type == GRADREG_TYPE_F32    ? gr_bits_f32(bits)
           : type == GRADREG_TYPE_BF16 ? gr_decode<GRADREG_TYPE_BF16>(bits)
                                       : gr_decode<GRADREG_TYPE_F16>(bits);
}

GR_DEVICE uint32_t gr_encode_any(int32_t type, float x, uint32_t *saturated)
{
    if (type == GRADREG_TYPE_F32)
        return gr_f32_bits(x);
    if (type == GRADREG_TYPE_BF16)
        return gr_f32_to_bf16(x);
    *saturated += static_cast<uint32_t>(gr_f16_saturates(x));
    return gr_f32_to_f16_saturating(x);
}

GR_DEVICE void gr_load_any(float out[8], int32_t type, const gr_cuda_block &b, const char *from,
                           uint32_t i)
{
    uint32_t bits[8];
    gr_load_bits(bits, type, b, from, NULL, i);
    GR_UNROLL
    for (int k = 0; k < 8; k++)
        out[k] = gr_decode_any(type, bits[k]);
}

template <int TYPE>
GR_DEVICE void gr_store_bits_of(char *to, const gr_cuda_block &b, const uint32_t bits[8],
                                uint32_t i, bool wide)
{
    gr_tile<TYPE> tile = {};
    GR_UNROLL
    for (int k = 0; k < 8; k++)
        gr_set_bits(&tile, k, bits[k]);
    gr_store(to, tile, i, b.n, wide, b.stage);
}

GR_DEVICE void gr_store_bits(char *to, int32_t type, const gr_cuda_block &b,
                             const uint32_t bits[8], uint32_t i)
{
    const bool wide = i + GR_TILE <= b.n && gr_is_wide(to);
    if (type == GRADREG_TYPE_F32)
        gr_store_bits_of<GRADREG_TYPE_F32>(to, b, bits, i, wide);
    else
        gr_store_bits_of<GRADREG_TYPE_BF16>(to, b, bits, i, wide);
}

GR_DEVICE uint32_t gr_size_any(int32_t type)
{
    return type == GRADREG_TYPE_F32 ? 4 : 2;
}

/* ---- the direction --------------------------------------------------------------- */

/* The direction on a thread's part of tile i: drawn, or the caller's of the gradient's type. Past
 * the end of a block it is 0. */
GR_DEVICE void gr_direction(const gr_cuda_block &b, uint32_t i, float out[8])
{
    const gradreg_regularizer_params *p = &b.step->options;
    uint32_t bits[8];
    if (p->direction == GRADREG_DIRECTION_CALLER) {
        gr_load_any(out, b.grad_type, b,
                    gr_at_word(b, GR_WORD_DIRECTION, gr_size_any(b.grad_type)), i);
        return;
    }
    gr_draw_8(b, p->direction == GRADREG_DIRECTION_GAUSSIAN ? GR_DRAW_GAUSSIANS : GR_DRAW_SIGNS,
              GR_RANDOM_DIRECTION, i, bits);
    GR_UNROLL
    for (uint32_t k = 0; k < 8; k++)
        out[k] = i + gr_place_of(k) < b.n ? gr_bits_f32(bits[k]) : 0.0f;
}

/* ---- clean weights --------------------------------------------------------------- */

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

/* The same for weights of any type. */
GR_DEVICE gr_clean gr_clean_any(const gr_cuda_block &b)
{
    const char *clean = gr_at_word(b, GR_WORD_CLEAN, gr_size_any(b.param_type));
    const char *master = gr_at_word(b, GR_WORD_MASTER, 4);
    if (clean != NULL)
        return { clean, NULL };
    if (master == NULL) /* OUT_OF_PLACE */
        return { gr_at_word(b, GR_WORD_PARAMS, gr_size_any(b.param_type)), NULL };
    return { NULL, master };
}

GR_DEVICE void gr_load_clean_any(uint32_t bits[8], const gr_cuda_block &b,
                                 const gr_clean &clean, char *copy, uint32_t i)
{
    float exact[8];
    uint32_t ignored = 0;
    if (clean.stored != NULL) {
        gr_load_bits(bits, b.param_type, b, clean.stored, copy, i);
        return;
    }
    gr_load_any(exact, GRADREG_TYPE_F32, b, clean.master, i);
    GR_UNROLL
    for (int k = 0; k < 8; k++)
        bits[k] = gr_encode_any(b.param_type, exact[k], &ignored);
}

/* Clean theta back into params (cpu_pass.c, gradreg_cpu_put_back). */
GR_DEVICE void gr_put_back(const gr_cuda_block &b)
{
    const uint32_t size = gr_size_any(b.param_type);
    char *params = gr_at_word(b, GR_WORD_PARAMS, size);
    const char *clean = gr_at_word(b, GR_WORD_CLEAN, size);
    const gr_clean from = { NULL, gr_at_word(b, GR_WORD_MASTER, 4) };
    if (clean != NULL) {
        gr_copy_bytes(params, clean, b.n * size);
        return;
    }
    if (from.master == NULL || !b.step->control->master_usable)
        return;
    GR_NO_UNROLL
    for (uint32_t i = 0; i < b.n; i += GR_TILE) {
        uint32_t bits[8];
        gr_load_clean_any(bits, b, from, NULL, i);
        gr_store_bits(params, b.param_type, b, bits, i);
    }
}

#endif
