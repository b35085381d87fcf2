/* support.h - what every suite needs: guarded buffers, seeded numbers, typed elements, closeness,
 * an allocator that counts and fails, a log that remembers, and assertions on sentences.
 *
 * Links with the public library only and includes nothing from lib/, so that a mistake there
 * cannot hide itself here. Helpers end the test (Check) when something is wrong. */
#ifndef GRADREG_TEST_SUPPORT_H
#define GRADREG_TEST_SUPPORT_H

#include <check.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend.h"
#include "choices.h"
#include "gradreg.h"
#include "numbers.h"

/* ThreadSanitizer cannot follow threads that a forked child starts: suites leave those out. */
#if defined(__SANITIZE_THREAD__)
#define TEST_UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TEST_UNDER_TSAN 1
#endif
#endif
#ifndef TEST_UNDER_TSAN
#define TEST_UNDER_TSAN 0
#endif

/* Which cases of a long loop run where threads are watched: one in seven, which is prime to what tests take
 * a case's number apart by. */
#define LEFT_OUT_UNDER_TSAN(i) (TEST_UNDER_TSAN && (i) % 7 != 0)

/* ---- a suite ---------------------------------------------------------------------- */

/* Prints the seed, runs the suite, frees it; what main() returns. */
int run_suite(Suite *suite);

/* Where next_word() starts: 1, or what GRADREG_TEST_SEED says. Take a state of your own per test,
 * so that its numbers do not depend on which tests ran before: state = test_seed() ^ 7. */
uint64_t test_seed(void);

/* The number of a loop's case, taken apart: one of so many choices, and in *i what is left for the next. */
int take(int *i, int choices);

/* ---- contexts --------------------------------------------------------------------- */

/* The library's vector paths, from the narrowest on. */
enum { PATHS = 4 };
extern const char *const paths[PATHS];

/* A context on this path (NULL: what it chooses), or NULL where this processor lacks it. */
gradreg_context *context_on(const char *path, int32_t threads);
bool has_path(const char *path);

struct gradreg_context_info info_of(const gradreg_context *context);

/* ---- guarded buffers -------------------------------------------------------------- */

/* `bytes` bytes (0 is fine) at an address that is `misalignment` above a multiple of 64, between
 * two canaries, filled with 0xa5. */
void *guarded_new(size_t bytes, size_t misalignment);
/* Ends the test if a canary was touched; the message says how far outside. */
void guarded_check(const void *data);
/* Checks, then frees. NULL is fine. */
void guarded_free(void *data);

/* ---- typed elements: the formats, written without lib/ ---------------------------- */

/* fraction: stored bits; lowest: exponent of the smallest normal, highest: the largest finite value;
 * infinity: its pattern. */
typedef struct type_format {
    const char *name;
    size_t bytes;
    int fraction, lowest;
    double highest;
    uint32_t infinity;
} type_format;

const type_format *type_format_of(gradreg_type type);
/* Half a step of the type next to x. */
double type_half_step(gradreg_type type, double x);
size_t type_bytes(gradreg_type type);
const char *type_name(gradreg_type type);
/* The value nearest to x that the type can hold, ties to even. f16 saturates at 65504 for finite
 * x, bf16 and f32 become infinite. */
double type_round(double x, gradreg_type type);
/* Element i of an array that need not be aligned. */
double typed_get(const void *array, gradreg_type type, size_t i);
uint32_t typed_bits(const void *array, gradreg_type type, size_t i);
void typed_set(void *array, gradreg_type type, size_t i, double value);
void typed_set_bits(void *array, gradreg_type type, size_t i, uint32_t bits);
void typed_fill(void *array, gradreg_type type, size_t count, uint64_t *state, double scale);

/* ---- numbers ---------------------------------------------------------------------- */

/* Uniform in [-scale, scale). */
double next_signed(uint64_t *state, double scale);
/* One bit pattern in three is an edge (zeros, denormals, huge, infinities, NaN payloads), the rest
 * are any pattern of the type. */
uint32_t next_pattern(uint64_t *state, gradreg_type type);

uint32_t float_bits(float x);
uint64_t double_bits(double x);
/* Floats between a and b, one end counted: 0 for equal ones, +0 and -0, and two NaNs; UINT64_MAX
 * for one NaN. */
uint64_t ulp_distance(float a, float b);

#define assert_ulps(got, want, ulps)                                                \
    do {                                                                            \
        const float got_ = (got), want_ = (want);                                   \
        if (ulp_distance(got_, want_) > (ulps))                                     \
            ck_abort_msg("%s: got %a, want %a", #got, (double)got_, (double)want_); \
    } while (0)

/* ---- the caller's allocator ------------------------------------------------------- */

/* Zero it, set what shall fail, hand out counting_hook(). Memory is guarded and filled with 0xa5.
 * Safe for several threads. */
typedef struct counting_allocator {
    size_t fail_at;    /* this call of allocate gives NULL: 1 is the first; 0 none */
    bool fail_onwards; /* and so do all after it */
    size_t calls, failed, releases;
    size_t live, live_bytes, peak_bytes;
    size_t misuses; /* releases that match no allocation, strange requests */
    struct counted_block *blocks;
} counting_allocator;

gradreg_allocator counting_hook(counting_allocator *allocator);
/* Ends the test unless everything came back, once and with its own size. */
void counting_check(const counting_allocator *allocator);

/* ---- the caller's log ------------------------------------------------------------- */

enum { LOG_KEPT = 8 };

/* Zero it, hand out log_hook(). Keeps the first LOG_KEPT remarks, counts all. */
typedef struct log_collector {
    size_t count;
    gradreg_log_level level[LOG_KEPT];
    char message[LOG_KEPT][1024];
    pthread_t thread; /* of the latest remark */
} log_collector;

gradreg_log log_hook(log_collector *collector, gradreg_log_level level);
bool log_has(const log_collector *collector, const char *word);

/* ---- status and sentence ---------------------------------------------------------- */

/* The call succeeds; otherwise the test ends with the status and the sentence. */
#define assert_ok(call) check_status(__FILE__, __LINE__, #call, (call), GRADREG_OK)

#define assert_status(call, want) check_status(__FILE__, __LINE__, #call, (call), want)

/* The call fails with this status, and the sentence is new, one line, starts with the name of the
 * function called (if the call is written out) and contains every word:
 *      assert_fails(gradreg_context_reserve(NULL, 1), GRADREG_ERROR_INVALID_ARGUMENT, "context"); */
#define assert_fails(call, want, ...)                                                          \
    do {                                                                                       \
        make_sentence_stale();                                                                 \
        check_status(__FILE__, __LINE__, #call, (call), want);                                 \
        check_sentence(__FILE__, __LINE__, #call, (const char *const[]){ __VA_ARGS__, NULL }); \
    } while (0)

void make_sentence_stale(void);
void check_status(const char *file, int line, const char *call, gradreg_status got,
                  gradreg_status want);
void check_sentence(const char *file, int line, const char *call, const char *const *words);

#endif
