/* advantage_math.h - rewards to advantages, once, for the CPU and for CUDA.
 *
 * In: a reward, statistics of its group and of the batch. Out: its advantage. */
#ifndef GRADREG_LIB_ADVANTAGE_MATH_H
#define GRADREG_LIB_ADVANTAGE_MATH_H

#include "element.h"
#include "gradreg.h"

/* NaN is "no reward"; an infinite one would make every advantage of its group NaN. */
GR_FN int gr_reward_usable(float reward)
{
    return !gr_is_non_finite(reward);
}

typedef struct gr_reward_statistics {
    double count, sum, mean, deviation; /* Bessel-corrected; 0 for fewer than two */
} gr_reward_statistics;

GR_FN double gr_baseline_of(const gradreg_advantage_params *p, const gr_reward_statistics *s,
                            double reward)
{
    if (p->baseline == GRADREG_BASELINE_NONE)
        return 0.0;
    if (p->baseline == GRADREG_BASELINE_LEAVE_ONE_OUT)
        return (s->sum - reward) / (s->count - 1.0);
    return s->mean;
}

GR_FN double gr_advantage_of(const gradreg_advantage_params *p,
                             const gr_reward_statistics *group, double batch_deviation,
                             double reward)
{
    const int alone = group->count < 2.0 && (p->baseline != GRADREG_BASELINE_NONE ||
                                             p->scale == GRADREG_SCALE_GROUP_STD);
    if (alone && p->singleton == GRADREG_SINGLETON_ZERO)
        return 0.0;
    const double centred = alone ? reward : reward - gr_baseline_of(p, group, reward);
    if (p->scale == GRADREG_SCALE_NONE)
        return centred;
    const double deviation = p->scale == GRADREG_SCALE_BATCH_STD ? batch_deviation
                             : alone                             ? 1.0
                                                                 : group->deviation;
    /* Without variance nobody is better than another: 0, not 1 / epsilon. */
    return deviation > 0.0 ? centred / (deviation + p->epsilon) : 0.0;
}

/* From the sum of squared distances to the mean. */
GR_FN double gr_deviation(double squares, double count)
{
    return count > 1.0 ? sqrt(squares / (count - 1.0)) : 0.0;
}

#endif
