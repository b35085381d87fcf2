/* refusals.h - calls that must be refused, for suites that keep all that is the caller's in one block.
 *
 * In: the block, and a call with one thing wrong. Out: the status, a sentence with the words, a row for
 * the header's coverage, and not a byte of the block changed. */
#ifndef GRADREG_TEST_REFUSALS_H
#define GRADREG_TEST_REFUSALS_H

#include "coverage.h"
#include "support.h"

/* Before and after each test: the block, of zeros at first, which calls must leave alone, and a context of
 * one thread whose memory is counted. */
extern gradreg_context *context;
extern counting_allocator allocator;
void refusals_open(void *block, size_t bytes);
void refusals_close(void);

void refusals_remember(void);
/* Ends the test where the block is not what it was. */
void refusals_unchanged(const char *call);

#define assert_refused(call, want, ...)        \
    do {                                       \
        refusals_remember();                   \
        coverage_note(#call, want, true);      \
        assert_fails(call, want, __VA_ARGS__); \
        refusals_unchanged(#call);             \
    } while (0)

#define assert_accepted(call)                    \
    do {                                         \
        assert_ok(call);                         \
        coverage_note(#call, GRADREG_OK, false); \
    } while (0)

/* An _init function of a struct that may grow. REFUSALS_INIT(probe_params) defines one that takes any
 * struct, REFUSALS_ROW(probe_params) is its row. */
struct init_row {
    const char *name;
    gradreg_status (*function)(void *out, size_t struct_size);
    size_t size;
};

#define REFUSALS_INIT(name)                                               \
    static gradreg_status init_##name(void *out, size_t struct_size)      \
    {                                                                     \
        return gradreg_##name##_init((gradreg_##name *)out, struct_size); \
    }
#define REFUSALS_ROW(name)                                            \
    {                                                                 \
        "gradreg_" #name "_init", init_##name, sizeof(gradreg_##name) \
    }

/* NULL and sizes that no version had are refused, larger ones filled with zeros. */
void refusals_of_init(const struct init_row *row);

/* Makes a call that must be refused with this status and these words. */
typedef void refusal(gradreg_status want, const char *word, const char *value);

/* Sizes that no version of a struct had. */
void refusals_of_size(uint32_t *struct_size, const char *field, refusal *refuse);

/* `use` makes a call on `context`, whose thread pool is the host's and calls back into the library: what
 * `meanwhile` calls then finds the context in use. */
void refusals_in_use(void (*use)(void), void (*meanwhile)(void));

/* Runs the suite; a whole run on the CPU must also have had rows for all functions that are `mine`, and every
 * status that the header promises for them. Exit status. */
int refusals_run(Suite *suite, bool (*mine)(const char *name));

#endif
