/* cuda_modules.c - modules that libgradreg must refuse; compiled several times, see meson.build.
 *
 *   GR_TEST_VERSION   the version that the module claims
 *   GR_TEST_OTHER     1: a struct of another size
 *   GR_TEST_DRIVER    1: fits, but finds no driver
 *   GR_TEST_SLOW      1: and takes a while to say so. Runs a program first, as drivers do: a child of its own.
 *                     Then a byte into the pipe that GRADREG_TEST_PIPE numbers says that it is being loaded */
#define _POSIX_C_SOURCE 200809L /* fork, nanosleep */
#include <stdlib.h>
#ifdef GR_TEST_SLOW
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#endif

#include "module.h"

static const gr_core *core;

#ifdef GR_TEST_SLOW
static void take_a_while(void)
{
    const struct timespec nap = { 0, 300 * 1000 * 1000 };
    const char *number = getenv("GRADREG_TEST_PIPE");
    int status = -1;
    const pid_t program = fork();
    if (program == 0)
        _exit(0);
    if (program < 0 || waitpid(program, &status, 0) != program || status != 0 ||
        number == NULL || write(atoi(number), "!", 1) != 1)
        abort();
    (void)nanosleep(&nap, NULL);
}
#endif

static gradreg_status load(const gr_core *given)
{
    core = given;
#ifdef GR_TEST_SLOW
    take_a_while();
#endif
#ifdef GR_TEST_DRIVER
    core->set_error("no driver, says the test's module");
    return GRADREG_ERROR_UNSUPPORTED;
#else
    abort(); /* a module that does not fit must not be called */
#endif
}

extern const gr_module gradreg_cuda_module;
const gr_module gradreg_cuda_module = { .magic = GR_MODULE_MAGIC,
#ifdef GR_TEST_OTHER
                                        .sizes = { 1, 2, 3 },
#else
                                        .sizes = GR_MODULE_LAYOUT,
#endif
                                        .version = GR_TEST_VERSION,
                                        .load = load };
