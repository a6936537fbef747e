// Maps and probabilities of features of another size: the margin of resized features is the resized
// margin, so one map per group and target is resized, in the order and arithmetic of the
// specification.
#pragma once

#include <cstdint>

#include "project.cuh"
#include "resized.cuh"

namespace protoseg::cuda {

struct ResizeMapParams {
  const double* projection;  // [count, T, feature voxels]
  std::int64_t first_group, count;
  Divisor groups;
  std::int64_t group_channels, targets;
  Divisor voxels;            // of the output
  const Boundary* boundary;  // [count, T]
  Cells cells;
  Tensor features;  // for norms, which do not commute with resizing
  Metric metric;
  Sink sink;
  void* map;     // [N, G, T, *size]
  void* square;  // [N, G, *size]: squared norms; null: not asked for
};

// Where an output voxel lies between feature voxels.
struct Place {
  std::int64_t z[2], y[2], x[2];
  double weight[3];
};

__device__ __forceinline__ Place place_of(const Cells& cells, std::int64_t voxel) {
  const std::int64_t line = voxel / cells.to.x, x = voxel - line * cells.to.x;
  const std::int64_t z = line / cells.to.y, y = line - z * cells.to.y;
  return {{cells.z.lower[z], cells.z.upper[z]},
          {cells.y.lower[y], cells.y.upper[y]},
          {cells.x.lower[x], cells.x.upper[x]},
          {cells.z.exact[z], cells.y.exact[y], cells.x.exact[x]}};
}

// Along z, then y, then x; value(z, y, x) is a double.
template <class Value>
__device__ __forceinline__ double resize_at(const Place& at, Value value) {
  double row[2];
  for (int k = 0; k < 2; ++k) {
    const double a =
        lerp(value(at.z[0], at.y[0], at.x[k]), value(at.z[1], at.y[0], at.x[k]), at.weight[0]);
    const double b =
        lerp(value(at.z[0], at.y[1], at.x[k]), value(at.z[1], at.y[1], at.x[k]), at.weight[0]);
    row[k] = lerp(a, b, at.weight[1]);
  }
  return lerp(row[0], row[1], at.weight[2]);
}

__device__ __forceinline__ double squared_norm(const ResizeMapParams& p, std::int64_t group,
                                               const Place& at) {
  const std::int64_t image = group / p.groups, first = group % p.groups * p.group_channels;
  double square = 0.0;
  for (std::int64_t c = 0; c < p.group_channels; ++c) {
    const std::int64_t plane = p.features.plane(image, first + c);
    const double f = resize_at(at, [&](std::int64_t z, std::int64_t y, std::int64_t x) {
      return read_element(
          p.features.dtype, p.features.data,
          plane + z * p.features.z_stride + y * p.features.y_stride + x * p.features.x_stride);
    });
    square += f * f;
  }
  return square;
}

// One thread per output voxel of a group; all targets lie at the same place.
template <class = void>
__global__ void __launch_bounds__(threads, 2) resize_map_kernel(ResizeMapParams p) {
  const Divisor voxels = p.voxels;
  const std::int64_t from = p.cells.from.voxels();
  const bool squares = needs_square(p.metric) && takes_norms(p.sink);
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(threads) + threadIdx.x;
       i < p.count * voxels; i += static_cast<std::int64_t>(gridDim.x) * threads) {
    const std::int64_t k = i / voxels, voxel = i - k * voxels, group = p.first_group + k;
    const Place at = place_of(p.cells, voxel);
    const double square = squares ? squared_norm(p, group, at) : 0.0;
    for (std::int64_t target = 0; target < p.targets; ++target) {
      const double* map = p.projection + (k * p.targets + target) * from;
      const double value = resize_at(at, [&](std::int64_t z, std::int64_t y, std::int64_t x) {
        return map[(z * p.cells.from.y + y) * p.cells.from.x + x];
      });
      with_voxel(p.sink, [&](auto out) {
        using Out = typename decltype(out)::Out;
        static_cast<Out*>(p.map)[(group * p.targets + target) * voxels + voxel] =
            out.of(value, square, p.metric, p.boundary[k * p.targets + target]);
        if (p.square != nullptr && target == 0)
          static_cast<Out*>(p.square)[group * voxels + voxel] = static_cast<Out>(square);
      });
    }
  }
}

}  // namespace protoseg::cuda
