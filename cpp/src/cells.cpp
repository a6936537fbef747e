#include "cells.hpp"

#include <algorithm>
#include <cmath>

#include "parallel.hpp"
#include "taps.hpp"

namespace protoseg {
namespace {

// (H, 1, W) becomes (1, H, W): the rows of a 2-D image are the ones that share cells.
Extent as_zyx(const Extent& extent, bool flat) {
  return flat ? Extent{{1, extent.n[0], extent.n[2]}} : extent;
}

std::vector<Interval> intervals(const AxisTaps& taps) {
  std::vector<Interval> result;
  const auto n = static_cast<std::int64_t>(taps.lower.size());
  for (std::int64_t o = 0; o < n; ++o) {
    if (result.empty() || taps.lower[o] != result.back().lower ||
        taps.upper[o] != result.back().upper)
      result.push_back({taps.lower[o], taps.upper[o], o, o});
    result.back().end = o + 1;
  }
  return result;
}

// Whole words for the rows that most cells have.
std::int64_t columns_for(std::int64_t rows) {
  return rows >= 5 ? 8 : rows >= 3 ? 16 : rows == 2 ? 32 : 64;
}

}  // namespace

Cells::Cells(const GuideState& guide, const Resize& resize, int which) {
  const bool flat = guide.extent.n[1] == 1 && resize.from.n[1] == 1;
  from = as_zyx(resize.from, flat);
  to = as_zyx(guide.extent, flat);
  const Resize as_cells{from, resize.interpolation, resize.align_corners};
  AxisTaps taps[3];
  for (int slot = 0; slot < 3; ++slot) {
    taps[slot] = axis_taps(as_cells, to, slot);
    exact[slot] = std::move(taps[slot].weight);
  }
  z = intervals(taps[0]);
  y = intervals(taps[1]);
  x_lower = std::move(taps[2].lower);
  x_upper = std::move(taps[2].upper);
  const auto cells = static_cast<std::int64_t>(y.size());
  columns = columns_for((to.n[1] + cells - 1) / cells);
  blocks = (to.n[2] + columns - 1) / columns;
  set_columns();
  set_lines();
  set_weights();
  pack(guide, which);
}

void Cells::set_columns() {
  gathered = from.n[2] > to.n[2];
  x_lower.resize(blocks * columns, x_lower.back());
  x_upper.resize(blocks * columns, x_upper.back());
  exact[2].resize(blocks * columns, exact[2].back());
  set_octets();
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t lower = x_lower[block * columns];
    const std::int64_t n = x_upper[(block + 1) * columns - 1] - lower + 1;
    const std::int64_t shift = lower % word_bits, here = std::min(n, word_bits - shift);
    const bool fits = n <= word_bits;
    corner_word.push_back(lower / word_bits);
    corner_low.push_back(fits ? low_bits(here) << shift : 0);
    corner_high.push_back(fits ? low_bits(n - here) : 0);
    if (block % word_bits == 0) too_wide.push_back(0);
    too_wide.back() |= std::uint64_t{!fits} << (block % word_bits);
  }
}

void Cells::set_octets() {
  const std::int64_t octets = blocks * columns / 8;
  const auto lower_of = [&](std::int64_t place) { return &x_lower[x_output(8 * place)]; };
  near = true;
  for (std::int64_t place = 1; place < octets; place += 2)
    near = near && lower_of(place)[7] - lower_of(place - 1)[0] < 8;
  for (std::int64_t place = 0; place < octets; ++place) {
    const std::int64_t* lower = lower_of(place);
    octet_first.push_back(near ? lower_of(place & ~std::int64_t{1})[0] : lower[0]);
    for (int k = 0; k < 8; ++k) {
      const std::int64_t index = lower[k] - octet_first.back();
      octet_index.push_back(static_cast<std::int32_t>(index));
      for (int byte = 0; byte < 2; ++byte)
        octet_bytes.push_back(static_cast<std::uint8_t>(2 * index + byte));
    }
  }
}

// Weights in fixed point, and what resizing along each axis may lose.
void Cells::set_weights() {
  double error[3];
  std::vector<std::int16_t> rounded[3];  // as `exact`
  for (int axis = 0; axis < 3; ++axis) {
    double worst = 0.0;
    for (const double weight : exact[axis]) {
      const double steps = std::min(32767.0, std::round(weight * 0x1p15));
      worst = std::max(worst, std::fabs(steps * 0x1p-15 - weight));
      rounded[axis].push_back(static_cast<std::int16_t>(steps));
    }
    error[axis] = 0.5 + (coarse_steps + 2.0) * worst;
  }
  coarse[0] = rounded[0];
  const std::int64_t octets = static_cast<std::int64_t>(y_rows_.size()) * columns / 8;
  for (std::int64_t octet = 0; octet < octets; ++octet)
    coarse[1].insert(coarse[1].end(), 8, rounded[1][y_rows_[8 * octet_at(octet) / columns]]);
  for (std::int64_t i = 0; i < blocks * columns; ++i) coarse[2].push_back(rounded[2][x_output(i)]);
  coarse_error[1] = error[1] + error[2];
  coarse_error[0] = coarse_error[1] + error[0];
}

void Cells::set_lines() {
  const std::int64_t rows = word_bits / columns;
  std::vector<std::int64_t> first_row;
  for (const Interval& cell : y) {
    first_row.push_back(static_cast<std::int64_t>(y_rows_.size()));
    const std::int64_t padded = (cell.end - cell.begin + rows - 1) / rows * rows;
    for (std::int64_t row = 0; row < padded; ++row) {
      y_rows_.push_back(std::min(cell.begin + row, cell.end - 1));
    }
  }
  for (const Interval& slices : z) {
    std::int64_t first_valid = 0;
    for (const Interval& cell : y) {
      Line line;
      line.z = &slices;
      line.y = &cell;
      line.slices = slices.end - slices.begin;
      line.words = (cell.end - cell.begin + rows - 1) / rows;
      line.first_word = tile_words;
      line.y_row = first_row[&cell - y.data()];
      line.flat = slices.lower == slices.upper && line.slices == 1;
      line.first_valid = first_valid;
      lines.push_back(line);
      tile_words += blocks * line.tile_words();
      first_valid += blocks * line.words;
    }
  }
}

// Word of `columns` neighbours in each of `rows` rows of packed voxels, from row `first_row` and
// column `first` on; ones for all of them if there are no packed voxels.
std::uint64_t Cells::pack_word(const std::uint64_t* packed, std::int64_t first_row,
                               std::int64_t rows, std::int64_t first) const {
  const std::int64_t n = std::min(columns, to.n[2] - first);
  if (packed == nullptr && n == columns) return low_bits(rows * columns);
  std::uint64_t word = 0;
  if (packed != nullptr && columns == 8 && to.n[2] % 8 == 0) {  // rows of whole bytes
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(packed) + first / 8;
    for (std::int64_t r = 0; r < rows; ++r)
      word |= std::uint64_t{bytes[(first_row + r) * (to.n[2] / 8)]} << (8 * r);
    return word;
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::uint64_t bits = packed == nullptr
                                   ? ~std::uint64_t{0}
                                   : bits_at(packed, (first_row + r) * to.n[2] + first, n);
    word |= (bits & low_bits(n)) << (r * columns);
  }
  return word;
}

// Slices [begin, end) of a plane of packed voxels, or of none, tile by tile along a line:
// words [blocks, slices, words].
void Cells::pack_line(const Line& line, std::int64_t begin, std::int64_t end,
                      const std::uint64_t* packed, std::uint64_t* words) const {
  const std::int64_t rows = word_bits / columns;
  for (std::int64_t block = 0; block < blocks; ++block)
    for (std::int64_t slice = begin; slice < end; ++slice)
      for (std::int64_t row = line.y->begin; row < line.y->end; row += rows)
        *words++ = pack_word(packed, slice * to.n[1] + row, std::min(rows, line.y->end - row),
                             block * columns);
}

void Cells::pack(const GuideState& guide, int which) {
  const std::int64_t images = guide.images, targets = guide.targets;
  const auto n_lines = static_cast<std::int64_t>(lines.size());
  masked = guide.has_mask;
  actual.resize(images * targets * tile_words);
  before.resize(images * targets * n_lines * (blocks + 1));
  const Line& last = lines.back();
  valid.resize(masked ? images * tile_words : last.first_valid + blocks * last.words);
  for (std::size_t cell = 0; !masked && cell < y.size(); ++cell)
    pack_line(lines[cell], 0, 1, nullptr, &valid[lines[cell].first_valid]);
  const auto count = [](const std::uint64_t* words, std::int64_t n) {
    std::int64_t bits = 0;
    for (std::int64_t i = 0; i < n; ++i) bits += __builtin_popcountll(words[i]);
    return bits;
  };
  const auto pack_one = [&](std::int64_t image, std::int64_t index) {
    const Line& line = lines[index];
    const std::int64_t begin = line.z->begin, end = line.z->end, each = line.tile_words();
    if (masked)
      pack_line(line, begin, end, guide.valid_of(image),
                &valid[image * tile_words + line.first_word]);
    TileRun run;
    set_valid(image, line, 0, &run);
    for (std::int64_t target = 0; target < targets; ++target) {
      const std::int64_t plane = image * targets + target;
      std::uint64_t* line_actual = &actual[plane * tile_words + line.first_word];
      pack_line(line, begin, end, guide.actual_of(which, image, target), line_actual);
      TileTotal* sum = &before[(plane * n_lines + index) * (blocks + 1)];
      for (std::int64_t block = 0; block < blocks; ++block, ++sum) {
        const std::int64_t voxels =
            count(run.valid + block * run.valid_per_tile, run.valid_per_tile) *
            (masked ? 1 : line.slices);
        sum[1] = {sum->voxels + voxels, sum->actual + count(line_actual + block * each, each)};
      }
    }
  };
  parallel_for(images * n_lines, tile_words * 16 / n_lines + 1, [&] {
    return [&](std::int64_t task) { pack_one(task / n_lines, task % n_lines); };
  });
}

std::int64_t Cells::most_line_words() const {
  std::int64_t most = 0;
  for (const Line& line : lines) most = std::max(most, blocks * line.tile_words());
  return most;
}

std::int64_t Cells::bytes() const {
  return 8 * static_cast<std::int64_t>(valid.size() + actual.size()) +
         static_cast<std::int64_t>(sizeof(TileTotal) * before.size()) +
         static_cast<std::int64_t>(sizeof(Line) * lines.size());
}

}  // namespace protoseg
