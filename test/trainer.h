/* trainer.h - a trainer's side of a step, with the oracle at its elbow.
 *
 * In: a table, parameters, and a function that makes gradients. A step writes theta and gradients
 * into guarded buffers of the segments' types, calls the library in the order of its header, and
 * ends the test where theta', g_hat, the terms, or a byte that should not have changed differ from
 * what the oracle says. Values go in and out as doubles in the table's order (oracle.h). */
#ifndef GRADREG_TEST_TRAINER_H
#define GRADREG_TEST_TRAINER_H

#include "gradreg.h"
#include "oracle.h"

/* As ck_assert_msg(), which tells another process of every call: too slow for elements. */
#define assert_that(holds, ...)        \
    do {                               \
        if (!(holds))                  \
            ck_abort_msg(__VA_ARGS__); \
    } while (0)

enum trainer_buffer {
    TRAINER_PARAMS,
    TRAINER_GRADS,
    TRAINER_FIRST,     /* CALLER_KEEPS */
    TRAINER_PERTURBED, /* OUT_OF_PLACE */
    TRAINER_MASTER,
    TRAINER_DIRECTION,
    TRAINER_BUFFERS
};

typedef struct trainer_setup {
    const char *name;    /* for messages */
    bool scattered;      /* a pointer per segment, as mixed types need */
    size_t misalignment; /* in elements */
    int32_t threads;     /* 0 = 1 */
    float grad_scale;    /* 0 = none */
    bool poison;         /* NaN in second gradients that a truncated pass does not make */
    bool skip_terms;
} trainer_setup;

typedef struct trainer {
    trainer_setup setup;
    gradreg_context *context;
    gradreg_regularizer *regularizer;
    gradreg_buffers buffers;
    oracle *oracle;
    oracle_step *step; /* the latest */
    bool with_noise;
    const bool *absent_first, *absent_plus, *absent_second;
    const double *drawn; /* RADEMACHER, GAUSSIAN: the direction, found out beforehand */
    char *flat[TRAINER_BUFFERS];
    void **piece[TRAINER_BUFFERS]; /* element 0 of each segment */
    void **passed;                 /* grad_pointers as passed */
    double *theta, *first, *plus, *second, *direction, *begin, *there, *mirrored, *stored;
    float scale;
} trainer;

/* Gradients at theta. */
typedef void trainer_gradient(void *user, double *out, const double *theta);

enum trainer_ending { TRAINER_COMBINE, TRAINER_FALLBACK };

trainer *trainer_open(const gradreg_segment *segments, size_t segment_count,
                      const gradreg_regularizer_params *params, const trainer_setup *setup);
void trainer_close(trainer *t);

/* Whether the parameters call for this buffer. */
bool trainer_needs(const trainer *t, enum trainer_buffer buffer);
gradreg_type trainer_type(const trainer *t, enum trainer_buffer buffer, size_t segment);
void trainer_write(trainer *t, enum trainer_buffer buffer, const double *values);
void trainer_read(const trainer *t, enum trainer_buffer buffer, double *out);
/* Numbers that depend on the place in the flat buffer only; nothing between the segments. */
void trainer_fill_numbers(const trainer *t, enum trainer_buffer buffer, uint64_t seed,
                          double scale);
/* Bit patterns: all of a 16-bit type where there are LARGE_PATTERNS elements, otherwise edges. */
void trainer_fill_patterns(const trainer *t, enum trainer_buffer buffer, uint64_t seed);
/* Replaces what is larger, or not a number. */
void trainer_limit(const trainer *t, enum trainer_buffer buffer, double largest);
/* A copy of every byte, padding included; free(). */
char *trainer_copy(const trainer *t, enum trainer_buffer buffer);
void trainer_assert_same(const trainer *t, enum trainer_buffer buffer, const char *copy,
                         const char *what);
/* Which buffer holds theta' and which g1. */
enum trainer_buffer trainer_moved(const trainer *t);
enum trainer_buffer trainer_first_at(const trainer *t);

/* One whole step, everything compared. */
void trainer_run(trainer *t, trainer_gradient *gradient, void *user,
                 enum trainer_ending ending);
void trainer_check_terms(const trainer *t);

#endif
