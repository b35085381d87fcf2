/* rig.c - see rig.h. Links with the public library only and includes nothing from lib/. */
#define _POSIX_C_SOURCE 200809L /* setenv */
#include "rig.h"

#include <stdlib.h>
#include <string.h>

bool rig_is_small(void)
{
    return getenv("GRADREG_TEST_SMALL") != NULL;
}

/* ---- where things are ------------------------------------------------------------- */

static uint64_t table_end(const gradreg_segment *segments, size_t count)
{
    uint64_t end = 0;

    for (size_t s = 0; s < count; s++)
        if (segments[s].offset + segments[s].count > end)
            end = segments[s].offset + segments[s].count;
    return end;
}

size_t rig_part(const rig *r, size_t segment, uint64_t *begin)
{
    const gradreg_segment *s = &r->segments[segment];
    const uint64_t slice_end = r->setup.begin + r->setup.count;

    if (r->setup.scattered) {
        const bool all = s->shard_begin == 0 && s->shard_count == 0;
        *begin = s->shard_begin;
        return (size_t)(all ? s->count : s->shard_count);
    }
    const uint64_t from = s->offset > r->setup.begin ? s->offset : r->setup.begin;
    const uint64_t to = s->offset + s->count < slice_end ? s->offset + s->count : slice_end;
    *begin = from < to ? from - s->offset : 0;
    return (size_t)(from < to ? to - from : 0);
}

gradreg_type rig_type(const rig *r, enum rig_buffer buffer, size_t segment)
{
    const gradreg_segment *s = &r->segments[segment];
    const gradreg_type param = s->param_type != 0 ? s->param_type : r->params.param_type;
    const gradreg_type grad = s->grad_type != 0 ? s->grad_type : r->params.grad_type;

    if (buffer == RIG_MASTER)
        return GRADREG_TYPE_F32;
    return buffer == RIG_PARAMS || buffer == RIG_PERTURBED ? param : grad;
}

enum rig_buffer rig_moved(const rig *r)
{
    return r->params.placement == GRADREG_PLACEMENT_OUT_OF_PLACE ? RIG_PERTURBED : RIG_PARAMS;
}

enum rig_buffer rig_first(const rig *r)
{
    return r->params.first_gradient == GRADREG_FIRST_GRADIENT_CALLER_KEEPS ? RIG_FIRST
                                                                           : RIG_GRADS;
}

static bool in_use(const rig *r, enum rig_buffer buffer)
{
    switch (buffer) {
    case RIG_FIRST: return rig_first(r) == RIG_FIRST;
    case RIG_PERTURBED: return rig_moved(r) == RIG_PERTURBED;
    case RIG_MASTER: return r->params.restore == GRADREG_RESTORE_MASTER;
    case RIG_DIRECTION: return r->params.direction == GRADREG_DIRECTION_CALLER;
    default: return true;
    }
}

/* ---- opening and closing ---------------------------------------------------------- */

static void *new_pointers(size_t count)
{
    void *pointers = calloc(count, sizeof(void *));
    ck_assert_ptr_nonnull(pointers);
    return pointers;
}

static void lay_out(rig *r, enum rig_buffer buffer)
{
    const size_t size = type_bytes(rig_type(r, buffer, 0));
    const size_t off = r->setup.misalignment;

    r->piece[buffer] = new_pointers(r->segment_count);
    if (!r->setup.scattered)
        r->flat[buffer] = guarded_new(r->setup.count * size, off * size);
    for (size_t s = 0; s < r->segment_count; s++) {
        uint64_t begin;
        const size_t n = rig_part(r, s, &begin), own = type_bytes(rig_type(r, buffer, s));
        if (n > 0 && r->setup.scattered)
            r->piece[buffer][s] = guarded_new(n * own, off * own);
        else if (n > 0)
            r->piece[buffer][s] =
                r->flat[buffer] +
                (size_t)(r->segments[s].offset + begin - r->setup.begin) * size;
    }
}

static void name_buffers(rig *r)
{
    const gradreg_buffers empty = GRADREG_BUFFERS_INIT;
    gradreg_buffers *b = &r->buffers;

    *b = empty;
    if (r->setup.scattered) {
        b->param_pointers = r->piece[RIG_PARAMS];
        b->grad_pointers = r->piece[RIG_GRADS];
        b->first_grad_pointers = r->piece[RIG_FIRST];
        b->perturbed_param_pointers = r->piece[RIG_PERTURBED];
        b->master_param_pointers = (const void *const *)r->piece[RIG_MASTER];
        b->direction_pointers = (const void *const *)r->piece[RIG_DIRECTION];
        return;
    }
    b->params = r->flat[RIG_PARAMS];
    b->grads = r->flat[RIG_GRADS];
    b->first_grads = r->flat[RIG_FIRST];
    b->perturbed_params = r->flat[RIG_PERTURBED];
    b->master_params = r->flat[RIG_MASTER];
    b->direction = r->flat[RIG_DIRECTION];
    b->count = r->setup.count;
    b->slice_begin = r->setup.begin;
}

static void open_context(rig *r)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;

    params.threads = r->setup.threads != 0 ? r->setup.threads : 1;
    if (r->setup.on_cpu)
        params.backend = GRADREG_BACKEND_CPU;
    if (r->setup.log != NULL)
        params.log = log_hook(r->setup.log, GRADREG_LOG_INFO);
    if (r->setup.path != NULL)
        setenv("GRADREG_VECTOR_PATH", r->setup.path, 1);
    assert_ok(test_context_create(&r->context, &params));
    if (r->setup.path != NULL)
        unsetenv("GRADREG_VECTOR_PATH");
}

rig *rig_open(const gradreg_segment *segments, size_t segment_count,
              const gradreg_regularizer_params *params, const rig_setup *setup)
{
    rig *r = calloc(1, sizeof(*r));

    ck_assert_ptr_nonnull(r);
    r->setup = *setup;
    r->params = *params;
    r->segments = segments;
    r->segment_count = segment_count;
    if (!setup->sliced)
        r->setup.count = (size_t)table_end(segments, segment_count);
    for (int b = 0; b < RIG_BUFFERS; b++)
        if (in_use(r, (enum rig_buffer)b))
            lay_out(r, (enum rig_buffer)b);
    name_buffers(r);
    open_context(r);
    assert_ok(gradreg_regularizer_create(&r->reg, r->context, segments, segment_count, params));
    return r;
}

void rig_renew(rig *r)
{
    assert_ok(gradreg_regularizer_destroy(r->reg));
    assert_ok(gradreg_context_destroy(r->context));
    open_context(r);
    assert_ok(gradreg_regularizer_create(&r->reg, r->context, r->segments, r->segment_count,
                                         &r->params));
}

void rig_close(rig *r)
{
    assert_ok(gradreg_regularizer_destroy(r->reg));
    assert_ok(gradreg_context_destroy(r->context));
    rig_check_gaps(r);
    for (int b = 0; b < RIG_BUFFERS; b++) {
        for (size_t s = 0; r->setup.scattered && r->piece[b] != NULL && s < r->segment_count;
             s++)
            guarded_free(r->piece[b][s]);
        guarded_free(r->flat[b]);
        free(r->piece[b]);
    }
    free(r);
}

/* ---- numbers ---------------------------------------------------------------------- */

/* One word for one element, wherever it is held. */
static uint64_t word_of(uint64_t seed, size_t segment, uint64_t element)
{
    uint64_t state = (seed << 48) + ((uint64_t)segment << 40) + element;
    return next_word(&state);
}

static uint32_t number(gradreg_type type, uint64_t word, int exponent)
{
    const int bits = type_format_of(type)->fraction, bias = 1 - type_format_of(type)->lowest;
    const uint32_t sign = (uint32_t)(word >> 63) << (type == GRADREG_TYPE_F32 ? 31 : 15);
    const uint32_t power = (uint32_t)(bias + exponent - (int)(word >> 40) % 6);

    return sign | power << bits | ((uint32_t)word & ((1u << bits) - 1));
}

void rig_numbers(rig *r, enum rig_buffer buffer, uint64_t seed, int exponent)
{
    for (size_t s = 0; s < r->segment_count; s++) {
        uint64_t begin;
        const size_t n = rig_part(r, s, &begin);
        const gradreg_type type = rig_type(r, buffer, s);
        for (size_t i = 0; i < n; i++)
            typed_set_bits(r->piece[buffer][s], type, i,
                           number(type, word_of(seed, s, begin + i), exponent));
    }
}

static uint32_t quiet_bit(gradreg_type type, uint32_t bits)
{
    const uint32_t infinity = type_format_of(type)->infinity;
    const uint32_t magnitude = bits & (type == GRADREG_TYPE_F32 ? 0x7fffffffu : 0x7fffu);
    const uint32_t quiet = 1u << (type_format_of(type)->fraction - 1);
    return magnitude > infinity ? bits | quiet : bits;
}

void rig_patterns(rig *r, enum rig_buffer buffer, uint64_t seed, bool quiet)
{
    for (size_t s = 0; s < r->segment_count; s++) {
        uint64_t begin;
        const size_t n = rig_part(r, s, &begin);
        const gradreg_type type = rig_type(r, buffer, s);
        for (size_t i = 0; i < n; i++) {
            uint64_t state = word_of(seed, s, begin + i);
            const uint32_t bits = next_pattern(&state, type);
            typed_set_bits(r->piece[buffer][s], type, i, quiet ? quiet_bit(type, bits) : bits);
        }
    }
}

/* A little away from zero, less than to the middle between neighbours; denormals stay as they are. */
static uint32_t master_of(gradreg_type type, uint32_t bits, uint64_t word)
{
    const type_format *format = type_format_of(type);
    const int dropped = 23 - format->fraction;
    const uint16_t half = (uint16_t)bits;
    const uint32_t magnitude = bits & 0x7fffu, sign = (bits & 0x8000u) << 16;

    if (type == GRADREG_TYPE_F32)
        return bits;
    if (magnitude > format->infinity)
        return sign | 0x7f800000u | (magnitude & ((1u << format->fraction) - 1)) << dropped;
    const uint32_t wide = float_bits((float)typed_get(&half, type, 0));
    const bool is_normal = magnitude >= 1u << format->fraction && magnitude < format->infinity;
    return wide | (is_normal ? (uint32_t)word & ((1u << (dropped - 1)) - 1) : 0);
}

void rig_make_master(rig *r, uint64_t seed)
{
    for (size_t s = 0; s < r->segment_count; s++) {
        uint64_t begin;
        const size_t n = rig_part(r, s, &begin);
        const gradreg_type type = rig_type(r, RIG_PARAMS, s);
        for (size_t i = 0; i < n; i++)
            typed_set_bits(r->piece[RIG_MASTER][s], GRADREG_TYPE_F32, i,
                           master_of(type, typed_bits(r->piece[RIG_PARAMS][s], type, i),
                                     word_of(seed, s, begin + i)));
    }
}

static double unit(uint64_t word)
{
    return (double)(word >> 11) * 0x1p-52 - 1.0;
}

void rig_gradient(rig *r, uint64_t seed, bool is_first)
{
    const enum rig_buffer to = is_first ? rig_first(r) : RIG_GRADS, from = rig_moved(r);

    for (size_t s = 0; s < r->segment_count; s++) {
        uint64_t begin;
        const size_t n = rig_part(r, s, &begin);
        const gradreg_type param = rig_type(r, from, s), grad = rig_type(r, to, s);
        /* Before the first move of an OUT_OF_PLACE step theta' is theta. */
        const void *theta = is_first ? r->piece[RIG_PARAMS][s] : r->piece[from][s];
        for (size_t i = 0; i < n; i++) {
            const double h = unit(word_of(0x4e55, s, begin + i));
            const double g = unit(word_of(seed, s, begin + i));
            typed_set(r->piece[to][s], grad, i, 0.25 * g + h * typed_get(theta, param, i));
        }
    }
}

/* ---- reading back ----------------------------------------------------------------- */

size_t rig_bytes(const rig *r, enum rig_buffer buffer)
{
    size_t bytes = 0;
    uint64_t begin;

    for (size_t s = 0; s < r->segment_count; s++)
        bytes += rig_part(r, s, &begin) * type_bytes(rig_type(r, buffer, s));
    return bytes;
}

char *rig_gather(const rig *r, enum rig_buffer buffer)
{
    char *all = malloc(rig_bytes(r, buffer) + 1), *at = all;

    ck_assert_ptr_nonnull(all);
    for (size_t s = 0; s < r->segment_count; s++) {
        uint64_t begin;
        const size_t bytes = rig_part(r, s, &begin) * type_bytes(rig_type(r, buffer, s));
        if (bytes > 0)
            memcpy(at, r->piece[buffer][s], bytes);
        at += bytes;
    }
    return all;
}

void rig_assert(const rig *r, enum rig_buffer buffer, const char *gathered, const char *what)
{
    for (size_t s = 0; s < r->segment_count; s++) {
        uint64_t begin;
        const gradreg_type type = rig_type(r, buffer, s);
        const size_t n = rig_part(r, s, &begin), bytes = n * type_bytes(type);
        if (bytes > 0 && memcmp(gathered, r->piece[buffer][s], bytes) != 0)
            for (size_t i = 0; i < n; i++)
                if (typed_bits(gathered, type, i) != typed_bits(r->piece[buffer][s], type, i))
                    ck_abort_msg("%s: segment %zu, element %zu: got %x, want %x", what, s,
                                 i + (size_t)begin, typed_bits(r->piece[buffer][s], type, i),
                                 typed_bits(gathered, type, i));
        gathered += bytes;
    }
}

uint64_t rig_digest(const rig *r, enum rig_buffer buffer)
{
    const size_t bytes = rig_bytes(r, buffer);
    char *all = rig_gather(r, buffer);
    uint64_t sum = DIGEST_START, word = 0;
    size_t at = 0;

    for (; at + sizeof(word) <= bytes; at += sizeof(word)) {
        memcpy(&word, all + at, sizeof(word));
        sum = digest(sum, word);
    }
    for (; at < bytes; at++)
        sum = digest(sum, (unsigned char)all[at]);
    free(all);
    return sum;
}

/* What guarded_new() filled in and no segment owns. */
static void check_gaps(const rig *r, enum rig_buffer buffer)
{
    const size_t size = type_bytes(rig_type(r, buffer, 0));
    const size_t bytes = r->setup.count * size;
    char *owned = calloc(bytes + 1, 1);

    ck_assert_ptr_nonnull(owned);
    for (size_t s = 0; s < r->segment_count; s++) {
        uint64_t begin;
        const size_t n = rig_part(r, s, &begin);
        if (n > 0)
            memset(owned + ((char *)r->piece[buffer][s] - r->flat[buffer]), 1, n * size);
    }
    for (size_t i = 0; i < bytes; i++)
        if (!owned[i] && (unsigned char)r->flat[buffer][i] != 0xa5)
            ck_abort_msg("byte %zu of buffer %d belongs to no segment and has changed", i,
                         (int)buffer);
    free(owned);
}

void rig_check_gaps(const rig *r)
{
    for (int b = 0; b < RIG_BUFFERS; b++) {
        if (r->flat[b] != NULL) {
            guarded_check(r->flat[b]);
            check_gaps(r, (enum rig_buffer)b);
        }
        for (size_t s = 0; r->setup.scattered && r->piece[b] != NULL && s < r->segment_count;
             s++)
            if (r->piece[b][s] != NULL)
                guarded_check(r->piece[b][s]);
    }
}

/* ---- the report ------------------------------------------------------------------- */

size_t rig_rows_bytes(const rig *r)
{
    return ((size_t)r->params.layer_count + 1) * GRADREG_TERMS_COLUMNS * sizeof(double);
}

double *rig_rows(rig *r)
{
    double *rows = malloc(rig_rows_bytes(r));

    ck_assert_ptr_nonnull(rows);
    assert_ok(gradreg_regularizer_terms_enqueue(r->reg, rows));
    return rows;
}

gradreg_terms rig_terms(rig *r)
{
    gradreg_terms total = GRADREG_TERMS_INIT;

    assert_ok(gradreg_regularizer_terms(r->reg, &total, NULL, 0));
    return total;
}

int32_t rig_passes(rig *r)
{
    int32_t passes = -1;

    assert_ok(gradreg_regularizer_extra_passes(r->reg, &passes));
    return passes;
}
