/* context.h - what all handles of a context share: memory, remarks, threads, one vector path.
 *
 * In: validated gradreg_context_params. Out: the struct below, and the only ways by which the
 * library allocates and speaks.
 *
 *      context ──┬── allocate / release ──► the caller's allocator, or the C library
 *                ├── log ─────────────────► the caller's callback, or nowhere
 *                ├── threads.h ───────────► the caller's parallel_for, or the own pool
 *                └── path, stream ────────► the backend */
#ifndef GRADREG_LIB_CONTEXT_H
#define GRADREG_LIB_CONTEXT_H

#include "gradreg.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/cpu_features.h"
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
    void *stream;
    gr_busy busy; /* for the entries whose "only user" is the context's */
    _Atomic int32_t children;
    _Atomic uint64_t bytes_held;
    _Atomic uint64_t allocations;
    void *scratch; /* backend memory, see gradreg_context_reserve() */
    size_t scratch_bytes;
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

/* A context with children cannot be destroyed. */
void gradreg_i_child_add(gradreg_context *context);
void gradreg_i_child_remove(gradreg_context *context);

/* Around an entry's work on a handle. STATE when it is taken, by another thread or by the call
 * whose callback this is; nothing has happened then, and leave must not follow. `what` names the
 * argument, e.g. "context". */
gradreg_status gradreg_i_busy_enter(gr_busy *busy, const char *what);
void gradreg_i_busy_leave(gr_busy *busy);

#endif
