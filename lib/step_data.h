/* step_data.h - what a step knows: sums, settings, decisions, coefficients.
 *
 * In: nothing. Out: the structs that step.h fills, the element kernels follow and terms.h reports
 * on. They lie in the memory of the backend; everything is a plain number, for C and CUDA alike. */
#ifndef GRADREG_LIB_STEP_DATA_H
#define GRADREG_LIB_STEP_DATA_H

#include "element.h"
#include "gradreg.h"
#include "table.h"

/* Sums of a move, in the order of GR_SUM_APPLIED and its likes. */
enum { GR_MOVE_APPLIED, GR_MOVE_ALONG, GR_MOVE_SLOPE, GR_MOVE_SUMS };

/* What combine reads besides g1. */
enum gr_read { GR_READ_FIRST, GR_READ_FORWARD, GR_READ_CENTRAL, GR_READ_KEPT, GR_READS };

/* What combine makes of it. */
enum gr_write {
    GR_WRITE_FIRST,     /* c1 g1 */
    GR_WRITE_CORRECTED, /* a + k D */
    GR_WRITE_PRODUCT,   /* k D0 */
    GR_WRITE_ZERO,
    GR_WRITE_RAW /* g1 as it is */
};

/* Sums of a combine, in the order of the rows behind GR_SUM_COMBINE. */
enum {
    GR_COMBINE_D0,     /* D0 D0, the difference without clips */
    GR_COMBINE_ALONG,  /* u D0 */
    GR_COMBINE_D,      /* D D */
    GR_COMBINE_OUT,    /* g_hat g_hat */
    GR_COMBINE_STORED, /* (stored g_hat - a) D */
    GR_COMBINE_CROSS,  /* g1 g2, or g+ g- */
    GR_COMBINE_SUMS
};

/* Rows of sums; one double per bin and row. Ranges that travel together stand together. */
enum gr_sum {
    GR_SUM_NOISE_WEIGHTS, /* theta theta on noise segments */
    GR_SUM_NOISE_MASTER,  /* elements with params != round(master), found by inject_noise */
    GR_SUM_INJECT_END,
    GR_SUM_MASTER = GR_SUM_INJECT_END, /* the same, found by perturb */
    GR_SUM_FIRST,                      /* g1 g1 as stored, loss scale included */
    GR_SUM_FIRST_BAD,                  /* elements that are not finite */
    GR_SUM_DIRECTION,                  /* v v on perturbed segments */
    GR_SUM_DIRECTION_BAD,
    GR_SUM_WEIGHTS, /* theta theta on perturbed segments */
    GR_SUM_HELD,    /* elements that ranks hold, replicas left out */
    GR_SUM_FIRST_END,
    GR_SUM_PLUS = GR_SUM_FIRST_END, /* g+ g+ */
    GR_SUM_PLUS_BAD,
    GR_SUM_SECOND, /* g2 g2, or g- g- */
    GR_SUM_SECOND_BAD,
    GR_SUM_APPLIED, /* the step as applied: squares, along u, along g1, changed, saturated */
    GR_SUM_ALONG,
    GR_SUM_SLOPE,
    GR_SUM_CHANGED,
    GR_SUM_MOVE_SATURATED,
    GR_SUM_MIRROR_APPLIED, /* the same five for theta - delta */
    GR_SUM_MIRROR_ALONG,
    GR_SUM_MIRROR_SLOPE,
    GR_SUM_MIRROR_CHANGED,
    GR_SUM_MIRROR_SATURATED,
    GR_SUM_SECOND_END,
    GR_SUM_COMBINE = GR_SUM_SECOND_END, /* GR_COMBINE_SUMS rows, then saturated */
    GR_SUM_COMBINE_SATURATED = GR_SUM_COMBINE + GR_COMBINE_SUMS,
    GR_SUM_NOISE_APPLIED, /* the five for the noise */
    GR_SUM_NOISE_ALONG,
    GR_SUM_NOISE_SLOPE,
    GR_SUM_NOISE_CHANGED,
    GR_SUM_NOISE_SATURATED,
    GR_SUM_ABSENT, /* segments without a gradient, over the passes */
    GR_SUM_COMBINE_END,
    GR_SUM_ROWS = GR_SUM_COMBINE_END
};

typedef struct gr_coefficients {
    float move;          /* delta = move * u as stored; -move mirrors */
    float noise;         /* noise = noise * u_noise */
    float scale_applied; /* powers of two, see gr_range_scale */
    float scale_u;
    float scale_slope;
    float noise_scale_applied;
    float noise_scale_u;
    float first; /* a = first g1 */
    float second;
    float plus;
    float correction;
    float keep;  /* kept = keep D */
    float scale; /* of gradients in combine's sums */
    float scale_direction;
    int32_t write;
    int32_t reserved;
    double move_squared;  /* ||delta||^2 on this bin */
    double noise_squared; /* ||noise||^2 */
} gr_coefficients;

typedef struct gr_control {
    /* settings, changed between steps */
    double strength, epsilon;
    uint64_t step;
    /* across steps */
    uint64_t dropped_steps;
    int32_t has_noise_direction;
    int32_t has_kept;
    int32_t master_bad; /* the last check found params != round(master) */
    /* this step: decided before the first write */
    double grad_scale;
    double lambda; /* strength * t(step) */
    double epsilon_used;
    double first_norm, first_factor;
    double w_norm, w_plain_norm; /* with and without clip */
    double nu;
    double delta_norm, epsilon_effective;
    int32_t first_usable, master_usable, moves;
    int32_t flags;
    double non_finite_first;
    /* this step: decided before combine writes */
    double plus_factor, second_factor, common_factor;
    double non_finite_second;
    double applied_cosine;
    double slope; /* <g1, theta' - theta> */
    int32_t second_usable, dropped, had_second, mirrored, noise_in, noise_update, reuses;
    int32_t corrects;    /* g_hat = a + k D or a + k h, not a alone */
    uint64_t noise_step; /* of the noise that is in: its random numbers and the step's */
} gr_control;

/* A view of all that, by value. */
typedef struct gr_step {
    gradreg_regularizer_params options;
    gr_control *control;
    const gr_bin *bins;
    const int32_t *layer_first; /* [1 + layer]: its first bin, -1 where it has none */
    gr_coefficients *coefficients;
    double *sums;              /* [GR_SUM_ROWS][bin_count] */
    const double *multipliers; /* m, [0] = outside, [1 + layer] */
    const double *adaptive;    /* a, likewise */
    double *layer_u;           /* scratch, likewise */
    double *layer_weights;
    double *noise_squared; /* per noise segment: ||u_noise||^2 */
    double *noise_length;  /* per noise segment: delta / u of the step it came from */
    double *terms;         /* [1 + layer_count][GRADREG_TERMS_COLUMNS] */
    int32_t bin_count;
} gr_step;

GR_FN const double *gr_sum_row(const gr_step *s, int row)
{
    return s->sums + (size_t)row * (size_t)s->bin_count;
}

/* Bins of one layer, or all: in the table's order, -1 after the last. */
GR_FN int gr_first_bin(const gr_step *s, int layer, int all)
{
    return all ? 0 : s->layer_first[layer + 1];
}

GR_FN int gr_next_bin(const gr_step *s, int bin, int all)
{
    return s->bins[bin].next[all != 0];
}

GR_FN double gr_sum_total(const gr_step *s, int row)
{
    const double *x = gr_sum_row(s, row);
    double total = 0.0;
    for (int b = 0; b < s->bin_count; b++)
        total += x[b];
    return total;
}

/* The step that this step's random numbers belong to: what inject took stays in force. */
GR_FN uint64_t gr_draw_step(const gr_control *c)
{
    return c->noise_in ? c->noise_step : c->step;
}

GR_FN double gr_nan(void)
{
    return (double)NAN;
}

GR_FN int gr_is_finite(double x)
{
    return x - x == 0.0;
}

#endif
