// The gradients of prototypes: from sums over voxels to what every channel of a group contributes,
// see "Through the prototypes" in docs/gradients.md. The formulas are those of rule_gradient.hpp.
#pragma once

#include <cstdint>

#include "boundary.cuh"
#include "gradient_maps.cuh"

namespace protoseg::cuda {

// What the maps of a target are multiplied with for one channel. A and B are divided by the sums of
// the (scaled) weights: they multiply weights of voxels.
template <class Sum>
struct Coefficient {
  Sum direction, positive, negative;
};

// Which projections give the gradients of pred and mask. 0: none; 1: q+ - q-, for pred alone;
// 2: q+ and q-.
constexpr int most_sides = 2;

template <class Sum>
struct GroupGradientParams {
  Tensor features;
  const double* prototypes;  // [N, T, C, 2], relative to the channels' first voxels
  const double* sums;        // [groups, group channels, segments, pairs of targets, 2]
  std::int64_t segments;
  const double* total;  // [groups, T, total_segments]
  std::int64_t total_segments;
  std::int64_t first_group, count;  // groups [first, first + count) of all N x G
  Divisor groups, targets;
  std::int64_t group_channels;
  Upstream<Sum> upstream;
  const double *weight_total, *weight_scale;  // [N, T, 2], of the weights
  int sides;
  Coefficient<Sum>* coefficient;  // [count, T, group channels]
  double* normal;                 // [count, T, sides, group channels]: what is projected onto
  double* constant;               // [N, G, T, sides]: the projection of the prototypes themselves
  std::uint8_t* active;           // [count, T]: 0: nothing comes down, not even 0 times NaN does
};

// One group and target.
template <class Sum>
struct GroupGradient {
  const GroupGradientParams<Sum>& p;
  std::int64_t at;     // group x T + target, of the chunk
  std::int64_t group;  // of all N x G
  std::int64_t target;
  std::int64_t image, channel;  // the group's first
  double total;                 // H

  __device__ ChannelPrototypes prototypes(std::int64_t c) const {
    const std::int64_t channels = p.groups * p.group_channels;
    const double* own = p.prototypes + ((image * p.targets + target) * channels + channel + c) * 2;
    return {p.features.value(image, channel + c, 0), own[0], own[1]};
  }
  // F, segments in their order
  __device__ double sum(std::int64_t c) const {
    const std::int64_t pairs = divide_up(p.targets, 2);
    const std::int64_t unit = (group - p.first_group) * p.group_channels + c;
    const double* own = p.sums + (unit * p.segments * pairs + target / 2) * 2 + target % 2;
    double sum = 0.0;
#pragma unroll 8
    for (std::int64_t segment = 0; segment < p.segments; ++segment, own += 2 * pairs) sum += *own;
    return sum;
  }
  // Something other than exact zeros comes down. All threads of the block take part.
  __device__ bool any() const {
    const Sum* h = p.upstream.grad + (group * p.targets + target) * p.upstream.voxels;
    bool mine = false;
    for (std::int64_t v = threadIdx.x; v < p.upstream.voxels; v += threads)
      mine = mine || h[v] != Sum(0);
    return __syncthreads_or(mine) != 0;
  }
  // A channel's part of the outputs; adds the projections of its prototypes to constant [2].
  __device__ void write(std::int64_t c, bool active, const ChannelGradient& gradient,
                        const ChannelPrototypes& own, double (&constant)[most_sides]) const {
    const double* weight_total = p.weight_total + (image * p.targets + target) * 2;
    const double* scale = p.weight_scale + (image * p.targets + target) * 2;
    const double positive = active ? gradient.positive / weight_total[0] : 0.0;
    const double negative = active ? gradient.negative / weight_total[1] : 0.0;
    p.coefficient[at * p.group_channels + c] = {static_cast<Sum>(gradient.direction),
                                                static_cast<Sum>(positive),
                                                static_cast<Sum>(negative)};
    const double q[2] = {positive * scale[0], negative * scale[1]};
    const double mean[2] = {q[0] * (own.reference + own.positive),
                            q[1] * (own.reference + own.negative)};
    double* normal = p.normal + at * p.sides * p.group_channels + c;
    if (p.sides > 0) normal[0] = p.sides == 1 ? q[0] - q[1] : q[0];
    if (p.sides > 1) normal[p.group_channels] = q[1];
    constant[0] += p.sides == 1 ? mean[0] - mean[1] : mean[0];
    constant[1] += mean[1];
  }
};

template <class Sum>
__device__ __forceinline__ GroupGradient<Sum> group_gradient_at(const GroupGradientParams<Sum>& p,
                                                                std::int64_t at) {
  const std::int64_t group = p.first_group + at / p.targets, image = group / p.groups;
  const double* part = p.total + at * p.total_segments;
  double total = 0.0;
#pragma unroll 8
  for (std::int64_t segment = 0; segment < p.total_segments; ++segment) total += part[segment];
  return {p,    at, group, at % p.targets, image, (group - image * p.groups) * p.group_channels,
          total};
}

// One block per group and target.
template <class Sum>
__global__ void __launch_bounds__(threads) group_gradient_kernel(GroupGradientParams<Sum> p) {
  const std::int64_t channels = p.group_channels;
  const double nan = static_cast<double>(NAN);
  for (std::int64_t i = blockIdx.x; i < p.count * p.targets; i += gridDim.x) {
    const GroupGradient<Sum> group = group_gradient_at(p, i);
    PrototypeSums mine;
    bool undefined = false;
    for (std::int64_t c = threadIdx.x; c < channels; c += threads) {
      const ChannelPrototypes own = group.prototypes(c);
      undefined = undefined || !is_defined(own);
      add_channel(&mine, own, group.sum(c), group.total);
    }
    undefined = __syncthreads_or(undefined) != 0;
    double part[4] = {mine.a_square, mine.b_square, mine.a_dot, mine.b_dot};
    block_sums(part);
    const PrototypeSums sums = {part[0], part[1], part[2], part[3]};
    // Where the margin is NaN, exact zeros still send nothing back.
    const bool active = p.upstream.differentiable && (!undefined || group.any());
    double constant[most_sides] = {0.0, 0.0};
    for (std::int64_t c = threadIdx.x; c < channels; c += threads) {
      const ChannelPrototypes own = group.prototypes(c);
      ChannelGradient gradient = {0.0, 0.0, 0.0};
      if (active)
        gradient = undefined
                       ? ChannelGradient{nan, nan, nan}
                       : channel_gradient(sums, own, p.upstream.metric, group.sum(c), group.total);
      group.write(c, active, gradient, own, constant);
    }
    block_sums(constant);
    if (threadIdx.x != 0) continue;
    p.active[i] = active;
#pragma unroll
    for (int side = 0; side < most_sides; ++side)
      if (side < p.sides)
        p.constant[(group.group * p.targets + group.target) * p.sides + side] =
            active ? constant[side] : 0.0;
  }
}

}  // namespace protoseg::cuda
