/* cases.h - what the device check runs: one list, from which host_results.c makes C functions
 * and kernels.cu makes CUDA kernels.
 *
 * A case turns words a[], b[] of 64 bits into words out[], item by item. WORD_CASES name an
 * expression of one word a and one word b; every item is one thread. Cases with arrays have a
 * kernel and a host function of their own; GR_CASES gives the words per item of a, b and out and
 * the threads per item. `inputs` says what the words should look like. */
#ifndef GRADREG_TEST_DEVICE_CASES_H
#define GRADREG_TEST_DEVICE_CASES_H

#include <stddef.h>
#include <stdint.h>

#include "element.h"
#include "logits_math.h"
#include "probe_math.h"
#include "reduce.h"

#include "../draws.h"

enum inputs {
    INPUT_PATTERNS, /* bit patterns of floats and doubles, edges preferred */
    INPUT_POSITIVE, /* a: positive normal double, b: a power from -3 to 3 */
    INPUT_EXPONENT, /* a: double from -800 to 800 */
    INPUT_TURNS,    /* a: finite double of any size */
    INPUT_FLOATS,   /* pairs of floats, some items out of the lanes' range */
    INPUT_DOUBLES,  /* doubles */
};

/* ---- words and numbers ------------------------------------------------------------ */

GR_FN float low_f32(uint64_t word)
{
    return gr_bits_f32((uint32_t)word);
}

GR_FN float high_f32(uint64_t word)
{
    return gr_bits_f32((uint32_t)(word >> 32));
}

/* The payload of a NaN that arithmetic made is the processor's own. */
GR_FN uint64_t result_f32(float x)
{
    return x != x ? 0x7fc00000u : gr_f32_bits(x);
}

GR_FN uint64_t result_f64(double x)
{
    return x != x ? UINT64_C(0x7ff8000000000000) : gr_f64_bits(x);
}

GR_FN uint64_t pair_of_words(uint32_t low, uint32_t high)
{
    return (uint64_t)high << 32 | low;
}

GR_FN uint64_t philox_words(uint64_t a, uint64_t b, int first)
{
    const uint32_t counter[4] = { (uint32_t)a, (uint32_t)(a >> 32), (uint32_t)b, 7u };
    uint32_t out[4];
    gr_philox(counter, (uint32_t)(b >> 32), (uint32_t)(a ^ b), out);
    return pair_of_words(out[first], out[first + 1]);
}

GR_FN uint64_t random_words(uint64_t a, uint64_t b, int first)
{
    uint32_t out[4];
    gr_random4(a, b, (uint32_t)(a >> 17), (uint32_t)(b & 3), a ^ b << 1, out);
    return pair_of_words(out[first], out[first + 1]);
}

GR_FN uint64_t gaussian_words(uint64_t a, uint64_t b, int first)
{
    float out[4];
    gr_gaussian4(a, b, (uint32_t)(a >> 17), (uint32_t)(b & 3), a ^ b << 1, out);
    return pair_of_words(gr_f32_bits(out[first]), gr_f32_bits(out[first + 1]));
}

GR_FN uint64_t gaussian_from_words(uint64_t a)
{
    float out[2];
    gr_gaussian_from((uint32_t)a, (uint32_t)(a >> 32), out);
    return pair_of_words(gr_f32_bits(out[0]), gr_f32_bits(out[1]));
}

GR_FN uint64_t reduced_turn(double x)
{
    int quarter;
    const double rest = gr_reduce_turn(x, &quarter);
    return result_f64(rest) ^ (uint64_t)quarter;
}

/* What perturb rounds: the sum in double. */
GR_FN double moved_exactly(uint64_t a)
{
    const double sum = GR_MOVE((double)low_f32(a), 0.1, (double)high_f32(a));
    return gr_bits_f64(result_f64(sum));
}

GR_FN uint64_t probe_gaussian_words(uint64_t a, uint64_t b, int first)
{
    float out[4];
    gr_probe_gaussian4(a, (int32_t)(b & 0xffff), (int32_t)(b >> 33), a ^ b << 1, out);
    return pair_of_words(gr_f32_bits(out[first]), gr_f32_bits(out[first + 1]));
}

/* What is left of statistics after one more observation. */
GR_FN uint64_t noted_words(uint64_t a, uint64_t b)
{
    gr_probe_statistics s = { 0.25, 0.5, 0.125, 0.75, b & 7, 0, 0, 0 };
    gr_probe_note(&s, gr_bits_f64(a));
    return result_f64(s.mean) ^ result_f64(s.squares) << 1 ^ result_f64(s.min) << 2 ^
           result_f64(s.max) << 3 ^ result_f64(gr_probe_deviation(&s)) << 4 ^ s.trials << 8 ^
           s.non_finite << 16;
}

/* Two parts of a row and a target, from any bits: their join and what forward makes of it. */
GR_FN gr_logits_part part_of_words(uint64_t a, uint64_t b)
{
    gr_logits_part part;
    part.tops = (double)(1 + (a >> 60));
    part.rest = (double)(uint32_t)a * 0x1p-30;
    part.turn = -(double)(uint32_t)b * 0x1p-30;
    part.top = (float)(int32_t)(b >> 32) * 0x1p-25f;
    return part;
}

GR_FN uint64_t joined_words(uint64_t a, uint64_t b)
{
    const gr_logits_part part = gr_logits_join(part_of_words(a, b), part_of_words(b, a));
    return result_f64(part.rest) ^ result_f64(part.turn) << 1 ^ result_f32(part.top) ^
           result_f64(part.tops) << 2;
}

GR_FN uint64_t finished_words(uint64_t a, uint64_t b)
{
    const gr_logits_row row = gr_logits_finish(part_of_words(a, b), low_f32(b));
    return pair_of_words((uint32_t)result_f32(row.log_sum_exp),
                         (uint32_t)result_f32(row.entropy)) ^
           result_f32(row.logp) << 16;
}

GR_FN uint64_t slope_words(uint64_t a, uint64_t b)
{
    const float lse = (float)(int32_t)a * 0x1p-26f;
    const gr_logits_slope s =
        gr_logits_slope_of(lse - (float)(uint32_t)b * 0x1p-28f, lse, 1.25, (double)high_f32(a),
                           (double)high_f32(b), 0.75);
    return pair_of_words((uint32_t)result_f32(s.level), (uint32_t)result_f32(s.tilt)) ^
           result_f32(s.target) << 16 ^ (uint64_t)s.kind;
}

#define DRAW_ARGUMENTS a, b, (uint32_t)(a >> 17), (uint32_t)(b & 3), b >> 3

/* ---- the list --------------------------------------------------------------------- */

#define WORD_CASES(CASE)                                                                      \
    CASE(f32_bits, INPUT_PATTERNS, gr_f32_bits(low_f32(a)))                                   \
    CASE(f64_bits, INPUT_PATTERNS, gr_f64_bits(gr_bits_f64(a)))                               \
    CASE(is_non_finite, INPUT_PATTERNS, (uint64_t)gr_is_non_finite(low_f32(a)))               \
    CASE(bf16_to_f32, INPUT_PATTERNS, gr_f32_bits(gr_bf16_to_f32((gr_bf16)a)))                \
    CASE(f32_to_bf16, INPUT_PATTERNS, gr_f32_to_bf16(low_f32(a)))                             \
    CASE(f16_to_f32, INPUT_PATTERNS, gr_f32_bits(gr_f16_to_f32((gr_f16)a)))                   \
    CASE(f32_to_f16_saturating, INPUT_PATTERNS, gr_f32_to_f16_saturating(low_f32(a)))         \
    CASE(f16_saturates, INPUT_PATTERNS, (uint64_t)gr_f16_saturates(low_f32(a)))               \
    CASE(round_stochastic_f32, INPUT_PATTERNS,                                                \
         gr_f32_bits(gr_round_stochastic_f32(gr_bits_f64(a), (uint32_t)b)))                   \
    CASE(round_stochastic_bf16, INPUT_PATTERNS,                                               \
         gr_round_stochastic_bf16(gr_bits_f64(a), (uint32_t)b))                               \
    CASE(round_stochastic_f16, INPUT_PATTERNS,                                                \
         gr_round_stochastic_f16(gr_bits_f64(a), (uint32_t)b))                                \
    CASE(f16_saturates_stochastic, INPUT_PATTERNS,                                            \
         (uint64_t)gr_f16_saturates_stochastic(gr_bits_f64(a), (uint32_t)b))                  \
    CASE(round_stochastic_sum, INPUT_PATTERNS,                                                \
         gr_f32_bits(gr_round_stochastic_f32(moved_exactly(a), (uint32_t)b)))                 \
    CASE(move, INPUT_PATTERNS, result_f32(GR_MOVE(low_f32(a), high_f32(a), low_f32(b))))      \
    CASE(scaled, INPUT_PATTERNS, result_f32(GR_SCALED(low_f32(a), low_f32(b))))               \
    CASE(difference_forward, INPUT_PATTERNS,                                                  \
         result_f32(GR_DIFFERENCE_FORWARD(low_f32(a), low_f32(b))))                           \
    CASE(difference_central, INPUT_PATTERNS,                                                  \
         result_f32(GR_DIFFERENCE_CENTRAL(low_f32(a), low_f32(b))))                           \
    CASE(corrected, INPUT_PATTERNS,                                                           \
         result_f32(GR_CORRECTED(low_f32(a), high_f32(b), low_f32(b))))                       \
    CASE(accumulate_f32, INPUT_PATTERNS,                                                      \
         result_f32(GR_ACCUMULATE(low_f32(a), high_f32(a), high_f32(b))))                     \
    CASE(accumulate_f64, INPUT_PATTERNS,                                                      \
         result_f64(GR_ACCUMULATE(gr_bits_f64(a), (double)low_f32(b), (double)high_f32(b))))  \
    CASE(log, INPUT_POSITIVE, result_f64(gr_log(gr_bits_f64(a))))                             \
    CASE(power_of_two, INPUT_PATTERNS, result_f64(gr_power_of_two((int)(a % 2046) - 1022)))   \
    CASE(exp, INPUT_EXPONENT, result_f64(gr_exp(gr_bits_f64(a))))                             \
    CASE(exp_of_patterns, INPUT_PATTERNS, result_f64(gr_exp(gr_bits_f64(a))))                 \
    CASE(exp_f32, INPUT_PATTERNS,                                                             \
         gr_f32_bits(gr_exp_f32(low_f32(a) > 88.0f ? -1.0f : low_f32(a))))                    \
    CASE(exp_f32_in_reach, INPUT_PATTERNS,                                                    \
         gr_f32_bits(gr_exp_f32((float)(uint32_t)a * -0x1.6p-26f)))                           \
    CASE(log1p, INPUT_PATTERNS, result_f64(gr_log1p((double)(uint32_t)a * 0x1p-31)))          \
    CASE(logits_joined, INPUT_PATTERNS, joined_words(a, b))                                   \
    CASE(logits_finished, INPUT_PATTERNS, finished_words(a, b))                               \
    CASE(logits_slope, INPUT_PATTERNS, slope_words(a, b))                                     \
    CASE(pow, INPUT_POSITIVE, result_f64(gr_pow(gr_bits_f64(a), gr_bits_f64(b))))             \
    CASE(pow_of_patterns, INPUT_PATTERNS, result_f64(gr_pow(gr_bits_f64(a), gr_bits_f64(b)))) \
    CASE(reduce_turn, INPUT_TURNS, reduced_turn(gr_bits_f64(a)))                              \
    CASE(sin_eighth, INPUT_PATTERNS, result_f64(gr_sin_eighth((double)(int32_t)a * 0x1p-34))) \
    CASE(cos_eighth, INPUT_PATTERNS, result_f64(gr_cos_eighth((double)(int32_t)a * 0x1p-34))) \
    CASE(cos_turn, INPUT_TURNS, result_f64(gr_cos_turn(gr_bits_f64(a))))                      \
    CASE(sin_turn, INPUT_TURNS, result_f64(gr_sin_turn(gr_bits_f64(a))))                      \
    CASE(cos_turn_of_patterns, INPUT_PATTERNS, result_f64(gr_cos_turn(gr_bits_f64(a))))       \
    CASE(philox_01, INPUT_PATTERNS, philox_words(a, b, 0))                                    \
    CASE(philox_23, INPUT_PATTERNS, philox_words(a, b, 2))                                    \
    CASE(random4_01, INPUT_PATTERNS, random_words(a, b, 0))                                   \
    CASE(random4_23, INPUT_PATTERNS, random_words(a, b, 2))                                   \
    CASE(random_bits, INPUT_PATTERNS, draw_bits(DRAW_ARGUMENTS))                              \
    CASE(rademacher_from, INPUT_PATTERNS, gr_f32_bits(gr_rademacher_from((uint32_t)a)))       \
    CASE(rademacher, INPUT_PATTERNS, gr_f32_bits(draw_sign(DRAW_ARGUMENTS)))                  \
    CASE(gaussian_from, INPUT_PATTERNS, gaussian_from_words(a))                               \
    CASE(gaussian4_01, INPUT_PATTERNS, gaussian_words(a, b, 0))                               \
    CASE(gaussian4_23, INPUT_PATTERNS, gaussian_words(a, b, 2))                               \
    CASE(gaussian, INPUT_PATTERNS, gr_f32_bits(draw_gaussian(DRAW_ARGUMENTS)))                \
    CASE(probe_gaussian_01, INPUT_PATTERNS, probe_gaussian_words(a, b, 0))                    \
    CASE(probe_gaussian_23, INPUT_PATTERNS, probe_gaussian_words(a, b, 2))                    \
    CASE(probe_sigma, INPUT_PATTERNS,                                                         \
         result_f32(gr_probe_sigma((double)low_f32(a), gr_bits_f64(b), 4097.0)))              \
    CASE(probe_term, INPUT_PATTERNS, result_f64(gr_probe_term(low_f32(a), high_f32(a))))      \
    CASE(probe_larger, INPUT_PATTERNS, result_f32(gr_probe_larger(low_f32(a), high_f32(a))))  \
    CASE(probe_note, INPUT_PATTERNS, noted_words(a, b))                                       \
    CASE(js_series, INPUT_PATTERNS, result_f64(gr_js_series((double)(int32_t)a * 0x1p-33)))   \
    CASE(js_term, INPUT_PATTERNS,                                                             \
         result_f64(gr_js_term((double)low_f32(a), (double)high_f32(a))))                     \
    CASE(js_term_of_positives, INPUT_POSITIVE, result_f64(gr_js_term(gr_bits_f64(a), 0.75)))  \
    CASE(js_result, INPUT_PATTERNS, result_f32(gr_js_result(gr_bits_f64(a))))                 \
    CASE(js_usable, INPUT_PATTERNS, (uint64_t)gr_js_usable(low_f32(a)))

/* Elements of the longest segment that segment_sum takes: five blocks and a short one. */
#define SEGMENT_LONGEST (5 * GR_BLOCK + 2 * GR_LANES)
/* Block results that tree_blocks and tree_blocks_strided take. */
#define BLOCKS_LONGEST 45

/*       name, inputs, words per item of a, of b, of out, threads per item */
#define ARRAY_CASES(CASE)                                                  \
    CASE(tree_lanes, INPUT_FLOATS, GR_LANES / 2, 0, 1, 1)                  \
    CASE(lanes_in_range, INPUT_FLOATS, GR_LANES / 2, 0, 1, 1)              \
    CASE(tree_doubles, INPUT_DOUBLES, GR_ACCUMULATORS, 0, 1, 1)            \
    CASE(tree_blocks, INPUT_DOUBLES, BLOCKS_LONGEST, 0, BLOCKS_LONGEST, 1) \
    CASE(tree_blocks_strided, INPUT_DOUBLES, 3 * BLOCKS_LONGEST, 0, 1, 1)  \
    CASE(tree_warp, INPUT_FLOATS, GR_LANES / 2, 0, 32, 32)                 \
    CASE(lanes_in_range_warp, INPUT_FLOATS, GR_LANES / 2, 0, 32, 32)       \
    CASE(tree_warp_doubles, INPUT_DOUBLES, GR_ACCUMULATORS, 0, 32, 32)     \
    CASE(segment_sum, INPUT_FLOATS, SEGMENT_LONGEST / 2, SEGMENT_LONGEST / 2, 1, 128)

/* Lengths from the item's number: all up to the longest for the trees, edges for segments. */
GR_FN uint32_t blocks_of_item(uint32_t item)
{
    return item % (BLOCKS_LONGEST + 1);
}

GR_FN uint32_t elements_of_item(uint32_t item)
{
    const uint32_t edge = item % 7 * (GR_BLOCK - GR_LANES / 2);
    return edge + item % 11 < SEGMENT_LONGEST ? edge + item % 11 : SEGMENT_LONGEST;
}

/* ---- what check_device.cpp sees --------------------------------------------------- */

typedef void item_function(const uint64_t *a, const uint64_t *b, uint64_t *out, uint32_t item);

struct device_case {
    const char *name;
    enum inputs inputs;
    uint32_t a_words, b_words, out_words, threads;
    item_function *host; /* one item: a, b and out point at its words */
};

#ifdef __cplusplus
extern "C" {
#endif
extern const struct device_case device_cases[];
extern const size_t device_case_count;
#ifdef __cplusplus
}
#endif

#endif
