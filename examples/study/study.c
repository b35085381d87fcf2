/* study.c - does depth-scaled gradient regularization do on a small scale what it is said to do?
 *
 *      options ──► learn:  lessons.c ──► base model
 *                  run:    run.c ──► grpo.c (a step) ──► measure.c ──► records, one file a run
 *                  timing: timing.c
 *      model.c pass.c kernels.c decoder.c: the transformer;  arms.c: what is compared
 *
 * Runs of all arms and seeds are started by tools/study, and become tables and pictures in
 * report.py. See README.md next to this file. */
#include <cblas.h>
#include <gradreg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "checkpoint.h"
#include "lessons.h"
#include "options.h"
#include "run.h"
#include "selftest.h"
#include "support.h"
#include "timing.h"

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

static int learn(const struct options *options, gradreg_context *context)
{
    const struct lessons lessons = { options->lesson_steps,  options->lesson_problems,
                                     options->lesson_end,    options->lesson_rate,
                                     options->settings.seed, &stop };
    struct model *model = model_new(&options->shape, false);
    model_initialize(model, options->settings.seed);
    printf("%zu parameters\n", model->parameter_count);
    const double loss = lessons_learn(model, context, &lessons);
    if (stop)
        fail("stopped; %s is not written", options->base);
    checkpoint_save_model(options->base, model);
    printf("%s: loss %.4f, hash of the parameters %016llx\n", options->base, loss,
           (unsigned long long)hash_bytes(HASH_START, model->params,
                                          model->parameter_count * sizeof(float)));
    model_free(model);
    return EXIT_SUCCESS;
}

static int go(const struct options *options, gradreg_context *context)
{
    struct run run = {
        .arm = options->arm,
        .settings = options->settings,
        .base = options->base,
        .folder = options->folder,
        .checkpoint_every = options->checkpoint_every,
        .measure_every = options->measure_every,
        .problems = options->problems,
        .stop = &stop,
    };
    if (run_go(&run, context) == RUN_FINISHED)
        return EXIT_SUCCESS;
    fprintf(stderr, "study: stopped and saved; the same command goes on from here\n");
    return 130;
}

static int list_arms(void)
{
    for (size_t i = 0; i < arm_count; i++)
        printf("%-16s %s\n", arms[i].name, arms[i].title);
    return EXIT_SUCCESS;
}

int main(int count, char **arguments)
{
    const struct options options = options_read(count, arguments);
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context = NULL;
    int status = EXIT_FAILURE;

    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    openblas_set_num_threads(1); /* the same sums in the same order, in every run */
    params.threads = 1;
    must(gradreg_context_create(&context, &params));
    switch (options.command) {
    case LEARN: status = learn(&options, context); break;
    case RUN: status = go(&options, context); break;
    case TIMING: status = timing(&options, context); break;
    case SELFTEST:
        status = selftest(context, options.base) ? EXIT_SUCCESS : EXIT_FAILURE;
        break;
    case LIST_ARMS: status = list_arms(); break;
    }
    must(gradreg_context_destroy(context));
    if (fflush(stdout) != 0 || ferror(stdout))
        fail("cannot write to standard output");
    return status;
}
