/* timing.c - the same step for every arm: the weights stay those of the base model, so all arms answer
 * the same prompts in the same words and differ in nothing but what they do then. Arms take turns.
 * Times are processor times of the one thread that does everything. */
#include "timing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "checkpoint.h"
#include "grpo.h"
#include "records.h"
#include "support.h"

static const char *const timed[] = { "grpo",        "even",           "depth",
                                     "depth-noise", "depth-interval", "depth-truncated" };
enum { TIMED = sizeof(timed) / sizeof(*timed), GRPO = 0, FULL = 2, TRUNCATED = 5 };

struct stopwatch {
    double whole, wall, parts[TIME_PARTS];
};

static void add_time(struct stopwatch *watch, const struct step_report *report)
{
    watch->whole += report->whole.processor;
    watch->wall += report->whole.wall;
    for (int part = 0; part < TIME_PARTS; part++)
        watch->parts[part] += report->time[part].processor;
}

/* ||a - b|| / ||a|| */
static double difference(const struct model *a, const struct model *b)
{
    double apart = 0.0, norm = 0.0;
    for (size_t i = 0; i < a->parameter_count; i++) {
        const double x = (double)a->grads[i], d = x - (double)b->grads[i];
        apart += d * d;
        norm += x * x;
    }
    return sqrt(apart / norm);
}

static void print_table(const struct stopwatch *watches, double steps)
{
    printf("| processor time of a step | ms | times GRPO |");
    for (int part = 0; part < TIME_PARTS; part++)
        printf(" %s |", time_names[part]);
    printf(" regularizer, %% of the step |\n|:--|--:|--:|");
    for (int part = 0; part < TIME_PARTS + 1; part++)
        printf("--:|");
    puts("");
    for (int a = 0; a < TIMED; a++) {
        printf("| %s | %.0f | %.2f |", arm_named(timed[a])->title,
               1e3 * watches[a].whole / steps, watches[a].whole / watches[GRPO].whole);
        for (int part = 0; part < TIME_PARTS; part++)
            printf(" %.1f |", 1e3 * watches[a].parts[part] / steps);
        printf(" %.2f |\n", 100.0 * watches[a].parts[REGULARIZER] / watches[a].whole);
    }
}

static void print_truncation(const struct stopwatch *watches, double apart)
{
    const double full = watches[FULL].parts[SECOND_PASS];
    const double saved = full - watches[TRUNCATED].parts[SECOND_PASS];
    printf("\ntruncated second pass: saves %.1f %% of the second pass, %.1f %% of the step; "
           "regularized "
           "gradients differ by %.2g of their norm\n",
           100.0 * saved / full, 100.0 * saved / watches[FULL].whole, apart);
}

static void record_all(const char *folder, const struct stopwatch *watches, double steps,
                       double apart)
{
    struct records records;
    char *path = allocate(1, 4096);
    if (snprintf(path, 4096, "%s/timing.jsonl", folder) >= 4096)
        fail("--folder: too long");
    records_open(&records, path, 0);
    for (int a = 0; a < TIMED; a++) {
        record_begin(&records, "timing");
        record_text(&records, "arm", timed[a]);
        record_number(&records, "steps", steps);
        record_number(&records, "processor", watches[a].whole / steps);
        record_number(&records, "wall", watches[a].wall / steps);
        record_numbers(&records, "parts", watches[a].parts, TIME_PARTS);
        record_end(&records);
    }
    record_begin(&records, "truncation");
    record_number(&records, "difference", apart);
    record_end(&records);
    records_close(&records);
    free(path);
}

int timing(const struct options *options, gradreg_context *context)
{
    struct settings settings = options->settings;
    struct trainer trainers[TIMED];
    struct stopwatch watches[TIMED] = { { 0.0, 0.0, { 0.0 } } };
    double apart = 0.0;

    settings.rate = 1e-30; /* the optimizer does its work and nothing moves */
    for (int a = 0; a < TIMED; a++)
        trainer_open(&trainers[a], context, arm_named(timed[a]), &settings,
                     checkpoint_model(options->base, false));
    /* A step more, the first, to warm up: only then is there noise. */
    for (uint64_t step = 0; step <= settings.steps; step++) {
        for (int a = 0; a < TIMED; a++) {
            struct step_report report;
            trainer_step(&trainers[a], &report);
            if (step > 0)
                add_time(&watches[a], &report);
        }
        apart = fmax(apart, difference(trainers[FULL].model, trainers[TRUNCATED].model));
    }
    print_table(watches, (double)settings.steps);
    print_truncation(watches, apart);
    if (options->folder != NULL)
        record_all(options->folder, watches, (double)settings.steps, apart);
    for (int a = 0; a < TIMED; a++)
        trainer_close(&trainers[a]);
    return EXIT_SUCCESS;
}
