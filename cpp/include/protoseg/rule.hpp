// The definition of one voxel's decision: prototypes -> decision boundary -> margin -> foreground.
//
// Both metrics are linear classifiers: margin(x) = scale (sum_c weight_c (U f_c)(x) - threshold),
// divided by the norm of the features for the cosine metric. A new metric is one more case of
// `group_boundary` and `unit_boundary`; kernels and drivers only know weights and a threshold.
//
// Source: He et al., "Segmentation ability map", Medical Image Analysis 2023 (arXiv:2212.09206),
// and the authors' module, whose two-way softmax is sigmoid(margin).
#pragma once

#include <cmath>
#include <cstdint>

#include "protoseg/dtype.hpp"

namespace protoseg {

enum class Metric : std::int32_t { euclidean, cosine };

// Prototypes of one channel and target, relative to a reference value of the channel (its first
// voxel), so that a constant channel has positive == negative == 0 exactly.
struct ChannelPrototypes {
  double reference;
  double positive;
  double negative;
};

struct Boundary {
  double threshold;  // foreground iff sum_c weight_c f_c > threshold
  double scale;      // margin = scale (sum - threshold), for cosine divided by the norm
  bool defined;      // false: score NaN, map all background, probability NaN
};

// A tie is background, as the authors' argmax has it.
[[maybe_unused]] PROTOSEG_INLINE bool is_foreground(double projection, double threshold) {
  return projection > threshold;
}

[[maybe_unused]] PROTOSEG_INLINE bool is_defined(const ChannelPrototypes& p) {
  return std::isfinite(p.reference) && std::isfinite(p.positive) && std::isfinite(p.negative);
}

[[maybe_unused]] PROTOSEG_INLINE double sign_of(double x) { return (x > 0.0) - (x < 0.0); }

// One channel: the weight is -1, 0 or 1, so that the decision is a plain comparison of f.
//   euclidean: margin = 2 f (a - b) - (a^2 - b^2) = 2 (a - b) (f - (a + b) / 2)
//   cosine:    margin = tau sign(f) (sign(a) - sign(b))
[[maybe_unused]] PROTOSEG_INLINE Boundary unit_boundary(const ChannelPrototypes& p, Metric metric,
                                                        double temperature, double* weight) {
  *weight = 0.0;
  if (!is_defined(p)) return {0.0, 0.0, false};
  if (metric == Metric::cosine) {
    const double difference = sign_of(p.reference + p.positive) - sign_of(p.reference + p.negative);
    *weight = sign_of(difference);
    return {0.0, temperature * std::fabs(difference), true};
  }
  *weight = sign_of(p.positive - p.negative);
  const double midpoint = p.reference + (p.positive + p.negative) / 2.0;
  return {*weight * midpoint, 2.0 * std::fabs(p.positive - p.negative), true};
}

// The comparison that decides f against a boundary of one channel: `above`, f > threshold;
// otherwise f < threshold. Exact for every f of type T.
template <class T>
struct UnitThreshold {
  bool anything;  // false: background everywhere (equal or undefined prototypes)
  bool above;
  T threshold;
};

PROTOSEG_INLINE float next_towards(float x, float y) { return ::nextafterf(x, y); }
PROTOSEG_INLINE double next_towards(double x, double y) { return ::nextafter(x, y); }

template <class T>
PROTOSEG_INLINE UnitThreshold<T> unit_threshold(double weight, const Boundary& boundary) {
  if (!boundary.defined || weight == 0.0) return {false, true, T{0}};
  const bool above = weight > 0.0;
  const double exact = weight * boundary.threshold;
  // f > exact is f > t for the largest T not above exact; below, mirrored.
  T t = static_cast<T>(exact);
  const T limit = static_cast<T>(above ? -HUGE_VAL : HUGE_VAL);
  if (above ? static_cast<double>(t) > exact : static_cast<double>(t) < exact)
    t = next_towards(t, limit);
  return {true, above, t};
}

// What a group's boundary needs to know of all its channels together. Parts add up.
struct GroupSums {
  double threshold = 0.0, positive_square = 0.0, negative_square = 0.0;
  bool defined = true;
};

[[maybe_unused]] PROTOSEG_INLINE void add_channel(GroupSums* sums, const ChannelPrototypes& p) {
  const double a = p.reference + p.positive, b = p.reference + p.negative;
  sums->defined = sums->defined && is_defined(p);
  sums->positive_square += a * a;
  sums->negative_square += b * b;
  sums->threshold += (p.positive - p.negative) * (p.reference + (p.positive + p.negative) / 2.0);
}

// A group of channels.
//   euclidean: margin = |f - b|^2 - |f - a|^2 = 2 sum_c (a_c - b_c) (f_c - (a_c + b_c) / 2)
//   cosine:    margin = tau (f.a/|a| - f.b/|b|) / |f|; the cosine with a zero vector is 0
[[maybe_unused]] PROTOSEG_INLINE Boundary group_boundary(const GroupSums& sums, Metric metric,
                                                         double temperature) {
  if (!sums.defined || metric == Metric::euclidean) return {sums.threshold, 2.0, sums.defined};
  return {0.0, temperature, true};
}

[[maybe_unused]] PROTOSEG_INLINE double channel_weight(const GroupSums& sums,
                                                       const ChannelPrototypes& p, Metric metric) {
  if (!sums.defined || metric == Metric::euclidean) return p.positive - p.negative;
  const double a = p.reference + p.positive, b = p.reference + p.negative;
  const double a_norm = std::sqrt(sums.positive_square);
  const double b_norm = std::sqrt(sums.negative_square);
  return (a_norm > 0.0 ? a / a_norm : 0.0) - (b_norm > 0.0 ? b / b_norm : 0.0);
}

// The same for channels in a row; `weights` [channels] is written.
[[maybe_unused]] PROTOSEG_INLINE Boundary group_boundary(const ChannelPrototypes* p,
                                                         std::int64_t channels, Metric metric,
                                                         double temperature, double* weights) {
  if (channels == 1) return unit_boundary(*p, metric, temperature, weights);
  GroupSums sums;
  for (std::int64_t c = 0; c < channels; ++c) add_channel(&sums, p[c]);
  for (std::int64_t c = 0; c < channels; ++c) weights[c] = channel_weight(sums, p[c], metric);
  return group_boundary(sums, metric, temperature);
}

// Whether `margin` reads the squared norm of the features.
[[maybe_unused]] PROTOSEG_INLINE bool needs_square(Metric metric) {
  return metric == Metric::cosine;
}

// `square` is the squared norm of the features at the voxel, if needed.
[[maybe_unused]] PROTOSEG_INLINE double margin(double projection, double square, Metric metric,
                                               const Boundary& boundary) {
  if (metric == Metric::euclidean) return boundary.scale * (projection - boundary.threshold);
  return square > 0.0 ? boundary.scale * projection / std::sqrt(square) : 0.0;
}

// Numerically stable sigmoid: the second entry of softmax([-|f - b|^2, -|f - a|^2]).
[[maybe_unused]] PROTOSEG_INLINE double probability_of(double margin) {
  const double e = std::exp(-std::fabs(margin));
  return (margin >= 0.0 ? 1.0 : e) / (1.0 + e);
}

}  // namespace protoseg
