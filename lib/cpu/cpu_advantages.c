/* cpu_advantages.c - rewards to advantages on the CPU.
 *
 * In: rewards by group. Out: advantages. Statistics in double and two passes: a one-pass variance of
 * equal rewards is not 0. */
#include "../element.h"
#include "cpu_backend.h"

/* One group, or the whole batch: `count` numbers, of order[] or from `first` on. */
typedef struct members {
    const gr_advantage_task *task;
    size_t first, count;
} members;

static size_t member(const members *m, size_t k)
{
    return m->task->order != NULL ? (size_t)m->task->order[m->first + k] : m->first + k;
}

/* NaN is "no reward"; an infinite one would make every advantage of its group NaN. */
static int usable(float reward)
{
    return !gr_is_non_finite(reward);
}

typedef struct statistics {
    double count, sum, mean, deviation; /* Bessel-corrected; 0 for fewer than two */
} statistics;

static statistics measure(const members *m)
{
    statistics s = { 0.0, 0.0, 0.0, 0.0 };
    double squares = 0.0;
    for (size_t k = 0; k < m->count; k++) {
        const float r = m->task->rewards[member(m, k)];
        if (usable(r)) {
            s.count += 1.0;
            s.sum += (double)r;
        }
    }
    s.mean = s.count > 0.0 ? s.sum / s.count : 0.0;
    for (size_t k = 0; k < m->count; k++) {
        const float r = m->task->rewards[member(m, k)];
        const double d = usable(r) ? (double)r - s.mean : 0.0;
        squares += d * d;
    }
    s.deviation = s.count > 1.0 ? sqrt(squares / (s.count - 1.0)) : 0.0;
    return s;
}

static double baseline_of(const gradreg_advantage_params *p, const statistics *s, double reward)
{
    if (p->baseline == GRADREG_BASELINE_NONE)
        return 0.0;
    if (p->baseline == GRADREG_BASELINE_LEAVE_ONE_OUT)
        return (s->sum - reward) / (s->count - 1.0);
    return s->mean;
}

static double advantage_of(const gradreg_advantage_params *p, const statistics *group,
                           double batch_deviation, double reward)
{
    const int alone = group->count < 2.0 && (p->baseline != GRADREG_BASELINE_NONE ||
                                             p->scale == GRADREG_SCALE_GROUP_STD);
    if (alone && p->singleton == GRADREG_SINGLETON_ZERO)
        return 0.0;
    const double centred = alone ? reward : reward - baseline_of(p, group, reward);
    if (p->scale == GRADREG_SCALE_NONE)
        return centred;
    const double deviation = p->scale == GRADREG_SCALE_BATCH_STD ? batch_deviation
                             : alone                             ? 1.0
                                                                 : group->deviation;
    /* Without variance nobody is better than another: 0, not 1 / epsilon. */
    return deviation > 0.0 ? centred / (deviation + p->epsilon) : 0.0;
}

/* Group by group; rewards may be overwritten, so a group is measured before it is written. */
static void write_group(const members *m, double batch_deviation)
{
    const statistics s = measure(m);
    for (size_t k = 0; k < m->count; k++) {
        const size_t i = member(m, k);
        const float r = m->task->rewards[i];
        m->task->out[i] =
            usable(r) ? (float)advantage_of(&m->task->params, &s, batch_deviation, (double)r)
                      : 0.0f;
    }
}

static size_t group_end(const gr_advantage_task *task, size_t first)
{
    const int32_t *group = task->params.group;
    size_t end = first + 1;
    if (group == NULL)
        return first + task->group_size;
    while (end < task->count && group[task->order[end]] == group[task->order[first]])
        end++;
    return end;
}

gradreg_status gradreg_cpu_advantages(gradreg_context *context, const gr_advantage_task *task)
{
    const members all = { task, 0, task->count };
    (void)context;
    if (task->params.group != NULL)
        gradreg_cpu_order_by_group(task->order, task->params.group, task->count);
    const statistics batch = measure(&all);
    for (size_t first = 0, end; first < task->count; first = end) {
        end = group_end(task, first);
        const members m = { task, first, end - first };
        write_group(&m, batch.deviation);
    }
    return GRADREG_OK;
}
