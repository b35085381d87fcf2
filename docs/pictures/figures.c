/* figures.c - schedule, finite difference, depth modes, clips.
 *
 * In: the name of a figure. Out: its numbers as text; docs/refresh.py draws them or puts them on
 * the page. */
#include "figures.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double dot(const double *a, const double *b, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

static double norm(const double *a, size_t count)
{
    return sqrt(dot(a, a, count));
}

/* ------------------------------------------------------------------ schedule */

enum { LAYERS = 36 };

void print_schedule(void)
{
    static const gradreg_curve curves[] = { GRADREG_CURVE_LINEAR, GRADREG_CURVE_COSINE,
                                            GRADREG_CURVE_POWER, GRADREG_CURVE_STEP,
                                            GRADREG_CURVE_TABLE };
    enum { CURVES = sizeof(curves) / sizeof(*curves) };
    double own[LAYERS], m[CURVES][LAYERS];
    gradreg_schedule schedule;

    for (int layer = 0; layer < LAYERS;
         layer++) /* one's own: as strong as the layer is near 28 */
        own[layer] = fmax(0, 1 - fabs(layer - 28.0) / 12);
    must(gradreg_schedule_for_depth(&schedule, LAYERS));
    schedule.power = 2;
    schedule.table = own;
    for (int c = 0; c < CURVES; c++) {
        schedule.curve = curves[c];
        must(gradreg_schedule_multipliers(m[c], &schedule, LAYERS));
    }
    printf("layer linear cosine power2 step table\n");
    for (int layer = 0; layer < LAYERS; layer++)
        printf("%d %.17g %.17g %.17g %.17g %.17g\n", layer, m[0][layer], m[1][layer],
               m[2][layer], m[3][layer], m[4][layer]);
}

void print_depths(void)
{
    static const int32_t depths[] = { 1, 2, 3, 6, 12, 24, 28, 32, 36, 48, 64, 80 };
    printf("layers  first_layer  full_layer  m of the layers between\n");
    for (size_t i = 0; i < sizeof(depths) / sizeof(*depths); i++) {
        gradreg_schedule schedule;
        double m[128];
        must(gradreg_schedule_for_depth(&schedule, depths[i]));
        must(gradreg_schedule_multipliers(m, &schedule, depths[i]));
        printf("%6d  %11d  %10d ", depths[i], schedule.first_layer, schedule.full_layer);
        const int32_t between = schedule.full_layer - schedule.first_layer;
        for (int32_t k = 0; k < between; k++)
            if (k < 3 || k == between - 1)
                printf(" %.3f", m[schedule.first_layer + k]);
            else if (k == 3)
                printf("   ...");
        printf("\n");
    }
}

/* ------------------------------------------------------------------ finite difference */

/* L = (w0^2 + 4 w1^2) / 2: the second direction is four times as sharp. */
static void bowl(double *out, const double *w)
{
    out[0] = w[0];
    out[1] = 4 * w[1];
}

void print_difference(void)
{
    static const double at[2] = { 1.6, 0.5 };
    gradreg_regularizer_params params = toy_params(1);
    params.strength = 0.1;
    params.epsilon = 0.15; /* large, to be seen in a picture */
    const toy_step step = toy_run(&params, 2, bowl, at);
    const struct {
        const char *name;
        double value[2];
    } rows[] = {
        { "theta", { at[0], at[1] } },
        { "g1", { (double)step.first[0], (double)step.first[1] } },
        { "theta'", { (double)step.moved[0], (double)step.moved[1] } },
        { "g2", { (double)step.second[0], (double)step.second[1] } },
        { "g2 - g1",
          { (double)(step.second[0] - step.first[0]),
            (double)(step.second[1] - step.first[1]) } },
        { "lambda/epsilon (g2 - g1)",
          { (double)(step.corrected[0] - step.first[0]),
            (double)(step.corrected[1] - step.first[1]) } },
        { "g_hat", { (double)step.corrected[0], (double)step.corrected[1] } },
    };
    printf("epsilon = %g, lambda = %g\n", params.epsilon, params.strength);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        printf("%-26s %6.3f %6.3f\n", rows[i].name, rows[i].value[0], rows[i].value[1]);
}

/* L = w0^4 + w0 w1 + 2 w1^2: its Hessian changes along the step. */
static void quartic(double *out, const double *w)
{
    out[0] = 4 * w[0] * w[0] * w[0] + w[1];
    out[1] = w[0] + 4 * w[1];
}

/* ||H g as computed - H g|| / ||H g|| */
static double product_error(gradreg_difference difference, double epsilon)
{
    static const double w[2] = { 0.5, 0.25 };
    double g[2], error[2];
    gradreg_regularizer_params params = toy_params(1);
    params.output = GRADREG_OUTPUT_PRODUCT;
    params.difference = difference;
    params.epsilon = epsilon;
    const toy_step step = toy_run(&params, 2, quartic, w);

    quartic(g, w);
    const double truth[2] = { 12 * w[0] * w[0] * g[0] + g[1], g[0] + 4 * g[1] };
    for (int i = 0; i < 2; i++)
        error[i] = (double)step.corrected[i] - truth[i];
    return norm(error, 2) / norm(truth, 2);
}

void print_central(void)
{
    printf("epsilon    FORWARD, one extra pass    CENTRAL, two\n");
    for (double epsilon = 0.4; epsilon > 0.02; epsilon /= 2)
        printf("%7g    %20.3f %%    %10.4f %%\n", epsilon,
               100 * product_error(GRADREG_DIFFERENCE_FORWARD, epsilon),
               100 * product_error(GRADREG_DIFFERENCE_CENTRAL, epsilon));
}

/* ------------------------------------------------------------------ depth modes */

/* L = w0^2 + w0 w1 + w1^2: two layers of one weight each, H = (2 1; 1 2). */
static void coupled(double *out, const double *w)
{
    out[0] = 2 * w[0] + w[1];
    out[1] = w[0] + 2 * w[1];
}

void print_depth_modes(void)
{
    static const double at[2] = { 1, 1 }, late_layer_only[2] = { 0, 1 };
    static const struct {
        const char *name;
        gradreg_depth depth;
    } modes[] = { { "ON_UPDATE", GRADREG_DEPTH_ON_UPDATE },
                  { "ON_PENALTY", GRADREG_DEPTH_ON_PENALTY } };
    gradreg_regularizer_params params = toy_params(2);
    params.strength = 0.1;
    params.schedule.curve = GRADREG_CURVE_TABLE;
    params.schedule.table = late_layer_only;

    printf("                           layer 0, m = 0    layer 1, m = 1\n");
    for (int i = 0; i < 2; i++) {
        params.depth = modes[i].depth;
        const toy_step step = toy_run(&params, 2, coupled, at);
        if (i == 0)
            printf("g                          %14.3f    %14.3f\n", (double)step.first[0],
                   (double)step.first[1]);
        printf("correction, %-11s    %14.3f    %14.3f\n", modes[i].name,
               (double)(step.corrected[0] - step.first[0]),
               (double)(step.corrected[1] - step.first[1]));
    }
    /* lambda/2 g_1^2, differenced without the library */
    double slope[2];
    for (int i = 0; i < 2; i++) {
        double plus[2] = { at[0], at[1] }, minus[2] = { at[0], at[1] }, g[2];
        plus[i] += 1e-4;
        minus[i] -= 1e-4;
        coupled(g, plus);
        slope[i] = params.strength / 2 * g[1] * g[1];
        coupled(g, minus);
        slope[i] = (slope[i] - params.strength / 2 * g[1] * g[1]) / 2e-4;
    }
    printf("gradient of the penalty    %14.3f    %14.3f\n", slope[0], slope[1]);
}

/* ------------------------------------------------------------------ clips */

/* L = (w0^2 + 4 w1^2 + 16 w2^2) / 2 */
static void stretched(double *out, const double *w)
{
    for (int i = 0; i < 3; i++)
        out[i] = pow(4, i) * w[i];
}

static void print_clip(const char *name, double first, double second, int common)
{
    static const double w[3] = { 12, 3, 0.75 }; /* g = (12, 12, 12) */
    gradreg_regularizer_params params = toy_params(1);
    double g[3], product[3], correction[3];
    params.strength = 0.1;
    params.clip_first = first;
    params.clip_second = second;
    params.common_clip = common;
    const toy_step step = toy_run(&params, 3, stretched, w);
    const double factor =
        common ? fmin(step.terms.clip_first, step.terms.clip_second) : step.terms.clip_first;

    stretched(g, w);
    stretched(product, g); /* the Hessian is diagonal: H g */
    for (int i = 0; i < 3; i++)
        correction[i] = (double)step.corrected[i] - factor * g[i];
    printf("%-28s %9.3f %9.3f %12.2f %12.3f", name, step.terms.clip_first,
           step.terms.clip_second, step.terms.correction_share,
           dot(correction, product, 3) / norm(correction, 3) / norm(product, 3));
    printf(" %12.3f", dot(correction, g, 3) / norm(correction, 3) / norm(g, 3));
    if (isnan(step.terms.effective_strength))
        printf("  undefined\n");
    else
        printf(" %10.4f\n", step.terms.effective_strength);
}

void print_clips(void)
{
    printf("%-28s %9s %9s  correction      cosine       cosine   effective\n", "", "", "");
    printf("%-28s %9s %9s       share    with H g       with g   strength\n", "", "c1", "c2");
    print_clip("no clip", 0, 0, 0);
    print_clip("one common factor", 10, 10, 1);
    print_clip("each its own (default)", 10, 10, 0);
    print_clip("first gradient only", 10, 0, 0);
}

/* ------------------------------------------------------------------ choosing */

static const struct {
    const char *name;
    void (*print)(void);
} figures[] = {
    { "minima", print_minima },
    { "valley", print_valley },
    { "valley-ends", print_valley_ends },
    { "difference", print_difference },
    { "central", print_central },
    { "schedule", print_schedule },
    { "depths", print_depths },
    { "depth-modes", print_depth_modes },
    { "clips", print_clips },
    { "memory", print_memory },
};

int main(int count, char **arguments)
{
    enum { FIGURES = sizeof(figures) / sizeof(*figures) };
    int printed = 0;
    for (size_t i = 0; i < FIGURES; i++)
        if (count == 1 || strcmp(arguments[1], figures[i].name) == 0) {
            if (count == 1)
                printf("%s[%s]\n", i == 0 ? "" : "\n", figures[i].name);
            figures[i].print();
            printed++;
        }
    if (count > 2 || printed == 0) {
        fprintf(stderr, "usage: figures [name], name one of");
        for (size_t i = 0; i < FIGURES; i++)
            fprintf(stderr, " %s", figures[i].name);
        fprintf(stderr, "\n");
        return EXIT_FAILURE;
    }
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
