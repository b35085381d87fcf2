/* measure.h - what a model can do and what it has become: accuracy in and out of the domain, entropy
 * and diversity of its answers, a causal trace of its layers, its distance from the base model.
 * The monitors and the probe are the library's. Everything goes into records. */
#ifndef STUDY_MEASURE_H
#define STUDY_MEASURE_H

#include <gradreg.h>
#include <stdint.h>

#include "decoder.h"
#include "model.h"
#include "records.h"

struct measure {
    gradreg_context *context;
    struct decoder *decoder;
    struct records *records;
    uint64_t seed; /* of sets and samples: the same for all models that are compared */
    uint64_t step; /* goes into the records */
};

/* Greedy and sampled accuracy on `problems` of each set, `samples` answers each. */
void measure_accuracy(struct measure *measure, size_t problems, size_t samples);

/* All that is wanted of a model at the end of its run. base: where it came from. */
void measure_all(struct measure *measure, const struct model *model, const struct model *base,
                 size_t problems);

#endif
