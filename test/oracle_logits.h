/* oracle_logits.h - log-probs, entropies and their gradients in long double, by the formulas of the
 * header. Includes nothing of the library. */
#ifndef GRADREG_TEST_ORACLE_LOGITS_H
#define GRADREG_TEST_ORACLE_LOGITS_H

#include <stddef.h>

/* A row's numbers, and what bounds on them are made of. */
typedef struct oracle_logits {
    double logp, entropy, log_sum_exp;
    double others;      /* probability of all but the largest logit */
    double distance;    /* mean distance from the largest logit */
    double distance_sq; /* and its square */
} oracle_logits;

/* z: logits over the temperature; -inf has probability 0. */
oracle_logits oracle_logits_row(const double *z, size_t n, size_t target);

/* d (dlogp logp + dentropy H) / dz_j with p_j = exp(z_j - log_sum_exp), H = entropy as given. */
double oracle_logits_slope(const double *z, size_t j, size_t target, double log_sum_exp,
                           double entropy, double dlogp, double dentropy);

#endif
