/* fiber.h - a stack of its own for one function after another, resumed and suspended by hand; and the
 * orders in which several take turns.
 *
 * In: a function. Out: control, back from resume() whenever the function suspends or ends. The
 * address and thread sanitizers are told of every switch. */
#ifndef GRADREG_TEST_DEVICE_FIBER_H
#define GRADREG_TEST_DEVICE_FIBER_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

/* swapcontext() asks the kernel for the signal mask, twice a switch. */
#if defined(__x86_64__) && defined(__linux__)
#define FIBER_SWITCH 1
#else
#include <ucontext.h>
#endif

namespace emulator
{

class Fiber
{
  public:
    Fiber();
    ~Fiber();
    Fiber(const Fiber &) = delete;
    Fiber &operator=(const Fiber &) = delete;

    /* The next function; the one before has to have ended. */
    void start(std::function<void()> function);
    /* Runs the function up to its next suspend() or its end. */
    void resume();
    /* To be called from within the function. */
    void suspend();
    bool ended() const;
    bool owns(const void *address) const;

  private:
    static void enter();

    std::function<void()> function_;
    std::unique_ptr<char[]> stack_;
#ifdef FIBER_SWITCH
    void *inside_ = nullptr, *outside_ = nullptr; /* stack pointers */
#else
    ucontext_t inside_, outside_;
#endif
    void switch_inside();
    void switch_outside();
    bool ended_ = true;
    /* What the sanitizers keep for a stack that is switched away from. */
    void *fake_stack_inside_ = nullptr, *fake_stack_outside_ = nullptr;
    const void *outside_stack_ = nullptr;
    size_t outside_stack_size_ = 0;
    void *thread_inside_ = nullptr, *thread_outside_ = nullptr;
};

/* Of n fibers: 0, 1, ..., n - 1 in the order of the schedule; 0: as they stand, 1: from the last,
 * others: at random. */
std::vector<unsigned> order_of(unsigned n, uint64_t schedule);

} // namespace emulator

#endif
