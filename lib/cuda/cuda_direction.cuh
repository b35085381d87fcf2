/* cuda_direction.cuh - numbers that are drawn, and clean weights, for a thread's part of a row.
 *
 * In: a block, a row's place in it. Out: four elements, by the formulas of random.h and element.h,
 * with the bits of cpu_pass.c's and cpu_move.c's. */
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
        GR_NO_UNROLL /* both at once would need many registers */
            for (int pair = 0; pair < 2; pair++)
        {
            float two[2];
            gr_gaussian_from(out.word[0], out.word[1], two);
            out.word[0] = out.word[2], out.word[1] = out.word[3];
            out.word[2] = gr_f32_bits(two[0]), out.word[3] = gr_f32_bits(two[1]);
        }
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
        const gr_four four =
            gr_draw_group(as, seed, step, b.unit->segment, purpose, (e >> 2) + part);
        GR_UNROLL
        for (int k = 0; k < 4; k++) {
            low.word[k] = part == 0 ? four.word[k] : low.word[k];
            high.word[k] = four.word[k];
        }
    }
    return gr_shift_4(low.word, high.word, skip);
}

/* ---- rows of any type ------------------------------------------------------------ */

/* Where the type is no constant, a warp takes one row of 128 lanes at a time, and a thread the quad of
 * it that it has of a tile: as bit patterns, in few registers. Past the block's end are zeros. */

GR_DEVICE uint32_t gr_size_any(int32_t type)
{
    return static_cast<uint32_t>(gr_type_bytes(type));
}

/* Whether the quad at `at` is all there, and memory aligned to its 16 or 8 bytes. */
GR_DEVICE bool gr_quad_is_whole(const gr_cuda_block &b, const char *p, uint32_t size,
                                uint32_t at)
{
    return at + 4 <= b.warp->n && reinterpret_cast<uint64_t>(p) % (4 * size) == 0;
}

GR_DEVICE void gr_load_row(uint32_t bits[4], int32_t type, const gr_cuda_block &b,
                           const char *from, uint32_t i)
{
    const uint32_t at = i + 4 * gr_quad(), size = gr_size_any(type);
    const char *p = from + at * size;
    if (!gr_quad_is_whole(b, from, size, at)) {
        GR_UNROLL
        for (uint32_t k = 0; k < 4; k++)
            bits[k] = at + k >= b.warp->n ? 0u
                      : size == 4         ? reinterpret_cast<const uint32_t *>(p)[k]
                                          : reinterpret_cast<const uint16_t *>(p)[k];
    } else if (size == 4) {
        gr_load_16(bits, p, NULL);
    } else {
        const uint2 x = *reinterpret_cast<const uint2 *>(p);
        bits[0] = x.x & 0xffffu, bits[1] = x.x >> 16;
        bits[2] = x.y & 0xffffu, bits[3] = x.y >> 16;
    }
}

GR_DEVICE void gr_store_row(char *to, int32_t type, const gr_cuda_block &b,
                            const uint32_t bits[4], uint32_t i)
{
    const uint32_t at = i + 4 * gr_quad(), size = gr_size_any(type);
    char *p = to + at * size;
    if (!gr_quad_is_whole(b, to, size, at)) {
        GR_UNROLL
        for (uint32_t k = 0; k < 4; k++) {
            if (at + k < b.warp->n && size == 4)
                reinterpret_cast<uint32_t *>(p)[k] = bits[k];
            else if (at + k < b.warp->n)
                reinterpret_cast<uint16_t *>(p)[k] = static_cast<uint16_t>(bits[k]);
        }
    } else if (size == 4) {
        gr_store_16(p, bits);
    } else {
        uint2 x;
        x.x = bits[0] | bits[1] << 16, x.y = bits[2] | bits[3] << 16;
        *reinterpret_cast<uint2 *>(p) = x;
    }
}

GR_DEVICE float gr_decode_any(int32_t type, uint32_t bits)
{
    return type == GRADREG_TYPE_F32 ? gr_bits_f32(bits)
                                    : gr_half_to_f32(type, static_cast<uint16_t>(bits));
}

GR_DEVICE uint32_t gr_encode_any(int32_t type, float x, uint32_t *saturated)
{
    if (type == GRADREG_TYPE_F32)
        return gr_f32_bits(x);
    *saturated += static_cast<uint32_t>(gr_saturates(type, x));
    return gr_f32_to_half(type, x);
}

/* The same as numbers; a row that is not there (NULL) is zeros. */
GR_DEVICE void gr_load_numbers_row(float out[4], int32_t type, const gr_cuda_block &b,
                                   const char *from, uint32_t i)
{
    uint32_t bits[4] = {};
    if (from != NULL)
        gr_load_row(bits, type, b, from, i);
    GR_UNROLL
    for (int k = 0; k < 4; k++)
        out[k] = gr_decode_any(type, bits[k]);
}

/* ---- the direction --------------------------------------------------------------- */

/* The direction on a thread's quad of row i: drawn, or the caller's of the gradient's type. */
GR_DEVICE void gr_direction(const gr_cuda_block &b, uint32_t i, float out[4])
{
    const int32_t direction = b.step->options.direction;
    const uint32_t at = i + 4 * gr_quad();
    if (direction == GRADREG_DIRECTION_CALLER) {
        gr_load_numbers_row(out, b.unit->grad_type, b,
                            gr_at_word(b, GR_WORD_DIRECTION, gr_size_any(b.unit->grad_type)),
                            i);
        return;
    }
    const gr_four four = gr_draw_4(
        b, direction == GRADREG_DIRECTION_GAUSSIAN ? GR_DRAW_GAUSSIANS : GR_DRAW_SIGNS,
        GR_RANDOM_DIRECTION, b.warp->begin + at);
    GR_UNROLL
    for (uint32_t k = 0; k < 4; k++)
        out[k] = at + k < b.warp->n ? gr_bits_f32(four.word[k]) : 0.0f;
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
        gr_load(tile, clean.stored, copy, i, b.warp->n,
                full && gr_is_wide(clean.stored) && gr_is_wide(copy), gr_stage(b));
        return;
    }
    gr_tile<GRADREG_TYPE_F32> exact;
    uint32_t ignored = 0;
    gr_load(&exact, clean.master, NULL, i, b.warp->n, full && gr_is_wide(clean.master),
            gr_stage(b));
    GR_UNROLL
    for (int k = 0; k < 8; k++)
        gr_put(tile, k, gr_get(exact, k), &ignored);
}

/* The same for weights of any type. */
GR_DEVICE gr_clean gr_clean_any(const gr_cuda_block &b)
{
    const char *clean = gr_at_word(b, GR_WORD_CLEAN, gr_size_any(b.unit->param_type));
    const char *master = gr_at_word(b, GR_WORD_MASTER, 4);
    if (clean != NULL)
        return { clean, NULL };
    if (master == NULL) /* OUT_OF_PLACE */
        return { gr_at_word(b, GR_WORD_PARAMS, gr_size_any(b.unit->param_type)), NULL };
    return { NULL, master };
}

/* A row of it as bit patterns. */
GR_DEVICE void gr_load_clean_row(uint32_t bits[4], const gr_cuda_block &b,
                                 const gr_clean &clean, uint32_t i)
{
    uint32_t ignored = 0;
    if (clean.stored != NULL) {
        gr_load_row(bits, b.unit->param_type, b, clean.stored, i);
        return;
    }
    gr_load_row(bits, GRADREG_TYPE_F32, b, clean.master, i);
    GR_UNROLL
    for (int k = 0; k < 4; k++)
        bits[k] = gr_encode_any(b.unit->param_type, gr_bits_f32(bits[k]), &ignored);
}

/* Clean theta back into params (cpu_pass.c, gradreg_cpu_put_back). */
GR_DEVICE void gr_put_back(const gr_cuda_block &b)
{
    const uint32_t size = gr_size_any(b.unit->param_type);
    char *params = gr_at_word(b, GR_WORD_PARAMS, size);
    const char *clean = gr_at_word(b, GR_WORD_CLEAN, size);
    const gr_clean from = { NULL, gr_at_word(b, GR_WORD_MASTER, 4) };
    if (clean != NULL) {
        gr_copy_bytes(params, clean, b.warp->n * size);
        return;
    }
    if (from.master == NULL || !b.step->control->master_usable)
        return;
    GR_NO_UNROLL
    for (uint32_t i = 0; i < b.warp->n; i += GR_LANES) {
        uint32_t bits[4];
        gr_load_clean_row(bits, b, from, i);
        gr_store_row(params, b.unit->param_type, b, bits, i);
    }
}

#endif
