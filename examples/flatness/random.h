/* random.h - repeatable random numbers for data, weights and batches.
 *
 * A counter goes through a bit mixer (splitmix64): a seed fixes the whole sequence, on every
 * machine. */
#ifndef FLATNESS_RANDOM_H
#define FLATNESS_RANDOM_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

struct random {
    uint64_t counter;
};

static inline uint64_t random_bits(struct random *random)
{
    uint64_t z = random->counter += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

/* Seeds 1, 2, 3 would start neighbouring counters: mix first. `stream` keeps data, weights and
 * batches of one seed apart. */
static inline struct random random_seeded(uint64_t seed, uint64_t stream)
{
    struct random random = { seed * 0x2545f4914f6cdd1dU + stream };
    random.counter = random_bits(&random);
    return random;
}

/* In [0, 1). */
static inline double random_uniform(struct random *random)
{
    return (double)(random_bits(random) >> 11) * 0x1p-53;
}

/* In [0, bound). */
static inline size_t random_below(struct random *random, size_t bound)
{
    return (size_t)(random_uniform(random) * (double)bound);
}

/* Standard normal (Box-Muller, one of the pair). */
static inline double random_normal(struct random *random)
{
    const double radius = sqrt(-2.0 * log(1.0 - random_uniform(random)));
    return radius * cos(6.283185307179586 * random_uniform(random));
}

#endif
