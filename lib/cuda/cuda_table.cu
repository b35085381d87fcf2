/* cuda_table.cu - keeps the device's copy of table and spans up to date (cuda_table.h).
 *
 * In: the host's table and spans. Out: the words that differ from what the device has, written as
 * kernel parameters. A graph that was captured may run at any time and write the words that it
 * kept: so whatever is captured writes all of the caller's words once per graph, and once there is
 * a graph every later call writes them again. */
#include "cuda_table.h"

#include <string.h>

#include "cuda_types.h"
#include "cuda_write.h"

/* What the host knows about the device's copy. The words of the mirror follow. */
typedef struct gr_notes {
    int cleared;   /* counters are zero */
    int has_table; /* of this placement: */
    int by_pointer;
    int graph_has_table; /* some graph writes a table */
    int graphs;          /* there are graphs */
    uint32_t known;      /* bit per gr_word: the device has the mirror's */
    uint64_t slice_begin, slice_count;
    unsigned long long graph; /* being captured; 0: none */
    uint64_t pairs;           /* gr_pair_bit */
    uint32_t unit_count;
    gr_pending pending;
} gr_notes;

static const uint32_t OWN_WORDS = (1u << GR_WORDS) - (1u << GR_WORD_CALLERS);

static gr_notes *notes_of(const gr_work *work)
{
    return static_cast<gr_notes *>(work->notes);
}

static uint64_t *mirror_of(const gr_work *work)
{
    return reinterpret_cast<uint64_t *>(notes_of(work) + 1);
}

gr_pending *gradreg_cuda_pending(gr_work *work)
{
    return &notes_of(work)->pending;
}

size_t gradreg_cuda_note_bytes(size_t segment_count)
{
    return sizeof(gr_notes) + GR_WORDS * segment_count * sizeof(uint64_t);
}

/* ---- device memory --------------------------------------------------------------- */

typedef struct gr_scratch {
    gr_cuda_segment *segments;
    uint64_t *words;
    uint32_t *order, *bin_begin;
    double *held;
    uint32_t *segment_done, *grid_done;
    double *segment_sums, *unit_sums;
    uint64_t unit_capacity;
} gr_scratch;

static char *take(size_t *used, char *base, size_t bytes)
{
    char *part = base != NULL ? base + *used : NULL;
    *used += (bytes + 63) & ~static_cast<size_t>(63);
    return part;
}

/* A part may begin and end anywhere in its segment. */
static uint64_t unit_capacity(const gr_table *t)
{
    uint64_t units = 0;
    for (size_t i = 0; i < t->segment_count; i++)
        if (t->segments[i].capacity > 0)
            units += (t->segments[i].capacity / GR_BLOCK + 2) / GR_UNIT_BLOCKS + 1;
    return units;
}

static size_t lay_out(gr_scratch *s, const gr_table *t, void *memory)
{
    char *base = static_cast<char *>(memory);
    const size_t n = t->segment_count, bins = t->bin_count;
    size_t used = 0;
    s->unit_capacity = unit_capacity(t);
    s->segments =
        reinterpret_cast<gr_cuda_segment *>(take(&used, base, n * sizeof(gr_cuda_segment)));
    s->words = reinterpret_cast<uint64_t *>(take(&used, base, GR_WORDS * n * sizeof(uint64_t)));
    s->order = reinterpret_cast<uint32_t *>(take(&used, base, n * sizeof(uint32_t)));
    s->bin_begin =
        reinterpret_cast<uint32_t *>(take(&used, base, (bins + 1) * sizeof(uint32_t)));
    s->held = reinterpret_cast<double *>(take(&used, base, bins * sizeof(double)));
    s->segment_done = reinterpret_cast<uint32_t *>(take(&used, base, n * sizeof(uint32_t)));
    s->grid_done = reinterpret_cast<uint32_t *>(take(&used, base, sizeof(uint32_t)));
    s->segment_sums =
        reinterpret_cast<double *>(take(&used, base, GR_BLOCK_ROWS * n * sizeof(double)));
    s->unit_sums = reinterpret_cast<double *>(
        take(&used, base, GR_BLOCK_ROWS * s->unit_capacity * sizeof(double)));
    return used;
}

size_t gradreg_cuda_scratch_bytes(const gr_table *table)
{
    gr_scratch s;
    return lay_out(&s, table, NULL);
}

/* ---- the table ------------------------------------------------------------------- */

/* Collects records until a launch is full. */
typedef struct gr_writer {
    const gr_cuda_context *context;
    char *to;
    size_t used;
    char bytes[GR_WRITE_WORDS * sizeof(uint32_t)];
} gr_writer;

static gradreg_status flush(gr_writer *w)
{
    GR_TRY(gradreg_cuda_write(w->context, w->to, w->bytes, w->used));
    w->to += w->used;
    w->used = 0;
    return GRADREG_OK;
}

static gradreg_status append(gr_writer *w, const void *record, size_t bytes)
{
    if (w->used + bytes > sizeof(w->bytes))
        GR_TRY(flush(w));
    memcpy(w->bytes + w->used, record, bytes);
    w->used += bytes;
    return GRADREG_OK;
}

static void start(gr_writer *w, const gr_cuda_context *c, void *to)
{
    w->context = c;
    w->to = static_cast<char *>(to);
    w->used = 0;
}

static gradreg_status write_segments(gr_work *work, gr_writer *w, gr_cuda_segment *to)
{
    gr_notes *notes = notes_of(work);
    uint32_t unit = 0;
    notes->pairs = 0;
    start(w, gr_cuda_of(work->context), to);
    for (size_t i = 0; i < work->table->segment_count; i++) {
        const gr_segment *s = &work->table->segments[i];
        const uint32_t units =
            static_cast<uint32_t>((s->block_count + GR_UNIT_BLOCKS - 1) / GR_UNIT_BLOCKS);
        const gr_cuda_segment record = { s->begin,        s->end, unit,          units,
                                         s->flags,        s->bin, s->param_type, s->grad_type,
                                         s->compute_type, 0 };
        GR_TRY(append(w, &record, sizeof(record)));
        unit += units;
        if (units > 0)
            notes->pairs |= gr_pair_bit(s->param_type, s->grad_type);
    }
    notes->unit_count = unit;
    return flush(w);
}

/* Bins with their segments, each in the table's order, in which they are added: bin b's are
 * segments[begin[b]] to segments[begin[b + 1] - 1]. */
typedef struct gr_members {
    uint64_t *begin, *segments;
} gr_members;

static gr_members members_of(const gr_table *t)
{
    const gr_members m = { t->order, t->order + t->bin_count + 1 };
    memset(m.begin, 0, (t->bin_count + 1) * sizeof(*m.begin));
    for (size_t i = 0; i < t->segment_count; i++)
        m.begin[t->segments[i].bin + 1]++;
    for (size_t b = 0; b < t->bin_count; b++)
        m.begin[b + 1] += m.begin[b];
    for (size_t i = 0; i < t->segment_count; i++) /* each begin moves to its bin's end */
        m.segments[m.begin[t->segments[i].bin]++] = i;
    for (size_t b = t->bin_count; b > 0; b--)
        m.begin[b] = m.begin[b - 1];
    m.begin[0] = 0;
    return m;
}

static_assert(GR_TABLE_KEYS >= 3, "a bin has a segment: begins, an end, and segments");

/* What is counted in 64 bits, in the 32 that the device reads. */
static gradreg_status write_narrow(gr_work *work, gr_writer *w, uint32_t *to,
                                   const uint64_t *from, size_t count)
{
    start(w, gr_cuda_of(work->context), to);
    for (size_t i = 0; i < count; i++) {
        const uint32_t x = static_cast<uint32_t>(from[i]);
        GR_TRY(append(w, &x, sizeof(x)));
    }
    return flush(w);
}

static gradreg_status write_held(gr_work *work, gr_writer *w, const gr_members *m, double *to)
{
    const gr_table *t = work->table;
    start(w, gr_cuda_of(work->context), to);
    for (size_t b = 0; b < t->bin_count; b++) {
        double held = 0.0;
        for (uint64_t k = m->begin[b]; k < m->begin[b + 1]; k++) {
            const gr_segment *s = &t->segments[m->segments[k]];
            if ((s->flags & GR_SEGMENT_REPLICA) == 0)
                held += static_cast<double>(s->end - s->begin);
        }
        GR_TRY(append(w, &held, sizeof(held)));
    }
    return flush(w);
}

static gradreg_status write_bins(gr_work *work, gr_writer *w, const gr_scratch *s)
{
    const gr_table *t = work->table;
    const gr_members m = members_of(t);
    GR_TRY(write_narrow(work, w, s->order, m.segments, t->segment_count));
    GR_TRY(write_narrow(work, w, s->bin_begin, m.begin, t->bin_count + 1));
    return write_held(work, w, &m, s->held);
}

static gradreg_status place_table(gr_work *work, const gr_scratch *s)
{
    const gr_table *t = work->table;
    gr_notes *notes = notes_of(work);
    gr_writer writer;
    if (notes->has_table && notes->by_pointer == t->placed_by_pointer &&
        (t->placed_by_pointer ||
         (notes->slice_begin == t->slice_begin && notes->slice_count == t->slice_count)))
        return GRADREG_OK;
    notes->has_table = 0;
    GR_TRY(write_segments(work, &writer, s->segments));
    GR_TRY(write_bins(work, &writer, s));
    notes->has_table = 1;
    notes->known &= ~OWN_WORDS;
    notes->graph_has_table |= notes->graph != 0;
    notes->by_pointer = t->placed_by_pointer;
    notes->slice_begin = t->slice_begin;
    notes->slice_count = t->slice_count;
    return GRADREG_OK;
}

/* ---- the words ------------------------------------------------------------------- */

static void words_of(const gr_span *s, int first, uint64_t out[GR_WORDS])
{
    const char *const pointers[GR_WORDS] = {
        s->grads,      s->params, s->moved, first == GR_FIRST_OWN ? s->first : NULL,
        s->direction,  s->master, NULL,     s->clean,
        s->first_copy, s->plus,   s->kept,  s->noise
    };
    for (int k = 0; k < GR_WORDS; k++)
        out[k] = reinterpret_cast<uint64_t>(pointers[k]);
    out[GR_WORD_ABSENT] = s->absent;
}

static int find_first(const gr_work *work)
{
    int grads = 1, copy = 1;
    for (size_t i = 0; i < work->table->segment_count; i++) {
        const gr_span *s = &work->spans[i];
        const char *kept = (s->absent & GR_ABSENT_FIRST) != 0 ? NULL : s->first_copy;
        grads &= s->first == s->grads;
        copy &= s->first == kept;
    }
    return grads ? GR_FIRST_IS_GRADS : copy ? GR_FIRST_IS_COPY : GR_FIRST_OWN;
}

/* What this call does not have keeps its place in the mirror: the same pointers come back. */
static uint32_t find_given(const gr_work *work, int first)
{
    uint32_t given = 0;
    uint64_t words[GR_WORDS];
    for (size_t i = 0; i < work->table->segment_count; i++) {
        words_of(&work->spans[i], first, words);
        for (int k = 0; k < GR_WORDS; k++)
            given |= words[k] != 0 ? 1u << k : 0u;
    }
    return given | 1u << GR_WORD_ABSENT;
}

/* The run of words [first, last] that the device lacks; 1 if there is one. */
static int update_mirror(gr_work *work, int first_from, uint32_t given, size_t *from,
                         size_t *to)
{
    const size_t n = work->table->segment_count;
    uint64_t *mirror = mirror_of(work);
    uint64_t words[GR_WORDS];
    *from = GR_WORDS * n;
    *to = 0;
    for (size_t i = 0; i < n; i++) {
        words_of(&work->spans[i], first_from, words);
        for (size_t k = 0; k < GR_WORDS; k++) {
            const size_t at = k * n + i;
            const int has = (notes_of(work)->known >> k & 1u) != 0;
            if ((given >> k & 1u) == 0 || (has && mirror[at] == words[k]))
                continue;
            mirror[at] = words[k];
            *from = at < *from ? at : *from;
            *to = at > *to ? at : *to;
        }
    }
    return *from <= *to;
}

static gradreg_status write_own_words(gr_work *work, const gr_scratch *s)
{
    const size_t n = work->table->segment_count, at = GR_WORD_CALLERS * n;
    size_t from, to;
    (void)update_mirror(work, GR_FIRST_OWN, OWN_WORDS, &from, &to);
    GR_TRY(gradreg_cuda_write(gr_cuda_of(work->context), s->words + at, mirror_of(work) + at,
                              (GR_WORDS - GR_WORD_CALLERS) * n * sizeof(uint64_t)));
    notes_of(work)->known |= OWN_WORDS;
    return GRADREG_OK;
}

static gradreg_status write_words(gr_work *work, const gr_scratch *s, gr_walk *walk)
{
    size_t from, to;
    walk->first = find_first(work);
    walk->given = find_given(work, walk->first);
    if ((notes_of(work)->known & OWN_WORDS) != OWN_WORDS)
        GR_TRY(write_own_words(work, s));
    if (update_mirror(work, walk->first, walk->given, &from, &to))
        GR_TRY(gradreg_cuda_write(gr_cuda_of(work->context), s->words + from,
                                  mirror_of(work) + from, (to - from + 1) * sizeof(uint64_t)));
    notes_of(work)->known |= walk->given;
    return GRADREG_OK;
}

/* ---- a call ---------------------------------------------------------------------- */

gradreg_status gradreg_cuda_begin(gr_work *work)
{
    gr_notes *notes = notes_of(work);
    unsigned long long graph;
    GR_TRY(gradreg_cuda_capture(gr_cuda_of(work->context), &graph));
    notes->pending.waits = 0;
    if (graph != notes->graph || (graph == 0 && notes->graphs))
        notes->known &= OWN_WORDS;
    if (graph == 0 && notes->graph_has_table)
        notes->has_table = 0;
    notes->graph = graph;
    notes->graphs |= graph != 0;
    return GRADREG_OK;
}

static gradreg_status clear_counters(gr_work *work, const gr_scratch *s)
{
    const gr_cuda_context *c = gr_cuda_of(work->context);
    if (notes_of(work)->cleared)
        return GRADREG_OK;
    GR_CUDA_TRY(cudaMemsetAsync(s->segment_done, 0,
                                work->table->segment_count * sizeof(uint32_t), c->stream));
    GR_CUDA_TRY(cudaMemsetAsync(s->grid_done, 0, sizeof(uint32_t), c->stream));
    notes_of(work)->cleared = notes_of(work)->graph == 0; /* a graph may never run */
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_walk(gr_work *work, gr_walk *walk)
{
    gr_scratch s;
    (void)lay_out(&s, work->table, work->block_sums);
    memset(walk, 0, sizeof(*walk));
    GR_TRY(clear_counters(work, &s));
    GR_TRY(place_table(work, &s));
    GR_TRY(write_words(work, &s, walk));
    walk->segments = s.segments;
    walk->words = s.words;
    walk->order = s.order;
    walk->bin_begin = s.bin_begin;
    walk->segment_done = s.segment_done;
    walk->grid_done = s.grid_done;
    walk->segment_sums = s.segment_sums;
    walk->unit_sums = s.unit_sums;
    walk->unit_capacity = s.unit_capacity;
    walk->segment_count = static_cast<uint32_t>(work->table->segment_count);
    walk->unit_count = notes_of(work)->unit_count;
    walk->noisy = work->noisy;
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_held(gr_work *work, const double **held)
{
    gr_scratch s;
    (void)lay_out(&s, work->table, work->block_sums);
    GR_TRY(clear_counters(work, &s));
    GR_TRY(place_table(work, &s));
    *held = s.held;
    return GRADREG_OK;
}

uint64_t gradreg_cuda_pairs(const gr_work *work)
{
    const uint64_t pairs = notes_of(work)->pairs;
    return pairs != 0 ? pairs : gr_pair_bit(GRADREG_TYPE_F32, GRADREG_TYPE_F32);
}

uint32_t gradreg_cuda_types(const gr_work *work, int of_weights)
{
    const uint64_t pairs = gradreg_cuda_pairs(work);
    uint32_t types = 0;
#define GR_TAKE(P, G)                                                   \
    if ((pairs & gr_pair_bit(GRADREG_TYPE_##P, GRADREG_TYPE_##G)) != 0) \
        types |= gr_type_bit(of_weights ? GRADREG_TYPE_##P : GRADREG_TYPE_##G);
    GR_EACH_PAIR(GR_TAKE)
#undef GR_TAKE
    return types;
}
