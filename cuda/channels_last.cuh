// Units of channels-last features. Eight floats that are neighbours in memory are one sector, so a
// block takes as many channels: a row of voxels at a time, turned in shared memory. The sums have
// the shape of shape.cuh, and so the bits of every other layout.
#pragma once

#include <cstdint>

#include "count.cuh"

namespace protoseg::cuda {

// Channels of a block: one sector of neighbours.
template <class T>
constexpr int neighbours = 32 / static_cast<int>(sizeof(T));
// Targets whose sums are taken of one read, as far as there are registers.
template <class T>
constexpr int targets_at_once = sizeof(T) == 2 ? 1 : 2;
// Between staged channels: a few elements more than a row, so that lanes that write neighbouring
// channels write to different banks.
template <class T>
constexpr int turned_pitch = row_voxels<SumOf<T>> + 16 / static_cast<int>(sizeof(T));
template <class T>
constexpr int turned_bytes = neighbours<T> * turned_pitch<T> * static_cast<int>(sizeof(T));

// One segment of one tile of channels.
template <class T>
struct TurnedSegment {
  const Tensor& features;
  const UnitTile& tile;
  std::int64_t first;  // voxel
  int n;
  T* staged;  // [neighbours, turned_pitch]

  // Calls use(row, voxels of it) for every row, after it was staged.
  template <class Use>
  __device__ void for_each_row(Use use) const {
    constexpr int length = row_voxels<SumOf<T>>;
#pragma unroll 1
    for (int row = 0; row < n; row += length) {
      const int here = min(length, n - row);
      __syncthreads();  // nobody reads the row before it any more
      stage_elements(features, tile.image, tile.channel, tile.units, first + row, here, staged,
                     turned_pitch<T>);
      __syncthreads();
      use(row, here);
    }
  }
};

template <class T>
using TurnedSums = SumOf<T>[targets_at_once<T>][neighbours<T>][2];

// Sums in double, unit after unit, of features that need it: rare. partial as below.
template <class T>
__device__ __forceinline__ void turned_sums_in_double(const UnitSumsParams<T>& p,
                                                      const TurnedSegment<T>& segment,
                                                      std::int64_t target, int targets,
                                                      const SumOf<T>* reference, double* partial) {
#pragma unroll 1
  for (int i = 0; i < targets * segment.tile.units; ++i) {
    const int t = i / segment.tile.units, u = i % segment.tile.units;
    const auto weights = p.weights.row(segment.tile.image, target + t, p.targets);
    double wide[1][2] = {};
    segment.for_each_row([&](int row, int n) {
      lane_sums(segment.staged + u * turned_pitch<T>, 0, 1, n, weights.from(segment.first + row),
                reference + u, wide);
    });
    store_warp_sums<neighbours<T>>(wide, 1, partial + (t * warps * neighbours<T> + u) * 2);
  }
  __syncthreads();
}

// Sums of `targets` targets from `target` on: thread (t neighbours + u) 2 + side gets that of
// target t and unit u. partial [targets_at_once, warps, neighbours, 2], shared. When it returns,
// nobody reads `reference` or `partial` any more.
template <class T>
__device__ __forceinline__ double turned_sums(const UnitSumsParams<T>& p,
                                              const TurnedSegment<T>& segment, std::int64_t target,
                                              int targets, const SumOf<T>* reference,
                                              double* partial) {
  constexpr int values = neighbours<T> * 2;
  const int t = threadIdx.x / values, k = threadIdx.x % values;
  const int units = segment.tile.units;
  const bool mine = t < targets && k / 2 < units;
  TurnedSums<T> lane = {};
  segment.for_each_row([&](int row, int n) {
#pragma unroll
    for (int i = 0; i < targets_at_once<T>; ++i) {
      if (i >= targets) break;
      const auto weights = p.weights.row(segment.tile.image, target + i, p.targets);
      lane_sums(segment.staged, turned_pitch<T>, units, n, weights.from(segment.first + row),
                reference, lane[i]);
    }
  });
#pragma unroll
  for (int i = 0; i < targets_at_once<T>; ++i)
    if (i < targets) store_warp_sums<neighbours<T>>(lane[i], units, partial + i * warps * values);
  __syncthreads();
  const double* own = partial + t * warps * values + k;
  double sum = mine ? sum_of_warps(own, values) : 0.0;
  if constexpr (std::is_same_v<T, double>) {
    __syncthreads();
  } else if (__syncthreads_or(mine && needs_double(sum))) {
    turned_sums_in_double(p, segment, target, targets, reference, partial);
    if (mine && needs_double(sum)) sum = sum_of_warps(own, values);
    __syncthreads();
  }
  return sum;
}

// One block per tile and segment; tiles are of `neighbours` channels.
template <class T>
__global__ void __launch_bounds__(threads, 2) turned_sums_kernel(UnitSumsParams<T> p) {
  constexpr int values = neighbours<T> * 2;
  PROTOSEG_SHARED(double, partial, targets_at_once<T> * warps * values);
  PROTOSEG_SHARED(SumOf<T>, reference, neighbours<T>);
  const std::int64_t voxels = p.features.extent.voxels();
  for (std::int64_t i = blockIdx.x; i < p.tiles.count * p.segments; i += gridDim.x) {
    const UnitTile tile = tile_at(p.tiles, i / p.segments);
    const std::int64_t at = i % p.segments, first = at * segment_voxels<SumOf<T>>;
    const TurnedSegment<T> segment = {
        p.features, tile, first, static_cast<int>(lesser(segment_voxels<SumOf<T>>, voxels - first)),
        dynamic_shared<T>()};
    const std::int64_t unit = tile.image * p.tiles.channels + tile.channel - p.first_unit;
    load_references<T>(p.features, tile.image, tile.channel, tile.units, reference);
    for (std::int64_t target = 0; target < p.targets; target += targets_at_once<T>) {
      const int here = static_cast<int>(lesser(targets_at_once<T>, p.targets - target));
      const double sum = turned_sums(p, segment, target, here, reference, partial);
      const int t = threadIdx.x / values, u = threadIdx.x % values / 2, side = threadIdx.x % 2;
      if (t < here && u < tile.units)
        p.sums[(((unit + u) * p.segments + at) * p.targets + target + t) * 2 + side] = sum;
    }
  }
}

// One block per tile and segment. Each row is counted against all targets.
template <class T>
__global__ void __launch_bounds__(threads, 2) turned_counts_kernel(UnitCountsParams<T> p) {
  constexpr int pairs = target_tile * neighbours<T>;
  PROTOSEG_SHARED(unsigned, counts, pairs* counts_of_pair);
  const std::int64_t voxels = p.features.extent.voxels();
  for (std::int64_t i = blockIdx.x; i < p.tiles.count * p.segments; i += gridDim.x) {
    const UnitTile tile = tile_at(p.tiles, i / p.segments);
    const std::int64_t first = i % p.segments * segment_voxels<SumOf<T>>;
    const TurnedSegment<T> segment = {
        p.features, tile, first, static_cast<int>(lesser(segment_voxels<SumOf<T>>, voxels - first)),
        dynamic_shared<T>()};
    const std::int64_t unit = tile.image * p.tiles.channels + tile.channel;
    for (std::int64_t target = 0; target < p.targets; target += target_tile) {
      const int here = static_cast<int>(lesser(target_tile, p.targets - target));
      // Each thread clears what it has flushed.
      for (int k = threadIdx.x; k < pairs * counts_of_pair; k += threads) counts[k] = 0;
      segment.for_each_row([&](int row, int n) {
        for (int k = 0; k < here * tile.units; ++k) {
          const int t = k / tile.units, u = k % tile.units;
          const PackedRow bits = packed_row(p.references, p.out, tile.image, target + t, p.targets);
          count_segment(segment.staged + u * turned_pitch<T>, n,
                        p.threshold[(unit + u - p.first_unit) * p.targets + target + t],
                        bits.from(first + row), counts + (t * neighbours<T> + u) * counts_of_pair);
        }
      });
      __syncthreads();
      for (int k = threadIdx.x; k < pairs * counts_of_pair; k += threads) {
        const int t = k / counts_of_pair / neighbours<T>, u = k / counts_of_pair % neighbours<T>;
        if (t < here && u < tile.units)
          flush_count(p.out, (unit + u) * p.targets + target + t, k % counts_of_pair, counts[k]);
      }
    }
  }
}

}  // namespace protoseg::cuda
