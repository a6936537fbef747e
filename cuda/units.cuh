// Units, from features to counts in one launch. Every plane is read from memory once: it stays in
// the shared memory of a block, or of a cluster of blocks that hold a part each; or it is streamed
// through shared memory twice, the second time from the cache.
#pragma once

#include <cstdint>

#include "count.cuh"
#include "resized.cuh"

namespace protoseg::cuda {

template <class T>
struct UnitsParams {
  Tensor features;
  Weights<SumOf<T>> weights;
  UnitTiles tiles;
  int targets, voxels, segments;
  int block_segments;  // of one block of the cluster
  int pitch;           // of staged planes
  bool resident;       // all of a block's segments are staged at once
  Metric metric;
  double temperature;
  References references;
  CountOutputs out;
  Cells cells;   // of features that are resized
  double* sums;  // [units from first_unit on, segments, T, 2]: not null if others need them
  std::int64_t first_unit;
};

// Blocks that should fit on a multiprocessor, for the compiler's choice of registers.
template <class T, bool resized>
constexpr int units_blocks = resized || std::is_same_v<T, double> ? 2 : 3;

// One block's part of a tile of units.
template <class T, bool resized>
class UnitsBlock {
 public:
  using Sum = SumOf<T>;
  static constexpr int segment_size = segment_voxels<Sum>;

  __device__ UnitsBlock(const UnitsParams<T>& p, const UnitTile& tile, double* sums, T* staged)
      : p_(p),
        tile_(tile),
        first_segment_(min(p.segments, static_cast<int>(cluster_block_rank()) * p.block_segments)),
        sums_(sums),
        staged_(staged) {}

  // Before the first pass over the planes.
  __device__ void start(Sum* reference) {
    load_references<T>(p_.features, tile_.image, tile_.channel, tile_.units, reference);
    if (!p_.resident) return;
    const int first = first_segment_ * segment_size;
    const int last = min(p_.voxels, last_segment() * segment_size);
    if (first < last) stage_voxels(first, last - first);
    __syncthreads();
  }

  // Sums of all the block's segments: sums [block_segments, target_tile, most_units, 2].
  __device__ void add_up(int target, int targets, const Sum* reference, double* partial) {
    for (int segment = first_segment_; segment < last_segment(); ++segment) {
      const T* staged = segment_of(segment);
      const int first = segment * segment_size;
      for (int t = 0; t < targets; ++t) {
        const WeightRow<Sum> weights = p_.weights.row(tile_.image, target + t, p_.targets);
        const double sum = segment_sums(staged, p_.pitch, tile_.units, voxels_of(segment),
                                        weights.from(first), reference, partial);
        if (static_cast<int>(threadIdx.x) < 2 * tile_.units)
          sums_[((segment - first_segment_) * target_tile + t) * (2 * most_units) + threadIdx.x] =
              sum;
      }
    }
  }

  // For others who need them. Every thread keeps the sums that it added up.
  __device__ void keep_sums(int target, int targets) const {
    const int u = threadIdx.x / 2;
    if (p_.sums == nullptr || u >= tile_.units) return;
    for (int segment = first_segment_; segment < last_segment(); ++segment) {
      const double* of = sums_ + (segment - first_segment_) * target_tile * (2 * most_units);
      const std::int64_t at = (unit() + u - p_.first_unit) * p_.segments + segment;
      for (int t = 0; t < targets; ++t)
        p_.sums[(at * p_.targets + target + t) * 2 + threadIdx.x % 2] =
            of[t * (2 * most_units) + threadIdx.x];
    }
  }

  // Thread t most_units + u decides unit u against target t, from the sums of the whole cluster.
  __device__ void decide(int target, int targets, UnitThreshold<double>* threshold) const {
    const int u = threadIdx.x % most_units, t = threadIdx.x / most_units;
    if (t >= targets || u >= tile_.units) return;
    double sum[2] = {0.0, 0.0};
    for (int segment = 0; segment < p_.segments; ++segment) {
      const int rank = segment / p_.block_segments;
      const double* other = cluster_map_shared(sums_, static_cast<unsigned>(rank));
      const double* at =
          other + ((segment - rank * p_.block_segments) * target_tile + t) * (2 * most_units) +
          2 * u;
      const double2 part = *reinterpret_cast<const double2*>(at);
      sum[0] += part.x;
      sum[1] += part.y;
    }
    const std::int64_t plane = tile_.image * p_.targets + target + t;
    const double reference = widen(p_.features.template at<T>(tile_.image, tile_.channel + u, 0));
    const bool in_float = std::is_same_v<Sum, float> && !resized;
    Boundary boundary;
    threshold[threadIdx.x] =
        decide_unit(make_prototypes(reference, sum, p_.weights.total + 2 * plane), p_.metric,
                    p_.temperature, in_float, &boundary);
    if (cluster_block_rank() == 0)
      write_known(p_.out, p_.references, (unit() + u) * p_.targets + target + t, tile_.image,
                  target + t, p_.targets, boundary.defined);
  }

  __device__ void count(int target, int targets, const UnitThreshold<double>* threshold,
                        unsigned* counts) {
    for (int segment = first_segment_; segment < last_segment(); ++segment) {
      const T* staged = segment_of(segment);
      for (int t = 0; t < targets; ++t) {
        const PackedRow bits =
            packed_row(p_.references, p_.out, tile_.image, target + t, p_.targets)
                .from(segment * segment_size);
        for (int u = 0; u < tile_.units; ++u)
          count_segment(staged + u * p_.pitch, voxels_of(segment), threshold[t * most_units + u],
                        bits, counts_at(counts, t, u));
      }
    }
  }

  // The same of planes of another size, which are resident in this block.
  __device__ void count_resized(int target, int targets, const UnitThreshold<double>* threshold,
                                unsigned* counts) const {
    for (int u = 0; u < tile_.units; ++u) {
      const Plane<T> plane = contiguous_plane(staged_ + u * p_.pitch, p_.features.extent);
      for (int t = 0; t < targets; ++t)
        count_lines(p_.cells, plane, threshold[t * most_units + u],
                    cell_bits(p_.cells, p_.out, tile_.image, target + t, p_.targets), 0,
                    p_.cells.tiles(), counts_at(counts, t, u));
    }
  }

  __device__ int units() const { return tile_.units; }
  __device__ std::int64_t unit() const { return tile_.image * p_.tiles.channels + tile_.channel; }

 private:
  __device__ int last_segment() const {
    return min(p_.segments, first_segment_ + p_.block_segments);
  }
  __device__ int voxels_of(int segment) const {
    return min(segment_size, p_.voxels - segment * segment_size);
  }
  __device__ void stage_voxels(int first, int n) {
    stage(p_.features, tile_.image, tile_.channel, tile_.units, first, n, staged_, p_.pitch);
  }
  // Where a segment lies, after it was staged if planes are streamed.
  __device__ const T* segment_of(int segment) {
    if (p_.resident) return staged_ + (segment - first_segment_) * segment_size;
    __syncthreads();  // nobody reads the segment before it any more
    stage_voxels(segment * segment_size, voxels_of(segment));
    __syncthreads();
    return staged_;
  }

  const UnitsParams<T>& p_;
  const UnitTile tile_;
  const int first_segment_;
  double* const sums_;
  T* const staged_;
};

// A block's dynamic shared memory: so many doubles of sums, then the staged planes.
__host__ __device__ constexpr std::int64_t shared_sums(std::int64_t block_segments) {
  return block_segments * target_tile * most_units * 2;
}
template <class T>
__device__ __forceinline__ T* staged_behind(double* sums, const UnitsParams<T>& p) {
  return reinterpret_cast<T*>(sums + shared_sums(p.block_segments));
}

// Tile `i` of the layer, by the whole cluster.
template <class T, bool resized>
__device__ __forceinline__ void sweep_tile(const UnitsParams<T>& p, std::int64_t i, double* sums,
                                           T* staged) {
  PROTOSEG_SHARED(double, partial, warps * most_units * 2);
  PROTOSEG_SHARED(SumOf<T>, reference, most_units);
  PROTOSEG_SHARED(UnitThreshold<double>, threshold, target_tile * most_units);
  PROTOSEG_SHARED(unsigned, counts, pair_counts);
  UnitsBlock<T, resized> block(p, tile_at(p.tiles, i), sums, staged);
  block.start(reference);
  for (int target = 0; target < p.targets; target += target_tile) {
    const int here = min(target_tile, p.targets - target);
    block.add_up(target, here, reference, partial);
    block.keep_sums(target, here);
    clear_counts(counts);
    cluster_sync();
    block.decide(target, here, threshold);
    __syncthreads();
    if constexpr (resized)
      block.count_resized(target, here, threshold, counts);
    else
      block.count(target, here, threshold, counts);
    __syncthreads();
    flush_counts(p.out, counts, block.unit(), block.units(), target, here, p.targets);
    cluster_sync();  // nobody reads this block's sums any more
  }
}

// One cluster per tile of units; without clusters, one block.
template <class T, bool resized>
__global__ void __launch_bounds__(threads, units_blocks<T, resized>)
    units_kernel(UnitsParams<T> p) {
  double* sums = dynamic_shared<double>();
  T* staged = staged_behind(sums, p);
  const int clusters = gridDim.x / cluster_blocks();
  for (std::int64_t i = blockIdx.x / cluster_blocks(); i < p.tiles.count; i += clusters)
    sweep_tile<T, resized>(p, i, sums, staged);
}

}  // namespace protoseg::cuda
