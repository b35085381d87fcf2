/* case.h - one thing to measure: which types, which tensors, which mode of the regularizer.
 *
 * In: words of the command line. Out: a context, a regularizer and the trainer's buffers, filled
 * with numbers that depend on the element's place only, so that they can be made again. */
#ifndef GRADREG_TEST_BENCH_CASE_H
#define GRADREG_TEST_BENCH_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gradreg.h"

typedef struct bench_mode {
    const char *name;
    void (*choose)(
        gradreg_regularizer_params *params); /* on top of the plain mode; may be NULL */
} bench_mode;

/* The plain mode is the floor's cycle: both clips, g1 in the caller's second buffer, theta restored
 * from a copy. */
extern const bench_mode bench_modes[];
extern const size_t bench_mode_count;

typedef struct bench_options {
    const char *types; /* "f32/f32": weights, gradients */
    const char *shape; /* "layers": 36 x 9 tensors; "large": 9 tensors */
    const char *mode;
    uint64_t parameters;
    int32_t repetitions, threads;
    bool huge_pages; /* ask the system for them, for the trainer's buffers and the library's */
} bench_options;

enum bench_buffer {
    BENCH_PARAMS,
    BENCH_GRADS,
    BENCH_FIRST,     /* CALLER_KEEPS */
    BENCH_PERTURBED, /* OUT_OF_PLACE */
    BENCH_MASTER,    /* RESTORE_MASTER */
    BENCH_BUFFERS
};

typedef struct bench_case {
    bench_options options;
    gradreg_regularizer_params params;
    gradreg_segment *segments;
    size_t segment_count;
    uint64_t parameters; /* elements of all segments; `elements` counts the gaps too */
    size_t elements;
    gradreg_context *context;
    gradreg_regularizer *regularizer;
    void *buffer[BENCH_BUFFERS];
    gradreg_buffers buffers;
    size_t library_bytes, caller_bytes; /* caller: what the mode asks for beside theta and g */
} bench_case;

/* Ends the program with a sentence when something fails: there is nothing to measure then. */
void bench_open(bench_case *c, const bench_options *options);
void bench_close(bench_case *c);
void bench_require(gradreg_status status, const char *what);

/* Cache lines, so that a copy can be streamed; free(). */
void *bench_allocate(size_t bytes);
/* On huge pages, where the system has them and `wanted`. */
void *bench_allocate_pages(size_t bytes, bool wanted);

/* What the n-th backward pass of a step writes, on all threads: pass 1 is g1. */
void bench_backward(const bench_case *c, enum bench_buffer into, int pass);
/* Whether theta is what it was filled with, to the last bit. */
bool bench_theta_is_clean(const bench_case *c);

#endif
