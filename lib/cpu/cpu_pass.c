/* cpu_pass.c - the walk over pieces and blocks, and what all passes share.
 *
 * In: a body. Out: the body has seen every block once; block sums folded per bin. */
#include "cpu_pass.h"

#include <assert.h>
#include <string.h>

#include "../random.h"
#include "../threads.h"

/* ---- kernels --------------------------------------------------------------------- */

static const gr_cpu_kernels *const tables[GR_PATH_COUNT] = {
    [GR_PATH_SCALAR] = &gradreg_cpu_kernels_scalar,
#if defined(__x86_64__)
    [GR_PATH_V2] = &gradreg_cpu_kernels_v2,
    [GR_PATH_V3] = &gradreg_cpu_kernels_v3,
    [GR_PATH_V4] = &gradreg_cpu_kernels_v4,
#endif
};

const gr_cpu_kernels *gradreg_cpu_kernels_of(const gradreg_context *context)
{
    return tables[context->path];
}

/* ---- the walk -------------------------------------------------------------------- */

typedef struct gr_cpu_walk {
    gr_work *work;
    const gr_cpu_kernels *kernels;
    gr_cpu_body body;
    int argument, rows, first_row;
    gr_cpu_unit unit;
} gr_cpu_walk;

/* All rows of a block together. One array per row means a store far from the others for every row and
 * block, and all later stores wait behind those that miss the caches: a fifth of combine's time. */
static void keep_sums(const gr_work *work, const double *sums, int rows, uint64_t block)
{
    memcpy((double *)work->block_sums + block * (uint64_t)rows, sums,
           (size_t)rows * sizeof(*sums));
}

static void walk_piece(void *task, size_t index)
{
    const gr_cpu_walk *walk = task;
    const gr_work *work = walk->work;
    const gr_piece *piece = &work->table->pieces[index];
    const gr_segment *segment = &work->table->segments[piece->segment];
    uint64_t number = piece->first_block;
    gr_cpu_block block = { work,
                           walk->kernels,
                           segment,
                           &work->spans[piece->segment],
                           &work->step.coefficients[segment->bin],
                           piece->segment,
                           0,
                           0,
                           0,
                           walk->argument,
                           NULL };

    for (uint64_t at = piece->begin; at < piece->end; at = block.begin + block.n) {
        const uint64_t border = (at / GR_BLOCK + 1) * GR_BLOCK;
        double sums[GR_BLOCK_ROWS] = { 0 };
        block.begin = at;
        block.at = (size_t)(at - segment->begin);
        block.n = (size_t)((border < piece->end ? border : piece->end) - at);
        block.sums = sums;
        walk->body(&block);
        keep_sums(work, sums, walk->rows, number++);
    }
    walk->kernels->fence();
}

/* Blocks to segments by the tree, segments to bins in the table's order. */
static void fold_row(void *task, size_t row)
{
    const gr_cpu_walk *walk = task;
    const gr_work *work = walk->work;
    const gr_table *table = work->table;
    double *out =
        work->step.sums + ((size_t)walk->first_row + row) * (size_t)work->step.bin_count;

    /* A copy that this rank must not overwrite counts, whoever else has it. */
    const int every_copy =
        walk->first_row == GR_SUM_MASTER || walk->first_row == GR_SUM_NOISE_MASTER;

    for (int b = 0; b < work->step.bin_count; b++)
        out[b] = 0.0;
    for (size_t i = 0; i < table->segment_count; i++) {
        const gr_segment *s = &table->segments[i];
        if (s->block_count > 0 && ((s->flags & GR_SEGMENT_REPLICA) == 0 || every_copy))
            out[s->bin] += gr_tree_blocks_strided(
                (const double *)work->block_sums + s->first_block * (uint64_t)walk->rows + row,
                s->block_count, (size_t)walk->rows);
    }
    if (walk->unit != NULL)
        for (int b = 0; b < work->step.bin_count; b++)
            out[b] *= walk->unit(&work->step.coefficients[b], (int)row);
}

/* Work that is done before a thread has woken up stays here. In blocks. */
enum { SMALL_WALK = 16, SMALL_FOLD = 8192 };

static void spread(const gr_work *work, size_t count, uint64_t small,
                   void (*body)(void *task, size_t index), void *task)
{
    if (work->table->block_count > small) {
        gradreg_i_parallel(work->context, count, body, task);
        return;
    }
    for (size_t i = 0; i < count; i++)
        body(task, i);
}

void gradreg_cpu_pass(gr_work *work, gr_cpu_body body, int argument, int rows, int first_row,
                      gr_cpu_unit unit)
{
    gr_cpu_walk walk = {
        work, gradreg_cpu_kernels_of(work->context), body, argument, rows, first_row, unit
    };
    assert(rows <= GR_BLOCK_ROWS);
    spread(work, work->table->piece_count, SMALL_WALK, walk_piece, &walk);
    spread(work, (size_t)rows, SMALL_FOLD, fold_row, &walk);
}

/* ---- the direction --------------------------------------------------------------- */

static void draw(const gr_cpu_block *b, float *out)
{
    const gradreg_regularizer_params *p = &b->work->step.options;
    const uint64_t step = gr_draw_step(b->work->step.control);
    uint64_t element = b->begin;
    for (size_t i = 0; i < b->n;) {
        const size_t skip = (size_t)(element & 3);
        float four[4];
        if (p->direction == GRADREG_DIRECTION_GAUSSIAN) {
            gr_gaussian4(p->seed, step, b->index, GR_RANDOM_DIRECTION, element >> 2, four);
        } else {
            uint32_t words[4];
            gr_random4(p->seed, step, b->index, GR_RANDOM_DIRECTION, element >> 2, words);
            for (int k = 0; k < 4; k++)
                four[k] = gr_rademacher_from(words[k]);
        }
        for (size_t k = skip; k < 4 && i < b->n; k++, i++, element++)
            out[i] = four[k];
    }
}

const float *gradreg_cpu_direction(const gr_cpu_block *b, float *scratch)
{
    if (b->work->step.options.direction == GRADREG_DIRECTION_CALLER) {
        const int32_t type = b->segment->grad_type;
        b->kernels->widen[type](scratch, gr_cpu_at(b->span->direction, b->at, type), b->n);
    } else {
        draw(b, scratch);
    }
    return scratch;
}

/* ---- clean weights --------------------------------------------------------------- */

const char *gradreg_cpu_clean(const gr_cpu_block *b, void *scratch)
{
    const int32_t type = b->segment->param_type;
    if (b->span->clean != NULL)
        return gr_cpu_at(b->span->clean, b->at, type);
    if (b->span->master == NULL) /* OUT_OF_PLACE */
        return gr_cpu_at(b->span->params, b->at, type);
    b->kernels->narrow[type](scratch, (const float *)(const void *)b->span->master + b->at,
                             b->n);
    return scratch;
}

void gradreg_cpu_put_back(const gr_cpu_block *b)
{
    const int32_t type = b->segment->param_type;
    char *params = gr_cpu_at(b->span->params, b->at, type);
    if (b->span->clean != NULL)
        b->kernels->copy(params, gr_cpu_at(b->span->clean, b->at, type),
                         b->n * gr_type_bytes(type), b->work->streaming);
    else if (b->span->master != NULL && b->work->step.control->master_usable)
        b->kernels->narrow[type](params, (const float *)(const void *)b->span->master + b->at,
                                 b->n);
}
