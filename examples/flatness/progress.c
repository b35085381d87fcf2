/* progress.c - how far, and how long still: one line every few seconds, on stderr, so that stdout
 * holds results only. */
#include <stdio.h>
#include <time.h>

#include "report.h"

static const double SECONDS_BETWEEN_LINES = 5.0;

static double seconds(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Steps to the target are known only afterwards; these are typical. */
static double training_work(const struct experiment *experiment, int arm)
{
    const double batch = (double)experiment->training.batch_size;
    return arm == PLAIN ? 700.0 * batch : 2.0 * 1000.0 * batch;
}

/* Two passes per product, and some twenty products until the power iteration has converged. */
static double curvature_work(const struct experiment *experiment)
{
    const double products = 20.0 + (double)experiment->curvature.draws;
    return 2.0 * products * (double)experiment->training_pictures;
}

void progress_begin(struct progress *progress, const struct experiment *experiment)
{
    *progress = (struct progress){ .experiment = experiment };
    progress->began = progress->last_line = seconds();
    for (int arm = 0; arm < ARMS; arm++)
        progress->work_total += (double)experiment->seeds *
                                (training_work(experiment, arm) + curvature_work(experiment));
}

void progress_run(struct progress *progress, int arm, uint64_t seed)
{
    progress->arm = arm;
    progress->seed = seed;
}

void progress_run_done(struct progress *progress)
{
    progress->work_done += training_work(progress->experiment, progress->arm) +
                           curvature_work(progress->experiment);
}

void progress_step(void *user, size_t step, double loss)
{
    struct progress *progress = user;
    const struct training *training = &progress->experiment->training;
    const double now = seconds();
    if (now - progress->last_line < SECONDS_BETWEEN_LINES)
        return;
    progress->last_line = now;

    const double passes = progress->arm == PLAIN ? 1.0 : 2.0;
    const double here = passes * (double)(step * training->batch_size);
    const double expected = training_work(progress->experiment, progress->arm);
    const double done = progress->work_done + (here < expected ? here : expected);
    const double share = done / progress->work_total;
    const double left = (now - progress->began) * (1.0 - share) / share;
    fprintf(stderr, "%3.0f %%, about %.0f s left: seed %u %s, step %zu, batch loss %.2f\n",
            100.0 * share, left, (unsigned)progress->seed,
            progress->arm == PLAIN ? "plain" : "regularized", step, loss);
}
