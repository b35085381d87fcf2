/* report.h - everything that goes to the terminal: progress, tables, the verdict. */
#ifndef FLATNESS_REPORT_H
#define FLATNESS_REPORT_H

#include <gradreg.h>
#include <stdbool.h>

#include "experiment.h"
#include "table.h"

/* ------------------------------------------------------------------ progress, on stderr */

/* Work is counted in examples that went through a backward pass. */
struct progress {
    const struct experiment *experiment;
    double began;      /* seconds */
    double last_line;  /* seconds */
    double work_total; /* expected */
    double work_done;  /* by finished runs, as expected */
    int arm;           /* the run under way */
    uint64_t seed;
};

void progress_begin(struct progress *progress, const struct experiment *experiment);
void progress_run(struct progress *progress, int arm, uint64_t seed);
void progress_run_done(struct progress *progress);
/* Has the signature of struct training_watch; user: a struct progress. */
void progress_step(void *user, size_t step, double loss);

/* ------------------------------------------------------------------ tables, on stdout */

/* What is compared, and on what machine. */
void report_settings(const struct experiment *experiment, gradreg_context *context,
                     bool markdown);

/* One row per run, as they finish. */
struct table report_runs_begin(bool markdown);
void report_run(struct table *table, const struct run *run, int arm, uint64_t seed);

/* runs: [seeds][ARMS], in the order of the seeds. */
void report_medians(const struct experiment *experiment, const struct run *runs, bool markdown);
void report_layers(const struct experiment *experiment, const struct run *runs, bool markdown);

/* The claim: at losses no more than 5 % apart for every seed, the regularized runs have the lower
 * median top eigenvalue. Prints the verdict, and what is wrong with it. */
bool report_check(const struct experiment *experiment, const struct run *runs);

#endif
