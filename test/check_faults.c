/* check_faults.c - everything that can fail, failing, at every point.
 *
 * Memory from the caller's hook and from the C library, once and from then on; the caller's
 * all_reduce at each of its calls in a step; threads that cannot be started. What fails leaves
 * nothing behind and says so, and the same call succeeds as soon as it may. And the other way
 * round: what is promised to allocate nothing is watched by the C library's own allocation
 * functions. main() prints how many calls were made to fail; fewer than before fail the suite. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bad_input.h"
#include "rig.h"

/* So many of each kind a run makes fail at least. */
enum { LEAST_HOOK = 52, LEAST_LIBRARY = 24, LEAST_REDUCE = 138, LEAST_THREADS = 3 };

/* Shared with the processes that tests run in. */
static struct provoked {
    unsigned hook, library, reduce, threads;
} * provoked;

/* ---- the C library's allocation functions ------------------------------------------ */

/* The linker sends every call of them here. */
static _Atomic int watching;
static _Atomic size_t seen, fail_at;
static _Atomic long live;

static bool shall_fail(void)
{
    if (!atomic_load(&watching))
        return false;
    return atomic_fetch_add(&seen, 1) + 1 == atomic_load(&fail_at);
}

static void *count(void *memory)
{
    if (atomic_load(&watching) && memory != NULL)
        atomic_fetch_add(&live, 1);
    return memory;
}

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
int __real_posix_memalign(void **out, size_t alignment, size_t bytes);
void __real_free(void *memory);
int __real_pthread_create(pthread_t *out, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes);
void __wrap_free(void *memory);
int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);

void *__wrap_malloc(size_t bytes)
{
    return shall_fail() ? NULL : count(__real_malloc(bytes));
}

void *__wrap_calloc(size_t elements, size_t bytes)
{
    return shall_fail() ? NULL : count(__real_calloc(elements, bytes));
}

void *__wrap_realloc(void *old, size_t bytes)
{
    return shall_fail() ? NULL : __real_realloc(old, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return shall_fail() ? NULL : count(__real_aligned_alloc(alignment, bytes));
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes)
{
    if (shall_fail())
        return 12; /* ENOMEM */
    const int result = __real_posix_memalign(out, alignment, bytes);
    (void)count(result == 0 ? *out : NULL);
    return result;
}

void __wrap_free(void *memory)
{
    if (atomic_load(&watching) && memory != NULL)
        atomic_fetch_sub(&live, 1);
    __real_free(memory);
}

static void watch(size_t fail_which)
{
    atomic_store(&seen, 0);
    atomic_store(&live, 0);
    atomic_store(&fail_at, fail_which);
    atomic_store(&watching, 1);
}

/* Calls seen since watch(). */
static size_t stop_watching(void)
{
    atomic_store(&watching, 0);
    return atomic_load(&seen);
}

/* ---- what allocates ---------------------------------------------------------------- */

static const struct mode ranks = { .name = "ranks", .world = 2 };
static const struct mode everything = { .name = "everything",
                                        .difference = GRADREG_DIFFERENCE_CENTRAL,
                                        .first_gradient = GRADREG_FIRST_GRADIENT_COPIED,
                                        .interval = 3 };
static const struct mode nothing_held = { .name = "little",
                                          .first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS,
                                          .placement = GRADREG_PLACEMENT_OUT_OF_PLACE };
static const struct mode *const descriptions[] = { &plain_mode, &everything, &nothing_held,
                                                   &ranks };
enum { DESCRIPTIONS = sizeof(descriptions) / sizeof(descriptions[0]) };

/* One thing that a caller may ask for, in a caller of its own. Nothing here may assert: Check's own
 * memory would be counted. */
struct request {
    const char *name;
    gradreg_status (*ask)(struct caller *c);
    void (*undo)(struct caller *c);
    bool whole; /* the hook is a new context's, not that of the caller's own */
};

static gradreg_status ask_context(struct caller *c)
{
    return gradreg_context_create(&c->own.context_out, &c->own.context_params);
}

static void undo_context(struct caller *c)
{
    assert_ok(gradreg_context_destroy(c->own.context_out));
}

static gradreg_status ask_regularizer(struct caller *c)
{
    return gradreg_regularizer_create(&c->own.regularizer_out, c->context, c->own.segments,
                                      CALLER_SEGMENTS, &c->own.params);
}

static void undo_regularizer(struct caller *c)
{
    assert_ok(gradreg_regularizer_destroy(c->own.regularizer_out));
}

static gradreg_status ask_bytes(struct caller *c)
{
    return gradreg_regularizer_workspace_bytes(&c->own.size, c->context, c->own.segments,
                                               CALLER_SEGMENTS, &c->own.params);
}

static void undo_nothing(struct caller *c)
{
    (void)c;
}

static size_t reserved; /* never shrinks: each request is larger */

static gradreg_status ask_reserve(struct caller *c)
{
    reserved += 64;
    return gradreg_context_reserve(c->context, reserved);
}

static const struct request requests[] = {
    { "gradreg_context_create", ask_context, undo_context, true },
    { "gradreg_regularizer_create", ask_regularizer, undo_regularizer, false },
    { "gradreg_regularizer_workspace_bytes", ask_bytes, undo_nothing, false },
    { "gradreg_context_reserve", ask_reserve, undo_nothing, false },
};
enum { REQUESTS = sizeof(requests) / sizeof(requests[0]), UNTOUCHED = 1234567 };

/* Handles must become NULL, numbers must stay. */
static void spoil_outputs(struct caller *c)
{
    c->own.context_out = (gradreg_context *)c;
    c->own.regularizer_out = (gradreg_regularizer *)c;
    c->own.size = UNTOUCHED;
}

static void check_outputs(const struct caller *c, const struct request *request)
{
    if (request->ask == ask_context)
        ck_assert_ptr_null(c->own.context_out);
    if (request->ask == ask_regularizer)
        ck_assert_ptr_null(c->own.regularizer_out);
    ck_assert_uint_eq(c->own.size, UNTOUCHED);
}

static uint64_t bytes_held(const struct caller *c)
{
    struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;
    assert_ok(gradreg_context_info(c->context, &info));
    return info.bytes_held;
}

static void check_refused(const struct request *request, gradreg_status status,
                          const char *sentence)
{
    char start[128];

    (void)snprintf(start, sizeof(start), "%s: ", request->name);
    ck_assert_int_eq(status, GRADREG_ERROR_OUT_OF_MEMORY);
    ck_assert_msg(strncmp(gradreg_last_error(), start, strlen(start)) == 0 &&
                      strstr(gradreg_last_error(), sentence) != NULL,
                  "%s: the sentence is \"%s\"", request->name, gradreg_last_error());
}

/* ---- memory from the hook ---------------------------------------------------------- */

static struct caller *open_request(const struct request *request, const struct mode *mode)
{
    struct caller *c = caller_open(mode);

    reserved = 0;
    if (request->whole)
        c->own.context_params.allocator = counting_hook(&c->allocator);
    return c;
}

/* How often the hook is called when all goes well. */
static size_t calls_wanted(const struct request *request, const struct mode *mode)
{
    struct caller *c = open_request(request, mode);
    const size_t before = c->allocator.calls;

    assert_ok(request->ask(c));
    const size_t calls = c->allocator.calls - before;
    request->undo(c);
    caller_close(c);
    return calls;
}

static void fail_hook(const struct request *request, const struct mode *mode, size_t which,
                      bool onwards)
{
    struct caller *c = open_request(request, mode);
    const size_t live_before = c->allocator.live, failed = c->allocator.failed;
    const uint64_t held = bytes_held(c);

    c->allocator.fail_at = c->allocator.calls + which;
    c->allocator.fail_onwards = onwards;
    spoil_outputs(c);
    check_refused(request, request->ask(c), "allocator.allocate gave NULL");
    check_outputs(c, request);
    ck_assert_uint_eq(c->allocator.failed, failed + 1);
    ck_assert_uint_eq(c->allocator.live, live_before);
    ck_assert_uint_eq(bytes_held(c), held);
    c->allocator.fail_onwards = false;
    assert_ok(request->ask(c));
    request->undo(c);
    caller_lead_to(c, caller_can(mode, COMBINE) ? COMBINE : REUSE);
    (void)caller_go_on(c);
    caller_close(c);
    provoked->hook++;
}

START_TEST(memory_from_the_hook_may_end_at_every_point)
{
    const struct request *request = &requests[_i % REQUESTS];
    const struct mode *mode = descriptions[_i / REQUESTS];
    const size_t calls = calls_wanted(request, mode);

    ck_assert_uint_ge(calls, 1);
    for (size_t which = 1; which <= calls; which++)
        for (int onwards = 0; onwards < 2; onwards++)
            fail_hook(request, mode, which, onwards != 0);
}
END_TEST

/* An allocator that gives back what it cannot align has failed as well. */
static void *allocate_crooked(void *user, size_t bytes, size_t alignment, gradreg_memory memory)
{
    size_t *calls = user;
    (void)memory;
    char *block = aligned_alloc(alignment, (bytes + 2 * alignment) / alignment * alignment);
    if (block == NULL || --*calls != 0)
        return block;
    return block + alignment / 2;
}

static void release_crooked(void *user, void *pointer, size_t bytes, gradreg_memory memory)
{
    (void)user, (void)bytes, (void)memory;
    free((void *)((uintptr_t)pointer & ~(uintptr_t)63));
}

START_TEST(misaligned_memory_is_no_memory)
{
    struct caller *c = caller_open(&plain_mode);

    for (size_t which = 1; which <= 4; which++) {
        size_t left = which;
        gradreg_context *context = NULL;
        gradreg_regularizer *reg = NULL;
        gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
        params.allocator =
            (gradreg_allocator){ allocate_crooked, release_crooked, &left, NULL };
        gradreg_status status = gradreg_context_create(&context, &params);
        if (status == GRADREG_OK)
            status = gradreg_regularizer_create(&reg, context, c->own.segments, CALLER_SEGMENTS,
                                                &c->own.params);
        ck_assert_int_eq(status, GRADREG_ERROR_OUT_OF_MEMORY);
        ck_assert_ptr_nonnull(strstr(gradreg_last_error(), "alignment to 64"));
        assert_ok(gradreg_context_destroy(context));
        provoked->hook++;
    }
    caller_close(c);
}
END_TEST

/* ---- memory from the C library ----------------------------------------------------- */

/* A caller whose context has no hook: a second context beside its own. */
static struct caller *open_without_hook(const struct mode *mode, gradreg_context **hooked)
{
    struct caller *c = caller_open(mode);

    reserved = 0;
    *hooked = c->context;
    assert_ok(gradreg_context_create(&c->context, NULL));
    return c;
}

static void close_without_hook(struct caller *c, gradreg_context *hooked)
{
    assert_ok(gradreg_context_destroy(c->context));
    c->context = hooked;
    caller_close(c);
}

static void fail_library(const struct request *request, const struct mode *mode, size_t which)
{
    gradreg_context *hooked;
    struct caller *c = open_without_hook(mode, &hooked);

    spoil_outputs(c);
    watch(which);
    const gradreg_status status = request->ask(c);
    const size_t calls = stop_watching();
    check_refused(request, status, "no memory");
    check_outputs(c, request);
    ck_assert_uint_eq(calls, which);
    ck_assert_int_eq(atomic_load(&live), 0);
    assert_ok(request->ask(c));
    request->undo(c);
    close_without_hook(c, hooked);
    provoked->library++;
}

START_TEST(memory_from_the_library_may_end_at_every_point)
{
    const struct request *request = &requests[_i % REQUESTS];
    const struct mode *mode = descriptions[_i / REQUESTS];
    gradreg_context *hooked;
    struct caller *c = open_without_hook(mode, &hooked);

    watch(0);
    const gradreg_status status = request->ask(c);
    const size_t calls = stop_watching();
    assert_ok(status);
    request->undo(c);
    close_without_hook(c, hooked);
    ck_assert_uint_ge(calls, 1);
    for (size_t which = 1; which <= calls; which++)
        fail_library(request, mode, which);
}
END_TEST

/* ---- all_reduce -------------------------------------------------------------------- */

#define RANKS(...)              \
    {                           \
        .world = 2, __VA_ARGS__ \
    }
static const struct mode reducing[] = {
    RANKS(.name = "forward"),
    RANKS(.name = "central, adds", .difference = GRADREG_DIFFERENCE_CENTRAL,
          .second_gradient = GRADREG_SECOND_GRADIENT_ADDS),
    RANKS(.name = "keeps, elsewhere", .first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS,
          .placement = GRADREG_PLACEMENT_OUT_OF_PLACE),
    RANKS(.name = "central, master, caller's direction",
          .difference = GRADREG_DIFFERENCE_CENTRAL, .restore = GRADREG_RESTORE_MASTER,
          .direction = GRADREG_DIRECTION_CALLER),
    RANKS(.name = "random direction, pointers", .pointers = true,
          .direction = GRADREG_DIRECTION_RADEMACHER),
    RANKS(.name = "interval", .interval = 2),
};
enum { REDUCING = sizeof(reducing) / sizeof(reducing[0]) };

/* The second reduction of combine and fallback comes when everything is written. */
static bool is_complete(void)
{
    return strstr(gradreg_last_error(), "the step is complete") != NULL;
}

static void check_lost_report(struct caller *c)
{
    double epsilon;

    assert_ok(
        gradreg_regularizer_terms(c->regularizer, &c->own.total, c->own.layers, CALLER_LAYERS));
    ck_assert(c->own.total.first_norm != c->own.total.first_norm);
    ck_assert(c->own.layers[1].update_norm != c->own.layers[1].update_norm);
    ck_assert_mem_eq(c->own.elements[PARAMS], c->own.elements[MASTER_PARAMS],
                     CALLER_ELEMENTS * sizeof(float));
    /* The handle is idle: another step may begin. */
    ck_assert_int_ne(
        gradreg_regularizer_suggest_epsilon(c->regularizer, &epsilon, &c->own.buffers, 0.5),
        GRADREG_ERROR_STATE);
}

/* Makes reduction `which` of this call fail; then all is as it was, or the step is complete and
 * its gradients are those of a step in which nothing failed. */
static void fail_reduction(const struct mode *mode, enum call call, size_t which,
                           const struct belongings *good, uint64_t digest)
{
    struct caller *c = caller_open(mode);

    caller_lead_to(c, call);
    c->fail_reduce_at = c->reduce_calls + which;
    c->reduce_result = 1 + (int32_t)which;
    memcpy(&c->before, &c->own, sizeof(c->own));
    assert_status(caller_do(c, call), GRADREG_ERROR_COMMUNICATION);
    c->fail_reduce_at = SIZE_MAX;
    if (is_complete()) {
        ck_assert(which == 2 && (call == COMBINE || call == REUSE || call == FALLBACK));
        ck_assert_mem_eq(c->own.elements[GRADS], good->elements[GRADS],
                         sizeof(good->elements[GRADS]));
        check_lost_report(c);
    } else {
        ck_assert_mem_eq(&c->before, &c->own, sizeof(c->own));
        ck_assert_uint_eq(caller_go_on(c), digest);
    }
    caller_close(c);
    provoked->reduce++;
}

/* For ever: the step can still be left, with theta as it was. */
static void leave_without_ranks(const struct mode *mode, enum call call)
{
    struct caller *c = caller_open(mode);

    caller_lead_to(c, call);
    c->fail_reduce_at = 0;
    c->reduce_result = -1;
    assert_status(caller_do(c, call), GRADREG_ERROR_COMMUNICATION);
    assert_status(caller_do(c, call), GRADREG_ERROR_COMMUNICATION);
    assert_ok(gradreg_regularizer_cancel(c->regularizer, &c->own.buffers));
    ck_assert_mem_eq(c->own.elements[PARAMS], c->own.elements[MASTER_PARAMS],
                     CALLER_ELEMENTS * sizeof(float));
    caller_close(c);
    provoked->reduce += 2;
}

START_TEST(all_reduce_may_fail_at_every_call)
{
    const struct mode *mode = &reducing[_i / CALLS];
    const enum call call = (enum call)(_i % CALLS);
    static struct belongings good;

    if (!caller_can(mode, call))
        return;
    const uint64_t digest = caller_undisturbed(mode, call);
    struct caller *c = caller_open(mode);
    caller_lead_to(c, call);
    const size_t before = c->reduce_calls;
    assert_ok(caller_do(c, call));
    const size_t calls = c->reduce_calls - before;
    memcpy(&good, &c->own, sizeof(good));
    assert_ok(gradreg_regularizer_cancel(c->regularizer, &c->own.buffers));
    caller_close(c);

    for (size_t which = 1; which <= calls; which++)
        fail_reduction(mode, call, which, &good, digest);
    if (calls > 0)
        leave_without_ranks(mode, call);
}
END_TEST

/* ---- threads ----------------------------------------------------------------------- */

static _Atomic int threads_left = 1000;

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument)
{
    if (atomic_fetch_sub(&threads_left, 1) <= 0) {
        provoked->threads++;
        return 11; /* EAGAIN */
    }
    return __real_pthread_create(out, attributes, start, argument);
}

/* Several pieces of 65,536 elements each, so that there is work for threads. */
static const gradreg_segment wide_table[] = {
    { 0, 150001, 0, 0, 0, GRADREG_ROLE_ATTENTION, 0, 0, 0, { 0 } },
    { 150001, 70003, 0, 0, 1, GRADREG_ROLE_MLP, 0, 0, 0, { 0 } },
    { 220004, 9, 0, 0, GRADREG_LAYER_NONE, GRADREG_ROLE_HEAD, 0, 0, 0, { 0 } },
};

static gradreg_regularizer_params wide_params(void)
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.layer_count = 2;
    p.difference = GRADREG_DIFFERENCE_CENTRAL;
    p.noise.rule = GRADREG_NOISE_RELATIVE;
    p.noise.first_layer = p.noise.last_layer = 0;
    p.rounding = GRADREG_ROUNDING_STOCHASTIC;
    return p;
}

static void whole_step(rig *r)
{
    double epsilon;
    gradreg_terms total = GRADREG_TERMS_INIT;

    assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    rig_gradient(r, 11, true);
    assert_ok(gradreg_regularizer_suggest_epsilon(r->reg, &epsilon, &r->buffers, 0.9));
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    rig_gradient(r, 12, false);
    assert_ok(gradreg_regularizer_mirror(r->reg, &r->buffers));
    rig_gradient(r, 13, false);
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    assert_ok(gradreg_regularizer_terms(r->reg, &total, NULL, 0));
}

static rig *open_wide(const gradreg_regularizer_params *params, int32_t threads)
{
    const rig_setup setup = { .threads = threads };
    rig *r = rig_open(wide_table, 3, params, &setup);

    rig_numbers(r, RIG_PARAMS, 1, -4);
    return r;
}

static uint64_t bits_with(int32_t threads, int may_start, int32_t *working)
{
    const gradreg_regularizer_params p = wide_params();
    rig *r = open_wide(&p, threads);
    struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;

    atomic_store(&threads_left, may_start);
    whole_step(r);
    whole_step(r);
    atomic_store(&threads_left, 1000);
    assert_ok(gradreg_context_info(r->context, &info));
    *working = info.threads;
    const uint64_t bits = rig_digest(r, RIG_GRADS);
    rig_close(r);
    return bits;
}

START_TEST(a_step_needs_no_thread_but_the_callers)
{
    int32_t working;
    const uint64_t bits = bits_with(1, 0, &working);

    for (int may_start = 0; may_start < 4; may_start++) {
        ck_assert_uint_eq(bits_with(4, may_start, &working), bits);
        ck_assert_int_eq(working, 1 + (may_start < 3 ? may_start : 3));
    }
}
END_TEST

/* ---- nothing in a step allocates --------------------------------------------------- */

static const struct {
    const char *name;
    int32_t threads;
    gradreg_difference difference;
    gradreg_step step;
    gradreg_direction direction;
    int32_t interval;
} quiet[] = {
    { "one thread", 1, GRADREG_DIFFERENCE_CENTRAL, GRADREG_STEP_RAW, 0, 1 },
    { "two threads", 2, GRADREG_DIFFERENCE_CENTRAL, GRADREG_STEP_RELATIVE, 0, 1 },
    { "random", 2, GRADREG_DIFFERENCE_CENTRAL, GRADREG_STEP_NORMALIZED,
      GRADREG_DIRECTION_GAUSSIAN, 1 },
};
enum { QUIET = sizeof(quiet) / sizeof(quiet[0]) };

static uint64_t allocations(const rig *r)
{
    struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;
    assert_ok(gradreg_context_info(r->context, &info));
    return info.allocations;
}

/* Of the step's calls alone: the trainer's gradients may allocate. */
static void quiet_call(const rig *r, gradreg_status status, const char *call)
{
    const size_t calls = stop_watching();

    (void)r;
    ck_assert_msg(status == GRADREG_OK, "%s: %s", call, gradreg_last_error());
    ck_assert_msg(calls == 0, "%s allocated %zu times", call, calls);
}

#define QUIET_CALL(function, ...)                                                   \
    do {                                                                            \
        watch(0);                                                                   \
        const gradreg_status status_ = gradreg_regularizer_##function(__VA_ARGS__); \
        quiet_call(r, status_, #function);                                          \
    } while (0)

static void quiet_step(rig *r)
{
    static gradreg_terms total = GRADREG_TERMS_INIT;
    static double rows[3 * GRADREG_TERMS_COLUMNS];
    double epsilon;
    int32_t number;

    QUIET_CALL(extra_passes, r->reg, &number);
    QUIET_CALL(inject_noise, r->reg, &r->buffers);
    QUIET_CALL(remove_noise, r->reg, &r->buffers);
    QUIET_CALL(inject_noise, r->reg, &r->buffers);
    rig_gradient(r, 11, true);
    QUIET_CALL(suggest_epsilon, r->reg, &epsilon, &r->buffers, 0.9);
    QUIET_CALL(perturb, r->reg, &r->buffers);
    QUIET_CALL(cancel, r->reg, &r->buffers);
    rig_gradient(r, 11, true);
    QUIET_CALL(perturb, r->reg, &r->buffers);
    QUIET_CALL(fallback, r->reg, &r->buffers);
    rig_gradient(r, 11, true);
    QUIET_CALL(perturb, r->reg, &r->buffers);
    rig_gradient(r, 12, false);
    QUIET_CALL(mirror, r->reg, &r->buffers);
    rig_gradient(r, 13, false);
    QUIET_CALL(combine, r->reg, &r->buffers);
    QUIET_CALL(terms, r->reg, &total, NULL, 0);
    QUIET_CALL(terms_enqueue, r->reg, rows);
    QUIET_CALL(set_strength, r->reg, 0.5);
    QUIET_CALL(set_epsilon, r->reg, 0.5);
    QUIET_CALL(set_step, r->reg, 3);
}

START_TEST(nothing_in_a_step_allocates)
{
    gradreg_regularizer_params p = wide_params();

    p.difference = quiet[_i].difference;
    p.step = quiet[_i].step;
    p.direction = quiet[_i].direction;
    rig *r = open_wide(&p, quiet[_i].threads);
    whole_step(r); /* starts the pool */
    const uint64_t before = allocations(r);
    quiet_step(r);
    ck_assert_uint_eq(allocations(r), before);
    rig_close(r);
}
END_TEST

/* ---- workspace_bytes --------------------------------------------------------------- */

/* The product of what decides over memory. Combinations that create refuses, both refuse. */
static gradreg_regularizer_params nth_params(unsigned n)
{
    static const gradreg_type pairs[5][2] = {
        { 1, 1 }, { 2, 1 }, { 2, 2 }, { 3, 1 }, { 3, 3 }
    };
    static const gradreg_direction directions[2] = { GRADREG_DIRECTION_GRADIENT,
                                                     GRADREG_DIRECTION_CALLER };
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.layer_count = CALLER_LAYERS;
    p.param_type = pairs[n % 5][0];
    p.grad_type = pairs[n % 5][1];
    n /= 5;
    p.difference = n % 2 == 0 ? GRADREG_DIFFERENCE_FORWARD : GRADREG_DIFFERENCE_CENTRAL;
    p.first_gradient = (gradreg_first_gradient)(1 + n / 2 % 2);
    p.placement = (gradreg_placement)(1 + n / 4 % 2);
    p.restore = (gradreg_restore)(1 + n / 8 % 2);
    p.direction = directions[n / 16 % 2];
    p.output = (gradreg_output)(1 + n / 32 % 2);
    p.second_pass = (gradreg_second_pass)(1 + n / 64 % 2);
    p.common_clip = p.second_pass == GRADREG_SECOND_PASS_TRUNCATED;
    p.interval = 1 + (int32_t)(n / 128 % 2) * 4;
    p.depth = (gradreg_depth)(1 + n / 256 % 2);
    p.noise.rule = n / 512 % 2 == 0 ? GRADREG_NOISE_OFF : GRADREG_NOISE_NEFTUNE;
    return p;
}
enum { PRODUCT = 5 * 1024, PORTIONS = 8 };

static bool measure(struct caller *c)
{
    size_t bytes = 0;
    gradreg_regularizer *reg = NULL;
    const uint64_t before = bytes_held(c);
    const gradreg_status asked = gradreg_regularizer_workspace_bytes(
        &bytes, c->context, c->own.segments, CALLER_SEGMENTS, &c->own.params);

    ck_assert_uint_eq(bytes_held(c), before);
    assert_status(gradreg_regularizer_create(&reg, c->context, c->own.segments, CALLER_SEGMENTS,
                                             &c->own.params),
                  asked);
    ck_assert_uint_eq(bytes_held(c) - before, bytes);
    assert_ok(gradreg_regularizer_destroy(reg));
    ck_assert_uint_eq(bytes_held(c), before);
    return asked == GRADREG_OK;
}

START_TEST(workspace_bytes_is_what_is_held)
{
    struct caller *c = caller_open(&plain_mode);
    unsigned measured = 0;

    for (unsigned n = (unsigned)_i; n < PRODUCT; n += PORTIONS) {
        c->own.params = nth_params(n);
        if (n % 3 == 0) { /* ranks need room to exchange sums */
            c->own.params.world = 5;
            c->own.params.all_reduce.function = (int32_t(*)(void *, double *, size_t, void *))1;
        }
        measured += measure(c);
    }
    ck_assert_uint_gt(measured, PRODUCT / PORTIONS / 4);
    caller_close(c);
}
END_TEST

/* ---- main -------------------------------------------------------------------------- */

static bool enough(const char *what, unsigned count, unsigned least)
{
    printf("%u %s made to fail\n", count, what);
    if (count >= least)
        return true;
    fprintf(stderr, "fewer than %u: something is no longer reached\n", least);
    return false;
}

int main(void)
{
    Suite *suite = suite_create("faults");
    TCase *tests = tcase_create("faults");

    coverage_open();
    provoked = mmap(NULL, sizeof(*provoked), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                    -1, 0);
    if (provoked == MAP_FAILED)
        return EXIT_FAILURE;
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, memory_from_the_hook_may_end_at_every_point, 0,
                        REQUESTS * DESCRIPTIONS);
    tcase_add_test(tests, misaligned_memory_is_no_memory);
    tcase_add_loop_test(tests, memory_from_the_library_may_end_at_every_point, 0,
                        REQUESTS * DESCRIPTIONS);
    tcase_add_loop_test(tests, all_reduce_may_fail_at_every_call, 0, REDUCING * CALLS);
    tcase_add_test(tests, a_step_needs_no_thread_but_the_callers);
    tcase_add_loop_test(tests, nothing_in_a_step_allocates, 0, QUIET);
    tcase_add_loop_test(tests, workspace_bytes_is_what_is_held, 0, PORTIONS);
    suite_add_tcase(suite, tests);
    const int result = run_suite(suite);
    if (getenv("CK_RUN_CASE") != NULL || getenv("CK_RUN_SUITE") != NULL)
        return result;
    bool all = enough("calls of the allocator hook", provoked->hook, LEAST_HOOK);
    all = enough("calls of the C library", provoked->library, LEAST_LIBRARY) && all;
    all = enough("calls of all_reduce", provoked->reduce, LEAST_REDUCE) && all;
    all = enough("starts of a thread", provoked->threads, LEAST_THREADS) && all;
    return all ? result : EXIT_FAILURE;
}
