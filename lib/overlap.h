/* overlap.h - whether two buffers of a call share memory.
 *
 * In: two addresses with lengths in bytes. Out: 1 if they have a byte in common; NULL has none. */
#ifndef GRADREG_LIB_OVERLAP_H
#define GRADREG_LIB_OVERLAP_H

#include <stddef.h>
#include <stdint.h>

static inline int gr_overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    const uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;
    return x != 0 && y != 0 && a_bytes != 0 && b_bytes != 0 && x < y + b_bytes &&
           y < x + a_bytes;
}

#endif
