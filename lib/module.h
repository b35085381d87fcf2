/* module.h - the agreement between libgradreg and a backend's module, for C and C++.
 *
 * In: gr_core, the functions of libgradreg that the module may call: it links against nothing of
 * it. Out: one exported object of type gr_module. Both sides share the structs of backend.h, so
 * they must be of one version: libgradreg compares before it calls anything. */
#ifndef GRADREG_LIB_MODULE_H
#define GRADREG_LIB_MODULE_H

#include "backend.h"
#include "device.h"

typedef struct gr_core {
    void (*set_error)(const char *format, ...);
    void (*log)(gradreg_context *context, gradreg_log_level level, const char *format, ...);
    void (*struct_write)(void *caller, const void *filled, size_t known);
    /* what gr_device.open gave for this context */
    void *(*device_of)(const gradreg_context *context);
    /* whether a library that is opened by its name alone cannot come from the current directory */
    int (*library_path_is_absolute)(void);
} gr_core;

enum { GR_MODULE_MAGIC = 0x47525245, GR_MODULE_SIZES = 16 };

/* Of the structs that both sides read. */
#define GR_MODULE_LAYOUT                                                               \
    {                                                                                  \
        (uint32_t)sizeof(gr_backend_ops), (uint32_t)sizeof(gr_loss_ops),               \
            (uint32_t)sizeof(gr_work), (uint32_t)sizeof(gr_span),                      \
            (uint32_t)sizeof(gr_segment), (uint32_t)sizeof(gr_policy_task),            \
            (uint32_t)sizeof(gr_control), (uint32_t)sizeof(gr_core),                   \
            (uint32_t)sizeof(gr_probe_ops), (uint32_t)sizeof(gr_monitor_ops),          \
            (uint32_t)sizeof(gr_inject_task), (uint32_t)sizeof(gr_delta_task),         \
            (uint32_t)sizeof(gr_policy_logits_task), (uint32_t)sizeof(gr_linear_task), \
            (uint32_t)sizeof(gr_logits_ops), (uint32_t)sizeof(gr_device_guard)         \
    }

typedef struct gr_module {
    gr_device device; /* first: a context keeps a pointer to it */
    uint32_t magic;
    uint32_t sizes[GR_MODULE_SIZES];
    char version[28]; /* gradreg_version() of its libgradreg */
    /* once, before anything else. UNSUPPORTED without a driver, with a sentence */
    gradreg_status (*load)(const gr_core *core);
    gr_backend backend;
} gr_module;

#define GR_CUDA_MODULE_SYMBOL "gradreg_cuda_module"

#endif
