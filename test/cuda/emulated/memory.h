/* memory.h - what a pointer is: device memory that the host must not touch, pinned, managed.
 *
 * In: allocations. Out: pointers, what is known about them, and a window in which the device may
 * reach its memory: outside of one every access is a segmentation fault. */
#ifndef GRADREG_TEST_CUDA_MEMORY_H
#define GRADREG_TEST_CUDA_MEMORY_H

#include <map>

#include "cuda_runtime.h"

namespace emulated
{

struct Allocation {
    unsigned char *begin = nullptr;
    size_t bytes = 0;
    cudaMemoryType type = cudaMemoryTypeDevice;
    int device = 0;
};

/* NULL: no memory. Unwritten patterns throughout. */
void *allocate(size_t bytes, cudaMemoryType type, int device);
/* False: nothing of this type begins there. */
bool release(void *pointer, bool host);
/* The allocation that holds this address, or NULL. */
const Allocation *find(const void *address);
/* Whether the bytes lie within one allocation of any kind. */
bool is_known(const void *address, size_t bytes);
const std::map<uintptr_t, Allocation> &allocations();
/* Bytes before and after every device allocation are as they were. */
void check_canaries();

/* While one lives, this device's memory can be reached. They nest. */
class Window
{
  public:
    explicit Window(int device);
    ~Window();
    Window(const Window &) = delete;
    Window &operator=(const Window &) = delete;

  private:
    int device_;
};

enum { DEVICES_MAXIMUM = 8 };

} // namespace emulated

#endif
