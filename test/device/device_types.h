/* device_types.h - CUDA's built-in types, for a C++ compiler: the same members, sizes and
 * alignments, because kernels read memory through them. */
#ifndef GRADREG_TEST_DEVICE_TYPES_H
#define GRADREG_TEST_DEVICE_TYPES_H

#define GR_VECTOR_TYPES(element, name, alignment2, alignment4)                       \
    struct alignas(alignment2) name##2                                               \
    {                                                                                \
        element x, y;                                                                \
    };                                                                               \
    struct name##3                                                                   \
    {                                                                                \
        element x, y, z;                                                             \
    };                                                                               \
    struct alignas(alignment4) name##4                                               \
    {                                                                                \
        element x, y, z, w;                                                          \
    };                                                                               \
    static inline name##2 make_##name##2(element x, element y)                       \
    {                                                                                \
        return { x, y };                                                             \
    }                                                                                \
    static inline name##3 make_##name##3(element x, element y, element z)            \
    {                                                                                \
        return { x, y, z };                                                          \
    }                                                                                \
    static inline name##4 make_##name##4(element x, element y, element z, element w) \
    {                                                                                \
        return { x, y, z, w };                                                       \
    }

GR_VECTOR_TYPES(unsigned char, uchar, 2, 4)
GR_VECTOR_TYPES(short, short, 4, 8)
GR_VECTOR_TYPES(unsigned short, ushort, 4, 8)
GR_VECTOR_TYPES(int, int, 8, 16)
GR_VECTOR_TYPES(unsigned, uint, 8, 16)
GR_VECTOR_TYPES(float, float, 8, 16)
GR_VECTOR_TYPES(double, double, 16, 16)
GR_VECTOR_TYPES(long long, longlong, 16, 16)
GR_VECTOR_TYPES(unsigned long long, ulonglong, 16, 16)
#undef GR_VECTOR_TYPES

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z)
    {
    }
};

#endif
