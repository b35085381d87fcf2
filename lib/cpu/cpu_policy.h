/* cpu_policy.h - a policy loss token by token, for the op that has its logits at hand.
 *
 * In: a checked task, its rows measured. Out: denominators, and a token's slopes. */
#ifndef GRADREG_LIB_CPU_POLICY_H
#define GRADREG_LIB_CPU_POLICY_H

#include "../policy_row.h"
#include "cpu_backend.h"

/* The first walk over the rows, and the denominators. */
gr_policy_totals gradreg_cpu_policy_totals(gradreg_context *context,
                                           const gr_policy_task *task);

/* gr_slopes_of_token(). */
gr_token_slope gradreg_cpu_policy_token(const gr_policy_task *task,
                                        const gr_policy_totals *totals, size_t row, size_t i);

/* What the aggregation gives each token of a row. */
double gradreg_cpu_policy_weight(const gr_policy_task *task, const gr_policy_totals *totals,
                                 size_t row);

/* One past the row's last token. */
size_t gradreg_cpu_policy_row_end(const gradreg_policy_batch *batch, size_t row);

#endif
