/* cuda_later.cu - the op tables of the stages that the GPU does not have yet.
 *
 * In: tasks. Out: UNSUPPORTED, and a sentence that says what to use instead. */
#include "cuda_later.h"

#include "cuda_logprobs.h"

static gradreg_status not_yet(const char *what)
{
    return GR_CUDA_FAIL(GRADREG_ERROR_UNSUPPORTED,
                        "%s are not on the GPU in this version: use a context with "
                        "GRADREG_BACKEND_CPU and host memory",
                        what);
}

static gradreg_status policy(gradreg_context *context, const gr_policy_logits_task *task)
{
    (void)context, (void)task;
    return not_yet("policy losses from logits");
}

const gr_logits_ops gradreg_cuda_logits = {
    gradreg_cuda_logprobs_forward,
    gradreg_cuda_logprobs_backward,
    policy,
    NULL,
    NULL,
    "linear log-probs are not on the GPU in this version",
    0
};
