#include "emulator.h"

#include <map>
#include <memory>
#include <vector>

#include "fiber.h"

namespace emulator
{

namespace
{

enum { WARP = 32 };
enum class State { READY, AT_BARRIER, AT_EXCHANGE, ENDED };

struct Thread {
    Position position;
    unsigned number; /* in the block */
    State state = State::READY;
    std::string broken_rule; /* found by the thread itself */
    unsigned mask = 0;       /* of the exchange it waits in */
    size_t bytes = 0;
    unsigned char given[8] = {};
    unsigned char received[WARP][8] = {};
    Fiber *fiber = nullptr;
};

/* The thread that runs now, and its block's shared memory. */
Thread *current;
std::map<const void *, std::vector<unsigned char>> *shared_memory;

[[noreturn]] void fault(const Thread &thread, const std::string &what)
{
    const Position &at = thread.position;
    throw Fault("block " + std::to_string(at.block.x) + ", thread " +
                std::to_string(at.thread.x) + ": " + what);
}

void wait(State state)
{
    Thread *self = current;
    self->state = state;
    self->fiber->suspend();
}

/* 0, 1, ..., n - 1 in the order of the schedule. */
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

/* ---- one block -------------------------------------------------------------------- */

class Block
{
  public:
    Block(uint3 block, dim3 grid, dim3 size, const std::vector<std::unique_ptr<Fiber>> &fibers,
          const std::function<void()> &kernel);
    void run(uint64_t schedule);

  private:
    bool run_ready(const std::vector<unsigned> &order);
    bool release_warp(unsigned first);
    bool exchange_complete(unsigned first, const Thread &thread) const;
    void deliver(unsigned first, unsigned mask);
    unsigned count(State state) const;

    std::vector<Thread> threads_;
    std::map<const void *, std::vector<unsigned char>> shared_;
};

Block::Block(uint3 block, dim3 grid, dim3 size,
             const std::vector<std::unique_ptr<Fiber>> &fibers,
             const std::function<void()> &kernel)
    : threads_(size.x * size.y * size.z)
{
    for (unsigned i = 0; i < threads_.size(); i++) {
        const uint3 at = { i % size.x, i / size.x % size.y, i / (size.x * size.y) };
        threads_[i].position = { at, block, size, grid };
        threads_[i].number = i;
        threads_[i].fiber = fibers[i].get();
        threads_[i].fiber->start(kernel);
    }
}

unsigned Block::count(State state) const
{
    unsigned found = 0;
    for (const Thread &thread : threads_)
        found += thread.state == state;
    return found;
}

bool Block::run_ready(const std::vector<unsigned> &order)
{
    bool any = false;
    for (unsigned number : order) {
        Thread &thread = threads_[number];
        if (thread.state != State::READY)
            continue;
        any = true;
        current = &thread;
        thread.fiber->resume();
        current = nullptr;
        if (!thread.broken_rule.empty())
            fault(thread, thread.broken_rule);
        if (thread.fiber->ended())
            thread.state = State::ENDED;
    }
    return any;
}

bool Block::exchange_complete(unsigned first, const Thread &thread) const
{
    for (unsigned lane = 0; lane < WARP; lane++) {
        if ((thread.mask >> lane & 1u) == 0)
            continue;
        if (first + lane >= threads_.size())
            fault(thread, "the mask names lanes past the end of the block");
        const Thread &other = threads_[first + lane];
        if (other.state == State::ENDED)
            fault(thread, "the mask names a lane that has ended");
        if (other.state != State::AT_EXCHANGE)
            return false;
        if (other.mask != thread.mask || other.bytes != thread.bytes)
            fault(thread, "lanes of one warp operation disagree about mask or size");
    }
    return true;
}

void Block::deliver(unsigned first, unsigned mask)
{
    for (unsigned to = 0; to < WARP; to++) {
        if ((mask >> to & 1u) == 0)
            continue;
        Thread &receiver = threads_[first + to];
        for (unsigned from = 0; from < WARP; from++)
            if ((mask >> from & 1u) != 0)
                std::memcpy(receiver.received[from], threads_[first + from].given, 8);
        receiver.state = State::READY;
    }
}

bool Block::release_warp(unsigned first)
{
    for (unsigned i = first; i < first + WARP && i < threads_.size(); i++)
        if (threads_[i].state == State::AT_EXCHANGE && exchange_complete(first, threads_[i])) {
            deliver(first, threads_[i].mask);
            return true;
        }
    return false;
}

void Block::run(uint64_t schedule)
{
    const std::vector<unsigned> order =
        order_of(static_cast<unsigned>(threads_.size()), schedule);

    shared_memory = &shared_;
    while (count(State::ENDED) < threads_.size()) {
        bool moved = run_ready(order);
        for (unsigned first = 0; first < threads_.size(); first += WARP)
            moved |= release_warp(first);
        if (moved)
            continue;
        if (count(State::AT_BARRIER) < threads_.size())
            fault(threads_[0],
                  "some threads wait at a barrier or a warp operation that others of "
                  "the block never reach");
        for (Thread &thread : threads_)
            thread.state = State::READY;
    }
}

} // namespace

/* ---- what a kernel calls ------------------------------------------------------------ */

const Position &position()
{
    return current->position;
}

unsigned lane()
{
    return current->number % WARP;
}

void barrier()
{
    wait(State::AT_BARRIER);
}

const unsigned char *exchange(unsigned mask, const void *value, size_t bytes)
{
    Thread *self = current;
    if ((mask >> lane() & 1u) == 0)
        self->broken_rule = "the calling lane is not in its own mask";
    self->mask = mask;
    self->bytes = bytes;
    std::memcpy(self->given, value, bytes);
    wait(State::AT_EXCHANGE);
    return self->received[0];
}

void *shared_array(const void *declaration, size_t bytes)
{
    std::vector<unsigned char> &array = (*shared_memory)[declaration];
    if (array.empty())
        array.assign(bytes, 0xff);
    return array.data();
}

void launch(dim3 grid, dim3 block, uint64_t schedule, const std::function<void()> &kernel)
{
    const size_t threads = size_t(block.x) * block.y * block.z;
    std::vector<std::unique_ptr<Fiber>> fibers;

    if (threads == 0 || threads > 1024)
        throw Fault("a block has 1 to 1024 threads");
    for (size_t i = 0; i < threads; i++)
        fibers.emplace_back(new Fiber);
    for (unsigned i : order_of(grid.x * grid.y * grid.z, schedule)) {
        const uint3 at = { i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y) };
        Block(at, grid, block, fibers, kernel).run(schedule);
    }
}

} // namespace emulator
