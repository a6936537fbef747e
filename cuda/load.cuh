// Features as they lie in memory, and how elements of any dtype become numbers.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "divisor.hpp"
#include "platform.cuh"
#include "protoseg/dtype.hpp"
#include "shape.cuh"

namespace protoseg::cuda {

// float16 and bfloat16 as stored.
struct Half {
  std::uint16_t bits;
};
struct Bfloat {
  std::uint16_t bits;
};

// The type that features of type T are summed and compared in.
template <class T>
using SumOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

__device__ __forceinline__ float widen(Half x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ __forceinline__ float widen(Bfloat x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }

// One element of any dtype. For what is read once per guide, where a switch costs nothing.
__device__ __forceinline__ double read_element(DType dtype, const void* data, std::int64_t at) {
  switch (dtype) {
    case DType::boolean:
    case DType::uint8: return static_cast<const std::uint8_t*>(data)[at];
    case DType::int8: return static_cast<const std::int8_t*>(data)[at];
    case DType::int16: return static_cast<const std::int16_t*>(data)[at];
    case DType::uint16: return static_cast<const std::uint16_t*>(data)[at];
    case DType::int32: return static_cast<const std::int32_t*>(data)[at];
    case DType::uint32: return static_cast<const std::uint32_t*>(data)[at];
    case DType::int64: return static_cast<double>(static_cast<const long long*>(data)[at]);
    case DType::uint64:
      return static_cast<double>(static_cast<const unsigned long long*>(data)[at]);
    case DType::float16: return widen(static_cast<const Half*>(data)[at]);
    case DType::bfloat16: return widen(static_cast<const Bfloat*>(data)[at]);
    case DType::float32: return static_cast<const float*>(data)[at];
    case DType::float64: return static_cast<const double*>(data)[at];
  }
  return 0.0;
}

// Spatial extents as (z, y, x): (1, 1, L), (1, H, W) or (D, H, W).
struct Extent {
  std::int64_t z = 1;
  Divisor y = 1, x = 1;
  __host__ __device__ std::int64_t voxels() const { return z * y * x; }
  __host__ __device__ bool operator==(const Extent& other) const {
    return z == other.z && y == other.y && x == other.x;
  }
};

enum class Layout : std::int32_t {
  rows,           // the voxels of a plane are neighbours
  channels_last,  // the channels of a voxel are neighbours
  strided,
};

// A tensor (N, C, *size) on the device; strides count elements.
struct Tensor {
  const void* data = nullptr;
  DType dtype = DType::float32;
  Layout layout = Layout::rows;
  Extent extent;
  std::int64_t image_stride = 0, channel_stride = 0;
  std::int64_t z_stride = 0, y_stride = 0, x_stride = 0;

  __device__ std::int64_t plane(std::int64_t image, std::int64_t channel) const {
    return image * image_stride + channel * channel_stride;
  }
  __device__ std::int64_t offset(std::int64_t voxel) const {
    if (layout == Layout::rows) return voxel;
    const std::int64_t line = voxel / extent.x, x = voxel - line * extent.x;
    const std::int64_t z = line / extent.y, y = line - z * extent.y;
    return z * z_stride + y * y_stride + x * x_stride;
  }
  template <class T>
  __device__ T at(std::int64_t image, std::int64_t channel, std::int64_t voxel) const {
    return static_cast<const T*>(data)[plane(image, channel) + offset(voxel)];
  }
  __device__ double value(std::int64_t image, std::int64_t channel, std::int64_t voxel) const {
    return read_element(dtype, data, plane(image, channel) + offset(voxel));
  }
};

// ---- sixteen bytes at a time -------------------------------------------------------------------

template <class T>
constexpr int vector_elements = 16 / static_cast<int>(sizeof(T));

// Elements by which a pointer misses a multiple of 16 bytes.
template <class T>
__device__ __forceinline__ int skew_of(const T* pointer) {
  return static_cast<int>(reinterpret_cast<std::uintptr_t>(pointer) % 16 / sizeof(T));
}

// The 16 bytes that begin `bytes` (even, below 16) behind the first of `low`.
__device__ __forceinline__ uint4 shifted(const uint4& low, const uint4& high, int bytes) {
  unsigned w[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  if (bytes & 8)
#pragma unroll
    for (int k = 0; k < 6; ++k) w[k] = w[k + 2];
  if (bytes & 4)
#pragma unroll
    for (int k = 0; k < 5; ++k) w[k] = w[k + 1];
  if (bytes & 2)
#pragma unroll
    for (int k = 0; k < 4; ++k) w[k] = w[k] >> 16 | w[k + 1] << 16;
  return make_uint4(w[0], w[1], w[2], w[3]);
}

// Elements [first, first + vector_elements) of source [n], zero beyond n. Where the pointer is not
// aligned, from the two aligned vectors that hold them; at both ends element by element, so that
// nothing outside of [0, n) is touched.
template <class T>
__device__ __forceinline__ uint4 load_vector(const T* source, int skew, std::int64_t first,
                                             std::int64_t n) {
  constexpr int count = vector_elements<T>;
  if (skew == 0 && first + count <= n) return *reinterpret_cast<const uint4*>(source + first);
  if (skew != 0 && first >= skew && first - skew + 2 * count <= n) {
    const uint4* aligned = reinterpret_cast<const uint4*>(source + first - skew);
    return shifted(aligned[0], aligned[1], skew * static_cast<int>(sizeof(T)));
  }
  T element[count] = {};
#pragma unroll
  for (int k = 0; k < count; ++k)
    if (first + k < n) element[k] = source[first + k];
  uint4 vector;
  memcpy(&vector, element, sizeof(vector));
  return vector;
}

// `count` neighbouring elements from an address aligned to all of them.
template <class T, int count>
__device__ __forceinline__ void load_aligned(const T* source, T (&out)[count]) {
  using Word = std::conditional_t<sizeof(T) * count % 16 == 0, uint4, uint2>;
  constexpr int words = sizeof(T) * count / sizeof(Word);
  static_assert(words * sizeof(Word) == sizeof(T) * count);
  Word word[words];
#pragma unroll
  for (int k = 0; k < words; ++k) word[k] = reinterpret_cast<const Word*>(source)[k];
  memcpy(out, word, sizeof(out));
}

// The `count` voxels of a row from `first` on, zero beyond n; whole where the address allows.
template <class T, int count>
__device__ __forceinline__ void load_step(const T* row, std::int64_t first, std::int64_t n,
                                          T (&out)[count]) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(row + first) % (sizeof(T) * count) == 0;
  if (aligned && first + count <= n) return load_aligned(row + first, out);
#pragma unroll
  for (int k = 0; k < count; ++k) out[k] = first + k < n ? row[first + k] : T{};
}

// The `count` voxels of a row from `first` on, as far as there are n; whole where the address
// allows.
template <class T, int count>
__device__ __forceinline__ void store_step(T* row, std::int64_t first, std::int64_t n,
                                           const T (&value)[count]) {
  using Word = std::conditional_t<sizeof(T) * count % 16 == 0, uint4,
                                  std::conditional_t<sizeof(T) * count == 8, uint2, unsigned>>;
  constexpr int words = sizeof(T) * count / sizeof(Word);
  if constexpr (words > 0) {
    const bool aligned = reinterpret_cast<std::uintptr_t>(row + first) % sizeof(Word) == 0;
    if (aligned && first + count <= n) {
      Word word[words];
      memcpy(word, value, sizeof(word));
#pragma unroll
      for (int k = 0; k < words; ++k) reinterpret_cast<Word*>(row + first)[k] = word[k];
      return;
    }
  }
#pragma unroll
  for (int k = 0; k < count; ++k)
    if (first + k < n) row[first + k] = value[k];
}

}  // namespace protoseg::cuda
