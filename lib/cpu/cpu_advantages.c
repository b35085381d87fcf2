/* cpu_advantages.c - rewards to advantages on the CPU.
 *
 * In: rewards by group. Out: advantages. Statistics in double and two passes: a one-pass variance of
 * equal rewards is not 0. */
#include "../advantage_math.h"
#include "../reduce.h"
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

/* Sums in the order of the group's members. */
static gr_reward_statistics measure(const members *m)
{
    gr_reward_statistics s = { 0.0, 0.0, 0.0, 0.0 };
    double squares = 0.0;
    for (size_t k = 0; k < m->count; k++) {
        const float r = m->task->rewards[member(m, k)];
        if (gr_reward_usable(r)) {
            s.count += 1.0;
            s.sum += (double)r;
        }
    }
    s.mean = s.count > 0.0 ? s.sum / s.count : 0.0;
    for (size_t k = 0; k < m->count; k++) {
        const float r = m->task->rewards[member(m, k)];
        const double d = gr_reward_usable(r) ? (double)r - s.mean : 0.0;
        squares += d * d;
    }
    s.deviation = gr_deviation(squares, s.count);
    return s;
}

/* Of all rewards: number i goes to accumulator i % 32, folded as in reduce.h, so that a warp does
 * the same. */
static double measure_batch(const gr_advantage_task *task)
{
    double sums[GR_ACCUMULATORS] = { 0 }, squares[GR_ACCUMULATORS] = { 0 }, count = 0.0;
    for (size_t i = 0; i < task->count; i++)
        if (gr_reward_usable(task->rewards[i])) {
            count += 1.0;
            sums[i % GR_ACCUMULATORS] += (double)task->rewards[i];
        }
    const double mean = count > 0.0 ? gr_tree_doubles(sums) / count : 0.0;
    for (size_t i = 0; i < task->count; i++) {
        const float r = task->rewards[i];
        const double d = gr_reward_usable(r) ? (double)r - mean : 0.0;
        squares[i % GR_ACCUMULATORS] += d * d;
    }
    return gr_deviation(gr_tree_doubles(squares), count);
}

/* Group by group; rewards may be overwritten, so a group is measured before it is written. */
static void write_group(const members *m, double batch_deviation)
{
    const gr_reward_statistics s = measure(m);
    for (size_t k = 0; k < m->count; k++) {
        const size_t i = member(m, k);
        const float r = m->task->rewards[i];
        m->task->out[i] =
            gr_reward_usable(r)
                ? (float)gr_advantage_of(&m->task->params, &s, batch_deviation, (double)r)
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
    (void)context;
    if (task->params.group != NULL)
        gradreg_cpu_order_by_group(task->order, task->params.group, task->count);
    const double batch = measure_batch(task);
    for (size_t first = 0, end; first < task->count; first = end) {
        end = group_end(task, first);
        const members m = { task, first, end - first };
        write_group(&m, batch);
    }
    return GRADREG_OK;
}
