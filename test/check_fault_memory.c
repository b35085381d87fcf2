/* check_fault_memory.c - the part of the faults for memory: from the caller's hook and from the C
 * library, once and from then on, in everything that allocates; and that what was asked for is
 * what is held. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bad_input.h"
#include "faults.h"

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
    return info_of(c->context).bytes_held;
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
    ck_assert_int_eq(blocks_left(), 0);
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

/* Without a context there is only the C library. */
START_TEST(memory_of_a_call_without_a_context_may_end)
{
    static const int32_t tokens[] = { 1, 2, 1, 2, 3 };
    double share = UNTOUCHED;
    struct caller *c = caller_open(&plain_mode);

    make_sentence_stale();
    watch(1);
    gradreg_status status = gradreg_distinct_ngrams(&share, tokens, 5, 2);
    size_t calls = stop_watching();
    ck_assert_int_eq(status, GRADREG_ERROR_OUT_OF_MEMORY);
    ck_assert_ptr_nonnull(strstr(gradreg_last_error(), "gradreg_distinct_ngrams: no memory"));
    ck_assert_uint_eq(calls, 1);
    ck_assert_int_eq(blocks_left(), 0);
    ck_assert(share == UNTOUCHED);
    provoked->library++;
    watch(0);
    status = gradreg_distinct_ngrams(&share, tokens, 5, 2);
    calls = stop_watching();
    assert_ok(status);
    ck_assert_uint_eq(calls, 1);
    ck_assert_int_eq(blocks_left(), 0);
    ck_assert(share == 0.75);
    caller_close(c);
}
END_TEST

/* ---- workspace_bytes --------------------------------------------------------------- */

/* The product of what decides over memory. Combinations that create refuses, both refuse. */
static gradreg_regularizer_params nth_params(unsigned n)
{
    static const gradreg_direction directions[2] = { GRADREG_DIRECTION_GRADIENT,
                                                     GRADREG_DIRECTION_CALLER };
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.layer_count = CALLER_LAYERS;
    p.param_type = type_pairs[n % TYPE_PAIRS].param;
    p.grad_type = type_pairs[n % TYPE_PAIRS].grad;
    n /= TYPE_PAIRS;
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

TCase *memory_faults_case(void)
{
    TCase *tests = tcase_create("memory");

    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, memory_from_the_hook_may_end_at_every_point, 0,
                        REQUESTS * DESCRIPTIONS);
    tcase_add_test(tests, misaligned_memory_is_no_memory);
    tcase_add_loop_test(tests, memory_from_the_library_may_end_at_every_point, 0,
                        REQUESTS * DESCRIPTIONS);
    tcase_add_test(tests, memory_of_a_call_without_a_context_may_end);
    tcase_add_loop_test(tests, workspace_bytes_is_what_is_held, 0, PORTIONS);
    return tests;
}
