/* backend.c - the backends there are.
 *
 * In: a context. Out: the tables of its backend. */
#include "backend.h"

#include "context.h"
#include "cpu/cpu_backend.h"
#include "module.h"

/* Those whose memory is the host's; any other is in a module. */
static const gr_backend *const in_host_memory[] = {
    [GRADREG_BACKEND_CPU] = &gradreg_cpu_backend,
};

/* A device's functions are the first member of its module. */
static const gr_backend *backend_of(const gradreg_context *context)
{
    if (context->device_ops != NULL)
        return &((const gr_module *)(const void *)context->device_ops)->backend;
    return in_host_memory[context->params.backend];
}

const gr_backend_ops *gradreg_i_backend_ops(const gradreg_context *context)
{
    return backend_of(context)->ops;
}

const gr_loss_ops *gradreg_i_backend_losses(const gradreg_context *context)
{
    return backend_of(context)->losses;
}

const gr_logits_ops *gradreg_i_backend_logits(const gradreg_context *context)
{
    return backend_of(context)->logits;
}

const gr_probe_ops *gradreg_i_backend_probe(const gradreg_context *context)
{
    return backend_of(context)->probe;
}

const gr_monitor_ops *gradreg_i_backend_monitors(const gradreg_context *context)
{
    return backend_of(context)->monitors;
}
