/* ptx_machine.h - runs the kernels of a PTX module, one instruction at a time.
 *
 * In: a module, the memory it may touch, a launch. Out: what the kernel wrote, or an Error at the
 * instruction that read what was never written, left its memory, was misaligned, or waited for
 * threads that never come. Arithmetic is IEEE 754 with round-to-nearest on the processor at
 * hand; instructions that leave the rounding open (add.f32 without .rn, which the next compiler
 * may contract, .ftz, .approx) are refused. */
#ifndef GRADREG_TEST_DEVICE_PTX_MACHINE_H
#define GRADREG_TEST_DEVICE_PTX_MACHINE_H

#include "ptx_module.h"

namespace ptx
{

enum class State { READY, AT_BARRIER, AT_SHUFFLE, ENDED };

struct Extent {
    unsigned x = 1, y = 1, z = 1;
};

struct Thread {
    unsigned number = 0; /* in the block */
    size_t next = 0;     /* instruction */
    State state = State::READY;
    std::vector<uint64_t> registers;
    std::vector<uint32_t> defined; /* the generation in which each was written */
    uint32_t generation = 0;       /* a new one for every block: nothing is cleared */
    std::vector<uint8_t> local;
    std::vector<bool> local_written;
};

class Machine;
using Handler = void (*)(Machine &, Thread &, const Instruction &);

/* May an instruction leave its rounding open? FREE takes add.f32 as add.rn.f32. */
enum class Rounding { STATED, FREE };

/* What carries an instruction out; refuses the ones it does not know (ptx_operations.cpp). */
Handler handler_of(const Instruction &at, Rounding rounding);

class Machine
{
  public:
    explicit Machine(const Module &module, Rounding rounding = Rounding::STATED)
        : module_(module), rounding_(rounding)
    {
    }

    /* The kernels may read and write these bytes. */
    void allow(void *begin, size_t bytes);
    void forbid_all();
    /* Arguments as raw words; schedule as in emulator.h. */
    void launch(const std::string &kernel, unsigned grid, unsigned block, uint64_t schedule,
                const std::vector<uint64_t> &arguments);
    /* Arguments as their bytes. */
    void launch(const Kernel &kernel, Extent grid, Extent block, size_t dynamic_shared_bytes,
                uint64_t schedule, const std::vector<std::vector<unsigned char>> &arguments);

    /* Instructions that ran, and among them fused multiply-adds. */
    uint64_t executed = 0, fused = 0;
    /* Loads and stores of global memory by their width in bytes. */
    uint64_t widths[17] = {};

    /* For the handlers. */
    uint64_t value(const Thread &thread, const Operand &operand, const Instruction &at) const;
    void set(Thread &thread, const Operand &operand, uint64_t value) const;
    void load(Thread &thread, const Instruction &at);
    void store(Thread &thread, const Instruction &at);
    /* The bytes of an atomic operation's word. */
    uint8_t *atomic_word(Thread &thread, const Instruction &at, size_t operand);

  private:
    struct Place {
        uint8_t *byte;
        std::vector<bool> *written; /* null: not watched */
        size_t offset;
    };
    Place place(Thread &thread, uint64_t address, size_t bytes, const Instruction &at);
    void prepare(const Kernel &kernel, uint64_t schedule);
    void run_grid(uint64_t schedule);
    void run_block();
    unsigned special(const Thread &thread, Special which) const;
    void run_thread(Thread &thread);
    bool release_warp(unsigned first);
    bool shuffle_complete(unsigned first, const Thread &thread, uint32_t mask) const;
    void shuffle(unsigned first, uint32_t mask, const Instruction &at);
    void vote(unsigned first, uint32_t mask, const Instruction &at);
    unsigned count(State state) const;
    std::string waiting() const;

    const Module &module_;
    const Rounding rounding_;
    std::map<uint64_t, size_t> global_;
    uint64_t latest_begin_ = 0, latest_bytes_ = 0; /* the range that was found last */
    const Kernel *kernel_ = nullptr;
    std::vector<Handler> handlers_; /* of the kernel's instructions */
    Extent grid_, block_extent_, block_at_;
    unsigned block_ = 0; /* threads */
    size_t dynamic_shared_bytes_ = 0;
    std::vector<unsigned> order_;
    std::vector<uint8_t> constants_; /* the module's .global and .const arrays */
    std::vector<Thread> threads_;
    std::vector<uint8_t> shared_, parameters_;
    std::vector<bool> shared_written_;
};

} // namespace ptx

#endif
