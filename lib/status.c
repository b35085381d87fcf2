/* status.c - the sentence of this thread's latest failure, status names, the version.
 *
 * In: format and facts from GR_FAIL. Out: static and thread-local strings; nothing allocates. */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L /* uselocale */
#endif
#include "status.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

enum { SENTENCE_BYTES = 512 };

static _Thread_local const char *entered = "gradreg";
static _Thread_local char last_error[SENTENCE_BYTES];

void gradreg_i_enter(const char *function)
{
    entered = function;
}

const char *gradreg_i_entered(void)
{
    return entered;
}

/* A number's point is a comma in half of the world's locales, and a comma separates the parts of a
 * sentence. The C library's own "C" locale is one static object: nothing to allocate. */
void gradreg_i_print(char *text, size_t bytes, const char *format, va_list arguments)
{
    const locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    const locale_t host = plain != (locale_t)0 ? uselocale(plain) : (locale_t)0;

    (void)vsnprintf(text, bytes, format, arguments);
    if (plain != (locale_t)0) {
        (void)uselocale(host);
        freelocale(plain);
    }
}

void gradreg_i_set_error(const char *format, ...)
{
    /* Not in place: an argument may be the previous sentence. */
    char sentence[SENTENCE_BYTES];
    const int prefix = snprintf(sentence, sizeof(sentence), "%s: ", entered);
    va_list arguments;

    if (prefix >= 0 && prefix < SENTENCE_BYTES) {
        va_start(arguments, format);
        gradreg_i_print(sentence + prefix, sizeof(sentence) - (size_t)prefix, format,
                        arguments);
        va_end(arguments);
    }
    memcpy(last_error, sentence, sizeof(last_error));
}

const char *gradreg_last_error(void)
{
    return last_error;
}

const char *gradreg_status_name(gradreg_status status)
{
    switch (status) {
    case GRADREG_OK: return "GRADREG_OK";
    case GRADREG_ERROR_INVALID_ARGUMENT: return "GRADREG_ERROR_INVALID_ARGUMENT";
    case GRADREG_ERROR_UNSUPPORTED: return "GRADREG_ERROR_UNSUPPORTED";
    case GRADREG_ERROR_STATE: return "GRADREG_ERROR_STATE";
    case GRADREG_ERROR_OUT_OF_MEMORY: return "GRADREG_ERROR_OUT_OF_MEMORY";
    case GRADREG_ERROR_DEVICE: return "GRADREG_ERROR_DEVICE";
    case GRADREG_ERROR_BLAS: return "GRADREG_ERROR_BLAS";
    case GRADREG_ERROR_COMMUNICATION: return "GRADREG_ERROR_COMMUNICATION";
    case GRADREG_ERROR_NON_FINITE: return "GRADREG_ERROR_NON_FINITE";
    default: return "GRADREG_ERROR_UNKNOWN";
    }
}

#define STRINGIFY(x)                #x
#define DOTTED(major, minor, patch) STRINGIFY(major) "." STRINGIFY(minor) "." STRINGIFY(patch)

const char *gradreg_version(void)
{
    return DOTTED(GRADREG_VERSION_MAJOR, GRADREG_VERSION_MINOR, GRADREG_VERSION_PATCH);
}
