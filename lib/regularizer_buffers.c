/* regularizer_buffers.c - what a call brings.
 *
 * In: the caller's gradreg_buffers. Out: one span per segment with every pointer that the backend
 * will follow, or a sentence that names the field and the segment. */
#include "regularizer.h"

#include <stdint.h>
#include <string.h>

#include "options.h"
#include "params.h"
#include "status.h"

/* One kind of buffer in its two forms. */
typedef struct gr_buffer {
    const char *name, *pointers_name;
    const void *flat;
    const void *const *pointers;
    int32_t type; /* of flat; 0: segments differ */
    int is_grad;  /* entries may be NULL */
} gr_buffer;

static size_t type_size(int32_t type)
{
    return type == GRADREG_TYPE_F32 ? 4 : 2;
}

static int is_given(const gr_buffer *b)
{
    return b->flat != NULL || b->pointers != NULL;
}

static gradreg_status check_form(const gr_buffer *b, int needed)
{
    GR_REQUIRE(b->flat == NULL || b->pointers == NULL,
               "buffers.%s and buffers.%s are both given, must be one of them", b->name,
               b->pointers_name);
    GR_REQUIRE(!needed || is_given(b), "buffers.%s and buffers.%s are NULL, one is needed here",
               b->name, b->pointers_name);
    GR_REQUIRE(b->flat == NULL || b->type != 0,
               "buffers.%s is one flat buffer, but segments have different types: use "
               "buffers.%s",
               b->name, b->pointers_name);
    GR_REQUIRE(b->flat == NULL || (uintptr_t)b->flat % type_size(b->type) == 0,
               "buffers.%s = %p is not aligned to %zu bytes", b->name, b->flat,
               type_size(b->type));
    return GRADREG_OK;
}

/* ---- which part of the table is here --------------------------------------------- */

static gradreg_status check_slice(const gradreg_regularizer *reg, const gradreg_buffers *b)
{
    const gradreg_regularizer_params *p = &reg->work.step.options;
    const uint64_t end = reg->table.parameter_count;
    GR_REQUIRE(b->slice_begin <= end, "buffers.slice_begin is %llu, the table ends at %llu",
               (unsigned long long)b->slice_begin, (unsigned long long)end);
    if (p->slice_begin != 0 || p->slice_count != 0) {
        GR_REQUIRE(b->slice_begin == p->slice_begin && b->count >= p->slice_count,
                   "buffers.slice_begin %llu and count %zu differ from params.slice_begin %llu "
                   "and slice_count %llu",
                   (unsigned long long)b->slice_begin, b->count,
                   (unsigned long long)p->slice_begin, (unsigned long long)p->slice_count);
        return GRADREG_OK;
    }
    GR_REQUIRE(
        p->world > 1 || (b->slice_begin == 0 && b->count >= end),
        "buffers.count is %zu from slice_begin %llu, the table ends at %llu: with world = 1 "
        "everything must be here",
        b->count, (unsigned long long)b->slice_begin, (unsigned long long)end);
    return GRADREG_OK;
}

/* Elements of a flat buffer that belong to the table; more may follow as padding. */
static uint64_t slice_count(const gradreg_regularizer *reg, const gradreg_buffers *b)
{
    const gradreg_regularizer_params *p = &reg->work.step.options;
    const uint64_t end = reg->table.parameter_count;
    const uint64_t rest = b->slice_begin < end ? end - b->slice_begin : 0;
    if (p->slice_begin != 0 || p->slice_count != 0)
        return p->slice_count;
    return b->count < rest ? b->count : rest;
}

static gradreg_status place(gradreg_regularizer *reg, const gradreg_buffers *b, int any_flat,
                            int any_pointers)
{
    const uint64_t count = slice_count(reg, b);
    if (any_flat)
        GR_TRY(check_slice(reg, b));
    if (any_flat && reg->table.segment_count > 1 && reg->table.parameter_count > 0)
        GR_REQUIRE(!reg->table.no_offsets,
                   "buffers: a flat buffer needs segments with offsets, "
                   "all are 0: use a pointer per segment");
    reg->slice_begin = b->slice_begin;
    if (any_flat && any_pointers)
        GR_TRY(gradreg_i_table_same_part(&reg->table, b->slice_begin, count));
    if (reg->state == GR_STATE_IDLE)
        return gradreg_i_table_place(&reg->table, !any_flat, b->slice_begin, count);
    /* A step's calls all hold the same elements: copies lie where the first one put them. */
    if (any_flat && !reg->table.placed_by_pointer)
        GR_REQUIRE(reg->table.slice_begin == b->slice_begin && reg->table.slice_count == count,
                   "buffers.slice_begin or count changed within the step");
    else if (any_flat)
        GR_TRY(gradreg_i_table_same_part(&reg->table, b->slice_begin, count));
    else if (!reg->table.placed_by_pointer)
        GR_TRY(gradreg_i_table_same_part(&reg->table, reg->table.slice_begin,
                                         reg->table.slice_count));
    return GRADREG_OK;
}

/* ---- one pointer ----------------------------------------------------------------- */

static gradreg_status find(char **out, const gradreg_regularizer *reg, const gr_buffer *b,
                           size_t index, int32_t type, int needed)
{
    const gr_segment *s = &reg->table.segments[index];
    *out = NULL;
    if (s->begin == s->end || !is_given(b))
        return GRADREG_OK;
    if (b->flat != NULL) {
        const uint64_t at = s->offset + s->begin - reg->slice_begin;
        *out = (char *)(uintptr_t)b->flat + at * type_size(type);
        return GRADREG_OK;
    }
    *out = (char *)(uintptr_t)b->pointers[index];
    GR_REQUIRE(*out != NULL || !needed,
               "buffers.%s[%zu] is NULL, the segment has %llu elements here", b->pointers_name,
               index, (unsigned long long)(s->end - s->begin));
    GR_REQUIRE((uintptr_t)*out % type_size(type) == 0,
               "buffers.%s[%zu] = %p is not aligned to %zu bytes", b->pointers_name, index,
               (void *)*out, type_size(type));
    return GRADREG_OK;
}

/* ---- overlaps -------------------------------------------------------------------- */

typedef struct gr_extent {
    const char *name;
    const char *begin, *end;
} gr_extent;

static gradreg_status check_extents(const gr_extent *e, size_t count, size_t segment)
{
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < i; k++)
            GR_REQUIRE(e[i].begin == NULL || e[k].begin == NULL || e[i].end <= e[k].begin ||
                           e[k].end <= e[i].begin,
                       "buffers.%s overlaps buffers.%s in segments[%zu]", e[i].name, e[k].name,
                       segment);
    return GRADREG_OK;
}

/* Within a segment; across segments the table has no overlaps, and pointers are compared in
 * check_tied. */
static gradreg_status check_span(const gradreg_regularizer *reg, size_t i,
                                 const char *first_grads)
{
    const gr_segment *s = &reg->table.segments[i];
    const gr_span *span = &reg->work.spans[i];
    const uint64_t n = s->end - s->begin;
    const size_t p = n * type_size(s->param_type), g = n * type_size(s->grad_type);
    const char *moved = span->moved != span->params ? span->moved : NULL;
#define EXTENT(name, at, bytes)                                    \
    {                                                              \
        name, at, at == NULL ? NULL : (const char *)(at) + (bytes) \
    }
    const gr_extent extents[] = { EXTENT("params", span->params, p),
                                  EXTENT("grads", span->grads, g),
                                  EXTENT("first_grads", first_grads, g),
                                  EXTENT("perturbed_params", moved, p),
                                  EXTENT("master_params", span->master, n * sizeof(float)),
                                  EXTENT("direction", span->direction, g) };
#undef EXTENT
    return check_extents(extents, sizeof(extents) / sizeof(*extents), i);
}

/* Flat buffers as wholes: a gradient of one segment must not be a weight of another. */
static gradreg_status check_flat(const gr_buffer *const *all, size_t count, uint64_t count_here)
{
    const uint64_t n = count_here;
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < i && all[i]->flat != NULL; k++) {
            const char *a = all[i]->flat, *b = all[k]->flat;
            GR_REQUIRE(b == NULL || a >= b + n * type_size(all[k]->type) ||
                           b >= a + n * type_size(all[i]->type),
                       "buffers.%s overlaps buffers.%s within %llu elements", all[i]->name,
                       all[k]->name, (unsigned long long)n);
        }
    return GRADREG_OK;
}

static int address_before(const void *keys, uint64_t a, uint64_t b)
{
    const gr_span *spans = keys;
    const uintptr_t at = (uintptr_t)spans[a].params, bt = (uintptr_t)spans[b].params;
    return at != bt ? at < bt : a < b;
}

/* A tensor that two segments point to would be stepped twice. */
static gradreg_status check_tied(gradreg_regularizer *reg)
{
    const gr_table *t = &reg->table;
    const gr_span *spans = reg->work.spans;
    size_t before = SIZE_MAX;
    gradreg_i_table_sort(t, address_before, spans);
    for (size_t k = 0; k < t->segment_count; k++) {
        const size_t i = (size_t)t->order[k];
        const gr_segment *s = &t->segments[i];
        if (spans[i].params == NULL || s->begin == s->end)
            continue;
        if (before != SIZE_MAX) {
            const gr_segment *b = &t->segments[before];
            GR_REQUIRE(
                (uintptr_t)spans[before].params +
                        (b->end - b->begin) * type_size(b->param_type) <=
                    (uintptr_t)spans[i].params,
                "buffers.param_pointers[%zu] overlaps buffers.param_pointers[%zu]: list a "
                "tied tensor once",
                i, before);
        }
        before = i;
    }
    return GRADREG_OK;
}

/* ---- all spans ------------------------------------------------------------------- */

typedef struct gr_given {
    gr_buffer params, grads, first, moved, master, direction;
} gr_given;

static void collect(gr_given *g, const gradreg_regularizer *reg, const gradreg_buffers *b,
                    int needs)
{
    const gradreg_regularizer_params *p = &reg->work.step.options;
    const int32_t param = reg->table.one_param_type, grad = reg->table.one_grad_type;
    const gr_buffer none = { 0 };
#define BUFFER(field, pointers, type, is_grad) \
    (gr_buffer){ #field, #pointers, b->field, (const void *const *)b->pointers, type, is_grad }
    *g = (gr_given){ none, none, none, none, none, none };
    if (needs & GR_NEED_PARAMS)
        g->params = BUFFER(params, param_pointers, param, 0);
    if (needs & GR_NEED_GRADS)
        g->grads = BUFFER(grads, grad_pointers, grad, 1);
    if ((needs & GR_NEED_FIRST) && p->first_gradient == GRADREG_FIRST_GRADIENT_CALLER_KEEPS)
        g->first = BUFFER(first_grads, first_grad_pointers, grad, 1);
    if ((needs & GR_NEED_MOVED) && p->placement == GRADREG_PLACEMENT_OUT_OF_PLACE)
        g->moved = BUFFER(perturbed_params, perturbed_param_pointers, param, 0);
    if ((needs & GR_NEED_MASTER) && p->restore == GRADREG_RESTORE_MASTER)
        g->master = BUFFER(master_params, master_param_pointers, GRADREG_TYPE_F32, 0);
    if ((needs & GR_NEED_DIRECTION) && p->direction == GRADREG_DIRECTION_CALLER)
        g->direction = BUFFER(direction, direction_pointers, grad, 0);
#undef BUFFER
}

static gradreg_status check_later(const gradreg_buffers *b)
{
    if (b->update != NULL || b->update_pointers != NULL)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED,
                       "buffers.update is given, it is not part of version 0.1");
    if (b->first_norm != NULL || b->second_norm != NULL)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED,
                       "buffers.%s is given, it is not part of version 0.1",
                       b->first_norm != NULL ? "first_norm" : "second_norm");
    GR_REQUIRE(b->verify_master <= 1, "buffers.verify_master is %u, must be 0 or 1",
               b->verify_master);
    GR_REQUIRE((uintptr_t)b->grad_scale % sizeof(float) == 0 &&
                   (uintptr_t)b->found_inf % sizeof(float) == 0,
               "buffers.grad_scale or found_inf is not aligned to 4 bytes");
    return GRADREG_OK;
}

static gradreg_status check_forms(gr_given *g)
{
    gr_buffer *all[] = {
        &g->params, &g->grads, &g->first, &g->moved, &g->master, &g->direction
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        GR_TRY(check_form(all[i], all[i]->name != NULL));
    return GRADREG_OK;
}

static int touches_weights(const gradreg_regularizer *reg, const gr_segment *s)
{
    return (s->flags & (GR_SEGMENT_PERTURBED | GR_SEGMENT_NOISY)) != 0 ||
           reg->work.step.options.placement == GRADREG_PLACEMENT_OUT_OF_PLACE;
}

static char *held(char *base, uint64_t at, int present)
{
    return present ? base + at : NULL;
}

static gradreg_status fill_span(gradreg_regularizer *reg, size_t i, const gr_given *g)
{
    const gradreg_regularizer_params *p = &reg->work.step.options;
    const gr_segment *s = &reg->table.segments[i];
    gr_span *span = &reg->work.spans[i];
    const int trained = (s->flags & GR_SEGMENT_FROZEN) == 0;
    const int moves = (s->flags & (GR_SEGMENT_PERTURBED | GR_SEGMENT_NOISY)) != 0;
    const int in_place = p->placement == GRADREG_PLACEMENT_IN_PLACE;
    const gr_buffer none = { 0 };
    char *first, *master, *direction;
    GR_TRY(find(&span->params, reg, &g->params, i, s->param_type, touches_weights(reg, s)));
    GR_TRY(find(&span->grads, reg, trained ? &g->grads : &none, i, s->grad_type, 0));
    GR_TRY(find(&first, reg, trained ? &g->first : &none, i, s->grad_type, 0));
    GR_TRY(find(&span->moved, reg, &g->moved, i, s->param_type, 1));
    GR_TRY(find(&master, reg, moves ? &g->master : &none, i, GRADREG_TYPE_F32, moves));
    GR_TRY(find(&direction, reg, (s->flags & GR_SEGMENT_PERTURBED) ? &g->direction : &none, i,
                s->grad_type, 1));
    if (in_place)
        span->moved = span->params;
    span->master = master;
    span->direction = direction;
    GR_TRY(check_span(reg, i, first));
    const int copied = p->first_gradient == GRADREG_FIRST_GRADIENT_COPIED;
    span->first = reg->no_first ? NULL : copied ? span->grads : first;
    span->first_copy = held(reg->first, s->first_at, trained && copied && !reg->no_first);
    span->clean =
        held(reg->clean, s->clean_at, moves && in_place && p->restore == GRADREG_RESTORE_COPY);
    span->plus =
        held(reg->plus, s->plus_at,
             p->difference == GRADREG_DIFFERENCE_CENTRAL && (s->flags & GR_SEGMENT_SEEN) != 0);
    span->kept = held(reg->kept, s->kept_at, (s->flags & GR_SEGMENT_KEEPS) != 0);
    span->noise = held(reg->noise, s->noise_at, (s->flags & GR_SEGMENT_NOISY) != 0);
    return GRADREG_OK;
}

/* Of the weights that this step moves, so that a later call with others is noticed. */
static uint64_t fingerprint(const gradreg_regularizer *reg)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < reg->table.segment_count; i++)
        hash = (hash ^ (uintptr_t)reg->work.spans[i].moved) * UINT64_C(0x100000001b3);
    return hash;
}

gradreg_status gradreg_i_regularizer_spans(gradreg_regularizer *reg, gradreg_buffers *b,
                                           const gradreg_buffers *caller, int needs)
{
    const gradreg_buffers defaults = GRADREG_BUFFERS_INIT;
    gr_given g;
    GR_REQUIRE(caller != NULL, "argument 'buffers' must not be NULL");
    *b = defaults;
    GR_TRY(gradreg_i_struct_read(b, sizeof(*b), sizeof(*b), caller, "buffers"));
    GR_TRY(check_later(b));
    collect(&g, reg, b, needs);
    GR_TRY(check_forms(&g));
    const gr_buffer *all[] = {
        &g.params, &g.grads, &g.first, &g.moved, &g.master, &g.direction
    };
    int any_flat = 0, any_pointers = 0;
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        any_flat |= all[i]->flat != NULL;
        any_pointers |= all[i]->pointers != NULL;
    }
    GR_TRY(place(reg, b, any_flat, any_pointers));
    if (any_flat)
        GR_TRY(check_flat(all, sizeof(all) / sizeof(*all), slice_count(reg, b)));
    for (size_t i = 0; i < reg->table.segment_count; i++)
        GR_TRY(fill_span(reg, i, &g));
    const int moved_given =
        needs &
        (reg->work.step.options.placement == GRADREG_PLACEMENT_IN_PLACE ? GR_NEED_PARAMS
                                                                        : GR_NEED_MOVED);
    if (!moved_given)
        return GRADREG_OK;
    const uint64_t weights = fingerprint(reg);
    if (reg->state != GR_STATE_IDLE) {
        GR_REQUIRE(weights == reg->step_buffers,
                   "buffers.params (or perturbed_params) changed within the step");
        return GRADREG_OK;
    }
    if (g.params.pointers != NULL)
        GR_TRY(check_tied(reg));
    reg->step_buffers = weights;
    return GRADREG_OK;
}
