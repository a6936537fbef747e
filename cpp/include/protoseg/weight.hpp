// The two weights of a voxel, and the power of two that keeps them in float's comfortable range.
#pragma once

#include <cmath>

#include "protoseg/dtype.hpp"

namespace protoseg {

[[maybe_unused]] PROTOSEG_INLINE double positive_weight(double mask, double pred, double scale) {
  return scale * (mask * pred);
}
[[maybe_unused]] PROTOSEG_INLINE double negative_weight(double mask, double pred, double scale) {
  return scale * (mask * (1.0 - pred));
}

// 1 for all ordinary guides; otherwise the largest weight becomes about 1, so that no guide
// underflows or loses digits. At most 2^most.
[[maybe_unused]] PROTOSEG_INLINE double normalising_scale(double largest, int most = 1023) {
  if (!(largest > 0.0) || (largest >= 0x1p-20 && largest <= 0x1p20)) return 1.0;
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::ldexp(1.0, -exponent < most ? -exponent : most);
}

}  // namespace protoseg
