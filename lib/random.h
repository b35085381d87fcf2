/* random.h - random numbers as a pure function of (seed, step, segment, purpose, element).
 *
 * In: those five, elements by groups of four. Out: 32 bits each, or what is made of them: a sign, or a
 * standard normal number. There is no state, so neither threads nor vector widths nor the order of calls
 * change a draw, and a draw can be made again at any time. The generator is Philox4x32-10 (Salmon,
 * Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 *
 *   key      word 0  low half of seed
 *            word 1  high half of seed xor high half of step
 *   counter  word 0  low half of group
 *            word 1  next 30 bits of group, purpose in the top 2
 *            word 2  segment
 *            word 3  low half of step
 *
 * One call gives the four words of a group: element i has word i % 4 of group i / 4. */
#ifndef GRADREG_LIB_RANDOM_H
#define GRADREG_LIB_RANDOM_H

#include "element.h"

/* What a draw is for: 2 bits, so that no two uses share numbers. */
#define GR_RANDOM_DIRECTION     0u
#define GR_RANDOM_ROUND_PERTURB 1u
#define GR_RANDOM_ROUND_MIRROR  2u
#define GR_RANDOM_ROUND_NOISE   3u

/* Philox4x32-10: ten bijections of the counter, the key stepped between them. */
GR_FN void gr_philox(const uint32_t counter[4], uint32_t key0, uint32_t key1, uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];

    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = UINT64_C(0xd2511f53) * c0;
        const uint64_t p1 = UINT64_C(0xcd9e8d57) * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ key0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ key1;
        c3 = (uint32_t)p0;
        key0 += 0x9e3779b9u; /* the golden ratio's fraction in 32 bits */
        key1 += 0xbb67ae85u; /* that of sqrt 3 */
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The words of elements 4 group to 4 group + 3. */
GR_FN void gr_random4(uint64_t seed, uint64_t step, uint32_t segment, uint32_t purpose,
                      uint64_t group, uint32_t out[4])
{
    const uint32_t counter[4] = {
        (uint32_t)group,
        ((uint32_t)(group >> 32) & 0x3fffffffu) | purpose << 30,
        segment,
        (uint32_t)step,
    };
    gr_philox(counter, (uint32_t)seed, (uint32_t)(seed >> 32) ^ (uint32_t)(step >> 32), out);
}

/* +1 or -1: the top bit is the sign. */
GR_FN float gr_rademacher_from(uint32_t word)
{
    return gr_bits_f32(0x3f800000u | (word & 0x80000000u));
}

/* Box and Muller: two uniform words to two independent standard normal numbers. The halves
 * keep both uniforms inside (0, 1); |result| is at most 6.77. */
GR_FN void gr_gaussian_from(uint32_t word0, uint32_t word1, float out[2])
{
    const double uniform = ((double)word0 + 0.5) * 0x1p-32;
    const double angle = ((double)word1 + 0.5) * 0x1p-32;
    const double radius = sqrt(-2.0 * gr_log(uniform));

    out[0] = (float)(radius * gr_cos_turn(angle));
    out[1] = (float)(radius * gr_sin_turn(angle));
}

/* The numbers of elements 4 group to 4 group + 3: words 0 and 1 make the first two. */
GR_FN void gr_gaussian4(uint64_t seed, uint64_t step, uint32_t segment, uint32_t purpose,
                        uint64_t group, float out[4])
{
    uint32_t words[4];
    gr_random4(seed, step, segment, purpose, group, words);
    gr_gaussian_from(words[0], words[1], out);
    gr_gaussian_from(words[2], words[3], out + 2);
}

#endif
