/* ptx_cluster.cpp - thread blocks that see each other's shared memory (compute capability 9.0).
 *
 * In: addresses, and threads that arrive. Out: where another block of the cluster has the same
 * variable; the barrier of all threads of all its blocks, in its two halves. */
#include "ptx_values.h"

namespace ptx
{

Machine::Place Machine::shared_place(const Thread &thread, uint64_t offset, size_t bytes,
                                     const Instruction &at)
{
    unsigned rank = thread.rank;
    if (offset >= CLUSTER_STEP && at.space != Space::SHARED) {
        const uint64_t other = offset / CLUSTER_STEP - 1;
        if (other >= ranks_)
            throw Error(at.line, at.text + " is out of bounds");
        rank = static_cast<unsigned>(other);
        offset %= CLUSTER_STEP;
        if (count(State::ENDED, rank * each_, (rank + 1) * each_) == each_)
            throw Error(at.line, at.text + " is in the memory of a block that has ended");
    }
    Block &block = blocks_[rank];
    if (offset > block.shared.size() || block.shared.size() - offset < bytes)
        throw Error(at.line, at.text + " is out of bounds");
    return { block.shared.data() + offset, &block.written, offset };
}

uint64_t Machine::map_shared(const Thread &thread, uint64_t address, uint64_t rank,
                             const Instruction &at) const
{
    const uint64_t window = address < SHARED_WINDOW ? uint64_t() : uint64_t(SHARED_WINDOW);
    if (address - window >= blocks_[thread.rank].shared.size())
        throw Error(at.line, at.text + " of what is not the block's shared memory");
    if (rank >= ranks_)
        throw Error(at.line, at.text + ": the cluster has no such block");
    return address + (rank + 1) * CLUSTER_STEP;
}

bool Machine::release_cluster()
{
    if (count(State::AT_CLUSTER, 0, all_) < all_)
        return false;
    for (unsigned i = 0; i < all_; i++) {
        threads_[i].state = State::READY;
        threads_[i].arrived = false;
    }
    return true;
}

/* mapa.u64 d, generic address, rank; mapa.shared::cluster.u32 d, shared address, rank */
void map_address(Machine &machine, Thread &thread, const Instruction &at)
{
    const uint64_t rank = read<uint32_t>(machine, thread, at, 2);
    write(machine, thread, at,
          machine.map_shared(thread, machine.value(thread, at.operands[1], at), rank, at));
}

/* barrier.cluster.arrive and barrier.cluster.wait */
void wait_for_cluster(Machine &, Thread &thread, const Instruction &at)
{
    if (at.has("arrive") == at.has("wait") || at.has("relaxed"))
        throw Error(at.line, at.text + " is not supported");
    if (at.has("arrive") == thread.arrived)
        throw Error(at.line,
                    at.text + (thread.arrived ? " a second time" : " before arriving"));
    if (at.has("arrive"))
        thread.arrived = true;
    else
        thread.state = State::AT_CLUSTER;
}

} // namespace ptx
