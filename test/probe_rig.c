/* probe_rig.c - opens the probe that the suites look at, see probe_rig.h. */
#include "probe_rig.h"

#include <stdlib.h>
#include <string.h>

gradreg_probe *probe_with(gradreg_context *context, int32_t trials, double noise_scale)
{
    gradreg_probe_params params = GRADREG_PROBE_PARAMS_INIT;
    gradreg_probe *probe = NULL;
    params.layer_count = LAYERS;
    params.trials = trials;
    params.noise_scale = noise_scale;
    params.seed = SEED;
    assert_ok(gradreg_probe_create(&probe, context, &params));
    return probe;
}

void close_both(gradreg_probe *probe, gradreg_context *context)
{
    assert_ok(gradreg_probe_destroy(probe));
    assert_ok(gradreg_context_destroy(context));
}

gradreg_probe_layer summary_of(gradreg_probe *probe, int32_t layer)
{
    gradreg_probe_layer rows[LAYERS];
    assert_ok(gradreg_probe_layer_init(rows, sizeof(rows[0])));
    assert_ok(gradreg_probe_summary(probe, rows, LAYERS));
    for (int32_t l = 0; l < LAYERS; l++)
        ck_assert_int_eq(rows[l].layer, l);
    return rows[layer];
}

char *batch_new(gradreg_type type, size_t stride, size_t shift)
{
    const size_t size = type_bytes(type), width = BATCH_WIDTH * size;
    char *tight = malloc(BATCH_ROWS * width), *memory = guarded_new(BATCH_BYTES, 0);
    uint64_t state = test_seed() ^ 14;
    ck_assert_ptr_nonnull(tight);
    typed_fill(tight, type, BATCH_ROWS * BATCH_WIDTH, &state, 2.0);
    for (size_t r = 0; r < BATCH_ROWS; r++)
        memcpy(memory + (shift + r * stride) * size, tight + r * width, width);
    free(tight);
    return memory;
}
