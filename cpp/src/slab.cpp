#include "slab.hpp"

#include <algorithm>
#include <cmath>

namespace protoseg {
namespace {

// Feature values of a slab.
constexpr std::int64_t slab_values = std::int64_t{1} << 16;

// Words counted together, of all slices of a run: an interval at least.
constexpr std::int64_t run_words = 4096;

// A value in fixed point errs by 1/2, and by the float arithmetic that leads there.
constexpr double coarse_error = 0.51;

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

// What kernels read behind the last value has no weight, but must have been written.
Buffer<std::int16_t> make_zeros(std::int64_t n) {
  Buffer<std::int16_t> zeros = make_buffer<std::int16_t>(n);
  std::fill_n(zeros.get(), n, std::int16_t{0});
  return zeros;
}

std::int64_t slice_words(const ResizePlan& plan) { return plan.most_band_voxels() / word_bits + 1; }

}  // namespace

std::vector<Slab> make_slabs(const ResizePlan& plan, std::int64_t parts) {
  const std::int64_t rows_each = plan.from.n[1];
  const auto count = static_cast<std::int64_t>(plan.slices.size());
  // Of a flat map, all resized rows are held.
  const std::int64_t held = plan.is_flat() ? plan.to.n[2] : 0;
  const std::int64_t most_slices =
      std::max<std::int64_t>(2, slab_values / std::max(plan.from.n[2] * rows_each, held));
  const std::int64_t most_intervals = (count + parts - 1) / parts;
  std::vector<Slab> slabs;
  for (std::int64_t begin = 0, end; begin < count; begin = end) {
    const std::int64_t lower = plan.slices[begin].lower;
    for (end = begin + 1; end < count && end - begin < most_intervals &&
                          plan.slices[end].upper - lower < most_slices;)
      ++end;
    const std::int64_t slices = plan.slices[end - 1].upper - lower + 1;
    slabs.push_back({begin, end, lower * rows_each, slices * rows_each});
  }
  return slabs;
}

template <class V>
SlabCounter<V>::SlabCounter(const Kernels& kernels, const GuideState& guide, const ResizePlan& plan,
                            const std::vector<int>& asked, std::int64_t most_rows,
                            std::int64_t most_thresholds)
    : kernels_(kernels),
      guide_(guide),
      plan_(plan),
      asked_(asked),
      row_taps_(plan.row_taps()),
      n_(plan.from.n[2]),
      looks_(most_thresholds),
      coarse_(make_buffer<std::int16_t>(most_rows * n_ + word_bits)),
      lowest_(make_buffer<std::int16_t>(most_rows)),
      highest_(make_buffer<std::int16_t>(most_rows)),
      span_lowest_(make_buffer<std::int16_t>(plan.from.n[1])),
      span_highest_(make_buffer<std::int16_t>(plan.from.n[1])),
      row_pitch_(plan.row_pitch()),
      slice_pitch_(plan.most_band_voxels() + 2 * word_bits),
      row_(make_zeros((plan.is_flat() ? most_rows : plan.most_band_rows()) * row_pitch_ +
                      word_bits)),
      slice_(make_zeros(plan.is_flat() ? 0 : 2 * slice_pitch_)),
      most_open_slices_(
          std::max(std::int64_t{ResizePlan::longest_interval}, run_words / slice_words(plan))),
      doubtful_(make_buffer<DoubtfulVoxels>(slice_words(plan) * most_open_slices_)) {}

template <class V>
void SlabCounter<V>::operator()(const Slab& slab, const V* values,
                                const UnitThreshold<double>* thresholds, std::int64_t count,
                                std::int64_t image, std::int64_t first_target, Tally* tally) {
  values_ = values;
  slab_ = &slab;
  for (std::int64_t i = 0; i < count; ++i)
    looks_[i].references = guide_.compared(asked_, image, first_target + i);
  look(slab, thresholds, count);
  if (plan_.is_flat())
    count_flat(slab, count);
  else
    for (const Band& band : plan_.bands) count_band(slab, band, count);
  const std::size_t asked = asked_.size();
  for (std::int64_t i = 0; i < count; ++i)
    for (std::size_t k = 0; k < asked; ++k) {
      tally[i * asked + k].predicted += looks_[i].sum.predicted;
      tally[i * asked + k].tp += looks_[i].sum.tp[k];
    }
}

// The map in fixed point, and the extremes of its rows.
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
  if (usable) {
    quantise(kernels_, values_, offset_, scale_, slab.rows * n_, coarse_.get());
    std::fill_n(coarse_.get() + slab.rows * n_, word_bits, std::int16_t{0});
    kernels_.row_spans(coarse_.get(), slab.rows, n_, lowest_.get(), highest_.get());
  }
  for (std::int64_t i = 0; i < count; ++i) {
    looks_[i].threshold = thresholds[i];
    looks_[i].sum = {0, {0, 0}};
    if (thresholds[i].anything && usable) look_at(looks_[i], lowest, highest);
  }
}

template <class V>
void SlabCounter<V>::look_at(Look& look, double lowest, double highest) const {
  // Beyond all values by 4, the exact level does not matter.
  const double exact =
      std::clamp(scale_ * (look.threshold.threshold - offset_), scale_ * (lowest - offset_) - 4.0,
                 scale_ * (highest - offset_) + 4.0);
  look.level = static_cast<std::int16_t>(std::lround(exact));
  const double error = coarse_error + std::fabs(exact - look.level);
  look.corner_doubt = static_cast<std::int16_t>(error);
  look.doubt = static_cast<std::int16_t>(error + plan_.coarse_error);
}

// Slices are rows. Decides what corners decide, and evaluates the rest, in runs of intervals.
template <class V>
void SlabCounter<V>::count_flat(const Slab& slab, std::int64_t count) {
  const Interval* slices = plan_.slices.data();
  if (scale_ != 0.0) resize_rows(0, slab.rows, row_.get(), row_pitch_);
  intervals_.clear();
  for (std::int64_t z = slab.begin; z < slab.end; ++z) {
    const auto row = [&](std::int64_t k) { return row_.get() + (k - slab.first_row) * row_pitch_; };
    intervals_.push_back(
        {row(slices[z].lower), row(slices[z].upper), slices[z].begin, slices[z].end});
  }
  for (std::int64_t i = 0; i < count; ++i) {
    Look& look = looks_[i];
    if (!look.threshold.anything) continue;
    const auto side_of = [&](std::int64_t z) {
      return side(look, slices[z].lower - slab.first_row, slices[z].upper - slab.first_row);
    };
    for (std::int64_t z = slab.begin, end; z < slab.end; z = end) {
      const Side here = side_of(z);
      const std::int64_t last = slices[z].begin + most_open_slices_;
      for (end = z + 1; end < slab.end && slices[end].end <= last && side_of(end) == here;) ++end;
      if (here == Side::foreground)
        count_whole({0, 0, slices[z].begin, slices[end - 1].end}, 0, 1, look);
      else if (here == Side::open)
        count_open(&intervals_[z - slab.begin], end - z, 0, 1, look);
    }
  }
}

// The same in runs of rows between two feature slices.
template <class V>
void SlabCounter<V>::count_band(const Slab& slab, const Band& band, std::int64_t count) {
  held_[0] = held_[1] = -1;
  for (std::int64_t z = slab.begin; z < slab.end; ++z) {
    const Interval& slices = plan_.slices[z];
    if (scale_ != 0.0) span_rows(slices);
    for (std::int64_t i = 0; i < count; ++i) {
      Look& look = looks_[i];
      if (!look.threshold.anything) continue;
      const auto side_of = [&](std::int64_t y) {
        return side(look, plan_.rows[y].lower, plan_.rows[y].upper);
      };
      for (std::int64_t begin = band.begin, end; begin < band.end; begin = end) {
        const Side here = side_of(begin);
        for (end = begin + 1; end < band.end && side_of(end) == here;) ++end;
        const std::int64_t first = plan_.rows[begin].begin, last = plan_.rows[end - 1].end;
        if (here == Side::foreground) count_whole(slices, first, last, look);
        if (here != Side::open) continue;
        SliceInterval interval = {nullptr, nullptr, slices.begin, slices.end};
        if (scale_ != 0.0) {
          const std::int64_t skipped = (first - plan_.rows[band.begin].begin) * plan_.to.n[2];
          interval.lower = resized_slice(slices.lower, band) + skipped;
          interval.upper = resized_slice(slices.upper, band) + skipped;
        }
        count_open(&interval, 1, first, last, look);
      }
    }
  }
}

// Extremes of the feature rows of both slices.
template <class V>
void SlabCounter<V>::span_rows(const Interval& slices) {
  const std::int64_t n = plan_.from.n[1];
  const std::int64_t lower = slices.lower * n - slab_->first_row;
  const std::int64_t upper = slices.upper * n - slab_->first_row;
  for (std::int64_t y = 0; y < n; ++y) {
    span_lowest_[y] = std::min(lowest_[lower + y], lowest_[upper + y]);
    span_highest_[y] = std::max(highest_[lower + y], highest_[upper + y]);
  }
}

// Of what lies between rows whose extremes are known.
template <class V>
typename SlabCounter<V>::Side SlabCounter<V>::side(const Look& look, std::int64_t lower,
                                                   std::int64_t upper) const {
  if (scale_ == 0.0) return Side::open;
  const std::int16_t* lowest = plan_.is_flat() ? lowest_.get() : span_lowest_.get();
  const std::int16_t* highest = plan_.is_flat() ? highest_.get() : span_highest_.get();
  const bool above = std::min(lowest[lower], lowest[upper]) > look.level + look.corner_doubt;
  const bool below = std::max(highest[lower], highest[upper]) < look.level - look.corner_doubt;
  if (!above && !below) return Side::open;
  return above == look.threshold.above ? Side::foreground : Side::background;
}

// Output rows [begin, end) of slices that are all foreground.
template <class V>
void SlabCounter<V>::count_whole(const Interval& slices, std::int64_t begin, std::int64_t end,
                                 Look& look) const {
  const std::int64_t width = plan_.to.n[2], n = (end - begin) * width;
  // Whole slices follow each other.
  const std::int64_t together = n == plan_.slice_voxels() ? slices.end - slices.begin : 1;
  for (std::int64_t z = slices.begin; z < slices.end; z += together)
    kernels_.count_whole(look.references, (z * plan_.to.n[1] + begin) * width, n * together,
                         &look.sum);
}

// Evaluates output rows [begin, end) of slices.
template <class V>
void SlabCounter<V>::count_open(const SliceInterval* intervals, std::int64_t count,
                                std::int64_t begin, std::int64_t end, Look& look) {
  SliceRun run;
  run.intervals = intervals;
  run.count = count;
  run.voxels = (end - begin) * plan_.to.n[2];
  run.weight = plan_.coarse[0].data();
  run.references = look.references;
  run.first_bit = begin * plan_.to.n[2];
  run.slice_bits = plan_.slice_voxels();
  run.level = look.level;
  run.doubt = look.doubt;
  run.below = look.threshold.above ? 0 : ~std::uint64_t{0};
  const std::int64_t doubts =
      scale_ == 0.0 ? doubt_all(run) : kernels_.count_slices(run, &look.sum, doubtful_.get());
  for (std::int64_t k = 0; k < doubts; ++k) count_exactly(begin, doubtful_[k], look);
}

// As count_slices of a map that fixed point cannot hold.
template <class V>
std::int64_t SlabCounter<V>::doubt_all(const SliceRun& run) {
  const std::uint64_t* valid = run.references.valid;
  std::int64_t doubts = 0;
  for (std::int64_t k = 0; k < run.count; ++k)
    for (std::int64_t z = run.intervals[k].begin; z < run.intervals[k].end; ++z)
      for (std::int64_t first = 0; first < run.voxels; first += word_bits) {
        const std::int64_t here = std::min<std::int64_t>(word_bits, run.voxels - first);
        std::uint64_t voxels = low_bits(here);
        if (valid != nullptr)
          voxels &= bits_at(valid, run.first_bit + z * run.slice_bits + first, here);
        doubtful_[doubts++] = {z, first, voxels};
      }
  return doubts;
}

// A feature slice resized along x and y: the band's voxels in order.
template <class V>
const std::int16_t* SlabCounter<V>::resized_slice(std::int64_t slice, const Band& band) {
  const std::int64_t width = plan_.to.n[2];
  std::int16_t* out = slice_.get() + slice % 2 * slice_pitch_;
  if (held_[slice % 2] == slice) return out;
  held_[slice % 2] = slice;
  const std::int64_t first = slice * plan_.from.n[1] - slab_->first_row;
  const std::int64_t lowest = plan_.rows[band.begin].lower;
  const std::int64_t rows = plan_.rows[band.end - 1].upper - lowest + 1;
  // Every row is written with some values too many, which the next one replaces.
  if (plan_.from.n[1] == plan_.to.n[1]) {
    resize_rows(first + lowest, rows, out, width);
    return out;
  }
  const std::int64_t begin = plan_.rows[band.begin].begin, end = plan_.rows[band.end - 1].end;
  resize_rows(first + lowest, rows, row_.get(), row_pitch_);
  kernels_.blend_rows({row_.get(), row_pitch_, lowest}, &plan_.y_lower[begin],
                      &plan_.y_upper[begin], &plan_.coarse[1][begin], end - begin, width, out);
  return out;
}

template <class V>
void SlabCounter<V>::resize_rows(std::int64_t first, std::int64_t rows, std::int16_t* out,
                                 std::int64_t pitch) {
  const std::int16_t* source = coarse_.get() + first * n_;
  if (!plan_.gathered) return kernels_.resize_rows(source, rows, n_, row_taps_, out, pitch);
  for (std::int64_t row = 0; row < rows; ++row, source += n_, out += pitch)
    for (std::int64_t x = 0; x < plan_.to.n[2]; ++x) {
      const std::int32_t a = source[plan_.x_lower[x]], b = source[plan_.x_upper[x]];
      out[x] = static_cast<std::int16_t>(a + (((b - a) * plan_.coarse[2][x] + 0x4000) >> 15));
    }
}

// Voxels of a run that begins with output row `begin`.
template <class V>
void SlabCounter<V>::count_exactly(std::int64_t begin, const DoubtfulVoxels& word,
                                   Look& look) const {
  const std::int64_t width = plan_.to.n[2];
  for (std::uint64_t left = word.voxels; left != 0; left &= left - 1) {
    const std::int64_t voxel = begin * width + word.first + __builtin_ctzll(left);
    const std::int64_t bit = word.slice * plan_.slice_voxels() + voxel;
    // Either way is as likely as the other: no branch.
    const std::int64_t foreground = is_foreground(look, word.slice, voxel / width, voxel % width);
    look.sum.predicted += foreground;
    for (std::size_t k = 0; k < asked_.size(); ++k)
      look.sum.tp[k] +=
          foreground & static_cast<std::int64_t>(bits_at(look.references.actual[k], bit, 1));
  }
}

// One voxel as the specification has it: along z, then y, then x, in double.
template <class V>
bool SlabCounter<V>::is_foreground(const Look& look, std::int64_t z, std::int64_t y,
                                   std::int64_t x) const {
  const std::int64_t slice[2] = {plan_.z_lower[z], plan_.z_upper[z]};
  const std::int64_t row[2] = {plan_.y_lower[y], plan_.y_upper[y]};
  const std::int64_t tap[2] = {plan_.x_lower[x], plan_.x_upper[x]};
  double value[2];
  for (int k = 0; k < 2; ++k) {
    const auto at = [&](int i, int j) {
      const std::int64_t place = slice[i] * plan_.from.n[1] + row[j] - slab_->first_row;
      return static_cast<double>(values_[place * n_ + tap[k]]);
    };
    const double z_weight = plan_.exact[0][z];
    value[k] = lerp(lerp(at(0, 0), at(1, 0), z_weight), lerp(at(0, 1), at(1, 1), z_weight),
                    plan_.exact[1][y]);
  }
  const double resized = lerp(value[0], value[1], plan_.exact[2][x]);
  return look.threshold.above ? resized > look.threshold.threshold
                              : resized < look.threshold.threshold;
}

template class SlabCounter<float>;
template class SlabCounter<double>;

}  // namespace protoseg
