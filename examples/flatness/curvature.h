/* curvature.h - top eigenvalue and trace of the Hessian, through the library's Hessian-vector
 * products (output PRODUCT, central differences).
 *
 *      v ──► theta + delta ──► g+ ─┐
 *        └─► theta - delta ──► g- ─┴─► H v,  curvature = v'Hv / v'v
 *
 *      top eigenvalue   power iteration: v <- H v / ||H v||                  direction CALLER
 *      trace            mean of z'Hz over random signs z (Hutchinson)        direction RADEMACHER
 */
#ifndef FLATNESS_CURVATURE_H
#define FLATNESS_CURVATURE_H

#include <gradreg.h>
#include <stddef.h>

#include "network.h"

struct curvature_params {
    double epsilon;         /* ||delta|| */
    size_t iteration_limit; /* of the power iteration */
    double tolerance;       /* it ends when the eigenvalue changes by less than this share */
    size_t draws;           /* of Hutchinson's estimate */
    uint64_t seed;
};

struct curvature {
    double top_eigenvalue; /* the largest one, not the largest magnitude */
    size_t iterations;
    double epsilon_change;     /* share of top_eigenvalue that half of epsilon changes */
    double trace, trace_error; /* mean over the draws and its standard error */
};

/* Products with the Hessian of the mean loss over a batch, at params. */
struct hessian {
    struct network *network;
    const struct batch *batch;
    float *params; /* moved during a product, the same bits before and after */
    float *grads;  /* [parameter_count]: the latest product */
    gradreg_regularizer *regularizer;
};

/* direction_kind: GRADREG_DIRECTION_CALLER or _RADEMACHER. */
void hessian_open(struct hessian *hessian, gradreg_context *context, struct network *network,
                  float *params, const struct batch *batch, gradreg_direction direction_kind,
                  double epsilon, uint64_t seed);
void hessian_close(struct hessian *hessian);

/* hessian->grads = H v; v is `direction`, or the next random one if that is NULL. */
void hessian_product(gradreg_terms *terms, struct hessian *hessian, const float *direction);

void curvature_measure(struct curvature *out, gradreg_context *context, struct network *network,
                       float *params, const struct batch *batch,
                       const struct curvature_params *settings);

#endif
