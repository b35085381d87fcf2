/* cpu_backend.h - the CPU's op tables, and the ops that a file of its own supplies.
 *
 * In: checked work and tasks (backend.h). Out: results; every op has finished when it returns. */
#ifndef GRADREG_LIB_CPU_BACKEND_H
#define GRADREG_LIB_CPU_BACKEND_H

#include "../backend.h"
#include "../context.h"

extern const gr_backend gradreg_cpu_backend;
extern const gr_probe_ops gradreg_cpu_probe;
extern const gr_monitor_ops gradreg_cpu_monitors;

/* Numbers 0 .. count - 1 by group, equal ones in their order. Allocates nothing. */
void gradreg_cpu_order_by_group(int64_t *order, const int32_t *group, size_t count);

gradreg_status gradreg_cpu_policy_loss(gradreg_context *context, const gr_policy_task *task);
gradreg_status gradreg_cpu_advantages(gradreg_context *context, const gr_advantage_task *task);

gradreg_status gradreg_cpu_logprobs_forward(gradreg_context *context,
                                            const gr_logprobs_task *task);
gradreg_status gradreg_cpu_policy_logits(gradreg_context *context,
                                         const gr_policy_logits_task *task);
gradreg_status gradreg_cpu_linear_forward(gradreg_context *context, const gr_linear_task *t);
gradreg_status gradreg_cpu_linear_backward(gradreg_context *context, const gr_linear_task *t);
gradreg_status gradreg_cpu_logprobs_backward(gradreg_context *context,
                                             const gr_logprobs_slope_task *task);

#endif
