/* cpu_features.h - what this processor can run, and which vector path a context takes.
 *
 * In: cpuid, xgetbv, and the environment variable GRADREG_VECTOR_PATH. Out: one path. A path
 * stands for everything below it: a processor with v3 has v2 and scalar. */
#ifndef GRADREG_LIB_CPU_FEATURES_H
#define GRADREG_LIB_CPU_FEATURES_H

#include "gradreg.h"

#include <stddef.h>

/* In the order of what they need: the x86-64 psABI's levels. */
typedef enum gr_vector_path {
    GR_PATH_SCALAR = 0,
    GR_PATH_V2 = 1, /* SSE4.2, POPCNT, CMPXCHG16B */
    GR_PATH_V3 = 2, /* AVX2, BMI1, BMI2, F16C, FMA, LZCNT, MOVBE */
    GR_PATH_V4 = 3  /* AVX512F, BW, CD, DQ, VL */
} gr_vector_path;

enum { GR_PATH_COUNT = 4 };

/* The highest path that this processor has and this system lets programs use. */
gr_vector_path gradreg_cpu_best_path(void);

/* "scalar", "x86-64-v2", "x86-64-v3", "x86-64-v4"; "" for anything else. Static. */
const char *gradreg_cpu_path_name(gr_vector_path path);

/* The path called `word`; NULL and "" mean `best`. INVALID_ARGUMENT for a word that is none of
 * the names, or for a path above `best`; the sentence lists what there is. */
gradreg_status gradreg_cpu_path_from_word(gr_vector_path *out, const char *word,
                                          gr_vector_path best);

/* The path for a new context: the environment's, or else the best. */
gradreg_status gradreg_cpu_choose_path(gr_vector_path *out);

/* The processor's own name, e.g. for context_info; "CPU" where it has none. Zero-terminated. */
void gradreg_cpu_name(char *out, size_t bytes);

#endif
