/* ptx_module.h - PTX text, as nvcc writes it, taken apart.
 *
 * In: the text of a module. Out: its kernels as lists of instructions whose operands are
 * registers, constants and addresses by number. What is not understood is an error that names
 * the line: nothing is skipped. */
#ifndef GRADREG_TEST_DEVICE_PTX_MODULE_H
#define GRADREG_TEST_DEVICE_PTX_MODULE_H

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace ptx
{

class Error : public std::runtime_error
{
  public:
    Error(int line, const std::string &what)
        : std::runtime_error("PTX line " + std::to_string(line) + ": " + what)
    {
    }
};

/* Addresses that no pointer of this process has: the windows of the other state spaces. */
enum : uint64_t {
    SHARED_WINDOW = UINT64_C(0x7000000000000000),
    LOCAL_WINDOW = UINT64_C(0x7100000000000000),
    PARAMETER_WINDOW = UINT64_C(0x7200000000000000),
    CONSTANT_WINDOW = UINT64_C(0x7300000000000000),
    /* Block r of a cluster has its shared memory (r + 1) times this behind the caller's own. */
    CLUSTER_STEP = UINT64_C(1) << 24,
};

struct Type {
    char kind = 0; /* b, u, s, f, or p for a predicate */
    int bytes = 0;
};

enum class Special {
    TID_X,
    TID_Y,
    TID_Z,
    NTID_X,
    NTID_Y,
    NTID_Z,
    CTAID_X,
    CTAID_Y,
    CTAID_Z,
    NCTAID_X,
    NCTAID_Y,
    NCTAID_Z,
    LANEID,
    CLUSTER_CTARANK,
    CLUSTER_NCTARANK
};

enum class Space { GENERIC, GLOBAL, SHARED, CLUSTER, LOCAL, PARAMETER, CONSTANT };

struct Operand {
    enum class Kind { REGISTER, CONSTANT, SPECIAL, ADDRESS, VECTOR, LABEL, NOTHING };
    Kind kind = Kind::CONSTANT;
    int number = -1;    /* of the register, also of an address's; -1: none */
    uint64_t value = 0; /* of the constant; added to an address's register */
    Special special = Special::TID_X;
    std::vector<Operand> parts; /* of the vector, or of register|predicate */
    std::string label;
};

struct Instruction {
    int line = 0;
    std::string text;      /* opcode with its modifiers, for messages */
    std::string operation; /* add, setp, ... */
    std::vector<std::string> modifiers;
    Type type, source_type; /* the last two types among the modifiers: cvt has both */
    int guard = -1;         /* predicate register, -1: always */
    bool guard_negated = false;
    std::vector<Operand> operands;
    size_t target = 0;           /* of a branch */
    std::vector<size_t> targets; /* of an indexed one */
    Space space = Space::GENERIC;

    bool has(const char *modifier) const;
};

struct Parameter {
    size_t offset, bytes;
};

struct Kernel {
    std::string name;
    std::vector<Instruction> instructions;
    std::vector<Parameter> parameters;
    size_t register_count = 0, shared_bytes = 0, local_bytes = 0, parameters_bytes = 0;
    /* The module's own arrays of constants, behind CONSTANT_WINDOW. */
    std::vector<uint8_t> constants;
};

using Module = std::map<std::string, Kernel>;

Module parse(const std::string &text);

/* A long text, of which only the kernels that are asked for are taken apart. */
class Source
{
  public:
    explicit Source(const std::string &text);
    bool has(const std::string &kernel) const;
    Module kernel(const std::string &name) const;

  private:
    std::string text_, outside_;
    std::map<std::string, size_t> begins_;
};

} // namespace ptx

#endif
