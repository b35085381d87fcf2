/* small_trainer.h - a trainer with a model of 24 weights, for tests that make every call themselves.
 *
 * In: a table, parameters. Out: a context, a regularizer, flat buffers with numbers in them. */
#ifndef GRADREG_TEST_SMALL_TRAINER_H
#define GRADREG_TEST_SMALL_TRAINER_H

#include "gradreg.h"
#include "support.h"

enum { ELEMENTS = 24, LAYERS = 3, SEGMENTS = 4, PART = 6 };

/* Attention, feed-forward, norm in layers 0 to 2; a head outside the blocks. */
extern const gradreg_segment small_table[SEGMENTS];

struct trainer {
    gradreg_context *context;
    gradreg_regularizer *reg;
    gradreg_buffers buffers;
    gradreg_segment segments[SEGMENTS];
    float theta[ELEMENTS], grads[ELEMENTS], first[ELEMENTS], elsewhere[ELEMENTS];
    float direction[ELEMENTS];
};

/* Every layer at full strength, no clips. */
gradreg_regularizer_params plain(void);

struct trainer *open_trainer(const gradreg_segment *segments,
                             const gradreg_regularizer_params *params);
void close_trainer(struct trainer *t);

/* Sixteenths between -1/2 and 1/2; another salt, other numbers. */
float number(size_t i, int salt);
void fill(float *out, int salt);

gradreg_terms terms_of(const struct trainer *t);
/* g1, a step, g2, g_hat. */
void step_with(struct trainer *t, const float *first, const float *second);
void assert_bits(const float *got, const float *want, const char *what);

#endif
