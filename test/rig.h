/* rig.h - one regularizer with every buffer that its calls can want, for suites that make the calls
 * themselves.
 *
 * In: a table, parameters, and how memory is laid out: one flat buffer or a pointer per segment, a
 * slice of it, misaligned. Out: numbers that depend on the place in the table only, the same bits
 * read back in the table's order whatever the layout, and an end of the test where a byte changed
 * that is nobody's. Gradients are g(theta') = r + h theta' per element, so that a wrong theta'
 * shows in everything that follows. */
#ifndef GRADREG_TEST_RIG_H
#define GRADREG_TEST_RIG_H

#include "gradreg.h"
#include "support.h"

enum rig_buffer {
    RIG_PARAMS,
    RIG_GRADS,
    RIG_FIRST,     /* CALLER_KEEPS */
    RIG_PERTURBED, /* OUT_OF_PLACE */
    RIG_MASTER,    /* RESTORE_MASTER */
    RIG_DIRECTION, /* DIRECTION_CALLER */
    RIG_BUFFERS
};

typedef struct rig_setup {
    bool on_cpu;         /* whatever backend the suite runs on */
    const char *path;    /* NULL: what the context chooses */
    int32_t threads;     /* 0 = 1 */
    size_t misalignment; /* in elements */
    bool scattered;      /* a pointer per segment */
    bool sliced;         /* the slice below of the flat buffer is here, not all of it */
    uint64_t begin;
    size_t count;
    log_collector *log;
} rig_setup;

typedef struct rig {
    rig_setup setup;
    gradreg_regularizer_params params;
    const gradreg_segment *segments;
    size_t segment_count;
    gradreg_context *context;
    gradreg_regularizer *reg;
    gradreg_buffers buffers;
    char *flat[RIG_BUFFERS];   /* guarded; NULL where not in use */
    void **piece[RIG_BUFFERS]; /* each segment's part, or NULL where nothing is here */
} rig;

/* GRADREG_TEST_SMALL is set: a slow build, fewer combinations will do. */
bool rig_is_small(void);

/* Opens context and regularizer; the setup is copied, segments must live on. */
rig *rig_open(const gradreg_segment *segments, size_t segment_count,
              const gradreg_regularizer_params *params, const rig_setup *setup);
/* Checks every guard and gap. The state may be any. */
void rig_close(rig *r);
/* Another handle on the same table and buffers, instead of the present one. */
void rig_renew(rig *r);

/* The part of a segment that is here: [*begin, *begin + count). */
size_t rig_part(const rig *r, size_t segment, uint64_t *begin);
gradreg_type rig_type(const rig *r, enum rig_buffer buffer, size_t segment);
/* Where theta' goes, and where g1 is made. */
enum rig_buffer rig_moved(const rig *r);
enum rig_buffer rig_first(const rig *r);

/* Normal numbers with magnitudes in 2^[exponent - 5, exponent + 1); exponent >= -8 for f16. */
void rig_numbers(rig *r, enum rig_buffer buffer, uint64_t seed, int exponent);
/* Any pattern of the type; edges are frequent. `quiet`: no signalling NaN. */
void rig_patterns(rig *r, enum rig_buffer buffer, uint64_t seed, bool quiet);
/* master such that params = round(master), with what the rounding takes away not zero. */
void rig_make_master(rig *r, uint64_t seed);
/* g = r(seed) + h theta' in grads, or for the first pass where g1 is made. Gradients of passes
 * share h. */
void rig_gradient(rig *r, uint64_t seed, bool is_first);

/* Every segment's elements that are here, in the table's order, close together; free(). */
size_t rig_bytes(const rig *r, enum rig_buffer buffer);
char *rig_gather(const rig *r, enum rig_buffer buffer);
void rig_assert(const rig *r, enum rig_buffer buffer, const char *gathered, const char *what);
uint64_t rig_digest(const rig *r, enum rig_buffer buffer);
/* Guards, and the elements of flat buffers that no segment has. */
void rig_check_gaps(const rig *r);

/* The report as rows of GRADREG_TERMS_COLUMNS doubles, the total first; free(). */
size_t rig_rows_bytes(const rig *r);
double *rig_rows(rig *r);
/* The total. */
gradreg_terms rig_terms(rig *r);
int32_t rig_passes(rig *r);

#endif
