/* ptx_machine.h - runs the kernels of a PTX module, one instruction at a time.
 *
 * In: a module, the memory it may touch, a launch. Out: what the kernel wrote, or an Error at the
 * instruction that read what was never written, left its memory, was misaligned, waited for threads
 * that never come, or looked into a block of its cluster that has ended. Arithmetic is IEEE 754 with
 * round-to-nearest on the processor at hand; instructions that leave the rounding open (add.f32 without
 * .rn, which the next compiler may contract, .ftz, .approx) are refused. */
#ifndef GRADREG_TEST_DEVICE_PTX_MACHINE_H
#define GRADREG_TEST_DEVICE_PTX_MACHINE_H

#include "ptx_module.h"

namespace ptx
{

enum class State { READY, AT_BARRIER, AT_CLUSTER, AT_SHUFFLE, ENDED };

struct Extent {
    unsigned x = 1, y = 1, z = 1;
};

/* A register of which only one half was written. */
struct Half {
    uint32_t generation = 0;
    unsigned which = 0; /* 0: the low one */
};

struct Thread {
    unsigned number = 0; /* in the block */
    unsigned rank = 0;   /* of the block in its cluster */
    size_t next = 0;     /* instruction */
    State state = State::READY;
    bool arrived = false; /* at the cluster's barrier */
    std::vector<uint64_t> registers;
    std::vector<uint32_t> defined; /* the generation in which each was written */
    uint32_t generation = 0;       /* a new one for every block: nothing is cleared */
    std::map<int, Half> halves;    /* by the register's number */
    std::vector<uint8_t> local;
    std::vector<bool> local_written;
};

/* A thread block that runs, alone or with the others of its cluster. */
struct Block {
    Extent at;
    std::vector<uint8_t> shared;
    std::vector<bool> written;
};

class Machine;
using Handler = void (*)(Machine &, Thread &, const Instruction &);

/* May an instruction leave its rounding open? FREE takes add.f32 as add.rn.f32. */
enum class Rounding { STATED, FREE };

/* What carries an instruction out; refuses the ones it does not know (ptx_operations.cpp). */
Handler handler_of(const Instruction &at, Rounding rounding);

/* Of those, the ones on clusters (ptx_cluster.cpp). */
void map_address(Machine &machine, Thread &thread, const Instruction &at);
void wait_for_cluster(Machine &machine, Thread &thread, const Instruction &at);

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
    /* Arguments as their bytes. `ranks` blocks that follow each other are one cluster. */
    void launch(const Kernel &kernel, Extent grid, Extent block, size_t dynamic_shared_bytes,
                uint64_t schedule, const std::vector<std::vector<unsigned char>> &arguments,
                unsigned ranks = 1);

    /* Instructions that ran, and among them fused multiply-adds. */
    uint64_t executed = 0, fused = 0;
    /* Loads and stores of global memory by their width in bytes. */
    uint64_t widths[17] = {};

    /* For the handlers. */
    uint64_t value(const Thread &thread, const Operand &operand, const Instruction &at) const;
    void set(Thread &thread, const Operand &operand, uint64_t value) const;
    void pack(Thread &thread, const Instruction &at) const;
    void unpack(Thread &thread, const Instruction &at) const;
    void load(Thread &thread, const Instruction &at);
    void store(Thread &thread, const Instruction &at);
    /* The bytes of an atomic operation's word. */
    uint8_t *atomic_word(Thread &thread, const Instruction &at, size_t operand);
    /* Where block `rank` of the cluster has what the caller has at this address in shared memory. */
    uint64_t map_shared(const Thread &thread, uint64_t address, uint64_t rank,
                        const Instruction &at) const;

  private:
    struct Place {
        uint8_t *byte;
        std::vector<bool> *written; /* null: not watched */
        size_t offset;
    };
    bool is_written(const Thread &thread, const Operand &operand) const;
    void forget(Thread &thread, const Operand &operand) const;
    Place place(Thread &thread, uint64_t address, size_t bytes, const Instruction &at);
    Place shared_place(const Thread &thread, uint64_t offset, size_t bytes,
                       const Instruction &at);
    void prepare(const Kernel &kernel, uint64_t schedule);
    void run_grid(uint64_t schedule);
    void start_cluster(unsigned first);
    void run_cluster();
    unsigned special(const Thread &thread, Special which) const;
    void run_thread(Thread &thread);
    bool release_warp(unsigned first);
    bool release_barrier(unsigned rank);
    bool release_cluster();
    bool shuffle_complete(unsigned first, const Thread &thread, uint32_t mask) const;
    void shuffle(unsigned first, uint32_t mask, const Instruction &at);
    void vote(unsigned first, uint32_t mask, const Instruction &at);
    unsigned count(State state, unsigned first, unsigned end) const;
    std::string waiting() const;

    const Module &module_;
    const Rounding rounding_;
    std::map<uint64_t, size_t> global_;
    uint64_t latest_begin_ = 0, latest_bytes_ = 0; /* the range that was found last */
    const Kernel *kernel_ = nullptr;
    std::vector<Handler> handlers_; /* of the kernel's instructions */
    Extent grid_, block_extent_;
    unsigned each_ = 0, ranks_ = 1,
             all_ = 0; /* threads of a block; blocks, threads of a cluster */
    size_t dynamic_shared_bytes_ = 0;
    std::vector<unsigned> order_;
    std::vector<uint8_t> constants_; /* the module's .global and .const arrays */
    std::vector<Thread> threads_;    /* the first all_ of them; others were in larger blocks */
    std::vector<Block> blocks_;      /* of the cluster */
    std::vector<uint8_t> parameters_;
};

} // namespace ptx

#endif
