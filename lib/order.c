/* order.c - a heap sort of numbers.
 *
 * In: keys, and how two of them compare. Out: the keys' numbers in order. */
#include "order.h"

static void sift_down(uint64_t *heap, size_t root, size_t count, gr_before before,
                      const void *keys)
{
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && before(keys, heap[child], heap[child + 1]))
            child++;
        if (!before(keys, heap[root], heap[child]))
            return;
        const uint64_t swap = heap[root];
        heap[root] = heap[child];
        heap[child] = swap;
    }
}

void gradreg_i_order(uint64_t *order, size_t count, gr_before before, const void *keys)
{
    for (size_t i = 0; i < count; i++)
        order[i] = i;
    for (size_t i = count / 2; i-- > 0;)
        sift_down(order, i, count, before, keys);
    for (size_t end = count; end-- > 1;) {
        const uint64_t swap = order[0];
        order[0] = order[end];
        order[end] = swap;
        sift_down(order, 0, end, before, keys);
    }
}
