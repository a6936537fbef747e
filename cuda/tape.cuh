// What the forward pass of training keeps besides maps: prototypes.
#pragma once

#include <cstdint>

#include "boundary.cuh"

namespace protoseg::cuda {

struct TapeParams {
  const ChannelPrototypes* prototypes;  // [count, T, group channels]
  std::int64_t first_group, count;      // groups [first, first + count) of all N x G
  Divisor groups, group_channels, targets;
  double* out;  // [N, T, C, 2], relative to the channels' first voxels
};

// One thread per group, target and channel.
template <class = void>
__global__ void __launch_bounds__(threads) tape_kernel(TapeParams p) {
  const std::int64_t channels = p.groups * p.group_channels;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(threads) + threadIdx.x;
       i < p.count * p.targets * p.group_channels;
       i += static_cast<std::int64_t>(gridDim.x) * threads) {
    const std::int64_t pair = i / p.group_channels, target = pair % p.targets;
    const std::int64_t group = p.first_group + pair / p.targets, image = group / p.groups;
    const std::int64_t channel =
        (group - image * p.groups) * p.group_channels + i % p.group_channels;
    double* out = p.out + ((image * p.targets + target) * channels + channel) * 2;
    out[0] = p.prototypes[i].positive;
    out[1] = p.prototypes[i].negative;
  }
}

}  // namespace protoseg::cuda
