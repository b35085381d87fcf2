/* memory.cpp - see memory.h. */
#include "memory.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

#include "races.h"
#include "state.h"

#if defined(__SANITIZE_ADDRESS__)
#define EMULATED_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATED_ADDRESS_SANITIZER 1
#endif
#endif
#ifdef EMULATED_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

namespace emulated
{

namespace
{

/* One stretch of addresses per device, handed out once: what was freed is never reused, so that
 * a use after free stands out. */
enum : size_t {
    ARENA_BYTES = size_t(1) << 33,
    PAGE = 4096,
    RED_ZONE = 256, /* on either side */
    ALIGNMENT = 256
};

struct Arena {
    unsigned char *begin = nullptr, *end = nullptr; /* in use: [begin, end) */
    size_t live_bytes = 0;
    int windows = 0;
};

Arena arenas[DEVICES_MAXIMUM];
std::map<uintptr_t, Allocation> known;

void poison(unsigned char *begin, size_t bytes, bool on)
{
#ifdef EMULATED_ADDRESS_SANITIZER
    if (on)
        __asan_poison_memory_region(begin, bytes);
    else
        __asan_unpoison_memory_region(begin, bytes);
#else
    (void)begin, (void)bytes, (void)on;
#endif
}

size_t whole_pages(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

void protect(const Arena &arena, int how)
{
    const size_t bytes = whole_pages(static_cast<size_t>(arena.end - arena.begin));
    if (bytes > 0 && mprotect(arena.begin, bytes, how) != 0)
        std::abort();
}

#ifndef EMULATED_ADDRESS_SANITIZER
/* A sanitizer names the place by itself. */
void on_segmentation_fault(int number, siginfo_t *info, void *)
{
    const unsigned char *at = static_cast<const unsigned char *>(info->si_addr);
    for (int device = 0; device < DEVICES_MAXIMUM; device++)
        if (arenas[device].begin != nullptr && at >= arenas[device].begin &&
            at < arenas[device].begin + ARENA_BYTES) {
            static const char said[] = "emulated CUDA: the host touched device memory\n";
            if (write(STDERR_FILENO, said, sizeof(said) - 1) < 0)
                break;
        }
    signal(number, SIG_DFL); /* and again, with the default end */
}
#endif

void open_arena(Arena &arena)
{
    void *all = mmap(nullptr, ARENA_BYTES, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED)
        return;
    arena.begin = arena.end = static_cast<unsigned char *>(all);
#ifndef EMULATED_ADDRESS_SANITIZER
    struct sigaction action = {};
    action.sa_sigaction = on_segmentation_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, nullptr);
#endif
}

unsigned char *from_arena(size_t bytes, int device)
{
    Arena &arena = arenas[device];
    const size_t limit = settings().memory_limit;
    if (arena.begin == nullptr)
        open_arena(arena);
    const size_t used = static_cast<size_t>(arena.end - arena.begin);
    const size_t padded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (arena.begin == nullptr || bytes > ARENA_BYTES ||
        used + padded + 2 * RED_ZONE > ARENA_BYTES ||
        (limit > 0 && arena.live_bytes + bytes > limit))
        return nullptr;
    unsigned char *from = arena.end, *data = from + RED_ZONE;
    arena.end = data + padded + RED_ZONE;
    arena.live_bytes += bytes;
    protect(arena, PROT_READ | PROT_WRITE);
    poison(from, static_cast<size_t>(arena.end - from), false);
    emulator::fill_unwritten(from, static_cast<size_t>(arena.end - from));
    poison(from, static_cast<size_t>(arena.end - from), true);
    poison(data, bytes, false);
    if (arena.windows == 0)
        protect(arena, PROT_NONE);
    return data;
}

#ifndef EMULATED_ADDRESS_SANITIZER
/* Pairs of bytes as fill_unwritten() left them, counted from an even address. */
bool is_untouched(const unsigned char *begin, const unsigned char *end)
{
    for (const unsigned char *at = begin; at < end; at++)
        if (*at != (reinterpret_cast<uintptr_t>(at) % 2 == 0 ? 0xf5 : 0xff))
            return false;
    return true;
}
#endif

void check_canary(const Allocation &one)
{
#ifndef EMULATED_ADDRESS_SANITIZER
    const Window window(one.device);
    if (!is_untouched(one.begin - RED_ZONE, one.begin) ||
        !is_untouched(one.begin + one.bytes, one.begin + one.bytes + RED_ZONE))
        fault("bytes beside an allocation of " + std::to_string(one.bytes) +
              " bytes were written");
#else
    (void)one;
#endif
}

void give_back(const Allocation &one)
{
    if (one.type != cudaMemoryTypeDevice) {
        std::free(one.begin);
        return;
    }
    check_canary(one);
    Arena &arena = arenas[one.device];
    arena.live_bytes -= one.bytes;
    poison(one.begin, one.bytes, true);
    const uintptr_t first = (reinterpret_cast<uintptr_t>(one.begin) + PAGE - 1) / PAGE * PAGE;
    const uintptr_t last = reinterpret_cast<uintptr_t>(one.begin + one.bytes) / PAGE * PAGE;
    if (first < last)
        madvise(reinterpret_cast<void *>(first), last - first, MADV_DONTNEED);
}

} // namespace

void *allocate(size_t bytes, cudaMemoryType type, int device)
{
    unsigned char *begin;
    if (type == cudaMemoryTypeDevice) {
        begin = from_arena(bytes, device);
    } else {
        begin = static_cast<unsigned char *>(std::aligned_alloc(PAGE, whole_pages(bytes)));
        if (begin != nullptr)
            emulator::fill_unwritten(begin, bytes);
    }
    if (begin == nullptr)
        return nullptr;
    Allocation &one = known[reinterpret_cast<uintptr_t>(begin)];
    one.begin = begin;
    one.bytes = bytes;
    one.type = type;
    one.device = device;
    return begin;
}

bool release(void *pointer, bool host)
{
    const auto found = known.find(reinterpret_cast<uintptr_t>(pointer));
    if (found == known.end() || (found->second.type == cudaMemoryTypeHost) != host)
        return false;
    const Allocation one = found->second;
    known.erase(found);
    races::released(one.begin);
    give_back(one);
    return true;
}

const Allocation *find(const void *address)
{
    const auto after = known.upper_bound(reinterpret_cast<uintptr_t>(address));
    if (after == known.begin())
        return nullptr;
    const Allocation &one = std::prev(after)->second;
    return static_cast<const unsigned char *>(address) < one.begin + one.bytes ? &one : nullptr;
}

bool is_known(const void *address, size_t bytes)
{
    const Allocation *one = find(address);
    return one != nullptr &&
           static_cast<const unsigned char *>(address) + bytes <= one->begin + one->bytes;
}

const std::map<uintptr_t, Allocation> &allocations()
{
    return known;
}

void check_canaries()
{
    for (const auto &entry : known)
        if (entry.second.type == cudaMemoryTypeDevice)
            check_canary(entry.second);
}

Window::Window(int device) : device_(device)
{
    if (arenas[device].windows++ == 0)
        protect(arenas[device], PROT_READ | PROT_WRITE);
}

Window::~Window()
{
    if (--arenas[device_].windows == 0)
        protect(arenas[device_], PROT_NONE);
}

} // namespace emulated
