// From sums to decisions: prototypes, boundaries, thresholds. The formulas are those of rule.hpp.
#pragma once

#include <cstdint>

#include "load.cuh"
#include "protoseg/rule.hpp"

namespace protoseg::cuda {

// Partial sums of units, [units from `first_unit` on, segments, T, 2], and what turns them into
// prototypes; or the prototypes that the caller gives, for which nothing is summed.
struct PartialSums {
  const double* sums = nullptr;
  const double* total = nullptr;  // [N, T, 2], sums of the weights
  Tensor features;
  std::int64_t first_unit = 0;
  Divisor channels, targets;
  std::int64_t segments = 0;                              // none if prototypes are given
  const double *positive = nullptr, *negative = nullptr;  // [N, T, C] each; null: not given
};

// `sum` [2]: over all segments.
__device__ __forceinline__ ChannelPrototypes make_prototypes(double reference, const double* sum,
                                                             const double* total) {
  return {reference, sum[0] / total[0], sum[1] / total[1]};
}

// Segments in their order.
__device__ __forceinline__ ChannelPrototypes averages_of(const PartialSums& p, std::int64_t image,
                                                         std::int64_t channel,
                                                         std::int64_t target) {
  const std::int64_t unit = image * p.channels + channel - p.first_unit;
  const double* at = p.sums + (unit * p.segments * p.targets + target) * 2;
  double sum[2] = {0.0, 0.0};
#pragma unroll 8
  for (std::int64_t segment = 0; segment < p.segments; ++segment, at += 2 * p.targets) {
    sum[0] += at[0];
    sum[1] += at[1];
  }
  return make_prototypes(p.features.value(image, channel, 0), sum,
                         p.total + (image * p.targets + target) * 2);
}

// Those given, or the averages, which are of no segments then. (To return either of two calls makes
// nvcc 13.0 crash for sm_100 and later.)
__device__ __forceinline__ ChannelPrototypes prototypes_of(const PartialSums& p, std::int64_t image,
                                                           std::int64_t channel,
                                                           std::int64_t target) {
  ChannelPrototypes found = averages_of(p, image, channel, target);
  if (p.positive != nullptr) {
    const std::int64_t plane = image * p.targets + target, at = plane * p.channels + channel;
    // 0, but of an invalid guide NaN: its maps are undefined wherever they are drawn.
    found = {0.0 * p.total[2 * plane], p.positive[at], p.negative[at]};
  }
  return found;
}

// What maps are compared with: packed bits, and what is known of them beforehand. `which`: 0 is
// the target, 1 the output.
struct References {
  const unsigned* valid = nullptr;            // [N, words]: mask > 0
  const unsigned* actual[2] = {};             // [N, T, words] each: and mask > 0
  std::int64_t words = 0;                     // of a plane
  const std::int64_t* voxel_count = nullptr;  // [N]
  const std::int64_t* actual_count[2] = {};   // [N, T] each
};

// Where counts go; null members are not asked for. tp, predicted, actual, defined [N, G, T].
struct CountOutputs {
  std::int64_t* tp[2] = {};
  std::int64_t* predicted[2] = {};
  std::int64_t* actual[2] = {};
  std::int64_t* voxels[2] = {};
  std::uint8_t* defined[2] = {};
};

// All that does not depend on the map: of group `at` of [N, G, T].
__device__ __forceinline__ void write_known(const CountOutputs& out, const References& references,
                                            std::int64_t at, std::int64_t image,
                                            std::int64_t target, std::int64_t targets,
                                            bool defined) {
#pragma unroll
  for (int which = 0; which < 2; ++which) {
    if (out.tp[which] == nullptr) continue;
    out.actual[which][at] = references.actual_count[which][image * targets + target];
    out.defined[which][at] = defined;
  }
}

struct UnitBoundaryParams {
  PartialSums sums;
  std::int64_t units;  // from sums.first_unit on
  Metric metric;
  double temperature;
  UnitThreshold<double>* threshold;  // [units, T]; of double for features that are resized
  bool exact_in_float;               // thresholds for comparisons in float
  CountOutputs out;
  References references;
};

// The threshold of one unit and target, in a type that holds that of floats too.
__device__ __forceinline__ UnitThreshold<double> decide_unit(const ChannelPrototypes& prototypes,
                                                             Metric metric, double temperature,
                                                             bool in_float, Boundary* boundary) {
  double weight;
  *boundary = unit_boundary(prototypes, metric, temperature, &weight);
  if (!in_float) return unit_threshold<double>(weight, *boundary);
  const UnitThreshold<float> narrow = unit_threshold<float>(weight, *boundary);
  return {narrow.anything, narrow.above, static_cast<double>(narrow.threshold)};
}

// One thread per unit and target.
template <class = void>
__global__ void __launch_bounds__(threads) unit_boundary_kernel(UnitBoundaryParams p) {
  const Divisor targets = p.sums.targets;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(threads) + threadIdx.x;
       i < p.units * targets; i += static_cast<std::int64_t>(gridDim.x) * threads) {
    const std::int64_t unit = p.sums.first_unit + i / targets, target = i % targets;
    const std::int64_t image = unit / p.sums.channels;
    Boundary boundary;
    p.threshold[i] =
        decide_unit(prototypes_of(p.sums, image, unit - image * p.sums.channels, target), p.metric,
                    p.temperature, p.exact_in_float, &boundary);
    write_known(p.out, p.references, unit * targets + target, image, target, targets,
                boundary.defined);
  }
}

struct GroupBoundaryParams {
  PartialSums sums;
  std::int64_t first_group, groups_total;  // [first, first + total) of all N x G
  Divisor groups;
  std::int64_t group_channels;
  Metric metric;
  double temperature;
  ChannelPrototypes* prototypes;     // [groups, T, group_channels], scratch
  double* weight;                    // the same shape
  Boundary* boundary;                // [groups, T]
  UnitThreshold<double>* threshold;  // [groups, T], the same for maps that are resized
  CountOutputs out;
  References references;
};

// Over all threads of a block, in every thread.
__device__ inline GroupSums block_sum(const GroupSums& mine) {
  double part[4] = {mine.threshold, mine.positive_square, mine.negative_square,
                    mine.defined ? 0.0 : 1.0};
  block_sums(part);
  GroupSums sums;
  sums.threshold = part[0];
  sums.positive_square = part[1];
  sums.negative_square = part[2];
  sums.defined = part[3] == 0.0;
  return sums;
}

// One block per group and target.
template <class = void>
__global__ void __launch_bounds__(threads) group_boundary_kernel(GroupBoundaryParams p) {
  const Divisor targets = p.sums.targets;
  const std::int64_t channels = p.group_channels;
  for (std::int64_t i = blockIdx.x; i < p.groups_total * targets; i += gridDim.x) {
    const std::int64_t group = p.first_group + i / targets, target = i % targets;
    const std::int64_t image = group / p.groups, first = group % p.groups * channels;
    ChannelPrototypes* prototypes = p.prototypes + i * channels;
    GroupSums mine;
    for (std::int64_t c = threadIdx.x; c < channels; c += threads) {
      prototypes[c] = prototypes_of(p.sums, image, first + c, target);
      add_channel(&mine, prototypes[c]);
    }
    const GroupSums sums = block_sum(mine);
    Boundary boundary = group_boundary(sums, p.metric, p.temperature);
    for (std::int64_t c = threadIdx.x; c < channels; c += threads) {
      double* weight = p.weight + i * channels + c;
      if (channels == 1)
        boundary = unit_boundary(prototypes[c], p.metric, p.temperature, weight);
      else
        *weight = channel_weight(sums, prototypes[c], p.metric);
    }
    if (threadIdx.x != 0) continue;
    p.boundary[i] = boundary;
    p.threshold[i] = {boundary.defined, true, boundary.threshold};
    write_known(p.out, p.references, group * targets + target, image, target, targets,
                boundary.defined);
  }
}

struct PrototypesParams {
  PartialSums sums;
  std::int64_t units;
  const double* scale;                        // [N, T, 2] of the weights
  double *positive, *negative;                // [N, T, C]
  double *positive_weight, *negative_weight;  // [N, T]
};

// One thread per channel and target.
template <class = void>
__global__ void __launch_bounds__(threads) prototypes_kernel(PrototypesParams p) {
  const Divisor targets = p.sums.targets;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(threads) + threadIdx.x;
       i < p.units * targets; i += static_cast<std::int64_t>(gridDim.x) * threads) {
    const std::int64_t unit = p.sums.first_unit + i / targets, target = i % targets;
    const std::int64_t image = unit / p.sums.channels, channel = unit - image * p.sums.channels;
    const ChannelPrototypes found = averages_of(p.sums, image, channel, target);
    const std::int64_t plane = image * targets + target, at = plane * p.sums.channels + channel;
    p.positive[at] = found.reference + found.positive;
    p.negative[at] = found.reference + found.negative;
    if (channel != 0) continue;
    p.positive_weight[plane] = p.sums.total[2 * plane] / p.scale[2 * plane];
    p.negative_weight[plane] = p.sums.total[2 * plane + 1] / p.scale[2 * plane + 1];
  }
}

}  // namespace protoseg::cuda
