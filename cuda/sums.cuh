// Weighted sums of staged voxels, in the shape that shape.cuh fixes.
#pragma once

#include <cmath>
#include <cstdint>

#include "limits.hpp"
#include "stage.cuh"

namespace protoseg::cuda {

// Positive and negative weights of the voxels of one image and target.
template <class Sum>
struct WeightRow {
  const Sum* positive;
  const Sum* negative;  // null: 1 - positive, both times `scale`
  Sum scale[2];

  __device__ WeightRow from(std::int64_t voxel) const {
    return {positive + voxel, negative ? negative + voxel : nullptr, {scale[0], scale[1]}};
  }
};

// Weights [N, T, voxels] of a feature size: kept, or a pred that serves as weights where it lies.
template <class Sum>
struct Weights {
  const Sum* positive = nullptr;
  const Sum* negative = nullptr;
  std::int64_t image_stride = 0, target_stride = 0;
  const double* scale = nullptr;  // [N, T, 2] of a pred, powers of two
  const double* total = nullptr;  // [N, T, 2], sums of the scaled weights; NaN: an invalid guide

  __device__ WeightRow<Sum> row(std::int64_t image, std::int64_t target,
                                std::int64_t targets) const {
    const std::int64_t at = image * image_stride + target * target_stride;
    WeightRow<Sum> row = {positive + at, negative ? negative + at : nullptr, {Sum(1), Sum(1)}};
    for (int side = 0; side < 2 && negative == nullptr; ++side)
      row.scale[side] = static_cast<Sum>(scale[(image * targets + target) * 2 + side]);
    return row;
  }
};

// Weights of `step` voxels from v on; rows are aligned, and zero beyond their end.
template <class Sum>
__device__ __forceinline__ void load_weights(const WeightRow<Sum>& row, int v,
                                             Sum (&positive)[step<Sum>],
                                             Sum (&negative)[step<Sum>]) {
  load_aligned(row.positive + v, positive);
  if (row.negative != nullptr) return load_aligned(row.negative + v, negative);
#pragma unroll
  for (int k = 0; k < step<Sum>; ++k) {
    negative[k] = row.scale[1] * (Sum(1) - positive[k]);
    positive[k] = row.scale[0] * positive[k];
  }
}

// Adds weight x (value - reference) of one step of voxels, in order, in arithmetic of type S.
template <class S, class T, class Sum>
__device__ __forceinline__ void add_step(const T (&value)[step<Sum>], Sum reference,
                                         const Sum (&positive)[step<Sum>],
                                         const Sum (&negative)[step<Sum>], S (&sum)[2]) {
#pragma unroll
  for (int k = 0; k < step<Sum>; ++k) {
    const S d = static_cast<S>(widen(value[k])) - static_cast<S>(reference);
    sum[0] = fused(d, static_cast<S>(positive[k]), sum[0]);
    sum[1] = fused(d, static_cast<S>(negative[k]), sum[1]);
  }
}

// What a thread's lane of a segment of n voxels adds up to, for each of `units` staged planes.
// weights: those of the segment's first voxel.
template <class S, int most, class T, class Sum = SumOf<T>>
__device__ __forceinline__ void lane_sums(const T* staged, int pitch, int units, int n,
                                          const WeightRow<Sum>& weights, const Sum* reference,
                                          S (&sum)[most][2]) {
#pragma unroll 1
  for (int v = threadIdx.x * step<Sum>; v < n; v += row_voxels<Sum>) {
    Sum positive[step<Sum>], negative[step<Sum>];
    load_weights(weights, v, positive, negative);
#pragma unroll
    for (int u = 0; u < most; ++u) {
      if (u >= units) break;
      T value[step<Sum>];
      load_aligned(staged + u * pitch + v, value);
      add_step(value, reference[u], positive, negative, sum[u]);
    }
  }
}

// A sum that is not finite is of a feature that is not, or float's range exceeded by finite
// features: double tells them apart. A tiny sum may be of subnormal numbers, which have few digits.
__device__ __forceinline__ bool needs_double(double sum) {
  return !std::isfinite(sum) || (sum != 0.0 && std::fabs(sum) < 0x1p-80);
}

// Lanes to warps, in double: partial [warps, pitch, 2].
template <int pitch, class S, int most>
__device__ __forceinline__ void store_warp_sums(const S (&sum)[most][2], int units,
                                                double* partial) {
#pragma unroll
  for (int u = 0; u < most; ++u) {
    if (u >= units) break;
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const double total = warp_sum(static_cast<double>(sum[u][side]));
      if (lane_of_thread() == 0) partial[(warp_of_thread() * pitch + u) * 2 + side] = total;
    }
  }
}

// Sums of one segment of staged planes. Thread 2 u + side, for all u < units, gets that of unit u
// and side; the others get nothing of meaning. Shared: reference [units], partial [warps,
// most_units, 2]. All threads of the block take part, after the planes were staged and the block
// synchronised; when it returns, nobody reads `staged`, `reference` or `partial` any more.
template <class T, class Sum = SumOf<T>>
__device__ __forceinline__ double segment_sums(const T* staged, int pitch, int units, int n,
                                               const WeightRow<Sum>& weights, const Sum* reference,
                                               double* partial) {
  const bool mine = static_cast<int>(threadIdx.x) < 2 * units;
  Sum lane[most_units][2] = {};
  lane_sums(staged, pitch, units, n, weights, reference, lane);
  store_warp_sums<most_units>(lane, units, partial);
  __syncthreads();
  double sum = mine ? sum_of_warps(partial + threadIdx.x, 2 * most_units) : 0.0;
  if constexpr (std::is_same_v<Sum, double>) {
    __syncthreads();
  } else if (__syncthreads_or(mine && needs_double(sum))) {
#pragma unroll 1
    for (int u = 0; u < units; ++u) {
      double wide[1][2] = {};
      lane_sums(staged + u * pitch, 0, 1, n, weights, reference + u, wide);
      store_warp_sums<most_units>(wide, 1, partial + 2 * u);
    }
    __syncthreads();
    if (mine && needs_double(sum)) sum = sum_of_warps(partial + threadIdx.x, 2 * most_units);
    __syncthreads();
  }
  return sum;
}

// The first voxel of each channel, relative to which a constant channel sums to exactly zero;
// reference [units], shared. The block has to synchronise before it reads them.
template <class T>
__device__ __forceinline__ void load_references(const Tensor& f, std::int64_t image,
                                                std::int64_t channel, int units,
                                                SumOf<T>* reference) {
  const int u = threadIdx.x;
  if (u < units) reference[u] = widen(f.at<T>(image, channel + u, 0));
}

// ---- split: every segment on its own -----------------------------------------------------------

// Units in tiles of neighbouring channels of one image; [first, first + count) of all tiles.
struct UnitTiles {
  UnitTiles() = default;
  UnitTiles(std::int64_t channels_in, int units_in, std::int64_t first_in, std::int64_t count_in)
      : channels(channels_in),
        units(units_in),
        per_image(divide_up(channels, units)),
        first(first_in),
        count(count_in) {}

  std::int64_t channels = 0;
  int units = 1;
  Divisor per_image;
  std::int64_t first = 0, count = 0;
};

// The first unit of the first tile.
__host__ __device__ __forceinline__ std::int64_t first_unit_of(const UnitTiles& tiles) {
  const std::int64_t image = tiles.first / tiles.per_image;
  return image * tiles.channels + (tiles.first - image * tiles.per_image) * tiles.units;
}

struct UnitTile {
  std::int64_t image, channel;
  int units;
};

__device__ __forceinline__ UnitTile tile_at(const UnitTiles& tiles, std::int64_t index) {
  const std::int64_t tile = tiles.first + index, image = tile / tiles.per_image;
  const std::int64_t channel = (tile - image * tiles.per_image) * tiles.units;
  const std::int64_t left = tiles.channels - channel;
  return {image, channel, left < tiles.units ? static_cast<int>(left) : tiles.units};
}

template <class T>
struct UnitSumsParams {
  Tensor features;
  Weights<SumOf<T>> weights;
  UnitTiles tiles;
  std::int64_t targets;
  Divisor segments;
  double* sums;  // [units from the first tile on, segments, T, 2]
  std::int64_t first_unit;
};

// One block per tile and segment: read once from memory, whatever the number of targets.
template <class T>
__global__ void __launch_bounds__(threads, 3) unit_sums_kernel(UnitSumsParams<T> p) {
  PROTOSEG_SHARED(double, partial, warps * most_units * 2);
  PROTOSEG_SHARED(SumOf<T>, reference, most_units);
  T* staged = dynamic_shared<T>();
  const std::int64_t voxels = p.features.extent.voxels();
  for (std::int64_t i = blockIdx.x; i < p.tiles.count * p.segments; i += gridDim.x) {
    const UnitTile tile = tile_at(p.tiles, i / p.segments);
    const std::int64_t segment = i % p.segments, first = segment * segment_voxels<SumOf<T>>;
    const int n = static_cast<int>(lesser(segment_voxels<SumOf<T>>, voxels - first));
    const int pitch = static_cast<int>(staged_pitch<T>(n));
    stage(p.features, tile.image, tile.channel, tile.units, first, n, staged, pitch);
    load_references<T>(p.features, tile.image, tile.channel, tile.units, reference);
    __syncthreads();
    const std::int64_t unit = tile.image * p.tiles.channels + tile.channel - p.first_unit;
    for (std::int64_t target = 0; target < p.targets; ++target) {
      WeightRow<SumOf<T>> weights = p.weights.row(tile.image, target, p.targets);
      const double sum =
          segment_sums(staged, pitch, tile.units, n, weights.from(first), reference, partial);
      const int u = threadIdx.x / 2, side = threadIdx.x % 2;
      if (u < tile.units)
        p.sums[(((unit + u) * p.segments + segment) * p.targets + target) * 2 + side] = sum;
    }
  }
}

}  // namespace protoseg::cuda
