/* ptx_operations.cpp - what each PTX instruction does to the registers of one thread.
 *
 * In: an instruction. Out: the function that carries it out, or an Error when the instruction is
 * not known or leaves its rounding open. */
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "ptx_values.h"

namespace ptx
{

namespace
{

/* ---- arithmetic ------------------------------------------------------------------------ */

struct Multiply { /* the low half; 16 bits would otherwise be multiplied as int */
    template <class T> T operator()(T a, T b) const
    {
        using Wide = typename std::conditional<(sizeof(T) < 4), uint32_t, T>::type;
        return static_cast<T>(static_cast<Wide>(a) * static_cast<Wide>(b));
    }
};
template <class T, class Operation>
void apply(Machine &machine, Thread &thread, const Instruction &at, Operation operation)
{
    const T a = read<T>(machine, thread, at, 1), b = read<T>(machine, thread, at, 2);
    write(machine, thread, at, static_cast<T>(operation(a, b)));
}

template <class Operation>
void wrapping(Machine &machine, Thread &thread, const Instruction &at)
{
    with_number(at.type, at, [&](auto sample) {
        apply<typename Wrapping<decltype(sample)>::type>(machine, thread, at, Operation());
    });
}

/* min and max: of a number and a NaN the number, and -0 below +0. */
template <bool MAXIMUM> void extreme(Machine &machine, Thread &thread, const Instruction &at)
{
    with_number(at.type, at, [&](auto sample) {
        using T = decltype(sample);
        const T a = read<T>(machine, thread, at, 1), b = read<T>(machine, thread, at, 2);
        if constexpr (std::is_floating_point<T>::value) {
            T result = a != a ? b : b != b ? a : (MAXIMUM ? a < b : b < a) ? b : a;
            if (a == 0 && b == 0) {
                const bool first = std::signbit(a), second = std::signbit(b);
                result = (MAXIMUM ? first && second : first || second) ? -T() : T();
            }
            write(machine, thread, at, result);
        } else {
            write(machine, thread, at, MAXIMUM ? std::max(a, b) : std::min(a, b));
        }
    });
}

template <class Operation> void ordered(Machine &machine, Thread &thread, const Instruction &at)
{
    with_integer(at.type, at, [&](auto sample) {
        apply<decltype(sample)>(machine, thread, at, Operation());
    });
}

void divide(Machine &machine, Thread &thread, const Instruction &at)
{
    if (at.type.kind != 'f' && read<uint64_t>(machine, thread, at, 2) == 0)
        throw Error(at.line, "an integer divided by zero");
    if (at.type.kind == 'f')
        wrapping<std::divides<>>(machine, thread, at);
    else
        ordered<std::divides<>>(machine, thread, at);
}

/* The product in full (wide), its upper half (hi) or its lower half. */
void multiply_integers(Machine &machine, Thread &thread, const Instruction &at)
{
    if (!at.has("wide") && !at.has("hi")) {
        wrapping<Multiply>(machine, thread, at);
        return;
    }
    with_integer(at.type, at, [&](auto sample) {
        using T = decltype(sample);
        __extension__ using Product =
            typename std::conditional<std::is_signed<T>::value, __int128,
                                      unsigned __int128>::type;
        const Product product = static_cast<Product>(read<T>(machine, thread, at, 1)) *
                                static_cast<Product>(read<T>(machine, thread, at, 2));
        if (at.has("hi"))
            write(machine, thread, at, static_cast<T>(product >> (8 * sizeof(T))));
        else if (sizeof(T) == 2)
            write(machine, thread, at, static_cast<uint32_t>(product));
        else
            write(machine, thread, at, static_cast<uint64_t>(product));
    });
}

void multiply(Machine &machine, Thread &thread, const Instruction &at)
{
    if (at.type.kind == 'f')
        wrapping<Multiply>(machine, thread, at);
    else
        multiply_integers(machine, thread, at);
}

void multiply_add(Machine &machine, Thread &thread, const Instruction &at)
{
    const uint64_t addend = machine.value(thread, at.operands[3], at);
    const size_t bytes = static_cast<size_t>(at.type.bytes) * (at.has("wide") ? 2 : 1);
    multiply_integers(machine, thread, at);
    uint64_t sum = machine.value(thread, at.operands[0], at) + addend;
    if (bytes < 8)
        sum &= (UINT64_C(1) << 8 * bytes) - 1;
    write(machine, thread, at, sum);
}

void fused_multiply_add(Machine &machine, Thread &thread, const Instruction &at)
{
    machine.fused++;
    with_number(at.type, at, [&](auto sample) {
        using T = decltype(sample);
        write(machine, thread, at,
              static_cast<T>(std::fma(read<T>(machine, thread, at, 1),
                                      read<T>(machine, thread, at, 2),
                                      read<T>(machine, thread, at, 3))));
    });
}

void negate(Machine &machine, Thread &thread, const Instruction &at)
{
    with_number(at.type, at, [&](auto sample) {
        using T = typename Wrapping<decltype(sample)>::type;
        write(machine, thread, at, static_cast<T>(-read<T>(machine, thread, at, 1)));
    });
}

void absolute(Machine &machine, Thread &thread, const Instruction &at)
{
    with_number(at.type, at, [&](auto sample) {
        using T = decltype(sample);
        const T value = read<T>(machine, thread, at, 1);
        write(machine, thread, at,
              static_cast<T>(value < T() || value != value ? -value : value));
    });
}

/* 1 / x */
void reciprocal(Machine &machine, Thread &thread, const Instruction &at)
{
    if (at.type.bytes == 4)
        write(machine, thread, at, 1.0f / read<float>(machine, thread, at, 1));
    else
        write(machine, thread, at, 1.0 / read<double>(machine, thread, at, 1));
}

void square_root(Machine &machine, Thread &thread, const Instruction &at)
{
    if (at.type.bytes == 4)
        write(machine, thread, at, std::sqrt(read<float>(machine, thread, at, 1)));
    else
        write(machine, thread, at, std::sqrt(read<double>(machine, thread, at, 1)));
}

/* ---- bits -------------------------------------------------------------------------------- */

void complement(Machine &machine, Thread &thread, const Instruction &at)
{
    with_integer(at.type, at, [&](auto sample) {
        using T = decltype(sample);
        const T value = read<T>(machine, thread, at, 1);
        write(machine, thread, at,
              static_cast<T>(at.type.kind == 'p' ? static_cast<T>(value == 0) : ~value));
    });
}

/* Shifts by the width or more leave nothing, or the sign alone. */
void shift_left(Machine &machine, Thread &thread, const Instruction &at)
{
    with_integer(at.type, at, [&](auto sample) {
        using T = typename Wrapping<decltype(sample)>::type;
        const uint32_t count = read<uint32_t>(machine, thread, at, 2);
        const uint64_t value = read<T>(machine, thread, at, 1);
        write(machine, thread, at, static_cast<T>(count < 8 * sizeof(T) ? value << count : 0));
    });
}

void shift_right(Machine &machine, Thread &thread, const Instruction &at)
{
    with_integer(at.type, at, [&](auto sample) {
        using T = decltype(sample);
        const uint32_t last = 8 * sizeof(T) - 1;
        const uint32_t count = read<uint32_t>(machine, thread, at, 2);
        const T value = read<T>(machine, thread, at, 1);
        if (count > last && std::is_unsigned<T>::value)
            write(machine, thread, at, T());
        else
            write(machine, thread, at, static_cast<T>(value >> std::min(count, last)));
    });
}

/* bfi d, a, b, position, length: a's low bits in place of some of b's */
void insert_bits(Machine &machine, Thread &thread, const Instruction &at)
{
    const uint64_t a = machine.value(thread, at.operands[1], at);
    const uint64_t b = machine.value(thread, at.operands[2], at);
    const uint32_t position = read<uint32_t>(machine, thread, at, 3) & 0xff;
    const uint32_t length = read<uint32_t>(machine, thread, at, 4) & 0xff;
    const uint32_t width = 8 * static_cast<uint32_t>(at.type.bytes);
    if (position >= width || length == 0 || length > width - position)
        throw Error(at.line, at.text + " with a field that is not inside the word");
    const uint64_t field = (length == 64 ? ~UINT64_C(0) : (UINT64_C(1) << length) - 1)
                           << position;
    write(machine, thread, at, (b & ~field) | (a << position & field));
}

/* bfe d, a, position, length: the field, its sign extended. */
void extract_bits(Machine &machine, Thread &thread, const Instruction &at)
{
    const uint32_t width = 8 * static_cast<uint32_t>(at.type.bytes);
    const uint32_t position = read<uint32_t>(machine, thread, at, 2) & 0xff;
    const uint32_t length = read<uint32_t>(machine, thread, at, 3) & 0xff;
    if (position >= width || length == 0 || length > width - position)
        throw Error(at.line, at.text + " with a field that is not inside the word");
    const uint64_t ones = (length == 64 ? ~UINT64_C(0) : (UINT64_C(1) << length) - 1);
    uint64_t field = machine.value(thread, at.operands[1], at) >> position & ones;
    if (at.type.kind == 's' && (field >> (length - 1) & 1) != 0)
        field |= ~ones;
    if (width < 64)
        field &= (UINT64_C(1) << width) - 1;
    write(machine, thread, at, field);
}

void count_bits(Machine &machine, Thread &thread, const Instruction &at)
{
    const uint64_t word = at.type.bytes == 8 ? read<uint64_t>(machine, thread, at, 1)
                                             : read<uint32_t>(machine, thread, at, 1);
    write(machine, thread, at, static_cast<uint32_t>(__builtin_popcountll(word)));
}

void leading_zeros(Machine &machine, Thread &thread, const Instruction &at)
{
    const int width = 8 * at.type.bytes;
    const uint64_t word = at.type.bytes == 8 ? read<uint64_t>(machine, thread, at, 1)
                                             : read<uint32_t>(machine, thread, at, 1);
    write(machine, thread, at,
          static_cast<uint32_t>(word == 0 ? width : __builtin_clzll(word) - (64 - width)));
}

/* prmt.b32 d, a, b, selector: bytes of b:a, with bit 3 of a selector the sign of one. */
void permute_bytes(Machine &machine, Thread &thread, const Instruction &at)
{
    const uint64_t both = static_cast<uint64_t>(read<uint32_t>(machine, thread, at, 2)) << 32 |
                          read<uint32_t>(machine, thread, at, 1);
    const uint32_t selector = read<uint32_t>(machine, thread, at, 3);
    uint32_t result = 0;
    if (at.modifiers.size() != 1)
        throw Error(at.line, at.text + " is not supported");
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t choice = selector >> 4 * i & 15;
        uint32_t byte = static_cast<uint32_t>(both >> 8 * (choice & 7)) & 0xff;
        if ((choice & 8) != 0)
            byte = (byte & 0x80) != 0 ? 0xff : 0;
        result |= byte << 8 * i;
    }
    write(machine, thread, at, result);
}

/* lop3.b32 d, a, b, c, table: bit by bit, the table's bit 4a + 2b + c. */
void three_inputs(Machine &machine, Thread &thread, const Instruction &at)
{
    const uint32_t a = read<uint32_t>(machine, thread, at, 1);
    const uint32_t b = read<uint32_t>(machine, thread, at, 2);
    const uint32_t c = read<uint32_t>(machine, thread, at, 3);
    const uint32_t table = read<uint32_t>(machine, thread, at, 4);
    uint32_t result = 0;
    for (uint32_t i = 0; i < 32; i++) {
        const uint32_t row = (a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1);
        result |= (table >> row & 1) << i;
    }
    write(machine, thread, at, result);
}

/* shf.l/r.wrap/clamp.b32 d, low, high, count */
void funnel_shift(Machine &machine, Thread &thread, const Instruction &at)
{
    const uint64_t both = static_cast<uint64_t>(read<uint32_t>(machine, thread, at, 2)) << 32 |
                          read<uint32_t>(machine, thread, at, 1);
    const uint32_t asked = read<uint32_t>(machine, thread, at, 3);
    const uint32_t count = at.has("wrap") ? asked & 31 : std::min(asked, 32u);
    write(machine, thread, at,
          static_cast<uint32_t>(at.has("l") ? both >> (32 - count) : both >> count));
}

void remainder(Machine &machine, Thread &thread, const Instruction &at)
{
    if (read<uint64_t>(machine, thread, at, 2) == 0)
        throw Error(at.line, "an integer divided by zero");
    ordered<std::modulus<>>(machine, thread, at);
}

/* ---- moves, choices, comparisons ------------------------------------------------------- */

/* Also from and to {low, high}. */
void move(Machine &machine, Thread &thread, const Instruction &at)
{
    if (at.operands[0].kind == Operand::Kind::VECTOR) {
        machine.unpack(thread, at);
    } else if (at.operands[1].kind == Operand::Kind::VECTOR) {
        machine.pack(thread, at);
    } else {
        uint64_t word = machine.value(thread, at.operands[1], at);
        if (at.type.kind == 'p')
            word = word != 0;
        else if (at.type.bytes < 8)
            word &= (UINT64_C(1) << 8 * at.type.bytes) - 1;
        machine.set(thread, at.operands[0], word);
    }
}

void select(Machine &machine, Thread &thread, const Instruction &at)
{
    const bool first = (machine.value(thread, at.operands[3], at) & 1) != 0;
    write(machine, thread, at, machine.value(thread, at.operands[first ? 1 : 2], at));
}

/* A comparison as the set of relations it accepts. */
enum : unsigned { LESS = 1, EQUAL = 2, GREATER = 4, UNORDERED = 8 };

unsigned accepted(const Instruction &at)
{
    static const std::map<std::string, unsigned> sets = {
        { "eq", EQUAL },
        { "ne", LESS | GREATER },
        { "lt", LESS },
        { "le", LESS | EQUAL },
        { "gt", GREATER },
        { "ge", GREATER | EQUAL },
        { "lo", LESS },
        { "ls", LESS | EQUAL },
        { "hi", GREATER },
        { "hs", GREATER | EQUAL },
        { "num", LESS | EQUAL | GREATER },
        { "nan", UNORDERED },
    };
    std::string name = at.modifiers[0];
    unsigned also = 0;
    if (name.size() == 3 && name[2] == 'u') { /* equ, neu, ltu, ...: true for a NaN too */
        name.pop_back();
        also = UNORDERED;
    }
    if (at.modifiers.size() != 2 || sets.count(name) == 0)
        throw Error(at.line, at.text + " is not supported");
    return sets.at(name) | also;
}

void compare_operands(Machine &machine, Thread &thread, const Instruction &at)
{
    const unsigned set = accepted(at);
    with_number(at.type, at, [&](auto sample) {
        using T = decltype(sample);
        const T a = read<T>(machine, thread, at, 1), b = read<T>(machine, thread, at, 2);
        const unsigned relation = a < b ? LESS : a > b ? GREATER : a == b ? EQUAL : UNORDERED;
        write(machine, thread, at, static_cast<uint8_t>((set & relation) != 0));
    });
}

/* ---- conversions ------------------------------------------------------------------------- */

/* A float out of the integer's range gives the end of the range; a NaN gives 0, or for 64 bits
 * the top bit alone. */
template <class Integer, class Float> Integer to_integer(Float value)
{
    const double least = static_cast<double>(std::numeric_limits<Integer>::min());
    const double past =
        2.0 * (static_cast<double>(std::numeric_limits<Integer>::max() / 2) + 1.0);
    if (value != value)
        return sizeof(Integer) < 8 && sizeof(Float) < 8
                   ? Integer()
                   : static_cast<Integer>(UINT64_C(1) << (8 * sizeof(Integer) - 1));
    if (static_cast<double>(value) <= least)
        return std::numeric_limits<Integer>::min();
    if (static_cast<double>(value) >= past)
        return std::numeric_limits<Integer>::max();
    return static_cast<Integer>(value);
}

template <class To, class From> To convert(From value, const Instruction &at)
{
    const bool to_float = std::is_floating_point<To>::value;
    const bool from_float = std::is_floating_point<From>::value;
    const bool exact = to_float && from_float && sizeof(To) > sizeof(From);
    if (to_float && !exact && !at.has("rn"))
        throw Error(at.line, at.text + " is not supported");
    if (!to_float && from_float && !at.has("rzi"))
        throw Error(at.line, at.text + " is not supported");
    if constexpr (std::is_integral<To>::value && std::is_floating_point<From>::value)
        return to_integer<To>(value);
    else
        return static_cast<To>(value);
}

void convert_operand(Machine &machine, Thread &thread, const Instruction &at)
{
    with_number(at.source_type, at, [&](auto from) {
        with_number(at.type, at, [&](auto to) {
            using From = decltype(from);
            using To = decltype(to);
            write(machine, thread, at, convert<To>(read<From>(machine, thread, at, 1), at));
        });
    });
}

/* ---- control ------------------------------------------------------------------------------ */

void branch(Machine &, Thread &thread, const Instruction &at)
{
    thread.next = at.target;
}

void end(Machine &, Thread &thread, const Instruction &)
{
    thread.state = State::ENDED;
}

/* bar.sync, of the block, and bar.warp.sync, which waits as a shuffle does. */
void wait_at_barrier(Machine &, Thread &thread, const Instruction &at)
{
    thread.state = at.has("warp") ? State::AT_SHUFFLE : State::AT_BARRIER;
    if (at.has("warp"))
        thread.next--;
    else if (!at.has("sync"))
        throw Error(at.line, at.text + " is not supported");
}

void trap(Machine &, Thread &, const Instruction &at)
{
    throw Error(at.line, "a place that is never to be reached was reached");
}

/* brx.idx %r, $list */
void branch_indexed(Machine &machine, Thread &thread, const Instruction &at)
{
    const uint64_t index = machine.value(thread, at.operands[0], at) & 0xffffffff;
    if (index >= at.targets.size())
        throw Error(at.line, at.text + " past the end of its list");
    thread.next = at.targets[index];
}

void nothing(Machine &, Thread &, const Instruction &)
{
}

/* The machine moves the thread on once its warp is there. */
void wait_for_shuffle(Machine &, Thread &thread, const Instruction &)
{
    thread.state = State::AT_SHUFFLE;
    thread.next--;
}

void load(Machine &machine, Thread &thread, const Instruction &at)
{
    machine.load(thread, at);
}

void store(Machine &machine, Thread &thread, const Instruction &at)
{
    machine.store(thread, at);
}

/* atom.global.add.u32 old, [address], value; red has no old. cas: compare, value. */
void atomic(Machine &machine, Thread &thread, const Instruction &at)
{
    const size_t address = at.operation == "atom" ? 1 : 0;
    uint8_t *word = machine.atomic_word(thread, at, address);
    with_number(at.type, at, [&](auto sample) {
        using T = decltype(sample);
        T old, next;
        std::memcpy(&old, word, sizeof(T));
        const T value = read<T>(machine, thread, at, address + 1);
        if (at.has("add"))
            next = static_cast<T>(old + value);
        else if (at.has("exch"))
            next = value;
        else if (at.has("min"))
            next = value < old ? value : old;
        else if (at.has("max"))
            next = old < value ? value : old;
        else if (at.has("inc"))
            next = old >= value ? T() : static_cast<T>(old + 1);
        else if (at.has("cas"))
            next = old == value ? read<T>(machine, thread, at, address + 2) : old;
        else
            throw Error(at.line, at.text + " is not supported");
        std::memcpy(word, &next, sizeof(T));
        if (at.operation == "atom")
            write(machine, thread, at, old);
    });
}

/* Addresses of all state spaces are generic here, but for those of 32 bits in shared memory. */
void convert_address(Machine &machine, Thread &thread, const Instruction &at)
{
    const uint64_t address = machine.value(thread, at.operands[1], at);
    const bool small = at.space == Space::SHARED && address < SHARED_WINDOW;
    write(machine, thread, at, small ? SHARED_WINDOW + address : address);
}

/* ---- the table ------------------------------------------------------------------------------ */

struct Entry {
    Handler handler;
    size_t operands;
    bool rounds; /* a float one must say .rn */
};

const std::map<std::string, Entry> &entries()
{
    static const std::map<std::string, Entry> table = {
        { "add", { wrapping<std::plus<>>, 3, true } },
        { "sub", { wrapping<std::minus<>>, 3, true } },
        { "mul", { multiply, 3, true } },
        { "div", { divide, 3, true } },
        { "fma", { fused_multiply_add, 4, true } },
        { "rcp", { reciprocal, 2, true } },
        { "sqrt", { square_root, 2, true } },
        { "mad", { multiply_add, 4, false } },
        { "neg", { negate, 2, false } },
        { "abs", { absolute, 2, false } },
        { "min", { extreme<false>, 3, false } },
        { "max", { extreme<true>, 3, false } },
        { "and", { ordered<std::bit_and<>>, 3, false } },
        { "or", { ordered<std::bit_or<>>, 3, false } },
        { "xor", { ordered<std::bit_xor<>>, 3, false } },
        { "not", { complement, 2, false } },
        { "shl", { shift_left, 3, false } },
        { "shr", { shift_right, 3, false } },
        { "bfi", { insert_bits, 5, false } },
        { "bfe", { extract_bits, 4, false } },
        { "mov", { move, 2, false } },
        { "selp", { select, 4, false } },
        { "setp", { compare_operands, 3, false } },
        { "cvt", { convert_operand, 2, false } },
        { "cvta", { convert_address, 2, false } },
        { "ld", { load, 2, false } },
        { "st", { store, 2, false } },
        { "bra", { branch, 1, false } },
        { "ret", { end, 0, false } },
        { "exit", { end, 0, false } },
        { "trap", { trap, 0, false } },
        { "brx", { branch_indexed, 2, false } },
        { "bar", { wait_at_barrier, 1, false } },
        { "barrier", { wait_at_barrier, 1, false } },
        { "barrier.cluster", { wait_for_cluster, 0, false } },
        { "mapa", { map_address, 3, false } },
        { "membar", { nothing, 0, false } },
        { "fence", { nothing, 0, false } },
        { "atom", { atomic, 3, false } },
        { "red", { atomic, 2, false } },
        { "vote", { wait_for_shuffle, 3, false } },
        { "popc", { count_bits, 2, false } },
        { "clz", { leading_zeros, 2, false } },
        { "prmt", { permute_bytes, 4, false } },
        { "lop3", { three_inputs, 5, false } },
        { "shf", { funnel_shift, 4, false } },
        { "rem", { remainder, 3, false } },
        { "shfl", { wait_for_shuffle, 5, false } },
    };
    return table;
}

} // namespace

Handler handler_of(const Instruction &at, Rounding rounding)
{
    const auto found = entries().find(
        at.operation == "barrier" && at.has("cluster") ? "barrier.cluster" : at.operation);
    if (found == entries().end())
        throw Error(at.line, at.text + " is not supported");
    const size_t more = at.operation == "atom" && at.has("cas"); /* what to compare with */
    if (at.operands.size() != found->second.operands + more)
        throw Error(at.line, at.text + " with another number of operands");
    if (at.has("ftz") || at.has("approx") || at.has("sat") || at.has("cc"))
        throw Error(at.line, at.text + " is not IEEE arithmetic");
    if (rounding == Rounding::STATED && found->second.rounds && at.type.kind == 'f' &&
        !at.has("rn"))
        throw Error(at.line, at.text + " leaves its rounding open");
    return found->second.handler;
}

} // namespace ptx
