/* support.h - how the program ends when something fails, and where its memory comes from. */
#ifndef STUDY_SUPPORT_H
#define STUDY_SUPPORT_H

#include <gradreg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define STUDY_PRINTF(text, first) __attribute__((format(printf, text, first), noreturn))
#else
#define STUDY_PRINTF(text, first)
#endif

/* Says "study: ..." on stderr and ends the program. */
void fail(const char *format, ...) STUDY_PRINTF(1, 2);

/* Ends the program with the library's own sentence unless status is OK. */
void must(gradreg_status status);

/* Zeros; ends the program when memory is short. Free with free(). */
void *allocate(size_t count, size_t size);

struct clock {
    double wall, processor; /* seconds */
};
struct clock clock_now(void);

/* FNV-1a, of checkpoints and of parameters. */
uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t count);
#define HASH_START 0xcbf29ce484222325U

#endif
