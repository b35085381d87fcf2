#include "ptx_machine.h"

#include <cstring>

namespace ptx
{

namespace
{

enum { WARP = 32 };

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

} // namespace

/* ---- registers and memory ------------------------------------------------------------ */

void Machine::allow(void *begin, size_t bytes)
{
    global_[reinterpret_cast<uint64_t>(begin)] = bytes;
}

uint64_t Machine::value(const Thread &thread, const Operand &operand,
                        const Instruction &at) const
{
    switch (operand.kind) {
    case Operand::Kind::CONSTANT: return operand.value;
    case Operand::Kind::SPECIAL:
        switch (operand.special) {
        case Special::TID_X: return thread.number;
        case Special::NTID_X: return block_;
        case Special::CTAID_X: return block_number_;
        case Special::NCTAID_X: return grid_;
        }
        break;
    case Operand::Kind::REGISTER:
    case Operand::Kind::ADDRESS: {
        if (operand.number < 0)
            return operand.value;
        const size_t number = static_cast<size_t>(operand.number);
        if (!thread.defined[number])
            throw Error(at.line, at.text + " reads a register that was never written");
        return thread.registers[number] + operand.value;
    }
    default: break;
    }
    throw Error(at.line, at.text + " cannot take this operand");
}

void Machine::set(Thread &thread, const Operand &operand, uint64_t value) const
{
    const size_t number = static_cast<size_t>(operand.number);
    thread.registers[number] = value;
    thread.defined[number] = true;
}

Machine::Place Machine::place(Thread &thread, uint64_t address, size_t bytes,
                              const Instruction &at)
{
    const auto inside = [&](uint64_t window, std::vector<uint8_t> &memory,
                            std::vector<bool> *written) {
        const uint64_t offset = address - window;
        if (offset > memory.size() || memory.size() - offset < bytes)
            throw Error(at.line, at.text + " is out of bounds");
        return Place{ memory.data() + offset, written, offset };
    };
    if (at.has("shared") && address < SHARED_WINDOW)
        address += SHARED_WINDOW; /* the space's own 32-bit address */
    if (at.has("local") && address < SHARED_WINDOW)
        address += LOCAL_WINDOW;
    if (address % bytes != 0)
        throw Error(at.line, at.text + " is misaligned");
    if (address >= PARAMETER_WINDOW)
        return inside(PARAMETER_WINDOW, parameters_, nullptr);
    if (address >= LOCAL_WINDOW)
        return inside(LOCAL_WINDOW, thread.local, &thread.local_written);
    if (address >= SHARED_WINDOW)
        return inside(SHARED_WINDOW, shared_, &shared_written_);

    const auto after = global_.upper_bound(address);
    if (after != global_.begin()) {
        const auto range = std::prev(after);
        const uint64_t offset = address - range->first;
        if (offset <= range->second && range->second - offset >= bytes)
            return { reinterpret_cast<uint8_t *>(address), nullptr, 0 };
    }
    throw Error(at.line, at.text + " is out of bounds");
}

void Machine::load(Thread &thread, const Instruction &at)
{
    const Operand &to = at.operands[0];
    const std::vector<Operand> targets =
        to.kind == Operand::Kind::VECTOR ? to.parts : std::vector<Operand>{ to };
    const size_t bytes = static_cast<size_t>(at.type.bytes);
    const Place from =
        place(thread, value(thread, at.operands[1], at), bytes * targets.size(), at);

    for (size_t i = 0; i < targets.size(); i++) {
        uint64_t word = 0;
        for (size_t k = i * bytes; from.written != nullptr && k < (i + 1) * bytes; k++)
            if (!(*from.written)[from.offset + k])
                throw Error(at.line, at.text + " reads memory that was never written");
        std::memcpy(&word, from.byte + i * bytes, bytes);
        if (at.type.kind == 's' && (word >> (8 * bytes - 1) & 1) != 0 && bytes < 8)
            word |= ~UINT64_C(0) << (8 * bytes);
        set(thread, targets[i], word);
    }
}

void Machine::store(Thread &thread, const Instruction &at)
{
    const Operand &what = at.operands[1];
    const std::vector<Operand> sources =
        what.kind == Operand::Kind::VECTOR ? what.parts : std::vector<Operand>{ what };
    const size_t bytes = static_cast<size_t>(at.type.bytes);
    const Place to =
        place(thread, value(thread, at.operands[0], at), bytes * sources.size(), at);

    for (size_t i = 0; i < sources.size(); i++) {
        const uint64_t word = value(thread, sources[i], at);
        std::memcpy(to.byte + i * bytes, &word, bytes);
        for (size_t k = i * bytes; to.written != nullptr && k < (i + 1) * bytes; k++)
            (*to.written)[to.offset + k] = true;
    }
}

/* ---- threads ---------------------------------------------------------------------------- */

void Machine::run_thread(Thread &thread)
{
    while (thread.state == State::READY) {
        if (thread.next >= kernel_->instructions.size())
            throw Error(0, "a thread ran past the end of " + kernel_->name);
        const Instruction &at = kernel_->instructions[thread.next];
        executed++;
        thread.next++;
        if (at.guard >= 0) {
            Operand guard;
            guard.kind = Operand::Kind::REGISTER;
            guard.number = at.guard;
            if ((value(thread, guard, at) != 0) == at.guard_negated)
                continue;
        }
        handlers_[thread.next - 1](*this, thread, at);
    }
}

bool Machine::shuffle_complete(unsigned first, const Thread &thread, uint32_t mask) const
{
    const Instruction &at = kernel_->instructions[thread.next];
    if ((mask >> thread.number % WARP & 1u) == 0)
        throw Error(at.line, "the calling lane is not in its own mask");
    for (unsigned lane = 0; lane < WARP; lane++) {
        if ((mask >> lane & 1u) == 0)
            continue;
        if (first + lane >= threads_.size() || threads_[first + lane].state == State::ENDED)
            throw Error(at.line, "the mask names a lane that is missing or has ended");
        const Thread &other = threads_[first + lane];
        if (other.state != State::AT_SHUFFLE || other.next != thread.next)
            return false;
    }
    return true;
}

/* shfl.sync.bfly.b32 value|valid, source, lane mask, 31, mask */
void Machine::shuffle(unsigned first, uint32_t mask, const Instruction &at)
{
    const bool with_predicate = at.operands[0].kind == Operand::Kind::VECTOR;
    uint64_t source[WARP] = {};
    if (!at.has("bfly"))
        throw Error(at.line, at.text + " is not supported");
    for (unsigned lane = 0; lane < WARP; lane++)
        if ((mask >> lane & 1u) != 0)
            source[lane] = value(threads_[first + lane], at.operands[1], at);
    for (unsigned lane = 0; lane < WARP; lane++) {
        if ((mask >> lane & 1u) == 0)
            continue;
        Thread &thread = threads_[first + lane];
        if (value(thread, at.operands[3], at) != 31)
            throw Error(at.line, at.text + " over part of a warp is not supported");
        const uint64_t from = lane ^ (value(thread, at.operands[2], at) & 31);
        if ((mask >> from & 1u) == 0)
            throw Error(at.line, at.text + " reads a lane outside of its mask");
        set(thread, with_predicate ? at.operands[0].parts[0] : at.operands[0], source[from]);
        if (with_predicate)
            set(thread, at.operands[0].parts[1], 1);
        thread.state = State::READY;
        thread.next++;
    }
}

bool Machine::release_warp(unsigned first)
{
    for (unsigned i = first; i < first + WARP && i < threads_.size(); i++) {
        if (threads_[i].state != State::AT_SHUFFLE)
            continue;
        const Instruction &at = kernel_->instructions[threads_[i].next];
        const uint32_t mask = static_cast<uint32_t>(value(threads_[i], at.operands[4], at));
        if (shuffle_complete(first, threads_[i], mask)) {
            shuffle(first, mask, at);
            return true;
        }
    }
    return false;
}

unsigned Machine::count(State state) const
{
    unsigned found = 0;
    for (const Thread &thread : threads_)
        found += thread.state == state;
    return found;
}

void Machine::run_block(uint64_t schedule)
{
    const std::vector<unsigned> order = order_of(block_, schedule);
    shared_.assign(kernel_->shared_bytes, 0xff);
    shared_written_.assign(kernel_->shared_bytes, false);
    threads_.assign(block_, Thread());
    for (unsigned i = 0; i < block_; i++) {
        threads_[i].number = i;
        threads_[i].registers.assign(kernel_->register_count, 0);
        threads_[i].defined.assign(kernel_->register_count, false);
        threads_[i].local.assign(kernel_->local_bytes, 0xff);
        threads_[i].local_written.assign(kernel_->local_bytes, false);
    }
    while (count(State::ENDED) < block_) {
        bool moved = count(State::READY) > 0;
        for (unsigned i : order)
            run_thread(threads_[i]);
        for (unsigned first = 0; first < block_; first += WARP)
            moved |= release_warp(first);
        if (moved)
            continue;
        if (count(State::AT_BARRIER) < block_)
            throw Error(0, kernel_->name + ": some threads wait at a barrier or a shuffle that "
                                           "others of the block never reach");
        for (Thread &thread : threads_)
            thread.state = State::READY;
    }
}

void Machine::launch(const std::string &kernel, unsigned grid, unsigned block,
                     uint64_t schedule, const std::vector<uint64_t> &arguments)
{
    if (module_.count(kernel) == 0)
        throw Error(0, "no kernel " + kernel);
    kernel_ = &module_.at(kernel);
    handlers_.clear();
    for (const Instruction &instruction : kernel_->instructions)
        handlers_.push_back(handler_of(instruction, rounding_));
    grid_ = grid;
    block_ = block;
    if (arguments.size() != kernel_->parameter_bytes.size())
        throw Error(0, kernel + " takes another number of arguments");
    parameters_.assign(kernel_->parameters_bytes, 0);
    size_t offset = 0;
    for (size_t i = 0; i < arguments.size(); i++) {
        const size_t bytes = static_cast<size_t>(kernel_->parameter_bytes[i]);
        offset = (offset + bytes - 1) / bytes * bytes;
        std::memcpy(parameters_.data() + offset, &arguments[i], bytes);
        offset += bytes;
    }
    for (unsigned number : order_of(grid, schedule)) {
        block_number_ = number;
        run_block(schedule);
    }
}

} // namespace ptx
