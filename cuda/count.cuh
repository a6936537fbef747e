// Counts of staged voxels: one comparison each, and the packed bits they are compared with.
#pragma once

#include <cstdint>

#include "boundary.cuh"
#include "sums.cuh"

namespace protoseg::cuda {

// A block counts on its own, and adds what it found to the results at the end.
// counts [pairs, 3]: predicted, tp against the target, tp against the output
constexpr int counts_of_pair = 3;

// The words of one plane, from one of its voxels on; null where not asked for.
struct PackedRow {
  const unsigned* valid;
  const unsigned* actual[2];

  // voxel: a multiple of 32
  __device__ PackedRow from(std::int64_t voxel) const {
    return {valid + voxel / 32,
            {actual[0] ? actual[0] + voxel / 32 : nullptr,
             actual[1] ? actual[1] + voxel / 32 : nullptr}};
  }
};

__device__ __forceinline__ PackedRow packed_row(const References& references,
                                                const CountOutputs& out, std::int64_t image,
                                                std::int64_t target, std::int64_t targets) {
  const std::int64_t plane = (image * targets + target) * references.words;
  PackedRow row = {references.valid + image * references.words, {nullptr, nullptr}};
  for (int which = 0; which < 2; ++which)
    if (out.tp[which] != nullptr) row.actual[which] = references.actual[which] + plane;
  return row;
}

// Adds bits of foreground to predicted and tp, packed into 21 bits each.
__device__ __forceinline__ unsigned long long count_bits(unsigned foreground, unsigned valid,
                                                         unsigned target, unsigned output) {
  return static_cast<unsigned long long>(__popc(foreground & valid)) |
         static_cast<unsigned long long>(__popc(foreground & target)) << 21 |
         static_cast<unsigned long long>(__popc(foreground & output)) << 42;
}

// A warp's packed counts, each below 2^21, added to counts [3] in shared memory.
__device__ __forceinline__ void add_warp_counts(unsigned long long packed, unsigned* counts) {
  packed = warp_sum(packed);
  if (lane_of_thread() < counts_of_pair) {
    const unsigned count = static_cast<unsigned>(packed >> (21 * lane_of_thread())) & 0x1fffff;
    if (count != 0) atomicAdd(counts + lane_of_thread(), count);
  }
}

// Counts one segment of n voxels of one staged plane; bits: those of its first voxel on.
template <class T, class Sum = SumOf<T>>
__device__ __forceinline__ void count_segment(const T* staged, int n,
                                              const UnitThreshold<double>& unit,
                                              const PackedRow& bits, unsigned* counts) {
  if (!unit.anything) return;
  // f < t is -f > -t: exact, and one comparison for both.
  const Sum side = unit.above ? Sum(1) : Sum(-1);
  const Sum threshold = side * static_cast<Sum>(unit.threshold);
  unsigned long long packed = 0;
  for (int v = threadIdx.x * step<Sum>; v < n; v += row_voxels<Sum>) {
    T value[step<Sum>];
    load_aligned(staged + v, value);
    unsigned foreground = 0;
#pragma unroll
    for (int k = 0; k < step<Sum>; ++k)
      foreground |= static_cast<unsigned>(side * widen(value[k]) > threshold) << k;
    const int word = v / 32, shift = v % 32;
    packed += count_bits(foreground, bits.valid[word] >> shift,
                         bits.actual[0] ? bits.actual[0][word] >> shift : 0u,
                         bits.actual[1] ? bits.actual[1][word] >> shift : 0u);
  }
  add_warp_counts(packed, counts);
}

// Adds a block's counts of `pair` (unit or group, and target) to the results.
__device__ __forceinline__ void flush_count(const CountOutputs& out, std::int64_t at, int which,
                                            unsigned count) {
  if (which == 0) {
    for (int k = 0; k < 2; ++k)
      if (out.predicted[k] != nullptr) add_count(out.predicted[k] + at, count);
  } else if (out.tp[which - 1] != nullptr) {
    add_count(out.tp[which - 1] + at, count);
  }
}

constexpr int pair_counts = target_tile * most_units * counts_of_pair;

__device__ __forceinline__ unsigned* counts_at(unsigned* counts, int target, int unit) {
  return counts + (target * most_units + unit) * counts_of_pair;
}

// counts [target_tile, most_units, 3], of targets from `target` on, to the results. Each thread
// reads the count that it clears in clear_counts.
__device__ __forceinline__ void flush_counts(const CountOutputs& out, const unsigned* counts,
                                             std::int64_t unit, int units, std::int64_t target,
                                             int tile, std::int64_t targets) {
  const int i = threadIdx.x;
  const int t = i / (most_units * counts_of_pair), u = i / counts_of_pair % most_units;
  if (t >= tile || u >= units) return;
  flush_count(out, (unit + u) * targets + target + t, i % counts_of_pair, counts[i]);
}

__device__ __forceinline__ void clear_counts(unsigned* counts) {
  if (static_cast<int>(threadIdx.x) < pair_counts) counts[threadIdx.x] = 0;
}

// ---- split: every segment on its own -----------------------------------------------------------

template <class T>
struct UnitCountsParams {
  Tensor features;
  UnitTiles tiles;
  std::int64_t targets;
  Divisor segments;
  const UnitThreshold<double>* threshold;  // [units from the first tile on, T]
  std::int64_t first_unit;
  References references;
  CountOutputs out;
};

// One block per tile and segment.
template <class T>
__global__ void __launch_bounds__(threads, 2) unit_counts_kernel(UnitCountsParams<T> p) {
  PROTOSEG_SHARED(unsigned, counts, pair_counts);
  T* staged = dynamic_shared<T>();
  const std::int64_t voxels = p.features.extent.voxels();
  for (std::int64_t i = blockIdx.x; i < p.tiles.count * p.segments; i += gridDim.x) {
    const UnitTile tile = tile_at(p.tiles, i / p.segments);
    const std::int64_t first = i % p.segments * segment_voxels<SumOf<T>>;
    const int n = static_cast<int>(lesser(segment_voxels<SumOf<T>>, voxels - first));
    const int pitch = static_cast<int>(staged_pitch<T>(n));
    const std::int64_t unit = tile.image * p.tiles.channels + tile.channel;
    stage(p.features, tile.image, tile.channel, tile.units, first, n, staged, pitch);
    for (std::int64_t target = 0; target < p.targets; target += target_tile) {
      const int here = static_cast<int>(lesser(target_tile, p.targets - target));
      clear_counts(counts);
      __syncthreads();
      for (int t = 0; t < here; ++t) {
        const PackedRow bits =
            packed_row(p.references, p.out, tile.image, target + t, p.targets).from(first);
        for (int u = 0; u < tile.units; ++u)
          count_segment(staged + u * pitch, n,
                        p.threshold[(unit + u - p.first_unit) * p.targets + target + t], bits,
                        counts_at(counts, t, u));
      }
      __syncthreads();
      flush_counts(p.out, counts, unit, tile.units, target, here, p.targets);
    }
  }
}

}  // namespace protoseg::cuda
