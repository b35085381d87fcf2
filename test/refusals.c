/* refusals.c - see refusals.h. */
#include "refusals.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const void *watched;
static size_t watched_bytes;
static unsigned char before[16384];

void refusals_watch(const void *block, size_t bytes)
{
    ck_assert_uint_le(bytes, sizeof(before));
    watched = block;
    watched_bytes = bytes;
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

int refusals_run(Suite *suite, bool (*mine)(const char *name))
{
    const int result = run_suite(suite);
    if (getenv("CK_RUN_CASE") != NULL || getenv("CK_RUN_SUITE") != NULL)
        return result; /* only a part was asked for */
    return coverage_complete_of(GR_TEST_HEADER, mine) || on_cuda() ? result : EXIT_FAILURE;
}
