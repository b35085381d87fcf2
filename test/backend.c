/* backend.c - see backend.h. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "backend.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Shared with the processes that Check forks. */
struct tally {
    atomic_int tests, contexts, left_out;
};

static struct tally *tally;

bool on_cuda(void)
{
    const char *name = getenv("GRADREG_TEST_BACKEND");

    if (name == NULL || strcmp(name, "cpu") == 0)
        return false;
    if (strcmp(name, "cuda") != 0) {
        fprintf(stderr, "GRADREG_TEST_BACKEND is \"%s\", expected cpu or cuda\n", name);
        exit(EXIT_FAILURE);
    }
    return true;
}

static void count_context(void)
{
    static pid_t counted;

    if (tally == NULL)
        return;
    atomic_fetch_add(&tally->contexts, 1);
    if (counted != getpid())
        atomic_fetch_add(&tally->tests, 1);
    counted = getpid();
}

gradreg_status test_context_create(gradreg_context **out, const gradreg_context_params *params)
{
    gradreg_context_params there = GRADREG_CONTEXT_PARAMS_INIT;

    if (!on_cuda())
        return gradreg_context_create(out, params);
    if (params != NULL)
        there = *params;
    if (there.backend == GRADREG_BACKEND_AUTO) {
        there.backend = GRADREG_BACKEND_CUDA;
        count_context();
    }
    return gradreg_context_create(out, &there);
}

/* ---- waiting ---------------------------------------------------------------------- */

/* The module keeps its runtime to itself. The emulated one is a library that the module has
 * loaded; on hardware the driver's call does the same for the device that is current. */
static int (*find_wait(void))(void)
{
    const char *emulated = getenv("GRADREG_EMULATED_CUDART");
    void *library = emulated != NULL ? dlopen(emulated, RTLD_NOW | RTLD_NOLOAD)
                                     : dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    const char *name = emulated != NULL ? "cudaDeviceSynchronize" : "cuCtxSynchronize";
    int (*wait)(void) = NULL;

    if (library != NULL)
        *(void **)&wait = dlsym(library, name);
    return wait;
}

/* Without a runtime in this process nothing can have been queued. */
void backend_wait(void)
{
    static int (*wait)(void);

    if (!on_cuda())
        return;
    if (wait == NULL)
        wait = find_wait();
    if (wait != NULL)
        (void)wait(); /* what went wrong is the next call's to tell */
}

/* ---- fewer tests ------------------------------------------------------------------- */

void add_loop_test(TCase *tests, const TTest *test, int begin, int end)
{
    const char *every = getenv("GRADREG_TEST_EVERY");
    const int stride = every != NULL ? atoi(every) : 1;

    if (stride <= 1)
        tcase_add_loop_test(tests, test, begin, end);
    for (int i = begin; stride > 1 && i < end; i += stride)
        tcase_add_loop_test(tests, test, i, i + 1);
}

/* ---- counts ----------------------------------------------------------------------- */

bool backend_leaves_out(const char *test, const char *why)
{
    if (!on_cuda())
        return false;
    if (tally != NULL)
        atomic_fetch_add(&tally->left_out, 1);
    printf("left out on CUDA: %s: %s\n", test, why);
    fflush(stdout);
    return true;
}

void backend_open(void)
{
    void *room;

    if (!on_cuda())
        return;
    room =
        mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        return;
    tally = room;
    atomic_init(&tally->tests, 0);
    atomic_init(&tally->contexts, 0);
    atomic_init(&tally->left_out, 0);
}

bool backend_close(int tests)
{
    if (!on_cuda())
        return true;
    if (tally == NULL || atomic_load(&tally->contexts) == 0) {
        printf("on CUDA: no test of %d opened a context there\n", tests);
        return false;
    }
    printf("on CUDA: %d of %d tests, in %d contexts; %d left out\n", atomic_load(&tally->tests),
           tests, atomic_load(&tally->contexts), atomic_load(&tally->left_out));
    (void)munmap(tally, sizeof(*tally));
    tally = NULL;
    return true;
}
