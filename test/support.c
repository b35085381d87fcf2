/* support.c - see support.h. Standard C and POSIX only, nothing from lib/. */
#define _POSIX_C_SOURCE 200809L /* setenv */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a suite ---------------------------------------------------------------------- */

#if TEST_UNDER_TSAN
/* Suites fork on purpose while threads run; by default the child would be ended for that. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}
#endif

uint64_t test_seed(void)
{
    const char *text = getenv("GRADREG_TEST_SEED");
    return text != NULL ? strtoull(text, NULL, 0) : 1;
}

int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);

    printf("GRADREG_TEST_SEED=%llu\n", (unsigned long long)test_seed());
    fflush(stdout);
    backend_open();
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    const bool complete = backend_close(srunner_ntests_run(runner));
    srunner_free(runner);
    return failed == 0 && complete ? EXIT_SUCCESS : EXIT_FAILURE;
}

int take(int *i, int choices)
{
    const int choice = *i % choices;

    *i /= choices;
    return choice;
}

/* Passing assertions of Check are slow (each is reported to the parent): here only failures are. */

/* ---- contexts --------------------------------------------------------------------- */

const char *const paths[PATHS] = { "scalar", "x86-64-v2", "x86-64-v3", "x86-64-v4" };

gradreg_context *context_on(const char *path, int32_t threads)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context = NULL;

    params.threads = threads;
    if (path != NULL)
        setenv("GRADREG_VECTOR_PATH", path, 1);
    const gradreg_status status = test_context_create(&context, &params);
    if (path != NULL)
        unsetenv("GRADREG_VECTOR_PATH");
    if (status != GRADREG_OK && (path == NULL || status != GRADREG_ERROR_INVALID_ARGUMENT))
        ck_abort_msg("no context: %s", gradreg_last_error());
    return context;
}

bool has_path(const char *path)
{
    gradreg_context *context = context_on(path, 0);

    assert_ok(gradreg_context_destroy(context));
    return context != NULL;
}

struct gradreg_context_info info_of(const gradreg_context *context)
{
    struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;

    assert_ok(gradreg_context_info(context, &info));
    return info;
}

/* ---- guarded buffers -------------------------------------------------------------- */

enum { CANARY_BYTES = 256, FILL = 0xa5, FRONT = 0xc3, BACK = 0x3c };

/* Stands right before the front canary, at any alignment. */
struct guard {
    void *base;
    size_t bytes;
};

static struct guard guard_of(const void *data)
{
    struct guard guard;
    memcpy(&guard, (const unsigned char *)data - CANARY_BYTES - sizeof(guard), sizeof(guard));
    return guard;
}

void *guarded_new(size_t bytes, size_t misalignment)
{
    const size_t before = sizeof(struct guard) + CANARY_BYTES + 64 + misalignment;
    struct guard guard = { malloc(before + bytes + CANARY_BYTES), bytes };
    ck_assert_ptr_nonnull(guard.base);

    const uintptr_t first = (uintptr_t)guard.base + sizeof(guard) + CANARY_BYTES;
    const size_t skip = (64 - first % 64) % 64 + misalignment % 64;
    unsigned char *data = (unsigned char *)guard.base + sizeof(guard) + CANARY_BYTES + skip;

    memcpy(data - CANARY_BYTES - sizeof(guard), &guard, sizeof(guard));
    memset(data - CANARY_BYTES, FRONT, CANARY_BYTES);
    memset(data, FILL, bytes);
    memset(data + bytes, BACK, CANARY_BYTES);
    return data;
}

void guarded_check(const void *data)
{
    const struct guard guard = guard_of(data);
    const unsigned char *front = (const unsigned char *)data - 1;
    const unsigned char *back = (const unsigned char *)data + guard.bytes;

    for (int i = 0; i < CANARY_BYTES; i++) {
        if (front[-i] != FRONT)
            ck_abort_msg("write %d bytes before a buffer of %zu", i + 1, guard.bytes);
        if (back[i] != BACK)
            ck_abort_msg("write %d bytes behind a buffer of %zu", i, guard.bytes);
    }
}

void guarded_free(void *data)
{
    if (data == NULL)
        return;
    guarded_check(data);
    free(guard_of(data).base);
}

/* ---- typed elements --------------------------------------------------------------- */

const type_format *type_format_of(gradreg_type type)
{
    static const type_format formats[LAST_TYPE] = {
        { "f32", 4, 23, -126, 0x1.fffffep127, 0x7f800000 },
        { "bf16", 2, 7, -126, 0x1.fep127, 0x7f80 },
        { "f16", 2, 10, -14, 65504.0, 0x7c00 },
    };
    if (type < GRADREG_TYPE_F32 || type > LAST_TYPE || formats[type - 1].name == NULL)
        ck_abort_msg("%d is no type, or its row is missing here", (int)type);
    return &formats[type - GRADREG_TYPE_F32];
}

double type_half_step(gradreg_type type, double x)
{
    const type_format *format = type_format_of(type);
    const int exponent = x == 0.0 ? format->lowest : ilogb(x);
    return ldexp(0.5,
                 (exponent < format->lowest ? format->lowest : exponent) - format->fraction);
}

size_t type_bytes(gradreg_type type)
{
    return type_format_of(type)->bytes;
}

const char *type_name(gradreg_type type)
{
    return type_format_of(type)->name;
}

double type_round(double x, gradreg_type type)
{
    const type_format *format = type_format_of(type);
    int exponent;

    if (x == 0.0 || !isfinite(x))
        return x;
    (void)frexp(x, &exponent); /* 2^(exponent-1) <= |x| */
    if (exponent - 1 < format->lowest)
        exponent = format->lowest + 1;
    const double quantum = ldexp(1.0, exponent - 1 - format->fraction);
    const double rounded = nearbyint(x / quantum) * quantum; /* exact but for the nearbyint */

    if (fabs(rounded) <= format->highest)
        return copysign(rounded, x);
    return copysign(type == GRADREG_TYPE_F16 ? format->highest : (double)INFINITY, x);
}

static uint32_t encode(double x, const type_format *format)
{
    const uint32_t top = format->bytes == 4 ? 0x80000000u : 0x8000u;
    int exponent;

    if (isnan(x))
        return format->infinity | 1u << (format->fraction - 1);
    uint32_t bits = format->infinity;
    if (isfinite(x)) {
        const double fraction = frexp(fabs(x), &exponent);
        if (x == 0.0)
            bits = 0;
        else if (exponent - 1 < format->lowest)
            bits = (uint32_t)ldexp(fabs(x), format->fraction - format->lowest);
        else
            bits = (uint32_t)((exponent - 1 - format->lowest) << format->fraction) +
                   (uint32_t)ldexp(fraction, format->fraction + 1);
    }
    return bits | (signbit(x) ? top : 0);
}

static double decode(uint32_t bits, const type_format *format)
{
    const uint32_t top = format->bytes == 4 ? 0x80000000u : 0x8000u;
    const uint32_t magnitude = bits & (top - 1);
    const int exponent = (int)(magnitude >> format->fraction);
    const uint32_t fraction = magnitude & ((1u << format->fraction) - 1);
    double value;

    if (magnitude > format->infinity)
        value = (double)NAN;
    else if (magnitude == format->infinity)
        value = (double)INFINITY;
    else if (exponent == 0)
        value = ldexp(fraction, format->lowest - format->fraction);
    else
        value = ldexp((double)fraction + ldexp(1.0, format->fraction),
                      exponent - 1 + format->lowest - format->fraction);
    return (bits & top) != 0 ? -value : value;
}

uint32_t typed_bits(const void *array, gradreg_type type, size_t i)
{
    const size_t bytes = type_bytes(type);
    const unsigned char *at = (const unsigned char *)array + i * bytes;
    uint16_t half;
    uint32_t whole;

    if (bytes == 2) {
        memcpy(&half, at, sizeof(half));
        return half;
    }
    memcpy(&whole, at, sizeof(whole));
    return whole;
}

void typed_set_bits(void *array, gradreg_type type, size_t i, uint32_t bits)
{
    const size_t bytes = type_bytes(type);
    unsigned char *at = (unsigned char *)array + i * bytes;
    const uint16_t half = (uint16_t)bits;

    if (bytes == 2)
        memcpy(at, &half, sizeof(half));
    else
        memcpy(at, &bits, sizeof(bits));
}

double typed_get(const void *array, gradreg_type type, size_t i)
{
    return decode(typed_bits(array, type, i), type_format_of(type));
}

void typed_set(void *array, gradreg_type type, size_t i, double value)
{
    typed_set_bits(array, type, i, encode(type_round(value, type), type_format_of(type)));
}

void typed_fill(void *array, gradreg_type type, size_t count, uint64_t *state, double scale)
{
    for (size_t i = 0; i < count; i++)
        typed_set(array, type, i, next_signed(state, scale));
}

/* ---- numbers ---------------------------------------------------------------------- */

double next_signed(uint64_t *state, double scale)
{
    return scale * (2.0 * next_unit(state) - 1.0);
}

uint32_t next_pattern(uint64_t *state, gradreg_type type)
{
    const type_format *format = type_format_of(type);
    const uint32_t top = format->bytes == 4 ? 0x80000000u : 0x8000u;
    const uint32_t one = 1u << format->fraction;
    const uint32_t edges[] = {
        0,                                    /* zero */
        1,                                    /* smallest denormal */
        one - 1,                              /* largest denormal */
        one,                                  /* smallest normal */
        format->infinity - 1,                 /* largest finite */
        format->infinity,                     /* infinity */
        format->infinity | 1,                 /* signalling NaN */
        format->infinity | (one / 2 + 5),     /* quiet NaN with a payload */
        (format->infinity >> 1 & ~(one - 1)), /* about one */
    };
    const uint64_t word = next_word(state);
    const uint32_t sign = (word >> 40 & 1) != 0 ? top : 0;

    if (word % 3 != 0)
        return (uint32_t)(word >> 8) & (top | (top - 1));
    return sign | edges[(word >> 8) % (sizeof(edges) / sizeof(edges[0]))];
}

uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

uint64_t double_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

/* The floats in their order, as integers without a gap; both zeros are 0. */
static int64_t place(float x)
{
    const uint32_t bits = float_bits(x);
    const int64_t magnitude = bits & 0x7fffffffu;
    return (bits >> 31) != 0 ? -magnitude : magnitude;
}

uint64_t ulp_distance(float a, float b)
{
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b) ? 0 : UINT64_MAX;
    const int64_t distance = place(a) - place(b);
    return (uint64_t)(distance < 0 ? -distance : distance);
}

/* ---- the caller's allocator ------------------------------------------------------- */

struct counted_block {
    void *data;
    size_t bytes;
    gradreg_memory memory;
    struct counted_block *next;
};

static pthread_mutex_t counting_mutex = PTHREAD_MUTEX_INITIALIZER;

static bool strange(size_t bytes, size_t alignment, gradreg_memory memory)
{
    return bytes == 0 || alignment == 0 || alignment > 64 ||
           (alignment & (alignment - 1)) != 0 ||
           (memory != GRADREG_MEMORY_HOST && memory != GRADREG_MEMORY_BACKEND);
}

static bool shall_fail(const counting_allocator *allocator)
{
    return allocator->calls == allocator->fail_at ||
           (allocator->fail_onwards && allocator->fail_at != 0 &&
            allocator->calls > allocator->fail_at);
}

static void *count_block(counting_allocator *allocator, size_t bytes, gradreg_memory memory)
{
    struct counted_block *block = malloc(sizeof(*block));
    ck_assert_ptr_nonnull(block);
    *block = (struct counted_block){ guarded_new(bytes, 0), bytes, memory, allocator->blocks };
    allocator->blocks = block;
    allocator->live++;
    allocator->live_bytes += bytes;
    if (allocator->live_bytes > allocator->peak_bytes)
        allocator->peak_bytes = allocator->live_bytes;
    return block->data;
}

static void *counting_allocate(void *user, size_t bytes, size_t alignment,
                               gradreg_memory memory)
{
    counting_allocator *allocator = user;
    void *data = NULL;

    pthread_mutex_lock(&counting_mutex);
    allocator->calls++;
    allocator->misuses += strange(bytes, alignment, memory);
    /* What no machine has is refused as by any allocator. */
    if (shall_fail(allocator) || bytes > SIZE_MAX / 4)
        allocator->failed++;
    else
        data = count_block(allocator, bytes, memory);
    pthread_mutex_unlock(&counting_mutex);
    return data;
}

static struct counted_block **find_block(counting_allocator *allocator, const void *data)
{
    struct counted_block **at = &allocator->blocks;
    while (*at != NULL && (*at)->data != data)
        at = &(*at)->next;
    return at;
}

static void counting_release(void *user, void *pointer, size_t bytes, gradreg_memory memory)
{
    counting_allocator *allocator = user;

    pthread_mutex_lock(&counting_mutex);
    struct counted_block **at = find_block(allocator, pointer), *block = *at;
    allocator->releases++;
    if (block == NULL || block->bytes != bytes || block->memory != memory)
        allocator->misuses++;
    if (block != NULL) {
        *at = block->next;
        allocator->live--;
        allocator->live_bytes -= block->bytes;
        guarded_free(block->data);
        free(block);
    }
    pthread_mutex_unlock(&counting_mutex);
}

gradreg_allocator counting_hook(counting_allocator *allocator)
{
    return (gradreg_allocator){ counting_allocate, counting_release, allocator, NULL };
}

void counting_check(const counting_allocator *allocator)
{
    ck_assert_msg(allocator->live == 0, "%zu blocks of %zu bytes in all were not released",
                  allocator->live, allocator->live_bytes);
    ck_assert_msg(allocator->misuses == 0, "%zu strange requests or releases",
                  allocator->misuses);
}

/* ---- the caller's log ------------------------------------------------------------- */

static void collect(void *user, gradreg_log_level level, const char *message)
{
    log_collector *collector = user;

    if (collector->count < LOG_KEPT) {
        collector->level[collector->count] = level;
        (void)snprintf(collector->message[collector->count], sizeof(collector->message[0]),
                       "%s", message);
    }
    collector->count++;
    collector->thread = pthread_self();
}

gradreg_log log_hook(log_collector *collector, gradreg_log_level level)
{
    return (gradreg_log){ collect, collector, level, 0, NULL };
}

bool log_has(const log_collector *collector, const char *word)
{
    for (size_t i = 0; i < collector->count && i < LOG_KEPT; i++)
        if (strstr(collector->message[i], word) != NULL)
            return true;
    return false;
}

/* ---- status and sentence ---------------------------------------------------------- */

static _Thread_local char stale_sentence[512];

void make_sentence_stale(void)
{
    gradreg_allocator allocator;
    ck_assert_int_eq(gradreg_allocator_init(&allocator, 1234567),
                     GRADREG_ERROR_INVALID_ARGUMENT);
    (void)snprintf(stale_sentence, sizeof(stale_sentence), "%s", gradreg_last_error());
    ck_assert_ptr_nonnull(strstr(stale_sentence, "1234567"));
}

void check_status(const char *file, int line, const char *call, gradreg_status got,
                  gradreg_status want)
{
    backend_wait();
    if (got != want)
        ck_abort_msg("%s:%d: %s gave %s, expected %s; last sentence: %s", file, line, call,
                     gradreg_status_name(got), gradreg_status_name(want), gradreg_last_error());
}

/* "gradreg_f: " from "gradreg_f(x, y)"; "" when the call is not a public function's. */
static void expected_start(char *out, size_t bytes, const char *call)
{
    const size_t length = strcspn(call, "(");

    out[0] = '\0';
    if (strncmp(call, "gradreg_", 8) == 0 && strncmp(call, "gradreg_i_", 10) != 0 &&
        strncmp(call, "gradreg_cpu_", 12) != 0 && call[length] == '(')
        (void)snprintf(out, bytes, "%.*s: ", (int)length, call);
}

void check_sentence(const char *file, int line, const char *call, const char *const *words)
{
    const char *sentence = gradreg_last_error();
    char start[128];

    expected_start(start, sizeof(start), call);
    if (strcmp(sentence, stale_sentence) == 0)
        ck_abort_msg("%s:%d: %s failed without a sentence", file, line, call);
    if (strncmp(sentence, start, strlen(start)) != 0)
        ck_abort_msg("%s:%d: the sentence \"%s\" should start with \"%s\"", file, line,
                     sentence, start);
    if (strpbrk(sentence, "\r\n") != NULL)
        ck_abort_msg("%s:%d: the sentence \"%s\" has a line break", file, line, sentence);
    for (; *words != NULL; words++)
        if (strstr(sentence, *words) == NULL)
            ck_abort_msg("%s:%d: the sentence \"%s\" does not say \"%s\"", file, line, sentence,
                         *words);
}
