/* table.h - the caller's segments, checked and laid out.
 *
 * In: gradreg_segment[], the resolved parameters. Out: per segment what it takes part in, the bin
 * its sums go to, where its copies lie in the workspace; and, for the part of the buffers that a
 * call brings, the pieces that threads work on. Knows nothing of steps and buffers.
 *
 * A bin is a set of segments with the same layer and the same roles in the step: sums are kept
 * and coefficients decided per bin. A noise segment is a bin of its own, because its noise is
 * measured against it alone. */
#ifndef GRADREG_LIB_TABLE_H
#define GRADREG_LIB_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "gradreg.h"

enum {
    GR_SEGMENT_PERTURBED = 1,
    GR_SEGMENT_REGULARIZED = 2, /* role in regularized_roles, whatever its multiplier */
    GR_SEGMENT_NOISY = 4,
    GR_SEGMENT_FROZEN = 8,
    GR_SEGMENT_REPLICA = 16,
    GR_SEGMENT_SEEN = 32, /* the second gradient is read here */
    GR_SEGMENT_KEEPS = 64 /* its correction is kept for steps that reuse it */
};

typedef struct gr_segment {
    uint64_t offset, count; /* global */
    uint64_t shard_begin, shard_count;
    int32_t layer;
    uint32_t role;
    uint32_t flags; /* GR_SEGMENT_ */
    int32_t bin;
    int32_t param_type, grad_type;
    int32_t compute_type; /* 0: statistics see weights as stored */
    int32_t noise_index;  /* among noise segments, -1 */
    /* what this process holds now, [begin, end) in the segment */
    uint64_t begin, end;
    uint64_t capacity;    /* elements the workspace has room for */
    uint64_t first_block; /* of its block sums */
    uint64_t block_count;
    /* byte offsets of its parts in the workspace */
    uint64_t clean_at, first_at, plus_at, kept_at, noise_at;
} gr_segment;

typedef struct gr_bin {
    int32_t layer;
    uint32_t flags;          /* GR_SEGMENT_, common to its segments */
    double elements;         /* over all ranks */
    double half_ulp_squared; /* of the gradient type */
    int32_t next[2];         /* bin of the same layer, and of the table: -1 after the last */
} gr_bin;

/* What one thread does at a time; it ends at a block border. As long as there are GR_PIECES to share, pieces
 * are longer than GR_PIECE elements: where one ends the processor loses its foresight of the next lines,
 * which costs a fifth of the read bandwidth on Zen 4. */
enum { GR_PIECE = 1 << 16, GR_PIECE_LONGEST = 1 << 20, GR_PIECES = 256 };
typedef struct gr_piece {
    uint32_t segment;
    uint32_t reserved;
    uint64_t begin, end;
    uint64_t first_block;
} gr_piece;

/* Sizes of the library's copies in bytes, every part 64-byte aligned. */
typedef struct gr_storage {
    uint64_t clean, first, plus, kept, noise;
} gr_storage;

/* Kinds of buffers that a segment can be in. */
enum { GR_TABLE_KEYS = 6 };

typedef struct gr_table {
    gr_segment *segments;
    size_t segment_count;
    gr_bin *bins;
    size_t bin_count;
    int32_t *layer_first; /* [1 + layer]: its first bin, -1 where it has none */
    gr_piece *pieces;
    size_t piece_count, piece_capacity;
    uint64_t block_count, block_capacity;
    uint64_t *order; /* scratch of gradreg_i_order: GR_TABLE_KEYS per segment */
    int no_offsets;  /* all offsets are 0: for a pointer per segment only */
    gr_storage storage;
    uint64_t parameter_count;
    uint64_t hash;                         /* of everything that shapes the state */
    int32_t one_param_type, one_grad_type; /* common to all segments, or 0 */
    int placed_by_pointer;
    uint64_t slice_begin, slice_count;
    int placed;
} gr_table;

/* Bytes of the arrays above without the pieces, and of the pieces. */
size_t gradreg_i_table_bytes(size_t segment_count, int32_t layer_count);
size_t gradreg_i_table_piece_bytes(const gr_table *table);

/* Fills segments, bins, storage and capacities. `memory` has gradreg_i_table_bytes bytes. A bin is found by
 * its layer, so that a table takes time in proportion to its segments and layers. */
gradreg_status gradreg_i_table_build(gr_table *table, void *memory,
                                     const gradreg_segment *segments, size_t segment_count,
                                     const gradreg_regularizer_params *params,
                                     const double *multipliers);
/* Gives the table its pieces' memory (gradreg_i_table_piece_bytes). */
void gradreg_i_table_attach_pieces(gr_table *table, void *memory);

/* INVALID_ARGUMENT unless this slice and the segments' shards are the same elements. */
gradreg_status gradreg_i_table_same_part(const gr_table *table, uint64_t slice_begin,
                                         uint64_t slice_count);

/* Lays the pieces over the part of the buffers that is here: a slice of the flat buffer, or with
 * `by_pointer` each segment's shard. Cheap when nothing changed. */
gradreg_status gradreg_i_table_place(gr_table *table, int by_pointer, uint64_t slice_begin,
                                     uint64_t slice_count);

#endif
