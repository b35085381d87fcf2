/* host_results.c - every case of cases.h as plain C on the host: what a device must match. */
#include "cases.h"

#include <string.h>

#define DEFINE_WORD_CASE(name, inputs, expression)                                           \
    static void host_##name(const uint64_t *a_words, const uint64_t *b_words, uint64_t *out, \
                            uint32_t item)                                                   \
    {                                                                                        \
        const uint64_t a = *a_words, b = *b_words;                                           \
        (void)a, (void)b, (void)item;                                                        \
        *out = (expression);                                                                 \
    }
WORD_CASES(DEFINE_WORD_CASE)

static void load_lanes(float lanes[GR_LANES], const uint64_t *words)
{
    memcpy(lanes, words, GR_LANES * sizeof(*lanes));
}

static void host_tree_lanes(const uint64_t *a, const uint64_t *b, uint64_t *out, uint32_t item)
{
    float lanes[GR_LANES];
    (void)b, (void)item;
    load_lanes(lanes, a);
    *out = result_f64(gr_tree_lanes(lanes));
}

static void host_lanes_in_range(const uint64_t *a, const uint64_t *b, uint64_t *out,
                                uint32_t item)
{
    float lanes[GR_LANES];
    (void)b, (void)item;
    load_lanes(lanes, a);
    *out = (uint64_t)gr_lanes_in_range(lanes);
}

static void host_tree_doubles(const uint64_t *a, const uint64_t *b, uint64_t *out,
                              uint32_t item)
{
    double acc[GR_ACCUMULATORS];
    (void)b, (void)item;
    memcpy(acc, a, sizeof(acc));
    *out = result_f64(gr_tree_doubles(acc));
}

/* The tree uses its input up: what it leaves there is compared too. */
static void host_tree_blocks(const uint64_t *a, const uint64_t *b, uint64_t *out, uint32_t item)
{
    double x[BLOCKS_LONGEST];
    (void)b;
    memcpy(x, a, sizeof(x));
    x[BLOCKS_LONGEST - 1] += gr_tree_blocks(x, blocks_of_item(item));
    memcpy(out, x, sizeof(x));
}

static void host_tree_blocks_strided(const uint64_t *a, const uint64_t *b, uint64_t *out,
                                     uint32_t item)
{
    double x[3 * BLOCKS_LONGEST];
    (void)b;
    memcpy(x, a, sizeof(x));
    *out = result_f64(gr_tree_blocks_strided(x, blocks_of_item(item), 1 + item % 3));
}

/* Every thread of the warp must hold what the array form gives. */
static void to_all_threads(uint64_t out[32])
{
    for (int t = 1; t < 32; t++)
        out[t] = out[0];
}

static void host_tree_warp(const uint64_t *a, const uint64_t *b, uint64_t *out, uint32_t item)
{
    host_tree_lanes(a, b, out, item);
    to_all_threads(out);
}

static void host_lanes_in_range_warp(const uint64_t *a, const uint64_t *b, uint64_t *out,
                                     uint32_t item)
{
    host_lanes_in_range(a, b, out, item);
    to_all_threads(out);
}

static void host_tree_warp_doubles(const uint64_t *a, const uint64_t *b, uint64_t *out,
                                   uint32_t item)
{
    host_tree_doubles(a, b, out, item);
    to_all_threads(out);
}

static double sum_block(const float *x, const float *y, uint32_t n)
{
    float lanes[GR_LANES] = { 0 };
    double acc[GR_ACCUMULATORS] = { 0 };

    for (uint32_t i = 0; i < n; i++)
        lanes[GR_LANE_OF(i)] = GR_ACCUMULATE(lanes[GR_LANE_OF(i)], x[i], y[i]);
    if (gr_lanes_in_range(lanes))
        return gr_tree_lanes(lanes);
    for (uint32_t i = 0; i < n; i++)
        acc[GR_ACCUMULATOR_OF(i)] =
            GR_ACCUMULATE(acc[GR_ACCUMULATOR_OF(i)], (double)x[i], (double)y[i]);
    return gr_tree_doubles(acc);
}

static void host_segment_sum(const uint64_t *a, const uint64_t *b, uint64_t *out, uint32_t item)
{
    static float x[SEGMENT_LONGEST], y[SEGMENT_LONGEST];
    double results[SEGMENT_LONGEST / GR_BLOCK + 1];
    const uint32_t n = elements_of_item(item);
    uint32_t blocks = 0;

    memcpy(x, a, sizeof(x));
    memcpy(y, b, sizeof(y));
    for (uint32_t begin = 0; begin < n; begin += GR_BLOCK)
        results[blocks++] = sum_block(x + begin, y + begin,
                                      n - begin < GR_BLOCK ? n - begin : (uint32_t)GR_BLOCK);
    *out = result_f64(gr_tree_blocks(results, blocks));
}

#define WORD_ENTRY(name, inputs, expression) { #name, inputs, 1, 1, 1, 1, host_##name },
#define ARRAY_ENTRY(name, inputs, a, b, out, threads) \
    { #name, inputs, a, b, out, threads, host_##name },
const struct device_case device_cases[] = { WORD_CASES(WORD_ENTRY) ARRAY_CASES(ARRAY_ENTRY) };
const size_t device_case_count = sizeof(device_cases) / sizeof(*device_cases);
