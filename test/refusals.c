/* refusals.c - see refusals.h. */
#include "refusals.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

gradreg_context *context;
counting_allocator allocator;

static const void *watched;
static size_t watched_bytes;
static unsigned char before[16384];

void refusals_open(void *block, size_t bytes)
{
    gradreg_context_params how = GRADREG_CONTEXT_PARAMS_INIT;
    ck_assert_uint_le(bytes, sizeof(before));
    memset(block, 0, bytes);
    watched = block;
    watched_bytes = bytes;
    memset(&allocator, 0, sizeof(allocator));
    how.allocator = counting_hook(&allocator);
    how.threads = 1;
    assert_ok(test_context_create(&context, &how));
}

void refusals_close(void)
{
    assert_ok(gradreg_context_destroy(context));
    counting_check(&allocator);
}

void refusals_remember(void)
{
    ck_assert_ptr_nonnull(watched);
    memcpy(before, watched, watched_bytes);
}

void refusals_unchanged(const char *call)
{
    if (memcmp(before, watched, watched_bytes) != 0)
        ck_abort_msg("%s: wrote something", call);
}

void refusals_of_init(const struct init_row *row)
{
    const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;
    const size_t sizes[] = { 0, 1, row->size - 1, 4097, SIZE_MAX };
    unsigned char room[512];
    ck_assert_uint_lt(row->size + 16, sizeof(room));
    memset(room, 7, sizeof(room));
    assert_fails((row->function)(NULL, row->size), invalid, row->name, "'out'", "NULL");
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char value[32];
        (void)snprintf(value, sizeof(value), "%zu", sizes[i]);
        assert_fails((row->function)(room, sizes[i]), invalid, row->name, "struct_size", value);
        for (size_t k = 0; k < sizeof(room); k++)
            ck_assert(room[k] == 7);
    }
    coverage_note(row->name, invalid, true);
    assert_ok(row->function(room, row->size + 16));
    coverage_note(row->name, GRADREG_OK, false);
    for (size_t k = row->size; k < row->size + 16; k++)
        ck_assert(room[k] == 0);
    ck_assert(room[row->size + 16] == 7);
}

void refusals_of_size(uint32_t *struct_size, const char *field, refusal *refuse)
{
    const uint32_t good = *struct_size, bad[] = { 0, 4, good - 1, 4097, UINT32_MAX };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char value[32];
        (void)snprintf(value, sizeof(value), "%lu", (unsigned long)bad[i]);
        *struct_size = bad[i];
        refuse(GRADREG_ERROR_INVALID_ARGUMENT, field, value);
    }
    *struct_size = good;
}

/* ---- two users -------------------------------------------------------------------- */

static void (*second_user)(void);
static int visits;

static void call_from_within(void *user, size_t count, void (*body)(void *task, size_t index),
                             void *task)
{
    (void)user;
    visits++;
    second_user();
    for (size_t i = 0; i < count; i++)
        body(task, i);
}

void refusals_in_use(void (*use)(void), void (*meanwhile)(void))
{
    gradreg_context *const ours = context;
    gradreg_context_params how = GRADREG_CONTEXT_PARAMS_INIT;
    how.parallel_for.function = call_from_within;
    how.threads = 4;
    second_user = meanwhile;
    visits = 0;
    assert_ok(test_context_create(&context, &how));
    use();
    ck_assert_int_gt(visits, 0);
    assert_ok(gradreg_context_destroy(context));
    context = ours;
}

int refusals_run(Suite *suite, bool (*mine)(const char *name))
{
    const int result = run_suite(suite);
    if (getenv("CK_RUN_CASE") != NULL || getenv("CK_RUN_SUITE") != NULL)
        return result; /* only a part was asked for */
    return coverage_complete_of(GR_TEST_HEADER, mine) || on_cuda() ? result : EXIT_FAILURE;
}
