/* cuda_advantages.cu - rewards to advantages.
 *
 * In: rewards by group; group ids are the host's and travel as kernel parameters. Out: advantages.
 * A group's sums are taken in the order of its members, as on the CPU: by one thread for groups that
 * stand together, and by every member's own thread where ids say who belongs together. */
#include "cuda_policy.h"

#include "cuda_write.h"

#include "../advantage_math.h"
#include "../reduce.h"

enum { ADVANTAGE_THREADS = 128 };

typedef struct gr_advantage_launch {
    gr_advantage_task task; /* params.group lies on the device; rewards are a copy then */
    double *batch;          /* deviation of all rewards */
} gr_advantage_launch;

/* Number i goes to accumulator i % 32: one warp. */
__global__ void __launch_bounds__(32)
    gradreg_cuda_k_advantages_batch(const gr_advantage_launch launch)
{
    const gr_advantage_task *task = &launch.task;
    double sum = 0.0, squares = 0.0, count = 0.0;
    for (size_t i = threadIdx.x; i < task->count; i += 32)
        if (gr_reward_usable(task->rewards[i])) {
            count += 1.0;
            sum += static_cast<double>(task->rewards[i]);
        }
    __syncwarp();
    count = gr_tree_warp_doubles(count);
    sum = gr_tree_warp_doubles(sum);
    const double mean = count > 0.0 ? sum / count : 0.0;
    for (size_t i = threadIdx.x; i < task->count; i += 32) {
        const float r = task->rewards[i];
        const double d = gr_reward_usable(r) ? static_cast<double>(r) - mean : 0.0;
        squares += d * d;
    }
    __syncwarp();
    squares = gr_tree_warp_doubles(squares);
    if (threadIdx.x == 0)
        *launch.batch = gr_deviation(squares, count);
}

/* Whether reward i belongs to the group that begins at `first`, or has the id `id`. */
GR_DEVICE bool gr_belongs(const gr_advantage_task *task, size_t i, int32_t id)
{
    return task->params.group == NULL || task->params.group[i] == id;
}

GR_DEVICE gr_reward_statistics gr_measure_group(const gr_advantage_task *task, size_t first,
                                                size_t end, int32_t id)
{
    gr_reward_statistics s = { 0.0, 0.0, 0.0, 0.0 };
    double squares = 0.0;
    for (size_t i = first; i < end; i++)
        if (gr_belongs(task, i, id) && gr_reward_usable(task->rewards[i])) {
            s.count += 1.0;
            s.sum += static_cast<double>(task->rewards[i]);
        }
    s.mean = s.count > 0.0 ? s.sum / s.count : 0.0;
    for (size_t i = first; i < end; i++) {
        if (!gr_belongs(task, i, id))
            continue;
        const float r = task->rewards[i];
        const double d = gr_reward_usable(r) ? static_cast<double>(r) - s.mean : 0.0;
        squares += d * d;
    }
    s.deviation = gr_deviation(squares, s.count);
    return s;
}

GR_DEVICE void gr_write_advantage(const gr_advantage_launch *launch,
                                  const gr_reward_statistics *s, size_t i)
{
    const gr_advantage_task *task = &launch->task;
    const float r = task->rewards[i];
    const double batch = task->params.scale == GRADREG_SCALE_BATCH_STD ? *launch->batch : 0.0;
    task->out[i] = gr_reward_usable(r) ? static_cast<float>(gr_advantage_of(
                                             &task->params, s, batch, static_cast<double>(r)))
                                       : 0.0f;
}

/* A thread a group; a group is measured before it is written, so out may be rewards. */
__global__ void __launch_bounds__(ADVANTAGE_THREADS, 8)
    gradreg_cuda_k_advantages_groups(const gr_advantage_launch launch)
{
    const size_t size = launch.task.group_size, groups = launch.task.count / size;
    for (size_t g = (size_t)blockIdx.x * ADVANTAGE_THREADS + threadIdx.x; g < groups;
         g += (size_t)gridDim.x * ADVANTAGE_THREADS) {
        const gr_reward_statistics s =
            gr_measure_group(&launch.task, g * size, (g + 1) * size, 0);
        for (size_t i = g * size; i < (g + 1) * size; i++)
            gr_write_advantage(&launch, &s, i);
    }
}

/* A thread a reward. */
__global__ void __launch_bounds__(ADVANTAGE_THREADS, 8)
    gradreg_cuda_k_advantages_ids(const gr_advantage_launch launch)
{
    for (size_t i = (size_t)blockIdx.x * ADVANTAGE_THREADS + threadIdx.x; i < launch.task.count;
         i += (size_t)gridDim.x * ADVANTAGE_THREADS) {
        const gr_reward_statistics s =
            gr_measure_group(&launch.task, 0, launch.task.count, launch.task.params.group[i]);
        gr_write_advantage(&launch, &s, i);
    }
}

/* Ids, and a copy of the rewards: others still read what is written here. */
static gradreg_status send(const gr_cuda_context *c, gr_advantage_launch *launch)
{
    gr_advantage_task *t = &launch->task;
    int32_t *ids = reinterpret_cast<int32_t *>(t->order);
    float *rewards = reinterpret_cast<float *>(ids + t->count);
    GR_TRY(gradreg_cuda_write(c, ids, t->params.group, t->count * sizeof(int32_t)));
    GR_CUDA_TRY(cudaMemcpyAsync(rewards, t->rewards, t->count * sizeof(float),
                                cudaMemcpyDeviceToDevice, c->stream));
    t->params.group = ids;
    t->rewards = rewards;
    return GRADREG_OK;
}

static gradreg_status run(const gr_cuda_context *c, gr_advantage_launch *launch)
{
    gr_advantage_task *t = &launch->task;
    const int ids = t->params.group != NULL;
    const size_t work = ids ? t->count : t->count / t->group_size;
    const unsigned grid =
        gr_cuda_grid(c, (work + ADVANTAGE_THREADS - 1) / ADVANTAGE_THREADS, 16);
    if (t->count == 0)
        return GRADREG_OK;
    if (ids)
        GR_TRY(send(c, launch));
    if (t->params.scale == GRADREG_SCALE_BATCH_STD) {
        GR_LAUNCH(gradreg_cuda_k_advantages_batch, 1, 32, 0, c->stream, *launch);
        GR_CUDA_TRY_LAUNCH("advantages_batch");
    }
    if (ids)
        GR_LAUNCH(gradreg_cuda_k_advantages_ids, grid, ADVANTAGE_THREADS, 0, c->stream,
                  *launch);
    else
        GR_LAUNCH(gradreg_cuda_k_advantages_groups, grid, ADVANTAGE_THREADS, 0, c->stream,
                  *launch);
    GR_CUDA_TRY_LAUNCH("advantages");
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_advantages(gradreg_context *context, const gr_advantage_task *task)
{
    gr_advantage_launch launch = { *task, static_cast<double *>(task->spare) };
    return gr_cuda_run(context, run, &launch);
}

gradreg_status gradreg_cuda_load_advantages(void)
{
    return gr_cuda_load(gradreg_cuda_k_advantages_batch, gradreg_cuda_k_advantages_groups,
                        gradreg_cuda_k_advantages_ids);
}
