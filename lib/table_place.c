/* table_place.c - which part of the table is here, cut into what one thread does at a time.
 *
 * In: a built table, a slice of the flat buffer or the segments' shards. Out: begin and end of
 * every segment, its blocks, and the pieces. */
#include "reduce.h"
#include "status.h"
#include "table.h"

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

size_t gradreg_i_table_piece_bytes(const gr_table *t)
{
    return t->piece_capacity * sizeof(gr_piece);
}

void gradreg_i_table_attach_pieces(gr_table *t, void *memory)
{
    t->pieces = memory;
}

/* ---- the part that is here ------------------------------------------------------- */

static void find_part(gr_segment *s, int by_pointer, uint64_t slice_begin, uint64_t slice_end)
{
    if (by_pointer) {
        const int all = s->shard_begin == 0 && s->shard_count == 0;
        s->begin = s->shard_begin;
        s->end = all ? s->count : s->shard_begin + s->shard_count;
        return;
    }
    const uint64_t begin = larger(s->offset, slice_begin);
    const uint64_t end = smaller(s->offset + s->count, slice_end);
    s->begin = begin < end ? begin - s->offset : 0;
    s->end = begin < end ? end - s->offset : 0;
}

static uint64_t piece_length(const gr_table *t)
{
    uint64_t elements = 0, length = GR_PIECE;
    for (size_t i = 0; i < t->segment_count; i++)
        elements += t->segments[i].end - t->segments[i].begin;
    while (length < GR_PIECE_LONGEST && elements / length >= 2 * GR_PIECES)
        length *= 2;
    return length;
}

static void cut_pieces(gr_table *t, gr_segment *s, size_t index, uint64_t length)
{
    s->first_block = t->block_count;
    for (uint64_t at = s->begin; at < s->end;) {
        const uint64_t end = smaller(s->end, (at / length + 1) * length);
        t->pieces[t->piece_count++] = (gr_piece){ (uint32_t)index, 0, at, end, t->block_count };
        t->block_count += (end + GR_BLOCK - 1) / GR_BLOCK - at / GR_BLOCK;
        at = end;
    }
    s->block_count = t->block_count - s->first_block;
}

gradreg_status gradreg_i_table_same_part(const gr_table *t, uint64_t slice_begin,
                                         uint64_t slice_count)
{
    for (size_t i = 0; i < t->segment_count; i++) {
        gr_segment flat = t->segments[i], pointer = t->segments[i];
        find_part(&flat, 0, slice_begin, slice_begin + slice_count);
        find_part(&pointer, 1, 0, 0);
        GR_REQUIRE(
            flat.end - flat.begin == pointer.end - pointer.begin &&
                (flat.begin == flat.end || flat.begin == pointer.begin),
            "buffers: flat buffers hold elements %llu to %llu of segments[%zu], pointers "
            "hold %llu to %llu",
            (unsigned long long)flat.begin, (unsigned long long)flat.end, i,
            (unsigned long long)pointer.begin, (unsigned long long)pointer.end);
    }
    return GRADREG_OK;
}

gradreg_status gradreg_i_table_place(gr_table *t, int by_pointer, uint64_t slice_begin,
                                     uint64_t slice_count)
{
    if (t->placed && t->placed_by_pointer == by_pointer &&
        (by_pointer || (t->slice_begin == slice_begin && t->slice_count == slice_count)))
        return GRADREG_OK;
    for (size_t i = 0; i < t->segment_count; i++) {
        gr_segment part = t->segments[i];
        find_part(&part, by_pointer, slice_begin, slice_begin + slice_count);
        GR_REQUIRE(
            part.end - part.begin <= part.capacity,
            "buffers bring %llu elements of segments[%zu], the workspace was created for "
            "%llu (params.slice_begin, slice_count or the segment's shard)",
            (unsigned long long)(part.end - part.begin), i, (unsigned long long)part.capacity);
    }
    t->piece_count = 0;
    t->block_count = 0;
    for (size_t i = 0; i < t->segment_count; i++)
        find_part(&t->segments[i], by_pointer, slice_begin, slice_begin + slice_count);
    const uint64_t length = piece_length(t);
    for (size_t i = 0; i < t->segment_count; i++)
        cut_pieces(t, &t->segments[i], i, length);
    t->placed = 1;
    t->placed_by_pointer = by_pointer;
    t->slice_begin = slice_begin;
    t->slice_count = slice_count;
    return GRADREG_OK;
}
