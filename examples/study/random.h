/* random.h - repeatable random numbers for problems, weights and samples.
 *
 * A counter goes through a bit mixer (splitmix64). There is no state to keep between steps: every
 * use seeds its own generator from (seed, purpose, step, row), so a resumed run draws what the
 * uninterrupted one would have drawn, and all arms of one seed see the same problems. */
#ifndef STUDY_RANDOM_H
#define STUDY_RANDOM_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

struct random {
    uint64_t counter;
};

enum random_purpose {
    FOR_WEIGHTS = 1,
    FOR_LESSONS,
    FOR_PROMPTS,
    FOR_SAMPLES,
    FOR_SETS,
    FOR_CHECKS
};

static inline uint64_t random_bits(struct random *random)
{
    uint64_t z = random->counter += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

static inline struct random random_for(uint64_t seed, enum random_purpose purpose,
                                       uint64_t step, uint64_t row)
{
    struct random random = { seed };
    random.counter = random_bits(&random) + (uint64_t)purpose;
    random.counter = random_bits(&random) + step;
    random.counter = random_bits(&random) + row;
    random.counter = random_bits(&random);
    return random;
}

/* In [0, 1). */
static inline double random_uniform(struct random *random)
{
    return (double)(random_bits(random) >> 11) * 0x1p-53;
}

/* In [0, bound). */
static inline int random_below(struct random *random, int bound)
{
    return (int)(random_uniform(random) * (double)bound);
}

/* Standard normal (Box-Muller, one of the pair). */
static inline double random_normal(struct random *random)
{
    const double radius = sqrt(-2.0 * log(1.0 - random_uniform(random)));
    return radius * cos(6.283185307179586 * random_uniform(random));
}

#endif
