/* policy.h - what the calls of policy losses share.
 *
 * In: a caller's composition and batch. Out: the task, checked, but for where its outputs go. */
#ifndef GRADREG_LIB_POLICY_H
#define GRADREG_LIB_POLICY_H

#include "policy_data.h"

gradreg_status gradreg_i_policy_read(gradreg_policy *p, const gradreg_policy *caller);
/* After the policy and the outputs; from_logits: logp and entropy are yet to come. */
gradreg_status gradreg_i_policy_read_batch(gr_policy_task *t,
                                           const gradreg_policy_batch *caller);

/* Scratch of a loss, and the task's part in it. */
size_t gradreg_i_policy_scratch(size_t sequences);
void gradreg_i_policy_place(gr_policy_task *t, void *scratch);

#endif
