/* context.h - what all handles of a context share: memory, remarks, threads, one vector path.
 *
 * In: validated gradreg_context_params. Out: the struct below, and the only ways by which the
 * library allocates and speaks.
 *
 *      context ──┬── allocate / release ──► the caller's allocator, or the C library
 *                ├── log ─────────────────► the caller's callback, or nowhere
 *                ├── threads.h ───────────► the caller's parallel_for, or the own pool
 *                ├── path, stream ────────► the backend
 *                └── device ──────────────► device.h, if its memory is not the host's */
#ifndef GRADREG_LIB_CONTEXT_H
#define GRADREG_LIB_CONTEXT_H

#include "gradreg.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/cpu_features.h"
#include "device.h"
#include "status.h"
#include "threads.h"

#define GR_ALIGNMENT 64 /* of all memory that a context hands out */

/* One handle, one thread at a time: whoever finds the flag taken is the second one. */
typedef struct gr_busy {
    _Atomic int taken;
} gr_busy;

struct gradreg_context {
    gradreg_context_params params; /* as given, AUTO, 0 and NULL resolved */
    gr_vector_path path;
    const gr_device *device_ops; /* NULL: memory is the host's */
    void *device;                /* what device_ops->open gave */
    char device_name[64];
    void *stream;
    gr_busy busy; /* for the entries whose "only user" is the context's */
    _Atomic int32_t children;
    _Atomic uint64_t bytes_held;
    _Atomic uint64_t allocations;
    void *scratch; /* backend memory, see gradreg_context_reserve() */
    size_t scratch_bytes;
    uint64_t
        checked_places; /* fingerprint of the last loss's pointers that lie where they should */
    gr_pool pool;
};

/* Memory aligned to GR_ALIGNMENT, not zeroed, counted in bytes_held. 0 bytes: NULL, which is then
 * no failure. Otherwise NULL means that a sentence is set and the caller returns OUT_OF_MEMORY. */
void *gradreg_i_allocate(gradreg_context *context, size_t bytes, gradreg_memory memory);

/* Gives back what gradreg_i_allocate() gave for the same number of bytes. NULL is fine. */
void gradreg_i_release(gradreg_context *context, void *pointer, size_t bytes,
                       gradreg_memory memory);

/* A remark, if the caller wants this level. One line, cut at 511 bytes. On the API call's thread
 * only. Sentences go to GR_FAIL; this is for calls that succeed. */
void gradreg_i_log(gradreg_context *context, gradreg_log_level level, const char *format, ...)
    GR_PRINTF(3, 4);

/* context->scratch of at least this size, for the holder of context->busy. */
gradreg_status gradreg_i_scratch(gradreg_context *context, size_t bytes);

/* Around work on the backend: its device is current, and was not left in error. On the CPU both do
 * nothing. After a failure leave must not follow. */
gradreg_status gradreg_i_device_enter(gradreg_context *context, gr_device_guard *guard);
void gradreg_i_device_leave(gradreg_context *context, const gr_device_guard *guard);

/* One of a call's pointers, and its name for the sentence: "batch." "logp", or with an index that is
 * not negative "buffers." "grad_pointers" [3]. */
typedef struct gr_pointer {
    const char *owner, *name;
    const void *at;
    int64_t index;
} gr_pointer;

/* Whether there can be pointers into a wrong memory at all: a device is in the process. */
int gradreg_i_places_differ(const gradreg_context *context);
/* INVALID_ARGUMENT for memory that the context's backend cannot reach. NULL is fine. */
gradreg_status gradreg_i_check_place(gradreg_context *context, const gr_pointer *pointer);
/* The same for the pointers of a loss, which are looked at when they are others than last time. */
gradreg_status gradreg_i_check_places(gradreg_context *context, const gr_pointer *pointers,
                                      size_t count);

/* A context with children cannot be destroyed. A child counts before it allocates, so that an allocator
 * which closes the context is refused. */
void gradreg_i_child_add(gradreg_context *context);
void gradreg_i_child_remove(gradreg_context *context);

/* Around an entry's work on a handle. STATE when it is taken, by another thread or by the call
 * whose callback this is; nothing has happened then, and leave must not follow. `what` names the
 * argument, e.g. "context". */
gradreg_status gradreg_i_busy_enter(gr_busy *busy, const char *what);
void gradreg_i_busy_leave(gr_busy *busy);

#endif
