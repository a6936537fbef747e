// A divisor known before the launch: on the device, quotients by multiplication instead of the
// subroutine that 64-bit division is there.
#pragma once

#include <cstdint>

#include "platform.cuh"

namespace protoseg::cuda {

class Divisor {
 public:
  __host__ __device__ constexpr Divisor(std::int64_t value = 1)
      : value_(value), reciprocal_(~std::uint64_t{0} / static_cast<std::uint64_t>(value)) {}
  __host__ __device__ constexpr operator std::int64_t() const { return value_; }

  // 0 <= a: a reciprocal / 2^64 is above a / value - 1, so that the floor is at most 1 too small.
  friend __host__ __device__ __forceinline__ std::int64_t operator/(std::int64_t a,
                                                                    const Divisor& d) {
#if defined(__CUDACC__) && !defined(__CUDA_ARCH__)
    return a / d.value_;
#else
    const auto guess =
        static_cast<std::int64_t>(__umul64hi(static_cast<unsigned long long>(a), d.reciprocal_));
    return a - guess * d.value_ >= d.value_ ? guess + 1 : guess;
#endif
  }
  friend __host__ __device__ __forceinline__ std::int64_t operator%(std::int64_t a,
                                                                    const Divisor& d) {
    return a - a / d * d.value_;
  }

 private:
  std::int64_t value_;
  std::uint64_t reciprocal_;
};

}  // namespace protoseg::cuda
