// The adjoint of resizing: maps at `size` become maps at `feature_size`, so that
// sum_x W(x) (U f)(x) = sum_k (U^T W)(k) f(k) and no channel is ever resized for its sums.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "guide.hpp"
#include "parallel.hpp"
#include "taps.hpp"

namespace protoseg {

// Rows of `to` that are added up together, in registers: what stays in the first-level cache.
inline std::int64_t rows_at_once(const Extent& to) {
  return std::clamp<std::int64_t>(2048 / to.n[2], 1, 16);
}

// U^T of some maps of one plane, for a range of feature slices. One per thread.
//
// Axes are reduced one after the other, the last one last: rows are added whole, and only what is
// left is small. Each feature slice adds up the output slices that read it in their order, whoever
// computes it, so that the bits do not depend on how slices are dealt out to threads.
//
// Rows: rows(plane, first, n, out, pitch) writes voxels [first, first + n) of every map at `size`,
// `pitch` apart: up to rows_at_once rows.
template <class Rows>
class SliceAdjoint {
 public:
  SliceAdjoint(const Kernels& kernels, const Extent& to, const AxisTaps taps[3], const Extent& from,
               std::int64_t maps, Rows rows)
      : kernels_(kernels),
        taps_(taps),
        from_(from),
        rows_of_slice_(to.n[1]),
        row_(to.n[2]),
        slice_(from.n[1] * row_),
        maps_(maps),
        rows_(std::move(rows)),
        most_(rows_at_once(to)),
        values_(make_buffer<double>(maps * most_ * row_)),
        reduced_(make_buffer<double>(maps * slice_)),
        out_(make_buffer<double>(rows_abreast * from.n[2])) {
    for (int slot = 0; slot < 2; ++slot)
      for (const double weight : taps[slot].weight) lower_share_[slot].push_back(1.0 - weight);
  }

  // emit(map, first, n, values): n voxels, whole rows, of U^T of a map, from `first` on, for
  // feature slices [begin, end).
  template <class Emit>
  void operator()(std::int64_t plane, std::int64_t begin, std::int64_t end, Emit emit) {
    const std::vector<double>& weight = taps_[0].weight;
    const auto &lower = taps_[0].lower, &upper = taps_[0].upper;
    sums_.assign(maps_ * (end - begin) * slice_, 0.0);
    unused_.resize(slice_);
    const auto first = std::lower_bound(upper.begin(), upper.end(), begin) - upper.begin();
    const auto last = std::upper_bound(lower.begin(), lower.end(), end - 1) - lower.begin();
    // Slices that are rows are added up together.
    const bool rows_only = rows_of_slice_ == 1 && from_.n[1] == 1;
    for (std::int64_t o = first, n; o < last; o += n) {
      n = rows_only ? together(0, o, last) : 1;
      if (rows_only)
        rows_(plane, o * row_, n * row_, values_.get(), most_ * row_);
      else
        reduce_rows(plane, o);
      const double* maps = rows_only ? values_.get() : reduced_.get();
      const std::int64_t pitch = rows_only ? most_ * row_ : slice_;
      for (std::int64_t map = 0; map < maps_; ++map) {
        double* sums = sums_.data() + map * (end - begin) * slice_;
        const auto at = [&](std::int64_t k) {
          return k >= begin && k < end ? sums + (k - begin) * slice_ : unused_.data();
        };
        kernels_.spread(maps + map * pitch, row_, &lower_share_[0][o], &weight[o], n, slice_,
                        at(lower[o]), at(upper[o]));
      }
    }
    const std::int64_t rows = (end - begin) * from_.n[1];
    const std::int64_t first_row = begin * from_.n[1];
    for (std::int64_t map = 0; map < maps_; ++map)
      for (std::int64_t row = 0; row < rows; row += rows_abreast) {
        const std::int64_t n = std::min(rows_abreast, rows - row);
        const double* values = sums_.data() + (map * rows + row) * row_;
        if (n == rows_abreast)
          reduce_columns<rows_abreast>(values);
        else
          for (std::int64_t k = 0; k < n; ++k) reduce_columns<1>(values + k * row_, k);
        emit(map, (first_row + row) * from_.n[2], n * from_.n[2], out_.get());
      }
  }

 private:
  static constexpr std::int64_t rows_abreast = 4;  // whose columns are reduced together

  // The maps of an output slice, reduced along y.
  void reduce_rows(std::int64_t plane, std::int64_t slice) {
    const AxisTaps& taps = taps_[1];
    std::fill_n(reduced_.get(), maps_ * slice_, 0.0);
    for (std::int64_t j = 0, n; j < rows_of_slice_; j += n) {
      n = together(1, j, rows_of_slice_);
      rows_(plane, (slice * rows_of_slice_ + j) * row_, n * row_, values_.get(), most_ * row_);
      for (std::int64_t map = 0; map < maps_; ++map) {
        double* sums = reduced_.get() + map * slice_;
        kernels_.spread(values_.get() + map * most_ * row_, row_, &lower_share_[1][j],
                        &taps.weight[j], n, row_, sums + taps.lower[j] * row_,
                        sums + taps.upper[j] * row_);
      }
    }
  }

  // How many outputs of an axis, from `first` on and before `end`, have the same taps.
  std::int64_t together(int slot, std::int64_t first, std::int64_t end) const {
    const auto &lower = taps_[slot].lower, &upper = taps_[slot].upper;
    std::int64_t n = 1;
    while (n < most_ && first + n < end && lower[first + n] == lower[first] &&
           upper[first + n] == upper[first])
      ++n;
    return n;
  }

  // values [rows, to.x] -> out_ [rows, from.x], from its row `first` on. Sums are held in registers
  // while taps stay the same; those of several rows do not wait for each other.
  template <int rows>
  void reduce_columns(const double* values, std::int64_t first = 0) {
    const AxisTaps& taps = taps_[2];
    double* const out = out_.get() + first * from_.n[2];
    std::fill_n(out, rows * from_.n[2], 0.0);
    for (std::int64_t i = 0; i < row_;) {
      const std::int64_t lower = taps.lower[i], upper = taps.upper[i];
      double at_lower[rows] = {}, at_upper[rows] = {};
      for (; i < row_ && taps.lower[i] == lower && taps.upper[i] == upper; ++i)
        for (int k = 0; k < rows; ++k) {
          at_lower[k] += (1.0 - taps.weight[i]) * values[k * row_ + i];
          at_upper[k] += taps.weight[i] * values[k * row_ + i];
        }
      for (int k = 0; k < rows; ++k) {
        out[k * from_.n[2] + lower] += at_lower[k];
        out[k * from_.n[2] + upper] += at_upper[k];
      }
    }
  }

  const Kernels& kernels_;
  const AxisTaps* taps_;
  const Extent from_;
  const std::int64_t rows_of_slice_;  // output rows of a slice
  const std::int64_t row_;            // outputs of a row
  const std::int64_t slice_;          // of a slice reduced along y: [from.y, to.x]
  const std::int64_t maps_;
  Rows rows_;
  const std::int64_t most_;                // rows at once
  std::vector<double> lower_share_[2];     // 1 - weight, along z and y
  Buffer<double> values_, reduced_, out_;  // [maps, most rows], [maps, slice], [some rows, from.x]
  std::vector<double> sums_;               // [maps, slices, slice]
  std::vector<double> unused_;             // [slice]: what belongs to slices of other ranges
};

// U^T of `maps` maps of each of `planes` planes. make_rows() is called once per thread and returns
// Rows; emit(plane, map, first, n, values) takes the results and is called from any thread.
template <class MakeRows, class Emit>
void adjoint_maps(const Kernels& kernels, const Resize& resize, const Extent& to,
                  std::int64_t planes, std::int64_t maps, MakeRows make_rows, Emit emit) {
  const Extent& from = resize.from;
  AxisTaps taps[3];
  for (int slot = 0; slot < 3; ++slot) taps[slot] = axis_taps(resize, to, slot);
  // Ranges read the output slices at their ends twice: long ones, but not past the cache.
  const std::int64_t slice_bytes = 8 * maps * from.n[1] * to.n[2];
  const std::int64_t longest = std::max<std::int64_t>(1, (std::int64_t{1} << 20) / slice_bytes);
  const std::int64_t wanted = std::max<std::int64_t>(1, 2 * max_threads() / planes);
  const std::int64_t dealt = (from.n[0] + wanted - 1) / wanted;
  const std::int64_t length = std::min(longest, dealt);
  const std::int64_t ranges = (from.n[0] + length - 1) / length;
  parallel_for(planes * ranges, 2 * maps * to.voxels() / ranges + 1, [&] {
    return [&, adjoint = SliceAdjoint(kernels, to, taps, from, maps, make_rows())](
               std::int64_t task) mutable {
      const std::int64_t plane = task / ranges, begin = task % ranges * length;
      adjoint(plane, begin, std::min(from.n[0], begin + length),
              [&](std::int64_t map, std::int64_t first, std::int64_t n, const double* values) {
                emit(plane, map, first, n, values);
              });
    };
  });
}

}  // namespace protoseg
