// Counts a slab of one map: the outputs between some neighbouring feature rows.
#pragma once

#include <cstdint>
#include <memory>
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

// The same cells for one or two references.
using CellsOfReferences = std::vector<std::shared_ptr<const Cells>>;

// One per thread. V is the type of the values that are resized: float or double.
//
// Values are looked at in fixed point. All roundings of a look together are below its doubt, so a
// value further from the threshold than that has the sign that double arithmetic gives; the few
// that are nearer are decided in double, as the specification has it. So the counts are those of
// the double values, on every instruction set.
template <class V>
class SlabCounter {
 public:
  SlabCounter(const Kernels& kernels, const CellsOfReferences& references, std::int64_t most_rows,
              std::int64_t most_thresholds);

  // values [slab.rows, from.x] are read once for all the thresholds [count], which belong to the
  // planes from `first_plane` on (image T + target). tally [count, references] is added to.
  void operator()(const Slab& slab, const V* values, const UnitThreshold<double>* thresholds,
                  std::int64_t count, std::int64_t image, std::int64_t first_plane, Tally* tally);

 private:
  // What is known of the map and one threshold.
  struct Look {
    UnitThreshold<double> threshold;
    std::int64_t plane;
    std::int16_t level;  // the threshold in fixed point
    std::int16_t corner_doubt;
    std::int16_t doubt[2];                // of lines, [flat]
    std::vector<std::uint64_t> all, any;  // corners [rows, words], as corner_bits has them
    TileTally sum;
  };

  void look(const Slab& slab, const UnitThreshold<double>* thresholds, std::int64_t count);
  void look_at(Look& look, const Slab& slab, double lowest, double highest);
  void count_line(const Line& line, Look& look);
  void count_totals(const Line& line, std::int64_t begin, std::int64_t end, Look& look) const;
  void count_run(const Line& line, std::int64_t begin, std::int64_t end, Look& look);
  void resize_row(std::int64_t row, std::int64_t slot);
  void count_exactly(const Line& line, std::int64_t begin, const DoubtfulVoxels& word, Look& look);
  bool is_foreground(const Look& look, bool flat, double z_weight, double y_weight,
                     std::int64_t x) const;

  const Kernels& kernels_;
  const CellsOfReferences& references_;
  const Cells& cells_;  // of the first reference
  const BlockCorners corners_;
  const OctetTaps octets_;
  const int column_bits_;  // log2 of the columns of a tile
  const CountTiles count_tiles_;
  const std::int64_t n_;                  // feature voxels per row
  const std::int64_t words_;              // packed words per feature row
  const std::int64_t padded_;             // outputs per row, in whole tiles
  const std::int64_t most_open_columns_;  // of a line whose tiles are worth deciding by corners
  std::vector<Look> looks_;

  // The map in fixed point: scale (value - offset); 0 where that cannot tell its values apart.
  double offset_ = 0.0, scale_ = 0.0;
  Buffer<std::int16_t> coarse_;  // [rows, n], and padding
  // Rows of two neighbouring slices (or two rows of a flat map), resized along x when a line first
  // asks for them: what the lines in turn need, in the first-level cache.
  const std::int64_t slots_;
  Buffer<std::int16_t> resized_;          // [slots, padded]
  std::vector<std::int64_t> held_;        // [slots]: the row in it, or -1
  std::vector<std::uint64_t> all_, any_;  // [words + 1], of one line
  std::vector<DoubtfulVoxels> doubtful_;  // [words of a line]

  // The map being counted, and its line.
  const V* values_ = nullptr;
  std::int64_t image_ = 0;
  std::int64_t corner_row_[4] = {};   // [2 z + y], relative to the slab
  std::int64_t corner_slot_[4] = {};  // where they are resized
  TileRun run_{};
};

}  // namespace protoseg
