/* small_trainer.c - see small_trainer.h. */
#include "small_trainer.h"

#include <stdlib.h>
#include <string.h>

const gradreg_segment small_table[SEGMENTS] = {
    { 0, PART, 0, 0, 0, GRADREG_ROLE_ATTENTION, 0, 0, 0, { 0 } },
    { 6, PART, 0, 0, 1, GRADREG_ROLE_MLP, 0, 0, 0, { 0 } },
    { 12, PART, 0, 0, 2, GRADREG_ROLE_NORM, 0, 0, 0, { 0 } },
    { 18, PART, 0, 0, GRADREG_LAYER_NONE, GRADREG_ROLE_HEAD, 0, 0, 0, { 0 } },
};

gradreg_regularizer_params plain(void)
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.layer_count = LAYERS;
    p.schedule.first_layer = p.schedule.full_layer = 0;
    p.clip_first = p.clip_second = 0.0;
    p.strength = 0.5;
    return p;
}

float number(size_t i, int salt)
{
    return (float)((int)((5 * i + 3 * (size_t)salt) % 17) - 8) / 16.0f;
}

void fill(float *out, int salt)
{
    for (size_t i = 0; i < ELEMENTS; i++)
        out[i] = number(i, salt);
}

struct trainer *open_trainer(const gradreg_segment *segments,
                             const gradreg_regularizer_params *params)
{
    const gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    struct trainer *t = calloc(1, sizeof(*t));

    ck_assert_ptr_nonnull(t);
    memcpy(t->segments, segments, sizeof(t->segments));
    assert_ok(test_context_create(&t->context, NULL));
    assert_ok(gradreg_regularizer_create(&t->reg, t->context, t->segments, SEGMENTS, params));
    t->buffers = buffers;
    t->buffers.params = t->theta;
    t->buffers.grads = t->grads;
    t->buffers.count = ELEMENTS;
    fill(t->theta, 1);
    fill(t->direction, 2);
    return t;
}

void close_trainer(struct trainer *t)
{
    assert_ok(gradreg_regularizer_destroy(t->reg));
    assert_ok(gradreg_context_destroy(t->context));
    free(t);
}

gradreg_terms terms_of(const struct trainer *t)
{
    gradreg_terms terms = GRADREG_TERMS_INIT;
    assert_ok(gradreg_regularizer_terms(t->reg, &terms, NULL, 0));
    return terms;
}

void step_with(struct trainer *t, const float *first, const float *second)
{
    memcpy(t->grads, first, sizeof(t->grads));
    assert_ok(gradreg_regularizer_perturb(t->reg, &t->buffers));
    memcpy(t->grads, second, sizeof(t->grads));
    assert_ok(gradreg_regularizer_combine(t->reg, &t->buffers));
}

void assert_bits(const float *got, const float *want, const char *what)
{
    for (size_t i = 0; i < ELEMENTS; i++)
        ck_assert_msg(float_bits(got[i]) == float_bits(want[i]),
                      "%s: element %zu is %a, not %a", what, i, (double)got[i],
                      (double)want[i]);
}
