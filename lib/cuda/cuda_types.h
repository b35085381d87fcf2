/* cuda_types.h - from types that a call brings to types that a template knows.
 *
 * In: a type, or a set of types or pairs of them; what to do with each, as a function of constants. Out: its
 * status. Made of the lists of types.h: what is launched or loaded here is there for every type. */
#ifndef GRADREG_LIB_CUDA_TYPES_H
#define GRADREG_LIB_CUDA_TYPES_H

#include "cuda_check.h"

#include "../types.h"

/* A GRADREG_TYPE_ as an argument that may be a template's. */
template <int TYPE> struct gr_constant {
    constexpr operator int() const
    {
        return TYPE;
    }
};

#define GR_CONSTANT(T) gr_constant<GRADREG_TYPE_##T>()

/* ---- sets ------------------------------------------------------------------------ */

static constexpr uint32_t gr_type_bit(int32_t type)
{
    return 1u << type;
}

static constexpr uint64_t gr_pair_bit(int32_t param_type, int32_t grad_type)
{
    return static_cast<uint64_t>(1) << (param_type * GR_TYPES + grad_type);
}

static_assert(GR_TYPES * GR_TYPES <= 64, "a set of pairs has a bit for each");

#define GR_WITH_BIT(T)         | gr_type_bit(GRADREG_TYPE_##T)
#define GR_WITH_PAIR_BIT(P, G) | gr_pair_bit(GRADREG_TYPE_##P, GRADREG_TYPE_##G)
static constexpr uint32_t GR_ALL_TYPES = 0 GR_EACH_TYPE(GR_WITH_BIT);
static constexpr uint64_t GR_ALL_PAIRS = 0 GR_EACH_PAIR(GR_WITH_PAIR_BIT);

/* ---- what is done with them ------------------------------------------------------ */

/* op(type, last) for each of the set. */
template <class OP> static inline gradreg_status gr_cuda_for_types(uint32_t types, OP op)
{
#define GR_FOR(T)                                                 \
    if ((types & gr_type_bit(GRADREG_TYPE_##T)) != 0) {           \
        types &= ~gr_type_bit(GRADREG_TYPE_##T);                  \
        GR_TRY(op(GR_CONSTANT(T), static_cast<int>(types == 0))); \
    }
    GR_EACH_TYPE(GR_FOR)
#undef GR_FOR
    GR_CUDA_REQUIRE(types == 0, GRADREG_ERROR_UNSUPPORTED, "no kernels for types 0x%x", types);
    return GRADREG_OK;
}

/* op(type) */
template <class OP> static inline gradreg_status gr_cuda_with_type(int32_t type, OP op)
{
    return gr_cuda_for_types(gr_type_bit(type),
                             [&](auto constant, int) { return op(constant); });
}

/* op(weights' type, gradients', last) for each of the set. */
template <class OP> static inline gradreg_status gr_cuda_for_pairs(uint64_t pairs, OP op)
{
#define GR_FOR(P, G)                                                              \
    if ((pairs & gr_pair_bit(GRADREG_TYPE_##P, GRADREG_TYPE_##G)) != 0) {         \
        pairs &= ~gr_pair_bit(GRADREG_TYPE_##P, GRADREG_TYPE_##G);                \
        GR_TRY(op(GR_CONSTANT(P), GR_CONSTANT(G), static_cast<int>(pairs == 0))); \
    }
    GR_EACH_PAIR(GR_FOR)
#undef GR_FOR
    GR_CUDA_REQUIRE(pairs == 0, GRADREG_ERROR_UNSUPPORTED, "no kernels for pairs 0x%llx",
                    static_cast<unsigned long long>(pairs));
    return GRADREG_OK;
}

#endif
