/* losses.h - inputs of losses, drawn at random, and arrays that both sides have.
 *
 * In: a number's random draws. Out: shapes, policies, floats; comparisons of what came of them. */
#ifndef GRADREG_TEST_CUDA_LOSSES_H
#define GRADREG_TEST_CUDA_LOSSES_H

#include <cstring>

#include "compare.h"

namespace compare
{

/* An array on both sides, at other places within 16 bytes. */
class Array
{
  public:
    Array(const Side &cpu, const Side &cuda, gradreg_type type, const Bytes &cpu_bytes,
          const Bytes &cuda_bytes, size_t off = 1)
        : type_(type), cpu_(cpu, cpu_bytes.size(), type_bytes(type) * off),
          cuda_(cuda, cuda_bytes.size(), type_bytes(type) * off)
    {
        cpu_.write(cpu_bytes);
        cuda_.write(cuda_bytes);
    }
    Array(const Side &cpu, const Side &cuda, gradreg_type type, const Bytes &bytes,
          size_t off = 1)
        : Array(cpu, cuda, type, bytes, bytes, off)
    {
    }
    void *on(const Side &side) const
    {
        return side.is_cuda ? cuda_.data() : cpu_.data();
    }
    void require_same(const std::string &what) const
    {
        compare::require_same(cpu_.read(), cuda_.read(), type_, what);
    }
    Bytes read(bool cuda) const
    {
        return cuda ? cuda_.read() : cpu_.read();
    }
    gradreg_type type() const
    {
        return type_;
    }

  private:
    gradreg_type type_;
    Memory cpu_, cuda_;
};

/* An array of numbers on both sides. */
template <class T> Bytes bytes_of_vector(const std::vector<T> &values)
{
    Bytes bytes(values.size() * sizeof(T));
    if (!values.empty())
        std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
}

template <class T> class Numbers : public Array
{
  public:
    Numbers(const Side &cpu, const Side &cuda, const std::vector<T> &values)
        : Array(cpu, cuda, GRADREG_TYPE_F32, bytes_of_vector(values))
    {
    }
    T *on(const Side &side) const
    {
        return static_cast<T *>(Array::on(side));
    }
};
using Floats = Numbers<float>;

/* What calls over rows write. */
struct LogProbs {
    Floats logp, entropy, sums;

    LogProbs(const Side &cpu, const Side &cuda, size_t rows)
        : logp(cpu, cuda, std::vector<float>(rows, 7.0f)),
          entropy(cpu, cuda, std::vector<float>(rows, 7.0f)),
          sums(cpu, cuda, std::vector<float>(rows, 7.0f))
    {
    }
};

struct Shape {
    size_t sequences, length;
    bool packed;
    std::vector<int64_t> offsets;
    std::vector<int32_t> group;
    size_t tokens;
};

Shape shape_of(Random *random);
std::vector<float> numbers(Random *random, size_t n, double middle, double width, bool edges);
gradreg_policy policy_of(Random *random, unsigned number);
/* A loss's slope in each row; one in five is 0. */
std::vector<float> slopes(Random *random, size_t rows);
/* Of five tokens four count. */
Bytes mask_of(Random *random, size_t tokens);

/* What a loss reads beside its log-probs. */
class Batch
{
  public:
    /* Log-probs are about `middle`; edges: some are no numbers. */
    Batch(const Side &cpu, const Side &cuda, Random *random, const Shape &shape,
          const Bytes &mask, double middle, bool edges, bool per_token = false,
          double rollout_width = 1.5);
    gradreg_policy_batch on(const Side &side) const;

    bool on_policy = false, weighted = false;

  private:
    const Shape &shape_;
    bool per_token_;
    Floats old_, ref_, rollout_, weight_, advantages_;
    Memory host_mask_, device_mask_; /* at other places within 4 bytes */
};

/* Metrics in both memories, empty at first, and read through the library. */
class Metrics
{
  public:
    Metrics(const Side &cpu, const Side &cuda);
    gradreg_policy_metrics *on(const Side &side) const
    {
        return static_cast<gradreg_policy_metrics *>(
            (side.is_cuda ? device_memory_ : host_memory_).data());
    }
    void require_same(const std::string &what) const;

  private:
    const Side &cpu_, &cuda_;
    Memory host_memory_, device_memory_;
};

} // namespace compare

#endif
