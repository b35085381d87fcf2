/* emulator.h - the part of CUDA that the kernels use, for a C++ compiler: the same source runs
 * on the CPU, under its sanitizers and debugger.
 *
 * In: a kernel and a launch shape. Out: what the kernel wrote, or a Fault that says which thread
 * broke which rule. Each CUDA thread is a fiber; a block's threads run one at a time, in an
 * order that `schedule` chooses, between barriers and warp operations. */
#ifndef GRADREG_TEST_DEVICE_EMULATOR_H
#define GRADREG_TEST_DEVICE_EMULATOR_H

#ifdef GRADREG_LIB_REDUCE_H
#error "include this first: reduce.h shows its warp functions to those who have shuffles"
#endif
#define GR_CUDA_EMULATED 1

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

namespace emulator
{

struct Position {
    uint3 thread, block;
    dim3 block_size, grid_size;
};

/* Where the CUDA thread that asks stands. */
const Position &position();

/* Returns once every thread of the block has called. */
void barrier();

/* Returns, once every thread of the mask has called, what each lane gave, 8 bytes apart. */
const unsigned char *exchange(unsigned mask, const void *value, size_t bytes);

/* The lane that the calling thread has in its warp. */
unsigned lane();

/* The block's array for one __shared__ declaration; filled with NaN, not with zeros. */
void *shared_array(const void *declaration, size_t bytes);

class Fault : public std::runtime_error
{
  public:
    using std::runtime_error::runtime_error;
};

/* schedule 0: threads and blocks in increasing order, 1: decreasing, others: shuffled. */
void launch(dim3 grid, dim3 block, uint64_t schedule, const std::function<void()> &kernel);

} // namespace emulator

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define threadIdx       (emulator::position().thread)
#define blockIdx        (emulator::position().block)
#define blockDim        (emulator::position().block_size)
#define gridDim         (emulator::position().grid_size)

#define GR_SHARED(type, name, count)          \
    static const char name##_declaration = 0; \
    type *name = static_cast<type *>(         \
        emulator::shared_array(&name##_declaration, sizeof(type) * (count)))

static inline void __syncthreads()
{
    emulator::barrier();
}

template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask)
{
    static_assert(sizeof(T) <= 8, "an exchange carries 8 bytes");
    const unsigned from = emulator::lane() ^ static_cast<unsigned>(lane_mask);
    const unsigned char *values = emulator::exchange(mask, &value, sizeof(T));
    if (from < 32 && (mask >> from & 1u) != 0)
        std::memcpy(&value, values + 8 * from, sizeof(T));
    return value;
}

#endif
