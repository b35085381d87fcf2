/* fiber.cpp - see fiber.h. */
#include "fiber.h"

#include <cassert>
#include <stdexcept>
#include <utility>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ADDRESS_SANITIZER 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define FIBER_ADDRESS_SANITIZER 1
#endif
#ifdef EMULATOR_UNDER_TSAN
#define FIBER_THREAD_SANITIZER 1
#endif
#ifdef FIBER_ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef FIBER_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#endif

#ifdef FIBER_SWITCH
/* Keeps what a called function must keep, and goes on where the other stack was left. */
extern "C" void gradreg_test_switch_stack(void **left, void *entered);
__asm__(".text\n"
        ".type gradreg_test_switch_stack, @function\n"
        ".globl gradreg_test_switch_stack\n"
        ".hidden gradreg_test_switch_stack\n"
        "gradreg_test_switch_stack:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size gradreg_test_switch_stack, . - gradreg_test_switch_stack\n");
#endif

namespace emulator
{

namespace
{

enum : size_t { STACK_BYTES = 128 * 1024 };
/* A new stack begins without arguments. */
Fiber *entering;

/* To another stack; `save` is to remember this one's. */
void announce_switch(void **save, const void *stack, size_t bytes)
{
#ifdef FIBER_ADDRESS_SANITIZER
    __sanitizer_start_switch_fiber(save, stack, bytes);
#else
    (void)save, (void)stack, (void)bytes;
#endif
}

void confirm_switch(void *saved, const void **from, size_t *bytes)
{
#ifdef FIBER_ADDRESS_SANITIZER
    __sanitizer_finish_switch_fiber(saved, from, bytes);
#else
    (void)saved, (void)from, (void)bytes;
#endif
}

/* What one stack did is not known on the other for that: see order.h. */
void switch_thread(void *to)
{
#ifdef FIBER_THREAD_SANITIZER
    __tsan_switch_to_fiber(to, __tsan_switch_to_fiber_no_sync);
#else
    (void)to;
#endif
}

} // namespace

Fiber::Fiber() : stack_(new char[STACK_BYTES])
{
#ifdef FIBER_SWITCH
    void **top = reinterpret_cast<void **>(stack_.get() + STACK_BYTES);
    *--top = nullptr; /* where enter() would return to: also its alignment */
    *--top = reinterpret_cast<void *>(enter);
    for (int saved = 0; saved < 6; saved++)
        *--top = nullptr;
    inside_ = top;
#else
    if (getcontext(&inside_) != 0)
        throw std::runtime_error("no context for a fiber");
    inside_.uc_stack.ss_sp = stack_.get();
    inside_.uc_stack.ss_size = STACK_BYTES;
    inside_.uc_link = nullptr;
    makecontext(&inside_, enter, 0);
#endif
#ifdef FIBER_THREAD_SANITIZER
    thread_inside_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber()
{
#ifdef FIBER_THREAD_SANITIZER
    __tsan_destroy_fiber(thread_inside_);
#endif
}

bool Fiber::ended() const
{
    return ended_;
}

bool Fiber::owns(const void *address) const
{
    const char *at = static_cast<const char *>(address);
    return at >= stack_.get() && at < stack_.get() + STACK_BYTES;
}

void Fiber::switch_inside()
{
#ifdef FIBER_SWITCH
    gradreg_test_switch_stack(&outside_, inside_);
#else
    swapcontext(&outside_, &inside_);
#endif
}

void Fiber::switch_outside()
{
#ifdef FIBER_SWITCH
    gradreg_test_switch_stack(&inside_, outside_);
#else
    swapcontext(&inside_, &outside_);
#endif
}

void Fiber::start(std::function<void()> function)
{
    assert(ended_);
    function_ = std::move(function);
    ended_ = false;
}

void Fiber::enter()
{
    Fiber *self = entering;
    confirm_switch(nullptr, &self->outside_stack_, &self->outside_stack_size_);
    for (;;) {
        self->function_();
        self->ended_ = true;
        self->suspend();
    }
}

void Fiber::resume()
{
    entering = this;
#ifdef FIBER_THREAD_SANITIZER
    thread_outside_ = __tsan_get_current_fiber();
#endif
    announce_switch(&fake_stack_outside_, stack_.get(), STACK_BYTES);
    switch_thread(thread_inside_);
    switch_inside();
    confirm_switch(fake_stack_outside_, nullptr, nullptr);
}

void Fiber::suspend()
{
    announce_switch(&fake_stack_inside_, outside_stack_, outside_stack_size_);
    switch_thread(thread_outside_);
    switch_outside();
    confirm_switch(fake_stack_inside_, &outside_stack_, &outside_stack_size_);
}

std::vector<unsigned> order_of(unsigned n, uint64_t schedule)
{
    std::vector<unsigned> order(n);
    uint64_t random = schedule;
    for (unsigned i = 0; i < n; i++)
        order[i] = schedule == 1 ? n - 1 - i : i;
    for (unsigned i = n; schedule > 1 && i > 1; i--) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        std::swap(order[i - 1], order[(random >> 33) % i]);
    }
    return order;
}

} // namespace emulator
