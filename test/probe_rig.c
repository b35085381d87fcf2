/* probe_rig.c - opens the probe that the suites look at, see probe_rig.h. */
#define _POSIX_C_SOURCE 200809L /* setenv */
#include "probe_rig.h"

#include <stdlib.h>

const char *const paths[PATHS] = { "scalar", "x86-64-v2", "x86-64-v3", "x86-64-v4" };

gradreg_context *context_with(const char *path, int32_t threads)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context = NULL;
    params.threads = threads;
    if (path != NULL)
        setenv("GRADREG_VECTOR_PATH", path, 1);
    const gradreg_status status = test_context_create(&context, &params);
    if (path != NULL)
        unsetenv("GRADREG_VECTOR_PATH");
    return status == GRADREG_OK ? context : NULL;
}

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

void fill_batch(void *tight, gradreg_type type)
{
    uint64_t state = test_seed() ^ 14;
    typed_fill(tight, type, BATCH_ROWS * BATCH_WIDTH, &state, 2.0);
}
