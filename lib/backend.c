/* backend.c - the backends there are.
 *
 * In: a context. Out: the ops of its backend. */
#include "backend.h"

#include "context.h"
#include "cpu/cpu_backend.h"
#include "module.h"

/* A device's functions are the first member of its module. */
static const gr_module *module_of(const gradreg_context *context)
{
    return (const gr_module *)(const void *)context->device_ops;
}

const gr_backend_ops *gradreg_i_backend_ops(const gradreg_context *context)
{
    return context->device_ops != NULL ? module_of(context)->ops : &gradreg_cpu_backend;
}

const gr_loss_ops *gradreg_i_backend_losses(const gradreg_context *context)
{
    return context->device_ops != NULL ? module_of(context)->losses : &gradreg_cpu_losses;
}

const gr_logits_ops *gradreg_i_backend_logits(const gradreg_context *context)
{
    return context->device_ops != NULL ? module_of(context)->logits : &gradreg_cpu_logits;
}

const gr_probe_ops *gradreg_i_backend_probe(const gradreg_context *context)
{
    return context->device_ops != NULL ? module_of(context)->probe : &gradreg_cpu_probe;
}

const gr_monitor_ops *gradreg_i_backend_monitors(const gradreg_context *context)
{
    return context->device_ops != NULL ? module_of(context)->monitors : &gradreg_cpu_monitors;
}
