/* consumer.c - a program that knows only what was installed (check_install.py builds it, as C and
 * as C++): the header's version is the library's, and a context opens and closes. */
#include <gradreg.h>
#include <stdio.h>
#include <string.h>

static int fail(const char *what)
{
    fprintf(stderr, "consumer: %s: %s\n", what, gradreg_last_error());
    return 1;
}

int main(void)
{
    char version[32];
    gradreg_context *context = NULL;
    double multipliers[36];
    gradreg_schedule schedule = GRADREG_SCHEDULE_INIT;

    snprintf(version, sizeof(version), "%d.%d.%d", GRADREG_VERSION_MAJOR, GRADREG_VERSION_MINOR,
             GRADREG_VERSION_PATCH);
    if (strcmp(version, gradreg_version()) != 0)
        return fail("header and library differ");
    if (gradreg_context_create(&context, NULL) != GRADREG_OK)
        return fail("gradreg_context_create");
    if (gradreg_schedule_for_depth(&schedule, 36) != GRADREG_OK ||
        gradreg_schedule_multipliers(multipliers, &schedule, 36) != GRADREG_OK)
        return fail("gradreg_schedule_multipliers");
    if (multipliers[5] != 0.0 || multipliers[35] != 1.0)
        return fail("multipliers of 36 layers");
    if (gradreg_context_destroy(context) != GRADREG_OK)
        return fail("gradreg_context_destroy");
    printf("%s\n", version);
    return 0;
}
