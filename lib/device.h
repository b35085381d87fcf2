/* device.h - what a context needs of a backend whose memory is not the host's.
 *
 * In: a device's number. Out: a device that is open: its memory, its stream, and a guard around
 * calls. The functions come from a module (module.h) that is loaded when somebody asks for it. */
#ifndef GRADREG_LIB_DEVICE_H
#define GRADREG_LIB_DEVICE_H

#include "gradreg.h"

#include <stddef.h>

/* Where a pointer points to. */
enum gr_place_kind {
    GR_PLACE_HOST,   /* memory that the device runtime does not know */
    GR_PLACE_DEVICE, /* memory of one device */
    GR_PLACE_SHARED  /* pinned or managed: host and device reach it */
};
typedef struct gr_place {
    enum gr_place_kind kind;
    int32_t device; /* of GR_PLACE_DEVICE */
} gr_place;

/* What the calling thread had current while a call is on our device; NULL: nothing. */
typedef struct gr_device_guard {
    void *previous;
    int32_t changed;
} gr_device_guard;

typedef struct gr_device {
    /* `name` has 64 bytes. UNSUPPORTED without a driver or with no such device. */
    gradreg_status (*open)(void **state, int32_t index, char *name);
    void (*close)(void *state);
    /* Around every call: the device is current, and nobody has left it in error. After a failure
     * leave must not follow. */
    gradreg_status (*enter)(void *state, gr_device_guard *guard);
    void (*leave)(void *state, const gr_device_guard *guard);
    /* INVALID_ARGUMENT for another device's. */
    gradreg_status (*set_stream)(void *state, void *stream);
    gradreg_status (*synchronize)(void *state);
    /* NULL: out of memory, and a sentence is set */
    void *(*allocate)(void *state, size_t bytes);
    void (*release)(void *state, void *pointer);
    gradreg_status (*look_up)(gr_place *out, const void *pointer);
    int (*reaches_host)(void *state); /* pageable memory too */
} gr_device;

/* The CUDA module's device, loaded on demand; a sentence says where it was looked for. */
gradreg_status gradreg_i_device_find(const gr_device **out);
/* The same if it has been loaded already, else NULL. */
const gr_device *gradreg_i_device_loaded(void);

#endif
