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

// What the gradients of a group's prototypes need to know of all its channels together. Parts add
// up.
struct PrototypeSums {
  double a_square = 0.0, b_square = 0.0, a_dot = 0.0, b_dot = 0.0;
};

// sum: sum_x along(x) (v_c(x) - reference_c), total: sum_x along(x).
[[maybe_unused]] PROTOSEG_INLINE void add_channel(PrototypeSums* sums, const ChannelPrototypes& p,
                                                  double sum, double total) {
  const double a = p.reference + p.positive, b = p.reference + p.negative;
  const double f = sum + p.reference * total;
  sums->a_square += a * a;
  sums->b_square += b * b;
  sums->a_dot += a * f;
  sums->b_dot += b * f;
}

// `sums` is looked at for the cosine metric only.
[[maybe_unused]] PROTOSEG_INLINE ChannelGradient channel_gradient(const PrototypeSums& sums,
                                                                  const ChannelPrototypes& p,
                                                                  Metric metric, double sum,
                                                                  double total) {
  if (metric == Metric::euclidean)
    return {2.0 * (p.positive - p.negative), 2.0 * (sum - p.positive * total),
            -2.0 * (sum - p.negative * total)};
  const double a_scale = sums.a_square > 0.0 ? 1.0 / std::sqrt(sums.a_square) : 0.0;
  const double b_scale = sums.b_square > 0.0 ? 1.0 / std::sqrt(sums.b_square) : 0.0;
  const double a = (p.reference + p.positive) * a_scale;
  const double b = (p.reference + p.negative) * b_scale;
  const double f = sum + p.reference * total;
  return {a - b, (f - a * (sums.a_dot * a_scale)) * a_scale,
          -(f - b * (sums.b_dot * b_scale)) * b_scale};
}

// A group of channels at its prototypes p [channels], with the sums [channels] and the total above;
// `gradient` [channels] is written.
[[maybe_unused]] PROTOSEG_INLINE void group_gradient(const ChannelPrototypes* p,
                                                     std::int64_t channels, Metric metric,
                                                     const double* sum, double total,
                                                     ChannelGradient* gradient) {
  PrototypeSums sums;
  for (std::int64_t c = 0; metric != Metric::euclidean && c < channels; ++c)
    add_channel(&sums, p[c], sum[c], total);
  for (std::int64_t c = 0; c < channels; ++c)
    gradient[c] = channel_gradient(sums, p[c], metric, sum[c], total);
}

// What a voxel's features send back to themselves through their norm. Where nothing comes down, not
// even 0 times NaN does.
template <class T>
PROTOSEG_INLINE T shrunk(T shrink, T value) {
  return shrink == T{0} ? T{0} : shrink * value;
}

// A voxel's guide, given q+ and q-: dL/dp from their difference, and what a target adds to dL/dm.
[[maybe_unused]] PROTOSEG_INLINE double pred_gradient(double mask, double difference) {
  return mask * difference;
}
[[maybe_unused]] PROTOSEG_INLINE double mask_gradient(double pred, double positive,
                                                      double negative) {
  return pred * positive + (1.0 - pred) * negative;
}

}  // namespace protoseg
