/* report.c - the tables and the verdict. */
#include "report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "support.h"

static const char *const arm_names[ARMS] = { "plain", "regularized" };

/* ------------------------------------------------------------------ settings */

static void print_multipliers(const struct experiment *experiment)
{
    const size_t blocks = experiment->shape.blocks;
    gradreg_schedule schedule;
    must(gradreg_schedule_for_depth(&schedule, (int32_t)blocks));
    if (experiment->training.even)
        schedule.first_layer = schedule.full_layer = 0;

    double *multipliers = must_allocate(blocks, sizeof(*multipliers));
    must(gradreg_schedule_multipliers(multipliers, &schedule, (int32_t)blocks));
    for (size_t b = 0; b < blocks; b++)
        printf(" %g", multipliers[b]);
    free(multipliers);
}

void report_settings(const struct experiment *experiment, gradreg_context *context,
                     bool markdown)
{
    const char *item = markdown ? "- " : "  ";
    const struct training *training = &experiment->training;
    struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;

    must(gradreg_context_info(context, &info));
    printf("%sMachine: %s; libgradreg %s, vector path %s\n", item, info.device_name,
           gradreg_version(), info.vector_path);
    printf(
        "%sData: %zu pictures of digits, %g %% of the labels wrong; %zu held out, all right\n",
        item, experiment->training_pictures, 100.0 * experiment->label_noise,
        experiment->held_out_pictures);
    printf("%sNetwork: %zu transformer blocks of width %zu, cross entropy\n", item,
           experiment->shape.blocks, experiment->shape.width);
    printf("%sTraining: batches of %zu, rate %g, momentum %g, until the loss on all pictures "
           "is %g\n",
           item, training->batch_size, training->learning_rate, training->momentum,
           training->target_loss);
    printf("%sMeasured at a running mean of the weights, on all training pictures\n", item);
    printf("%sRegularizer: lambda %g after %u steps of warm-up, epsilon %g\n", item,
           training->strength, (unsigned)training->warmup_steps, training->epsilon);
    printf("%sMultipliers of lambda per block:", item);
    print_multipliers(experiment);
    puts("\n");
}

/* ------------------------------------------------------------------ runs */

struct table report_runs_begin(bool markdown)
{
    static const char *const titles[] = {
        "run",   "steps",    "training loss",    "gradient norm", "top eigenvalue",
        "trace", "+- error", "held-out accuracy"
    };
    return table_begin(markdown, 19, 8, titles);
}

void report_run(struct table *table, const struct run *run, int arm, uint64_t seed)
{
    char name[40];
    snprintf(name, sizeof(name), "seed %u, %s", (unsigned)seed, arm_names[arm]);
    table_text(table, name);
    table_number(table, 0, (double)run->trained.steps);
    table_number(table, 3, run->trained.loss);
    table_number(table, 3, run->gradient_norm);
    table_number(table, 2, run->curvature.top_eigenvalue);
    table_number(table, 0, run->curvature.trace);
    table_number(table, 0, run->curvature.trace_error);
    table_number(table, 3, run->held_out_accuracy);
}

/* ------------------------------------------------------------------ medians */

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts the values. */
static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), compare);
    return 0.5 * (values[(count - 1) / 2] + values[count / 2]);
}

typedef double (*measure)(const struct run *run);

static double arm_median(const struct experiment *experiment, const struct run *runs, int arm,
                         measure of)
{
    double *values = must_allocate(experiment->seeds, sizeof(*values));
    for (size_t s = 0; s < experiment->seeds; s++)
        values[s] = of(&runs[s * ARMS + (size_t)arm]);
    const double result = median(values, experiment->seeds);
    free(values);
    return result;
}

static double loss_of(const struct run *run)
{
    return run->trained.loss;
}

static double gradient_norm_of(const struct run *run)
{
    return run->gradient_norm;
}

static double top_eigenvalue_of(const struct run *run)
{
    return run->curvature.top_eigenvalue;
}

static double trace_of(const struct run *run)
{
    return run->curvature.trace;
}

static double accuracy_of(const struct run *run)
{
    return run->held_out_accuracy;
}

static double steps_of(const struct run *run)
{
    return (double)run->trained.steps;
}

static double passes_of(const struct run *run)
{
    return (double)run->trained.backward_examples;
}

void report_medians(const struct experiment *experiment, const struct run *runs, bool markdown)
{
    static const struct {
        const char *name;
        measure of;
        int decimals;
    } rows[] = {
        { "training loss", loss_of, 3 },
        { "gradient norm", gradient_norm_of, 3 },
        { "top Hessian eigenvalue", top_eigenvalue_of, 2 },
        { "Hessian trace (Hutchinson)", trace_of, 0 },
        { "held-out accuracy", accuracy_of, 3 },
        { "steps to the target", steps_of, 0 },
        { "examples through backward passes", passes_of, 0 },
    };
    const char *regularized = experiment->training.even ? "even regularizer" : "depth-scaled";
    const char *const titles[] = { "median over the seeds", "     plain", regularized,
                                   "ratio" };
    struct table table = table_begin(markdown, 34, 4, titles);

    for (size_t r = 0; r < sizeof(rows) / sizeof(*rows); r++) {
        const double plain = arm_median(experiment, runs, PLAIN, rows[r].of);
        const double other = arm_median(experiment, runs, REGULARIZED, rows[r].of);
        table_text(&table, rows[r].name);
        table_number(&table, rows[r].decimals, plain);
        table_number(&table, rows[r].decimals, other);
        table_number(&table, 2, other / plain);
    }
    table_end(&table);
}

/* ------------------------------------------------------------------ terms per layer */

enum { TERMS = sizeof(struct layer_terms) / sizeof(double) };

/* Median over the seeds of one of the means in struct layer_terms. */
static double term_median(const struct experiment *experiment, const struct run *runs,
                          size_t layer, size_t term)
{
    double *values = must_allocate(experiment->seeds, sizeof(*values));
    for (size_t s = 0; s < experiment->seeds; s++) {
        const struct run *run = &runs[s * ARMS + REGULARIZED];
        const struct layer_terms *terms = &run->trained.layers[layer];
        const double all[TERMS] = { terms->strength,         terms->first_norm,
                                    terms->hvp_norm,         terms->curvature,
                                    terms->correction_share, terms->applied_cosine };
        values[s] = all[term];
    }
    const double result = median(values, experiment->seeds);
    free(values);
    return result;
}

void report_layers(const struct experiment *experiment, const struct run *runs, bool markdown)
{
    static const char *const titles[] = { "block",         "strength",  "first_norm",
                                          "hvp_norm",      "curvature", "correction_share",
                                          "applied_cosine" };
    static const int decimals[TERMS] = { 3, 3, 2, 2, 3, 5 };
    const size_t blocks = experiment->shape.blocks;
    struct table table = table_begin(markdown, 5, 1 + TERMS, titles);

    for (size_t l = 0; l <= blocks; l++) {
        if (l < blocks)
            table_number(&table, 0, (double)l);
        else
            table_text(&table, "total");
        for (size_t t = 0; t < TERMS; t++)
            table_number(&table, decimals[t], term_median(experiment, runs, l, t));
    }
    table_end(&table);
}

/* ------------------------------------------------------------------ verdict */

static bool losses_are_equal(const struct experiment *experiment, const struct run *runs)
{
    bool equal = true;
    for (size_t s = 0; s < experiment->seeds; s++) {
        const struct trained *plain = &runs[s * ARMS + PLAIN].trained;
        const struct trained *other = &runs[s * ARMS + REGULARIZED].trained;
        const double apart = fabs(other->loss / plain->loss - 1.0);
        if (plain->reached && other->reached && apart <= 0.05)
            continue;
        printf("seed %zu: the losses %.3f and %.3f are not equal%s\n", s + 1, plain->loss,
               other->loss, plain->reached && other->reached ? "" : " (step limit)");
        equal = false;
    }
    return equal;
}

/* Finite differences are only as good as their step. */
static bool products_are_exact(const struct experiment *experiment, const struct run *runs)
{
    double worst = 0.0;
    for (size_t r = 0; r < experiment->seeds * ARMS; r++)
        worst = fmax(worst, runs[r].curvature.epsilon_change);
    printf(
        "Half the step of the Hessian-vector products changes no top eigenvalue by more than "
        "%.2g %%.\n",
        100.0 * worst);
    return worst < 0.01;
}

bool report_check(const struct experiment *experiment, const struct run *runs)
{
    const double plain = arm_median(experiment, runs, PLAIN, top_eigenvalue_of);
    const double other = arm_median(experiment, runs, REGULARIZED, top_eigenvalue_of);
    size_t flatter = 0;

    for (size_t s = 0; s < experiment->seeds; s++)
        flatter += runs[s * ARMS + REGULARIZED].curvature.top_eigenvalue <
                   runs[s * ARMS + PLAIN].curvature.top_eigenvalue;
    bool good = products_are_exact(experiment, runs);
    good &= losses_are_equal(experiment, runs);
    good &= other < plain;
    printf(
        "%s: median top eigenvalue %.2f with the regularizer, %.2f without; lower for %zu of "
        "%zu seeds\n",
        good ? "check passed" : "check FAILED", other, plain, flatter, experiment->seeds);
    return good;
}
