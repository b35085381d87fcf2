/* order.h - tells the thread sanitizer what orders the threads of a kernel.
 *
 * In: barriers, warp operations, fences and atomics, as the emulator sees them. Out: its
 * happens-before relation, and nothing in other builds. The emulator and the fibers are compiled without
 * the sanitizer (EMULATOR_UNDER_TSAN stands for it there): how they pass control is not what orders a
 * kernel's accesses. */
#ifndef GRADREG_TEST_DEVICE_ORDER_H
#define GRADREG_TEST_DEVICE_ORDER_H

#ifdef EMULATOR_UNDER_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace emulator
{

/* What the calling thread has done so far is there for those who learn from this place. */
inline void publish(const void *place)
{
#ifdef EMULATOR_UNDER_TSAN
    __tsan_release(const_cast<void *>(place));
#else
    (void)place;
#endif
}

inline void learn(const void *place)
{
#ifdef EMULATOR_UNDER_TSAN
    __tsan_acquire(const_cast<void *>(place));
#else
    (void)place;
#endif
}

/* Fibers that a launch may use: the blocks that follow each other have fibers of their own, as long as
 * there are some, so that one's accesses do not count as the other's. */
#ifdef EMULATOR_UNDER_TSAN
enum : unsigned { FIBERS = 1024 };
#else
enum : unsigned { FIBERS = 0 };
#endif

} // namespace emulator

#endif
