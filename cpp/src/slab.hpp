// Counts a slab of one map: the outputs between some neighbouring feature rows.
#pragma once

#include <cstdint>
#include <vector>

#include "cells.hpp"
#include "units.hpp"

namespace protoseg {

// Cells [z_begin, z_end) x [y_begin, y_end), and the feature rows between which they lie.
struct Slab {
  std::int64_t z_begin, z_end, y_begin, y_end;
  std::int64_t first_row, rows;
};

// Slabs of all the map's cells: small enough for the cache, and at least `parts` of them, if there
// are as many cells to split.
std::vector<Slab> make_slabs(const Cells& cells, std::int64_t parts);

// One per thread. V is the type of the values that are resized: float or double.
//
// Values are first looked at in fixed point and float, centred on the threshold. All roundings of a
// look together are below its doubt, so a value beyond that has the sign that double arithmetic
// gives; where one is nearer, its word goes to the next arithmetic, and last to double, as the
// specification has it. So the counts are those of the double values, on every instruction set.
template <class V>
class SlabCounter {
 public:
  SlabCounter(const Kernels& kernels, const Cells& cells, std::int64_t most_rows);

  // values [slab.rows, from.x]. Adds to the tally of one image and target.
  void operator()(const Slab& slab, const V* values, const UnitThreshold<double>& threshold,
                  std::int64_t image, std::int64_t plane, Tally* tally);

 private:
  void look(const Slab& slab, const V* values);
  void count_line(const Line& line, Tally* tally);
  void start_line(const Line& line);
  void count_run(const Line& line, std::int64_t begin, std::int64_t end, Tally* tally);
  void resize_row(std::int64_t row, std::int64_t slot, std::int64_t begin, std::int64_t end);
  void resize_blocks(std::int64_t row, std::int64_t slot, std::int64_t begin, std::int64_t end);
  // A word of the run that begins with tile `begin`.
  void count_exactly(const Line& line, std::int64_t begin, const DoubtfulWord& word,
                     Tally* tally) const;
  bool is_foreground(double z_weight, double y_weight, std::int64_t x) const;

  const Kernels& kernels_;
  const Cells& cells_;
  const BlockCorners corners_;
  const CountTiles count_tiles_;
  const std::int64_t n_;       // feature voxels per row
  const std::int64_t words_;   // packed words per feature row
  const std::int64_t padded_;  // outputs per row, in whole tiles
  const std::int64_t done_words_;
  Buffer<float> centred_;  // [rows, n], and padding
  // Rows of two neighbouring slices (or two rows of a flat map), resized along x as far as asked
  // for: what the lines in turn need, in the first-level cache.
  const std::int64_t slots_;
  Buffer<float> resized_;        // [slots, padded]
  Buffer<std::int16_t> coarse_;  // the same in fixed point
  float coarse_scale_ = 0.0f;
  std::vector<std::int64_t> held_;               // [slots]: the row in it, or -1
  std::vector<std::uint64_t> done_;              // [slots, blocks], packed
  std::vector<float> largest_, doubt_;           // [rows]
  std::vector<std::uint64_t> above_, possible_;  // [rows, words]
  std::vector<std::uint64_t> all_, any_;         // [words + 1], of one line
  std::vector<DoubtfulWord> doubtful_;           // [words of a line]

  // The map being counted, and its line.
  const V* values_ = nullptr;
  UnitThreshold<double> threshold_{};
  std::int64_t image_ = 0, plane_ = 0;
  std::int64_t corner_row_[4] = {};  // [2 z + y], relative to the slab
  TileRun run_{};
  CountTileRun count_ = nullptr;
};

}  // namespace protoseg
