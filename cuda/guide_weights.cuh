// The weights of prototypes at a feature size: scaled and narrowed to the type that sums are taken
// in, with their totals; and the adjoint of resizing, which brings them to that size.
#pragma once

#include <cmath>
#include <cstdint>

#include "guide_scan.cuh"
#include "resized.cuh"

namespace protoseg::cuda {

// Voxels that a block adds up.
constexpr std::int64_t totals_voxels = 8192;

// What weights are made of: planes [N, T] of pred, times a mask.
struct Guiding {
  Tensor pred, mask;
  bool has_mask, binarized;
  double binarize;
  std::int64_t targets;

  // w+ or w-, unscaled, of a voxel of plane image x targets + target
  __device__ double weight(std::int64_t plane, int side, std::int64_t voxel) const {
    const std::int64_t image = plane / targets;
    const double p = guiding_pred(pred.value(image, plane % targets, voxel), binarized, binarize);
    const double m = has_mask ? mask.value(image, 0, voxel) : 1.0;
    return side == 0 ? positive_weight(m, p, 1.0) : negative_weight(m, p, 1.0);
  }
};

template <class Sum>
struct WeightsParams {
  Guiding guiding;        // at the size of the pred
  const double* adjoint;  // [N, T, 2, voxels]; null: weights at the size of the pred itself
  std::int64_t planes, voxels, segments;
  const unsigned long long* largest;  // [N, T, 2], ordered
  int most_exponent;                  // of the scale
  Sum* out;                           // [N, T, 2, pitch], zero beyond voxels; null: not kept
  std::int64_t pitch;
  double* scale;    // [N, T, 2]
  double* partial;  // [N, T, 2, segments]: sums of the scaled weights
};

// One block per plane, side and segment.
template <class Sum>
__global__ void __launch_bounds__(threads) weights_kernel(WeightsParams<Sum> p) {
  for (std::int64_t i = blockIdx.x; i < p.planes * 2 * p.segments; i += gridDim.x) {
    const std::int64_t row = i / p.segments, segment = i % p.segments;
    const double scale = normalising_scale(from_ordered(p.largest[row]), p.most_exponent);
    const std::int64_t end = lesser((segment + 1) * totals_voxels, p.pitch);
    double sum[1] = {0.0};
    for (std::int64_t v = segment * totals_voxels + threadIdx.x; v < end; v += threads) {
      double exact = 0.0;
      if (v < p.voxels)
        exact = p.adjoint ? p.adjoint[row * p.voxels + v]
                          : p.guiding.weight(row / 2, static_cast<int>(row % 2), v);
      const Sum weight = static_cast<Sum>(scale * exact);
      if (p.out) p.out[row * p.pitch + v] = weight;
      sum[0] += static_cast<double>(weight);
    }
    block_sums(sum);
    if (threadIdx.x != 0) continue;
    p.partial[i] = sum[0];
    if (segment == 0) p.scale[row] = scale;
  }
}

struct TotalsParams {
  const double* partial;  // [rows, segments]
  std::int64_t rows, segments;
  double* total;  // [rows]
  const Findings* findings;
  Limits limits;
};

// Segments in their order. An invalid guide has no totals, hence no prototypes, hence no scores.
template <class = void>
__global__ void __launch_bounds__(threads) totals_kernel(TotalsParams p) {
  const bool valid = acceptable(*p.findings, p.limits);
  for (std::int64_t row = blockIdx.x * static_cast<std::int64_t>(threads) + threadIdx.x;
       row < p.rows; row += static_cast<std::int64_t>(gridDim.x) * threads) {
    double sum = 0.0;
#pragma unroll 8
    for (std::int64_t segment = 0; segment < p.segments; ++segment)
      sum += p.partial[row * p.segments + segment];
    p.total[row] = valid ? sum : static_cast<double>(NAN);
  }
}

// ---- adjoint -----------------------------------------------------------------------------------

// What the outputs of an axis that read feature voxel k add to it, in their order; value(output).
// Those whose lower tap is k - 1 have k above it, or no weight there.
template <class Value>
__device__ __forceinline__ double gather(const AxisTaps& axis, std::int64_t k, Value value) {
  double sum = 0.0;
  const int begin = axis.begin[k];
  if (k > 0)
    for (int o = axis.begin[k - 1]; o < begin; ++o) sum = fma(axis.exact[o], value(o), sum);
  for (int o = begin; o < axis.begin[k + 1]; ++o) sum = fma(1.0 - axis.exact[o], value(o), sum);
  return sum;
}

struct AdjointRowsParams {
  Guiding guiding;
  Cells cells;
  std::int64_t first_plane, planes;
  double* out;  // [planes, 2, to.z, to.y, from.x]
};

// Along x, from pred and mask. One thread per element of out.
template <class = void>
__global__ void __launch_bounds__(threads) adjoint_rows_kernel(AdjointRowsParams p) {
  const std::int64_t lines = p.cells.to.z * p.cells.to.y, length = p.cells.from.x;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(threads) + threadIdx.x;
       i < p.planes * 2 * lines * length; i += static_cast<std::int64_t>(gridDim.x) * threads) {
    const std::int64_t k = i % length, line = i / length % lines, row = i / length / lines;
    p.out[i] = gather(p.cells.x, k, [&](int o) {
      return p.guiding.weight(p.first_plane + row / 2, static_cast<int>(row % 2),
                              line * p.cells.to.x + o);
    });
  }
}

struct AdjointAxisParams {
  AxisTaps axis;
  std::int64_t outer, n_out, n_in, inner;
  const double* in;  // [outer, n_out, inner]
  double* out;       // [outer, n_in, inner]
};

// Along y or z. One thread per element of out.
template <class = void>
__global__ void __launch_bounds__(threads) adjoint_axis_kernel(AdjointAxisParams p) {
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(threads) + threadIdx.x;
       i < p.outer * p.n_in * p.inner; i += static_cast<std::int64_t>(gridDim.x) * threads) {
    const std::int64_t inner = i % p.inner, k = i / p.inner % p.n_in;
    const double* in = p.in + i / p.inner / p.n_in * p.n_out * p.inner + inner;
    p.out[i] = gather(p.axis, k, [&](int o) { return in[o * p.inner]; });
  }
}

struct LargestParams {
  const double* weight;  // [rows, voxels]
  std::int64_t rows, voxels, segments;
  unsigned long long* largest;  // [rows], ordered
};

// One block per row and segment.
template <class = void>
__global__ void __launch_bounds__(threads) largest_kernel(LargestParams p) {
  for (std::int64_t i = blockIdx.x; i < p.rows * p.segments; i += gridDim.x) {
    const std::int64_t row = i / p.segments, first = i % p.segments * totals_voxels;
    const std::int64_t end = lesser(p.voxels, first + totals_voxels);
    double largest = 0.0;
    for (std::int64_t v = first + threadIdx.x; v < end; v += threads)
      largest = fmax(largest, p.weight[row * p.voxels + v]);
    largest = warp_largest(largest);
    if (lane_of_thread() == 0) atomicMax(p.largest + row, ordered(largest));
  }
}

}  // namespace protoseg::cuda
