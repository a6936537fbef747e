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
static_assert(block_voxels % word_bits == 0, "blocks begin with a word");

struct Tally {
  std::int64_t tp;
  std::int64_t predicted;
};

struct Range {
  double lowest;
  double highest;
  bool has_nan;
};

// What a map is compared with, packed one bit a voxel: one or two planes, and which voxels count.
struct References {
  const std::uint64_t* actual[2];  // and valid; the second may be null
  const std::uint64_t* valid;      // null without a mask
};

// Positive and negative weights of consecutive voxels.
template <class T>
struct WeightRows {
  const T* positive;
  const T* negative;     // null: 1 - positive
  bool mostly_positive;  // then: the positive weights of the whole image add up to more
};

// Consecutive voxels where they lie. Kernels of float read float16, bfloat16 and float32 and widen
// in registers; kernels of double read float64.
struct StoredRow {
  const void* data;
  DType dtype;
};

// Memory to fetch while something else is read: element by element, or half as fast.
struct Soon {
  const void* data;
  bool half_rate;
};

// A map in fixed point spans this many steps, so that differences fit in 16 bits; weights are
// multiples of 2^-15.
constexpr double coarse_steps = 32000.0;

// The taps of a row's outputs along x, in octets. What is read behind a row has no weight.
struct RowTaps {
  std::int64_t octets;                // a multiple of four
  bool near;                          // every two octets have the same `first`
  const std::int64_t* first;          // [octets]
  const std::uint8_t* bytes;          // [octets, 16]: lower taps after `first`, as bytes of values
  const std::int64_t* first_of_four;  // [octets / 4]
  const std::int16_t* index;          // [octets, 8]: lower taps after `first_of_four`, below 32
  const std::int16_t* weight;         // [octets, 8]
};

// Rows from `first` on.
struct CoarseRows {
  const std::int16_t* values;
  std::int64_t pitch, first;
};

// Output slices [begin, end) of a resized map between two feature slices, which have been resized
// along the other axes, in fixed point; each followed by word_bits values of no meaning.
struct SliceInterval {
  const std::int16_t *lower, *upper;
  std::int64_t begin, end;
};

// Voxels [0, voxels) of all output slices of some intervals.
struct SliceRun {
  const SliceInterval* intervals;
  std::int64_t count, voxels;
  const std::int16_t* weight;  // of an output slice
  References references;
  std::int64_t first_bit, slice_bits;  // of slice 0's first voxel; from slice to slice
  std::int16_t level;                  // the threshold
  std::int16_t doubt;   // a value this near to the level may lie on either side; a few steps
  std::uint64_t below;  // ones: the foreground lies below the level
};

// Of one map, and two references.
struct MapTally {
  std::int64_t predicted;
  std::int64_t tp[2];
};

// Voxels of an output slice from `first` on, a bit each.
struct DoubtfulVoxels {
  std::int64_t slice, first;
  std::uint64_t voxels;
};

struct Kernels {
  const char* isa;

  // Read n elements, `stride` elements apart, and widen them exactly (no rounding except
  // float64 -> float, which no caller asks for).
  void (*to_float)(DType, const void* source, std::int64_t stride, std::int64_t n, float* out);
  void (*to_double)(DType, const void* source, std::int64_t stride, std::int64_t n, double* out);
  // Channels-last: `channels` neighbours per voxel, written as rows of `pitch` elements; dtypes as
  // of a StoredRow.
  void (*tile_to_float)(DType, const void* source, std::int64_t stride, std::int64_t n,
                        std::int64_t channels, float* out, std::int64_t pitch);
  void (*tile_to_double)(DType, const void* source, std::int64_t stride, std::int64_t n,
                         std::int64_t channels, double* out, std::int64_t pitch);

  // positive[lane] += sum w+ (f - reference), negative[lane] += sum w- (f - reference) over the
  // blocks of n voxels; positive and negative are [lanes].
  void (*sums_float)(StoredRow f, float reference, const WeightRows<float>&, std::int64_t n,
                     const Soon&, double* positive, double* negative);
  void (*sums_double)(StoredRow f, double reference, const WeightRows<double>&, std::int64_t n,
                      const Soon&, double* positive, double* negative);
  // The same of f - reference = 1: the sums of the weights. A null negative_weight stands for
  // w- = 1 - w+.
  void (*totals_float)(const float* positive_weight, const float* negative_weight, std::int64_t n,
                       double* positive, double* negative);
  void (*totals_double)(const double* positive_weight, const double* negative_weight,
                        std::int64_t n, double* positive, double* negative);

  // w+ = scale+ (m p), w- = scale- (m (1 - p)); mask may be null (m = 1).
  void (*weights_float)(const double* pred, const double* mask, const double* scale, std::int64_t n,
                        float* positive, float* negative);
  void (*weights_double)(const double* pred, const double* mask, const double* scale,
                         std::int64_t n, double* positive, double* negative);

  // tp and predicted of the map f > threshold (above) or f < threshold (below), for each of the
  // references; voxel 0 is bit `offset` of the packed words, the first of a word.
  void (*count_above_float)(StoredRow f, float threshold, std::int64_t n, const References&,
                            std::int64_t offset, const Soon&, Tally*);
  void (*count_below_float)(StoredRow f, float threshold, std::int64_t n, const References&,
                            std::int64_t offset, const Soon&, Tally*);
  void (*count_above_double)(StoredRow f, double threshold, std::int64_t n, const References&,
                             std::int64_t offset, const Soon&, Tally*);
  void (*count_below_double)(StoredRow f, double threshold, std::int64_t n, const References&,
                             std::int64_t offset, const Soon&, Tally*);
  void (*decide)(const double* projection, double threshold, std::int64_t n, std::uint8_t* map);

  // projection[v] += weight[0] f[0][v] + ... in the order of the channels; square[v] += f^2.
  // The memory `ahead` elements after every f is fetched meanwhile. All rows are of one dtype.
  void (*project)(const StoredRow* f, const double* weight, std::int64_t channels,
                  std::int64_t ahead, std::int64_t n, double* projection);
  void (*square)(const StoredRow* f, std::int64_t channels, std::int64_t n, double* square);

  // Resizing: out = lerp(a, b, weight); out[v] = lerp(row[lower[v]], row[upper[v]], weight[v]).
  void (*blend)(const double* a, const double* b, double weight, std::int64_t n, double* out);
  void (*sample)(const double* row, const std::int64_t* lower, const std::int64_t* upper,
                 const double* weight, std::int64_t n, double* out);

  // Counting a resized map: see fixed_point.hpp.
  void (*span_float)(const float* f, std::int64_t n, double* lowest, double* highest);
  void (*span_double)(const double* f, std::int64_t n, double* lowest, double* highest);
  void (*quantise_float)(const float* f, double offset, double scale, std::int64_t n,
                         std::int16_t* out);
  void (*quantise_double)(const double* f, double offset, double scale, std::int64_t n,
                          std::int16_t* out);
  void (*row_spans)(const std::int16_t* x, std::int64_t rows, std::int64_t n, std::int16_t* lowest,
                    std::int16_t* highest);
  // Rows of n values resized along x, written `pitch` apart, one after the other; then rows of n of
  // these along y, with taps [rows]. Both write whole registers: up to 31 values too many.
  void (*resize_rows)(const std::int16_t* x, std::int64_t rows, std::int64_t n, const RowTaps&,
                      std::int16_t* out, std::int64_t pitch);
  void (*blend_rows)(const CoarseRows&, const std::int64_t* lower, const std::int64_t* upper,
                     const std::int16_t* weight, std::int64_t rows, std::int64_t n,
                     std::int16_t* out);
  std::int64_t (*count_slices)(const SliceRun&, MapTally*, DoubtfulVoxels* doubtful);
  void (*count_whole)(const References&, std::int64_t first_bit, std::int64_t n, MapTally*);
  // The adjoint of taps: lower += the sum of lower_share[r] x[r], upper += that of upper_share[r]
  // x[r], over rows x[r] of n values, `pitch` apart.
  void (*spread)(const double* x, std::int64_t pitch, const double* lower_share,
                 const double* upper_share, std::int64_t rows, std::int64_t n, double* lower,
                 double* upper);

  // Gradients: out[v] = weight[0] rows[0][v] + ... in their order; out[v] -= factor[v] f[v]; rows
  // of any floating dtype, written `stride` elements apart.
  void (*combine_float)(const float* const* rows, const float* weight, std::int64_t count,
                        std::int64_t n, float* out);
  void (*combine_double)(const double* const* rows, const double* weight, std::int64_t count,
                         std::int64_t n, double* out);
  void (*shrink_float)(StoredRow f, const float* factor, std::int64_t n, float* out);
  void (*shrink_double)(StoredRow f, const double* factor, std::int64_t n, double* out);
  void (*write_float)(const float* x, std::int64_t n, DType, void* target, std::int64_t stride);
  void (*write_double)(const double* x, std::int64_t n, DType, void* target, std::int64_t stride);

  // Validation and packing.
  void (*range)(const double* x, std::int64_t n, Range*);
  bool (*is_binary)(const double* x, std::int64_t n);
  void (*pack)(const double* x, double threshold, std::int64_t n, std::uint64_t* words);
  // The same for the commonest dtypes where they lie: range and pack at 0.5, is_binary and pack.
  void (*scan_floats)(const float* x, std::int64_t n, Range*, std::uint64_t* words);
  bool (*scan_bytes)(const std::uint8_t* x, std::int64_t n, std::uint64_t* words);
};

// `bits` (1 to 64) bits from bit `offset` on, and whatever follows them in their words; no word
// past the last of them is read.
[[maybe_unused]] PROTOSEG_INLINE std::uint64_t bits_at(const std::uint64_t* words,
                                                       std::int64_t offset, std::int64_t bits) {
  const std::int64_t word = offset / word_bits;
  const int shift = static_cast<int>(offset % word_bits);
  std::uint64_t result = words[word] >> shift;
  if (shift + bits > word_bits) result |= words[word + 1] << (word_bits - shift);
  return result;
}

[[maybe_unused]] PROTOSEG_INLINE std::uint64_t low_bits(std::int64_t bits) {  // 0 to 64
  return bits == 0 ? 0 : ~std::uint64_t{0} >> (word_bits - bits);
}

// Lanes add up as a tree of halves: the one order in which lane sums become a number.
[[maybe_unused]] PROTOSEG_INLINE double reduce_lanes(const double* lane) {
  double sum[lanes];
  for (int i = 0; i < lanes; ++i) sum[i] = lane[i];
  for (int width = lanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) sum[i] += sum[i + width];
  return sum[0];
}

}  // namespace protoseg
