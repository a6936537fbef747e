// How maps of a feature size are resized while they are counted, prepared once per feature size.
//
// The output slices (of a 2-D map: rows) between the same two feature slices form an interval, and
// so do output rows. Feature slices are resized along x and y when an interval first asks for them;
// between two of them, values are affine along z. Interpolation being convex, corners on one side
// of the threshold decide all voxels between them.
#pragma once

#include <cstdint>
#include <vector>

#include "guide.hpp"

namespace protoseg {

// Outputs [begin, end) of an axis whose taps are lower and upper.
struct Interval {
  std::int64_t lower, upper, begin, end;
};

// Intervals [begin, end) of rows, resized together: small enough for the cache.
struct Band {
  std::int64_t begin, end;
};

struct ResizePlan {
  static constexpr std::int64_t longest_interval = 16;  // of slices

  ResizePlan(const Extent& to, const Resize& resize);

  Extent from, to;
  std::vector<Interval> slices, rows;  // of z and y; long ones in pieces
  std::vector<Band> bands;

  // Taps; those of x padded to octets, four by four: padding repeats the last output.
  std::vector<std::int64_t> x_lower, x_upper, y_lower, y_upper, z_lower, z_upper;
  std::vector<double> exact[3];         // weights along z, y and x
  std::vector<std::int16_t> coarse[3];  // the same in fixed point
  // What the roundings of a map in fixed point add up to, from its values at feature size on.
  double coarse_error;

  bool gathered;  // x is reduced: the taps of an octet lie too far apart for row_taps
  RowTaps row_taps() const {
    return {octets_,
            near_,
            octet_first_.data(),
            octet_bytes_.data(),
            first_of_four_.data(),
            octet_index_.data(),
            coarse[2].data()};
  }
  std::int64_t row_pitch() const { return 8 * octets_; }

  std::int64_t slice_voxels() const { return to.n[1] * to.n[2]; }
  bool is_flat() const { return from.n[1] == 1 && to.n[1] == 1; }  // a slice is a row
  // Of a slice of a band: output voxels, and feature rows between which they lie.
  std::int64_t most_band_voxels() const;
  std::int64_t most_band_rows() const;
  std::int64_t bytes() const;

 private:
  void set_bands();
  void set_octets();
  void set_weights();

  std::int64_t octets_ = 0;
  bool near_ = true;
  std::vector<std::int64_t> octet_first_, first_of_four_;
  std::vector<std::uint8_t> octet_bytes_;
  std::vector<std::int16_t> octet_index_;
};

}  // namespace protoseg
