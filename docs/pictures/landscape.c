/* landscape.c - why flat is better than sharp, on functions of one and of two weights.
 *
 * In: nothing. Out: the curves and paths that docs/pictures shows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "figures.h"

/* ------------------------------------------------------------------ one weight */

/* Two bowls of depth 0, softly joined: 50 times as sharp around -1.5 as around 1.5. */
static const double centers[2] = { -1.5, 1.5 }, sharpness[2] = { 25, 0.5 }, softness = 0.05;

static double minima_loss(double w)
{
    double sum = 0;
    for (int i = 0; i < 2; i++)
        sum += exp(-sharpness[i] / 2 * (w - centers[i]) * (w - centers[i]) / softness);
    return -softness * log(sum);
}

static void minima_gradient(double *out, const double *w)
{
    double sum = 0, slopes = 0;
    for (int i = 0; i < 2; i++) {
        const double away = w[0] - centers[i];
        const double share = exp(-sharpness[i] / 2 * away * away / softness);
        sum += share;
        slopes += share * sharpness[i] * away;
    }
    out[0] = slopes / sum;
}

/* What the same shift of the weight costs, and the curves: the loss, and the loss with what the
 * report calls `penalty`. */
void print_minima(void)
{
    const double shift = 0.25;
    gradreg_regularizer_params params = toy_params(1);
    params.strength = 0.02;
    for (int i = 0; i < 2; i++) {
        const double w = centers[i] + shift, loss = minima_loss(w);
        const toy_step step = toy_run(&params, 1, minima_gradient, &w);
        printf("%s minimum at %g: %.2f away the loss is %.4f, the penalty %.4f\n",
               i == 0 ? "sharp" : "flat", centers[i], shift, loss, step.terms.penalty);
    }
    printf("\nw loss penalized\n");
    for (int i = 0; i <= 220; i++) {
        const double w = -2.2 + 0.025 * i, loss = minima_loss(w);
        const toy_step step = toy_run(&params, 1, minima_gradient, &w);
        printf("%.3f %.5f %.5f\n", w, loss, loss + step.terms.penalty);
    }
}

/* ------------------------------------------------------------------ two weights */

/* A valley along y = 0 whose walls get gentler with x: L = s(x) y^2 / 2. Every point of its floor
 * is a minimum. The curvature across it is s(x), from 16 down to 1. */
static double steepness(double x)
{
    return 1 + 7.5 * (1 - x / sqrt(1 + x * x));
}

static double steepness_slope(double x)
{
    return -7.5 / ((1 + x * x) * sqrt(1 + x * x));
}

/* A mini-batch sees the valley through noise: a tilt, the same in both passes of a step. */
typedef struct batch {
    double tilt_x, tilt_y;
} batch;

static void valley_gradient(float *out, const float *w, const batch *b)
{
    const double x = (double)w[0], y = (double)w[1];
    out[0] = (float)(steepness_slope(x) * y * y / 2 + b->tilt_x);
    out[1] = (float)(steepness(x) * y + b->tilt_y);
}

static double uniform(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return ((double)(*state >> 11) + 0.5) / 9007199254740992.0;
}

/* Close to standard normal. */
static double normal(uint64_t *state)
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += uniform(state);
    return sum;
}

enum { STEPS = 800 };
static const double rate = 0.05, tilt = 1.5, strength = 0.05, start[2] = { -1.7, 1.1 };

/* Stochastic gradient descent; path may be NULL. Ends in `end`. */
static void descend(float end[2], float (*path)[2], double lambda, uint64_t seed)
{
    float w[2] = { (float)start[0], (float)start[1] }, grads[2];
    gradreg_regularizer_params params = toy_params(1);
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    gradreg_context *context = NULL;

    params.strength = lambda;
    must(gradreg_context_create(&context, NULL));
    gradreg_regularizer *regularizer = toy_open(context, 2, &params);
    buffers.params = w;
    buffers.grads = grads;
    buffers.count = 2;
    for (int step = 0; step < STEPS; step++) {
        const double x = normal(&seed), y = normal(&seed);
        const batch b = { 0.1 * tilt * x, tilt * y };
        if (path != NULL)
            memcpy(path[step], w, sizeof(w));
        valley_gradient(grads, w, &b);
        must(gradreg_regularizer_perturb(regularizer, &buffers));
        valley_gradient(grads, w, &b);
        must(gradreg_regularizer_combine(regularizer, &buffers));
        for (int i = 0; i < 2; i++)
            w[i] -= (float)rate * grads[i];
    }
    memcpy(end, w, sizeof(w));
    must(gradreg_regularizer_destroy(regularizer));
    must(gradreg_context_destroy(context));
}

static void print_path(const char *name, double lambda)
{
    float path[STEPS][2], end[2];
    descend(end, path, lambda, 1);
    printf("%s\n", name);
    for (int step = 0; step < STEPS; step++)
        printf("%.3f %.3f\n", (double)path[step][0], (double)path[step][1]);
    printf("%.3f %.3f\n", (double)end[0], (double)end[1]);
}

/* Contours as y(x), then the two paths of seed 1. */
void print_valley(void)
{
    static const double levels[] = { 0.1, 0.5, 1.5, 4, 9 };
    for (size_t i = 0; i < sizeof(levels) / sizeof(*levels); i++) {
        printf("contour %g\n", levels[i]);
        for (double x = -2.4; x < 2.81; x += 0.1)
            printf("%.2f %.4f\n", x, sqrt(2 * levels[i] / steepness(x)));
    }
    print_path("plain", 0);
    print_path("regularized", strength);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void print_valley_ends(void)
{
    enum { SEEDS = 21 };
    printf("curvature across the valley where the path began: %.1f\n", steepness(start[0]));
    for (int regularized = 0; regularized <= 1; regularized++) {
        double ends[SEEDS];
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            float end[2];
            descend(end, NULL, regularized ? strength : 0, seed);
            ends[seed - 1] = steepness((double)end[0]);
        }
        qsort(ends, SEEDS, sizeof(*ends), compare);
        printf("after %d steps, lambda = %-4g  least %4.1f   median %4.1f   most %4.1f\n",
               STEPS, regularized ? strength : 0, ends[0], ends[SEEDS / 2], ends[SEEDS - 1]);
    }
}
