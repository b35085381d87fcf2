/* races.cpp - see races.h.
 *
 * For every byte: who wrote it last and who has read it since; for every thread: what it knows of others. */
#include "races.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <string>
#include <vector>

#include "state.h"

namespace emulated
{
namespace races
{

namespace
{

enum { WARP = 32, THREADS = 8192, RANKS = 8 };
/* Numbers of contexts: never written; by the runtime; from here on, by kernels. */
enum : uint32_t { NOBODY = 0, RUNTIME = 1, FIRST = 2, ATOMIC = 0x80000000u };

/* Where a thread stood between two things that order. */
struct Context {
    uint32_t block, thread; /* of a cluster: as if it were one block */
    uint32_t epoch;         /* barriers of the block so far */
    uint32_t cluster_epoch; /* and of the cluster */
    uint32_t clock;         /* warp operations of the thread so far */
    uint64_t time;          /* over the launch */
};

struct Byte {
    uint32_t writer = NOBODY, readers[2] = { NOBODY, NOBODY };
};

struct Region {
    uintptr_t begin = 0, end = 0;
    bool shared = false;
    std::vector<Byte> bytes;
};

/* Of another block: accesses of thread i before [i] have been published. */
using Published = std::vector<uint64_t>;
using Known = std::map<uint32_t, Published>;

struct Thread {
    uint32_t context = NOBODY; /* made at the next access */
    uint32_t clock = 0, seen[WARP] = {};
    uint64_t fence_time = 0;
    Known known;
};

std::map<uintptr_t, Region> regions; /* by their ends */
Region *latest;
std::vector<Context> contexts;
uint32_t base = FIRST;
Thread threads[THREADS];
uint32_t block, epochs[RANKS], cluster_epoch; /* by the rank in the cluster */
uint32_t threads_now = THREADS, each_now = THREADS;
uint64_t now, barrier_time;
Known block_known;
std::map<uintptr_t, Known> released_at; /* atomics */
uintptr_t parameters_begin, parameters_end;
uint64_t seen_accesses;
const void *code_now; /* of the access */

void merge(Known *into, const Known &from)
{
    for (const auto &entry : from) {
        Published &mine = (*into)[entry.first];
        mine.resize(std::max(mine.size(), entry.second.size()));
        for (size_t i = 0; i < entry.second.size(); i++)
            mine[i] = std::max(mine[i], entry.second[i]);
    }
}

void add_region(const void *begin, size_t bytes, bool shared, uint32_t writer)
{
    const uintptr_t first = reinterpret_cast<uintptr_t>(begin);
    Region &region = regions[first + bytes];
    region.begin = first;
    region.end = first + bytes;
    region.shared = shared;
    region.bytes.assign(bytes, Byte());
    for (Byte &byte : region.bytes)
        byte.writer = writer;
    latest = nullptr;
}

Region *region_of(uintptr_t address)
{
    if (latest != nullptr && address >= latest->begin && address < latest->end)
        return latest;
    const auto found = regions.upper_bound(address);
    if (found == regions.end() || found->second.begin > address)
        return nullptr;
    return latest = &found->second;
}

uint32_t context_of(unsigned number)
{
    Thread &thread = threads[number];
    if (thread.context == NOBODY) {
        thread.context = base + static_cast<uint32_t>(contexts.size());
        contexts.push_back(
            { block, number, epochs[number / each_now], cluster_epoch, thread.clock, now });
    }
    return thread.context;
}

bool was_published(const Known &known, const Context &before)
{
    const auto found = known.find(before.block);
    return found != known.end() && before.thread < found->second.size() &&
           before.time < found->second[before.thread];
}

/* Whether what happened in this context comes before what the thread does now. */
bool is_ordered(uint32_t id, unsigned number)
{
    id &= ~ATOMIC;
    if (id < base)
        return true;
    const Context &before = contexts[id - base];
    if (before.block != block)
        return was_published(block_known, before) ||
               was_published(threads[number].known, before);
    const uint32_t rank = number / each_now;
    return before.thread == number || before.cluster_epoch < cluster_epoch ||
           (before.thread / each_now == rank && before.epoch < epochs[rank]) ||
           (before.thread / WARP == number / WARP &&
            threads[number].seen[before.thread % WARP] > before.clock);
}

std::string name_of(uint32_t id)
{
    const Context &context = contexts[(id & ~ATOMIC) - base];
    return "thread " + std::to_string(context.thread) + " of block " +
           std::to_string(context.block);
}

std::string place_of(const Region &region, uintptr_t address)
{
    return "byte " + std::to_string(address - region.begin) + " of " +
           (region.shared ? "a shared array of " : "an allocation of ") +
           std::to_string(region.end - region.begin) + " bytes";
}

/* For addr2line -e FILE OFFSET. */
void complain(const std::string &sentence)
{
    Dl_info info;
    char where[64] = "";
    if (dladdr(code_now, &info) != 0)
        std::snprintf(where, sizeof(where), " (%s+0x%lx)",
                      std::strrchr(info.dli_fname, '/') == nullptr
                          ? info.dli_fname
                          : std::strrchr(info.dli_fname, '/') + 1,
                      static_cast<unsigned long>(static_cast<const char *>(code_now) -
                                                 static_cast<const char *>(info.dli_fbase)));
    emulator::report(sentence + where);
}

void found_race(const Region &region, uintptr_t address, const char *what, uint32_t other)
{
    complain("race: it " + std::string(what) + " " + place_of(region, address) + " that " +
             name_of(other) + " touched, with nothing in between");
}

void note_read(Byte *byte, uint32_t id, unsigned number)
{
    for (uint32_t &reader : byte->readers)
        if (reader == NOBODY || is_ordered(reader, number)) {
            reader = id;
            return;
        }
    byte->readers[1] = id;
}

void access_byte(Region *region, uintptr_t address, bool write, uint32_t id, unsigned number)
{
    Byte &byte = region->bytes[address - region->begin];
    const bool both_atomic = (byte.writer & id & ATOMIC) != 0;
    if (byte.writer == NOBODY && !write)
        return complain("reads " + place_of(*region, address) + " that was never written");
    if (!both_atomic && !is_ordered(byte.writer, number))
        return found_race(*region, address, write ? "writes" : "reads", byte.writer);
    if (!write)
        return note_read(&byte, id, number);
    for (uint32_t &reader : byte.readers) {
        if (!is_ordered(reader, number))
            return found_race(*region, address, "writes", reader);
        reader = NOBODY;
    }
    byte.writer = id;
}

bool may_be_touched(uintptr_t address, size_t bytes)
{
    static std::set<uintptr_t> images; /* pages of the program: constants of kernels */
    Dl_info info;
    if ((address >= parameters_begin && address + bytes <= parameters_end) ||
        settings().pageable || images.count(address / 4096) != 0)
        return true;
    if (dladdr(reinterpret_cast<void *>(address), &info) == 0)
        return false;
    images.insert(address / 4096);
    return true;
}

void touch(uintptr_t address, size_t bytes, bool write, uint32_t id, unsigned number)
{
    Region *region = region_of(address);
    if (region == nullptr || address + bytes > region->end) {
        if (region != nullptr || !may_be_touched(address, bytes))
            complain(write ? "writes outside of the device's memory"
                           : "reads outside of the device's memory");
        return;
    }
    for (size_t i = 0; i < bytes; i++)
        access_byte(region, address + i, write, id, number);
}

/* ---- what orders ------------------------------------------------------------------------ */

class Checker : public emulator::Watcher
{
  public:
    void begin_launch() override
    {
        base += static_cast<uint32_t>(contexts.size());
        contexts.clear();
        released_at.clear();
        block = 0;
        now = 1;
    }

    /* Its shared memory may soon be somebody else's. */
    void end_launch() override
    {
        forget_shared();
    }

    void begin_block(unsigned each, unsigned ranks) override
    {
        forget_shared();
        block++;
        std::fill(epochs, epochs + RANKS, 0);
        cluster_epoch = 0;
        barrier_time = 0;
        block_known.clear();
        each_now = each;
        threads_now = each * ranks;
        std::fill(threads, threads + threads_now, Thread());
        now++;
    }

    void barrier_passed(unsigned rank) override
    {
        epochs[rank]++;
        pass(rank * each_now, (rank + 1) * each_now);
    }

    void cluster_barrier_passed() override
    {
        cluster_epoch++;
        pass(0, threads_now);
    }

    void exchange_passed(unsigned first, unsigned mask) override
    {
        uint32_t together[WARP] = {};
        for (unsigned lane = 0; lane < WARP; lane++)
            if ((mask >> lane & 1u) != 0)
                for (unsigned i = 0; i < WARP; i++)
                    together[i] = std::max(together[i], threads[first + lane].seen[i]);
        for (unsigned lane = 0; lane < WARP; lane++)
            if ((mask >> lane & 1u) != 0)
                together[lane] = ++threads[first + lane].clock;
        for (unsigned lane = 0; lane < WARP; lane++)
            if ((mask >> lane & 1u) != 0) {
                std::copy(together, together + WARP, threads[first + lane].seen);
                threads[first + lane].context = NOBODY;
            }
    }

    void shared_array(const void *array, size_t bytes) override
    {
        add_region(array, bytes, true, NOBODY);
    }

    /* Publishes what fences and barriers have made visible, and learns what others published. */
    void atomic(unsigned number, const void *address, size_t bytes) override
    {
        Thread &thread = threads[number];
        Known &there = released_at[reinterpret_cast<uintptr_t>(address)];
        Published mine(threads_now);
        const bool fenced_since = thread.fence_time > barrier_time;
        for (unsigned i = 0; i < threads_now; i++) {
            const uint64_t own = threads[i].fence_time;
            mine[i] = i == number || own <= barrier_time ? own : 0;
            if (fenced_since)
                mine[i] = std::max(mine[i], barrier_time + 1);
        }
        merge(&thread.known, there);
        merge(&there, { { block, mine } });
        touch(reinterpret_cast<uintptr_t>(address), bytes, true, context_of(number) | ATOMIC,
              number);
        thread.context = NOBODY;
        now++;
    }

    void fence(unsigned number) override
    {
        threads[number].fence_time = ++now;
        threads[number].context = NOBODY;
    }

  private:
    static void pass(unsigned first, unsigned end)
    {
        barrier_time = now++;
        for (unsigned i = first; i < end; i++) {
            threads[i].context = NOBODY;
            merge(&block_known, threads[i].known);
            threads[i].known.clear();
        }
    }

    static void forget_shared()
    {
        for (auto at = regions.begin(); at != regions.end();)
            at = at->second.shared ? regions.erase(at) : std::next(at);
        latest = nullptr;
    }
};

} // namespace

emulator::Watcher *watcher()
{
    static Checker checker;
    return &checker;
}

void allocated(const void *begin, size_t bytes)
{
    if (settings().races)
        add_region(begin, bytes, false, NOBODY);
}

void released(const void *begin)
{
    Region *region = region_of(reinterpret_cast<uintptr_t>(begin));
    if (region != nullptr && region->begin == reinterpret_cast<uintptr_t>(begin))
        regions.erase(region->end);
    latest = nullptr;
}

void copied(const void *to, const void *from, size_t bytes)
{
    if (!settings().races)
        return;
    const Region *source = region_of(reinterpret_cast<uintptr_t>(from));
    std::vector<uint32_t> writers(bytes, RUNTIME);
    for (size_t i = 0; source != nullptr && i < bytes; i++)
        if (source->bytes[reinterpret_cast<uintptr_t>(from) + i - source->begin].writer ==
            NOBODY)
            writers[i] = NOBODY;
    Region *target = region_of(reinterpret_cast<uintptr_t>(to));
    for (size_t i = 0; target != nullptr && i < bytes; i++) {
        Byte &byte = target->bytes[reinterpret_cast<uintptr_t>(to) + i - target->begin];
        byte = Byte();
        byte.writer = writers[i];
    }
}

void parameters(const void *begin, size_t bytes)
{
    parameters_begin = reinterpret_cast<uintptr_t>(begin);
    parameters_end = parameters_begin + bytes;
}

void access(const void *address, size_t bytes, bool write, const void *code)
{
    const int number = emulator::current_thread();
    if (number < 0 || emulator::watcher == nullptr || emulator::is_own(address))
        return;
    seen_accesses++;
    code_now = code;
    touch(reinterpret_cast<uintptr_t>(address), bytes, write,
          context_of(static_cast<unsigned>(number)), static_cast<unsigned>(number));
}

uint64_t accesses()
{
    return seen_accesses;
}

} // namespace races
} // namespace emulated
