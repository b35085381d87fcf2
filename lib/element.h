/* element.h - every per-element formula, once, for the CPU and for CUDA.
 *
 * In: a number of one element. Out: what becomes of it. No memory, no state, and no libm
 * function: besides the four operations and comparisons only sqrt, which IEEE 754 rounds
 * correctly everywhere (random.h). Contraction is off in both compilers, so each written
 * operation rounds once and host and device agree bit for bit. Only the payload of a NaN
 * that arithmetic made is the processor's own.
 *
 *   storage      bf16 and f16 <-> fp32, round to nearest even; fp32 as three bf16
 *   stochastic   a double to fp32, bf16 or f16 with 32 random bits
 *   formulas     macros of operators, for float, double, GNU vectors and CUDA alike
 *   functions    log, exp, pow, and cos and sin of turns in double, with stated bounds */
#ifndef GRADREG_LIB_ELEMENT_H
#define GRADREG_LIB_ELEMENT_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __FAST_MATH__
#error "fast math may reorder, contract and drop NaN: the same bits everywhere need it off"
#endif
#if defined(__FLT_EVAL_METHOD__) && (__FLT_EVAL_METHOD__ == 1 || __FLT_EVAL_METHOD__ == 2)
#error "float and double operations must round to their own type (x86: -mfpmath=sse)"
#endif

#ifdef __CUDACC__
#define GR_FN static __host__ __device__ __forceinline__
#else
#define GR_FN static inline
#endif

/* ---- bit patterns ---------------------------------------------------------------- */

typedef uint16_t gr_bf16; /* sign, 8 exponent bits, 7 fraction bits */
typedef uint16_t gr_f16;  /* sign, 5 exponent bits, 10 fraction bits */

GR_FN uint32_t gr_f32_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

GR_FN float gr_bits_f32(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

GR_FN uint64_t gr_f64_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

GR_FN double gr_bits_f64(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* From the exponent bits: holds under any compiler option and for every NaN. */
GR_FN int gr_is_non_finite(float x)
{
    return (gr_f32_bits(x) & 0x7f800000u) == 0x7f800000u;
}

/* ---- storage types --------------------------------------------------------------- */

GR_FN float gr_bf16_to_f32(gr_bf16 x)
{
    return gr_bits_f32((uint32_t)x << 16);
}

/* Nearest, ties to even, infinity beyond the largest. A NaN becomes quiet and keeps its
 * sign and the top of its payload. */
GR_FN gr_bf16 gr_f32_to_bf16(float x)
{
    const uint32_t bits = gr_f32_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (gr_bf16)(bits >> 16 | 0x40u);
    return (gr_bf16)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

enum { GR_BF16_PIECES = 3 };

/* x as a sum of three bf16, each the nearest to what those before it leave. No piece of a finite x is
 * infinite: beyond the largest bf16 the first is that one. What is left is exact in fp32 every time: the
 * sum is x from 2^-110 on, and 2^-134 off at most below that. What is not finite is the first piece alone,
 * so that the others add nothing to it. */
GR_FN void gr_bf16_pieces(gr_bf16 piece[GR_BF16_PIECES], float x)
{
    for (int k = 0; k < GR_BF16_PIECES; k++) {
        const uint32_t bits = gr_f32_bits(x), magnitude = bits & 0x7fffffffu;
        const int beyond = magnitude >= 0x7f7f8000u && magnitude < 0x7f800000u;
        piece[k] = beyond ? (gr_bf16)((bits >> 16 & 0x8000u) | 0x7f7fu) : gr_f32_to_bf16(x);
        x = gr_is_non_finite(x) ? 0.0f : x - gr_bf16_to_f32(piece[k]);
    }
}

/* Exact. A NaN becomes quiet and keeps sign and payload, as conversion instructions do. */
GR_FN float gr_f16_to_f32(gr_f16 x)
{
    const uint32_t sign = (uint32_t)(x & 0x8000u) << 16;
    const uint32_t magnitude = x & 0x7fffu;
    uint32_t wide;

    if (magnitude > 0x7c00u)
        wide = 0x7fc00000u | magnitude << 13;
    else if (magnitude == 0x7c00u)
        wide = 0x7f800000u;
    else if (magnitude >= 0x0400u)
        wide = (magnitude << 13) + (112u << 23); /* exponent bias 15 -> 127 */
    else
        wide = gr_f32_bits((float)magnitude * 0x1p-24f);
    return gr_bits_f32(sign | wide);
}

/* A finite value that rounds beyond 65504, the largest f16: from the midpoint 65520 on. */
GR_FN int gr_f16_saturates(float x)
{
    const uint32_t magnitude = gr_f32_bits(x) & 0x7fffffffu;
    return magnitude >= 0x477ff000u && magnitude < 0x7f800000u;
}

/* Nearest, ties to even. Finite values stay finite (+-65504 at most), infinities stay
 * infinite; a NaN becomes quiet and keeps its sign and the top of its payload. */
GR_FN gr_f16 gr_f32_to_f16_saturating(float x)
{
    const uint32_t bits = gr_f32_bits(x);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t narrow;

    if (magnitude > 0x7f800000u)
        narrow = 0x7e00u | (magnitude >> 13 & 0x3ffu);
    else if (magnitude == 0x7f800000u)
        narrow = 0x7c00u;
    else if (magnitude >= 0x477ff000u)
        narrow = 0x7bffu;
    else if (magnitude >= 0x38800000u)
        narrow = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    else /* next to one half a float's last place is 2^-24, the step of f16 denormals */
        narrow = gr_f32_bits(gr_bits_f32(magnitude) + 0.5f) - 0x3f000000u;
    return (gr_f16)(sign | narrow);
}

/* ---- stochastic rounding --------------------------------------------------------- */
/* Of the two neighbours the one away from zero is taken with the probability that is x's
 * share of the way to it, counted in steps of 2^-32 and cut off, never rounded up: exact
 * for normal fp32 (29 bits are dropped), short by less than 2^-32 otherwise. Values the
 * type holds stay as they are; -x with the same random bits gives the negated result. */

/* The target's bit pattern of |x|, given as its own: `fraction` bits of fraction, exponent
 * bias `bias`. Finite values may come out past the target's largest. */
GR_FN uint64_t gr_round_magnitude(uint64_t magnitude, int fraction, int bias, uint32_t random)
{
    const int exponent = (int)(magnitude >> 52);
    const int first_normal = 1024 - bias;
    int dropped = 52 - fraction;

    if (exponent >= first_normal) {
        magnitude -= (uint64_t)(1023 - bias) << 52;
    } else { /* a double that is denormal itself is far below what counts */
        const uint64_t hidden = UINT64_C(1) << 52;
        magnitude = (magnitude & (hidden - 1)) | hidden;
        dropped += first_normal - exponent;
    }
    if (dropped > 63 + 52)
        return 0;
    if (dropped > 63) { /* what leaves here lies below the resolution */
        magnitude >>= dropped - 63;
        dropped = 63;
    }
    const uint64_t add =
        dropped >= 32 ? (uint64_t)random << (dropped - 32) : (uint64_t)random >> (32 - dropped);
    return (magnitude + add) >> dropped;
}

GR_FN float gr_round_stochastic_f32(double exact, uint32_t random)
{
    const uint64_t bits = gr_f64_bits(exact);
    const uint64_t magnitude = bits & UINT64_C(0x7fffffffffffffff);
    const uint32_t sign = (uint32_t)(bits >> 32) & 0x80000000u;

    if (magnitude > UINT64_C(0x7ff0000000000000))
        return gr_bits_f32(sign | 0x7fc00000u | (uint32_t)(magnitude >> 29 & 0x7fffffu));
    const uint64_t narrow = gr_round_magnitude(magnitude, 23, 127, random);
    return gr_bits_f32(sign | (narrow < 0x7f800000u ? (uint32_t)narrow : 0x7f800000u));
}

GR_FN gr_bf16 gr_round_stochastic_bf16(double exact, uint32_t random)
{
    const uint64_t bits = gr_f64_bits(exact);
    const uint64_t magnitude = bits & UINT64_C(0x7fffffffffffffff);
    const uint32_t sign = (uint32_t)(bits >> 48) & 0x8000u;

    if (magnitude > UINT64_C(0x7ff0000000000000))
        return (gr_bf16)(sign | 0x7fc0u | (uint32_t)(magnitude >> 45 & 0x7fu));
    const uint64_t narrow = gr_round_magnitude(magnitude, 7, 127, random);
    return (gr_bf16)(sign | (narrow < 0x7f80u ? (uint32_t)narrow : 0x7f80u));
}

/* Whether the rounding below clips: a finite value whose neighbour taken is past 65504. */
GR_FN int gr_f16_saturates_stochastic(double exact, uint32_t random)
{
    const uint64_t magnitude = gr_f64_bits(exact) & UINT64_C(0x7fffffffffffffff);
    return magnitude < UINT64_C(0x7ff0000000000000) &&
           gr_round_magnitude(magnitude, 10, 15, random) > 0x7bffu;
}

GR_FN gr_f16 gr_round_stochastic_f16(double exact, uint32_t random)
{
    const uint64_t bits = gr_f64_bits(exact);
    const uint64_t magnitude = bits & UINT64_C(0x7fffffffffffffff);
    const uint32_t sign = (uint32_t)(bits >> 48) & 0x8000u;

    if (magnitude > UINT64_C(0x7ff0000000000000))
        return (gr_f16)(sign | 0x7e00u | (uint32_t)(magnitude >> 42 & 0x3ffu));
    if (magnitude == UINT64_C(0x7ff0000000000000))
        return (gr_f16)(sign | 0x7c00u);
    const uint64_t narrow = gr_round_magnitude(magnitude, 10, 15, random);
    return (gr_f16)(sign | (narrow < 0x7bffu ? (uint32_t)narrow : 0x7bffu));
}

/* ---- formulas -------------------------------------------------------------------- */
/* Written with operators alone, so that one text serves a float, a vector register and a
 * CUDA thread. One rounding per operator, in the order the parentheses give. */

/* theta' = theta + delta */
#define GR_MOVE(base, coefficient, u) ((base) + (coefficient) * (u))
/* a = c1 g1, b = c2 g2 */
#define GR_SCALED(c, g) ((c) * (g))
/* D */
#define GR_DIFFERENCE_FORWARD(a, b)   ((b) - (a))
#define GR_DIFFERENCE_CENTRAL(bp, bm) (((bp) - (bm)) * 0.5f)
/* the regularized gradient a + k D */
#define GR_CORRECTED(a, k, d) ((a) + (k) * (d))

/* ---- functions ------------------------------------------------------------------- */
/* ln 2 in two parts: k times the first is exact for |k| < 2^20. */
#define GR_LN2_HIGH 0x1.62e42fee00000p-1
#define GR_LN2_LOW  0x1.a39ef35793c76p-33

/* ln x for normal x > 0; below 1 ulp. */
GR_FN double gr_log(double x)
{
    /* x = 2^k m with m in [sqrt 1/2, sqrt 2): the offset moves that border to a power of 2. */
    const uint64_t offset = UINT64_C(0x3ff0000000000000) - UINT64_C(0x3fe6a09e667f3bcd);
    const uint64_t shifted = gr_f64_bits(x) + offset;
    const double k = (double)((int)(shifted >> 52) - 1023);
    const uint64_t fraction = shifted & UINT64_C(0x000fffffffffffff);
    const double f = gr_bits_f64(fraction + UINT64_C(0x3fe6a09e667f3bcd)) - 1.0;

    /* With s = f/(2+f): ln(1+f) = 2 atanh s = 2s + s r(s^2), and 2s = f - s f, so that the
     * exact f leads and the rounding of s counts only in the smaller product. */
    const double s = f / (2.0 + f);
    const double z = s * s;
    double r = 2.0 / 21.0;
    r = 2.0 / 19.0 + z * r;
    r = 2.0 / 17.0 + z * r;
    r = 2.0 / 15.0 + z * r;
    r = 2.0 / 13.0 + z * r;
    r = 2.0 / 11.0 + z * r;
    r = 2.0 / 9.0 + z * r;
    r = 2.0 / 7.0 + z * r;
    r = 2.0 / 5.0 + z * r;
    r = 2.0 / 3.0 + z * r;
    return k * GR_LN2_HIGH + (f - (s * (f - z * r) - k * GR_LN2_LOW));
}

/* 2^k for -1022 <= k <= 1023 */
GR_FN double gr_power_of_two(int k)
{
    return gr_bits_f64((uint64_t)(k + 1023) << 52);
}

/* e^x for every x; below 1 ulp, and below 1.5 where the result is denormal. */
GR_FN double gr_exp(double x)
{
    if (x != x)
        return x;
    if (x > 710.0)
        return HUGE_VAL;
    if (x < -746.0)
        return 0.0;
    /* 1/ln 2; the cast cuts off, the half in front makes that the nearest integer */
    const double turns = x * 0x1.71547652b82fep+0;
    const int k = (int)(turns + (turns < 0.0 ? -0.5 : 0.5));
    const double high = x - (double)k * GR_LN2_HIGH;
    const double r = high - (double)k * GR_LN2_LOW;
    double p = 1.0 / 6227020800.0; /* 1/13!, down to 1/2! */
    p = 1.0 / 479001600.0 + r * p;
    p = 1.0 / 39916800.0 + r * p;
    p = 1.0 / 3628800.0 + r * p;
    p = 1.0 / 362880.0 + r * p;
    p = 1.0 / 40320.0 + r * p;
    p = 1.0 / 5040.0 + r * p;
    p = 1.0 / 720.0 + r * p;
    p = 1.0 / 120.0 + r * p;
    p = 1.0 / 24.0 + r * p;
    p = 1.0 / 6.0 + r * p;
    p = 1.0 / 2.0 + r * p;
    const double e = 1.0 + (r + r * r * p);
    /* In two factors, because 2^1024 and 2^-1074 have no normal pattern. */
    return e * gr_power_of_two(k / 2) * gr_power_of_two(k - k / 2);
}

/* x^p for x >= 0; relative error below 1e-13 for |p ln x| <= 100, and growing with it beyond.
 * p = 0 and p = 1 are exact, 0^p is 0 or, for p < 0, infinite; x < 0 gives NaN. */
GR_FN double gr_pow(double x, double p)
{
    if (p == 0.0)
        return 1.0;
    if (p == 1.0 || x != x)
        return x;
    if (x < 0.0)
        return (double)NAN;
    if (x == 0.0 || x > 0x1.fffffffffffffp+1023)
        return (x == 0.0) == (p < 0.0) ? HUGE_VAL : 0.0;
    if (x < 0x1p-1022) /* a denormal is first made normal */
        return gr_exp(p * (gr_log(x * 0x1p+54) - 54.0 * (GR_LN2_HIGH + GR_LN2_LOW)));
    return gr_exp(p * gr_log(x));
}

/* x less its nearest quarter turn, in turns, |result| <= 1/8 and exact; that quarter, 0..3.
 * NaN for x that is not finite. */
GR_FN double gr_reduce_turn(double x, int *quarter)
{
    *quarter = 0;
    if (!(x > -0x1p+53 && x < 0x1p+53)) /* whole turns, or not finite */
        return x * 0.0;
    const double part = x - (double)(int64_t)x;
    const double quarters = 4.0 * part;
    const int nearest = (int)(quarters + (quarters < 0.0 ? -0.5 : 0.5));
    *quarter = nearest & 3;
    return part - 0.25 * (double)nearest;
}

#define GR_TWO_PI      0x1.921fb54442d18p+2
#define GR_TWO_PI_REST 0x1.1a62633145c07p-52 /* 2 pi - GR_TWO_PI */

/* sin 2 pi t for |t| <= 1/8 */
GR_FN double gr_sin_eighth(double t)
{
    const double x = t * GR_TWO_PI;
    const double z = x * x;
    double p = 1.0 / 355687428096000.0; /* 1/17!, down to 1/3! */
    p = -1.0 / 1307674368000.0 + z * p;
    p = 1.0 / 6227020800.0 + z * p;
    p = -1.0 / 39916800.0 + z * p;
    p = 1.0 / 362880.0 + z * p;
    p = -1.0 / 5040.0 + z * p;
    p = 1.0 / 120.0 + z * p;
    p = -1.0 / 6.0 + z * p;
    return x + (t * GR_TWO_PI_REST + x * z * p);
}

/* cos 2 pi t for |t| <= 1/8 */
GR_FN double gr_cos_eighth(double t)
{
    const double x = t * GR_TWO_PI;
    const double z = x * x;
    double p = 1.0 / 20922789888000.0; /* 1/16!, down to 1/2! */
    p = -1.0 / 87178291200.0 + z * p;
    p = 1.0 / 479001600.0 + z * p;
    p = -1.0 / 3628800.0 + z * p;
    p = 1.0 / 40320.0 + z * p;
    p = -1.0 / 720.0 + z * p;
    p = 1.0 / 24.0 + z * p;
    p = -1.0 / 2.0 + z * p;
    return 1.0 + z * p;
}

/* cos 2 pi x for finite x; below 2 ulp, zeros and +-1 exact. */
GR_FN double gr_cos_turn(double x)
{
    int quarter;
    const double t = gr_reduce_turn(x, &quarter);
    const double value = quarter & 1 ? gr_sin_eighth(t) : gr_cos_eighth(t);
    return quarter == 1 || quarter == 2 ? -value : value;
}

/* sin 2 pi x for finite x; below 2 ulp, zeros and +-1 exact. */
GR_FN double gr_sin_turn(double x)
{
    int quarter;
    const double t = gr_reduce_turn(x, &quarter);
    const double value = quarter & 1 ? gr_cos_eighth(t) : gr_sin_eighth(t);
    return quarter & 2 ? -value : value;
}

#endif
