/* logits_rig.h - rows of logits for the suites of log-probs, and the comparison with the oracle.
 *
 * In: a shape, a type, how it lies in memory, a seed. Out: guarded buffers, filled; calls into them; and
 * every result held against a bound that follows from its own arithmetic. u = 2^-24. */
#ifndef GRADREG_TEST_LOGITS_RIG_H
#define GRADREG_TEST_LOGITS_RIG_H

#include "oracle_logits.h"
#include "support.h"

typedef struct logits_rig {
    gradreg_logits_params params;
    size_t stride, bytes,
        off; /* elements from row to row; of all rows; first element's misalignment */
    void *logits, *dlogits;
    int32_t *targets;
    float *logp, *entropy, *log_sum_exp, *dlogp, *dentropy;
    double *z; /* a row of logits over the temperature, as the library rounds it */
} logits_rig;

/* `gap` elements between rows, filled with NaN; buffers one element off alignment if `off`. Logits are
 * uniform in +-spread, some rows with one large logit. */
logits_rig *logits_rig_new(size_t rows, size_t vocabulary, gradreg_type type, size_t gap,
                           size_t off, double spread, uint64_t *state);
void logits_rig_free(logits_rig *rig);

/* Both calls, out of place; nothing outside the rows may have changed. */
void logits_rig_run(logits_rig *rig, gradreg_context *context);

/* rig->z: row r. */
const double *logits_rig_row(logits_rig *rig, size_t r);

/* Everything that logits_rig_run() made, against the oracle. Padding rows and rows of nothing but
 * numbers only. Returns the worst error in units of its bound. */
double logits_rig_check(logits_rig *rig, const char *what);

/* Same bits in all results of two rigs of one shape; false names the first difference. */
void logits_rig_same(const logits_rig *got, const logits_rig *want, const char *what);

/* A context with this many threads on a vector path; NULL: the best. */
gradreg_context *logits_context(int32_t threads, const char *path);

#endif
