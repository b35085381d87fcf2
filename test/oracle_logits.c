/* oracle_logits.c - see oracle_logits.h. */
#include "oracle_logits.h"

#include <math.h>

oracle_logits oracle_logits_row(const double *z, size_t n, size_t target)
{
    size_t top = 0;
    long double others = 0.0L, turn = 0.0L, square = 0.0L;
    oracle_logits o;
    for (size_t i = 1; i < n; i++)
        if (z[i] > z[top])
            top = i;
    for (size_t i = 0; i < n; i++) {
        const long double d = (long double)z[i] - (long double)z[top];
        if (i == top || isinf(z[i]))
            continue;
        others += expl(d);
        turn -= d * expl(d);
        square += d * d * expl(d);
    }
    const long double sum = 1.0L + others, log_sum = log1pl(others);
    o.log_sum_exp = (double)((long double)z[top] + log_sum);
    o.logp = (double)((long double)z[target] - (long double)z[top] - log_sum);
    o.entropy = (double)(log_sum + turn / sum);
    o.others = (double)(others / sum);
    o.distance = (double)(turn / sum);
    o.distance_sq = (double)(square / sum);
    return o;
}

double oracle_logits_slope(const double *z, size_t j, size_t target, double log_sum_exp,
                           double entropy, double dlogp, double dentropy)
{
    const long double l = (long double)z[j] - (long double)log_sum_exp, p = expl(l);
    if (isinf(z[j]))
        return 0.0;
    const long double by_entropy =
        dentropy == 0.0 ? 0.0L : (long double)dentropy * p * (l + (long double)entropy);
    return (double)((long double)dlogp * ((j == target ? 1.0L : 0.0L) - p) - by_entropy);
}
