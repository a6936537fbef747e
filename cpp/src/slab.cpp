#include "slab.hpp"

#include <algorithm>
#include <cmath>

namespace protoseg {
namespace {

// Values of a slab, at feature and at output resolution along x.
constexpr std::int64_t slab_values = std::int64_t{1} << 17;

// A value in fixed point errs by 1/2, and by the float arithmetic that leads there.
constexpr double coarse_error = 0.51;

// Evaluating up to three tiles more is cheaper than starting anew.
std::uint64_t fill_gaps(std::uint64_t tiles) {
  std::uint64_t wide = tiles | tiles << 1;
  wide |= wide << 2;
  std::uint64_t filled = wide & wide >> 1;
  filled &= filled >> 2;
  return tiles | filled;
}

// Calls f(begin, end) for every run of ones.
template <class F>
void for_each_run(std::uint64_t bits, F f) {
  while (bits != 0) {
    const int begin = __builtin_ctzll(bits);
    const std::uint64_t rest = ~(bits >> begin);
    const int end = rest == 0 ? word_bits : begin + __builtin_ctzll(rest);
    f(begin, end);
    bits = end >= word_bits ? 0 : bits >> end << end;
  }
}

void span(const Kernels& kernels, const float* f, std::int64_t n, double* lowest, double* highest) {
  kernels.span_float(f, n, lowest, highest);
}
void span(const Kernels& kernels, const double* f, std::int64_t n, double* lowest,
          double* highest) {
  kernels.span_double(f, n, lowest, highest);
}
void quantise(const Kernels& kernels, const float* f, double offset, double scale, std::int64_t n,
              std::int16_t* out) {
  kernels.quantise_float(f, offset, scale, n, out);
}
void quantise(const Kernels& kernels, const double* f, double offset, double scale, std::int64_t n,
              std::int16_t* out) {
  kernels.quantise_double(f, offset, scale, n, out);
}

}  // namespace

std::vector<Slab> make_slabs(const Cells& cells, std::int64_t parts) {
  const std::int64_t n1 = cells.from.n[1];
  const bool along_y = cells.from.n[0] == 1;
  const std::vector<Interval>& axis = along_y ? cells.y : cells.z;
  const auto count = static_cast<std::int64_t>(axis.size());
  const std::int64_t rows_each = along_y ? 1 : n1;
  const std::int64_t row_values = std::max(cells.from.n[2], cells.blocks * cells.columns);
  const std::int64_t most_rows = std::max<std::int64_t>(2, slab_values / row_values / rows_each);
  const std::int64_t most_cells = (count + parts - 1) / parts;
  std::vector<Slab> slabs;
  for (std::int64_t begin = 0, end; begin < count; begin = end) {
    const std::int64_t lower = axis[begin].lower;
    for (end = begin + 1;
         end < count && end - begin < most_cells && axis[end].upper - lower < most_rows;)
      ++end;
    const std::int64_t rows = (axis[end - 1].upper - lower + 1) * rows_each;
    const auto y_cells = static_cast<std::int64_t>(cells.y.size());
    if (along_y)
      slabs.push_back({0, 1, begin, end, lower, rows});
    else
      slabs.push_back({begin, end, 0, y_cells, lower * n1, rows});
  }
  return slabs;
}

template <class V>
SlabCounter<V>::SlabCounter(const Kernels& kernels, const CellsOfReferences& references,
                            std::int64_t most_rows, std::int64_t most_thresholds)
    : kernels_(kernels),
      references_(references),
      cells_(*references.front()),
      corners_(cells_.corners()),
      octets_(cells_.octets()),
      column_bits_(__builtin_ctzll(cells_.columns)),
      count_tiles_(kernels.count_tiles[column_bits_ - 3]),
      n_(cells_.from.n[2]),
      words_((n_ + word_bits - 1) / word_bits),
      padded_(cells_.blocks * cells_.columns),
      most_open_columns_(2 * n_ / std::max<std::int64_t>(6, n_ / cells_.blocks + 1)),
      looks_(most_thresholds),
      coarse_(make_buffer<std::int16_t>(most_rows * n_ + word_bits)),
      slots_(cells_.from.n[0] == 1 ? 2 : 2 * cells_.from.n[1]),
      resized_(make_buffer<std::int16_t>(slots_ * padded_)),
      held_(slots_),
      all_(words_ + 1),
      any_(words_ + 1),
      doubtful_(cells_.most_line_words()) {
  for (Look& look : looks_) {
    look.all.resize(most_rows * words_);
    look.any.resize(most_rows * words_);
  }
}

template <class V>
void SlabCounter<V>::operator()(const Slab& slab, const V* values,
                                const UnitThreshold<double>* thresholds, std::int64_t count,
                                std::int64_t image, std::int64_t first_plane, Tally* tally) {
  values_ = values;
  image_ = image;
  for (std::int64_t i = 0; i < count; ++i) looks_[i].plane = first_plane + i;
  look(slab, thresholds, count);
  const auto y_cells = static_cast<std::int64_t>(cells_.y.size());
  const std::int64_t n1 = cells_.from.n[1];
  for (std::int64_t z = slab.z_begin; z < slab.z_end; ++z) {
    const std::int64_t row[2] = {cells_.z[z].lower * n1 - slab.first_row,
                                 cells_.z[z].upper * n1 - slab.first_row};
    // Slices take turns; of a flat map, rows do. No division per line.
    const std::int64_t slot[2] = {row[0] % slots_, row[1] % slots_};
    for (std::int64_t y = slab.y_begin; y < slab.y_end; ++y) {
      const Line& line = cells_.lines[z * y_cells + y];
      for (int k = 0; k < 4; ++k) {
        const std::int64_t below = k % 2 == 0 ? line.y->lower : line.y->upper;
        corner_row_[k] = row[k / 2] + below;
        corner_slot_[k] = slots_ == 2 ? corner_row_[k] % 2 : slot[k / 2] + below;
      }
      for (std::int64_t i = 0; i < count; ++i)
        if (thresholds[i].anything) count_line(line, looks_[i]);
    }
  }
  const std::size_t asked = references_.size();
  for (std::int64_t i = 0; i < count; ++i)
    for (std::size_t k = 0; k < asked; ++k) {
      tally[i * asked + k].predicted += looks_[i].sum.predicted;
      tally[i * asked + k].tp += looks_[i].sum.tp[k];
    }
}

// The map in fixed point, and everything that is known of its corners.
template <class V>
void SlabCounter<V>::look(const Slab& slab, const UnitThreshold<double>* thresholds,
                          std::int64_t count) {
  double lowest, highest;
  span(kernels_, values_, slab.rows * n_, &lowest, &highest);
  const double range = highest - lowest;
  const double largest = std::max(std::fabs(lowest), std::fabs(highest));
  const bool usable = range >= 0x1p-24 * largest && range > 1e-30 && range < 1e38;
  // The nearer the offset is to the threshold, the less is lost; several thresholds share one.
  const double middle = lowest + range / 2.0;
  offset_ = count == 1 ? std::clamp(thresholds->threshold, lowest, highest) : middle;
  if (std::is_same_v<V, float>) offset_ = static_cast<double>(static_cast<float>(offset_));
  scale_ = usable ? static_cast<double>(static_cast<float>(coarse_steps / range)) : 0.0;
  if (usable) quantise(kernels_, values_, offset_, scale_, slab.rows * n_, coarse_.get());
  // What kernels may read behind the last row has no weight, but must not be out of range.
  std::fill_n(coarse_.get() + slab.rows * n_, word_bits, std::int16_t{0});
  std::fill(held_.begin(), held_.end(), -1);
  for (std::int64_t i = 0; i < count; ++i) {
    looks_[i].threshold = thresholds[i];
    if (thresholds[i].anything) look_at(looks_[i], slab, lowest, highest);
    looks_[i].sum = {0, {0, 0}};
  }
}

template <class V>
void SlabCounter<V>::look_at(Look& look, const Slab& slab, double lowest, double highest) {
  const double threshold = look.threshold.threshold;
  if (scale_ == 0.0) return;
  // Beyond all values by 4, the exact level does not matter.
  const double exact = std::clamp(scale_ * (threshold - offset_), scale_ * (lowest - offset_) - 4.0,
                                  scale_ * (highest - offset_) + 4.0);
  look.level = static_cast<std::int16_t>(std::lround(exact));
  const double error = coarse_error + std::fabs(exact - look.level);
  look.corner_doubt = static_cast<std::int16_t>(error);
  for (int flat = 0; flat < 2; ++flat)
    look.doubt[flat] = static_cast<std::int16_t>(error + cells_.coarse_error[flat]);
  kernels_.corner_bits(coarse_.get(), look.level, look.corner_doubt, !look.threshold.above,
                       slab.rows, n_, look.all.data(), look.any.data());
}

// Decides what the corners of a line's tiles decide, and evaluates the rest.
template <class V>
void SlabCounter<V>::count_line(const Line& line, Look& look) {
  if (scale_ == 0.0) return count_run(line, 0, cells_.blocks, look);
  std::int64_t open_columns = 0;
  std::uint64_t anything = 0;
  for (std::int64_t w = 0; w < words_; ++w) {
    std::uint64_t all = ~std::uint64_t{0}, any = 0;
    for (int k = 0; k < (line.flat ? 2 : 4); ++k) {
      all &= look.all[corner_row_[k] * words_ + w];
      any |= look.any[corner_row_[k] * words_ + w];
    }
    all_[w] = all;
    any_[w] = any;
    anything |= any;
    open_columns += __builtin_popcountll(any & ~all);
  }
  if (anything == 0) return;
  // Corners decide a tile if none of its columns is open. Where a tile has two of them on average,
  // or a third of all are, that is too rare to look for.
  if (open_columns > most_open_columns_) return count_run(line, 0, cells_.blocks, look);
  for (std::int64_t first = 0; first < cells_.blocks; first += word_bits) {
    const std::int64_t blocks = std::min<std::int64_t>(word_bits, cells_.blocks - first);
    std::uint64_t full, open;
    kernels_.classify(all_.data(), any_.data(), corners_, first, blocks, &full, &open);
    open = fill_gaps(open | cells_.too_wide[first / word_bits]) & low_bits(blocks);
    for_each_run(full & ~open, [&](std::int64_t begin, std::int64_t end) {
      count_totals(line, first + begin, first + end, look);
    });
    for_each_run(open, [&](std::int64_t begin, std::int64_t end) {
      count_run(line, first + begin, first + end, look);
    });
  }
}

// Tiles that are all foreground.
template <class V>
void SlabCounter<V>::count_totals(const Line& line, std::int64_t begin, std::int64_t end,
                                  Look& look) const {
  const auto lines = static_cast<std::int64_t>(cells_.lines.size());
  const std::int64_t index = &line - cells_.lines.data();
  const std::int64_t at = (look.plane * lines + index) * (cells_.blocks + 1);
  for (std::size_t k = 0; k < references_.size(); ++k) {
    const TileTotal* before = &references_[k]->before[at];
    if (k == 0) look.sum.predicted += before[end].voxels - before[begin].voxels;
    look.sum.tp[k] += before[end].actual - before[begin].actual;
  }
}

template <class V>
void SlabCounter<V>::count_run(const Line& line, std::int64_t begin, std::int64_t end, Look& look) {
  const std::int64_t at = line.first_word + begin * line.tile_words();
  cells_.set_valid(image_, line, begin, &run_);
  for (std::size_t k = 0; k < references_.size(); ++k)
    run_.actual[k] = &references_[k]->actual[look.plane * cells_.tile_words + at];
  run_.tiles = end - begin;
  std::int64_t doubts = 0;
  if (scale_ == 0.0) {
    for (std::int64_t tile = 0; tile < run_.tiles; ++tile)
      for (std::int64_t slice = 0; slice < line.slices; ++slice)
        for (std::int64_t word = 0; word < line.words; ++word)
          doubtful_[doubts++] = {tile, slice, word, ~std::uint64_t{0}};
  } else {
    for (int k = 0; k < (line.flat ? 2 : 4); ++k) {
      if (held_[corner_slot_[k]] != corner_row_[k]) resize_row(corner_row_[k], corner_slot_[k]);
      run_.corner[k] = resized_.get() + corner_slot_[k] * padded_ + begin * cells_.columns;
    }
    run_.z_weight = &cells_.coarse[0][line.z->begin];
    run_.y_weight = &cells_.coarse[1][line.y_row * cells_.columns];
    run_.slices = line.slices;
    run_.words = line.words;
    run_.level = look.level;
    run_.doubt = look.doubt[line.flat];
    run_.below = look.threshold.above ? 0 : ~std::uint64_t{0};
    doubts = count_tiles_.of[line.flat][line.words == 1](run_, &look.sum, doubtful_.data());
  }
  for (std::int64_t k = 0; k < doubts; ++k) count_exactly(line, begin, doubtful_[k], look);
}

template <class V>
void SlabCounter<V>::resize_row(std::int64_t row, std::int64_t slot) {
  held_[slot] = row;
  const std::int16_t* source = coarse_.get() + row * n_;
  std::int16_t* out = resized_.get() + slot * padded_;
  if (!cells_.gathered) return kernels_.resize_coarse(source, octets_, padded_ / 8, out);
  for (std::int64_t at = 0; at < padded_; ++at) {
    const std::int64_t o = cells_.x_output(at);
    const std::int32_t a = source[cells_.x_lower[o]], b = source[cells_.x_upper[o]];
    out[at] = static_cast<std::int16_t>(a + (((b - a) * cells_.coarse[2][at] + 0x4000) >> 15));
  }
}

// Voxels of the run that begins with tile `begin`.
template <class V>
void SlabCounter<V>::count_exactly(const Line& line, std::int64_t begin, const DoubtfulVoxels& word,
                                   Look& look) {
  const std::int64_t place = (word.tile * line.slices + word.slice) * line.words + word.word;
  const std::int64_t valid_at =
      word.tile * run_.valid_per_tile + word.slice * run_.valid_per_slice + word.word;
  const std::int64_t z = line.z->begin + word.slice, first = (begin + word.tile) * cells_.columns;
  const std::int64_t y = line.y->begin + ((word.word * word_bits) >> column_bits_);
  for (std::uint64_t left = word.voxels & run_.valid[valid_at]; left != 0; left &= left - 1) {
    const int bit = __builtin_ctzll(left);
    const std::int64_t row = y + (bit >> column_bits_), x = first + (bit & (cells_.columns - 1));
    // Either way is as likely as the other: no branch.
    const std::int64_t foreground =
        is_foreground(look, line.flat, cells_.exact[0][z], cells_.exact[1][row], x);
    look.sum.predicted += foreground;
    for (std::size_t k = 0; k < references_.size(); ++k)
      look.sum.tp[k] += foreground & static_cast<std::int64_t>(run_.actual[k][place] >> bit & 1);
  }
}

// One voxel as the specification has it: along z, then y, then x, in double.
template <class V>
bool SlabCounter<V>::is_foreground(const Look& look, bool flat, double z_weight, double y_weight,
                                   std::int64_t x) const {
  double value[2];
  const std::int64_t tap[2] = {cells_.x_lower[x], cells_.x_upper[x]};
  for (int k = 0; k < 2; ++k) {
    const auto at = [&](int corner) {
      return static_cast<double>(values_[corner_row_[corner] * n_ + tap[k]]);
    };
    // Of a flat line, slices 0 and 2 are one.
    value[k] = flat ? lerp(at(0), at(1), y_weight)
                    : lerp(lerp(at(0), at(2), z_weight), lerp(at(1), at(3), z_weight), y_weight);
  }
  const double resized = lerp(value[0], value[1], cells_.exact[2][x]);
  return look.threshold.above ? resized > look.threshold.threshold
                              : resized < look.threshold.threshold;
}

template class SlabCounter<float>;
template class SlabCounter<double>;

}  // namespace protoseg
