// What comes down from the loss, voxel by voxel: the maps `along` and `shrink` of
// docs/gradients.md, brought to the size of the features and into rows that kernels read in steps.
#pragma once

#include <cstdint>

#include "guide_weights.cuh"
#include "protoseg/rule_gradient.hpp"
#include "resized.cuh"

namespace protoseg::cuda {

// The maps at `size`, computed where they are asked for. Groups are counted over all images.
template <class Sum>
struct Upstream {
  const Sum* grad = nullptr;    // [N, G, T, voxels]: dL/dmargin
  const Sum* margin = nullptr;  // the same; cosine only
  const Sum* square = nullptr;  // [N, G, voxels]; cosine only
  std::int64_t voxels = 0, targets = 0;
  Metric metric{};
  double temperature = 1.0;
  bool differentiable = true;  // false: nothing comes down, see has_gradient

  __device__ VoxelGradient at(std::int64_t group, std::int64_t target, std::int64_t voxel) const {
    if (!differentiable) return {0.0, 0.0};
    const std::int64_t at = (group * targets + target) * voxels + voxel;
    const double h = grad[at];
    if (!needs_square(metric)) return voxel_gradient(h, 0.0, 0.0, metric, temperature);
    return voxel_gradient(h, margin[at], square[group * voxels + voxel], metric, temperature);
  }
};

template <class Sum>
struct UpstreamRowsParams {
  Upstream<Sum> upstream;
  Cells cells;
  std::int64_t first_group, rows;  // rows: of groups and targets from first_group on
  double* out;                     // [rows, to.z, to.y, from.x]
};

// U' along of resized features, along x. One thread per element of out; the other axes follow in
// adjoint_axis_kernel.
template <class Sum>
__global__ void __launch_bounds__(threads) upstream_rows_kernel(UpstreamRowsParams<Sum> p) {
  const std::int64_t lines = p.cells.to.z * p.cells.to.y, length = p.cells.from.x;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(threads) + threadIdx.x;
       i < p.rows * lines * length; i += static_cast<std::int64_t>(gridDim.x) * threads) {
    const std::int64_t k = i % length, line = i / length % lines, row = i / length / lines;
    const std::int64_t group = row / p.upstream.targets, target = row - group * p.upstream.targets;
    p.out[i] = gather(p.cells.x, k, [&](int o) {
      return p.upstream.at(p.first_group + group, target, line * p.cells.to.x + o).along;
    });
  }
}

// Rows of `along`, two targets side by side as sums take them: an odd number of targets has a row
// of zeros behind it, unless it is the only one and serves as both.
__host__ __device__ constexpr std::int64_t along_rows(std::int64_t targets) {
  return targets == 1 ? 1 : round_up(targets, 2);
}

template <class Sum>
struct AlongParams {
  Upstream<Sum> upstream;
  const double* adjoint;  // [groups, T, voxels]: of resized features; null: of `size` itself
  std::int64_t first_group, groups, targets;
  std::int64_t voxels, pitch;  // of the features
  std::int64_t segments;       // of totals_voxels each
  Sum* along;                  // [groups, along_rows, pitch], zero beyond voxels; null: not kept
  Sum* shrink;                 // [groups, pitch], the sum over targets; null: not asked for
  double* partial;             // [groups, T, segments]: sums of along; null: not asked for
};

// One block per group and segment.
template <class Sum>
__global__ void __launch_bounds__(threads) along_kernel(AlongParams<Sum> p) {
  const std::int64_t rows = along_rows(p.targets);
  for (std::int64_t i = blockIdx.x; i < p.groups * p.segments; i += gridDim.x) {
    const std::int64_t group = i / p.segments, segment = i % p.segments;
    const std::int64_t end = lesser((segment + 1) * totals_voxels, p.pitch);
    for (std::int64_t target = 0; target < rows; ++target) {
      double sum[1] = {0.0};
      for (std::int64_t v = segment * totals_voxels + threadIdx.x; v < end; v += threads) {
        VoxelGradient found = {0.0, 0.0};
        if (v < p.voxels && target < p.targets) {
          if (p.adjoint != nullptr)
            found.along = p.adjoint[(group * p.targets + target) * p.voxels + v];
          else
            found = p.upstream.at(p.first_group + group, target, v);
        }
        const Sum along = static_cast<Sum>(found.along);
        if (p.along != nullptr) p.along[(group * rows + target) * p.pitch + v] = along;
        if (p.shrink != nullptr) {
          Sum* shrink = p.shrink + group * p.pitch + v;
          *shrink = (target > 0 ? *shrink : Sum(0)) + static_cast<Sum>(found.shrink);
        }
        sum[0] += static_cast<double>(along);
      }
      block_sums(sum);
      if (threadIdx.x == 0 && target < p.targets && p.partial != nullptr)
        p.partial[(group * p.targets + target) * p.segments + segment] = sum[0];
    }
  }
}

}  // namespace protoseg::cuda
