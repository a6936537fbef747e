// The table of inner loops, one filled-in copy per instruction set. Only plain types here: this
// header is included by translation units compiled for instruction sets that the caller may lack.
#pragma once

#include <cstdint>

#include "protoseg/dtype.hpp"

namespace protoseg {

// The shape of every reduction, the same on every instruction set and for any number of threads:
// voxel v of a block adds to lane v % lanes in float, blocks add to the lanes of their segment in
// double, lanes add up in a fixed tree, segments in order.
constexpr int lanes = 32;
constexpr std::int64_t block_voxels = 1024;
constexpr std::int64_t segment_voxels = 16 * block_voxels;

// Voxels per packed word of targets and masks.
constexpr int word_bits = 64;

struct Tally {
  std::int64_t tp;
  std::int64_t predicted;
};

struct Range {
  double lowest;
  double highest;
  bool has_nan;
};

// Targets and masks, packed one bit a voxel. `valid` is null without a mask.
struct Reference {
  const std::uint64_t* actual;  // target and valid
  const std::uint64_t* valid;
};

struct Kernels {
  const char* isa;

  // Read n elements, `stride` elements apart, and widen them exactly (no rounding except
  // float64 -> float, which no caller asks for).
  void (*to_float)(DType, const void* source, std::int64_t stride, std::int64_t n, float* out);
  void (*to_double)(DType, const void* source, std::int64_t stride, std::int64_t n, double* out);
  // Channels-last: `channels` neighbours per voxel, written as rows of `pitch` elements.
  void (*tile_to_float)(DType, const void* source, std::int64_t stride, std::int64_t n,
                        std::int64_t channels, float* out, std::int64_t pitch);
  void (*tile_to_double)(DType, const void* source, std::int64_t stride, std::int64_t n,
                         std::int64_t channels, double* out, std::int64_t pitch);

  // positive[lane] += sum w+ (f - reference), negative[lane] += sum w- (f - reference) over the
  // blocks of n voxels; positive and negative are [lanes]. A null negative_weight stands for
  // w- = 1 - w+.
  void (*sums_float)(const float* f, float reference, const float* positive_weight,
                     const float* negative_weight, std::int64_t n, double* positive,
                     double* negative);
  void (*sums_double)(const double* f, double reference, const double* positive_weight,
                      const double* negative_weight, std::int64_t n, double* positive,
                      double* negative);
  // The same of f - reference = 1: the sums of the weights.
  void (*totals_float)(const float* positive_weight, const float* negative_weight, std::int64_t n,
                       double* positive, double* negative);
  void (*totals_double)(const double* positive_weight, const double* negative_weight,
                        std::int64_t n, double* positive, double* negative);

  // w+ = scale+ (m p), w- = scale- (m (1 - p)); mask may be null (m = 1).
  void (*weights_float)(const double* pred, const double* mask, const double* scale, std::int64_t n,
                        float* positive, float* negative);
  void (*weights_double)(const double* pred, const double* mask, const double* scale,
                         std::int64_t n, double* positive, double* negative);

  // tp and predicted of the map f > threshold (above) or f < threshold (below); voxel 0 is bit
  // `offset` of the packed words.
  void (*count_above_float)(const float* f, float threshold, std::int64_t n, Reference,
                            std::int64_t offset, Tally*);
  void (*count_below_float)(const float* f, float threshold, std::int64_t n, Reference,
                            std::int64_t offset, Tally*);
  void (*count_above_double)(const double* f, double threshold, std::int64_t n, Reference,
                             std::int64_t offset, Tally*);
  void (*count_below_double)(const double* f, double threshold, std::int64_t n, Reference,
                             std::int64_t offset, Tally*);
  void (*decide)(const double* projection, double threshold, std::int64_t n, std::uint8_t* map);

  // projection[v] += weight[0] f[0][v] + ... in the order of the channels; square[v] += f^2.
  // The memory `ahead` elements after every f is fetched meanwhile.
  void (*project_float)(const float* const* f, const double* weight, std::int64_t channels,
                        std::int64_t ahead, std::int64_t n, double* projection);
  void (*project_double)(const double* const* f, const double* weight, std::int64_t channels,
                         std::int64_t ahead, std::int64_t n, double* projection);
  void (*square_float)(const float* const* f, std::int64_t channels, std::int64_t n,
                       double* square);
  void (*square_double)(const double* const* f, std::int64_t channels, std::int64_t n,
                        double* square);

  // Resizing: out = lerp(a, b, weight); out[v] = lerp(row[lower[v]], row[upper[v]], weight[v]).
  void (*blend)(const double* a, const double* b, double weight, std::int64_t n, double* out);
  void (*sample)(const double* row, const std::int64_t* lower, const std::int64_t* upper,
                 const double* weight, std::int64_t n, double* out);

  // Validation and packing.
  void (*range)(const double* x, std::int64_t n, Range*);
  bool (*is_binary)(const double* x, std::int64_t n);
  void (*pack)(const double* x, double threshold, std::int64_t n, std::uint64_t* words);
};

// Lanes add up as a tree of halves: the one order in which lane sums become a number.
[[maybe_unused]] PROTOSEG_INLINE double reduce_lanes(const double* lane) {
  double sum[lanes];
  for (int i = 0; i < lanes; ++i) sum[i] = lane[i];
  for (int width = lanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) sum[i] += sum[i + width];
  return sum[0];
}

}  // namespace protoseg
