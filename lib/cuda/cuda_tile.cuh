/* cuda_tile.cuh - how a warp reads and writes a block: tiles of two rows of 128 lanes.
 *
 * In: typed memory (f32, bf16, f16). Out: eight elements per thread, with the same bits as
 * cpu_vector.h's. Thread t holds quad q(t), lanes 4q to 4q + 3, of both rows. q is t turned by one
 * bit, so that a thread's 16 bytes of a 16-bit type (8 elements of one row) become its two quads by
 * one exchange with thread t ^ 16, and the tree's butterfly over quads is one over threads.
 *
 *      16 bytes in memory   row 0: thread 0 | 1 | ... | 15     row 1: thread 16 | 17 | ... | 31
 *      in registers         thread t < 16: quad 2t of both     thread t >= 16: quad 2(t - 16) + 1
 *
 * Where a pointer is not aligned to 16 bytes, or the tile reaches past the block's end, elements go
 * one by one through shared memory, and what is past the end reads as zero. */
#ifndef GRADREG_LIB_CUDA_TILE_CUH
#define GRADREG_LIB_CUDA_TILE_CUH

#include "cuda_check.h"

#include "../element.h"
#include "../reduce.h"
#include "../types.h"

enum { GR_TILE = 2 * GR_LANES, GR_TILE_EACH = 8 };

template <int TYPE> struct gr_tile {
    static constexpr int WORDS = TYPE == GRADREG_TYPE_F32 ? 8 : 4;
    uint32_t word[WORDS]; /* the even row's quad, then the odd row's */
};

template <int TYPE> GR_DEVICE constexpr uint32_t gr_size_of()
{
    return TYPE == GRADREG_TYPE_F32 ? 4 : 2;
}

GR_DEVICE uint32_t gr_thread()
{
    return threadIdx.x % 32u;
}

GR_DEVICE uint32_t gr_quad()
{
    const uint32_t t = gr_thread();
    return (t << 1 | t >> 4) & 31u;
}

/* The element of the tile that is the thread's k-th. */
GR_DEVICE uint32_t gr_place_of(uint32_t k)
{
    return (k >> 2) * GR_LANES + 4 * gr_quad() + (k & 3u);
}

GR_DEVICE bool gr_is_wide(const void *p)
{
    return reinterpret_cast<uint64_t>(p) % 16 == 0;
}

/* ---- elements -------------------------------------------------------------------- */

/* One element of a row, where the type need not be a constant. */
GR_DEVICE float gr_element(int32_t type, const char *row, uint64_t i)
{
    if (type == GRADREG_TYPE_F32)
        return reinterpret_cast<const float *>(row)[i];
    const uint16_t half = reinterpret_cast<const uint16_t *>(row)[i];
    return gr_half_to_f32(type, half);
}

template <int TYPE> GR_DEVICE float gr_decode(uint32_t half)
{
    return gr_half_to_f32(TYPE, static_cast<uint16_t>(half));
}

template <int TYPE> GR_DEVICE float gr_get(const gr_tile<TYPE> &tile, int k)
{
    if constexpr (TYPE == GRADREG_TYPE_F32)
        return gr_bits_f32(tile.word[k]);
    else
        return gr_decode<TYPE>(tile.word[k / 2] >> (k % 2 * 16) & 0xffffu);
}

template <int TYPE> GR_DEVICE void gr_set_bits(gr_tile<TYPE> *tile, int k, uint32_t bits)
{
    if constexpr (TYPE == GRADREG_TYPE_F32)
        tile->word[k] = bits;
    else if (k % 2 == 0)
        tile->word[k / 2] = (tile->word[k / 2] & 0xffff0000u) | bits;
    else
        tile->word[k / 2] = (tile->word[k / 2] & 0xffffu) | bits << 16;
}

/* Rounds to the type; gives what a load would read back. */
template <int TYPE>
GR_DEVICE float gr_put(gr_tile<TYPE> *tile, int k, float x, uint32_t *saturated)
{
    if constexpr (TYPE == GRADREG_TYPE_F32) {
        tile->word[k] = gr_f32_bits(x);
        return x;
    } else {
        const uint32_t half = gr_f32_to_half(TYPE, x);
        *saturated += static_cast<uint32_t>(gr_saturates(TYPE, x));
        gr_set_bits(tile, k, half);
        return gr_decode<TYPE>(half);
    }
}

/* ---- memory ---------------------------------------------------------------------- */

/* Both ways: a thread below 16 gives what its partner's quad is of row 0, and the partner gives
 * this thread's quad of row 1. */
GR_DEVICE void gr_exchange(uint32_t word[4])
{
    const bool low = gr_thread() < 16;
    const uint32_t give0 = low ? word[2] : word[0], give1 = low ? word[3] : word[1];
    const uint32_t take0 = __shfl_xor_sync(0xffffffffu, give0, 16);
    const uint32_t take1 = __shfl_xor_sync(0xffffffffu, give1, 16);
    word[0] = low ? word[0] : take0;
    word[1] = low ? word[1] : take1;
    word[2] = low ? take0 : word[2];
    word[3] = low ? take1 : word[3];
}

GR_DEVICE void gr_load_16(uint32_t *word, const char *from, char *copy)
{
    const uint4 x = *reinterpret_cast<const uint4 *>(from);
    if (copy != NULL)
        *reinterpret_cast<uint4 *>(copy) = x;
    word[0] = x.x, word[1] = x.y, word[2] = x.z, word[3] = x.w;
}

GR_DEVICE void gr_store_16(char *to, const uint32_t *word)
{
    uint4 x;
    x.x = word[0], x.y = word[1], x.z = word[2], x.w = word[3];
    *reinterpret_cast<uint4 *>(to) = x;
}

/* Where the thread's 16 bytes of tile i begin: of a row for f32, of both for 16 bits. */
template <int TYPE> GR_DEVICE uint64_t gr_wide_offset(uint32_t i)
{
    const uint32_t t = gr_thread();
    return TYPE == GRADREG_TYPE_F32 ? (uint64_t)(i + 4 * gr_quad()) * 4
                                    : (uint64_t)(i + (t >> 4) * GR_LANES + 8 * (t & 15u)) * 2;
}

template <int TYPE>
GR_DEVICE void gr_load_wide(gr_tile<TYPE> *tile, const char *from, char *copy, uint32_t i)
{
    const uint64_t at = gr_wide_offset<TYPE>(i);
    gr_load_16(tile->word, from + at, copy != NULL ? copy + at : NULL);
    if constexpr (TYPE == GRADREG_TYPE_F32) {
        const uint64_t next = at + GR_LANES * 4;
        gr_load_16(tile->word + 4, from + next, copy != NULL ? copy + next : NULL);
    } else {
        gr_exchange(tile->word);
    }
}

/* A warp's place in shared memory for one tile of any type: what memory does not hold in aligned
 * groups of 16 bytes goes through it element by element. */
enum { GR_STAGE_BYTES = GR_TILE * 4 };

template <int TYPE>
GR_DEVICE void gr_stage_in(char *stage, const char *from, char *copy, uint32_t i, uint32_t n)
{
    __syncwarp(); /* the tile before has been read */
    GR_NO_UNROLL
    for (uint32_t k = gr_thread(); k < GR_TILE; k += 32) {
        if constexpr (TYPE == GRADREG_TYPE_F32) {
            const uint32_t x = i + k < n ? reinterpret_cast<const uint32_t *>(from)[i + k] : 0u;
            reinterpret_cast<uint32_t *>(stage)[k] = x;
            if (copy != NULL && i + k < n)
                reinterpret_cast<uint32_t *>(copy)[i + k] = x;
        } else {
            const uint16_t x = i + k < n ? reinterpret_cast<const uint16_t *>(from)[i + k]
                                         : static_cast<uint16_t>(0);
            reinterpret_cast<uint16_t *>(stage)[k] = x;
            if (copy != NULL && i + k < n)
                reinterpret_cast<uint16_t *>(copy)[i + k] = x;
        }
    }
    __syncwarp();
}

template <int TYPE>
GR_DEVICE void gr_stage_out(char *to, const char *stage, uint32_t i, uint32_t n)
{
    __syncwarp();
    GR_NO_UNROLL
    for (uint32_t k = gr_thread(); k < GR_TILE && i + k < n; k += 32) {
        if constexpr (TYPE == GRADREG_TYPE_F32)
            reinterpret_cast<uint32_t *>(to)[i + k] =
                reinterpret_cast<const uint32_t *>(stage)[k];
        else
            reinterpret_cast<uint16_t *>(to)[i + k] =
                reinterpret_cast<const uint16_t *>(stage)[k];
    }
}

/* Tile i of a block of n elements; `copy` is NULL or gets the same bytes. `wide` holds for the whole
 * warp: all of the tile is there, and both pointers are aligned to 16 bytes. */
template <int TYPE>
GR_DEVICE void gr_load(gr_tile<TYPE> *tile, const char *from, char *copy, uint32_t i,
                       uint32_t n, bool wide, char *stage)
{
    if (wide) {
        gr_load_wide(tile, from, copy, i);
        return;
    }
    gr_stage_in<TYPE>(stage, from, copy, i, n);
    gr_load_wide(tile, stage, NULL, 0);
}

template <int TYPE>
GR_DEVICE void gr_store_wide(char *to, const gr_tile<TYPE> &tile, uint32_t i)
{
    const uint64_t at = gr_wide_offset<TYPE>(i);
    if constexpr (TYPE == GRADREG_TYPE_F32) {
        gr_store_16(to + at, tile.word);
        gr_store_16(to + at + GR_LANES * 4, tile.word + 4);
    } else {
        uint32_t word[4] = { tile.word[0], tile.word[1], tile.word[2], tile.word[3] };
        gr_exchange(word);
        gr_store_16(to + at, word);
    }
}

template <int TYPE>
GR_DEVICE void gr_store(char *to, const gr_tile<TYPE> &tile, uint32_t i, uint32_t n, bool wide,
                        char *stage)
{
    if (wide) {
        gr_store_wide(to, tile, i);
        return;
    }
    __syncwarp(); /* what the stage held has been read */
    gr_store_wide(stage, tile, 0);
    gr_stage_out<TYPE>(to, stage, i, n);
}

/* Zeros over tile i. */
template <int TYPE> GR_DEVICE void gr_clear(char *to, uint32_t i, uint32_t n, bool wide)
{
    if (wide) {
        const gr_tile<TYPE> zero = {};
        gr_store_wide(to, zero, i);
        return;
    }
    __syncwarp(); /* what is cleared has been read */
    for (uint32_t k = i + gr_thread(); k < i + GR_TILE && k < n; k += 32) {
        if constexpr (TYPE == GRADREG_TYPE_F32)
            reinterpret_cast<uint32_t *>(to)[k] = 0;
        else
            reinterpret_cast<uint16_t *>(to)[k] = 0;
    }
}

/* ---- whole blocks of bytes ------------------------------------------------------- */

/* `bytes` is a multiple of 2. No other thread's bytes are read: what the warp wrote before must be
 * ordered by __syncwarp(). */
GR_DEVICE void gr_copy_bytes(char *to, const char *from, uint32_t bytes)
{
    const uint32_t t = gr_thread();
    uint32_t i = 0;
    if (gr_is_wide(to) && gr_is_wide(from)) {
        for (i = 16 * t; i + 16 <= bytes; i += 16 * 32)
            *reinterpret_cast<uint4 *>(to + i) = *reinterpret_cast<const uint4 *>(from + i);
        i = bytes / 16 * 16;
    }
    for (i += 2 * t; i < bytes; i += 2 * 32)
        *reinterpret_cast<uint16_t *>(to + i) = *reinterpret_cast<const uint16_t *>(from + i);
}

GR_DEVICE void gr_clear_bytes(char *to, uint32_t bytes)
{
    const uint32_t t = gr_thread();
    uint32_t i = 0;
    if (gr_is_wide(to)) {
        uint4 zero;
        zero.x = zero.y = zero.z = zero.w = 0;
        for (i = 16 * t; i + 16 <= bytes; i += 16 * 32)
            *reinterpret_cast<uint4 *>(to + i) = zero;
        i = bytes / 16 * 16;
    }
    for (i += 2 * t; i < bytes; i += 2 * 32)
        *reinterpret_cast<uint16_t *>(to + i) = 0;
}

/* ---- sums ------------------------------------------------------------------------ */

/* reduce.h's butterfly over quads, with quads where the threads have them. */
GR_DEVICE double gr_butterfly_quads(double d)
{
    GR_UNROLL
    for (int offset = 8; offset >= 1; offset /= 2)
        d = d + __shfl_xor_sync(0xffffffffu, d, offset);
    return d + __shfl_xor_sync(0xffffffffu, d, 16);
}

/* Step 3 of reduce.h; every thread gets the result. */
GR_DEVICE double gr_tree_quads(const float lane[4])
{
    const double d0 = gr_butterfly_quads(static_cast<double>(lane[0]));
    const double d1 = gr_butterfly_quads(static_cast<double>(lane[1]));
    const double d2 = gr_butterfly_quads(static_cast<double>(lane[2]));
    const double d3 = gr_butterfly_quads(static_cast<double>(lane[3]));
    return (d0 + d1) + (d2 + d3);
}

/* A warp's count of something that no thread counts more than 2^27 of. */
GR_DEVICE uint32_t gr_total(uint32_t count)
{
    GR_UNROLL
    for (int offset = 16; offset >= 1; offset /= 2)
        count += __shfl_xor_sync(0xffffffffu, count, offset);
    return count;
}

#endif
