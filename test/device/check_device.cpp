/* check_device.cpp - the kernels of kernels.cu against plain C, word for word.
 *
 *   check_device                   kernels run by emulator.h
 *   check_device FILE.ptx          nvcc's output run by ptx_machine.h
 *   check_device --contracted FILE the same for output compiled with contraction: it has to be
 *                                  refused, and, if run all the same, to differ
 *
 * In: the list of cases.h. Out: exit status 0 and one line with what was compared, or the
 * first word that differs. */
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

/* As C++, with emulator.h in CUDA's place. */
#include "kernels.cu"

#include "inputs.h"
#include "ptx_machine.h"

namespace
{

using kernel_function = void(const uint64_t *, const uint64_t *, uint64_t *, uint32_t);
#define WORD_KERNEL(name, inputs, expression)          device_##name,
#define ARRAY_KERNEL(name, inputs, a, b, out, threads) device_##name,
kernel_function *const kernels[] = { WORD_CASES(WORD_KERNEL) ARRAY_CASES(ARRAY_KERNEL) };

enum : uint32_t { BLOCK_THREADS = 128, SCHEDULES = 3 };

/* The words of all items, in memory of exactly that size so that sanitizers and the PTX machine
 * see every step outside. */
struct Buffers {
    std::vector<uint64_t> a, b, out;
};

uint32_t items_of(const device_case &which)
{
    if (which.threads == 128)
        return 77; /* each of elements_of_item's lengths */
    return which.a_words > 1 ? 101 : 4093;
}

Buffers buffers_of(const device_case &which)
{
    const uint32_t items = items_of(which);
    Buffers buffers;
    fill_inputs(which, items, &buffers.a, &buffers.b);
    buffers.out.assign(size_t(items) * which.out_words, UINT64_C(0xbad0bad0bad0bad0));
    return buffers;
}

std::vector<uint64_t> host_results(const device_case &which, Buffers *buffers)
{
    std::vector<uint64_t> out = buffers->out;
    for (uint32_t item = 0; item < items_of(which); item++)
        which.host(buffers->a.data() + size_t(item) * which.a_words,
                   buffers->b.data() + size_t(item) * which.b_words,
                   out.data() + size_t(item) * which.out_words, item);
    return out;
}

uint32_t grid_of(const device_case &which)
{
    const uint32_t per_block = BLOCK_THREADS / which.threads;
    return (items_of(which) + per_block - 1) / per_block;
}

/* ---- the two ways to run a kernel --------------------------------------------------- */

class Runner
{
  public:
    virtual ~Runner() = default;
    virtual void run(size_t index, Buffers *buffers, uint64_t schedule) = 0;
};

class Emulation : public Runner
{
  public:
    void run(size_t index, Buffers *buffers, uint64_t schedule) override
    {
        const device_case &which = device_cases[index];
        emulator::launch(grid_of(which), BLOCK_THREADS, schedule, [&] {
            kernels[index](buffers->a.data(), buffers->b.data(), buffers->out.data(),
                           items_of(which));
        });
    }
};

class Interpretation : public Runner
{
  public:
    Interpretation(const char *file, ptx::Rounding rounding)
        : module_(ptx::parse(read_file(file))), rounding_(rounding)
    {
    }

    void run(size_t index, Buffers *buffers, uint64_t schedule) override
    {
        const device_case &which = device_cases[index];
        ptx::Machine machine(module_, rounding_);
        std::vector<uint64_t> arguments;
        for (std::vector<uint64_t> *words : { &buffers->a, &buffers->b, &buffers->out }) {
            machine.allow(words->data(), words->size() * sizeof(uint64_t));
            arguments.push_back(reinterpret_cast<uint64_t>(words->data()));
        }
        arguments.push_back(items_of(which));
        machine.launch(std::string("device_") + which.name, grid_of(which), BLOCK_THREADS,
                       schedule, arguments);
        executed += machine.executed;
        fused += machine.fused;
    }

    uint64_t executed = 0, fused = 0;

  private:
    static std::string read_file(const char *file)
    {
        std::ifstream stream(file);
        if (!stream)
            throw std::runtime_error(std::string("cannot read ") + file);
        return std::string(std::istreambuf_iterator<char>(stream), {});
    }

    ptx::Module module_;
    ptx::Rounding rounding_;
};

/* ---- comparison ------------------------------------------------------------------------ */

struct Tally {
    size_t kernels = 0, inputs = 0, words = 0, differing_kernels = 0;
};

bool equal(const device_case &which, const std::vector<uint64_t> &got,
           const std::vector<uint64_t> &want, bool report)
{
    for (size_t i = 0; i < want.size(); i++)
        if (got[i] != want[i]) {
            if (report)
                std::fprintf(stderr, "%s: item %zu, word %zu: %016llx, the host has %016llx\n",
                             which.name, i / which.out_words, i % which.out_words,
                             static_cast<unsigned long long>(got[i]),
                             static_cast<unsigned long long>(want[i]));
            return false;
        }
    return true;
}

void check_kernel(Runner *runner, size_t index, bool report, Tally *tally)
{
    const device_case &which = device_cases[index];
    Buffers buffers = buffers_of(which);
    const std::vector<uint64_t> want = host_results(which, &buffers);
    bool all_equal = true;

    for (uint64_t schedule = 0; schedule < SCHEDULES; schedule++) {
        Buffers now = buffers;
        runner->run(index, &now, schedule);
        all_equal = all_equal && equal(which, now.out, want, report);
        if (now.a != buffers.a || now.b != buffers.b)
            throw std::runtime_error(std::string(which.name) + " changed its inputs");
        if (which.threads == 1)
            break; /* threads that share nothing need one schedule */
    }
    tally->kernels++;
    tally->inputs += items_of(which);
    tally->words += want.size();
    tally->differing_kernels += !all_equal;
}

Tally check_all(Runner *runner, bool report)
{
    Tally tally;
    for (size_t index = 0; index < device_case_count; index++)
        check_kernel(runner, index, report, &tally);
    return tally;
}

int check_emulation()
{
    Emulation emulation;
    const Tally tally = check_all(&emulation, true);
    std::printf("emulation: %zu kernels x %zu inputs, %zu words compared, %zu kernels differ\n",
                tally.kernels, tally.inputs, tally.words, tally.differing_kernels);
    return tally.differing_kernels == 0 ? 0 : 1;
}

Tally check_ptx(const char *file, ptx::Rounding rounding, uint64_t *fused)
{
    Interpretation interpretation(file, rounding);
    const Tally tally = check_all(&interpretation, rounding == ptx::Rounding::STATED);
    std::printf("%s: %zu kernels x %zu inputs, %zu words compared, %zu kernels differ; "
                "%.1f million instructions, %llu fused\n",
                file, tally.kernels, tally.inputs, tally.words, tally.differing_kernels,
                1e-6 * static_cast<double>(interpretation.executed),
                static_cast<unsigned long long>(interpretation.fused));
    *fused = interpretation.fused;
    return tally;
}

int check_exact(const char *file)
{
    uint64_t fused;
    const Tally tally = check_ptx(file, ptx::Rounding::STATED, &fused);
    return tally.differing_kernels == 0 && fused == 0 ? 0 : 1;
}

int check_contracted(const char *file)
{
    uint64_t fused;
    try {
        check_ptx(file, ptx::Rounding::STATED, &fused);
        std::fprintf(stderr, "%s: contraction was not refused\n", file);
        return 1;
    } catch (const ptx::Error &error) {
        std::printf("%s: refused as it should be: %s\n", file, error.what());
    }
    const Tally tally = check_ptx(file, ptx::Rounding::FREE, &fused);
    return tally.differing_kernels > 0 && fused > 0 ? 0 : 1;
}

} // namespace

int main(int count, char **arguments)
{
    try {
        if (count == 1)
            return check_emulation();
        if (count == 3 && std::strcmp(arguments[1], "--contracted") == 0)
            return check_contracted(arguments[2]);
        if (count == 2)
            return check_exact(arguments[1]);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    std::fprintf(stderr, "usage: check_device [[--contracted] FILE.ptx]\n");
    return 2;
}
