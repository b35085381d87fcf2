/* numbers.h - what the suites of element.h, reduce.h and random.h share: inputs and digests.
 *
 * In: a seed, or words. Out: pseudorandom words, or one word that stands for all of them. Own
 * code, so that the inputs do not come from the generator under test. */
#ifndef GRADREG_TEST_NUMBERS_H
#define GRADREG_TEST_NUMBERS_H

#include <stdint.h>

/* Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (SplitMix64). */
static inline uint64_t next_word(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Uniform in [0, 1). */
static inline double next_unit(uint64_t *state)
{
    return (double)(next_word(state) >> 11) * 0x1p-53;
}

/* Fowler, Noll and Vo, a word at a time. Equal digests: the same bits under every compiler,
 * option and processor. */
#define DIGEST_START UINT64_C(14695981039346656037)

static inline uint64_t digest(uint64_t so_far, uint64_t word)
{
    so_far = (so_far ^ word) * UINT64_C(1099511628211);
    return so_far ^ so_far >> 29;
}

#endif
