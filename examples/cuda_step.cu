/* cuda_step.cu - a regularized step on a GPU: device buffers of a 36-layer model's size.
 *
 *   cuda_step [width]      hidden width of the model whose time is taken; default 2560
 *
 * Prints the terms of one step and the memory traffic of ten, and checks a small model's step against
 * the CPU backend bit by bit. Exit status 77: there is no device here (a test counts it as skipped).
 *
 * The gradients are a formula: a program of yours has its backward passes in those two places. */
#include <cuda_runtime.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gradreg.h"

enum { LAYERS = 36, TENSORS = 7, SEGMENTS = LAYERS * TENSORS, STEPS = 10 };

static void require(int holds, const char *what, const char *why)
{
    if (!holds) {
        fprintf(stderr, "%s: %s\n", what, why);
        exit(1);
    }
}

#define CHECK(call) require((call) == GRADREG_OK, #call, gradreg_last_error())
#define CHECK_CUDA(call)                                                 \
    do {                                                                 \
        const cudaError_t error = (call);                                \
        require(error == cudaSuccess, #call, cudaGetErrorString(error)); \
    } while (0)

/* ---- the model ------------------------------------------------------------------- */

static size_t describe(gradreg_segment *segments, size_t width)
{
    const size_t counts[TENSORS] = { width * width, width * width,     width * width,
                                     width * width, 3 * width * width, 3 * width * width,
                                     width };
    const uint32_t roles[TENSORS] = { GRADREG_ROLE_ATTENTION, GRADREG_ROLE_ATTENTION,
                                      GRADREG_ROLE_ATTENTION, GRADREG_ROLE_ATTENTION,
                                      GRADREG_ROLE_MLP,       GRADREG_ROLE_MLP,
                                      GRADREG_ROLE_NORM };
    uint64_t at = 0;
    for (int i = 0; i < SEGMENTS; i++) {
        memset(&segments[i], 0, sizeof(segments[i]));
        CHECK(gradreg_segment_init(&segments[i], sizeof(segments[i])));
        segments[i].layer = i / TENSORS;
        segments[i].role = roles[i % TENSORS];
        segments[i].offset = at;
        segments[i].count = counts[i % TENSORS];
        at += counts[i % TENSORS];
    }
    return (size_t)at;
}

/* A number of the size of a weight or gradient, from its place and a seed. */
static __host__ __device__ float number(uint64_t i, uint64_t seed)
{
    uint64_t z = (i + 1) * UINT64_C(0x9e3779b97f4a7c15) + seed;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z ^= z >> 27;
    return ((float)(uint32_t)(z >> 40) * 0x1p-24f - 0.5f) * 0.04f;
}

static __global__ void fill(float *x, size_t n, uint64_t seed)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += gridDim.x * (size_t)blockDim.x)
        x[i] = number(i, seed);
}

/* ---- one step -------------------------------------------------------------------- */

typedef struct trainer {
    gradreg_context *context;
    gradreg_regularizer *regularizer;
    float *params, *grads; /* in the backend's memory */
    size_t n;
} trainer;

static void open_trainer(trainer *t, gradreg_backend backend, size_t width)
{
    static gradreg_segment segments[SEGMENTS];
    gradreg_context_params c = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;
    t->n = describe(segments, width);
    c.backend = backend;
    CHECK(gradreg_context_create(&t->context, &c));
    p.layer_count = LAYERS;
    CHECK(gradreg_schedule_for_depth(&p.schedule, LAYERS));
    CHECK(gradreg_regularizer_create(&t->regularizer, t->context, segments, SEGMENTS, &p));
}

static void close_trainer(trainer *t)
{
    CHECK(gradreg_regularizer_destroy(t->regularizer));
    CHECK(gradreg_context_destroy(t->context));
}

static gradreg_buffers buffers_of(const trainer *t)
{
    gradreg_buffers b = GRADREG_BUFFERS_INIT;
    b.params = t->params;
    b.grads = t->grads;
    b.count = t->n;
    return b;
}

static void print_terms(const gradreg_terms *t)
{
    printf("  ||g1|| %.6g  ||g2|| %.6g  curvature %.6g  alignment %.6g\n"
           "  applied cosine %.6g  correction share %.6g  update norm %.6g  step %llu\n",
           t->first_norm, t->second_norm, t->curvature, t->alignment, t->applied_cosine,
           t->correction_share, t->update_norm, (unsigned long long)t->step);
}

/* ---- the GPU --------------------------------------------------------------------- */

static void device_step(trainer *t)
{
    gradreg_buffers b = buffers_of(t);
    fill<<<1024, 256>>>(t->grads, t->n, 1); /* your first backward pass */
    CHECK(gradreg_regularizer_perturb(t->regularizer, &b));
    fill<<<1024, 256>>>(t->grads, t->n, 2); /* your second one, at theta' */
    CHECK(gradreg_regularizer_combine(t->regularizer, &b));
}

static void open_on_device(trainer *t, size_t width)
{
    open_trainer(t, GRADREG_BACKEND_CUDA, width);
    CHECK_CUDA(cudaMalloc((void **)&t->params, t->n * sizeof(float)));
    CHECK_CUDA(cudaMalloc((void **)&t->grads, t->n * sizeof(float)));
    fill<<<1024, 256>>>(t->params, t->n, 3);
    CHECK_CUDA(cudaGetLastError());
}

static void close_on_device(trainer *t)
{
    close_trainer(t);
    CHECK_CUDA(cudaFree(t->params));
    CHECK_CUDA(cudaFree(t->grads));
}

/* Bytes that perturb and combine move per f32 parameter: 44, and 4 for the copy of g1. */
static void take_time(size_t width)
{
    trainer t;
    cudaEvent_t start, end;
    gradreg_terms total = GRADREG_TERMS_INIT;
    float milliseconds = 0, only = 0;
    open_on_device(&t, width);
    CHECK_CUDA(cudaEventCreate(&start));
    CHECK_CUDA(cudaEventCreate(&end));
    device_step(&t);
    CHECK_CUDA(cudaEventRecord(start));
    for (int i = 0; i < STEPS; i++)
        device_step(&t);
    CHECK_CUDA(cudaEventRecord(end));
    CHECK_CUDA(cudaEventSynchronize(end));
    CHECK_CUDA(cudaEventElapsedTime(&milliseconds, start, end));
    CHECK_CUDA(cudaEventRecord(start));
    for (int i = 0; i < 2 * STEPS; i++)
        fill<<<1024, 256>>>(t.grads, t.n, 1);
    CHECK_CUDA(cudaEventRecord(end));
    CHECK_CUDA(cudaEventSynchronize(end));
    CHECK_CUDA(cudaEventElapsedTime(&only, start, end));
    CHECK(gradreg_regularizer_terms(t.regularizer, &total, NULL, 0));
    printf("%.3g parameters, f32: %.3f ms a step, %.0f GB/s at 48 bytes a parameter\n",
           (double)t.n, (double)(milliseconds - only) / STEPS,
           48.0 * (double)t.n * STEPS / (double)(milliseconds - only) / 1e6);
    print_terms(&total);
    close_on_device(&t);
}

/* ---- the same on the CPU --------------------------------------------------------- */

static void host_fill(float *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        x[i] = number(i, seed);
}

/* Numbers that are not defined are NaN, whatever its payload. */
static int same_terms(const gradreg_terms *a, const gradreg_terms *b)
{
    const double *x = &a->strength, *y = &b->strength;
    int same = a->non_finite_first == b->non_finite_first && a->step == b->step &&
               a->flags == b->flags;
    for (const double *end = &a->first_order_ratio; x <= end; x++, y++)
        same = same && (memcmp(x, y, sizeof(*x)) == 0 || (*x != *x && *y != *y));
    return same;
}

static int compare(size_t width)
{
    trainer gpu, cpu;
    open_on_device(&gpu, width);
    open_trainer(&cpu, GRADREG_BACKEND_CPU, width);
    const size_t bytes = cpu.n * sizeof(float);
    float *back = (float *)malloc(bytes);
    cpu.params = (float *)malloc(bytes);
    cpu.grads = (float *)malloc(bytes);
    require(back && cpu.params && cpu.grads, "malloc", "no memory");
    gradreg_buffers b = buffers_of(&cpu);
    gradreg_terms on_gpu = GRADREG_TERMS_INIT, on_cpu = GRADREG_TERMS_INIT;
    host_fill(cpu.params, cpu.n, 3);
    host_fill(cpu.grads, cpu.n, 1);
    CHECK(gradreg_regularizer_perturb(cpu.regularizer, &b));
    host_fill(cpu.grads, cpu.n, 2);
    CHECK(gradreg_regularizer_combine(cpu.regularizer, &b));
    device_step(&gpu);
    CHECK(gradreg_regularizer_terms(gpu.regularizer, &on_gpu, NULL, 0));
    CHECK(gradreg_regularizer_terms(cpu.regularizer, &on_cpu, NULL, 0));
    int same = same_terms(&on_gpu, &on_cpu);
    CHECK_CUDA(cudaMemcpy(back, gpu.grads, bytes, cudaMemcpyDeviceToHost));
    same = same && memcmp(back, cpu.grads, bytes) == 0;
    CHECK_CUDA(cudaMemcpy(back, gpu.params, bytes, cudaMemcpyDeviceToHost));
    same = same && memcmp(back, cpu.params, bytes) == 0;
    printf("%zu parameters on the GPU and on the CPU: gradients, weights and terms %s\n", cpu.n,
           same ? "are equal to the last bit" : "DIFFER");
    free(back), free(cpu.params), free(cpu.grads);
    close_trainer(&cpu);
    close_on_device(&gpu);
    return same;
}

int main(int argc, char **argv)
{
    const long width = argc > 1 ? atol(argv[1]) : 2560;
    gradreg_context *context;
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    params.backend = GRADREG_BACKEND_CUDA;
    if (width < 1)
        return 2;
    if (gradreg_context_create(&context, &params) != GRADREG_OK) {
        printf("no step on a GPU here: %s\n", gradreg_last_error());
        return 77;
    }
    CHECK(gradreg_context_destroy(context));
    const int same = compare(96);
    take_time((size_t)width);
    return same ? 0 : 1;
}
