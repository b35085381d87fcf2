/* compare.h - the same calls on a CPU context and on a CUDA context, and their bytes compared.
 *
 * In: cases by name. Out: exit status 0 and counts, or the first difference of each case. Needs the
 * C++ library and the CUDA runtime, emulated or real, and nothing else, so that it can be built on
 * any machine with a GPU. */
#ifndef GRADREG_TEST_CUDA_COMPARE_H
#define GRADREG_TEST_CUDA_COMPARE_H

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../choices.h"
#include "gradreg.h"

#ifdef GR_CUDA_EMULATED
#include "emulated_cuda.h"
#endif

namespace compare
{

class Failure : public std::runtime_error
{
  public:
    using std::runtime_error::runtime_error;
};

/* Ends the case with a sentence. */
void require(bool holds, const std::string &sentence);
void require_ok(gradreg_status status, const char *call);
void require_cuda(cudaError_t error, const char *call);
#define CALL(call) compare::require_ok((call), #call)
#define CUDA(call) compare::require_cuda((call), #call)

/* Whether the quick set runs. */
bool is_reduced();

class Random
{
  public:
    explicit Random(uint64_t seed) : state_(seed * UINT64_C(0x9e3779b97f4a7c15) + 1)
    {
    }
    uint64_t word();
    uint32_t below(uint32_t n)
    {
        return static_cast<uint32_t>(word() >> 33) % n;
    }
    double unit() /* [-1, 1) */
    {
        return static_cast<double>(word() >> 11) * 0x1p-52 - 1.0;
    }
    template <class T, size_t N> T pick(const T (&list)[N])
    {
        return list[below(static_cast<uint32_t>(N))];
    }

  private:
    uint64_t state_;
};

using Bytes = std::vector<unsigned char>;

size_t type_bytes(gradreg_type type);
/* Nearest, ties to even, as the type's bits; f16 saturates. */
uint32_t bits_of(double x, gradreg_type type);
double value_of(uint32_t bits, gradreg_type type);
void put(Bytes *array, gradreg_type type, size_t i, uint32_t bits);
uint32_t get(const Bytes &array, gradreg_type type, size_t i);

/* A context, and where its memory is. */
class Side
{
  public:
    explicit Side(gradreg_backend backend, int device = 0);
    ~Side();
    Side(const Side &) = delete;
    Side &operator=(const Side &) = delete;

    void *allocate(size_t bytes) const;
    void release(void *pointer) const;
    void write(void *to, const void *from, size_t bytes) const;
    void read(void *to, const void *from, size_t bytes) const; /* waits */
    void wait() const;
    /* Makes the device current for this host thread. */
    void enter() const;

    gradreg_context *context = nullptr;
    cudaStream_t stream = nullptr;
    bool is_cuda;
    int device;
};

/* Guarded bytes on one side. */
class Memory
{
  public:
    Memory(const Side &side, size_t bytes, size_t misalignment);
    ~Memory();
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;

    void write(const Bytes &bytes);
    Bytes read() const; /* and looks at the guards */
    void *data() const
    {
        return data_;
    }
    size_t size() const
    {
        return bytes_;
    }

  private:
    const Side &side_;
    size_t bytes_, before_, size_;
    unsigned char *all_;
    void *data_;
};

/* Elements that are equal bit for bit, or NaN on both sides. */
void require_same(const Bytes &cpu, const Bytes &cuda, gradreg_type type,
                  const std::string &what);
void require_same_doubles(const std::vector<double> &cpu, const std::vector<double> &cuda,
                          const std::string &what);
/* Whether both sides took the call. Ends the case where one alone did; the CUDA side's sentence is the last
 * error still. */
bool both_accept(const std::string &call, gradreg_status cpu, const std::string &cpu_sentence,
                 gradreg_status cuda);
/* Bytes that have been compared so far, and cases that both sides refused with the same status. */
extern uint64_t compared_bytes;
extern unsigned refused_cases;

/* A call that must neither wait nor allocate: known of an emulated device only. */
class Quiet
{
  public:
    explicit Quiet(const char *call);
    ~Quiet() noexcept(false);

  private:
#ifdef GR_CUDA_EMULATED
    const char *call_;
    uint64_t waits_, allocations_;
#endif
};

/* A call on a stream that is captured runs when the graph does. */
template <class Function> gradreg_status call_captured(const Side &side, Function call)
{
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    side.wait();
    CUDA(cudaStreamBeginCapture(side.stream, cudaStreamCaptureModeThreadLocal));
    const gradreg_status status = call();
    CUDA(cudaStreamEndCapture(side.stream, &graph));
    if (status == GRADREG_OK) {
        CUDA(cudaGraphInstantiate(&exec, graph, 0));
        CUDA(cudaGraphLaunch(exec, side.stream));
        CUDA(cudaGraphExecDestroy(exec));
    }
    CUDA(cudaGraphDestroy(graph));
    return status;
}

struct Case {
    const char *name;
    void (*run)(unsigned number); /* 0 .. count - 1 */
    unsigned count;               /* of the full set */
    unsigned reduced;             /* of the one that is quick */
};

std::vector<Case> regularizer_cases();
std::vector<Case> session_cases(); /* graphs, streams, devices, ranks, states */
std::vector<Case> loss_cases();
std::vector<Case> logits_cases();
std::vector<Case> hidden_cases();
std::vector<Case> monitor_cases(); /* and the probe */

} // namespace compare

#endif
