/* One step on L = 2 w0^2 + w1^2 / 2: two layers of one weight, g = (4 w0, w1), H = diag(4, 1). */
#include <gradreg.h>
#include <stdio.h>

static int backward(float g[2], const float w[2])
{
    g[0] = 4 * w[0], g[1] = w[1];
    return 0;
}

int main(void)
{
    float weights[2] = { 1, 1 }, grads[2];
    const gradreg_segment layers[2] = {
        { .offset = 0, .count = 1, .layer = 0, .role = GRADREG_ROLE_MLP },
        { .offset = 1, .count = 1, .layer = 1, .role = GRADREG_ROLE_MLP }
    };
    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
    params.layer_count = 2; /* m = 1/2 and 1, the default schedule for two layers */
    params.strength = 0.1;  /* lambda */
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    buffers.params = weights, buffers.grads = grads, buffers.count = 2;
    gradreg_context *context = NULL;
    gradreg_regularizer *regularizer = NULL;

    if (gradreg_context_create(&context, NULL) ||
        gradreg_regularizer_create(&regularizer, context, layers, 2, &params) ||
        backward(grads, weights) ||                           /* g */
        gradreg_regularizer_perturb(regularizer, &buffers) || /* weights move along g */
        backward(grads, weights) ||                           /* the gradient over there */
        gradreg_regularizer_combine(regularizer, &buffers))   /* g + lambda m H g */
        return fprintf(stderr, "%s\n", gradreg_last_error()), 1;
    printf("4 + 0.1 / 2 * 16 = %.3f, 1 + 0.1 * 1 = %.3f\n", grads[0], grads[1]);
    gradreg_regularizer_destroy(regularizer);
    gradreg_context_destroy(context);
    return 0;
}
