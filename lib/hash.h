/* hash.h - fingerprints of what a call brings, and of tables.
 *
 * In: values, one by one, from GR_HASH_START on. Out: 64 bits by Fowler, Noll and Vo's rule (FNV-1a; with
 * bytes as values it is theirs). */
#ifndef GRADREG_LIB_HASH_H
#define GRADREG_LIB_HASH_H

#include <stdint.h>

#define GR_HASH_START UINT64_C(0xcbf29ce484222325)

static inline uint64_t gr_hash(uint64_t hash, uint64_t value)
{
    return (hash ^ value) * UINT64_C(0x100000001b3);
}

#endif
