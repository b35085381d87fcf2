/* steps.h - one regularizer with its buffers on one side, and the parameters of variant i.
 *
 * In: a number. Out: a table of segments, parameters and layout; the same bytes for every side. */
#ifndef GRADREG_TEST_CUDA_STEPS_H
#define GRADREG_TEST_CUDA_STEPS_H

#include <memory>

#include "compare.h"

namespace compare
{

enum Buffer { PARAMS, GRADS, FIRST, PERTURBED, MASTER, DIRECTION, BUFFERS };

struct Variant {
    std::vector<gradreg_segment> segments;
    gradreg_regularizer_params params;
    bool scattered = false;      /* a pointer per segment; otherwise one flat buffer */
    size_t misalignment = 0;     /* in elements */
    uint64_t begin = 0, end = 0; /* the slice that is here; flat buffers only */
    std::vector<bool> absent;    /* segments without gradients */
    double size_of_params = 0.05, size_of_grads = 1.0;
    int bad_pass = -1;     /* this pass's gradient has a NaN */
    double grad_scale = 0; /* 0: none is given */
    bool wants_found_inf = false;
    uint64_t seed = 0;
    std::string name;
};

Variant variant(unsigned number);

class Stepper
{
  public:
    /* The status of create; reg is NULL unless it is OK. */
    Stepper(const Side &side, const Variant &variant);
    ~Stepper();

    /* New weights, master weights and directions. */
    void fill(uint64_t seed);
    /* Gradients where this pass makes them. */
    void make_gradient(uint64_t seed, int pass);
    gradreg_buffers *buffers()
    {
        return &buffers_;
    }
    Bytes bytes(Buffer buffer) const; /* all segments, one after another */
    std::vector<double> terms() const;
    float found_inf() const;
    bool has(Buffer buffer) const
    {
        return !memory_[buffer].empty();
    }
    gradreg_type type(Buffer buffer, size_t segment) const;
    size_t elements(size_t segment) const; /* here */

    const Side &side;
    const Variant &variant;
    gradreg_status created;
    std::string sentence;
    gradreg_regularizer *reg = nullptr;

  private:
    bool wanted(Buffer buffer) const;
    void lay_out(Buffer buffer);
    void write(Buffer buffer, size_t segment, const Bytes &bytes);
    void name_buffers();

    gradreg_buffers buffers_;
    /* Flat: one entry. Otherwise one per segment, NULL where nothing is here. */
    std::vector<std::unique_ptr<Memory>> memory_[BUFFERS];
    std::vector<void *> pointers_[BUFFERS];
    std::unique_ptr<Memory> scale_, found_, rows_;
};

/* Every buffer of the two, and that guards are whole. */
void require_same_buffers(const Stepper &cpu, const Stepper &cuda, const std::string &when);

} // namespace compare

#endif
