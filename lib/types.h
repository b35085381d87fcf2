/* types.h - every type of elements: how long one is, and the conversions of element.h by type.
 *
 * In: a GRADREG_TYPE_ constant. Out: bytes of an element; a 16-bit element as f32 and back. Where the
 * constant is known, no branch remains.
 *
 * The two lists are the only ones: kernels, their tables and their launches are made of them. A switch over
 * gr_type has no default, so that the compiler names the type that it lacks. */
#ifndef GRADREG_LIB_TYPES_H
#define GRADREG_LIB_TYPES_H

#include <stddef.h>
#include <stdint.h>

#include "element.h"
#include "gradreg.h"

#define GR_EACH_TYPE(X) X(F32) X(BF16) X(F16)
/* Weights with gradients: of f32, and of their own type. */
#define GR_EACH_PAIR(X) X(F32, F32) X(BF16, F32) X(BF16, BF16) X(F16, F32) X(F16, F16)

#define GR_TYPE_NAMED(T)   GR_TYPE_##T = GRADREG_TYPE_##T,
#define GR_TYPE_COUNTED(T) +1
enum gr_type { GR_EACH_TYPE(GR_TYPE_NAMED) };
/* Of an array that a type is the index of; types begin at 1. */
enum { GR_TYPES = 1 GR_EACH_TYPE(GR_TYPE_COUNTED) };

GR_FN int gr_type_is_known(int32_t type)
{
    return type >= GRADREG_TYPE_F32 && type < GR_TYPES;
}

GR_FN size_t gr_type_bytes(int32_t type)
{
    return type == GRADREG_TYPE_F32 ? 4 : 2;
}

/* Half an ulp at 1. */
GR_FN double gr_half_ulp(int32_t type)
{
    switch ((enum gr_type)type) {
    case GR_TYPE_F32: break;
    case GR_TYPE_BF16: return 0x1p-8;
    case GR_TYPE_F16: return 0x1p-11;
    }
    return 0x1p-24;
}

/* ---- an element of 16 bits ------------------------------------------------------- */

GR_FN float gr_half_to_f32(int32_t type, uint16_t half)
{
    switch ((enum gr_type)type) {
    case GR_TYPE_BF16: return gr_bf16_to_f32(half);
    case GR_TYPE_F32: /* is none of them */
    case GR_TYPE_F16: break;
    }
    return gr_f16_to_f32(half);
}

GR_FN uint16_t gr_f32_to_half(int32_t type, float x)
{
    switch ((enum gr_type)type) {
    case GR_TYPE_BF16: return gr_f32_to_bf16(x);
    case GR_TYPE_F32:
    case GR_TYPE_F16: break;
    }
    return gr_f32_to_f16_saturating(x);
}

GR_FN uint16_t gr_round_stochastic_half(int32_t type, double exact, uint32_t random)
{
    switch ((enum gr_type)type) {
    case GR_TYPE_BF16: return gr_round_stochastic_bf16(exact, random);
    case GR_TYPE_F32:
    case GR_TYPE_F16: break;
    }
    return gr_round_stochastic_f16(exact, random);
}

/* ---- of any type ----------------------------------------------------------------- */

/* x as an element of this type would give it back; 0 stands for x itself. */
GR_FN float gr_round_to(int32_t type, float x)
{
    switch ((enum gr_type)type) {
    case GR_TYPE_F32: break;
    case GR_TYPE_BF16: return gr_bf16_to_f32(gr_f32_to_bf16(x));
    case GR_TYPE_F16: return gr_f16_to_f32(gr_f32_to_f16_saturating(x));
    }
    return x;
}

/* Whether a finite x becomes the type's largest number where rounding to nearest gives infinity. */
GR_FN int gr_saturates(int32_t type, float x)
{
    switch ((enum gr_type)type) {
    case GR_TYPE_F32:
    case GR_TYPE_BF16: break;
    case GR_TYPE_F16: return gr_f16_saturates(x);
    }
    return 0;
}

GR_FN int gr_saturates_stochastic(int32_t type, double exact, uint32_t random)
{
    switch ((enum gr_type)type) {
    case GR_TYPE_F32:
    case GR_TYPE_BF16: break;
    case GR_TYPE_F16: return gr_f16_saturates_stochastic(exact, random);
    }
    return 0;
}

#endif
