/* types.h - how long elements are, and the conversions of element.h by type.
 *
 * In: a GRADREG_TYPE_ constant. Out: bytes of an element; a 16-bit element as f32 and back. Where the
 * constant is known, no branch remains. */
#ifndef GRADREG_LIB_TYPES_H
#define GRADREG_LIB_TYPES_H

#include <stddef.h>
#include <stdint.h>

#include "element.h"
#include "gradreg.h"

GR_FN size_t gr_type_bytes(int32_t type)
{
    return type == GRADREG_TYPE_F32 ? 4 : 2;
}

GR_FN float gr_half_to_f32(int32_t type, uint16_t half)
{
    return type == GRADREG_TYPE_BF16 ? gr_bf16_to_f32(half) : gr_f16_to_f32(half);
}

GR_FN uint16_t gr_f32_to_half(int32_t type, float x)
{
    return type == GRADREG_TYPE_BF16 ? gr_f32_to_bf16(x) : gr_f32_to_f16_saturating(x);
}

/* x as an element of this type would give it back; 0 stands for x itself. */
GR_FN float gr_round_to(int32_t type, float x)
{
    if (type == GRADREG_TYPE_BF16)
        return gr_bf16_to_f32(gr_f32_to_bf16(x));
    if (type == GRADREG_TYPE_F16)
        return gr_f16_to_f32(gr_f32_to_f16_saturating(x));
    return x;
}

#endif
