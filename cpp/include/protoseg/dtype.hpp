// Element types, and the macro for functions that host, device and every instruction set share.
#pragma once

#include <cstdint>

// Shared arithmetic is compiled several times with different instruction sets (and by nvcc). A
// plain `inline` function would be merged by the linker into one copy, possibly the AVX-512 one,
// for every caller: internal linkage and forced inlining keep each copy where it was compiled.
#if defined(__CUDACC__)
#define PROTOSEG_INLINE static __host__ __device__ __forceinline__
#else
#define PROTOSEG_INLINE static inline __attribute__((always_inline))
#endif

namespace protoseg {

enum class DType : std::int32_t {
  boolean,
  int8,
  uint8,
  int16,
  uint16,
  int32,
  uint32,
  int64,
  uint64,
  float16,
  bfloat16,
  float32,
  float64,
};

[[maybe_unused]] PROTOSEG_INLINE constexpr int item_size(DType dtype) {
  switch (dtype) {
    case DType::boolean:
    case DType::int8:
    case DType::uint8: return 1;
    case DType::int16:
    case DType::uint16:
    case DType::float16:
    case DType::bfloat16: return 2;
    case DType::int32:
    case DType::uint32:
    case DType::float32: return 4;
    case DType::int64:
    case DType::uint64:
    case DType::float64: return 8;
  }
  return 0;
}

[[maybe_unused]] PROTOSEG_INLINE constexpr bool is_floating(DType dtype) {
  return dtype >= DType::float16;
}

}  // namespace protoseg
