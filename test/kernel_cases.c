/* kernel_cases.c - see kernel_cases.h. */
#include "kernel_cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the paths ------------------------------------------------------------------- */

gr_cpu_kernels tables[GR_PATH_COUNT];
int path_count;

void fill_tables(void)
{
    tables[GR_PATH_SCALAR] = gradreg_cpu_kernels_scalar;
#if defined(__x86_64__)
    tables[GR_PATH_V2] = gradreg_cpu_kernels_v2;
    tables[GR_PATH_V3] = gradreg_cpu_kernels_v3;
    tables[GR_PATH_V4] = gradreg_cpu_kernels_v4;
#endif
    path_count = (int)gradreg_cpu_best_path() + 1;
    printf("vector paths: %d of %d\n", path_count, GR_PATH_COUNT);
}

const char *path_name(int path)
{
    return gradreg_cpu_path_name((gr_vector_path)path);
}

/* ---- what goes in ---------------------------------------------------------------- */

const size_t sizes[SIZES] = {
    1, 2, 31, 32, 33, 255, 256, 257, 511, 512, 513, 1021, 4095, 4096
};

const char *const kind_names[KINDS] = {
    "normal", "denormal", "zero", "-0", "huge", "tiny", "NaN", "infinite", "full", "any",
};

struct format_bits {
    uint32_t sign, infinity, one; /* one: the exponent's lowest bit */
};

static struct format_bits bits_of(gradreg_type type)
{
    const type_format *format = type_format_of(type);
    return (struct format_bits){ format->bytes == 4 ? 0x80000000u : 0x8000u, format->infinity,
                                 1u << format->fraction };
}

static uint32_t pattern(gradreg_type type, enum kind kind, uint64_t *state)
{
    const struct format_bits f = bits_of(type);
    const uint32_t word = (uint32_t)(next_word(state) >> 20), fraction = word & (f.one - 1);
    const uint32_t sign = (next_word(state) >> 33 & 1) != 0 ? f.sign : 0;
    const uint32_t bias = (f.infinity >> 1) & ~(f.one - 1); /* about 1 */

    switch (kind) {
    case NORMAL: return sign | ((bias + (word >> 24) % 8 * f.one - 4 * f.one) | fraction);
    case DENORMAL: return sign | fraction;
    case ZERO: return 0;
    case MINUS_ZERO: return f.sign;
    case HUGE_VALUES: return sign | ((f.infinity - f.one) | fraction);
    case TINY: return sign | (f.one | fraction);
    case NOT_A_NUMBER: return sign | f.infinity | (fraction != 0 ? fraction : 1);
    case INFINITE: return word % 4 == 0 ? sign | f.infinity : sign | bias | fraction;
    case OVERFLOWING:
        if (type == GRADREG_TYPE_F32)
            return sign | (0x477fe000u + word % 0x4000u); /* 65504 to 65536 and beyond */
        return sign | (f.infinity - 1 - word % 8);
    default: return next_pattern(state, type);
    }
}

/* A guarded array of typed elements, or none. */
void *new_array(gradreg_type type, size_t n, int off)
{
    return guarded_new(n * type_bytes(type), off ? type_bytes(type) : 0);
}

void *new_filled(gradreg_type type, size_t n, int off, enum kind kind, uint64_t *state)
{
    void *array = new_array(type, n, off);
    for (size_t i = 0; i < n; i++)
        typed_set_bits(array, type, i, pattern(type, kind, state));
    return array;
}

void *copy_of(const void *array, gradreg_type type, size_t n)
{
    void *copy = malloc(n * type_bytes(type));
    ck_assert_ptr_nonnull(copy);
    return memcpy(copy, array, n * type_bytes(type));
}

float value(const void *array, gradreg_type type, size_t i)
{
    return (float)typed_get(array, type, i);
}

/* ---- comparing ------------------------------------------------------------------- */

int is_nan(gradreg_type type, uint32_t bits)
{
    const struct format_bits f = bits_of(type);
    return (bits & ~f.sign) > f.infinity;
}

/* Same bits, or two NaN. */
void assert_same(const void *got, const void *want, gradreg_type type, size_t n,
                 const char *what, const char *where)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t a = typed_bits(got, type, i), b = typed_bits(want, type, i);
        if (a != b && !(is_nan(type, a) && is_nan(type, b)))
            ck_abort_msg("%s: %s[%zu] is %x, want %x", where, what, i, a, b);
    }
}

void assert_exact(const void *got, const void *want, size_t bytes, const char *what,
                  const char *where)
{
    if (memcmp(got, want, bytes) != 0)
        ck_abort_msg("%s: %s differs", where, what);
}

/* ---- the restatement: one element after the other -------------------------------- */

/* reduce.h, step 2 */
void add_to_lane(float *lanes, int sum, size_t i, float x, float y)
{
    float *lane = &lanes[sum * 128 + (int)(i % 128)];
    const float product = x * y;
    *lane = *lane + product;
}

static int saturates(gradreg_type type, float x)
{
    const double magnitude = x < 0 ? -(double)x : (double)x;
    return type == GRADREG_TYPE_F16 && magnitude >= 65520.0 && magnitude <= 0x1.fffffep127;
}

static float through(gradreg_type type, float x)
{
    return type == 0 || x != x ? x : (float)type_round((double)x, type);
}

void restate_move(move_result *r, const gr_move_block *b, gradreg_type P, gradreg_type U,
                  size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float base = value(b->base, P, i), u = value(b->u, U, i);
        const float step = b->coefficient * u;
        const float sum = base + step;
        typed_set(r->moved, P, i, (double)sum);
        r->counts[1] += (uint64_t)saturates(P, sum);
        const float before = through(b->compute, base);
        const float after = through(b->compute, value(r->moved, P, i));
        const float applied = (after - before) * b->scale_applied;
        r->counts[0] += before != after;
        add_to_lane(r->lanes, GR_MOVE_APPLIED, i, applied, applied);
        add_to_lane(r->lanes, GR_MOVE_ALONG, i, applied, u * b->scale_u);
        if (b->slope != NULL)
            add_to_lane(r->lanes, GR_MOVE_SLOPE, i, applied,
                        value(b->slope, U, i) * b->scale_slope);
    }
}

/* D of this element; a is c1 g1. */
static float difference(const gr_combine_block *b, int read, size_t i, float a, float g2,
                        float plus)
{
    if (read == GR_READ_KEPT)
        return b->kept[i];
    const float second = b->second_factor * g2;
    if (read == GR_READ_FORWARD)
        return second - a;
    const float other = b->plus_factor * plus;
    return (other - second) * 0.5f;
}

static void restate_sums(combine_result *r, const gr_combine_block *b, int read, size_t i,
                         float g1, float g2, float plus)
{
    const int central = read == GR_READ_CENTRAL;
    const float left = (central ? plus : g1) * b->scale, right = g2 * b->scale;
    const float d0 = central ? (left - right) * 0.5f : right - left;
    const float u = b->direction != NULL ? b->direction[i] * b->scale_u : g1 * b->scale;
    add_to_lane(r->lanes, GR_COMBINE_D0, i, d0, d0);
    add_to_lane(r->lanes, GR_COMBINE_ALONG, i, u, d0);
    add_to_lane(r->lanes, GR_COMBINE_CROSS, i, left, right);
}

void restate_combine(combine_result *r, const gr_combine_block *b, int read, gradreg_type G,
                     size_t n)
{
    const int two = read == GR_READ_FORWARD || read == GR_READ_CENTRAL;
    for (size_t i = 0; i < n; i++) {
        const float g1 = value(b->first, G, i);
        const float g2 = two ? value(b->second, G, i) : 0.0f;
        const float plus = read == GR_READ_CENTRAL ? value(b->plus, G, i) : 0.0f;
        const float a = b->first_factor * g1;
        const int corrects = b->write == GR_WRITE_CORRECTED && read != GR_READ_FIRST;
        float out = a, d = 0.0f;
        if (two)
            restate_sums(r, b, read, i, g1, g2, plus);
        if (corrects) {
            d = difference(b, read, i, a, g2, plus);
            const float correction = b->correction * d;
            out = b->correction != 0.0f ? a + correction : a;
            if (r->keep != NULL)
                r->keep[i] = b->keep_factor * d;
        } else if (two && b->write == GR_WRITE_PRODUCT) {
            const float plain = read == GR_READ_CENTRAL ? (plus - g2) * 0.5f : g2 - g1;
            out = b->correction * plain;
        }
        typed_set(r->out, G, i, (double)out);
        r->saturated += (uint64_t)saturates(G, out);
        if (corrects) {
            const float d_scaled = d * b->scale;
            const float stored = (value(r->out, G, i) - a) * b->scale;
            add_to_lane(r->lanes, GR_COMBINE_D, i, d_scaled, d_scaled);
            add_to_lane(r->lanes, GR_COMBINE_STORED, i, stored, d_scaled);
        }
        add_to_lane(r->lanes, GR_COMBINE_OUT, i, out * b->scale, out * b->scale);
    }
}
