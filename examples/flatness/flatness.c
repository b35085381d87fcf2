/* flatness.c - does the regularizer lead to flatter minima? Trains a small network to the same
 * loss with and without it, for several seeds, and measures where the two end up.
 *
 *      options ──► experiment ──► for each seed and arm: run ──► tables ──► verdict (--check)
 *
 * experiment.c holds the settings, train.c the library's part in a training step, curvature.c its
 * Hessian-vector products. */
#include <gradreg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "experiment.h"
#include "report.h"
#include "selftest.h"
#include "support.h"

static const char usage[] =
    "usage: flatness [options]\n"
    "  --seeds N      runs per arm, seeds 1 .. N (default 5)\n"
    "  --steps N      give a run up after this many steps (default 4000)\n"
    "  --lambda X     strength of the regularizer (default 0.05)\n"
    "  --epsilon X    its finite-difference step (default 0.001)\n"
    "  --even         all blocks at full strength, instead of scaled by depth\n"
    "  --quick        a smaller experiment, a few seconds\n"
    "  --check        fail unless the regularized runs are flatter at equal loss\n"
    "  --markdown     tables for a documentation page\n"
    "  --selftest     check gradients and eigenvalues on a tiny network, nothing else\n";

struct options {
    struct experiment experiment;
    bool check, markdown, selftest;
};

/* ------------------------------------------------------------------ options */

static void complain(const char *option, const char *expected)
{
    fprintf(stderr, "flatness: %s: %s\n%s", option, expected, usage);
    exit(EXIT_FAILURE);
}

static double positive(const char *option, const char *value)
{
    char *end = NULL;
    const double number = value != NULL ? strtod(value, &end) : 0.0;
    if (value == NULL || end == value || *end != '\0' || !isfinite(number) || number <= 0.0)
        complain(option, "a positive number must follow");
    return number;
}

static size_t whole(const char *option, const char *value)
{
    const double number = positive(option, value);
    if (number != floor(number) || number > 1e6)
        complain(option, "a whole number up to a million must follow");
    return (size_t)number;
}

/* --quick chooses the experiment, whatever its place among the options; the others change it. */
static bool wants(int count, char **arguments, const char *option)
{
    for (int i = 1; i < count; i++)
        if (strcmp(arguments[i], option) == 0)
            return true;
    return false;
}

static struct options read_options(int count, char **arguments)
{
    struct options options = { .experiment =
                                   experiment_default(wants(count, arguments, "--quick")) };
    struct experiment *experiment = &options.experiment;

    for (int i = 1; i < count; i++) {
        const char *option = arguments[i], *value = arguments[i + 1];
        if (strcmp(option, "--seeds") == 0)
            experiment->seeds = whole(option, value), i++;
        else if (strcmp(option, "--steps") == 0)
            experiment->training.step_limit = whole(option, value), i++;
        else if (strcmp(option, "--lambda") == 0)
            experiment->training.strength = positive(option, value), i++;
        else if (strcmp(option, "--epsilon") == 0)
            experiment->training.epsilon = positive(option, value), i++;
        else if (strcmp(option, "--even") == 0)
            experiment->training.even = true;
        else if (strcmp(option, "--check") == 0)
            options.check = true;
        else if (strcmp(option, "--markdown") == 0)
            options.markdown = true;
        else if (strcmp(option, "--selftest") == 0)
            options.selftest = true;
        else if (strcmp(option, "--help") == 0)
            fputs(usage, stdout), exit(EXIT_SUCCESS);
        else if (strcmp(option, "--quick") != 0)
            complain(option, "no such option");
    }
    return options;
}

/* ------------------------------------------------------------------ the experiment */

static void show_data(const struct experiment *experiment)
{
    struct examples *pictures =
        must_have(digits_draw(experiment->training_pictures, experiment->label_noise, 1));
    puts("The first pictures of seed 1:\n");
    digits_show(pictures, 7);
    putchar('\n');
    examples_free(pictures);
}

static void run_all(struct run *runs, const struct options *options, gradreg_context *context)
{
    struct progress progress;
    const struct training_watch watch = { progress_step, &progress };
    struct table table = report_runs_begin(options->markdown);

    progress_begin(&progress, &options->experiment);
    for (size_t s = 0; s < options->experiment.seeds; s++)
        for (int arm = 0; arm < ARMS; arm++) {
            struct run *run = &runs[s * ARMS + (size_t)arm];
            progress_run(&progress, arm, s + 1);
            experiment_run(run, context, &options->experiment, arm, s + 1, &watch);
            progress_run_done(&progress);
            report_run(&table, run, arm, s + 1);
        }
    table_end(&table);
}

static bool compare_arms(const struct options *options, gradreg_context *context)
{
    const struct experiment *experiment = &options->experiment;
    struct run *runs = must_allocate(experiment->seeds * ARMS, sizeof(*runs));

    if (!options->markdown)
        show_data(experiment);
    report_settings(experiment, context, options->markdown);
    run_all(runs, options, context);
    report_medians(experiment, runs, options->markdown);
    puts("The library's terms per block (means over the last 100 steps, median over the "
         "seeds):\n");
    report_layers(experiment, runs, options->markdown);
    const bool good = !options->check || report_check(experiment, runs);

    for (size_t r = 0; r < experiment->seeds * ARMS; r++)
        trained_free(&runs[r].trained);
    free(runs);
    return good;
}

int main(int count, char **arguments)
{
    const struct options options = read_options(count, arguments);
    gradreg_context *context = NULL;

    must(gradreg_context_create(&context, NULL));
    const bool good = options.selftest ? selftest(context) : compare_arms(&options, context);
    must(gradreg_context_destroy(context));
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
