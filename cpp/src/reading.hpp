// Inner loops that read stored elements of any dtype as float or double. Part of kernels.cpp,
// compiled once per instruction set.
#pragma once

#include "lanes.hpp"

namespace protoseg {
namespace {

// How one stored element becomes a number, by DType.
template <DType dtype>
struct Element;
template <class Stored>
struct Plain {
  using Type = Stored;
  PROTOSEG_INLINE Quad load_quad(const float* x) { return load<Quad>(x); }
  // A register of float or double as it lies, and as many as DoubleVec has doubles.
  PROTOSEG_INLINE auto load_register(const Stored* x) { return load<Vec<Stored>>(x); }
  PROTOSEG_INLINE DoubleVec load_doubles(const Stored* x) { return load_double(x); }
  template <class Out>
  PROTOSEG_INLINE Out read(Stored x) {
    return static_cast<Out>(x);
  }
};
template <>
struct Element<DType::boolean> : Plain<std::uint8_t> {};
template <>
struct Element<DType::int8> : Plain<std::int8_t> {};
template <>
struct Element<DType::uint8> : Plain<std::uint8_t> {};
template <>
struct Element<DType::int16> : Plain<std::int16_t> {};
template <>
struct Element<DType::uint16> : Plain<std::uint16_t> {};
template <>
struct Element<DType::int32> : Plain<std::int32_t> {};
template <>
struct Element<DType::uint32> : Plain<std::uint32_t> {};
template <>
struct Element<DType::int64> : Plain<std::int64_t> {};
template <>
struct Element<DType::uint64> : Plain<std::uint64_t> {};
template <>
struct Element<DType::float32> : Plain<float> {};
template <>
struct Element<DType::float64> : Plain<double> {};
template <>
struct Element<DType::float16> {
  using Type = std::uint16_t;
  template <class Out>
  PROTOSEG_INLINE Out read(std::uint16_t x) {
    return static_cast<Out>(half_to_float(x));
  }
  PROTOSEG_INLINE Quad load_quad(const std::uint16_t* x) { return widen_four_halves(x); }
  PROTOSEG_INLINE FloatVec load_register(const std::uint16_t* x) { return widen_halves(x); }
  PROTOSEG_INLINE DoubleVec load_doubles(const std::uint16_t* x) { return halves_to_double(x); }
};
template <>
struct Element<DType::bfloat16> {
  using Type = std::uint16_t;
  template <class Out>
  PROTOSEG_INLINE Out read(std::uint16_t x) {
    return static_cast<Out>(bfloat_to_float(x));
  }
  PROTOSEG_INLINE Quad load_quad(const std::uint16_t* x) { return widen_four_bfloats(x); }
  PROTOSEG_INLINE FloatVec load_register(const std::uint16_t* x) { return widen_bfloats(x); }
  PROTOSEG_INLINE DoubleVec load_doubles(const std::uint16_t* x) { return bfloats_to_double(x); }
};

// Calls f(Element<dtype>{}) for the dtype at hand.
template <class F>
PROTOSEG_INLINE void with_element(DType dtype, F f) {
  switch (dtype) {
    case DType::boolean: return f(Element<DType::boolean>{});
    case DType::int8: return f(Element<DType::int8>{});
    case DType::uint8: return f(Element<DType::uint8>{});
    case DType::int16: return f(Element<DType::int16>{});
    case DType::uint16: return f(Element<DType::uint16>{});
    case DType::int32: return f(Element<DType::int32>{});
    case DType::uint32: return f(Element<DType::uint32>{});
    case DType::int64: return f(Element<DType::int64>{});
    case DType::uint64: return f(Element<DType::uint64>{});
    case DType::float16: return f(Element<DType::float16>{});
    case DType::bfloat16: return f(Element<DType::bfloat16>{});
    case DType::float32: return f(Element<DType::float32>{});
    case DType::float64: return f(Element<DType::float64>{});
  }
}

// The same for the dtypes of a StoredRow, and for those that kernels of T read.
template <class F>
PROTOSEG_INLINE void with_row(DType dtype, F f) {
  if (dtype == DType::float16) return f(Element<DType::float16>{});
  if (dtype == DType::bfloat16) return f(Element<DType::bfloat16>{});
  if (dtype == DType::float64) return f(Element<DType::float64>{});
  f(Element<DType::float32>{});
}
template <class T, class F>
PROTOSEG_INLINE void with_row_of(DType dtype, F f) {
  if constexpr (sizeof(T) == sizeof(double))
    f(Element<DType::float64>{});
  else if (dtype == DType::float16)
    f(Element<DType::float16>{});
  else if (dtype == DType::bfloat16)
    f(Element<DType::bfloat16>{});
  else
    f(Element<DType::float32>{});
}

template <class Out>
void read_strided(DType dtype, const void* source, std::int64_t stride, std::int64_t n, Out* out) {
  with_element(dtype, [=](auto element) {
    using E = decltype(element);
    const auto* x = static_cast<const typename E::Type*>(source);
    if (stride == 1) {
      for (std::int64_t i = 0; i < n; ++i) out[i] = E::template read<Out>(x[i]);
    } else {
      for (std::int64_t i = 0; i < n; ++i) out[i] = E::template read<Out>(x[i * stride]);
    }
  });
}

// Contiguous 16-bit floats in whole registers; the rest one by one.
template <FloatVec (*widen)(const std::uint16_t*), DType dtype>
PROTOSEG_INLINE void read_halves(const void* source, std::int64_t n, float* out) {
  const auto* x = static_cast<const std::uint16_t*>(source);
  std::int64_t i = 0;
  for (; i + width<float> <= n; i += width<float>) store(out + i, widen(x + i));
  read_strided(dtype, x + i, 1, n - i, out + i);
}

void to_float(DType dtype, const void* source, std::int64_t stride, std::int64_t n, float* out) {
  if (stride == 1 && dtype == DType::float16)
    return read_halves<widen_halves, DType::float16>(source, n, out);
  if (stride == 1 && dtype == DType::bfloat16)
    return read_halves<widen_bfloats, DType::bfloat16>(source, n, out);
  read_strided(dtype, source, stride, n, out);
}

void to_double(DType dtype, const void* source, std::int64_t stride, std::int64_t n, double* out) {
  read_strided(dtype, source, stride, n, out);
}

// Voxels turned at a time, while their rows are close by; and how many lie between what is read
// and what is fetched from memory: each is a cache line of its own.
constexpr std::int64_t turned_voxels = 16, turned_ahead = 64;

// `channels` neighbours of `here` voxels, one by one.
template <class E, class Out>
PROTOSEG_INLINE void turn(const typename E::Type* x, std::int64_t stride, std::int64_t here,
                          std::int64_t channels, Out* out, std::int64_t pitch) {
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t k = 0; k < here; ++k)
      out[c * pitch + k] = E::template read<Out>(x[k * stride + c]);
}

// Four channels of a voxel, and of the voxels four further on that share its register.
template <class E>
PROTOSEG_INLINE Quads load_quads(const typename E::Type* x, [[maybe_unused]] std::int64_t stride) {
#if defined(__AVX2__)
  return _mm256_set_m128(E::load_quad(x + 4 * stride), E::load_quad(x));
#else
  return E::load_quad(x);
#endif
}

// The same of turned_voxels voxels, four by four.
template <class E>
PROTOSEG_INLINE void turn_fours(const typename E::Type* x, std::int64_t stride,
                                std::int64_t channels, float* out, std::int64_t pitch) {
  std::int64_t c = 0;
  for (; c + 4 <= channels; c += 4)
    for (std::int64_t k = 0; k < turned_voxels; k += quad_voxels) {
      Quads q[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) q[i] = load_quads<E>(x + (k + i) * stride + c, stride);
      transpose(q);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) store(out + (c + i) * pitch + k, q[i]);
    }
  turn<E>(x + c, stride, turned_voxels, channels - c, out + c * pitch, pitch);
}

// turn_whole(x, out) takes turned_voxels voxels, of which all channels are there.
template <class E, class Out, class TurnWhole>
PROTOSEG_INLINE void read_tile_by(const typename E::Type* x, std::int64_t stride, std::int64_t n,
                                  std::int64_t channels, Out* out, std::int64_t pitch,
                                  TurnWhole turn_whole) {
  std::int64_t i = 0;
  for (; i + turned_voxels <= n; i += turned_voxels) {
    for (std::int64_t k = 0; k < turned_voxels; ++k)
      __builtin_prefetch(x + (i + k + turned_ahead) * stride);
    turn_whole(x + i * stride, out + i);
  }
  turn<E>(x + i * stride, stride, n - i, channels, out + i, pitch);
}

void tile_to_double(DType dtype, const void* source, std::int64_t stride, std::int64_t n,
                    std::int64_t channels, double* out, std::int64_t pitch) {
  with_row(dtype, [=](auto element) {
    using E = decltype(element);
    read_tile_by<E>(static_cast<const typename E::Type*>(source), stride, n, channels, out, pitch,
                    [=](const typename E::Type* x, double* to) {
                      turn<E>(x, stride, turned_voxels, channels, to, pitch);
                    });
  });
}

void tile_to_float(DType dtype, const void* source, std::int64_t stride, std::int64_t n,
                   std::int64_t channels, float* out, std::int64_t pitch) {
  with_row_of<float>(dtype, [=](auto element) {
    using E = decltype(element);
    read_tile_by<E>(static_cast<const typename E::Type*>(source), stride, n, channels, out, pitch,
                    [=](const typename E::Type* x, float* to) {
                      turn_fours<E>(x, stride, channels, to, pitch);
                    });
  });
}

}  // namespace
}  // namespace protoseg
