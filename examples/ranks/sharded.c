/* sharded.c - parameters and gradients cut over the ranks of MPI, as FSDP and ZeRO cut them. Every rank
 * holds a slice of the flat buffer and takes the same steps; rank 0 also takes them alone, on all of it,
 * and compares: the slices together are the whole, bit for bit.
 *
 *      mpirun -n 2 sharded                                                        */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gradreg_mpi.h"

enum { LAYERS = 4, PER_LAYER = 3 * 4096, TOTAL = LAYERS * PER_LAYER, STEPS = 5, BLOCK = 4096 };

static void must(gradreg_status status)
{
    if (status == GRADREG_OK)
        return;
    fprintf(stderr, "sharded: %s\n", gradreg_last_error());
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static float curvature(size_t i)
{
    return 0.5f + (float)(i % 7) * 0.25f;
}

/* L = sum of c_i w_i^2 / 2: every rank can take the gradient of its slice. */
static void backward(float *grads, const float *weights, size_t begin, size_t count)
{
    for (size_t i = 0; i < count; i++)
        grads[i] = curvature(begin + i) * weights[i];
}

static void make_table(gradreg_segment *segments)
{
    for (int l = 0; l < LAYERS; l++) {
        must(gradreg_segment_init(&segments[l], sizeof(segments[l])));
        segments[l].offset = (uint64_t)l * PER_LAYER;
        segments[l].count = PER_LAYER;
        segments[l].layer = l;
        segments[l].role = GRADREG_ROLE_MLP;
    }
}

static gradreg_regularizer_params settings(void)
{
    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
    params.layer_count = LAYERS;
    params.strength = 0.1;
    params.parameter_count = TOTAL;
    return params;
}

/* STEPS steps of gradient descent on the slice [begin, begin + count). */
static gradreg_terms train(float *weights, float *grads, size_t begin, size_t count,
                           const gradreg_regularizer_params *params)
{
    gradreg_segment segments[LAYERS];
    gradreg_context *context = NULL;
    gradreg_regularizer *regularizer = NULL;
    gradreg_terms total = GRADREG_TERMS_INIT;
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    buffers.params = weights, buffers.grads = grads;
    buffers.count = count, buffers.slice_begin = begin;

    for (size_t i = 0; i < count; i++)
        weights[i] = (float)((begin + i) * 37 % 101) / 50.0f - 1.0f;
    make_table(segments);
    must(gradreg_context_create(&context, NULL));
    must(gradreg_regularizer_create(&regularizer, context, segments, LAYERS, params));
    for (int step = 0; step < STEPS; step++) {
        backward(grads, weights, begin, count);
        must(gradreg_regularizer_perturb(regularizer, &buffers));
        backward(grads, weights, begin, count);
        must(gradreg_regularizer_combine(regularizer, &buffers));
        for (size_t i = 0; i < count; i++)
            weights[i] -= 0.1f * grads[i];
    }
    must(gradreg_regularizer_terms(regularizer, &total, NULL, 0));
    must(gradreg_regularizer_destroy(regularizer));
    must(gradreg_context_destroy(context));
    return total;
}

int main(int argc, char **argv)
{
    static float weights[TOTAL], grads[TOTAL], gathered[TOTAL];
    int rank = 0, world = 1, different = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world);

    /* Slices end at whole blocks, where sums can be split without changing them. */
    const size_t blocks = TOTAL / BLOCK;
    const size_t begin = blocks * (size_t)rank / (size_t)world * BLOCK;
    const size_t end = blocks * (size_t)(rank + 1) / (size_t)world * BLOCK;
    /* [ranks] */
    MPI_Comm communicator = MPI_COMM_WORLD;
    gradreg_regularizer_params params = settings();
    gradreg_mpi_ranks(&params, &communicator);
    params.slice_begin = begin; /* memory for this rank's slice only */
    params.slice_count = end - begin;
    /* [end] */
    const gradreg_terms terms = train(weights, grads, begin, end - begin, &params);

    for (int r = 0; r < world; r++) {
        const size_t from = blocks * (size_t)r / (size_t)world * BLOCK;
        const size_t to = blocks * (size_t)(r + 1) / (size_t)world * BLOCK;
        if (r == rank)
            memcpy(gathered + from, weights, (to - from) * sizeof(float));
        MPI_Bcast(gathered + from, (int)(to - from), MPI_FLOAT, r, MPI_COMM_WORLD);
    }
    if (rank == 0) {
        params = settings();
        const gradreg_terms alone = train(weights, grads, 0, TOTAL, &params);
        different = memcmp(gathered, weights, sizeof(weights)) != 0 ||
                    memcmp(&terms, &alone, sizeof(terms)) != 0;
        printf("%d ranks, %d steps: |g| %.6f, correction %.6f of it; alone: |g| %.6f, "
               "correction %.6f; weights and terms %s\n",
               world, STEPS, terms.first_norm, terms.correction_share, alone.first_norm,
               alone.correction_share, different ? "DIFFER" : "are the same to the bit");
    }
    MPI_Bcast(&different, 1, MPI_INT, 0, MPI_COMM_WORLD);
    MPI_Finalize();
    return different;
}
