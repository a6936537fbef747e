// The geometry of counting a resized map, prepared once per feature size.
//
// Outputs that lie between the same feature voxels form a cell. Along x (the last axis) outputs are
// taken in blocks of `columns`; a line is a row of cells, all outputs between the same feature rows
// (two slices along z, two rows along y); the part of a line within a block is a tile. Where all
// corners of a tile are on one side of the threshold, so are all its voxels, interpolation being
// convex: the tile is counted by its prepared totals. Only the others are evaluated.
#pragma once

#include <cstdint>
#include <vector>

#include "guide.hpp"

namespace protoseg {

// Outputs [begin, end) of an axis whose taps are lower and upper.
struct Interval {
  std::int64_t lower, upper, begin, end;
};

struct Line {
  const Interval* z;
  const Interval* y;
  std::int64_t slices;
  std::int64_t words;        // per slice of a tile
  std::int64_t first_word;   // of the line's first tile
  std::int64_t first_valid;  // the same in Cells::valid, without a mask
  std::int64_t y_row;        // of the first row, in arrays per row of y
  bool flat;                 // in one slice, between two feature rows
  std::int64_t tile_words() const { return slices * words; }
};

struct TileTotal {
  std::int64_t voxels, actual;
};

struct Cells {
  // which: what maps are compared with, see GuideState::plane.
  Cells(const GuideState& guide, const Resize& resize, int which);
  Cells(const Cells&) = delete;
  Cells& operator=(const Cells&) = delete;

  Extent from, to;  // as (z, y, x); 2-D as (1, H, W)
  std::vector<Interval> z, y;
  std::vector<Line> lines;  // z by z
  std::int64_t columns;     // of a tile: 8, 16, 32 or 64
  std::int64_t blocks;      // tiles of a line

  // Taps, padded to whole tiles: padding repeats the last output.
  std::vector<std::int64_t> x_lower, x_upper;  // [blocks, columns]
  std::vector<double> exact[3];                // weights [to.z], [to.y], [blocks, columns]
  // The same weights in fixed point. Those of y are padded to whole words of rows, from Line::y_row
  // on, and repeated for every bit of a word. Those of x are in the order of x_output, octets of y
  // in the order of octet_at.
  std::vector<std::int16_t> coarse[3];  // [to.z], [rows, columns], [blocks, columns]
  // What the roundings of a map in fixed point add up to, from its values at feature size on:
  // [0] between four feature rows, [1] between two.
  double coarse_error[2];

  // Which output is stored at a place of a resized row. Narrow tiles repeat their octets in each
  // row of a word; those of wide ones are stored in the order in which a word takes them.
  std::int64_t x_output(std::int64_t place) const {
    return columns < 32 ? place : 8 * octet_at(place / 8) + place % 8;
  }
  // Octets of outputs along x; `first` plus an index below 8 is the lower tap.
  bool gathered;  // x is reduced: the taps of an octet lie too far apart for that
  bool near;      // x is enlarged so much that this holds for two octets together
  std::vector<std::int64_t> octet_first;  // [octets]
  std::vector<std::int32_t> octet_index;  // [octets, 8]
  std::vector<std::uint8_t> octet_bytes;  // [octets, 16]
  OctetTaps octets() const {
    return {near, octet_first.data(), octet_index.data(), octet_bytes.data(), coarse[2].data()};
  }
  // Feature columns of the blocks' taps as bits; a block with more than fit is never decided by
  // its corners.
  std::vector<std::int64_t> corner_word;
  std::vector<std::uint64_t> corner_low, corner_high;  // [blocks]
  std::vector<std::uint64_t> too_wide;                 // [blocks], packed
  BlockCorners corners() const {
    return {corner_word.data(), corner_low.data(), corner_high.data(), from.n[2] <= word_bits};
  }

  // Packed tiles, and their totals.
  std::int64_t tile_words = 0;  // of all lines
  // What counts: [N, tile_words] with a mask. Without one only padding does not, which depends on
  // neither image nor slice: [intervals of y, blocks, words].
  bool masked = false;
  std::vector<std::uint64_t> valid;
  std::vector<std::uint64_t> actual;  // [N, T, tile_words]
  std::vector<TileTotal> before;      // [N, T, lines, blocks + 1]: sums of earlier tiles
  std::int64_t bytes() const;
  std::int64_t most_line_words() const;

  // Points a run of a line's tiles, from `block` on, to its valid words.
  void set_valid(std::int64_t image, const Line& line, std::int64_t block, TileRun* run) const {
    run->valid_per_tile = masked ? line.tile_words() : line.words;
    run->valid_per_slice = masked ? line.words : 0;
    run->valid = valid.data() + (masked ? image * tile_words + line.first_word : line.first_valid) +
                 block * run->valid_per_tile;
  }

 private:
  void set_columns();
  void set_octets();
  void set_weights();
  void set_lines();
  void pack(const GuideState& guide, int which);
  void pack_line(const Line& line, std::int64_t begin, std::int64_t end,
                 const std::uint64_t* packed, std::uint64_t* words) const;
  std::uint64_t pack_word(const std::uint64_t* packed, std::int64_t first_row, std::int64_t rows,
                          std::int64_t first) const;

  std::vector<std::int64_t> y_rows_;  // [rows]: padding repeats the last one of an interval
};

}  // namespace protoseg
