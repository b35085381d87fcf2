/* check_faults.c - everything that can fail, failing, at every point.
 *
 * Memory (check_fault_memory.c), the caller's all_reduce (check_fault_steps.c), threads and what
 * must not allocate at all (check_fault_quiet.c). What fails leaves nothing behind and says so,
 * and the same call succeeds as soon as it may. The linker sends the C library's allocation
 * functions here. main() prints how many calls were made to fail; fewer than before fail the
 * suite. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include "faults.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "coverage.h"
#include "support.h"

/* So many of each kind a run makes fail at least. */
enum { LEAST_HOOK = 52, LEAST_LIBRARY = 25, LEAST_REDUCE = 138, LEAST_THREADS = 3 };

/* Shared with the processes that tests run in. */
struct provoked *provoked;

/* ---- the C library's allocation functions ------------------------------------------ */

/* The linker sends every call of them here. */
static _Atomic int watching;
static _Atomic size_t seen, fail_at;
static _Atomic long live;

static bool shall_fail(void)
{
    if (!atomic_load(&watching))
        return false;
    return atomic_fetch_add(&seen, 1) + 1 == atomic_load(&fail_at);
}

static void *count(void *memory)
{
    if (atomic_load(&watching) && memory != NULL)
        atomic_fetch_add(&live, 1);
    return memory;
}

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
int __real_posix_memalign(void **out, size_t alignment, size_t bytes);
void __real_free(void *memory);
int __real_pthread_create(pthread_t *out, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes);
void __wrap_free(void *memory);
int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);

void *__wrap_malloc(size_t bytes)
{
    return shall_fail() ? NULL : count(__real_malloc(bytes));
}

void *__wrap_calloc(size_t elements, size_t bytes)
{
    return shall_fail() ? NULL : count(__real_calloc(elements, bytes));
}

void *__wrap_realloc(void *old, size_t bytes)
{
    return shall_fail() ? NULL : __real_realloc(old, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return shall_fail() ? NULL : count(__real_aligned_alloc(alignment, bytes));
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes)
{
    if (shall_fail())
        return 12; /* ENOMEM */
    const int result = __real_posix_memalign(out, alignment, bytes);
    (void)count(result == 0 ? *out : NULL);
    return result;
}

void __wrap_free(void *memory)
{
    if (atomic_load(&watching) && memory != NULL)
        atomic_fetch_sub(&live, 1);
    __real_free(memory);
}

void watch(size_t fail_which)
{
    atomic_store(&seen, 0);
    atomic_store(&live, 0);
    atomic_store(&fail_at, fail_which);
    atomic_store(&watching, 1);
}

size_t stop_watching(void)
{
    atomic_store(&watching, 0);
    return atomic_load(&seen);
}

long blocks_left(void)
{
    return atomic_load(&live);
}

/* ---- threads ----------------------------------------------------------------------- */

static _Atomic int threads_left = 1000;

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument)
{
    if (atomic_fetch_sub(&threads_left, 1) <= 0) {
        provoked->threads++;
        return 11; /* EAGAIN */
    }
    return __real_pthread_create(out, attributes, start, argument);
}

void allow_threads(int count)
{
    atomic_store(&threads_left, count);
}

/* ---- main -------------------------------------------------------------------------- */

static bool enough(const char *what, unsigned count, unsigned least)
{
    printf("%u %s made to fail\n", count, what);
    if (count >= least)
        return true;
    fprintf(stderr, "fewer than %u: something is no longer reached\n", least);
    return false;
}

int main(void)
{
    Suite *suite = suite_create("faults");

    coverage_open();
    provoked = mmap(NULL, sizeof(*provoked), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                    -1, 0);
    if (provoked == MAP_FAILED)
        return EXIT_FAILURE;
    suite_add_tcase(suite, memory_faults_case());
    suite_add_tcase(suite, step_faults_case());
    suite_add_tcase(suite, quiet_case());
    const int result = run_suite(suite);
    if (getenv("CK_RUN_CASE") != NULL || getenv("CK_RUN_SUITE") != NULL)
        return result;
    bool all = enough("calls of the allocator hook", provoked->hook, LEAST_HOOK);
    all = enough("calls of the C library", provoked->library, LEAST_LIBRARY) && all;
    all = enough("calls of all_reduce", provoked->reduce, LEAST_REDUCE) && all;
    all = enough("starts of a thread", provoked->threads, LEAST_THREADS) && all;
    return all ? result : EXIT_FAILURE;
}
