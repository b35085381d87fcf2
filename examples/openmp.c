/* openmp.c - the caller's own threads instead of the library's: a step under OpenMP gives the bits of a
 * step on the library's pool. */
#include <gradreg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 1 << 20 };

static float weights[COUNT], grads[COUNT], under_openmp[COUNT];

static void must(gradreg_status status)
{
    if (status == GRADREG_OK)
        return;
    fprintf(stderr, "%s\n", gradreg_last_error());
    exit(EXIT_FAILURE);
}

/* [function] */
static void with_openmp(void *user, size_t count, void (*body)(void *task, size_t index),
                        void *task)
{
    (void)user;
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < count; i++)
        body(task, i);
}
/* [end] */

static void backward(void)
{
    for (size_t i = 0; i < COUNT; i++)
        grads[i] = 0.5f * weights[i] + 0.1f * weights[i] * weights[i];
}

/* One step; the regularized gradient is in grads afterwards. */
static void take_step(const gradreg_context_params *params)
{
    gradreg_context *context = NULL;
    gradreg_regularizer *regularizer = NULL;
    gradreg_segment all = GRADREG_SEGMENT_INIT;
    gradreg_regularizer_params settings = GRADREG_REGULARIZER_PARAMS_INIT;
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;

    for (size_t i = 0; i < COUNT; i++)
        weights[i] = (float)(i % 1009) / 1009.0f - 0.5f;
    all.count = COUNT, all.layer = 0, all.role = GRADREG_ROLE_MLP;
    settings.layer_count = 1;
    buffers.params = weights, buffers.grads = grads, buffers.count = COUNT;
    must(gradreg_context_create(&context, params));
    must(gradreg_regularizer_create(&regularizer, context, &all, 1, &settings));
    backward();
    must(gradreg_regularizer_perturb(regularizer, &buffers));
    backward();
    must(gradreg_regularizer_combine(regularizer, &buffers));
    must(gradreg_regularizer_destroy(regularizer));
    must(gradreg_context_destroy(context));
}

int main(void)
{
    /* [context] */
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    params.parallel_for.function = with_openmp;
    /* [end] */
    take_step(&params);
    memcpy(under_openmp, grads, sizeof(grads));
    take_step(NULL);
    const int differ = memcmp(under_openmp, grads, sizeof(grads)) != 0;
    printf("OpenMP and the library's own threads: %s\n",
           differ ? "DIFFERENT" : "the same bits");
    return differ;
}
