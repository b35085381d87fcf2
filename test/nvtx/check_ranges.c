/* check_ranges.c - what a profiler sees of public calls.
 *
 * In: the library with ranges, and listener.c in a profiler's place. Out: exit status 0 if each call is one
 * range with its name, whether it succeeds or not. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gradreg.h"

typedef const char *said_function(void);

static int failures;
static said_function *said;

static void expect(const char *what, const char *ranges)
{
    const char *heard = said();
    if (strcmp(heard, ranges) == 0)
        return;
    (void)fprintf(stderr, "%s: heard '%s', expected '%s'\n", what, heard, ranges);
    failures++;
}

/* NVTX has opened it at the first range. */
static int find_listener(void)
{
    const char *path = getenv("NVTX_INJECTION64_PATH");
    void *library = path != NULL ? dlopen(path, RTLD_NOW | RTLD_NOLOAD) : NULL;
    void *symbol = library != NULL ? dlsym(library, "listener_said") : NULL;
    memcpy(&said, &symbol, sizeof(symbol));
    return said != NULL;
}

int main(void)
{
    gradreg_schedule schedule = GRADREG_SCHEDULE_INIT;
    double multipliers[5];
    const gradreg_status fine = gradreg_schedule_for_depth(&schedule, 4);
    if (fine != GRADREG_OK || !find_listener()) {
        (void)fprintf(stderr, "the listener was not opened\n");
        return 1;
    }
    expect("the first call", "+gradreg_schedule_for_depth - ");
    if (gradreg_schedule_for_depth(NULL, 4) == GRADREG_OK)
        failures++;
    expect("a call that fails", "+gradreg_schedule_for_depth - ");
    if (gradreg_schedule_multipliers(multipliers, &schedule, 4) != GRADREG_OK)
        failures++;
    expect("another call", "+gradreg_schedule_multipliers - ");
    (void)gradreg_status_name(GRADREG_OK);
    expect("what cannot fail", "");
    (void)printf("ranges: %d expectations do not hold\n", failures);
    return failures != 0;
}
