/* emulator.cpp - see emulator.h. */
#include "emulator.h"

#include <cfenv>
#include <map>
#include <memory>

#include "fiber.h"
#include "order.h"

namespace emulator
{

const Position *here;
Watcher *watcher;
Counters counters;

namespace
{

enum { WARP = 32, BLOCK_MAXIMUM = 1024, MAXIMUM = 8 * BLOCK_MAXIMUM /* of a cluster */ };
enum class State { READY, AT_BARRIER, AT_CLUSTER, AT_EXCHANGE, ENDED };

/* What threads read of the emulator: where they stand, and what their warp's latest exchange gave,
 * which its lanes read before there is another one. */
struct Shown {
    Position positions[MAXIMUM];
    unsigned char results[MAXIMUM / WARP][WARP][8];
};
Shown shown;

struct Thread {
    unsigned number; /* in the block, or in the cluster */
    State state = State::READY;
    bool predicate = false; /* of the barrier it waits at */
    bool arrived = false;   /* at the cluster's */
    bool fenced = false;
    unsigned barriers = 0, clusters = 0; /* passed */
    unsigned mask = 0;                   /* of the exchange it waits in */
    size_t bytes = 0;
    unsigned char given[8] = {};
    std::string broken_rule; /* found while it ran */
    Fiber *fiber = nullptr;
};

class Block;
thread_local Thread *current; /* the thread that runs now; another host thread runs none */
Block *block_of_current;

[[noreturn]] void fault(const Thread &thread, const std::string &what)
{
    const Position &at = shown.positions[thread.number];
    throw Fault("block " + std::to_string(at.block.x) +
                (at.grid_size.y > 1 ? "," + std::to_string(at.block.y) : "") + ", thread " +
                std::to_string(thread.number) + ": " + what);
}

/* Where threads that wait for each other publish what they have done: [0] and [1] in turn, because some go
 * on to the next time while others have yet to learn of this one. */
struct Meeting {
    char turn[2];
};

char launch_begins, launch_ends;

void suspend(Thread *self)
{
    publish(&launch_ends);
    self->fiber->suspend();
}

void wait(State state, const void *meeting)
{
    Thread *self = current;
    self->state = state;
    suspend(self);
    learn(meeting);
}

/* ---- one block, or the blocks of one cluster -------------------------------------- */

using Array = std::unique_ptr<unsigned char[]>;

class Block
{
  public:
    Block(unsigned first, dim3 grid, dim3 size, unsigned ranks,
          const std::unique_ptr<Fiber> *fibers, const std::function<void()> &kernel,
          size_t dynamic_shared_bytes);
    void run(const std::vector<unsigned> &order);

    const Thread &thread(unsigned number) const
    {
        return threads_[number];
    }
    unsigned size() const
    {
        return static_cast<unsigned>(threads_.size());
    }
    void *shared(const void *declaration, size_t bytes);
    void *dynamic_shared() const
    {
        return shared_of_[current->number / each_].at(nullptr).get();
    }
    void *elsewhere(const void *address, unsigned rank);
    const char *meeting_at_barrier() const
    {
        return &barriers_[current->number / each_].turn[current->barriers++ % 2];
    }
    const char *meeting_of_cluster() const
    {
        return &cluster_.turn[current->clusters % 2];
    }
    const char *meeting_of_lanes(unsigned mask) const
    {
        const unsigned lowest = static_cast<unsigned>(__builtin_ctz(mask));
        const unsigned which = current->number / WARP * WARP + lowest;
        return &warps_[which].turn[exchanges_[which] % 2];
    }
    Votes votes() const
    {
        return votes_[current->number / each_];
    }

  private:
    bool run_ready(const std::vector<unsigned> &order);
    bool release_warp(unsigned first);
    bool exchange_complete(unsigned first, const Thread &thread) const;
    void deliver(unsigned first, unsigned mask);
    bool release_barrier(unsigned rank);
    bool release_cluster();
    unsigned count(State state, unsigned first, unsigned end) const;
    void *add_array(unsigned rank, const void *declaration, size_t bytes);

    unsigned each_, ranks_; /* threads of a block */
    std::vector<Thread> threads_;
    /* Of each rank, by declaration; the dynamic one by NULL. */
    std::vector<std::map<const void *, Array>> shared_of_;
    std::map<const void *, size_t> bytes_of_;
    std::vector<Votes> votes_;
    std::vector<Meeting> barriers_; /* of each rank */
    std::vector<Meeting> warps_;    /* of each thread that is the lowest in a mask */
    std::vector<unsigned> exchanges_;
    Meeting cluster_;
    char made_[8]; /* arrays of each rank */
};

Block::Block(unsigned first, dim3 grid, dim3 size, unsigned ranks,
             const std::unique_ptr<Fiber> *fibers, const std::function<void()> &kernel,
             size_t dynamic_shared_bytes)
    : each_(size.x * size.y * size.z), ranks_(ranks), threads_(each_ * ranks),
      shared_of_(ranks), votes_(ranks), barriers_(ranks), warps_(each_ * ranks + WARP),
      exchanges_(each_ * ranks + WARP), cluster_(), made_()
{
    for (unsigned i = 0; i < threads_.size(); i++) {
        const unsigned t = i % each_, b = first + i / each_;
        const uint3 at = { t % size.x, t / size.x % size.y, t / (size.x * size.y) };
        const uint3 block = { b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y) };
        shown.positions[i] = { at, block, size, grid };
        threads_[i].number = i;
        threads_[i].fiber = fibers[i].get();
        threads_[i].fiber->start(kernel);
    }
    for (unsigned rank = 0; rank < ranks; rank++)
        if (dynamic_shared_bytes > 0)
            add_array(rank, nullptr, dynamic_shared_bytes);
        else
            shared_of_[rank][nullptr] = nullptr;
}

void *Block::add_array(unsigned rank, const void *declaration, size_t bytes)
{
    Array &array = shared_of_[rank][declaration];
    if (array == nullptr) {
        array.reset(new unsigned char[bytes]);
        bytes_of_[declaration] = bytes;
        fill_unwritten(array.get(), bytes);
        if (watcher != nullptr)
            watcher->shared_array(array.get(), bytes);
    }
    return array.get();
}

void *Block::shared(const void *declaration, size_t bytes)
{
    const unsigned rank = current->number / each_;
    const bool is_new = shared_of_[rank].count(declaration) == 0;
    void *array = add_array(rank, declaration, bytes);
    /* Made by the first who asks, but there from the beginning. */
    if (is_new)
        publish(&made_[rank]);
    learn(&made_[rank]);
    return array;
}

/* A rule is broken that the thread cannot go on after. */
void *stop(const char *broken_rule)
{
    current->broken_rule = broken_rule;
    suspend(current);
    return nullptr;
}

void *Block::elsewhere(const void *address, unsigned rank)
{
    const unsigned char *at = static_cast<const unsigned char *>(address);
    if (rank >= ranks_)
        return stop("the cluster has no such rank");
    if (count(State::ENDED, rank * each_, (rank + 1) * each_) == each_)
        return stop("it looks into the shared memory of a block that has ended");
    for (const auto &one : shared_of_[current->number / each_]) {
        const unsigned char *begin = one.second.get();
        if (begin != nullptr && at >= begin && at < begin + bytes_of_[one.first]) {
            const bool is_new = shared_of_[rank].count(one.first) == 0;
            unsigned char *there =
                static_cast<unsigned char *>(add_array(rank, one.first, bytes_of_[one.first]));
            if (is_new)
                publish(&made_[rank]);
            learn(&made_[rank]);
            return there + (at - begin);
        }
    }
    return stop("an address that is to be mapped is not the block's shared memory");
}

unsigned Block::count(State state, unsigned first, unsigned end) const
{
    unsigned found = 0;
    for (unsigned i = first; i < end; i++)
        found += threads_[i].state == state;
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
        here = &shown.positions[number];
        thread.fiber->resume();
        current = nullptr;
        if (!thread.broken_rule.empty()) {
            learn(&launch_ends); /* of the sentence */
            fault(thread, thread.broken_rule);
        }
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
    for (unsigned lane = 0; lane < WARP; lane++)
        if ((mask >> lane & 1u) != 0) {
            std::memcpy(shown.results[first / WARP][lane], threads_[first + lane].given, 8);
            threads_[first + lane].state = State::READY;
        }
    counters.exchanges++;
    exchanges_[first + static_cast<unsigned>(__builtin_ctz(mask))]++;
    if (watcher != nullptr)
        watcher->exchange_passed(first, mask);
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

/* A block's barrier, if all its threads wait there. */
bool Block::release_barrier(unsigned rank)
{
    const unsigned first = rank * each_, end = first + each_;
    if (count(State::AT_BARRIER, first, end) < each_)
        return false;
    votes_[rank] = { 0, each_ };
    for (unsigned i = first; i < end; i++) {
        votes_[rank].yes += threads_[i].predicate;
        threads_[i].state = State::READY;
    }
    counters.barriers++;
    if (watcher != nullptr)
        watcher->barrier_passed(rank);
    return true;
}

bool Block::release_cluster()
{
    if (count(State::AT_CLUSTER, 0, size()) < size())
        return false;
    for (Thread &thread : threads_) {
        thread.state = State::READY;
        thread.arrived = false;
    }
    counters.barriers++;
    if (watcher != nullptr)
        watcher->cluster_barrier_passed();
    return true;
}

void Block::run(const std::vector<unsigned> &order)
{
    block_of_current = this;
    publish(&launch_begins);
    while (count(State::ENDED, 0, size()) < size()) {
        bool moved = run_ready(order);
        for (unsigned first = 0; first < threads_.size(); first += WARP)
            moved |= release_warp(first);
        for (unsigned rank = 0; rank < ranks_ && !moved; rank++)
            moved |= release_barrier(rank);
        if (!moved && !release_cluster())
            fault(threads_[0],
                  "some threads wait at a barrier or a warp operation that others of "
                  "the block never reach");
    }
}

/* The fibers of earlier launches, for the next ones: a stack is costly to make. After a Fault
 * some stand in the middle of a kernel, and are of no more use. */
class Fibers
{
  public:
    explicit Fibers(size_t count)
    {
        static std::vector<std::unique_ptr<Fiber>> kept;
        store_ = &kept;
        fibers.swap(kept);
        while (fibers.size() < count)
            fibers.emplace_back(new Fiber);
    }
    ~Fibers()
    {
        learn(&launch_ends); /* also of what ends here with a Fault */
        current = nullptr;
        here = nullptr;
        block_of_current = nullptr;
        if (finished)
            store_->swap(fibers);
    }
    std::vector<std::unique_ptr<Fiber>> fibers;
    /* The thread sanitizer counts the end of their memory as an access, which is not to order them. */
    std::vector<std::unique_ptr<Block>> blocks;
    bool finished = false;

  private:
    std::vector<std::unique_ptr<Fiber>> *store_;
};

/* Kernels know nothing of the host's rounding mode or flush-to-zero. */
class DefaultArithmetic
{
  public:
    DefaultArithmetic()
    {
        std::fegetenv(&host_);
        std::fesetenv(FE_DFL_ENV);
    }
    ~DefaultArithmetic()
    {
        std::fesetenv(&host_);
    }

  private:
    std::fenv_t host_;
};

} // namespace

/* ---- what a kernel calls ------------------------------------------------------------ */

unsigned lane()
{
    return current->number % WARP;
}

unsigned active_mask()
{
    const unsigned first = current->number / WARP * WARP;
    unsigned mask = 0;
    for (unsigned i = first; i < first + WARP && i < block_of_current->size(); i++)
        if (block_of_current->thread(i).state != State::ENDED)
            mask |= 1u << (i - first);
    return mask;
}

Votes barrier(bool predicate)
{
    const char *meeting = block_of_current->meeting_at_barrier();
    current->predicate = predicate;
    publish(meeting);
    wait(State::AT_BARRIER, meeting);
    return block_of_current->votes();
}

void cluster_arrive()
{
    if (current->arrived)
        current->broken_rule = "it arrives at the cluster's barrier twice";
    current->arrived = true;
    publish(block_of_current->meeting_of_cluster());
}

void cluster_wait()
{
    if (!current->arrived)
        current->broken_rule = "it waits at the cluster's barrier without having arrived";
    const char *meeting = block_of_current->meeting_of_cluster();
    current->clusters++;
    wait(State::AT_CLUSTER, meeting);
}

void *cluster_address(const void *address, unsigned rank)
{
    return block_of_current->elsewhere(address, rank);
}

const unsigned char *exchange(unsigned mask, const void *value, size_t bytes)
{
    Thread *self = current;
    if ((mask >> lane() & 1u) == 0)
        self->broken_rule = "the calling lane is not in its own mask";
    self->mask = mask;
    self->bytes = bytes;
    std::memcpy(self->given, value, bytes);
    const char *meeting = block_of_current->meeting_of_lanes(mask | 1u << lane());
    publish(meeting);
    wait(State::AT_EXCHANGE, meeting);
    return shown.results[self->number / WARP][0];
}

void *shared_array(const void *declaration, size_t bytes)
{
    return block_of_current->shared(declaration, bytes);
}

void *dynamic_shared_array()
{
    return block_of_current->dynamic_shared();
}

void atomic(void *address, size_t bytes)
{
    if (reinterpret_cast<uintptr_t>(address) % bytes != 0)
        report("a misaligned atomic operation");
    learn(address);
    if (current != nullptr && current->fenced)
        publish(address);
    if (watcher != nullptr && current != nullptr)
        watcher->atomic(current->number, address, bytes);
}

void fence()
{
    if (current != nullptr)
        current->fenced = true;
    if (watcher != nullptr && current != nullptr)
        watcher->fence(current->number);
}

int current_thread()
{
    return current == nullptr ? -1 : static_cast<int>(current->number);
}

void report(const std::string &broken_rule)
{
    if (current != nullptr && current->broken_rule.empty())
        current->broken_rule = broken_rule;
}

bool is_own(const void *address)
{
    const char *at = static_cast<const char *>(address);
    const char *begin = reinterpret_cast<const char *>(&shown);
    return (at >= begin && at < begin + sizeof(shown)) || address == &here ||
           (current != nullptr && current->fiber->owns(address));
}

/* ---- launches ------------------------------------------------------------------------- */

/* fff5 fff5 ...: a NaN as bf16, f16, f32 and f64, and no small number as an integer. */
void fill_unwritten(void *memory, size_t bytes)
{
    unsigned char *byte = static_cast<unsigned char *>(memory);
    for (size_t i = 0; i < bytes; i++)
        byte[i] = i % 2 == 0 ? 0xf5 : 0xff;
}

void launch(dim3 grid, dim3 block, uint64_t schedule, const std::function<void()> &kernel,
            size_t dynamic_shared_bytes, unsigned ranks)
{
    const size_t each = size_t(block.x) * block.y * block.z, threads = each * ranks;
    const unsigned blocks = grid.x * grid.y * grid.z;

    if (each == 0 || each > BLOCK_MAXIMUM)
        throw Fault("a block has 1 to 1024 threads");
    if (ranks == 0 || threads > MAXIMUM || blocks % ranks != 0 ||
        (ranks > 1 && each % WARP != 0))
        throw Fault("a cluster has 1 to 8 blocks of whole warps, a grid whole clusters");
    /* As many sets as there are blocks in a row that are told apart. */
    const size_t sets = std::max<size_t>(std::min<size_t>(FIBERS / threads, blocks / ranks), 1);
    Fibers fibers(threads * sets);
    const DefaultArithmetic arithmetic;
    const std::vector<unsigned> order = order_of(static_cast<unsigned>(threads), schedule);
    const std::function<void()> in_order = [&kernel] {
        learn(&launch_begins);
        kernel();
        publish(&launch_ends);
    };
    counters.launches++;
    counters.threads += each * blocks;
    if (watcher != nullptr)
        watcher->begin_launch();
    size_t set = 0;
    for (unsigned i : order_of(blocks / ranks, schedule)) {
        if (watcher != nullptr)
            watcher->begin_block(static_cast<unsigned>(each), ranks);
        fibers.blocks.emplace_back(new Block(i * ranks, grid, block, ranks,
                                             &fibers.fibers[threads * set], in_order,
                                             dynamic_shared_bytes));
        fibers.blocks.back()->run(order);
        if (FIBERS == 0)
            fibers.blocks.clear();
        set = (set + 1) % sets;
    }
    fibers.finished = true;
    if (watcher != nullptr)
        watcher->end_launch();
}

} // namespace emulator
