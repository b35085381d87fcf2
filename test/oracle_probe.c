/* oracle_probe.c - see oracle_probe.h. */
#include "oracle_probe.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* ---- noise ------------------------------------------------------------------------- */

static void multiply(uint32_t a, uint32_t b, uint32_t *high, uint32_t *low)
{
    const uint64_t product = (uint64_t)a * b;
    *high = (uint32_t)(product >> 32);
    *low = (uint32_t)product;
}

static void philox(uint32_t c[4], uint32_t k[2])
{
    for (int round = 0; round < 10; round++) {
        uint32_t high0, low0, high2, low2;
        multiply(0xD2511F53u, c[0], &high0, &low0);
        multiply(0xCD9E8D57u, c[2], &high2, &low2);
        const uint32_t next[4] = { high2 ^ c[1] ^ k[0], low2, high0 ^ c[3] ^ k[1], low0 };
        memcpy(c, next, sizeof(next));
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
}

static double uniform(uint32_t word)
{
    return (word + 0.5) / 4294967296.0;
}

void oracle_noise(double *out, uint64_t seed, int32_t layer, int32_t trial, size_t count)
{
    const double pi = acos(-1.0);
    for (size_t i = 0; i < count; i++) {
        const uint64_t group = i / 4;
        uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
        uint32_t words[4] = { (uint32_t)group, (uint32_t)(group >> 32),
                              0x80000000u + (uint32_t)layer, (uint32_t)trial };
        philox(words, key);
        const size_t pair = i % 4 / 2 * 2;
        const double radius = sqrt(-2.0 * log(uniform(words[pair])));
        const double angle = 2.0 * pi * uniform(words[pair + 1]);
        out[i] = i % 2 == 0 ? radius * cos(angle) : radius * sin(angle);
    }
}

double oracle_rms(const double *x, size_t count)
{
    long double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (long double)x[i] * (long double)x[i];
    return (double)sqrtl(sum / (long double)count);
}

/* ---- probability ------------------------------------------------------------------- */

double oracle_probability(const double *logits, size_t count, size_t target)
{
    double most = -(double)INFINITY;
    long double sum = 0;
    for (size_t i = 0; i < count; i++) {
        if (isnan(logits[i]) || logits[i] == (double)INFINITY)
            return (double)NAN;
        most = fmax(most, logits[i]);
    }
    if (isinf(most))
        return (double)NAN;
    for (size_t i = 0; i < count; i++)
        sum += expl((long double)logits[i] - (long double)most);
    return (double)(expl((long double)logits[target] - (long double)most) / sum);
}

oracle_spread oracle_spread_of(const double *x, size_t count)
{
    oracle_spread s = { 0, 0, x[0], x[0] };
    long double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) {
        sum += (long double)x[i];
        s.min = fmin(s.min, x[i]);
        s.max = fmax(s.max, x[i]);
    }
    const long double mean = sum / (long double)count;
    for (size_t i = 0; i < count; i++)
        squares += ((long double)x[i] - mean) * ((long double)x[i] - mean);
    s.mean = (double)mean;
    s.std = count < 2 ? 0.0 : (double)sqrtl(squares / (long double)(count - 1));
    return s;
}

/* ---- monitors ---------------------------------------------------------------------- */

double oracle_distinct(const int32_t *tokens, size_t count, size_t order)
{
    size_t distinct = 0;
    if (count < order)
        return (double)NAN;
    const size_t runs = count - order + 1;
    for (size_t i = 0; i < runs; i++) {
        bool seen = false;
        for (size_t k = 0; k < i && !seen; k++)
            seen = memcmp(tokens + i, tokens + k, order * sizeof(*tokens)) == 0;
        distinct += !seen;
    }
    return (double)distinct / (double)runs;
}

double oracle_average(const float *values, size_t i, size_t window)
{
    long double sum = 0;
    size_t numbers = 0;
    for (size_t k = 0; k < window && k <= i; k++)
        if (!isnan(values[i - k])) {
            sum += (long double)values[i - k];
            numbers++;
        }
    return numbers > 0 ? (double)(sum / (long double)numbers) : (double)NAN;
}

static long double total(const float *x, size_t count)
{
    long double sum = 0;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(x[i]) || x[i] < 0.0f)
            return (long double)NAN;
        sum += (long double)x[i];
    }
    return sum > 0 ? sum : (long double)NAN;
}

static long double kullback(long double p, long double m)
{
    return p > 0 ? p * logl(p / m) : 0;
}

double oracle_divergence(const float *p, const float *q, size_t count)
{
    const long double p_total = total(p, count), q_total = total(q, count);
    long double sum = 0;
    if (isnan(p_total) || isnan(q_total))
        return (double)NAN;
    for (size_t i = 0; i < count; i++) {
        const long double a = (long double)p[i] / p_total, b = (long double)q[i] / q_total;
        const long double m = (a + b) / 2;
        sum += (kullback(a, m) + kullback(b, m)) / 2;
    }
    return (double)sum;
}

double oracle_distance(const double *before, const double *after, size_t count)
{
    long double sum = 0;
    for (size_t i = 0; i < count; i++) {
        const long double d = (long double)after[i] - (long double)before[i];
        sum += d * d;
    }
    return (double)sqrtl(sum);
}
