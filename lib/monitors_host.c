/* monitors_host.c - distinct n-grams and the moving average.
 *
 * In: tokens, values. Out: a share, means.
 *
 * N-grams are told apart by numbers for runs that double in length: two runs of m + k tokens, k <= m,
 * are equal exactly if their first m and their last m are, so the numbers of two runs of m make a key
 * of 64 bits for the longer run. A table gives equal keys equal numbers. Nothing is ever compared by a
 * hash alone. */
#include "monitors_host.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

/* ---- n-grams --------------------------------------------------------------------- */

/* Open addressing; at least half of the slots stay free. number 0: a free slot. */
typedef struct number_table {
    uint64_t *keys;
    uint32_t *numbers;
    size_t slots; /* a power of two */
    uint32_t given;
} number_table;

/* The last step of SplitMix64: every bit of the key reaches every bit of the slot. */
static size_t slot_of(const number_table *t, uint64_t key)
{
    key = (key ^ key >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    key = (key ^ key >> 27) * UINT64_C(0x94d049bb133111eb);
    return (size_t)(key ^ key >> 31) & (t->slots - 1);
}

static uint32_t number_of(number_table *t, uint64_t key)
{
    size_t slot = slot_of(t, key);
    while (t->numbers[slot] != 0 && t->keys[slot] != key)
        slot = (slot + 1) & (t->slots - 1);
    if (t->numbers[slot] == 0) {
        t->keys[slot] = key;
        t->numbers[slot] = ++t->given;
    }
    return t->numbers[slot];
}

/* runs[i] numbers the run of m tokens at i, for i < count; afterwards that of m + shift. */
static void lengthen(number_table *t, uint32_t *runs, size_t count, size_t shift)
{
    memset(t->numbers, 0, t->slots * sizeof(*t->numbers));
    t->given = 0;
    for (size_t i = 0; i + shift < count; i++)
        runs[i] = number_of(t, (uint64_t)runs[i] << 32 | runs[i + shift]);
}

/* How many different runs there are. count >= order >= 1. */
static uint32_t count_distinct(number_table *t, uint32_t *runs, size_t count, size_t order)
{
    size_t length = 1;
    if (order == 1) {
        lengthen(t, runs, count, 0);
        return t->given;
    }
    while (length < order) {
        const size_t shift = length < order - length ? length : order - length;
        lengthen(t, runs, count, shift);
        length += shift;
        count -= shift;
    }
    return t->given;
}

gradreg_status gradreg_i_distinct_ngrams(double *out, const int32_t *tokens, size_t count,
                                         size_t order)
{
    number_table t = { NULL, NULL, 2, 0 };
    if (count < order) {
        *out = (double)NAN;
        return GRADREG_OK;
    }
    while (t.slots < 2 * count)
        t.slots *= 2;
    const size_t bytes =
        t.slots * (sizeof(*t.keys) + sizeof(*t.numbers)) + count * sizeof(uint32_t);
    t.keys = malloc(bytes);
    if (t.keys == NULL)
        return GR_FAIL(GRADREG_ERROR_OUT_OF_MEMORY, "no memory for %zu bytes", bytes);
    t.numbers = (uint32_t *)(void *)(t.keys + t.slots);
    uint32_t *runs = t.numbers + t.slots;
    memcpy(runs, tokens, count * sizeof(*runs));
    const uint32_t distinct = count_distinct(&t, runs, count, order);
    free(t.keys);
    *out = (double)distinct / (double)(count - order + 1);
    return GRADREG_OK;
}

/* ---- moving average -------------------------------------------------------------- */

static int is_number(float x)
{
    return x == x;
}

static double value_of(float x)
{
    return is_number(x) ? (double)x : 0.0;
}

/* What the windows that end in [begin, end) see before `begin`, as long as a window. */
static void sum_before(double *out, const float *values, size_t begin, size_t end,
                       size_t window)
{
    double sum = 0.0;
    for (size_t k = 1; k < window; k++) {
        const size_t last = begin + window - 1 - k; /* of the window that starts at begin - k */
        sum += value_of(values[begin - k]);
        if (last < end)
            out[last] = sum;
    }
}

/* Stretches as long as a window: each window is an end of one and a start of the next. So no sum has
 * anything taken out again, which would leave rounding and infinities behind. */
void gradreg_i_moving_average(double *out, const float *values, size_t count, size_t window)
{
    size_t numbers = 0;
    window = window < count ? window : count;
    for (size_t begin = 0; begin < count; begin += window) {
        const size_t end = count - begin < window ? count : begin + window;
        double sum = 0.0;
        memset(out + begin, 0, (end - begin) * sizeof(*out));
        if (begin > 0)
            sum_before(out, values, begin, end, window);
        for (size_t i = begin; i < end; i++) {
            sum += value_of(values[i]);
            numbers += (size_t)is_number(values[i]);
            numbers -= i >= window ? (size_t)is_number(values[i - window]) : 0;
            out[i] = numbers > 0 ? (out[i] + sum) / (double)numbers : (double)NAN;
        }
    }
}
