/* support.c - failures, memory, clocks. */
#define _POSIX_C_SOURCE 200809L
#include "support.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void fail(const char *format, ...)
{
    va_list arguments;
    fflush(stdout);
    fputs("study: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

void must(gradreg_status status)
{
    if (status != GRADREG_OK)
        fail("%s: %s", gradreg_status_name(status), gradreg_last_error());
}

void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count > 0 ? count : 1, size);
    if (memory == NULL)
        fail("out of memory for %zu times %zu bytes", count, size);
    return memory;
}

static double read_clock(clockid_t which)
{
    struct timespec now;
    clock_gettime(which, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Everything here runs on one thread, so its processor time is the work, whoever else is busy. */
struct clock clock_now(void)
{
    return (struct clock){ read_clock(CLOCK_MONOTONIC), read_clock(CLOCK_THREAD_CPUTIME_ID) };
}

uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t count)
{
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ byte[i]) * 0x100000001b3U;
    return hash;
}
