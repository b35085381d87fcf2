/* status.h - error plumbing: first to know, first to say.
 *
 * In: the facts of a failure, from the function that discovers it. Out: the status it returns,
 * and the sentence that gradreg_last_error() gives this thread. Everybody above only passes the
 * status on with GR_TRY.
 *
 * A public entry names itself with GR_ENTER() before anything else, so that a sentence written
 * far below still starts with the function that the caller knows. Entries do not call entries. */
#ifndef GRADREG_LIB_STATUS_H
#define GRADREG_LIB_STATUS_H

#include "gradreg.h"

#include <stdarg.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GR_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define GR_PRINTF(text, first)
#endif

/* Sentences start with this name until the thread's next call. A static string. */
void gradreg_i_enter(const char *function);

/* The name in force: saved and restored around a callback, which may enter the library itself. */
const char *gradreg_i_entered(void);

/* vsnprintf() in the "C" locale, whatever the host's is. */
void gradreg_i_print(char *text, size_t bytes, const char *format, va_list arguments)
    GR_PRINTF(3, 0);

/* Keeps "<function>: <text>" for this thread, cut at 511 bytes. Allocates nothing. Arguments may
 * point into the sentence that is being replaced. */
void gradreg_i_set_error(const char *format, ...) GR_PRINTF(1, 2);

#ifdef GR_NVTX
/* A range for a profiler, from here to the entry's end, whichever way it ends (ranges.c). */
int gradreg_i_range_push(const char *name);
void gradreg_i_range_pop(const int *range);
#define GR_ENTER()                                                              \
    const int gr_range_ __attribute__((cleanup(gradreg_i_range_pop), unused)) = \
        gradreg_i_range_push(__func__);                                         \
    gradreg_i_enter(__func__)
#else
#define GR_ENTER() gradreg_i_enter(__func__)
#endif

/* Yields the status itself, so that the compiler sees a constant that is not GRADREG_OK and knows
 * which outputs cannot be read afterwards. */
#define GR_FAIL(status, ...) (gradreg_i_set_error(__VA_ARGS__), (status))

#define GR_TRY(expression)                           \
    do {                                             \
        const gradreg_status gr_try_ = (expression); \
        if (gr_try_ != GRADREG_OK)                   \
            return gr_try_;                          \
    } while (0)

/* A documented precondition, and the sentence for when it does not hold. */
#define GR_REQUIRE(condition, ...)                                       \
    do {                                                                 \
        if (!(condition))                                                \
            return GR_FAIL(GRADREG_ERROR_INVALID_ARGUMENT, __VA_ARGS__); \
    } while (0)

#define GR_REQUIRE_POINTER(argument) \
    GR_REQUIRE((argument) != NULL, "argument '%s' must not be NULL", #argument)

#ifdef __cplusplus
}
#endif
#endif
