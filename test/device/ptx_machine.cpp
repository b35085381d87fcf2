/* ptx_machine.cpp - see ptx_machine.h. */
#include "ptx_machine.h"

#include <cstring>

#include "fiber.h"

namespace ptx
{

namespace
{

enum { WARP = 32 };
enum : uint64_t { LONGEST = 5000000 }; /* instructions of a thread between barriers */

} // namespace

/* ---- registers and memory ------------------------------------------------------------ */

void Machine::forbid_all()
{
    global_.clear();
    latest_begin_ = latest_bytes_ = 0;
}

void Machine::allow(void *begin, size_t bytes)
{
    global_[reinterpret_cast<uint64_t>(begin)] = bytes;
}

unsigned Machine::special(const Thread &thread, Special which) const
{
    const Extent &size = block_extent_;
    switch (which) {
    case Special::TID_X: return thread.number % size.x;
    case Special::TID_Y: return thread.number / size.x % size.y;
    case Special::TID_Z: return thread.number / (size.x * size.y);
    case Special::NTID_X: return size.x;
    case Special::NTID_Y: return size.y;
    case Special::NTID_Z: return size.z;
    case Special::CTAID_X: return blocks_[thread.rank].at.x;
    case Special::CTAID_Y: return blocks_[thread.rank].at.y;
    case Special::CTAID_Z: return blocks_[thread.rank].at.z;
    case Special::NCTAID_X: return grid_.x;
    case Special::NCTAID_Y: return grid_.y;
    case Special::NCTAID_Z: return grid_.z;
    case Special::LANEID: return thread.number % WARP;
    case Special::CLUSTER_CTARANK: return thread.rank;
    case Special::CLUSTER_NCTARANK: return ranks_;
    }
    return 0;
}

uint64_t Machine::value(const Thread &thread, const Operand &operand,
                        const Instruction &at) const
{
    switch (operand.kind) {
    case Operand::Kind::CONSTANT: return operand.value;
    case Operand::Kind::SPECIAL: return special(thread, operand.special);
    case Operand::Kind::REGISTER:
    case Operand::Kind::ADDRESS: {
        if (operand.number < 0)
            return operand.value;
        const size_t number = static_cast<size_t>(operand.number);
        if (thread.defined[number] != thread.generation)
            throw Error(at.line, at.text + " reads a register that was never written");
        return thread.registers[number] + operand.value;
    }
    default: break;
    }
    throw Error(at.line, at.text + " cannot take this operand");
}

void Machine::set(Thread &thread, const Operand &operand, uint64_t value) const
{
    if (operand.kind == Operand::Kind::NOTHING)
        return;
    const size_t number = static_cast<size_t>(operand.number);
    thread.registers[number] = value;
    thread.defined[number] = thread.generation;
}

bool Machine::is_written(const Thread &thread, const Operand &operand) const
{
    return operand.kind != Operand::Kind::REGISTER ||
           thread.defined[static_cast<size_t>(operand.number)] == thread.generation;
}

void Machine::forget(Thread &thread, const Operand &operand) const
{
    if (operand.kind == Operand::Kind::REGISTER)
        thread.defined[static_cast<size_t>(operand.number)] = thread.generation - 1;
}

/* mov.b64 register, {low, high}. Compilers put a half that nobody has written beside one that
 * they need: then only that one may be taken out again. */
void Machine::pack(Thread &thread, const Instruction &at) const
{
    const Operand &to = at.operands[0], &low = at.operands[1].parts[0],
                  &high = at.operands[1].parts[1];
    const uint32_t width = 8 * static_cast<uint32_t>(at.type.bytes) / 2;
    const bool has_low = is_written(thread, low), has_high = is_written(thread, high);
    const uint64_t lower = has_low || !has_high ? value(thread, low, at) : 0;
    set(thread, to, lower | (has_high ? value(thread, high, at) << width : 0));
    if (has_low && has_high)
        return;
    forget(thread, to);
    thread.halves[to.number] = { thread.generation, has_high ? 1u : 0u };
}

/* mov.b64 {low, high}, register */
void Machine::unpack(Thread &thread, const Instruction &at) const
{
    const std::vector<Operand> &to = at.operands[0].parts;
    const Operand &from = at.operands[1];
    const uint32_t width = 8 * static_cast<uint32_t>(at.type.bytes) / 2;
    const auto half = thread.halves.find(from.number);
    if (!is_written(thread, from) && half != thread.halves.end() &&
        half->second.generation == thread.generation) {
        const unsigned which = half->second.which;
        const uint64_t word = thread.registers[static_cast<size_t>(from.number)];
        set(thread, to[which], which == 0 ? word : word >> width);
        forget(thread, to[1 - which]);
        return;
    }
    const uint64_t word = value(thread, from, at);
    set(thread, to[0], word & ((UINT64_C(1) << width) - 1));
    set(thread, to[1], word >> width);
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
    if ((at.space == Space::SHARED || at.space == Space::CLUSTER) && address < SHARED_WINDOW)
        address += SHARED_WINDOW; /* the space's own 32-bit address */
    if (at.space == Space::LOCAL && address < SHARED_WINDOW)
        address += LOCAL_WINDOW;
    if (address % bytes != 0)
        throw Error(at.line, at.text + " is misaligned");
    if (address >= CONSTANT_WINDOW)
        return inside(CONSTANT_WINDOW, constants_, nullptr);
    if (address >= PARAMETER_WINDOW)
        return inside(PARAMETER_WINDOW, parameters_, nullptr);
    if (address >= LOCAL_WINDOW)
        return inside(LOCAL_WINDOW, thread.local, &thread.local_written);
    if (address >= SHARED_WINDOW)
        return shared_place(thread, address - SHARED_WINDOW, bytes, at);

    if (address - latest_begin_ > latest_bytes_ ||
        latest_bytes_ - (address - latest_begin_) < bytes) {
        const auto after = global_.upper_bound(address);
        if (after == global_.begin())
            throw Error(at.line, at.text + " is out of bounds");
        latest_begin_ = std::prev(after)->first;
        latest_bytes_ = std::prev(after)->second;
    }
    const uint64_t offset = address - latest_begin_;
    if (offset <= latest_bytes_ && latest_bytes_ - offset >= bytes) {
        widths[bytes]++;
        return { reinterpret_cast<uint8_t *>(address), nullptr, 0 };
    }
    throw Error(at.line, at.text + " is out of bounds");
}

void Machine::load(Thread &thread, const Instruction &at)
{
    const Operand &to = at.operands[0];
    const bool several = to.kind == Operand::Kind::VECTOR;
    const size_t bytes = static_cast<size_t>(at.type.bytes);
    const size_t count = several ? to.parts.size() : 1;
    const Place from = place(thread, value(thread, at.operands[1], at), bytes * count, at);

    for (size_t i = 0; i < count; i++) {
        uint64_t word = 0;
        for (size_t k = i * bytes; from.written != nullptr && k < (i + 1) * bytes; k++)
            if (!(*from.written)[from.offset + k])
                throw Error(at.line, at.text + " reads memory that was never written");
        std::memcpy(&word, from.byte + i * bytes, bytes);
        if (at.type.kind == 's' && (word >> (8 * bytes - 1) & 1) != 0 && bytes < 8)
            word |= ~UINT64_C(0) << (8 * bytes);
        set(thread, several ? to.parts[i] : to, word);
    }
}

void Machine::store(Thread &thread, const Instruction &at)
{
    const Operand &what = at.operands[1];
    const bool several = what.kind == Operand::Kind::VECTOR;
    const size_t bytes = static_cast<size_t>(at.type.bytes);
    const size_t count = several ? what.parts.size() : 1;
    const Place to = place(thread, value(thread, at.operands[0], at), bytes * count, at);

    for (size_t i = 0; i < count; i++) {
        const uint64_t word = value(thread, several ? what.parts[i] : what, at);
        std::memcpy(to.byte + i * bytes, &word, bytes);
        for (size_t k = i * bytes; to.written != nullptr && k < (i + 1) * bytes; k++)
            (*to.written)[to.offset + k] = true;
    }
}

uint8_t *Machine::atomic_word(Thread &thread, const Instruction &at, size_t operand)
{
    const Place there = place(thread, value(thread, at.operands[operand], at),
                              static_cast<size_t>(at.type.bytes), at);
    for (int k = 0; k < at.type.bytes && there.written != nullptr; k++)
        if (!(*there.written)[there.offset + static_cast<size_t>(k)])
            throw Error(at.line, at.text + " reads memory that was never written");
    return there.byte;
}

/* ---- threads ---------------------------------------------------------------------------- */

void Machine::run_thread(Thread &thread)
{
    for (uint64_t count = 0; thread.state == State::READY; count++) {
        if (count > LONGEST)
            throw Error(kernel_->instructions[thread.next].line,
                        kernel_->name + ": a thread runs on and on");
        if (thread.next >= kernel_->instructions.size())
            throw Error(0, "a thread ran past the end of " + kernel_->name);
        const Instruction &at = kernel_->instructions[thread.next];
        executed++;
        thread.next++;
        if (at.guard >= 0) {
            const size_t guard = static_cast<size_t>(at.guard);
            if (thread.defined[guard] != thread.generation)
                throw Error(at.line, at.text + " has a guard that was never written");
            if ((thread.registers[guard] != 0) == at.guard_negated)
                continue;
        }
        handlers_[thread.next - 1](*this, thread, at);
    }
}

bool Machine::shuffle_complete(unsigned first, const Thread &thread, uint32_t mask) const
{
    const Instruction &at = kernel_->instructions[thread.next];
    const unsigned end = (first / each_ + 1) * each_; /* of the block */
    if ((mask >> thread.number % WARP & 1u) == 0)
        throw Error(at.line, "the calling lane is not in its own mask");
    for (unsigned lane = 0; lane < WARP; lane++) {
        if ((mask >> lane & 1u) == 0)
            continue;
        if (first + lane >= end || threads_[first + lane].state == State::ENDED)
            throw Error(at.line, "the mask names a lane that is missing or has ended");
        const Thread &other = threads_[first + lane];
        if (other.state != State::AT_SHUFFLE || other.next != thread.next)
            return false;
    }
    return true;
}

/* shfl.sync.MODE.b32 value|valid, source, lane, segments, mask. Segments are 31 for a whole warp,
 * otherwise the width's mask at bit 8; shfl.up has 0 in place of 31. */
void Machine::shuffle(unsigned first, uint32_t mask, const Instruction &at)
{
    const bool with_predicate = at.operands[0].kind == Operand::Kind::VECTOR;
    uint64_t source[WARP] = {};
    for (unsigned lane = 0; lane < WARP; lane++)
        if ((mask >> lane & 1u) != 0)
            source[lane] = value(threads_[first + lane], at.operands[1], at);
    for (unsigned lane = 0; lane < WARP; lane++) {
        if ((mask >> lane & 1u) == 0)
            continue;
        Thread &thread = threads_[first + lane];
        const unsigned by = static_cast<unsigned>(value(thread, at.operands[2], at)) & 31;
        const unsigned clamp = static_cast<unsigned>(value(thread, at.operands[3], at));
        const unsigned segment = clamp >> 8 & 31, limit = clamp & 31;
        const unsigned last = (lane & segment) | (limit & ~segment);
        unsigned from = 0;
        bool valid = false;
        if (at.has("bfly"))
            from = lane ^ by, valid = from <= last;
        else if (at.has("down"))
            from = lane + by, valid = from <= last;
        else if (at.has("up"))
            from = lane - by, valid = lane >= by && from >= last;
        else if (at.has("idx"))
            from = (lane & segment) | (by & ~segment), valid = from <= last;
        else
            throw Error(at.line, at.text + " is not supported");
        if (!valid)
            from = lane;
        if ((mask >> from & 1u) == 0)
            throw Error(at.line, at.text + " reads a lane outside of its mask");
        set(thread, with_predicate ? at.operands[0].parts[0] : at.operands[0], source[from]);
        if (with_predicate)
            set(thread, at.operands[0].parts[1], valid);
        thread.state = State::READY;
        thread.next++;
    }
}

/* vote.sync.MODE d, predicate, mask; bar.warp.sync mask */
void Machine::vote(unsigned first, uint32_t mask, const Instruction &at)
{
    uint32_t votes = 0;
    for (unsigned lane = 0; lane < WARP && at.operation == "vote"; lane++)
        if ((mask >> lane & 1u) != 0 &&
            (value(threads_[first + lane], at.operands[1], at) & 1) != 0)
            votes |= 1u << lane;
    const uint64_t result = at.has("ballot") ? votes
                            : at.has("any")  ? votes != 0
                            : at.has("all")  ? votes == mask
                                             : 0;
    if (at.operation == "vote" && !at.has("ballot") && !at.has("any") && !at.has("all"))
        throw Error(at.line, at.text + " is not supported");
    for (unsigned lane = 0; lane < WARP; lane++) {
        if ((mask >> lane & 1u) == 0)
            continue;
        Thread &thread = threads_[first + lane];
        if (at.operation == "vote")
            set(thread, at.operands[0], result);
        thread.state = State::READY;
        thread.next++;
    }
}

bool Machine::release_warp(unsigned first)
{
    const unsigned end = (first / each_ + 1) * each_; /* of the block */
    for (unsigned i = first; i < first + WARP && i < end; i++) {
        if (threads_[i].state != State::AT_SHUFFLE)
            continue;
        const Instruction &at = kernel_->instructions[threads_[i].next];
        const uint32_t mask = static_cast<uint32_t>(value(threads_[i], at.operands.back(), at));
        if (shuffle_complete(first, threads_[i], mask)) {
            if (at.operation == "shfl")
                shuffle(first, mask, at);
            else
                vote(first, mask, at);
            return true;
        }
    }
    return false;
}

unsigned Machine::count(State state, unsigned first, unsigned end) const
{
    unsigned found = 0;
    for (unsigned i = first; i < end; i++)
        found += threads_[i].state == state;
    return found;
}

/* Where the threads stand, line by line. */
std::string Machine::waiting() const
{
    std::map<std::string, unsigned> places;
    for (unsigned i = 0; i < all_; i++) {
        const Thread &thread = threads_[i];
        const size_t at = thread.state == State::AT_SHUFFLE ? thread.next : thread.next - 1;
        const std::string place =
            thread.state == State::ENDED
                ? "at the end"
                : "at line " + std::to_string(kernel_->instructions[at].line);
        places[place]++;
    }
    std::string text;
    for (const auto &place : places)
        text += ", " + std::to_string(place.second) + " " + place.first;
    return text;
}

/* A block's barrier, if all its threads wait there. */
bool Machine::release_barrier(unsigned rank)
{
    const unsigned first = rank * each_;
    if (count(State::AT_BARRIER, first, first + each_) < each_)
        return false;
    for (unsigned i = first; i < first + each_; i++)
        threads_[i].state = State::READY;
    return true;
}

/* `first` is the number of the cluster's first block. */
void Machine::start_cluster(unsigned first)
{
    const size_t shared = kernel_->shared_bytes + dynamic_shared_bytes_;
    for (unsigned rank = 0; rank < ranks_; rank++) {
        const unsigned number = first + rank;
        blocks_[rank].at = { number % grid_.x, number / grid_.x % grid_.y,
                             number / (grid_.x * grid_.y) };
        blocks_[rank].shared.assign(shared, 0xff);
        blocks_[rank].written.assign(shared, false);
    }
    for (unsigned i = 0; i < all_; i++) {
        Thread &thread = threads_[i];
        thread.number = i % each_;
        thread.rank = i / each_;
        thread.next = 0;
        thread.state = State::READY;
        thread.arrived = false;
        if (thread.registers.size() < kernel_->register_count) {
            thread.registers.resize(kernel_->register_count);
            thread.defined.resize(kernel_->register_count, thread.generation);
        }
        thread.generation++;
        thread.local.assign(kernel_->local_bytes, 0xff);
        thread.local_written.assign(kernel_->local_bytes, false);
    }
}

void Machine::run_cluster()
{
    while (count(State::ENDED, 0, all_) < all_) {
        bool moved = count(State::READY, 0, all_) > 0;
        for (unsigned i : order_)
            run_thread(threads_[i]);
        for (unsigned rank = 0; rank < ranks_; rank++)
            for (unsigned i = 0; i < each_; i += WARP)
                moved |= release_warp(rank * each_ + i);
        for (unsigned rank = 0; rank < ranks_ && !moved; rank++)
            moved |= release_barrier(rank);
        if (!moved && !release_cluster())
            throw Error(0, kernel_->name +
                               ": some threads wait at a barrier or a shuffle that "
                               "others of the block never reach" +
                               waiting());
    }
}

void Machine::prepare(const Kernel &kernel, uint64_t schedule)
{
    kernel_ = &kernel;
    handlers_.clear();
    for (const Instruction &instruction : kernel_->instructions)
        handlers_.push_back(handler_of(instruction, rounding_));
    parameters_.assign(kernel_->parameters_bytes, 0);
    constants_ = kernel_->constants;
    each_ = block_extent_.x * block_extent_.y * block_extent_.z;
    all_ = each_ * ranks_;
    order_ = emulator::order_of(all_, schedule);
    blocks_.resize(ranks_);
    if (threads_.size() < all_)
        threads_.resize(all_);
}

void Machine::run_grid(uint64_t schedule)
{
    for (unsigned number : emulator::order_of(grid_.x * grid_.y * grid_.z / ranks_, schedule)) {
        start_cluster(number * ranks_);
        run_cluster();
    }
}

void Machine::launch(const Kernel &kernel, Extent grid, Extent block,
                     size_t dynamic_shared_bytes, uint64_t schedule,
                     const std::vector<std::vector<unsigned char>> &arguments, unsigned ranks)
{
    if (ranks == 0 || grid.x % ranks != 0)
        throw Error(0, kernel.name + ": a grid has whole clusters");
    grid_ = grid;
    block_extent_ = block;
    ranks_ = ranks;
    dynamic_shared_bytes_ = dynamic_shared_bytes;
    prepare(kernel, schedule);
    if (arguments.size() != kernel_->parameters.size())
        throw Error(0, kernel.name + " takes another number of arguments");
    for (size_t i = 0; i < arguments.size(); i++) {
        const Parameter &parameter = kernel_->parameters[i];
        if (arguments[i].size() != parameter.bytes)
            throw Error(0, kernel.name + " takes an argument of another size");
        std::memcpy(parameters_.data() + parameter.offset, arguments[i].data(),
                    parameter.bytes);
    }
    run_grid(schedule);
}

void Machine::launch(const std::string &kernel, unsigned grid, unsigned block,
                     uint64_t schedule, const std::vector<uint64_t> &arguments)
{
    std::vector<std::vector<unsigned char>> bytes;
    if (module_.count(kernel) == 0)
        throw Error(0, "no kernel " + kernel);
    const std::vector<Parameter> &parameters = module_.at(kernel).parameters;
    for (size_t i = 0; i < arguments.size(); i++) {
        const size_t size = i < parameters.size() ? parameters[i].bytes : sizeof(uint64_t);
        bytes.emplace_back(size);
        std::memcpy(bytes.back().data(), &arguments[i], size);
    }
    launch(module_.at(kernel), { grid, 1, 1 }, { block, 1, 1 }, 0, schedule, bytes);
}

} // namespace ptx
