// The linear operator U that resizes a map: one tap per output voxel and axis.
//
// Coordinates follow torch.nn.functional.interpolate (nearest; linear with align_corners false
// or true), evaluated in double. Axes are independent, so U is the product of its axes.
#pragma once

#include <cstdint>

#include "protoseg/dtype.hpp"

namespace protoseg {

enum class Interpolation : std::int32_t { linear, nearest };

// Output voxel o reads (1 - weight) f[lower] + weight f[upper]; its adjoint adds w(o) (1 - weight)
// to lower and w(o) weight to upper.
struct Tap {
  std::int64_t lower;
  std::int64_t upper;
  double weight;
};

// a + w (b - a) rather than (1 - w) a + w b: equal corners give exactly that value, so that a
// constant channel stays constant.
[[maybe_unused]] PROTOSEG_INLINE double lerp(double a, double b, double weight) {
  return a + weight * (b - a);
}

[[maybe_unused]] PROTOSEG_INLINE Tap resize_tap(std::int64_t output, std::int64_t n_in,
                                                std::int64_t n_out, Interpolation interpolation,
                                                bool align_corners) {
  if (n_in == n_out) return {output, output, 0.0};
  if (interpolation == Interpolation::nearest) {
    // floor(output n_in / n_out) without overflowing: whole and fractional part of n_in / n_out.
    const std::int64_t source = output * (n_in / n_out) + output * (n_in % n_out) / n_out;
    return {source, source, 0.0};
  }
  double position;
  if (align_corners) {
    const double scale =
        n_out > 1 ? static_cast<double>(n_in - 1) / static_cast<double>(n_out - 1) : 0.0;
    position = scale * static_cast<double>(output);
  } else {
    const double scale = static_cast<double>(n_in) / static_cast<double>(n_out);
    position = scale * (static_cast<double>(output) + 0.5) - 0.5;
    if (position < 0.0) position = 0.0;
  }
  std::int64_t lower = static_cast<std::int64_t>(position);
  if (lower > n_in - 1) lower = n_in - 1;
  if (lower == n_in - 1) return {lower, lower, 0.0};
  return {lower, lower + 1, position - static_cast<double>(lower)};
}

}  // namespace protoseg
