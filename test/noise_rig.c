/* noise_rig.c - steps of a regularizer with directional noise, see noise_rig.h. */
#include "noise_rig.h"

#include <math.h>
#include <stdlib.h>

gradreg_segment table[SEGMENTS];

/* Attention, feed-forward and norm in each layer; one attention tensor is frozen, one embedding. */
void make_table(void)
{
    static const uint32_t roles[] = { GRADREG_ROLE_ATTENTION, GRADREG_ROLE_MLP,
                                      GRADREG_ROLE_NORM };
    static const uint64_t counts[] = { 301, 211, 19 };
    const gradreg_segment empty = GRADREG_SEGMENT_INIT;
    uint64_t at = 0;

    for (int s = 0; s < SEGMENTS; s++) {
        table[s] = empty;
        table[s].offset = at;
        table[s].count = counts[s % PER_LAYER];
        table[s].layer = s / PER_LAYER;
        table[s].role = roles[s % PER_LAYER];
        at += table[s].count + 1;
    }
    table[SEGMENTS - 2].layer = 0;
    table[SEGMENTS - 2].role = GRADREG_ROLE_ATTENTION;
    table[SEGMENTS - 2].flags = GRADREG_SEGMENT_FROZEN;
    table[SEGMENTS - 1].layer = GRADREG_LAYER_NONE;
    table[SEGMENTS - 1].role = GRADREG_ROLE_EMBEDDING;
}

gradreg_regularizer_params noise_params(int pair, gradreg_noise_rule rule)
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.param_type = type_pairs[pair].param;
    p.grad_type = type_pairs[pair].grad;
    p.layer_count = LAYERS;
    p.schedule.first_layer = 2;
    p.schedule.full_layer = 3;
    p.clip_first = p.clip_second = 0;
    p.epsilon = 0.0625;
    p.noise.rule = rule;
    return p;
}

rig *open_rig(const gradreg_regularizer_params *p)
{
    const rig_setup setup = { .misalignment = 1 };
    rig *r = rig_open(table, SEGMENTS, p, &setup);

    rig_numbers(r, RIG_PARAMS, 5, -3);
    if (p->restore == GRADREG_RESTORE_MASTER)
        rig_make_master(r, 6);
    return r;
}

bool takes_noise(int s)
{
    return s == 0 || s == PER_LAYER;
}

/* ---- single values ---------------------------------------------------------------- */

double norm_of(const double *x, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum);
}

double cosine_of(const double *x, const double *y, size_t n)
{
    double product = 0;

    for (size_t i = 0; i < n; i++)
        product += x[i] * y[i];
    return product / (norm_of(x, n) * norm_of(y, n));
}

double *segment_values(const rig *r, enum rig_buffer buffer, const char *gathered, int s)
{
    const gradreg_type type = rig_type(r, buffer, (size_t)s);
    double *values = calloc(table[s].count, sizeof(double));

    ck_assert_ptr_nonnull(values);
    for (int k = 0; k < s; k++)
        gathered += table[k].count * type_bytes(rig_type(r, buffer, (size_t)k));
    for (size_t i = 0; i < table[s].count; i++)
        values[i] = typed_get(gathered, type, i);
    return values;
}

double *noise_on(const rig *r, const char *clean, int s)
{
    char *noisy = rig_gather(r, rig_moved(r));
    double *noise = segment_values(r, RIG_PARAMS, noisy, s);
    double *theta = segment_values(r, RIG_PARAMS, clean, s);

    for (size_t i = 0; i < table[s].count; i++)
        noise[i] -= theta[i];
    free(theta);
    free(noisy);
    return noise;
}

/* ---- one step in all its forms ---------------------------------------------------- */

void gradients(rig *r, uint64_t seed, bool is_first)
{
    rig_numbers(r, is_first ? rig_first(r) : RIG_GRADS, seed, -1);
}

void plain_step(rig *r, uint64_t seed)
{
    gradients(r, seed, true);
    for (int32_t pass = 0, passes = rig_passes(r); pass < passes; pass++) {
        assert_ok(pass == 0 ? gradreg_regularizer_perturb(r->reg, &r->buffers)
                            : gradreg_regularizer_mirror(r->reg, &r->buffers));
        gradients(r, seed + 1000, false);
    }
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
}
