/* cuda_pieces.cu - see cuda_pieces.h. In: f32. Out: three bf16 for each. A warp takes 256 columns of a row at
 * a time, a thread block eight warps' worth: 10 bytes of memory traffic an element. */
#include "cuda_pieces.h"

#include "cuda_rows.cuh"

enum { SPAN = GR_ROW_WARPS * GR_TILE };

/* Columns i to i + GR_TILE of a row, as far as there are. */
GR_DEVICE void split_tile(const gr_pieces &p, uint64_t row, uint32_t i, char *stage)
{
    const uint32_t n = static_cast<uint32_t>(p.columns);
    const bool whole = i + GR_TILE <= n;
    const char *from = reinterpret_cast<const char *>(p.from + row * p.from_stride);
    gr_tile<GRADREG_TYPE_F32> read;
    gr_tile<GRADREG_TYPE_BF16> written[GR_BF16_PIECES] = {};
    gr_load(&read, from, NULL, i, n, whole && gr_is_wide(from), stage);
    GR_UNROLL
    for (int k = 0; k < GR_TILE_EACH; k++) {
        gr_bf16 piece[GR_BF16_PIECES];
        gr_bf16_pieces(piece, gr_get(read, k));
        GR_UNROLL
        for (int which = 0; which < GR_BF16_PIECES; which++)
            gr_set_bits(&written[which], k, piece[GR_BF16_PIECES - 1 - which]);
    }
    GR_UNROLL
    for (int which = 0; which < GR_BF16_PIECES; which++) {
        char *to = p.to + (static_cast<uint64_t>(which) * p.rows + row) * p.to_stride *
                              gr_size_of<GRADREG_TYPE_BF16>();
        gr_store(to, written[which], i, n, whole && gr_is_wide(to), stage);
    }
}

__global__ void __launch_bounds__(GR_ROW_THREADS) gradreg_cuda_k_pieces(const gr_pieces p)
{
    GR_SHARED(uint4, stages, GR_ROW_WARPS * GR_STAGE_BYTES / 16);
    char *stage = reinterpret_cast<char *>(stages) + gr_warp() * GR_STAGE_BYTES;
    const uint64_t spans = (p.columns + SPAN - 1) / SPAN;
    for (uint64_t unit = blockIdx.x; unit < p.rows * spans; unit += gridDim.x) {
        const uint64_t row = unit / spans;
        const uint64_t i = (unit - row * spans) * SPAN + gr_warp() * GR_TILE;
        if (i < p.columns)
            split_tile(p, row, static_cast<uint32_t>(i), stage);
    }
}

gradreg_status gradreg_cuda_split(const gr_cuda_context *c, const gr_pieces *pieces)
{
    const uint64_t units = pieces->rows * ((pieces->columns + SPAN - 1) / SPAN);
    GR_LAUNCH(gradreg_cuda_k_pieces, gr_cuda_grid(c, units, 8), GR_ROW_THREADS, 0, c->stream,
              *pieces);
    GR_CUDA_TRY_LAUNCH("pieces");
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_load_pieces(void)
{
    return gr_cuda_load(gradreg_cuda_k_pieces);
}
