/* context.c - opens and closes contexts; memory and remarks for everything that lives in one.
 *
 * In: gradreg_context_params, checked here and nowhere else; the environment's vector path. Out:
 * a struct gradreg_context (context.h). A backend is one row of the table below. */
#include "context.h"

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fpenv.h"
#include "hash.h"
#include "params.h"

/* The structs of 0.1, which every later version accepts: one that grows ends here at its first new field. */
enum {
    PARAMS_MINIMUM = sizeof(gradreg_context_params),
    INFO_MINIMUM = sizeof(struct gradreg_context_info)
};

/* ---- memory ---------------------------------------------------------------------- */

static void *library_allocate(size_t bytes)
{
    if (bytes > PTRDIFF_MAX - GR_ALIGNMENT)
        return NULL;
    return aligned_alloc(GR_ALIGNMENT,
                         (bytes + GR_ALIGNMENT - 1) / GR_ALIGNMENT * GR_ALIGNMENT);
}

static void release_with(const gradreg_allocator *allocator, void *pointer, size_t bytes,
                         gradreg_memory memory)
{
    const char *function = gradreg_i_entered();

    if (allocator->release == NULL) {
        free(pointer);
        return;
    }
    allocator->release(allocator->user, pointer, bytes, memory);
    gradreg_i_enter(function);
}

static void *hook_allocate(const gradreg_allocator *allocator, size_t bytes,
                           gradreg_memory memory)
{
    const char *function = gradreg_i_entered();
    void *pointer = allocator->allocate(allocator->user, bytes, GR_ALIGNMENT, memory);

    gradreg_i_enter(function);
    if (pointer == NULL) {
        gradreg_i_set_error("allocator.allocate gave NULL for %zu bytes", bytes);
        return NULL;
    }
    if ((uintptr_t)pointer % GR_ALIGNMENT != 0) {
        release_with(allocator, pointer, bytes, memory);
        gradreg_i_set_error(
            "allocator.allocate gave %p for %zu bytes, expected alignment to %d", pointer,
            bytes, GR_ALIGNMENT);
        return NULL;
    }
    return pointer;
}

static void *allocate_with(const gradreg_allocator *allocator, size_t bytes,
                           gradreg_memory memory)
{
    if (allocator->allocate != NULL)
        return hook_allocate(allocator, bytes, memory);

    void *pointer = library_allocate(bytes);
    if (pointer == NULL)
        gradreg_i_set_error("no memory for %zu bytes", bytes);
    return pointer;
}

/* Memory that no hook of the caller's gives. */
static bool own_device_memory(const gradreg_context *context, gradreg_memory memory)
{
    return memory == GRADREG_MEMORY_BACKEND && context->device_ops != NULL &&
           context->params.allocator.allocate == NULL;
}

void *gradreg_i_allocate(gradreg_context *context, size_t bytes, gradreg_memory memory)
{
    if (bytes == 0)
        return NULL;
    atomic_fetch_add(&context->allocations, 1);
    void *pointer = own_device_memory(context, memory)
                        ? context->device_ops->allocate(context->device, bytes)
                        : allocate_with(&context->params.allocator, bytes, memory);
    if (pointer != NULL)
        atomic_fetch_add(&context->bytes_held, bytes);
    return pointer;
}

void gradreg_i_release(gradreg_context *context, void *pointer, size_t bytes,
                       gradreg_memory memory)
{
    if (pointer == NULL)
        return;
    assert(atomic_load(&context->bytes_held) >= bytes);
    /* The device's own release waits; what a hook takes back may still be in use. */
    if (memory == GRADREG_MEMORY_BACKEND && context->device_ops != NULL)
        (void)context->device_ops->synchronize(context->device);
    if (own_device_memory(context, memory))
        context->device_ops->release(context->device, pointer);
    else
        release_with(&context->params.allocator, pointer, bytes, memory);
    atomic_fetch_sub(&context->bytes_held, bytes);
}

/* ---- remarks, children, misuse --------------------------------------------------- */

void gradreg_i_log(gradreg_context *context, gradreg_log_level level, const char *format, ...)
{
    const gradreg_log *log = &context->params.log;
    const char *function = gradreg_i_entered();
    char message[512];
    gr_fpenv own;
    va_list arguments;

    if (log->function == NULL || level > log->level)
        return;
    va_start(arguments, format);
    gradreg_i_print(message, sizeof(message), format, arguments);
    va_end(arguments);
    for (char *c = message; *c != '\0'; c++)
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    gradreg_i_fp_keep(&own);
    log->function(log->user, level, message);
    gradreg_i_fp_leave(&own);
    gradreg_i_enter(function);
}

void gradreg_i_child_add(gradreg_context *context)
{
    atomic_fetch_add(&context->children, 1);
}

void gradreg_i_child_remove(gradreg_context *context)
{
    const int32_t before = atomic_fetch_sub(&context->children, 1);
    assert(before > 0);
    (void)before;
}

gradreg_status gradreg_i_busy_enter(gr_busy *busy, const char *what)
{
    if (atomic_exchange(&busy->taken, 1) != 0)
        return GR_FAIL(
            GRADREG_ERROR_STATE,
            "argument '%s' is in use by another call: one handle must not be used by "
            "two threads at once, nor from its own callbacks",
            what);
    return GRADREG_OK;
}

void gradreg_i_busy_leave(gr_busy *busy)
{
    atomic_store(&busy->taken, 0);
}

/* ---- backends -------------------------------------------------------------------- */

static gradreg_status open_cpu(gradreg_context *context)
{
    GR_REQUIRE(context->params.device == 0,
               "params.device is %ld, expected 0: the CPU is one device",
               (long)context->params.device);
    return gradreg_cpu_choose_path(&context->path);
}

static void name_cpu(const gradreg_context *context, struct gradreg_context_info *info)
{
    gradreg_cpu_name(info->device_name, sizeof(info->device_name));
    (void)snprintf(info->vector_path, sizeof(info->vector_path), "%s",
                   gradreg_cpu_path_name(context->path));
}

/* The module is looked for when a context asks for it, so that the library has the same exports
 * and starts alike on machines with and without a GPU. */
static gradreg_status open_cuda(gradreg_context *context)
{
    const gr_device *device;
    gradreg_status status = gradreg_i_device_find(&device);
    if (status == GRADREG_OK)
        status = device->open(&context->device, context->params.device, context->device_name);
    if (status != GRADREG_OK) {
        const char *why = strstr(gradreg_last_error(), ": ");
        return GR_FAIL(status, "params.backend is GRADREG_BACKEND_CUDA: %s",
                       why != NULL ? why + 2 : gradreg_last_error());
    }
    context->device_ops = device;
    return GRADREG_OK;
}

static void name_cuda(const gradreg_context *context, struct gradreg_context_info *info)
{
    memcpy(info->device_name, context->device_name, sizeof(info->device_name));
}

static bool always(void)
{
    return true;
}

static bool has_cuda(void)
{
    const gr_device *device;
    return gradreg_i_device_find(&device) == GRADREG_OK;
}

/* One row per backend: its name in sentences, whether it can be opened here, opening it (a sentence
 * where it cannot), and its lines in context_info. */
static const struct backend {
    gradreg_backend id;
    const char *called;
    bool (*available)(void);
    gradreg_status (*open)(gradreg_context *context);
    void (*name)(const gradreg_context *context, struct gradreg_context_info *info);
} backends[] = {
    { GRADREG_BACKEND_CPU, "CPU", always, open_cpu, name_cpu },
    { GRADREG_BACKEND_CUDA, "CUDA", has_cuda, open_cuda, name_cuda },
};

static const struct backend *find_backend(gradreg_backend id)
{
    const gradreg_backend wanted = id == GRADREG_BACKEND_AUTO ? GRADREG_BACKEND_CPU : id;

    for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++)
        if (backends[i].id == wanted)
            return &backends[i];
    return NULL;
}

int32_t gradreg_backend_available(gradreg_backend backend)
{
    GR_ENTER();
    const struct backend *row = find_backend(backend);
    return row != NULL && row->available();
}

/* ---- create and destroy ---------------------------------------------------------- */

static gradreg_status check_hooks(const gradreg_context_params *params)
{
    const gradreg_allocator *allocator = &params->allocator;
    const gradreg_parallel_for *parallel_for = &params->parallel_for;
    const gradreg_log *log = &params->log;

    GR_REQUIRE((allocator->allocate == NULL) == (allocator->release == NULL),
               "params.allocator.%s is NULL, expected both functions or neither",
               allocator->allocate == NULL ? "allocate" : "release");
    GR_REQUIRE(allocator->reserved == NULL, "params.allocator.reserved must be NULL");
    GR_REQUIRE(parallel_for->reserved[0] == NULL && parallel_for->reserved[1] == NULL,
               "params.parallel_for.reserved must be NULL");
    GR_REQUIRE(log->level >= GRADREG_LOG_OFF && log->level <= GRADREG_LOG_INFO,
               "params.log.level is %ld, expected a GRADREG_LOG_ constant or 0",
               (long)log->level);
    GR_REQUIRE(log->reserved0 == 0 && log->reserved1 == NULL,
               "params.log.reserved0 and reserved1 must be zero");
    return GRADREG_OK;
}

/* Checks what holds for every backend and decides what the caller left open. */
static gradreg_status resolve(gradreg_context_params *params)
{
    const struct backend *backend = find_backend(params->backend);

    GR_REQUIRE(backend != NULL, "params.backend is %ld, expected a GRADREG_BACKEND_ constant",
               (long)params->backend);
    GR_REQUIRE(params->threads >= 0 && params->threads <= GR_THREADS_LIMIT,
               "params.threads is %ld, expected 0 to %d", (long)params->threads,
               GR_THREADS_LIMIT);
    GR_TRY(check_hooks(params));
    params->backend = backend->id;
    if (params->threads == 0)
        params->threads = gradreg_i_usable_threads();
    if (params->log.level == 0)
        params->log.level = GRADREG_LOG_WARNING;
    return GRADREG_OK;
}

static gradreg_status create(gradreg_context **out, const gradreg_context_params *given)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;

    if (given != NULL)
        GR_TRY(gradreg_i_struct_read(&params, sizeof(params), PARAMS_MINIMUM, given, "params"));
    GR_TRY(resolve(&params));
    gradreg_context *context =
        allocate_with(&params.allocator, sizeof(*context), GRADREG_MEMORY_HOST);
    if (context == NULL)
        return GRADREG_ERROR_OUT_OF_MEMORY;

    memset(context, 0, sizeof(*context));
    context->params = params;
    atomic_init(&context->busy.taken, 0);
    atomic_init(&context->children, 0);
    atomic_init(&context->bytes_held, sizeof(*context));
    atomic_init(&context->allocations, 1);
    gradreg_i_pool_init(&context->pool, params.threads);
    const gradreg_status status = find_backend(params.backend)->open(context);
    if (status != GRADREG_OK) {
        release_with(&params.allocator, context, sizeof(*context), GRADREG_MEMORY_HOST);
        return status;
    }
    *out = context;
    return GRADREG_OK;
}

gradreg_status gradreg_context_create(gradreg_context **out,
                                      const gradreg_context_params *params)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(out);
    *out = NULL;
    return create(out, params);
}

gradreg_status gradreg_context_destroy(gradreg_context *context)
{
    GR_ENTER();
    if (context == NULL)
        return GRADREG_OK;
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    const int32_t children = atomic_load(&context->children);
    if (children != 0) {
        gradreg_i_busy_leave(&context->busy);
        return GR_FAIL(
            GRADREG_ERROR_STATE,
            "argument 'context' still has %ld %s, expected 0: destroy what was created "
            "with it first",
            (long)children, children == 1 ? "child" : "children");
    }
    gradreg_i_pool_destroy(&context->pool);
    gradreg_i_release(context, context->scratch, context->scratch_bytes,
                      GRADREG_MEMORY_BACKEND);
    if (context->device_ops != NULL)
        context->device_ops->close(context->device);

    const gradreg_allocator allocator = context->params.allocator;
    release_with(&allocator, context, sizeof(*context), GRADREG_MEMORY_HOST);
    return GRADREG_OK;
}

/* ---- devices --------------------------------------------------------------------- */

gradreg_status gradreg_i_device_enter(gradreg_context *context, gr_device_guard *guard)
{
    return context->device_ops != NULL ? context->device_ops->enter(context->device, guard)
                                       : GRADREG_OK;
}

void gradreg_i_device_leave(gradreg_context *context, const gr_device_guard *guard)
{
    if (context->device_ops != NULL)
        context->device_ops->leave(context->device, guard);
}

int gradreg_i_places_differ(const gradreg_context *context)
{
    return context->device_ops != NULL || gradreg_i_device_loaded() != NULL;
}

/* "buffers.grads", or "buffers.grad_pointers[3]". */
static const char *name_pointer(char *out, size_t bytes, const gr_pointer *p)
{
    if (p->index < 0)
        (void)snprintf(out, bytes, "%s%s", p->owner, p->name);
    else
        (void)snprintf(out, bytes, "%s%s[%lld]", p->owner, p->name, (long long)p->index);
    return out;
}

gradreg_status gradreg_i_check_place(gradreg_context *context, const gr_pointer *pointer)
{
    const gr_device *device =
        context->device_ops != NULL ? context->device_ops : gradreg_i_device_loaded();
    const int on_host = context->device_ops == NULL;
    gr_place place;
    char name[96];

    if (device == NULL || pointer->at == NULL)
        return GRADREG_OK;
    const gradreg_status looked_up = device->look_up(&place, pointer->at);
    if (looked_up != GRADREG_OK) /* a device that has crashed is none of the host's business */
        return on_host ? GRADREG_OK : looked_up;
    if (place.kind == GR_PLACE_SHARED ||
        (place.kind == GR_PLACE_HOST && (on_host || device->reaches_host(context->device))) ||
        (place.kind == GR_PLACE_DEVICE && !on_host && place.device == context->params.device))
        return GRADREG_OK;
    name_pointer(name, sizeof(name), pointer);
    GR_REQUIRE(place.kind != GR_PLACE_HOST,
               "%s = %p is host memory, expected memory of CUDA device %ld", name, pointer->at,
               (long)context->params.device);
    GR_REQUIRE(on_host, "%s = %p is memory of CUDA device %ld, the context is on device %ld",
               name, pointer->at, (long)place.device, (long)context->params.device);
    return GR_FAIL(GRADREG_ERROR_INVALID_ARGUMENT,
                   "%s = %p is memory of CUDA device %ld, expected host memory: the context's "
                   "backend is the %s",
                   name, pointer->at, (long)place.device,
                   find_backend(context->params.backend)->called);
}

gradreg_status gradreg_i_check_places(gradreg_context *context, const gr_pointer *pointers,
                                      size_t count)
{
    uint64_t hash = GR_HASH_START;
    if (!gradreg_i_places_differ(context))
        return GRADREG_OK;
    for (size_t i = 0; i < count; i++)
        hash = gr_hash(hash, (uintptr_t)pointers[i].at);
    if (hash == context->checked_places)
        return GRADREG_OK;
    for (size_t i = 0; i < count; i++)
        GR_TRY(gradreg_i_check_place(context, &pointers[i]));
    context->checked_places = hash;
    return GRADREG_OK;
}

/* ---- the other entries ----------------------------------------------------------- */

gradreg_status gradreg_context_set_stream(gradreg_context *context, void *stream)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(context);
    GR_REQUIRE(stream == NULL || context->device_ops != NULL,
               "argument 'stream' is %p, expected NULL: the %s has no streams", stream,
               find_backend(context->params.backend)->called);
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    const gradreg_status status = context->device_ops != NULL
                                      ? context->device_ops->set_stream(context->device, stream)
                                      : GRADREG_OK;
    if (status == GRADREG_OK)
        context->stream = stream;
    gradreg_i_busy_leave(&context->busy);
    return status;
}

gradreg_status gradreg_context_synchronize(gradreg_context *context)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(context);
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    /* Nothing is ever queued in host memory: every call has finished when it returns. */
    const gradreg_status status = context->device_ops != NULL
                                      ? context->device_ops->synchronize(context->device)
                                      : GRADREG_OK;
    gradreg_i_busy_leave(&context->busy);
    return status;
}

gradreg_status gradreg_context_info(const gradreg_context *context,
                                    struct gradreg_context_info *out)
{
    struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;

    GR_ENTER();
    GR_REQUIRE_POINTER(context);
    GR_REQUIRE_POINTER(out);
    GR_TRY(gradreg_i_struct_check(out, INFO_MINIMUM, "out"));
    info.backend = context->params.backend;
    info.device = context->params.device;
    info.threads = atomic_load(&context->pool.threads);
    info.bytes_held = atomic_load(&context->bytes_held);
    info.allocations = atomic_load(&context->allocations);
    find_backend(context->params.backend)->name(context, &info);
    gradreg_i_struct_write(out, &info, sizeof(info));
    return GRADREG_OK;
}

gradreg_status gradreg_i_scratch(gradreg_context *context, size_t bytes)
{
    if (bytes <= context->scratch_bytes)
        return GRADREG_OK;
    void *scratch = gradreg_i_allocate(context, bytes, GRADREG_MEMORY_BACKEND);
    if (scratch == NULL)
        return GRADREG_ERROR_OUT_OF_MEMORY;
    gradreg_i_release(context, context->scratch, context->scratch_bytes,
                      GRADREG_MEMORY_BACKEND);
    context->scratch = scratch;
    context->scratch_bytes = bytes;
    return GRADREG_OK;
}

gradreg_status gradreg_context_reserve(gradreg_context *context, size_t bytes)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(context);
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    const gradreg_status status = gradreg_i_scratch(context, bytes);
    gradreg_i_busy_leave(&context->busy);
    return status;
}
