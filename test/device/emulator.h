/* emulator.h - the part of CUDA that kernels use, for a C++ compiler: the same source runs on the
 * CPU, under its sanitizers and debugger.
 *
 * In: a kernel and a launch shape. Out: what the kernel wrote, or a Fault that says which thread
 * broke which rule. Each CUDA thread is a fiber; a block's threads run one at a time, in an
 * order that `schedule` chooses, between barriers and warp operations. */
#ifndef GRADREG_TEST_DEVICE_EMULATOR_H
#define GRADREG_TEST_DEVICE_EMULATOR_H

#ifdef GRADREG_LIB_REDUCE_H
#error "include this first: reduce.h shows its warp functions to those who have shuffles"
#endif
#ifndef GR_CUDA_EMULATED
#define GR_CUDA_EMULATED 1
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "device_types.h"

namespace emulator
{

struct Position {
    uint3 thread, block;
    dim3 block_size, grid_size;
};

/* Where the CUDA thread that runs now stands. */
extern const Position *here;

/* Returns once every thread of the block has called, with the predicates of all. */
struct Votes {
    unsigned yes, threads;
};
Votes barrier(bool predicate = false);

/* The two halves of a barrier of all thread blocks of a cluster. */
void cluster_arrive();
void cluster_wait();
/* Where the cluster's block `rank` has what the calling block has at `address`, in shared memory. */
void *cluster_address(const void *address, unsigned rank);

/* Returns, once every thread of the mask has called, what each lane gave, 8 bytes apart. Valid
 * until the thread's next exchange. */
const unsigned char *exchange(unsigned mask, const void *value, size_t bytes);

/* The lane that the calling thread has in its warp, and the lanes that have not ended. */
unsigned lane();
unsigned active_mask();

/* The block's array for one __shared__ declaration, and the launch's dynamic one; filled with
 * patterns that are NaN in every type, not with zeros. */
void *shared_array(const void *declaration, size_t bytes);
void *dynamic_shared_array();

/* An atomic operation on this address; a fence. For the watcher. */
void atomic(void *address, size_t bytes);
void fence();

class Fault : public std::runtime_error
{
  public:
    using std::runtime_error::runtime_error;
};

/* schedule 0: threads and blocks in increasing order, 1: decreasing, others: shuffled. `ranks` blocks
 * that follow each other are one cluster: they run together. */
void launch(dim3 grid, dim3 block, uint64_t schedule, const std::function<void()> &kernel,
            size_t dynamic_shared_bytes = 0, unsigned ranks = 1);

/* Is told what orders one access after another (races.h). Threads count within the block, or within
 * the cluster, which counts as one block of `ranks` parts. */
class Watcher
{
  public:
    virtual ~Watcher() = default;
    virtual void begin_launch() = 0;
    virtual void end_launch() = 0;
    virtual void begin_block(unsigned threads, unsigned ranks) = 0;
    virtual void barrier_passed(unsigned rank) = 0;
    virtual void cluster_barrier_passed() = 0;
    virtual void exchange_passed(unsigned first_thread, unsigned mask) = 0;
    virtual void shared_array(const void *array, size_t bytes) = 0;
    virtual void atomic(unsigned thread, const void *address, size_t bytes) = 0;
    virtual void fence(unsigned thread) = 0;
};
extern Watcher *watcher; /* or NULL */

/* The number of the thread that runs now, -1 outside of kernels; ends the launch with a Fault at
 * the next switch. */
int current_thread();
void report(const std::string &broken_rule);
/* Whether the address lies on the stack of the thread that runs now, or in what the emulator itself
 * shows to threads. */
bool is_own(const void *address);

/* What has run so far. */
struct Counters {
    uint64_t launches, threads, barriers, exchanges;
};
extern Counters counters;

/* The pattern in bytes [0, bytes) of memory that nobody has written. */
void fill_unwritten(void *memory, size_t bytes);

} // namespace emulator

#include "device_functions.h"

#endif
