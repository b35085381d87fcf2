/* figures.h - the numbers of docs/concepts.md and of its pictures, computed with the library.
 *
 * One function per figure; each prints plain text. Toys: functions of a few weights whose gradient
 * is known, one segment per weight. */
#ifndef GRADREG_DOCS_FIGURES_H
#define GRADREG_DOCS_FIGURES_H

#include <gradreg.h>
#include <stddef.h>
#include <stdint.h>

/* toy.c */
enum { TOY_MOST = 4 }; /* weights */

typedef void (*toy_gradient)(double *out, const double *weights);

typedef struct toy_step {
    float first[TOY_MOST];     /* g1 */
    float second[TOY_MOST];    /* g2; CENTRAL: at theta - delta */
    float moved[TOY_MOST];     /* theta' */
    float corrected[TOY_MOST]; /* g_hat */
    gradreg_terms terms;
} toy_step;

void must(gradreg_status status);
/* Every layer at full strength, no clips. */
gradreg_regularizer_params toy_params(int32_t layer_count);
gradreg_regularizer *toy_open(gradreg_context *context, size_t count,
                              const gradreg_regularizer_params *params);
/* One whole step on a regularizer of its own; weight i lies in layer i % layer_count. */
toy_step toy_run(const gradreg_regularizer_params *params, size_t count, toy_gradient gradient,
                 const double *weights);

/* figures.c */
void print_schedule(void);
void print_depths(void);
void print_difference(void);
void print_central(void);
void print_depth_modes(void);
void print_clips(void);

/* landscape.c */
void print_minima(void);
void print_valley(void);
void print_valley_ends(void);

/* memory.c */
void print_memory(void);

#endif
