/* order.h - numbers in the order of what they number.
 *
 * In: a count, and which of two numbers comes first. Out: the numbers below the count, in that order. */
#ifndef GRADREG_LIB_ORDER_H
#define GRADREG_LIB_ORDER_H

#include <stddef.h>
#include <stdint.h>

/* Must decide every pair, so that the order is one. */
typedef int (*gr_before)(const void *keys, uint64_t a, uint64_t b);

/* Allocates nothing, which qsort may, behind the caller's allocator. */
void gradreg_i_order(uint64_t *order, size_t count, gr_before before, const void *keys);

#endif
