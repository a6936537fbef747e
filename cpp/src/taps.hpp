// The taps of one axis as arrays, as the inner loops read them.
#pragma once

#include <cstdint>
#include <vector>

#include "guide.hpp"
#include "protoseg/resize.hpp"

namespace protoseg {

struct AxisTaps {
  std::vector<std::int64_t> lower, upper;  // [n_out], non-decreasing
  std::vector<double> weight;              // [n_out]
};

inline AxisTaps axis_taps(const Resize& resize, const Extent& to, int slot) {
  AxisTaps taps;
  for (std::int64_t output = 0; output < to.n[slot]; ++output) {
    const Tap tap = resize_tap(output, resize.from.n[slot], to.n[slot], resize.interpolation,
                               resize.align_corners);
    taps.lower.push_back(tap.lower);
    taps.upper.push_back(tap.upper);
    taps.weight.push_back(tap.weight);
  }
  return taps;
}

}  // namespace protoseg
