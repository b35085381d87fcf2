/* inputs.cpp - see inputs.h. */
#include "inputs.h"

#include <cfloat>
#include <cmath>

#include "../numbers.h"

namespace
{

template <class T, size_t count> T pick(const T (&from)[count], uint64_t *state)
{
    return from[next_word(state) % count];
}

/* Zero, ends of the normal and denormal ranges, halfway cases, infinity, NaN: their patterns, or
 * ones next to them, with either sign. */
uint32_t edge_f32(uint64_t *state)
{
    static const uint32_t edges[] = {
        0x00000000, 0x00000001, 0x007fffff, 0x00800000, /* fp32's own */
        0x3f800000, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fc00000, 0x7fffffff,
        0x33000000, 0x33800000, 0x387fc000, 0x38800000, /* f16's denormals and smallest normal */
        0x477fe000, 0x477fefff, 0x477ff000, 0x47800000, /* f16's largest, its midpoint, past it */
        0x7f7f7fff, 0x7f7f8000, 0x3f808000, 0x3f818000, /* bf16's midpoints */
    };
    const uint32_t near = static_cast<uint32_t>(next_word(state) % 3) - 1;
    return (pick(edges, state) + near) ^ static_cast<uint32_t>(next_word(state) & 0x80000000u);
}

uint64_t edge_f64(uint64_t *state)
{
    static const double edges[] = {
        0.0,     0x1p-1074, DBL_MIN, 0x1p-150, 0x1p-149, FLT_MIN,  0x1.8p-134, 0x1p-133,
        0x1p-25, 0x1p-24,   0x1p-14, 0.125,    0.25,     0.5,      1.0,        2.0,
        65504.0, 65520.0,   65536.0, FLT_MAX,  0x1p+52,  0x1p+53,  0x1p+63,    0x1p+128,
        709.78,  710.0,     -745.2,  -746.0,   DBL_MAX,  HUGE_VAL,
    };
    const uint64_t sign = next_word(state) & (UINT64_C(1) << 63);
    if (next_word(state) % 32 == 0)
        return UINT64_C(0x7ff8000000000001) | sign;
    return (gr_f64_bits(pick(edges, state)) + next_word(state) % 3 - 1) ^ sign;
}

double with_exponent(uint64_t *state, int least, int most)
{
    const int exponent =
        least + static_cast<int>(next_word(state) % unsigned(most - least + 1));
    const double value = std::ldexp(1.0 + next_unit(state), exponent);
    return next_word(state) % 2 == 0 ? value : -value;
}

uint64_t pattern(uint64_t *state)
{
    switch (next_word(state) % 5) {
    case 0: return next_word(state);
    case 1: return static_cast<uint64_t>(edge_f32(state)) << 32 | edge_f32(state);
    case 2: return edge_f64(state);
    case 3: return gr_f64_bits(with_exponent(state, -30, 18)); /* f16's range */
    default: /* two floats whose products and sums round */
        return static_cast<uint64_t>(
                   gr_f32_bits(static_cast<float>(with_exponent(state, -3, 3))))
                   << 32 |
               gr_f32_bits(static_cast<float>(with_exponent(state, -3, 3)));
    }
}

uint64_t positive(uint64_t *state)
{
    const uint64_t least = gr_f64_bits(DBL_MIN), past = gr_f64_bits(HUGE_VAL);
    if (next_word(state) % 2 == 0)
        return least + next_word(state) % (past - least);
    return gr_f64_bits(0.5 + 1.5 * next_unit(state));
}

uint64_t power(uint64_t *state)
{
    static const double powers[] = { 0.0, 0.5, 1.0, 2.0, 3.0, -1.0 };
    const bool listed = next_word(state) % 4 == 0;
    return gr_f64_bits(listed ? pick(powers, state) : 6.0 * next_unit(state) - 3.0);
}

uint64_t turn(uint64_t *state)
{
    const double eighths =
        static_cast<double>(static_cast<int64_t>(next_word(state)) >> 40) / 8;
    switch (next_word(state) % 3) {
    case 0: return gr_f64_bits(8.0 * next_unit(state) - 4.0);
    case 1: return gr_f64_bits(eighths + 0x1p-40 * (next_unit(state) - 0.5));
    default: return gr_f64_bits(with_exponent(state, -60, 70));
    }
}

/* Lanes whose largest is in range, too small, too large or not a number, item by item. */
uint64_t floats(uint32_t item, uint64_t *state)
{
    static const int middle[] = { 0, 0, -62, 62, -10, -120 };
    const int exponent = middle[item % 6];
    float pair[2];
    for (float &x : pair)
        x = static_cast<float>(with_exponent(state, exponent - 2, exponent + 2));
    if (item % 13 == 12 && next_word(state) % 64 == 0)
        pair[0] = item % 2 == 0 ? HUGE_VALF : NAN;
    return static_cast<uint64_t>(gr_f32_bits(pair[1])) << 32 | gr_f32_bits(pair[0]);
}

uint64_t input(enum inputs inputs, uint32_t item, uint64_t *state)
{
    switch (inputs) {
    case INPUT_POSITIVE: return positive(state);
    case INPUT_EXPONENT: return gr_f64_bits(1600.0 * next_unit(state) - 800.0);
    case INPUT_TURNS: return turn(state);
    case INPUT_FLOATS: return floats(item, state);
    case INPUT_DOUBLES: return gr_f64_bits(with_exponent(state, -20, 20));
    default: return pattern(state);
    }
}

} // namespace

void fill_inputs(const device_case &which, uint32_t items, std::vector<uint64_t> *a,
                 std::vector<uint64_t> *b)
{
    uint64_t state = 1;
    a->clear();
    b->clear();
    for (uint32_t item = 0; item < items; item++) {
        for (uint32_t i = 0; i < which.a_words; i++)
            a->push_back(input(which.inputs, item, &state));
        for (uint32_t i = 0; i < which.b_words; i++)
            b->push_back(which.inputs == INPUT_POSITIVE ? power(&state)
                                                        : input(which.inputs, item, &state));
    }
    if (b->empty())
        b->push_back(0);
}
