/* draws.h - what one element draws, as random.h's header has it.
 *
 * In: seed, step, segment, purpose, element. Out: its 32 bits, its sign, its standard normal number. The
 * library draws four elements at a time; these take one alone, on the host and in a CUDA kernel. */
#ifndef GRADREG_TEST_DRAWS_H
#define GRADREG_TEST_DRAWS_H

#include "random.h"

GR_FN uint32_t draw_bits(uint64_t seed, uint64_t step, uint32_t segment, uint32_t purpose,
                         uint64_t element)
{
    uint32_t words[4];
    gr_random4(seed, step, segment, purpose, element >> 2, words);
    return words[element & 3];
}

GR_FN float draw_sign(uint64_t seed, uint64_t step, uint32_t segment, uint32_t purpose,
                      uint64_t element)
{
    return gr_rademacher_from(draw_bits(seed, step, segment, purpose, element));
}

/* Words 0 and 1 of the group make the first two, words 2 and 3 the others. */
GR_FN float draw_gaussian(uint64_t seed, uint64_t step, uint32_t segment, uint32_t purpose,
                          uint64_t element)
{
    uint32_t words[4];
    float pair[2];
    const int first = (int)(element & 2);
    gr_random4(seed, step, segment, purpose, element >> 2, words);
    gr_gaussian_from(words[first], words[first + 1], pair);
    return pair[element & 1];
}

#endif
