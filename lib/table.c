/* table.c - the segments, checked, sorted into bins, laid out in the workspace.
 *
 * In: the caller's segments and the resolved parameters. Out: a gr_table, or a sentence that names
 * the segment, for overlaps both. */
#include "table.h"

#include <string.h>

#include "hash.h"
#include "options.h"
#include "order.h"
#include "reduce.h"
#include "status.h"
#include "step.h"
#include "types.h"

static uint64_t padded(uint64_t bytes)
{
    return (bytes + 63u) & ~(uint64_t)63u;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- checks of one segment ------------------------------------------------------- */

static gradreg_status check_extent(const gradreg_segment *s, size_t i, uint64_t end)
{
    GR_REQUIRE(s->count <= UINT64_MAX - s->offset && s->count <= UINT64_C(1) << 58,
               "segments[%zu]: offset %llu + count %llu is too large", i,
               (unsigned long long)s->offset, (unsigned long long)s->count);
    GR_REQUIRE(end == 0 || s->offset + s->count <= end,
               "segments[%zu]: offset %llu + count %llu ends past %llu", i,
               (unsigned long long)s->offset, (unsigned long long)s->count,
               (unsigned long long)end);
    GR_REQUIRE(s->shard_begin <= s->count && s->shard_count <= s->count - s->shard_begin,
               "segments[%zu]: shard_begin %llu + shard_count %llu ends past count %llu", i,
               (unsigned long long)s->shard_begin, (unsigned long long)s->shard_count,
               (unsigned long long)s->count);
    return GRADREG_OK;
}

static gradreg_status check_kind(const gradreg_segment *s, size_t i, int32_t layer_count)
{
    const uint32_t flags = GRADREG_SEGMENT_REPLICA | GRADREG_SEGMENT_FROZEN;
    if (s->layer == GRADREG_LAYER_STACKED)
        return GR_FAIL(GRADREG_ERROR_INVALID_ARGUMENT,
                       "segments[%zu]: layer is GRADREG_LAYER_STACKED: several layers in one "
                       "tensor, split it into one segment a layer",
                       i);
    GR_REQUIRE(s->layer >= GRADREG_LAYER_NONE && s->layer < layer_count,
               "segments[%zu]: layer %d, must be GRADREG_LAYER_NONE (-1) or 0 to %d", i,
               s->layer, layer_count - 1);
    GR_REQUIRE(s->role != 0 && (s->role & (s->role - 1)) == 0 && s->role <= GRADREG_ROLE_OTHER,
               "segments[%zu]: role 0x%x, must be one GRADREG_ROLE_ constant", i, s->role);
    GR_REQUIRE((s->flags & ~flags) == 0, "segments[%zu]: flags 0x%x has bits outside 0x%x", i,
               s->flags, flags);
    GR_REQUIRE(s->reserved[0] == 0 && s->reserved[1] == 0 && s->reserved[2] == 0,
               "segments[%zu]: reserved must be 0", i);
    return GRADREG_OK;
}

static gradreg_status read_types(gr_segment *out, const gradreg_segment *s, size_t i,
                                 const gradreg_regularizer_params *p)
{
    GR_REQUIRE(s->param_type == 0 || gr_type_is_known(s->param_type),
               "segments[%zu]: param_type %d, must be 0 or a GRADREG_TYPE_ constant", i,
               s->param_type);
    GR_REQUIRE(s->grad_type == 0 || gr_type_is_known(s->grad_type),
               "segments[%zu]: grad_type %d, must be 0 or a GRADREG_TYPE_ constant", i,
               s->grad_type);
    out->param_type = s->param_type != 0 ? s->param_type : p->param_type;
    out->grad_type = s->grad_type != 0 ? s->grad_type : p->grad_type;
    if (!gradreg_i_type_pair_known(out->param_type, out->grad_type))
        return GR_FAIL(
            GRADREG_ERROR_UNSUPPORTED,
            "segments[%zu]: param type %s with grad type %s, use f32 gradients or the "
            "param type",
            i, gradreg_i_type_name(out->param_type), gradreg_i_type_name(out->grad_type));
    /* Every number of another type is an f32: rounding to f32, or to the own type, changes nothing. */
    out->compute_type =
        p->compute_type == out->param_type || p->compute_type == GRADREG_TYPE_F32
            ? 0
            : p->compute_type;
    return GRADREG_OK;
}

/* ---- overlaps -------------------------------------------------------------------- */

static int offset_before(const void *keys, uint64_t a, uint64_t b)
{
    const gradreg_segment *s = keys;
    return s[a].offset != s[b].offset ? s[a].offset < s[b].offset : a < b;
}

/* A table whose offsets are all 0 is meant for a pointer per segment: nothing to compare. */
static int has_offsets(const gradreg_segment *s, size_t count)
{
    size_t at_zero = 0;
    for (size_t i = 0; i < count; i++) {
        if (s[i].offset != 0)
            return 1;
        at_zero += s[i].count > 0;
    }
    return at_zero <= 1;
}

static gradreg_status check_overlaps(gr_table *t, const gradreg_segment *s)
{
    uint64_t last = 0;
    int any = 0;
    t->no_offsets = !has_offsets(s, t->segment_count);
    if (t->no_offsets)
        return GRADREG_OK;
    gradreg_i_order(t->order, t->segment_count, offset_before, s);
    for (size_t k = 0; k < t->segment_count; k++) {
        const uint64_t i = t->order[k];
        if (s[i].count == 0)
            continue;
        GR_REQUIRE(
            !any || s[last].offset + s[last].count <= s[i].offset,
            "segments[%llu] (offset %llu, count %llu) overlaps segments[%llu] (offset %llu, "
            "count %llu)",
            (unsigned long long)i, (unsigned long long)s[i].offset,
            (unsigned long long)s[i].count, (unsigned long long)last,
            (unsigned long long)s[last].offset, (unsigned long long)s[last].count);
        last = i;
        any = 1;
    }
    return GRADREG_OK;
}

/* ---- what a segment takes part in ------------------------------------------------ */

static double multiplier_of(const gr_segment *s, const gradreg_regularizer_params *p,
                            const double *multipliers)
{
    return s->layer >= 0 ? multipliers[s->layer] : p->schedule.outside_multiplier;
}

static int is_noisy(const gr_segment *s, const gradreg_noise *noise)
{
    return noise->rule != GRADREG_NOISE_OFF && (s->role & noise->roles) != 0 &&
           s->layer >= noise->first_layer && s->layer <= noise->last_layer;
}

static void decide_flags(gr_segment *s, uint32_t caller_flags,
                         const gradreg_regularizer_params *p, const double *multipliers)
{
    const double m = multiplier_of(s, p, multipliers);
    if (caller_flags & GRADREG_SEGMENT_REPLICA)
        s->flags |= GR_SEGMENT_REPLICA;
    if (caller_flags & GRADREG_SEGMENT_FROZEN) {
        s->flags |= GR_SEGMENT_FROZEN;
        return;
    }
    if ((s->role & p->perturbed_roles) != 0 &&
        (s->layer >= 0 || p->schedule.outside_multiplier > 0))
        s->flags |= GR_SEGMENT_PERTURBED;
    if ((s->role & p->regularized_roles) != 0) {
        s->flags |= GR_SEGMENT_REGULARIZED;
        if (p->interval > 1 && (m > 0 || p->depth == GRADREG_DEPTH_ON_PENALTY))
            s->flags |= GR_SEGMENT_KEEPS;
    }
    if (p->second_pass == GRADREG_SECOND_PASS_FULL ||
        ((s->flags & GR_SEGMENT_REGULARIZED) != 0 && m > 0))
        s->flags |= GR_SEGMENT_SEEN;
    if (is_noisy(s, &p->noise))
        s->flags |= GR_SEGMENT_NOISY;
}

/* STEP repeats delta, so there must be one, and f32 must be able to hold it. */
static gradreg_status check_step_noise(const gr_segment *s, size_t i,
                                       const gradreg_regularizer_params *p,
                                       const double *multipliers)
{
    if ((s->flags & GR_SEGMENT_NOISY) == 0 || p->noise.rule != GRADREG_NOISE_STEP)
        return GRADREG_OK;
    const char *why = NULL;
    if (s->param_type != GRADREG_TYPE_F32 || s->compute_type != 0)
        why = "needs f32 weights and f32 compute";
    else if ((s->flags & GR_SEGMENT_PERTURBED) == 0)
        why = "needs perturbed segments";
    else if (p->depth == GRADREG_DEPTH_ON_PENALTY && multiplier_of(s, p, multipliers) == 0)
        why = "would be 0 where the multiplier is 0 under depth ON_PENALTY";
    if (why != NULL)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED, "params.noise.rule = STEP %s: segments[%zu]",
                       why, i);
    return GRADREG_OK;
}

/* ---- bins ------------------------------------------------------------------------ */

static void find_bin(gr_table *t, gr_segment *s)
{
    const uint32_t kind = s->flags & (GR_SEGMENT_PERTURBED | GR_SEGMENT_REGULARIZED |
                                      GR_SEGMENT_NOISY | GR_SEGMENT_SEEN | GR_SEGMENT_KEEPS);
    const double ulp = gr_half_ulp(s->grad_type) * gr_half_ulp(s->grad_type);
    int32_t *newest = &t->layer_first[s->layer + 1], bin = *newest;
    while (bin >= 0 && !(t->bins[bin].flags == kind && t->bins[bin].half_ulp_squared == ulp))
        bin = t->bins[bin].next[0];
    if (bin < 0) {
        bin = (int32_t)t->bin_count++;
        t->bins[bin] = (gr_bin){ s->layer, kind, 0.0, ulp, { -1, -1 } };
        /* No other segment will ask for a noise segment's bin: it need not be met on the way. */
        if ((kind & GR_SEGMENT_NOISY) == 0) {
            t->bins[bin].next[0] = *newest;
            *newest = bin;
        }
    }
    s->bin = bin;
    t->bins[bin].elements += (double)s->count;
}

static void forget_bins(gr_table *t, int32_t layer_count)
{
    for (int32_t l = 0; l <= layer_count; l++)
        t->layer_first[l] = -1;
}

/* All of a layer's bins, and all of the table's, in the order in which a step adds them. */
static void chain_bins(gr_table *t, int32_t layer_count)
{
    forget_bins(t, layer_count);
    for (size_t b = t->bin_count; b-- > 0;) {
        int32_t *first = &t->layer_first[t->bins[b].layer + 1];
        t->bins[b].next[0] = *first;
        t->bins[b].next[1] = b + 1 < t->bin_count ? (int32_t)b + 1 : -1;
        *first = (int32_t)b;
    }
}

/* ---- the workspace's parts ------------------------------------------------------- */

static uint64_t take(uint64_t *total, uint64_t count, uint64_t element_bytes)
{
    const uint64_t at = *total;
    *total += padded(count * element_bytes);
    return at;
}

static uint64_t capacity_of(const gr_segment *s, const gradreg_regularizer_params *p)
{
    if (s->shard_begin != 0 || s->shard_count != 0)
        return s->shard_count;
    if (p->slice_begin == 0 && p->slice_count == 0)
        return s->count;
    const uint64_t begin = larger(s->offset, p->slice_begin);
    const uint64_t end = smaller(s->offset + s->count, p->slice_begin + p->slice_count);
    return begin < end ? end - begin : 0;
}

static void lay_out(gr_table *t, gr_segment *s, const gradreg_regularizer_params *p)
{
    const uint64_t n = s->capacity;
    if ((s->flags & (GR_SEGMENT_PERTURBED | GR_SEGMENT_NOISY)) != 0 &&
        p->placement == GRADREG_PLACEMENT_IN_PLACE && p->restore == GRADREG_RESTORE_COPY)
        s->clean_at = take(&t->storage.clean, n, gr_type_bytes(s->param_type));
    if (p->first_gradient == GRADREG_FIRST_GRADIENT_COPIED && gr_reads_first(p) &&
        (s->flags & GR_SEGMENT_FROZEN) == 0)
        s->first_at = take(&t->storage.first, n, gr_type_bytes(s->grad_type));
    if (p->difference == GRADREG_DIFFERENCE_CENTRAL && (s->flags & GR_SEGMENT_SEEN) != 0)
        s->plus_at = take(&t->storage.plus, n, gr_type_bytes(s->grad_type));
    if ((s->flags & GR_SEGMENT_KEEPS) != 0)
        s->kept_at = take(&t->storage.kept, n, sizeof(float));
    if ((s->flags & GR_SEGMENT_NOISY) != 0)
        s->noise_at = take(&t->storage.noise, n, sizeof(float));
}

/* ---- the hash -------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    for (int byte = 0; byte < 8; byte++)
        hash = gr_hash(hash, value >> (8 * byte) & 0xffu);
    return hash;
}

static uint64_t hash_of(const gr_table *t, const gradreg_regularizer_params *p)
{
    uint64_t h = GR_HASH_START;
    for (size_t i = 0; i < t->segment_count; i++) {
        const gr_segment *s = &t->segments[i];
        const uint64_t fields[] = { s->offset,
                                    s->shard_begin,
                                    s->count,
                                    s->capacity,
                                    s->role,
                                    (uint64_t)(int64_t)s->layer,
                                    s->flags,
                                    (uint64_t)s->param_type,
                                    (uint64_t)s->grad_type };
        for (size_t k = 0; k < sizeof(fields) / sizeof(*fields); k++)
            h = mix(h, fields[k]);
    }
    const uint64_t fields[] = { p->slice_begin,           p->slice_count,
                                (uint64_t)p->layer_count, (uint64_t)p->interval,
                                (uint64_t)p->noise.rule,  p->adaptive.a_max > 0,
                                (uint64_t)p->rank,        (uint64_t)p->world };
    for (size_t k = 0; k < sizeof(fields) / sizeof(*fields); k++)
        h = mix(h, fields[k]);
    return h;
}

/* ---- building -------------------------------------------------------------------- */

size_t gradreg_i_table_bytes(size_t segment_count, int32_t layer_count)
{
    return segment_count *
               (sizeof(gr_segment) + sizeof(gr_bin) + GR_TABLE_KEYS * sizeof(uint64_t)) +
           ((size_t)layer_count + 1) * sizeof(int32_t);
}

static void start(gr_table *t, void *memory, size_t segment_count, int32_t layer_count)
{
    memset(t, 0, sizeof(*t));
    memset(memory, 0, gradreg_i_table_bytes(segment_count, layer_count));
    t->segment_count = segment_count;
    t->segments = memory;
    t->bins = (gr_bin *)(void *)(t->segments + segment_count);
    t->order = (uint64_t *)(void *)(t->bins + segment_count);
    t->layer_first = (int32_t *)(void *)(t->order + GR_TABLE_KEYS * segment_count);
    forget_bins(t, layer_count);
}

static gradreg_status read_segment(gr_table *t, const gradreg_segment *from, size_t i,
                                   const gradreg_regularizer_params *p,
                                   const double *multipliers)
{
    gr_segment *s = &t->segments[i];
    GR_TRY(check_extent(from, i, p->parameter_count));
    GR_TRY(check_kind(from, i, p->layer_count));
    GR_TRY(read_types(s, from, i, p));
    s->offset = from->offset;
    s->count = from->count;
    s->shard_begin = from->shard_begin;
    s->shard_count = from->shard_count;
    s->layer = from->layer;
    s->role = from->role;
    s->noise_index = -1;
    decide_flags(s, from->flags, p, multipliers);
    return check_step_noise(s, i, p, multipliers);
}

static void note_types(gr_table *t, const gr_segment *s, int first)
{
    if (first) {
        t->one_param_type = s->param_type;
        t->one_grad_type = s->grad_type;
    }
    if (t->one_param_type != s->param_type)
        t->one_param_type = 0;
    if (t->one_grad_type != s->grad_type)
        t->one_grad_type = 0;
}

static gradreg_status check_slice(gr_table *t, const gradreg_regularizer_params *p)
{
    for (size_t i = 0; i < t->segment_count; i++)
        t->parameter_count =
            larger(t->parameter_count, t->segments[i].offset + t->segments[i].count);
    t->parameter_count = larger(t->parameter_count, p->parameter_count);
    GR_REQUIRE(p->slice_count <= UINT64_MAX - p->slice_begin &&
                   p->slice_begin + p->slice_count <= t->parameter_count,
               "params: slice_begin %llu + slice_count %llu ends past %llu: if the flat buffer "
               "is padded, set parameter_count to its length",
               (unsigned long long)p->slice_begin, (unsigned long long)p->slice_count,
               (unsigned long long)t->parameter_count);
    return GRADREG_OK;
}

gradreg_status gradreg_i_table_build(gr_table *t, void *memory, const gradreg_segment *segments,
                                     size_t segment_count, const gradreg_regularizer_params *p,
                                     const double *multipliers)
{
    int32_t noise_segments = 0;
    uint64_t elements = 0;
    start(t, memory, segment_count, p->layer_count);
    for (size_t i = 0; i < segment_count; i++) {
        GR_TRY(read_segment(t, &segments[i], i, p, multipliers));
        elements += segments[i].count;
        /* So that no sum of bytes can overflow. */
        GR_REQUIRE(elements <= UINT64_C(1) << 58,
                   "segments[%zu]: count %llu brings the table to more than 2^58 elements", i,
                   (unsigned long long)segments[i].count);
    }
    GR_TRY(check_overlaps(t, segments));
    GR_TRY(check_slice(t, p));
    for (size_t i = 0; i < segment_count; i++) {
        gr_segment *s = &t->segments[i];
        if ((s->flags & GR_SEGMENT_NOISY) != 0)
            s->noise_index = noise_segments++;
        s->capacity = capacity_of(s, p);
        find_bin(t, s);
        lay_out(t, s, p);
        note_types(t, s, i == 0);
        t->piece_capacity += s->capacity > 0 ? s->capacity / GR_PIECE + 2 : 0;
        t->block_capacity += s->capacity > 0 ? s->capacity / GR_BLOCK + 2 : 0;
    }
    chain_bins(t, p->layer_count);
    GR_REQUIRE(p->noise.rule == GRADREG_NOISE_OFF || noise_segments > 0,
               "params.noise: no segment has a role of noise.roles = 0x%x in layers %d to %d",
               p->noise.roles, p->noise.first_layer, p->noise.last_layer);
    t->hash = hash_of(t, p);
    return GRADREG_OK;
}
