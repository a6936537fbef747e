// The derivatives of rule.hpp: what one voxel and one group of channels send back. Derived in
// docs/gradients.md, in the same letters. A new metric is one more case of each function.
#pragma once

#include "protoseg/rule.hpp"

namespace protoseg {

// The direct part of dL/dv_c is along n_c - shrink v_c, with n_c of ChannelGradient.
struct VoxelGradient {
  double along;
  double shrink;
};

// The margin of a single channel is a step function for the cosine metric.
[[maybe_unused]] PROTOSEG_INLINE bool has_gradient(Metric metric, std::int64_t group_channels) {
  return metric == Metric::euclidean || group_channels > 1;
}

// h = dL/dM of a voxel with that margin; `square` is |v|^2. Exactly 0 where h is, even if the rest
// is NaN: what a loss leaves out sends nothing back.
[[maybe_unused]] PROTOSEG_INLINE VoxelGradient voxel_gradient(double h, double margin,
                                                              double square, Metric metric,
                                                              double temperature) {
  if (metric == Metric::euclidean || h == 0.0) return {h, 0.0};
  if (square == 0.0) return {0.0, 0.0};  // the cosine with a zero vector is 0 by definition
  return {temperature * h / std::sqrt(square), h * margin / square};
}

struct ChannelGradient {
  double direction;  // n_c
  double positive;   // A_c = dL/da_c
  double negative;   // B_c = dL/db_c
};

// A group of channels at its prototypes p [channels]; sum [channels]: sum_x along(x) (v_c(x) -
// reference_c), total: sum_x along(x). `gradient` [channels] is written.
[[maybe_unused]] PROTOSEG_INLINE void group_gradient(const ChannelPrototypes* p,
                                                     std::int64_t channels, Metric metric,
                                                     const double* sum, double total,
                                                     ChannelGradient* gradient) {
  if (metric == Metric::euclidean) {
    for (std::int64_t c = 0; c < channels; ++c)
      gradient[c] = {2.0 * (p[c].positive - p[c].negative), 2.0 * (sum[c] - p[c].positive * total),
                     -2.0 * (sum[c] - p[c].negative * total)};
    return;
  }
  double a_square = 0.0, b_square = 0.0, a_dot = 0.0, b_dot = 0.0;
  for (std::int64_t c = 0; c < channels; ++c) {
    const double a = p[c].reference + p[c].positive, b = p[c].reference + p[c].negative;
    const double f = sum[c] + p[c].reference * total;
    a_square += a * a;
    b_square += b * b;
    a_dot += a * f;
    b_dot += b * f;
  }
  const double a_scale = a_square > 0.0 ? 1.0 / std::sqrt(a_square) : 0.0;
  const double b_scale = b_square > 0.0 ? 1.0 / std::sqrt(b_square) : 0.0;
  for (std::int64_t c = 0; c < channels; ++c) {
    const double a = (p[c].reference + p[c].positive) * a_scale;
    const double b = (p[c].reference + p[c].negative) * b_scale;
    const double f = sum[c] + p[c].reference * total;
    gradient[c] = {a - b, (f - a * (a_dot * a_scale)) * a_scale,
                   -(f - b * (b_dot * b_scale)) * b_scale};
  }
}

}  // namespace protoseg
