/* ptx_values.h - the 64-bit words of registers as values of the instruction's type.
 *
 * In: a word, or the type an instruction names. Out: the value, or a call with a value of the C++
 * type that has the same bits. */
#ifndef GRADREG_TEST_DEVICE_PTX_VALUES_H
#define GRADREG_TEST_DEVICE_PTX_VALUES_H

#include <cstring>
#include <type_traits>

#include "ptx_machine.h"

namespace ptx
{

template <class T> T from_word(uint64_t word)
{
    T value;
    std::memcpy(&value, &word, sizeof(value));
    return value;
}

template <class T> uint64_t to_word(T value)
{
    uint64_t word = 0;
    std::memcpy(&word, &value, sizeof(value));
    return word;
}

template <class T>
T read(const Machine &machine, const Thread &thread, const Instruction &at, size_t operand)
{
    return from_word<T>(machine.value(thread, at.operands[operand], at));
}

template <class T> void write(Machine &machine, Thread &thread, const Instruction &at, T value)
{
    machine.set(thread, at.operands[0], to_word(value));
}

/* Calls with a value of the C++ type that has the instruction's bits. Predicates are bytes. */
template <class Function> void with_integer(Type type, const Instruction &at, Function function)
{
    const bool is_signed = type.kind == 's';
    if (type.kind == 'f')
        throw Error(at.line, at.text + " is not supported");
    switch (type.bytes) {
    case 1: return is_signed ? function(int8_t()) : function(uint8_t());
    case 2: return is_signed ? function(int16_t()) : function(uint16_t());
    case 4: return is_signed ? function(int32_t()) : function(uint32_t());
    case 8: return is_signed ? function(int64_t()) : function(uint64_t());
    default: throw Error(at.line, at.text + " has no type");
    }
}

template <class Function> void with_number(Type type, const Instruction &at, Function function)
{
    if (type.kind != 'f')
        with_integer(type, at, function);
    else if (type.bytes == 4)
        function(float());
    else if (type.bytes == 8)
        function(double());
    else
        throw Error(at.line, at.text + " is not supported");
}

/* Integers wrap around: the signed ones have the bits of the unsigned ones. */
template <class T, bool = std::is_integral<T>::value> struct Wrapping {
    using type = typename std::make_unsigned<T>::type;
};
template <class T> struct Wrapping<T, false> {
    using type = T;
};

} // namespace ptx

#endif
