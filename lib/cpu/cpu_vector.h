/* cpu_vector.h - one register of floats, as wide as the vector path being compiled.
 *
 * In: typed memory (f32, bf16, f16). Out: gr_vf, W = GR_VECTOR_WIDTH floats, on which the
 * operators of element.h work lane by lane; W = 1 is a plain float and element.h itself.
 * Conversions give the bits of element.h's on every path (test/check_kernels.c). `type` is a
 * constant wherever these are called, so that no branch remains. */
#ifndef GRADREG_LIB_CPU_VECTOR_H
#define GRADREG_LIB_CPU_VECTOR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if GR_VECTOR_WIDTH > 1
#include <immintrin.h>
#endif

#include "../element.h"
#include "../types.h"
#include "gradreg.h"

#define GR_ALWAYS static inline __attribute__((always_inline))

#if GR_VECTOR_WIDTH == 1
typedef float gr_vf;
typedef uint32_t gr_vu;
typedef int32_t gr_vi;
#else
typedef float gr_vf __attribute__((vector_size(4 * GR_VECTOR_WIDTH)));
typedef uint32_t gr_vu __attribute__((vector_size(4 * GR_VECTOR_WIDTH)));
typedef int32_t gr_vi __attribute__((vector_size(4 * GR_VECTOR_WIDTH)));
#endif

GR_ALWAYS gr_vf gr_load_f32(const float *p)
{
    gr_vf x;
    memcpy(&x, p, sizeof(x));
    return x;
}

GR_ALWAYS void gr_store_f32(float *p, gr_vf x)
{
    memcpy(p, &x, sizeof(x));
}

#if GR_VECTOR_WIDTH == 1

GR_ALWAYS gr_vf gr_load(const int type, const void *p, size_t i)
{
    if (type == GRADREG_TYPE_F32)
        return ((const float *)p)[i];
    const uint16_t half = ((const uint16_t *)p)[i];
    return gr_half_to_f32(type, half);
}

GR_ALWAYS gr_vf gr_store(const int type, void *p, size_t i, gr_vf x, gr_vi *saturated)
{
    if (type == GRADREG_TYPE_F32)
        return ((float *)p)[i] = x;
    uint16_t *half = (uint16_t *)p + i;
    *saturated += gr_saturates(type, x);
    *half = gr_f32_to_half(type, x);
    return gr_half_to_f32(type, *half);
}

GR_ALWAYS gr_vf gr_store_own(const int type, void *p, size_t i, gr_vf x, gr_vi *saturated)
{
    return gr_store(type, p, i, x, saturated);
}

GR_ALWAYS gr_vf gr_rounded(const int type, gr_vf x)
{
    return gr_round_to(type, x);
}

GR_ALWAYS void gr_count_unequal(gr_vi *count, gr_vf x, gr_vf y)
{
    *count += x != y;
}

GR_ALWAYS uint64_t gr_total(gr_vi count)
{
    return (uint64_t)count;
}

#else

/* bf16 rounded to nearest even, in the upper half of every lane; the lower half is undefined. A NaN
 * only becomes quiet: rounding could carry into its exponent and sign. */
GR_ALWAYS gr_vu gr_bf16_upper(gr_vf x)
{
    const gr_vu bits = (gr_vu)x, up = (bits >> 16 & 1u) + 0x7fffu;
#if GR_VECTOR_WIDTH == 16
    const __mmask16 number = _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_ORD_Q);
    const gr_vu quiet = bits | 0x400000u;
    return (gr_vu)_mm512_mask_add_epi32((__m512i)quiet, number, (__m512i)bits, (__m512i)up);
#else
    const gr_vu nan = (gr_vu)(x != x);
    return (bits + (up & ~nan)) | (nan & 0x400000u);
#endif
}

/* The same for what arithmetic made of bf16 numbers alone: if that is a NaN it is quiet, and the
 * lower half of its pattern is 0, so that nothing carries. */
GR_ALWAYS gr_vu gr_bf16_upper_own(gr_vf x)
{
    const gr_vu bits = (gr_vu)x;
#if GR_VECTOR_WIDTH == 16
    const __m512i down = (__m512i)(bits + 0x7fffu), all = _mm512_set1_epi32(-1);
    const __mmask16 odd = _mm512_test_epi32_mask((__m512i)bits, _mm512_set1_epi32(0x10000));
    return (gr_vu)_mm512_mask_sub_epi32(down, odd, down, all);
#else
    return bits + ((bits >> 16 & 1u) + 0x7fffu);
#endif
}

GR_ALWAYS gr_vf gr_bf16_rounded(gr_vu upper)
{
    return (gr_vf)(upper & 0xffff0000u);
}

/* Between 16 bits in memory and the upper half of a lane: one shuffle each way. */
#if GR_VECTOR_WIDTH == 16

typedef uint16_t gr_words __attribute__((vector_size(64)));

GR_ALWAYS gr_vf gr_widen_bf16(const uint16_t *p)
{
    const gr_words source = { 0, 0, 0, 1, 0, 2,  0, 3,  0, 4,  0, 5,  0, 6,  0, 7,
                              0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15 };
    const __mmask32 upper = 0xaaaaaaaau; /* zeros elsewhere */
    __m256i half;
    memcpy(&half, p, sizeof(half));
    return (gr_vf)_mm512_maskz_permutexvar_epi16(upper, (__m512i)source,
                                                 _mm512_castsi256_si512(half));
}
GR_ALWAYS void gr_store_upper(uint16_t *p, gr_vu bits)
{
    const gr_words source = { 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31 };
    const __m256i half =
        _mm512_castsi512_si256(_mm512_permutexvar_epi16((__m512i)source, (__m512i)bits));
    memcpy(p, &half, sizeof(half));
}

#elif GR_VECTOR_WIDTH == 8

typedef int8_t gr_bytes __attribute__((vector_size(32))); /* -1: a zero */

GR_ALWAYS gr_vf gr_widen_bf16(const uint16_t *p)
{
    const gr_bytes source = { -1, -1, 0, 1, -1, -1, 2,  3,  -1, -1, 4,  5,  -1, -1, 6,  7,
                              -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15 };
    __m128i half;
    memcpy(&half, p, sizeof(half));
    return (gr_vf)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(half), (__m256i)source);
}
GR_ALWAYS void gr_store_upper(uint16_t *p, gr_vu bits)
{
    const gr_bytes source = { 2, 3, 6, 7, 10, 11, 14, 15, -1, -1, -1, -1, -1, -1, -1, -1,
                              2, 3, 6, 7, 10, 11, 14, 15, -1, -1, -1, -1, -1, -1, -1, -1 };
    const __m256i words = _mm256_shuffle_epi8((__m256i)bits, (__m256i)source);
    const __m128i half = _mm256_castsi256_si128(_mm256_permute4x64_epi64(words, 8));
    memcpy(p, &half, sizeof(half));
}

#else

typedef int8_t gr_bytes __attribute__((vector_size(16)));

GR_ALWAYS gr_vf gr_widen_bf16(const uint16_t *p)
{
    int64_t half;
    memcpy(&half, p, sizeof(half));
    return (gr_vf)_mm_unpacklo_epi16(_mm_setzero_si128(), _mm_cvtsi64_si128(half));
}
GR_ALWAYS void gr_store_upper(uint16_t *p, gr_vu bits)
{
    const gr_bytes source = { 2, 3, 6, 7, 10, 11, 14, 15, -1, -1, -1, -1, -1, -1, -1, -1 };
    const int64_t half = _mm_cvtsi128_si64(_mm_shuffle_epi8((__m128i)bits, (__m128i)source));
    memcpy(p, &half, sizeof(half));
}

#endif

#if GR_VECTOR_WIDTH == 16
GR_ALWAYS gr_vf gr_widen_f16(const uint16_t *p)
{
    __m256i half;
    memcpy(&half, p, sizeof(half));
    return (gr_vf)_mm512_cvtph_ps(half);
}
GR_ALWAYS gr_vf gr_narrow_f16(uint16_t *p, gr_vf x)
{
    const __m256i half = _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT);
    memcpy(p, &half, sizeof(half));
    return (gr_vf)_mm512_cvtph_ps(half);
}
#elif GR_VECTOR_WIDTH == 8
GR_ALWAYS gr_vf gr_widen_f16(const uint16_t *p)
{
    __m128i half;
    memcpy(&half, p, sizeof(half));
    return (gr_vf)_mm256_cvtph_ps(half);
}
GR_ALWAYS gr_vf gr_narrow_f16(uint16_t *p, gr_vf x)
{
    const __m128i half = _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
    memcpy(p, &half, sizeof(half));
    return (gr_vf)_mm256_cvtph_ps(half);
}
#else /* x86-64-v2 has no f16 conversions */
GR_ALWAYS gr_vf gr_widen_f16(const uint16_t *p)
{
    gr_vf x;
    for (int i = 0; i < GR_VECTOR_WIDTH; i++)
        x[i] = gr_f16_to_f32(p[i]);
    return x;
}
GR_ALWAYS gr_vf gr_narrow_f16(uint16_t *p, gr_vf x)
{
    for (int i = 0; i < GR_VECTOR_WIDTH; i++)
        p[i] = gr_f32_to_f16_saturating(x[i]);
    return gr_widen_f16(p);
}
#endif

/* f16 stores saturate: finite magnitudes end at 65504, infinities and NaN stay. Magnitudes
 * order like their patterns. */
GR_ALWAYS gr_vf gr_clamp_f16(gr_vf x, gr_vi *saturated)
{
    const gr_vu bits = (gr_vu)x;
    const gr_vi magnitude = (gr_vi)(bits & 0x7fffffffu);
    const gr_vi over = (magnitude >= 0x477ff000) & (magnitude < 0x7f800000);
    *saturated -= over;
    return (gr_vf)((bits & ~(gr_vu)over) |
                   (((bits & 0x80000000u) | 0x477fe000u) & (gr_vu)over));
}

GR_ALWAYS gr_vf gr_load(const int type, const void *p, size_t i)
{
    const uint16_t *half = (const uint16_t *)p + i;
    switch ((enum gr_type)type) {
    case GR_TYPE_F32: break;
    case GR_TYPE_BF16: return gr_widen_bf16(half);
    case GR_TYPE_F16: return gr_widen_f16(half);
    }
    return gr_load_f32((const float *)p + i);
}

GR_ALWAYS gr_vf gr_narrow_bf16(uint16_t *p, gr_vu upper)
{
    gr_store_upper(p, upper);
    return gr_bf16_rounded(upper);
}

/* Rounds, stores, and gives what a load would read back. */
GR_ALWAYS gr_vf gr_store(const int type, void *p, size_t i, gr_vf x, gr_vi *saturated)
{
    uint16_t *half = (uint16_t *)p + i;
    switch ((enum gr_type)type) {
    case GR_TYPE_F32: break;
    case GR_TYPE_BF16: return gr_narrow_bf16(half, gr_bf16_upper(x));
    case GR_TYPE_F16: return gr_narrow_f16(half, gr_clamp_f16(x, saturated));
    }
    gr_store_f32((float *)p + i, x);
    return x;
}

/* gr_store of what arithmetic made of numbers of this type alone. */
GR_ALWAYS gr_vf gr_store_own(const int type, void *p, size_t i, gr_vf x, gr_vi *saturated)
{
    if (type != GRADREG_TYPE_BF16)
        return gr_store(type, p, i, x, saturated);
    return gr_narrow_bf16((uint16_t *)p + i, gr_bf16_upper_own(x));
}

GR_ALWAYS gr_vf gr_rounded(const int type, gr_vf x)
{
    uint16_t scratch[GR_VECTOR_WIDTH];
    gr_vi ignored = { 0 };
    switch ((enum gr_type)type) {
    case GR_TYPE_F32: break;
    case GR_TYPE_BF16: return gr_bf16_rounded(gr_bf16_upper(x));
    case GR_TYPE_F16: return gr_narrow_f16(scratch, gr_clamp_f16(x, &ignored));
    }
    return x;
}

GR_ALWAYS void gr_count_unequal(gr_vi *count, gr_vf x, gr_vf y)
{
#if GR_VECTOR_WIDTH == 16
    const __mmask16 differ = _mm512_cmp_ps_mask((__m512)x, (__m512)y, _CMP_NEQ_UQ);
    const __m512i before = (__m512i)*count;
    *count = (gr_vi)_mm512_mask_sub_epi32(before, differ, before, _mm512_set1_epi32(-1));
#else
    *count -= (gr_vi)(x != y);
#endif
}

GR_ALWAYS uint64_t gr_total(gr_vi count)
{
    uint64_t total = 0;
    for (int i = 0; i < GR_VECTOR_WIDTH; i++)
        total += (uint32_t)count[i];
    return total;
}

#endif

/* Copy that leaves the destination out of the caches, for buffers too large to be met there
 * again: the line is not read before it is written. Ends with plain stores at both borders. */
GR_ALWAYS void gr_copy(void *to, const void *from, size_t bytes, int streaming)
{
#if GR_VECTOR_WIDTH > 1
    if (streaming) {
        char *d = to;
        const char *s = from;
        const size_t head = (size_t)(-(uintptr_t)d & 63u);
        if (head > 0 && head < bytes) {
            memcpy(d, s, head);
            d += head, s += head, bytes -= head;
        }
        for (; head < bytes && bytes >= 64; d += 64, s += 64, bytes -= 64) {
#if GR_VECTOR_WIDTH == 16
            _mm512_stream_si512((void *)d, _mm512_loadu_si512(s));
#elif GR_VECTOR_WIDTH == 8
            const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)s);
            const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(s + 32));
            _mm256_stream_si256((__m256i *)(void *)d, a);
            _mm256_stream_si256((__m256i *)(void *)(d + 32), b);
#else
            for (int k = 0; k < 64; k += 16)
                _mm_stream_si128((__m128i *)(void *)(d + k),
                                 _mm_loadu_si128((const __m128i *)(const void *)(s + k)));
#endif
        }
        memcpy(d, s, bytes);
        return;
    }
#else
    (void)streaming;
#endif
    memcpy(to, from, bytes);
}

/* Orders streamed lines before what other threads are told afterwards. */
GR_ALWAYS void gr_copy_fence(void)
{
#if GR_VECTOR_WIDTH > 1
    _mm_sfence();
#endif
}

#endif
