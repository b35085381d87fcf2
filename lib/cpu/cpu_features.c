/* cpu_features.c - cpuid by hand, so that old compilers know every level.
 *
 * In: cpuid leaves 1, 7, 0x80000001 to 4 and XCR0; GRADREG_VECTOR_PATH. Out: gr_vector_path. */
#include "cpu_features.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../status.h"

#if defined(__x86_64__)
#include <cpuid.h>

typedef struct leaf {
    unsigned a, b, c, d;
} leaf;

/* All zeros when this processor has no such leaf. */
static leaf read_leaf(unsigned number)
{
    leaf l = { 0, 0, 0, 0 };
    if ((unsigned)__get_cpuid_max(number & 0x80000000u, NULL) >= number)
        __cpuid_count(number, 0, l.a, l.b, l.c, l.d);
    return l;
}

/* Which registers the system saves: a processor may have what its system does not let us use. */
static unsigned saved_registers(void)
{
    const unsigned osxsave = 1u << 27;
    unsigned low, high;

    if ((read_leaf(1).c & osxsave) == 0)
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    (void)high;
    return low;
}

static bool all(unsigned have, unsigned wanted)
{
    return (have & wanted) == wanted;
}

#define BIT(n) (1u << (n))

/* leaf 1, ecx */
#define SSE3       BIT(0)
#define SSSE3      BIT(9)
#define FMA        BIT(12)
#define CMPXCHG16B BIT(13)
#define SSE4_1     BIT(19)
#define SSE4_2     BIT(20)
#define MOVBE      BIT(22)
#define POPCNT     BIT(23)
#define AVX        BIT(28)
#define F16C       BIT(29)
/* leaf 7, ebx */
#define BMI1     BIT(3)
#define AVX2     BIT(5)
#define BMI2     BIT(8)
#define AVX512F  BIT(16)
#define AVX512DQ BIT(17)
#define AVX512CD BIT(28)
#define AVX512BW BIT(30)
#define AVX512VL BIT(31)
/* leaf 0x80000001, ecx */
#define LAHF  BIT(0)
#define LZCNT BIT(5)
/* XCR0 */
#define YMM 0x06u
#define ZMM 0xe6u

/* What each path needs beyond the one before it. */
static const struct requirement {
    unsigned leaf1, leaf7, leaf81, saved;
} requirements[GR_PATH_COUNT] = {
    [GR_PATH_V2] = { SSE3 | SSSE3 | CMPXCHG16B | SSE4_1 | SSE4_2 | POPCNT, 0, LAHF, 0 },
    [GR_PATH_V3] = { FMA | MOVBE | AVX | F16C, BMI1 | AVX2 | BMI2, LZCNT, YMM },
    [GR_PATH_V4] = { 0, AVX512F | AVX512DQ | AVX512CD | AVX512BW | AVX512VL, 0, ZMM },
};

gr_vector_path gradreg_cpu_best_path(void)
{
    const unsigned leaf1 = read_leaf(1).c, leaf7 = read_leaf(7).b;
    const unsigned leaf81 = read_leaf(0x80000001u).c, saved = saved_registers();
    int path = GR_PATH_SCALAR;

    while (path + 1 < GR_PATH_COUNT) {
        const struct requirement *need = &requirements[path + 1];
        if (!all(leaf1, need->leaf1) || !all(leaf7, need->leaf7) ||
            !all(leaf81, need->leaf81) || !all(saved, need->saved))
            break;
        path++;
    }
    return (gr_vector_path)path;
}

/* 48 characters in leaves 0x80000002 to 4, padded with blanks or zeros. */
static void brand(char text[49])
{
    for (unsigned i = 0; i < 3; i++) {
        const leaf l = read_leaf(0x80000002u + i);
        memcpy(text + 16 * i, &l, sizeof(l));
    }
    text[48] = '\0';
}

#else

gr_vector_path gradreg_cpu_best_path(void)
{
    return GR_PATH_SCALAR;
}

static void brand(char text[49])
{
    text[0] = '\0';
}

#endif

void gradreg_cpu_name(char *out, size_t bytes)
{
    char text[49];
    brand(text);
    const char *name = text + strspn(text, " ");
    size_t length = strlen(name);

    while (length > 0 && name[length - 1] == ' ')
        length--;
    (void)snprintf(out, bytes, "%.*s", length > 0 ? (int)length : 3, length > 0 ? name : "CPU");
}

static const char *const path_names[GR_PATH_COUNT] = { "scalar", "x86-64-v2", "x86-64-v3",
                                                       "x86-64-v4" };

const char *gradreg_cpu_path_name(gr_vector_path path)
{
    return (unsigned)path < GR_PATH_COUNT ? path_names[path] : "";
}

/* "scalar, x86-64-v2" for GR_PATH_V2. */
static const char *names_up_to(gr_vector_path best)
{
    static const char *const lists[GR_PATH_COUNT] = {
        "scalar", "scalar, x86-64-v2", "scalar, x86-64-v2, x86-64-v3",
        "scalar, x86-64-v2, x86-64-v3, x86-64-v4"
    };
    return lists[best];
}

gradreg_status gradreg_cpu_path_from_word(gr_vector_path *out, const char *word,
                                          gr_vector_path best)
{
    if (word == NULL || word[0] == '\0') {
        *out = best;
        return GRADREG_OK;
    }
    for (int path = 0; path < GR_PATH_COUNT; path++) {
        if (strcmp(word, path_names[path]) != 0)
            continue;
        GR_REQUIRE(path <= (int)best,
                   "environment variable GRADREG_VECTOR_PATH is '%s', but this processor has "
                   "only %s",
                   word, names_up_to(best));
        *out = (gr_vector_path)path;
        return GRADREG_OK;
    }
    return GR_FAIL(
        GRADREG_ERROR_INVALID_ARGUMENT,
        "environment variable GRADREG_VECTOR_PATH is '%.40s', expected one of %s; this "
        "processor has %s",
        word, names_up_to(GR_PATH_V4), names_up_to(best));
}

gradreg_status gradreg_cpu_choose_path(gr_vector_path *out)
{
    return gradreg_cpu_path_from_word(out, getenv("GRADREG_VECTOR_PATH"),
                                      gradreg_cpu_best_path());
}
