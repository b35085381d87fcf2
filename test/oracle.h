/* oracle.h - the method once more, in double precision and without the library.
 *
 * In: the table, the parameters, and what a trainer has in each step: theta, its gradients, perhaps
 * a direction. Out: delta, theta', g_hat and the terms, each with a slack: how far a library may be
 * off that computes in fp32, one rounding per operation. Nothing is in fp32 here but the slack.
 *
 * All arrays are of doubles, one element per element of the table, segments one after the other in
 * the table's order: element i of segment s is [start[s] + i]. Scopes are a layer, or everything. */
#ifndef GRADREG_TEST_ORACLE_H
#define GRADREG_TEST_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gradreg.h"

/* Half an ulp of fp32 at 1: what one rounding can cost. */
#define ORACLE_ROUNDING 0x1p-24

enum { ORACLE_EVERYTHING = -3 }; /* the scope of the total */

enum oracle_term {
    ORACLE_STRENGTH,
    ORACLE_EFFECTIVE_STRENGTH,
    ORACLE_EFFECTIVE_EPSILON,
    ORACLE_PENALTY,
    ORACLE_FIRST_NORM,
    ORACLE_SECOND_NORM,
    ORACLE_CLIP_FIRST,
    ORACLE_CLIP_SECOND,
    ORACLE_DIRECTION_NORM,
    ORACLE_HVP_NORM,
    ORACLE_CURVATURE,
    ORACLE_ALIGNMENT,
    ORACLE_CORRECTION_SHARE,
    ORACLE_UPDATE_NORM,
    ORACLE_PERTURBATION_NORM,
    ORACLE_APPLIED_NORM,
    ORACLE_APPLIED_COSINE,
    ORACLE_CHANGED_FRACTION,
    ORACLE_DIFFERENCE_NOISE,
    ORACLE_STORED_SHARE,
    ORACLE_NOISE_NORM,
    ORACLE_NOISE_APPLIED_COSINE,
    ORACLE_FIRST_ORDER_RATIO,
    ORACLE_TERM_COUNT
};
extern const char *const oracle_term_names[ORACLE_TERM_COUNT];

/* slack: INFINITY where the specification leaves the value open. */
typedef struct oracle_terms {
    double value[ORACLE_TERM_COUNT], slack[ORACLE_TERM_COUNT];
    uint64_t non_finite_first, non_finite_second, absent, step;
    uint32_t flags;
} oracle_terms;

/* What combine may end with. */
enum oracle_outcome {
    ORACLE_CORRECTED,
    ORACLE_FIRST_ONLY, /* c1 g1: dropped, fallback, KEEP_FIRST */
    ORACLE_ZEROS,
    ORACLE_UNTOUCHED /* PROPAGATE: g1 as it came */
};

typedef struct oracle {
    gradreg_regularizer_params params; /* zeros replaced by the defaults */
    gradreg_segment *segments;
    size_t segment_count;
    size_t *start;                           /* segment_count + 1 */
    double *multiplier, *adaptive, *average; /* m, a and its moving averages per layer */
    bool *counted, *perturbed, *regularized; /* per segment; counted: in sums */
    bool *measured, *seen, *noised; /* perturbed and counted; g2 is read; takes noise */
    double sum_error;  /* of a sum by the library, relative to the sum of magnitudes */
    double norm_error; /* of a norm, relative */
    /* What lasts from step to step. */
    uint64_t step, calls;
    bool observed, has_correction, has_noise;
    double *correction, *correction_slack; /* h = D / ||delta|| */
    double *noise_direction, *noise_step;  /* g~ and delta of the last usable step */
} oracle;

typedef struct oracle_step {
    /* In. Gradients as the buffers hold them: times grad_scale (0 = 1), anything where absent. */
    const double *theta, *first, *plus, *second, *direction;
    const bool *absent_first, *absent_plus, *absent_second; /* per segment, NULL = none */
    double grad_scale;
    bool with_noise; /* inject was called */
    const double *applied_begin, *applied_plus,
        *applied_minus; /* what was really there in between,
                                                      for the statistics; NULL = the oracle's own */
    /* Out, all owned by the step. Norms and g1, g2 of unscaled gradients. */
    double *noise, *begin;                  /* theta_n = round(theta + noise) */
    double *g1, *g_plus, *g2, *u, *w, *raw; /* raw: w without the clip */
    double *delta, *delta_slack, *theta_plus, *theta_minus;
    double *a, *difference, *raw_difference, *correction; /* D, D0, k D */
    double *update, *update_slack; /* before storage; grad_scale included */
    double first_norm, plus_norm, second_norm, u_norm, w_norm, raw_norm, delta_norm, nu;
    double clip_first, clip_plus, clip_second, clip_common;
    double factor;   /* of a = factor g1 */
    double strength; /* lambda t(step) */
    double effective_epsilon;
    bool reuses, falls_back, first_bad, second_bad, aimless, moved,
        clipped; /* aimless: ||w|| nu = 0 */
    enum oracle_outcome outcome;
    uint32_t flags;
    double *storage;
} oracle_step;

/* The status that gradreg_regularizer_create() owes for these parameters (not for the table's own
 * mistakes): GRADREG_OK, _ERROR_UNSUPPORTED or _ERROR_INVALID_ARGUMENT. */
gradreg_status oracle_refusal(const gradreg_segment *segments, size_t segment_count,
                              const gradreg_regularizer_params *params);

oracle *oracle_new(const gradreg_segment *segments, size_t segment_count,
                   const gradreg_regularizer_params *params);
void oracle_free(oracle *o);
size_t oracle_size(const oracle *o);
double *oracle_reals(const oracle *o); /* zeros, one per element; free() */

oracle_step *oracle_step_new(const oracle *o);
void oracle_step_free(oracle_step *step);

void oracle_observe_layers(oracle *o, const double *signals);
int32_t oracle_extra_passes(const oracle *o);
int32_t oracle_first_needed_layer(const oracle *o);

/* Fills noise and begin, with or without noise. */
void oracle_inject(const oracle *o, oracle_step *step);
/* After oracle_inject: u, delta, theta_plus and theta_minus from theta and first. */
void oracle_perturb(const oracle *o, oracle_step *step);
/* g_hat, and what the next step finds. On steps that reuse the correction oracle_perturb is left
 * out, oracle_inject is not. */
void oracle_combine(oracle *o, oracle_step *step);
void oracle_fallback(oracle *o, oracle_step *step);

/* Of the step just ended; scope: a layer or ORACLE_EVERYTHING. stored: the g_hat in the caller's
 * buffer afterwards, NULL = the oracle's own rounding of update. */
void oracle_report(const oracle *o, const oracle_step *step, const double *stored,
                   int32_t scope, oracle_terms *out);

/* Between delta and what of it reached the weights; CENTRAL: the smaller of the two. */
double oracle_applied_cosine(const oracle *o, const oracle_step *step);

/* What both halves of a step need. */
double oracle_clip_factor(double limit, double norm);
void oracle_read(const oracle *o, const oracle_step *step, double *out, const double *buffer,
                 const bool *absent); /* unscaled, with zeros where nothing is read */
bool oracle_needs_first(const oracle *o);
void oracle_read_first(const oracle *o, oracle_step *step); /* g1, c1, u, w */

/* The pieces, for suites that need one alone. */
double oracle_round(gradreg_type type, double x); /* nearest even; f16 saturates */
double oracle_store(gradreg_type type, double x); /* as stored from fp32: rounded twice */
double oracle_half_ulp(gradreg_type type);        /* at 1 */
double oracle_multiplier(const gradreg_schedule *schedule, int32_t layer_count, int32_t layer);
double oracle_strength_factor(const gradreg_regularizer_params *params, uint64_t step); /* t */
gradreg_type oracle_param_type(const oracle *o, size_t segment);
gradreg_type oracle_grad_type(const oracle *o, size_t segment);
gradreg_type oracle_compute_type(const oracle *o, size_t segment);
double oracle_weight(const oracle *o, size_t segment); /* m a */
bool oracle_in_scope(const oracle *o, size_t segment, int32_t scope);
/* sum of x y over the segments of the mask (NULL = all) within the scope */
double oracle_dot(const oracle *o, const double *x, const double *y, const bool *mask,
                  int32_t scope);
/* the same of magnitudes: what roundings are relative to */
double oracle_dot_magnitude(const oracle *o, const double *x, const double *y, const bool *mask,
                            int32_t scope);
double oracle_norm(const oracle *o, const double *x, const bool *mask, int32_t scope);

#endif
