#include "slab.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace protoseg {
namespace {

// Values of a slab, at feature and at output resolution along x.
constexpr std::int64_t slab_values = std::int64_t{1} << 17;

// Of the largest magnitude among a tile's corners: what all roundings of a float evaluation stay
// below. Centring errs by 3, each of three interpolations by 7 units of 2^-24.
constexpr float float_doubt = 0x1p-19f;
// The same for the double evaluation, whose corners may belong to rows of other magnitudes.
constexpr float double_doubt = 0x1p-45f;
constexpr float underflow = 1e-36f;

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

void centre(const Kernels& kernels, const float* f, const UnitThreshold<double>& unit,
            std::int64_t rows, std::int64_t n, float* centred, float* largest) {
  kernels.centre_float(f, unit.threshold, unit.above ? 1.0f : -1.0f, rows, n, centred, largest);
}
void centre(const Kernels& kernels, const double* f, const UnitThreshold<double>& unit,
            std::int64_t rows, std::int64_t n, float* centred, float* largest) {
  kernels.centre_double(f, unit.threshold, unit.above ? 1.0f : -1.0f, rows, n, centred, largest);
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
SlabCounter<V>::SlabCounter(const Kernels& kernels, const Cells& cells, std::int64_t most_rows)
    : kernels_(kernels),
      cells_(cells),
      corners_(cells.corners()),
      count_tiles_(kernels.count_tiles[__builtin_ctzll(cells.columns / 8)]),
      n_(cells.from.n[2]),
      words_((n_ + word_bits - 1) / word_bits),
      padded_(cells.blocks * cells.columns),
      done_words_((cells.blocks + word_bits - 1) / word_bits),
      centred_(make_buffer<float>(most_rows * n_ + 2 * word_bits)),
      slots_(cells.from.n[0] == 1 ? 2 : 2 * cells.from.n[1]),
      resized_(make_buffer<float>(slots_ * padded_)),
      coarse_(make_buffer<std::int16_t>(slots_ * padded_)),
      held_(slots_),
      done_(slots_ * done_words_),
      largest_(most_rows),
      doubt_(most_rows),
      above_(most_rows * words_),
      possible_(most_rows * words_),
      all_(words_ + 1),
      any_(words_ + 1),
      doubtful_(cells.most_line_words()) {
  std::fill_n(centred_.get() + most_rows * n_, 2 * word_bits, 0.0f);
}

template <class V>
void SlabCounter<V>::operator()(const Slab& slab, const V* values,
                                const UnitThreshold<double>& threshold, std::int64_t image,
                                std::int64_t plane, Tally* tally) {
  if (!threshold.anything) return;
  values_ = values;
  threshold_ = threshold;
  image_ = image;
  plane_ = plane;
  look(slab, values);
  const auto y_cells = static_cast<std::int64_t>(cells_.y.size());
  const std::int64_t n1 = cells_.from.n[1];
  for (std::int64_t z = slab.z_begin; z < slab.z_end; ++z) {
    const std::int64_t lower = cells_.z[z].lower * n1 - slab.first_row;
    const std::int64_t upper = cells_.z[z].upper * n1 - slab.first_row;
    for (std::int64_t y = slab.y_begin; y < slab.y_end; ++y) {
      const Line& line = cells_.lines[z * y_cells + y];
      corner_row_[0] = lower + line.y->lower;
      corner_row_[1] = lower + line.y->upper;
      corner_row_[2] = upper + line.y->lower;
      corner_row_[3] = upper + line.y->upper;
      count_line(line, tally);
    }
  }
}

// Everything that is known of the corners.
template <class V>
void SlabCounter<V>::look(const Slab& slab, const V* values) {
  centre(kernels_, values, threshold_, slab.rows, n_, centred_.get(), largest_.data());
  const float most = *std::max_element(largest_.begin(), largest_.begin() + slab.rows);
  for (std::int64_t row = 0; row < slab.rows; ++row)
    doubt_[row] = std::max(largest_[row] * float_doubt, most * double_doubt) + underflow;
  coarse_scale_ = most > underflow ? coarse_most / most : 0.0f;
  kernels_.corner_bits(centred_.get(), doubt_.data(), slab.rows, n_, above_.data(),
                       possible_.data());
  std::fill(held_.begin(), held_.end(), -1);
}

// Decides what the corners of a line's tiles decide, and evaluates the rest.
template <class V>
void SlabCounter<V>::count_line(const Line& line, Tally* tally) {
  const int rows = line.flat ? 2 : 4;
  std::int64_t open_columns = 0;
  std::uint64_t anything = 0;
  for (std::int64_t w = 0; w < words_; ++w) {
    std::uint64_t all = ~std::uint64_t{0}, any = 0;
    for (int k = 0; k < rows; ++k) {
      all &= above_[corner_row_[k] * words_ + w];
      any |= possible_[corner_row_[k] * words_ + w];
    }
    all_[w] = all;
    any_[w] = any;
    anything |= any;
    open_columns += __builtin_popcountll(any & ~all);
  }
  if (anything == 0) return;
  start_line(line);
  const auto lines = static_cast<std::int64_t>(cells_.lines.size());
  const std::int64_t index = &line - cells_.lines.data();
  const TileTotal* before = &cells_.before[(plane_ * lines + index) * (cells_.blocks + 1)];
  for (std::int64_t first = 0; first < cells_.blocks; first += word_bits) {
    const std::int64_t blocks = std::min<std::int64_t>(word_bits, cells_.blocks - first);
    if (3 * open_columns > n_) {  // next to no tile will be decided by its corners
      count_run(line, first, first + blocks, tally);
      continue;
    }
    std::uint64_t full, open;
    kernels_.classify(all_.data(), any_.data(), corners_, first, blocks, &full, &open);
    open = fill_gaps(open | cells_.too_wide[first / word_bits]);
    for_each_run(full & ~open, [&](std::int64_t begin, std::int64_t end) {
      tally->predicted += before[first + end].voxels - before[first + begin].voxels;
      tally->tp += before[first + end].actual - before[first + begin].actual;
    });
    for_each_run(open, [&](std::int64_t begin, std::int64_t end) {
      count_run(line, first + begin, first + end, tally);
    });
  }
}

// What all runs of a line share.
template <class V>
void SlabCounter<V>::start_line(const Line& line) {
  run_.z_weight = &cells_.z_weight[line.z->begin];
  run_.y_weight = &cells_.y_weight[line.y_row];
  run_.coarse_z_weight = &cells_.coarse_z_weight[line.z->begin];
  run_.coarse_y_weight = &cells_.coarse_y_weight[line.y_row * cells_.columns];
  run_.slices = line.slices;
  run_.words = line.words;
  run_.coarse_doubt = line.coarse_doubt;
  run_.doubt = std::max(doubt_[corner_row_[0]], doubt_[corner_row_[1]]);
  if (!line.flat)
    run_.doubt = std::max({run_.doubt, doubt_[corner_row_[2]], doubt_[corner_row_[3]]});
  count_ = !line.flat        ? count_tiles_.any
           : line.words == 1 ? count_tiles_.single
                             : count_tiles_.flat;
}

template <class V>
void SlabCounter<V>::count_run(const Line& line, std::int64_t begin, std::int64_t end,
                               Tally* tally) {
  for (int k = 0; k < (line.flat ? 2 : 4); ++k) {
    const std::int64_t slot = corner_row_[k] % slots_;
    resize_row(corner_row_[k], slot, begin, end);
    const std::int64_t first = slot * padded_ + begin * cells_.columns;
    run_.corner[k] = resized_.get() + first;
    run_.coarse[k] = coarse_.get() + first;
  }
  const std::int64_t at = line.first_word + begin * line.tile_words();
  cells_.set_valid(image_, line, begin, &run_);
  run_.actual = &cells_.actual[plane_ * cells_.tile_words + at];
  run_.tiles = end - begin;
  std::int64_t doubts = 0;
  if (run_.doubt < std::numeric_limits<float>::infinity()) {
    doubts = count_(run_, tally, doubtful_.data());
  } else {
    for (std::int64_t tile = 0; tile < run_.tiles; ++tile)
      for (std::int64_t slice = 0; slice < line.slices; ++slice)
        for (std::int64_t word = 0; word < line.words; ++word)
          doubtful_[doubts++] = {tile, slice, word};
  }
  for (std::int64_t k = 0; k < doubts; ++k) count_exactly(line, begin, doubtful_[k], tally);
}

// Blocks of a feature row, up to word_bits of them within one word of done_, resized along x on
// first use.
template <class V>
void SlabCounter<V>::resize_row(std::int64_t row, std::int64_t slot, std::int64_t begin,
                                std::int64_t end) {
  if (held_[slot] != row) {
    held_[slot] = row;
    std::fill_n(&done_[slot * done_words_], done_words_, std::uint64_t{0});
  }
  std::uint64_t& done = done_[slot * done_words_ + begin / word_bits];
  const std::int64_t first = begin / word_bits * word_bits;
  const std::uint64_t missing = (low_bits(end - begin) << (begin - first)) & ~done;
  if (missing == 0) return;
  for_each_run(missing, [&](std::int64_t from, std::int64_t to) {
    resize_blocks(row, slot, first + from, first + to);
  });
  done |= missing;
}

template <class V>
void SlabCounter<V>::resize_blocks(std::int64_t row, std::int64_t slot, std::int64_t begin,
                                   std::int64_t end) {
  const std::int64_t first = begin * cells_.columns, last = end * cells_.columns;
  const float* source = centred_.get() + row * n_;
  float* out = resized_.get() + slot * padded_;
  std::int16_t* coarse = coarse_.get() + slot * padded_;
  if (!cells_.gathered) {
    kernels_.resize_octets(source, &cells_.octet_first[first / 8], &cells_.octet_index[first],
                           &cells_.x_weight[first], coarse_scale_, (last - first) / 8, out + first,
                           coarse + first);
    return;
  }
  for (std::int64_t o = first; o < last; ++o) {
    const std::int64_t x = std::min(o, cells_.to.n[2] - 1);
    const float a = source[cells_.x_lower[x]], b = source[cells_.x_upper[x]];
    out[o] = a + cells_.x_weight[o] * (b - a);
    coarse[o] = static_cast<std::int16_t>(std::lrint(coarse_scale_ * out[o]));
  }
}

// One voxel as the specification has it: along z, then y, then x, in double.
template <class V>
bool SlabCounter<V>::is_foreground(double z_weight, double y_weight, std::int64_t x) const {
  double value[2];
  const std::int64_t tap[2] = {cells_.x_lower[x], cells_.x_upper[x]};
  for (int k = 0; k < 2; ++k) {
    const auto at = [&](int corner) {
      return static_cast<double>(values_[corner_row_[corner] * n_ + tap[k]]);
    };
    value[k] = lerp(lerp(at(0), at(2), z_weight), lerp(at(1), at(3), z_weight), y_weight);
  }
  const double resized_value = lerp(value[0], value[1], cells_.exact[2][x]);
  return threshold_.above ? resized_value > threshold_.threshold
                          : resized_value < threshold_.threshold;
}

template <class V>
void SlabCounter<V>::count_exactly(const Line& line, std::int64_t begin, const DoubtfulWord& word,
                                   Tally* tally) const {
  const std::int64_t place = (word.tile * line.slices + word.slice) * line.words + word.word;
  const std::int64_t z = line.z->begin + word.slice;
  const std::int64_t y = line.y->begin + word.word * (word_bits / cells_.columns);
  const std::int64_t first = (begin + word.tile) * cells_.columns;
  std::uint64_t left =
      run_.valid[word.tile * run_.valid_per_tile + word.slice * run_.valid_per_slice + word.word];
  for (; left != 0; left &= left - 1) {
    const int bit = __builtin_ctzll(left);
    const std::int64_t row = y + bit / cells_.columns;
    if (!is_foreground(cells_.exact[0][z], cells_.exact[1][row], first + bit % cells_.columns))
      continue;
    ++tally->predicted;
    tally->tp += run_.actual[place] >> bit & 1;
  }
}

template class SlabCounter<float>;
template class SlabCounter<double>;

}  // namespace protoseg
