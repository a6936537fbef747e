// Sizes that kernels and the policy on the host agree on.
#pragma once

#include <cstdint>

namespace protoseg::cuda {

constexpr int most_units = 4;   // planes that a block sums together, so that weights are read once
constexpr int target_tile = 4;  // targets that a block decides and counts together
constexpr std::int64_t small_voxels = 256;  // of a plane that a warp keeps in registers

}  // namespace protoseg::cuda
