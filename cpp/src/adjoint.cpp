// The adjoint of resizing: weights at `size` become weights at `feature_size`, so that
// sum_x W(x) (U f)(x) = sum_k (U^T W)(k) f(k) and no channel is ever resized for its prototypes.
#include <algorithm>

#include "guide.hpp"
#include "parallel.hpp"
#include "taps.hpp"

namespace protoseg {
namespace {

// U^T of the weights, for a range of feature slices. One per thread.
//
// Axes are reduced one after the other, the last one last: rows are added whole, and only what is
// left is small. Each feature slice adds up the output slices that read it in their order, whoever
// computes it, so that the bits do not depend on how slices are dealt out to threads.
class SliceAdjoint {
 public:
  SliceAdjoint(const Kernels& kernels, const GuideState& guide, const AxisTaps taps[3],
               const Extent& from)
      : kernels_(kernels),
        guide_(guide),
        taps_(taps),
        from_(from),
        row_(guide.extent.n[2]),
        slice_(from.n[1] * row_),
        mask_(make_buffer<double>(row_)),
        weights_(make_buffer<double>(2 * row_)),
        reduced_(make_buffer<double>(2 * slice_)) {}

  // positive, negative [to - begin, from.y, from.x] of feature slices [begin, to).
  void operator()(std::int64_t image, std::int64_t target, std::int64_t begin, std::int64_t end,
                  double* positive, double* negative) {
    const std::vector<double>& weight = taps_[0].weight;
    const auto &lower = taps_[0].lower, &upper = taps_[0].upper;
    sums_.assign(2 * (end - begin) * slice_, 0.0);
    unused_.resize(slice_);
    const auto first = std::lower_bound(upper.begin(), upper.end(), begin) - upper.begin();
    const auto last = std::upper_bound(lower.begin(), lower.end(), end - 1) - lower.begin();
    for (std::int64_t o = first; o < last; ++o) {
      reduce_rows(image, target, o);
      for (int side = 0; side < 2; ++side) {
        double* sums = sums_.data() + side * (end - begin) * slice_;
        const auto at = [&](std::int64_t k) {
          return k >= begin && k < end ? sums + (k - begin) * slice_ : unused_.data();
        };
        kernels_.spread(reduced_.get() + side * slice_, 1.0 - weight[o], weight[o], slice_,
                        at(lower[o]), at(upper[o]));
      }
    }
    for (int side = 0; side < 2; ++side)
      reduce_columns(sums_.data() + side * (end - begin) * slice_, (end - begin) * from_.n[1],
                     side == 0 ? positive : negative);
  }

 private:
  // Both weights of an output slice, reduced along y.
  void reduce_rows(std::int64_t image, std::int64_t target, std::int64_t slice) {
    const double one[2] = {1.0, 1.0};
    const AxisTaps& taps = taps_[1];
    const std::int64_t rows = guide_.extent.n[1];
    const bool whole = rows == 1 && from_.n[1] == 1;
    if (!whole) std::fill_n(reduced_.get(), 2 * slice_, 0.0);
    for (std::int64_t j = 0; j < rows; ++j) {
      double* out[2] = {whole ? reduced_.get() : weights_.get(),
                        whole ? reduced_.get() + slice_ : weights_.get() + row_};
      const std::int64_t first = (slice * rows + j) * row_;
      guide_.read_pred(kernels_, image, target, first, row_, out[0]);
      const double* mask = guide_.read_mask(kernels_, image, first, row_, mask_.get());
      kernels_.weights_double(out[0], mask, one, row_, out[0], out[1]);
      for (int side = 0; side < 2 && !whole; ++side) {
        double* sums = reduced_.get() + side * slice_;
        kernels_.spread(out[side], 1.0 - taps.weight[j], taps.weight[j], row_,
                        sums + taps.lower[j] * row_, sums + taps.upper[j] * row_);
      }
    }
  }

  // rows [rows, to.x] -> out [rows, from.x]
  void reduce_columns(const double* values, std::int64_t rows, double* out) const {
    const AxisTaps& taps = taps_[2];
    std::fill_n(out, rows * from_.n[2], 0.0);
    for (std::int64_t row = 0; row < rows; ++row, values += row_, out += from_.n[2])
      for (std::int64_t i = 0; i < row_; ++i) {
        out[taps.lower[i]] += (1.0 - taps.weight[i]) * values[i];
        out[taps.upper[i]] += taps.weight[i] * values[i];
      }
  }

  const Kernels& kernels_;
  const GuideState& guide_;
  const AxisTaps* taps_;
  const Extent from_;
  const std::int64_t row_;    // outputs of a row
  const std::int64_t slice_;  // of a slice reduced along y: [from.y, to.x]
  Buffer<double> mask_, weights_, reduced_;
  std::vector<double> sums_;    // [2, slices, slice]
  std::vector<double> unused_;  // [slice]: what belongs to slices of other ranges
};

}  // namespace

void adjoint_weights(const Kernels& kernels, const GuideState& guide, const Resize& resize,
                     std::int64_t image, std::int64_t target, double* positive, double* negative) {
  const Extent& from = resize.from;
  AxisTaps taps[3];
  for (int slot = 0; slot < 3; ++slot) taps[slot] = axis_taps(resize, guide.extent, slot);
  const std::int64_t slice_voxels = from.n[1] * from.n[2];
  // Ranges read the output slices at their ends twice: long ones, but not past the cache.
  const std::int64_t slice_bytes = 16 * from.n[1] * guide.extent.n[2];
  const std::int64_t longest = std::max<std::int64_t>(1, (std::int64_t{1} << 20) / slice_bytes);
  const std::int64_t dealt = (from.n[0] + 2 * max_threads() - 1) / (2 * max_threads());
  const std::int64_t length = std::min(longest, dealt);
  const std::int64_t tasks = (from.n[0] + length - 1) / length;
  parallel_for(tasks, 4 * guide.extent.voxels() / tasks + 1, [&] {
    return [&, adjoint = SliceAdjoint(kernels, guide, taps, from)](std::int64_t task) mutable {
      const std::int64_t begin = task * length, end = std::min(from.n[0], begin + length);
      adjoint(image, target, begin, end, positive + begin * slice_voxels,
              negative + begin * slice_voxels);
    };
  });
}

}  // namespace protoseg
