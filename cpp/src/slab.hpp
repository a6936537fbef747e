// Counts a slab of one map: the outputs between some neighbouring feature slices.
#pragma once

#include <cstdint>
#include <vector>

#include "resize_plan.hpp"
#include "units.hpp"

namespace protoseg {

// Intervals [begin, end) of slices, and the feature rows between which they lie.
struct Slab {
  std::int64_t begin, end;
  std::int64_t first_row, rows;
};

// Slabs of all the map: small enough for the cache, and at least `parts` of them, if there are as
// many intervals to split.
std::vector<Slab> make_slabs(const ResizePlan& plan, std::int64_t parts);

// One per thread. V is the type of the values that are resized: float or double.
//
// Values are looked at in fixed point. All roundings of a look together are below its doubt, so a
// value further from the threshold than that has the sign that double arithmetic gives; the few
// that are nearer are decided in double, as the specification has it. So the counts are those of
// the double values, on every instruction set.
template <class V>
class SlabCounter {
 public:
  // asked: what maps are compared with, see GuideState::plane.
  SlabCounter(const Kernels& kernels, const GuideState& guide, const ResizePlan& plan,
              const std::vector<int>& asked, std::int64_t most_rows, std::int64_t most_thresholds);

  // values [slab.rows, from.x] are read once for all the thresholds [count], which belong to the
  // targets of an image from `first_target` on. tally [count, asked] is added to.
  void operator()(const Slab& slab, const V* values, const UnitThreshold<double>* thresholds,
                  std::int64_t count, std::int64_t image, std::int64_t first_target, Tally* tally);

 private:
  // What is known of the map and one threshold.
  struct Look {
    UnitThreshold<double> threshold;
    References references;
    std::int16_t level;  // the threshold in fixed point
    std::int16_t corner_doubt, doubt;
    MapTally sum;
  };
  enum class Side { foreground, background, open };

  void look(const Slab& slab, const UnitThreshold<double>* thresholds, std::int64_t count);
  void look_at(Look& look, double lowest, double highest) const;
  void count_flat(const Slab& slab, std::int64_t count);
  void count_band(const Slab& slab, const Band& band, std::int64_t count);
  void span_rows(const Interval& slices);
  Side side(const Look& look, std::int64_t lower, std::int64_t upper) const;
  void count_whole(const Interval& slices, std::int64_t begin, std::int64_t end, Look& look) const;
  void count_open(const SliceInterval* intervals, std::int64_t count, std::int64_t begin,
                  std::int64_t end, Look& look);
  std::int64_t doubt_all(const SliceRun& run);
  const std::int16_t* resized_slice(std::int64_t slice, const Band& band);
  void resize_rows(std::int64_t first, std::int64_t rows, std::int16_t* out, std::int64_t pitch);
  void count_exactly(std::int64_t begin, const DoubtfulVoxels& word, Look& look) const;
  bool is_foreground(const Look& look, std::int64_t z, std::int64_t y, std::int64_t x) const;

  const Kernels& kernels_;
  const GuideState& guide_;
  const ResizePlan& plan_;
  const std::vector<int>& asked_;
  const RowTaps row_taps_;
  const std::int64_t n_;  // feature voxels per row
  std::vector<Look> looks_;

  // The map in fixed point: scale (value - offset); 0 where that cannot tell its values apart.
  double offset_ = 0.0, scale_ = 0.0;
  Buffer<std::int16_t> coarse_;                      // [rows, n], and padding
  Buffer<std::int16_t> lowest_, highest_;            // [rows]
  Buffer<std::int16_t> span_lowest_, span_highest_;  // [rows of a slice], of two slices
  // Feature rows resized along x, and two feature slices of a band along both. If slices are rows,
  // all of a slab are held.
  const std::int64_t row_pitch_, slice_pitch_;
  Buffer<std::int16_t> row_;              // [rows of a band, row_pitch]
  Buffer<std::int16_t> slice_;            // [2, slice_pitch]
  std::int64_t held_[2];                  // the slice in each, or -1
  std::vector<SliceInterval> intervals_;  // of a flat slab
  const std::int64_t most_open_slices_;
  Buffer<DoubtfulVoxels> doubtful_;  // [words of a slice, slices of a run]

  // The map being counted.
  const V* values_ = nullptr;
  const Slab* slab_ = nullptr;
};

}  // namespace protoseg
