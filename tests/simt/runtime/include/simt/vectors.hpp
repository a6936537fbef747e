// CUDA's vector types. A copy is one access of the whole vector, as the hardware has it, even
// where the compiler would rather copy member by member: hence the copy operations.
#pragma once

#include <cstdint>

namespace simt::detail {

template <int bytes>
struct Whole;
template <>
struct Whole<2> {
  typedef std::uint16_t type __attribute__((may_alias));
};
template <>
struct Whole<4> {
  typedef std::uint32_t type __attribute__((may_alias));
};
template <>
struct Whole<8> {
  typedef std::uint64_t type __attribute__((may_alias));
};
template <>
struct Whole<16> {
  typedef std::uint64_t type __attribute__((may_alias, vector_size(16)));
};

template <class T>
inline __attribute__((always_inline)) void copy_whole(T* to, const T* from) {
  using W = typename Whole<sizeof(T)>::type;
  *reinterpret_cast<W*>(to) = *reinterpret_cast<const W*>(from);
}

}  // namespace simt::detail

#define SIMT_COPY_WHOLE(name)                                         \
  name() = default;                                                   \
  __attribute__((always_inline)) name(const name& other) {            \
    simt::detail::copy_whole(this, &other);                           \
  }                                                                   \
  __attribute__((always_inline)) name& operator=(const name& other) { \
    simt::detail::copy_whole(this, &other);                           \
    return *this;                                                     \
  }

#define SIMT_VECTOR(T, base)                                 \
  struct alignas(2 * sizeof(T)) base##2 {                    \
    T x, y;                                                  \
    SIMT_COPY_WHOLE(base##2)                                 \
    constexpr base##2(T x_, T y_) : x(x_), y(y_) {}          \
  };                                                         \
  struct base##3 { T x, y, z; };                             \
  inline base##2 make_##base##2(T x, T y) { return {x, y}; } \
  inline base##3 make_##base##3(T x, T y, T z) { return {x, y, z}; }

#define SIMT_VECTOR4(T, base)                                                 \
  struct alignas(4 * sizeof(T)) base##4 {                                     \
    T x, y, z, w;                                                             \
    SIMT_COPY_WHOLE(base##4)                                                  \
    constexpr base##4(T x_, T y_, T z_, T w_) : x(x_), y(y_), z(z_), w(w_) {} \
  };                                                                          \
  inline base##4 make_##base##4(T x, T y, T z, T w) { return {x, y, z, w}; }

// clang-format off
SIMT_VECTOR(signed char, char)    SIMT_VECTOR4(signed char, char)
SIMT_VECTOR(unsigned char, uchar) SIMT_VECTOR4(unsigned char, uchar)
SIMT_VECTOR(short, short)         SIMT_VECTOR4(short, short)
SIMT_VECTOR(unsigned short, ushort) SIMT_VECTOR4(unsigned short, ushort)
SIMT_VECTOR(int, int)             SIMT_VECTOR4(int, int)
SIMT_VECTOR(unsigned, uint)       SIMT_VECTOR4(unsigned, uint)
SIMT_VECTOR(float, float)         SIMT_VECTOR4(float, float)
SIMT_VECTOR(long long, longlong)
SIMT_VECTOR(unsigned long long, ulonglong)
SIMT_VECTOR(double, double)
// clang-format on

#undef SIMT_VECTOR
#undef SIMT_VECTOR4

                        struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
