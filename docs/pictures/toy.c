/* toy.c - one step of the regularizer on a function of a few weights.
 *
 * In: parameters, a gradient, weights. Out: both gradients, theta', g_hat, terms. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "figures.h"

void must(gradreg_status status)
{
    if (status == GRADREG_OK)
        return;
    fprintf(stderr, "%s: %s\n", gradreg_status_name(status), gradreg_last_error());
    exit(EXIT_FAILURE);
}

gradreg_regularizer_params toy_params(int32_t layer_count)
{
    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
    params.layer_count = layer_count;
    params.schedule.first_layer = params.schedule.full_layer = 0;
    params.clip_first = params.clip_second = 0;
    return params;
}

gradreg_regularizer *toy_open(gradreg_context *context, size_t count,
                              const gradreg_regularizer_params *params)
{
    gradreg_segment segments[TOY_MOST];
    gradreg_regularizer *regularizer = NULL;
    for (size_t i = 0; i < count; i++) {
        must(gradreg_segment_init(&segments[i], sizeof(segments[i])));
        segments[i].offset = i;
        segments[i].count = 1;
        segments[i].layer = (int32_t)i % params->layer_count;
        segments[i].role = GRADREG_ROLE_MLP;
    }
    must(gradreg_regularizer_create(&regularizer, context, segments, count, params));
    return regularizer;
}

static void backward(float *grads, toy_gradient gradient, const float *weights, size_t count)
{
    double at[TOY_MOST] = { 0 }, slope[TOY_MOST];
    for (size_t i = 0; i < count; i++)
        at[i] = (double)weights[i];
    gradient(slope, at);
    for (size_t i = 0; i < count; i++)
        grads[i] = (float)slope[i];
}

toy_step toy_run(const gradreg_regularizer_params *params, size_t count, toy_gradient gradient,
                 const double *weights)
{
    float theta[TOY_MOST], grads[TOY_MOST];
    toy_step step = { .terms = GRADREG_TERMS_INIT };
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    gradreg_context *context = NULL;

    must(gradreg_context_create(&context, NULL));
    gradreg_regularizer *regularizer = toy_open(context, count, params);
    buffers.params = theta;
    buffers.grads = grads;
    buffers.count = count;
    for (size_t i = 0; i < count; i++)
        theta[i] = (float)weights[i];

    backward(grads, gradient, theta, count);
    memcpy(step.first, grads, sizeof(grads));
    must(gradreg_regularizer_perturb(regularizer, &buffers));
    memcpy(step.moved, theta, sizeof(theta));
    backward(grads, gradient, theta, count);
    if (params->difference == GRADREG_DIFFERENCE_CENTRAL) {
        must(gradreg_regularizer_mirror(regularizer, &buffers));
        backward(grads, gradient, theta, count);
    }
    memcpy(step.second, grads, sizeof(grads));
    must(gradreg_regularizer_combine(regularizer, &buffers));
    memcpy(step.corrected, grads, sizeof(grads));
    must(gradreg_regularizer_terms(regularizer, &step.terms, NULL, 0));

    must(gradreg_regularizer_destroy(regularizer));
    must(gradreg_context_destroy(context));
    return step;
}
