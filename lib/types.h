/* types.h - how long elements are.
 *
 * In: a GRADREG_TYPE_ constant. Out: bytes of an element. */
#ifndef GRADREG_LIB_TYPES_H
#define GRADREG_LIB_TYPES_H

#include <stddef.h>

#include "element.h"
#include "gradreg.h"

GR_FN size_t gr_type_bytes(int32_t type)
{
    return type == GRADREG_TYPE_F32 ? 4 : 2;
}

#endif
