/* trainer.c - the buffers of a trainer, and what lies in them; see trainer.h. */
#include "trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "support.h"

/* ---------------------------------------------------------------------------- buffers */

bool trainer_needs(const trainer *t, enum trainer_buffer buffer)
{
    const gradreg_regularizer_params *p = &t->oracle->params;

    switch (buffer) {
    case TRAINER_FIRST: return p->first_gradient == GRADREG_FIRST_GRADIENT_CALLER_KEEPS;
    case TRAINER_PERTURBED: return p->placement == GRADREG_PLACEMENT_OUT_OF_PLACE;
    case TRAINER_MASTER: return p->restore == GRADREG_RESTORE_MASTER;
    case TRAINER_DIRECTION: return p->direction == GRADREG_DIRECTION_CALLER;
    default: return true;
    }
}

gradreg_type trainer_type(const trainer *t, enum trainer_buffer buffer, size_t segment)
{
    if (buffer == TRAINER_MASTER)
        return GRADREG_TYPE_F32;
    if (buffer == TRAINER_PARAMS || buffer == TRAINER_PERTURBED)
        return oracle_param_type(t->oracle, segment);
    return oracle_grad_type(t->oracle, segment);
}

static size_t table_end(const trainer *t)
{
    size_t end = 0;

    for (size_t s = 0; s < t->oracle->segment_count; s++) {
        const gradreg_segment *segment = &t->oracle->segments[s];
        if (segment->offset + segment->count > end)
            end = (size_t)(segment->offset + segment->count);
    }
    return end;
}

static void allocate(trainer *t, enum trainer_buffer buffer)
{
    const size_t n = t->oracle->segment_count;

    t->piece[buffer] = calloc(n, sizeof(void *));
    if (!t->setup.scattered) {
        const size_t bytes = type_bytes(trainer_type(t, buffer, 0));
        t->flat[buffer] = guarded_new(table_end(t) * bytes, t->setup.misalignment * bytes);
        for (size_t s = 0; s < n; s++)
            t->piece[buffer][s] = t->flat[buffer] + t->oracle->segments[s].offset * bytes;
        return;
    }
    for (size_t s = 0; s < n; s++) {
        const size_t bytes = type_bytes(trainer_type(t, buffer, s));
        t->piece[buffer][s] = guarded_new((size_t)t->oracle->segments[s].count * bytes,
                                          t->setup.misalignment * bytes);
    }
}

/* Between segments lies what is not the library's: other tensors, padding. */
static void check_gaps(const trainer *t, enum trainer_buffer buffer)
{
    const size_t end = table_end(t), bytes = type_bytes(trainer_type(t, buffer, 0));
    bool *covered = calloc(end + 1, sizeof(bool));

    for (size_t s = 0; s < t->oracle->segment_count; s++)
        for (size_t i = 0; i < t->oracle->segments[s].count; i++)
            covered[t->oracle->segments[s].offset + i] = true;
    for (size_t i = 0; i < end * bytes; i++)
        assert_that(covered[i / bytes] || (unsigned char)t->flat[buffer][i] == 0xa5,
                    "%s: element %zu of no segment was written", t->setup.name, i / bytes);
    free(covered);
}

static void release(trainer *t, enum trainer_buffer buffer)
{
    if (!t->setup.scattered)
        check_gaps(t, buffer);
    for (size_t s = 0; t->setup.scattered && s < t->oracle->segment_count; s++)
        guarded_free(t->piece[buffer][s]);
    guarded_free(t->flat[buffer]);
    free(t->piece[buffer]);
}

static void fill_pointers(trainer *t)
{
    gradreg_buffers *b = &t->buffers;

    b->grad_pointers = t->passed;
    b->param_pointers = t->piece[TRAINER_PARAMS];
    b->first_grad_pointers = t->piece[TRAINER_FIRST];
    b->perturbed_param_pointers = t->piece[TRAINER_PERTURBED];
    b->master_param_pointers = (const void *const *)t->piece[TRAINER_MASTER];
    b->direction_pointers = (const void *const *)t->piece[TRAINER_DIRECTION];
}

static void fill_bases(trainer *t)
{
    gradreg_buffers *b = &t->buffers;

    b->count = table_end(t);
    b->params = t->flat[TRAINER_PARAMS];
    b->grads = t->flat[TRAINER_GRADS];
    b->first_grads = t->flat[TRAINER_FIRST];
    b->perturbed_params = t->flat[TRAINER_PERTURBED];
    b->master_params = t->flat[TRAINER_MASTER];
    b->direction = t->flat[TRAINER_DIRECTION];
}

/* ---------------------------------------------------------------------------- life */

static void open_library(trainer *t, const gradreg_segment *segments, size_t count,
                         const gradreg_regularizer_params *params)
{
    gradreg_context_params c = GRADREG_CONTEXT_PARAMS_INIT;

    c.threads = t->setup.threads != 0 ? t->setup.threads : 1;
    assert_ok(test_context_create(&t->context, &c));
    assert_ok(gradreg_regularizer_create(&t->regularizer, t->context, segments, count, params));
}

trainer *trainer_open(const gradreg_segment *segments, size_t segment_count,
                      const gradreg_regularizer_params *params, const trainer_setup *setup)
{
    const gradreg_buffers none = GRADREG_BUFFERS_INIT;
    trainer *t = calloc(1, sizeof(*t));
    double **const values[] = { &t->theta, &t->first, &t->plus,     &t->second, &t->direction,
                                &t->begin, &t->there, &t->mirrored, &t->stored };

    t->setup = *setup;
    t->oracle = oracle_new(segments, segment_count, params);
    for (size_t k = 0; k < sizeof(values) / sizeof(*values); k++)
        *values[k] = oracle_reals(t->oracle);
    for (enum trainer_buffer b = 0; b < TRAINER_BUFFERS; b++)
        if (trainer_needs(t, b))
            allocate(t, b);
    t->passed = calloc(segment_count, sizeof(void *));
    t->buffers = none;
    if (setup->scattered)
        fill_pointers(t);
    else
        fill_bases(t);
    if (setup->grad_scale != 0.0f) {
        t->scale = setup->grad_scale;
        t->buffers.grad_scale = &t->scale;
    }
    open_library(t, segments, segment_count, params);
    return t;
}

void trainer_close(trainer *t)
{
    double *const values[] = { t->theta, t->first, t->plus,     t->second, t->direction,
                               t->begin, t->there, t->mirrored, t->stored };

    assert_ok(gradreg_regularizer_destroy(t->regularizer));
    assert_ok(gradreg_context_destroy(t->context));
    for (enum trainer_buffer b = 0; b < TRAINER_BUFFERS; b++)
        if (t->piece[b] != NULL)
            release(t, b);
    for (size_t k = 0; k < sizeof(values) / sizeof(*values); k++)
        free(values[k]);
    free(t->passed);
    oracle_step_free(t->step);
    oracle_free(t->oracle);
    free(t);
}

/* ---------------------------------------------------------------------------- values */

void trainer_write(trainer *t, enum trainer_buffer buffer, const double *values)
{
    const oracle *o = t->oracle;

    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = 0; i < o->segments[s].count; i++)
            typed_set(t->piece[buffer][s], trainer_type(t, buffer, s), i,
                      values[o->start[s] + i]);
}

void trainer_read(const trainer *t, enum trainer_buffer buffer, double *out)
{
    const oracle *o = t->oracle;

    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = 0; i < o->segments[s].count; i++)
            out[o->start[s] + i] =
                typed_get(t->piece[buffer][s], trainer_type(t, buffer, s), i);
}

static uint32_t pattern_at(gradreg_type type, size_t count, size_t i, uint64_t *state)
{
    return count == LARGE_PATTERNS && type != GRADREG_TYPE_F32 ? (uint32_t)i
                                                               : next_pattern(state, type);
}

void trainer_fill_patterns(const trainer *t, enum trainer_buffer buffer, uint64_t seed)
{
    uint64_t state = seed;

    for (size_t s = 0; s < t->oracle->segment_count; s++) {
        const gradreg_type type = trainer_type(t, buffer, s);
        const size_t count = (size_t)t->oracle->segments[s].count;
        for (size_t i = 0; i < count; i++)
            typed_set_bits(t->piece[buffer][s], type, i, pattern_at(type, count, i, &state));
    }
}

void trainer_limit(const trainer *t, enum trainer_buffer buffer, double largest)
{
    uint64_t state = 99;

    for (size_t s = 0; s < t->oracle->segment_count; s++) {
        const gradreg_type type = trainer_type(t, buffer, s);
        for (size_t i = 0; i < t->oracle->segments[s].count; i++)
            if (!(fabs(typed_get(t->piece[buffer][s], type, i)) <= largest))
                typed_set(t->piece[buffer][s], type, i,
                          type_round(next_signed(&state, 1.0), type));
    }
}

void trainer_fill_numbers(const trainer *t, enum trainer_buffer buffer, uint64_t seed,
                          double scale)
{
    for (size_t s = 0; s < t->oracle->segment_count; s++) {
        const gradreg_type type = trainer_type(t, buffer, s);
        for (size_t i = 0; i < t->oracle->segments[s].count; i++) {
            uint64_t state = seed << 32 | (t->oracle->segments[s].offset + i);
            typed_set(t->piece[buffer][s], type, i,
                      type_round(next_signed(&state, scale), type));
        }
    }
}

static size_t bytes_of(const trainer *t, enum trainer_buffer buffer, size_t s)
{
    return (size_t)t->oracle->segments[s].count * type_bytes(trainer_type(t, buffer, s));
}

static size_t all_bytes(const trainer *t, enum trainer_buffer buffer)
{
    size_t sum = 0;

    if (!t->setup.scattered)
        return table_end(t) * type_bytes(trainer_type(t, buffer, 0));
    for (size_t s = 0; s < t->oracle->segment_count; s++)
        sum += bytes_of(t, buffer, s);
    return sum;
}

char *trainer_copy(const trainer *t, enum trainer_buffer buffer)
{
    char *copy = malloc(all_bytes(t, buffer) + 1), *end = copy;

    if (!t->setup.scattered) {
        memcpy(copy, t->flat[buffer], all_bytes(t, buffer));
        return copy;
    }
    for (size_t s = 0; s < t->oracle->segment_count; s++) {
        memcpy(end, t->piece[buffer][s], bytes_of(t, buffer, s));
        end += bytes_of(t, buffer, s);
    }
    return copy;
}

void trainer_assert_same(const trainer *t, enum trainer_buffer buffer, const char *copy,
                         const char *what)
{
    char *now = trainer_copy(t, buffer);
    const size_t bytes = all_bytes(t, buffer);
    size_t first = 0;

    while (first < bytes && now[first] == copy[first])
        first++;
    free(now);
    assert_that(first == bytes, "%s: %s: byte %zu of %zu changed", t->setup.name, what, first,
                bytes);
}

enum trainer_buffer trainer_moved(const trainer *t)
{
    return trainer_needs(t, TRAINER_PERTURBED) ? TRAINER_PERTURBED : TRAINER_PARAMS;
}

enum trainer_buffer trainer_first_at(const trainer *t)
{
    return trainer_needs(t, TRAINER_FIRST) ? TRAINER_FIRST : TRAINER_GRADS;
}
