// A guide's first look at pred, target and mask: packed bits, counts, ranges, largest weights.
#pragma once

#include <cmath>
#include <cstdint>

#include "load.cuh"
#include "protoseg/weight.hpp"

namespace protoseg::cuda {

// Doubles as integers of the same order, for atomics; never 0.
__host__ __device__ __forceinline__ unsigned long long ordered(double x) {
  if (x == 0.0) x = 0.0;  // -0 is no less
  unsigned long long bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits >> 63 ? ~bits : bits | 1ull << 63;
}
__host__ __device__ __forceinline__ double from_ordered(unsigned long long key) {
  const unsigned long long bits = key >> 63 ? key & ~(1ull << 63) : ~key;
  double x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

// What is found out about the values, of all images together. The lowest is kept negated, so that
// zero bits are a start for every member.
struct Findings {
  unsigned long long pred_lowest, pred_highest;  // ordered(-x), ordered(x)
  unsigned long long mask_lowest, mask_highest;
  unsigned pred_nan, mask_nan, target_values;
};

struct ScanParams {
  Tensor pred, target, mask;
  bool has_target, has_mask, binarized;
  double binarize;
  std::int64_t images, targets, words;
  std::int64_t piece_words;       // of one warp
  unsigned* valid;                // [N, words]
  unsigned* actual[2];            // [N, T, words]: of the target and of the output; may be the same
  std::int64_t* voxel_count;      // [N]
  std::int64_t* actual_count[2];  // [N, T]
  unsigned long long* largest;    // [N, T, 2]: ordered largest positive and negative weight
  Findings* findings;
};

// The pred that averages are taken under, and the mask, of one voxel.
__device__ __forceinline__ double guiding_pred(double pred, bool binarized, double binarize) {
  return binarized ? (pred > binarize ? 1.0 : 0.0) : pred;
}

// What one lane has seen.
struct Seen {
  double pred_lowest = HUGE_VAL, pred_highest = -HUGE_VAL;
  double mask_lowest = HUGE_VAL, mask_highest = -HUGE_VAL;
  double largest[2] = {0.0, 0.0};
  bool pred_nan = false, mask_nan = false, target_values = false;
  std::int64_t voxels = 0, actual[2] = {0, 0};
};

// One voxel; returns its bits: 1 valid, 2 target, 4 output.
__device__ __forceinline__ unsigned look_at(const ScanParams& p, std::int64_t image,
                                            std::int64_t target, std::int64_t voxel, Seen* seen) {
  const double mask = p.has_mask ? p.mask.value(image, 0, voxel) : 1.0;
  const double pred = p.pred.value(image, target, voxel);
  const double guiding = guiding_pred(pred, p.binarized, p.binarize);
  seen->pred_lowest = fmin(seen->pred_lowest, pred);
  seen->pred_highest = fmax(seen->pred_highest, pred);
  seen->pred_nan = seen->pred_nan || std::isnan(pred);
  seen->mask_lowest = fmin(seen->mask_lowest, mask);
  seen->mask_highest = fmax(seen->mask_highest, mask);
  seen->mask_nan = seen->mask_nan || std::isnan(mask);
  seen->largest[0] = fmax(seen->largest[0], positive_weight(mask, guiding, 1.0));
  seen->largest[1] = fmax(seen->largest[1], negative_weight(mask, guiding, 1.0));
  unsigned bits = mask > 0.0 ? (pred > 0.5 ? 5u : 1u) : 0u;
  if (p.has_target) {
    const double value = p.target.value(image, target, voxel);
    seen->target_values = seen->target_values || !(value == 0.0 || value == 1.0);
    bits |= mask > 0.0 && value > 0.5 ? 2u : 0u;
  }
  return bits;
}

__device__ __forceinline__ void report_range(double lowest, double highest,
                                             unsigned long long* lowest_key,
                                             unsigned long long* highest_key) {
  const double low = -warp_largest(-lowest), high = warp_largest(highest);
  if (lane_of_thread() != 0) return;
  atomicMax(lowest_key, ordered(-low));
  atomicMax(highest_key, ordered(high));
}

// Everything a warp has seen of one plane.
__device__ __forceinline__ void report(const ScanParams& p, std::int64_t image, std::int64_t target,
                                       const Seen& seen) {
  Findings* findings = p.findings;
  report_range(seen.pred_lowest, seen.pred_highest, &findings->pred_lowest,
               &findings->pred_highest);
  report_range(seen.mask_lowest, seen.mask_highest, &findings->mask_lowest,
               &findings->mask_highest);
  const bool pred_nan = __any_sync(all_lanes, seen.pred_nan);
  const bool mask_nan = __any_sync(all_lanes, seen.mask_nan);
  const bool target_values = __any_sync(all_lanes, seen.target_values);
  const double largest[2] = {warp_largest(seen.largest[0]), warp_largest(seen.largest[1])};
  if (lane_of_thread() != 0) return;
  if (pred_nan) atomicOr(&findings->pred_nan, 1u);
  if (mask_nan) atomicOr(&findings->mask_nan, 1u);
  if (target_values) atomicOr(&findings->target_values, 1u);
  const std::int64_t plane = image * p.targets + target;
  for (int side = 0; side < 2; ++side)
    atomicMax(&p.largest[2 * plane + side], ordered(largest[side]));
  if (target == 0) add_count(p.voxel_count + image, seen.voxels);
  if (p.has_target) add_count(p.actual_count[0] + plane, seen.actual[0]);
  add_count(p.actual_count[1] + plane, seen.actual[1]);
}

// One warp per piece of a plane, one lane per voxel of a word.
template <class = void>
__global__ void __launch_bounds__(threads) scan_kernel(ScanParams p) {
  const std::int64_t voxels = p.pred.extent.voxels();
  const std::int64_t pieces = divide_up(p.words, p.piece_words);
  const std::int64_t all_warps = static_cast<std::int64_t>(gridDim.x) * warps;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * warps + warp_of_thread();
       i < p.images * p.targets * pieces; i += all_warps) {
    const std::int64_t plane = i / pieces, first = i % pieces * p.piece_words;
    const std::int64_t image = plane / p.targets, target = plane % p.targets;
    Seen seen;
    for (std::int64_t word = first; word < lesser(p.words, first + p.piece_words); ++word) {
      const std::int64_t voxel = word * warp_lanes + lane_of_thread();
      const unsigned bits = voxel < voxels ? look_at(p, image, target, voxel, &seen) : 0u;
      const unsigned valid = __ballot_sync(all_lanes, bits & 1u);
      const unsigned actual[2] = {__ballot_sync(all_lanes, bits & 2u),
                                  __ballot_sync(all_lanes, bits & 4u)};
      seen.voxels += __popc(valid);
      for (int which = 0; which < 2; ++which) seen.actual[which] += __popc(actual[which]);
      if (lane_of_thread() != 0) continue;
      if (target == 0) p.valid[image * p.words + word] = valid;
      if (p.has_target) p.actual[0][plane * p.words + word] = actual[0];
      p.actual[1][plane * p.words + word] = actual[1];
    }
    report(p, image, target, seen);
  }
}

// Whether the values are acceptable. Asked on the device, for scores that nobody waits for, and by
// Guide::check on the host.
struct Limits {
  bool has_mask;
  double largest_mask;  // that is acceptable
};

__host__ __device__ __forceinline__ bool pred_in_range(const Findings& f) {
  return f.pred_nan == 0 && f.pred_lowest <= ordered(-0.0) && f.pred_highest <= ordered(1.0);
}
__host__ __device__ __forceinline__ bool mask_in_range(const Findings& f, const Limits& limits) {
  return !limits.has_mask || (f.mask_nan == 0 && f.mask_lowest <= ordered(-0.0) &&
                              f.mask_highest <= ordered(limits.largest_mask));
}
__host__ __device__ __forceinline__ bool acceptable(const Findings& f, const Limits& limits) {
  return f.target_values == 0 && pred_in_range(f) && mask_in_range(f, limits);
}

}  // namespace protoseg::cuda
