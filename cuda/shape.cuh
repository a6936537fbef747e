// The shape of blocks and of every sum, and how lanes add up.
//
// A plane of voxels is summed in segments. Within a segment, voxel v belongs to lane
// v % row / step of `threads` lanes; a lane adds up its (at most 32) voxels in order, in float for
// all features but float64; lanes add up in double, as a tree in each warp, then warp by warp;
// segments add up in order. Every kernel keeps to this, so that the strategy, the layout and the
// alignment of the features do not change a bit of a prototype.
#pragma once

#include <cstdint>
#include <type_traits>

#include "platform.cuh"

namespace protoseg::cuda {

constexpr int warp_lanes = 32;
constexpr int threads = 256;
constexpr int warps = threads / warp_lanes;
constexpr unsigned all_lanes = 0xffffffffu;

// Neighbouring voxels that a lane takes at a time: 16 bytes of the type that sums are taken in.
template <class Sum>
constexpr int step = 16 / static_cast<int>(sizeof(Sum));
// Voxels that all lanes take at a time, and voxels of a segment: eight times as many.
template <class Sum>
constexpr int row_voxels = threads * step<Sum>;
template <class Sum>
constexpr std::int64_t segment_voxels = 8 * row_voxels<Sum>;

__host__ __device__ __forceinline__ constexpr std::int64_t divide_up(std::int64_t a,
                                                                     std::int64_t b) {
  return (a + b - 1) / b;
}
__host__ __device__ __forceinline__ constexpr std::int64_t round_up(std::int64_t a,
                                                                    std::int64_t b) {
  return divide_up(a, b) * b;
}

__host__ __device__ __forceinline__ constexpr std::int64_t lesser(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}

__device__ __forceinline__ int lane_of_thread() { return threadIdx.x % warp_lanes; }
__device__ __forceinline__ int warp_of_thread() { return threadIdx.x / warp_lanes; }

__device__ __forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }

// The sum over a warp, in every lane: neighbours first.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int distance = 1; distance < warp_lanes; distance *= 2)
    value += __shfl_xor_sync(all_lanes, value, distance);
  return value;
}

template <class T>
__device__ __forceinline__ T warp_largest(T value) {
#pragma unroll
  for (int distance = 1; distance < warp_lanes; distance *= 2) {
    const T other = __shfl_xor_sync(all_lanes, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// What the warps of a block have to say, added up in their order. partial [warps, pitch].
__device__ __forceinline__ double sum_of_warps(const double* partial, int pitch) {
  double sum = partial[0];
#pragma unroll
  for (int warp = 1; warp < warps; ++warp) sum += partial[warp * pitch];
  return sum;
}

// Sums over a block, in every thread. All threads take part.
template <int count>
__device__ __forceinline__ void block_sums(double (&value)[count]) {
  PROTOSEG_SHARED(double, partial, warps* count);
  __syncthreads();  // nobody reads earlier sums any more
#pragma unroll
  for (int k = 0; k < count; ++k) {
    value[k] = warp_sum(value[k]);
    if (lane_of_thread() == 0) partial[warp_of_thread() * count + k] = value[k];
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < count; ++k) value[k] = sum_of_warps(partial + k, count);
}

// Integers only: their sums do not depend on who comes first.
__device__ __forceinline__ void add_count(std::int64_t* total, std::int64_t count) {
  if (count != 0)
    atomicAdd(reinterpret_cast<unsigned long long*>(total), static_cast<unsigned long long>(count));
}

}  // namespace protoseg::cuda
