// Inner loops of the backward pass. Part of kernels.cpp, compiled once per instruction set.
#pragma once

#include "protoseg/rule_gradient.hpp"
#include "reading.hpp"

namespace protoseg {
namespace {

// Two registers of voxels at a time, while the rows pass by.
template <class T>
void combine(const T* const* rows, const T* weight, std::int64_t count, std::int64_t n, T* out) {
  constexpr int step = width<T>, registers = 2;
  std::int64_t i = 0;
  for (; i + registers * step <= n; i += registers * step) {
    Vec<T> sum[registers] = {};
    for (std::int64_t k = 0; k < count; ++k)
      for (int r = 0; r < registers; ++r)
        sum[r] += weight[k] * load<Vec<T>>(rows[k] + i + r * step);
    for (int r = 0; r < registers; ++r) store(out + i + r * step, sum[r]);
  }
  for (; i < n; ++i) {
    T sum = T{0};
    for (std::int64_t k = 0; k < count; ++k) sum += weight[k] * rows[k][i];
    out[i] = sum;
  }
}

template <class T>
void shrink(StoredRow f, const T* factor, std::int64_t n, T* out) {
  with_row_of<T>(f.dtype, [=](auto element) {
    using E = decltype(element);
    const auto* x = static_cast<const typename E::Type*>(f.data);
    for (std::int64_t i = 0; i < n; ++i) out[i] -= shrunk(factor[i], E::template read<T>(x[i]));
  });
}

// ---- writing -------------------------------------------------------------------------------

// Round to nearest, ties to even, as every processor's own conversion does.
PROTOSEG_INLINE std::uint16_t float_to_half(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  const std::uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);   // NaN
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // too large
  if (magnitude < 0x38800000u) {  // subnormal: the sum has the half's last bit as its own last bit
    float rounded;
    __builtin_memcpy(&rounded, &magnitude, sizeof(rounded));
    rounded += 0.5f;
    __builtin_memcpy(&bits, &rounded, sizeof(bits));
    return static_cast<std::uint16_t>(sign | (bits - 0x3f000000u));
  }
  const std::uint32_t half = magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u);
  return static_cast<std::uint16_t>(sign | half >> 13);
}

PROTOSEG_INLINE std::uint16_t float_to_bfloat(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

template <class Stored, class T, class Convert>
PROTOSEG_INLINE void write_as(const T* x, std::int64_t n, void* target, std::int64_t stride,
                              Convert convert) {
  auto* out = static_cast<Stored*>(target);
  if (stride == 1)
    for (std::int64_t i = 0; i < n; ++i) out[i] = convert(x[i]);
  else
    for (std::int64_t i = 0; i < n; ++i) out[i * stride] = convert(x[i]);
}

template <class T>
void write(const T* x, std::int64_t n, DType dtype, void* target, std::int64_t stride) {
  if (dtype == DType::float16)
    write_as<std::uint16_t>(x, n, target, stride,
                            [](T v) { return float_to_half(static_cast<float>(v)); });
  else if (dtype == DType::bfloat16)
    write_as<std::uint16_t>(x, n, target, stride,
                            [](T v) { return float_to_bfloat(static_cast<float>(v)); });
  else if (dtype == DType::float32)
    write_as<float>(x, n, target, stride, [](T v) { return static_cast<float>(v); });
  else
    write_as<double>(x, n, target, stride, [](T v) { return static_cast<double>(v); });
}

}  // namespace
}  // namespace protoseg
