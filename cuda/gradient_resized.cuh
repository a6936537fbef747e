// The gradient of features of another size for the cosine metric, whose norms do not commute with
// resizing: -U' [shrink (U f_c)] for every channel c.
//
// U' diag(shrink) U is one symmetric operator for all channels of a group. Axes are interpolated
// between neighbours, so that it connects a voxel with its 26 neighbours and itself at most: those
// 27 numbers are computed once per voxel, and every channel is one sum over its neighbourhood. No
// channel is resized.
#pragma once

#include <cstdint>

#include "gradient_sweep.cuh"

namespace protoseg::cuda {

template <class T>
struct ResizedGradientParams {
  Tensor features, out;
  std::int64_t first_group, count;  // groups of all N x G
  Divisor groups;
  std::int64_t group_channels, targets;
  Divisor pieces;  // of `threads` voxels each
  Cells cells;
  GroupMaps<SumOf<T>> maps;  // shrink is at `size`
};

// Outputs of an axis that read voxel k: as their upper tap (side 0) or as their lower one (side 1).
// Output o gives weight(o, 1) to its lower tap and weight(o, 0) to its upper one.
struct AxisReaders {
  const AxisTaps& axis;
  std::int64_t k;

  __device__ int begin(int side) const {
    return side == 1 ? axis.begin[k] : (k > 0 ? axis.begin[k - 1] : 0);
  }
  __device__ int end(int side) const {
    return side == 1 ? axis.begin[k + 1] : (k > 0 ? axis.begin[k] : 0);
  }
  // Both taps of the output: [0] the lower one's weight.
  __device__ void weights(int o, double (&weight)[2]) const {
    weight[0] = 1.0 - axis.exact[o];
    weight[1] = axis.exact[o];
  }
};

// Row k of the operator: [z][y][x] are the neighbours at -1, 0 and 1.
struct Neighbourhood {
  double value[3][3][3] = {};

  // What an output adds that reads this voxel through the tap (z, y, x), 0 upper or 1 lower.
  template <int z, int y, int x>
  __device__ __forceinline__ void add(double shrink, const double (&wz)[2], const double (&wy)[2],
                                      const double (&wx)[2]) {
    const double own = shrink * wz[1 - z] * wy[1 - y] * wx[1 - x];
#pragma unroll
    for (int a = 0; a < 2; ++a)
#pragma unroll
      for (int b = 0; b < 2; ++b)
#pragma unroll
        for (int c = 0; c < 2; ++c)
          value[z + a][y + b][x + c] = fma(own * wz[a] * wy[b], wx[c], value[z + a][y + b][x + c]);
  }

  // All outputs that read it through that tap, in their order; shrink(z, y, x) of an output.
  template <int z, int y, int x, class Shrink>
  __device__ __forceinline__ void add_all(const AxisReaders (&at)[3], Shrink shrink) {
    for (int oz = at[0].begin(z); oz < at[0].end(z); ++oz)
      for (int oy = at[1].begin(y); oy < at[1].end(y); ++oy)
        for (int ox = at[2].begin(x); ox < at[2].end(x); ++ox) {
          double wz[2], wy[2], wx[2];
          at[0].weights(oz, wz);
          at[1].weights(oy, wy);
          at[2].weights(ox, wx);
          add<z, y, x>(shrink(oz, oy, ox), wz, wy, wx);
        }
  }

  // What lies beyond an edge is never read, whatever comes down.
  __device__ __forceinline__ void clear_outside(const std::int64_t (&at)[3],
                                                const std::int64_t (&n)[3]) {
#pragma unroll
    for (int z = 0; z < 3; ++z)
#pragma unroll
      for (int y = 0; y < 3; ++y)
#pragma unroll
        for (int x = 0; x < 3; ++x)
          if (at[0] + z < 1 || at[0] + z > n[0] || at[1] + y < 1 || at[1] + y > n[1] ||
              at[2] + x < 1 || at[2] + x > n[2])
            value[z][y][x] = 0.0;
  }

  template <class Shrink>
  __device__ __forceinline__ void fill(const AxisReaders (&at)[3], Shrink shrink) {
    add_all<0, 0, 0>(at, shrink);
    add_all<0, 0, 1>(at, shrink);
    add_all<0, 1, 0>(at, shrink);
    add_all<0, 1, 1>(at, shrink);
    add_all<1, 0, 0>(at, shrink);
    add_all<1, 0, 1>(at, shrink);
    add_all<1, 1, 0>(at, shrink);
    add_all<1, 1, 1>(at, shrink);
  }
};

// The sum over a voxel's neighbours of one plane.
template <class T>
__device__ __forceinline__ double apply(const Neighbourhood& row, const T* at,
                                        const Tensor& tensor) {
  double sum = 0.0;
#pragma unroll
  for (int z = 0; z < 3; ++z)
#pragma unroll
    for (int y = 0; y < 3; ++y)
#pragma unroll
      for (int x = 0; x < 3; ++x) {
        const double value = row.value[z][y][x];
        if (value != 0.0)
          sum = fma(
              value,
              static_cast<double>(widen(at[(z - 1) * tensor.z_stride + (y - 1) * tensor.y_stride +
                                           (x - 1) * tensor.x_stride])),
              sum);
      }
  return sum;
}

// One target's maps at one voxel.
template <class Sum>
struct VoxelMaps {
  Sum along, positive, negative;

  __device__ VoxelMaps(const GroupMaps<Sum>& maps, std::int64_t group, std::int64_t image,
                       std::int64_t target, std::int64_t targets, std::int64_t voxel)
      : along(maps.along_row(group, target)[voxel]) {
    const WeightRow<Sum> row = maps.weights.row(image, target, targets);
    positive = row.positive[voxel];
    negative = row.negative[voxel];  // weights of resized features are always kept
  }
  __device__ Sum of(const Coefficient<Sum>& c, Sum sum) const {
    return fused(c.negative, negative, fused(c.positive, positive, fused(c.direction, along, sum)));
  }
};

// A voxel of all channels of a group. group: of the chunk.
template <class T>
__device__ __forceinline__ void resized_gradient(const ResizedGradientParams<T>& p,
                                                 std::int64_t group, std::int64_t voxel) {
  using Sum = SumOf<T>;
  const std::int64_t whole = p.first_group + group, image = whole / p.groups;
  const std::int64_t channel = (whole - image * p.groups) * p.group_channels;
  const Extent &from = p.cells.from, &to = p.cells.to;
  const std::int64_t line = voxel / from.x, x = voxel - line * from.x;
  const std::int64_t z = line / from.y, y = line - z * from.y;
  const AxisReaders at[3] = {{p.cells.z, z}, {p.cells.y, y}, {p.cells.x, x}};
  Neighbourhood row;
  const Sum* shrink = p.maps.shrink + group * p.maps.shrink_pitch;
  row.fill(at, [&](int oz, int oy, int ox) {
    return static_cast<double>(shrink[(oz * to.y + oy) * to.x + ox]);
  });
  row.clear_outside({z, y, x}, {from.z, from.y, from.x});
  const T* feature = static_cast<const T*>(p.features.data) + p.features.plane(image, channel) +
                     p.features.offset(voxel);
  T* out = static_cast<T*>(const_cast<void*>(p.out.data)) + p.out.plane(image, channel) +
           p.out.offset(voxel);
  const Coefficient<Sum>* coefficient = p.maps.coefficient + group * p.targets * p.group_channels;
  const VoxelMaps<Sum> first(p.maps, group, image, 0, p.targets, voxel);
#pragma unroll 1
  for (std::int64_t c = 0; c < p.group_channels; ++c) {
    Sum sum = first.of(coefficient[c], Sum(0));
#pragma unroll 1
    for (std::int64_t target = 1; target < p.targets; ++target)
      sum = VoxelMaps<Sum>(p.maps, group, image, target, p.targets, voxel)
                .of(coefficient[target * p.group_channels + c], sum);
    sum -= static_cast<Sum>(apply(row, feature + c * p.features.channel_stride, p.features));
    out[c * p.out.channel_stride] = narrow_to(T{}, sum);
  }
}

// One thread per voxel of a group.
template <class T>
__global__ void __launch_bounds__(threads, 2) resized_gradient_kernel(ResizedGradientParams<T> p) {
  const std::int64_t voxels = p.features.extent.voxels();
  for (std::int64_t i = blockIdx.x; i < p.count * p.pieces; i += gridDim.x) {
    const std::int64_t voxel = i % p.pieces * threads + threadIdx.x;
    if (voxel < voxels) resized_gradient(p, i / p.pieces, voxel);
  }
}

}  // namespace protoseg::cuda
