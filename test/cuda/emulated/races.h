/* races.h - finds accesses of kernels that nothing orders, reads of memory that nobody wrote, and
 * accesses outside of what a kernel may touch.
 *
 * In: every access of device code, told by the compiler's -fsanitize=thread calls
 * (access_calls.cpp), and the barriers, warp operations, fences and atomics that the emulator sees.
 * Out: a broken rule at the thread that makes the second access. It does not depend on the order
 * in which threads happened to run.
 *
 * Two accesses to a byte, one of them a write, not both atomic, are ordered if one thread makes
 * both; within a block, if there is a barrier in between, or a warp operation of both; within a
 * cluster, if there is a barrier of the cluster in between; across
 * blocks of a launch, if what comes first was published (a fence, then an atomic operation) and the
 * second's block has read that atomic since. Launches are ordered by their streams. */
#ifndef GRADREG_TEST_CUDA_RACES_H
#define GRADREG_TEST_CUDA_RACES_H

#include <cstddef>
#include <cstdint>

namespace emulator
{
class Watcher;
}

namespace emulated
{
namespace races
{

emulator::Watcher *watcher();

void allocated(const void *begin, size_t bytes);
void released(const void *begin);
/* Written by the runtime: as defined as its source. NULL: defined. */
void copied(const void *to, const void *from, size_t bytes);
/* What the coming launch's arguments lie in. */
void parameters(const void *begin, size_t bytes);

/* By the CUDA thread that runs now, at this place of the code; others' are none of ours. */
void access(const void *address, size_t bytes, bool write, const void *code);
uint64_t accesses();

} // namespace races
} // namespace emulated

#endif
