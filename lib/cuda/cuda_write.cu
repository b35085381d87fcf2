/* cuda_write.cu - see cuda_write.h. In: words of the host. Out: kernels queued whose parameters they are. */
#include "cuda_write.h"

#include <string.h>

template <int COUNT> struct gr_cuda_words {
    uint32_t word[COUNT];
};

enum { WRITE_THREADS = 256 };

template <int COUNT>
__global__ void __launch_bounds__(WRITE_THREADS)
    gradreg_cuda_k_write(uint32_t *to, const gr_cuda_words<COUNT> words, uint32_t count)
{
    for (uint32_t i = threadIdx.x; i < count; i += WRITE_THREADS)
        to[i] = words.word[i];
}

template <int COUNT>
static gradreg_status write_words(const gr_cuda_context *c, char *to, const char *from,
                                  size_t bytes)
{
    gr_cuda_words<COUNT> words;
    memcpy(words.word, from, bytes);
    memset(reinterpret_cast<char *>(words.word) + bytes, 0, sizeof(words) - bytes);
    GR_LAUNCH((gradreg_cuda_k_write<COUNT>), 1, WRITE_THREADS, 0, c->stream,
              reinterpret_cast<uint32_t *>(to), words, static_cast<uint32_t>(bytes / 4));
    GR_CUDA_TRY_LAUNCH("write");
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_write(const gr_cuda_context *c, void *to, const void *from,
                                  size_t bytes)
{
    char *at = static_cast<char *>(to);
    const char *host = static_cast<const char *>(from);
    while (bytes > 0) {
        const size_t most = GR_WRITE_WORDS * sizeof(uint32_t);
        const size_t now = bytes < most ? bytes : most;
        if (now <= GR_WRITE_FEW_WORDS * sizeof(uint32_t))
            GR_TRY((write_words<GR_WRITE_FEW_WORDS>(c, at, host, now)));
        else
            GR_TRY((write_words<GR_WRITE_WORDS>(c, at, host, now)));
        at += now;
        host += now;
        bytes -= now;
    }
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_load_write(void)
{
    return gr_cuda_load(gradreg_cuda_k_write<GR_WRITE_FEW_WORDS>,
                        gradreg_cuda_k_write<GR_WRITE_WORDS>);
}
