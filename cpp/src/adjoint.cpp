// The adjoint of resizing: weights at `size` become weights at `feature_size`, so that
// sum_x W(x) (U f)(x) = sum_k (U^T W)(k) f(k) and no channel is ever resized for its prototypes.
#include <algorithm>

#include "guide.hpp"
#include "parallel.hpp"
#include "taps.hpp"

namespace protoseg {
namespace {

// Adds U^T of one output slice (rows along the last two axes) to positive and negative.
class SliceAdjoint {
 public:
  SliceAdjoint(const Kernels& kernels, const GuideState& guide, const AxisTaps taps[3],
               const Extent& from)
      : kernels_(kernels),
        guide_(guide),
        taps_(taps),
        from_(from),
        pred_(make_buffer<double>(guide.extent.n[2])),
        mask_(make_buffer<double>(guide.extent.n[2])),
        negative_(make_buffer<double>(guide.extent.n[2])),
        row_(make_buffer<double>(2 * from.n[2])) {}

  void add(std::int64_t image, std::int64_t target, std::int64_t slice, double share,
           double* positive, double* negative) {
    const Extent& to = guide_.extent;
    const double one[2] = {share, share};
    double* rows[2] = {row_.get(), row_.get() + from_.n[2]};
    double* sums[2] = {positive, negative};
    for (std::int64_t j = 0; j < to.n[1]; ++j) {
      const std::int64_t first = (slice * to.n[1] + j) * to.n[2];
      guide_.read_pred(kernels_, image, target, first, to.n[2], pred_.get());
      const double* mask = guide_.read_mask(kernels_, image, first, to.n[2], mask_.get());
      kernels_.weights_double(pred_.get(), mask, one, to.n[2], pred_.get(), negative_.get());
      const double* values[2] = {pred_.get(), negative_.get()};
      for (int side = 0; side < 2; ++side) {
        row_adjoint(values[side], rows[side]);
        const AxisTaps& taps = taps_[1];
        double* lower = sums[side] + taps.lower[j] * from_.n[2];
        double* upper = sums[side] + taps.upper[j] * from_.n[2];
        const double weight = taps.weight[j];
        for (std::int64_t i = 0; i < from_.n[2]; ++i) {
          lower[i] += (1.0 - weight) * rows[side][i];
          upper[i] += weight * rows[side][i];
        }
      }
    }
  }

 private:
  void row_adjoint(const double* values, double* row) const {
    const AxisTaps& taps = taps_[2];
    std::fill_n(row, from_.n[2], 0.0);
    for (std::int64_t i = 0; i < guide_.extent.n[2]; ++i) {
      row[taps.lower[i]] += (1.0 - taps.weight[i]) * values[i];
      row[taps.upper[i]] += taps.weight[i] * values[i];
    }
  }

  const Kernels& kernels_;
  const GuideState& guide_;
  const AxisTaps* taps_;
  Extent from_;
  Buffer<double> pred_, mask_, negative_, row_;
};

}  // namespace

void adjoint_weights(const Kernels& kernels, const GuideState& guide, const Resize& resize,
                     std::int64_t image, std::int64_t target, double* positive, double* negative) {
  const Extent& to = guide.extent;
  const Extent& from = resize.from;
  AxisTaps taps[3];
  for (int slot = 0; slot < 3; ++slot) taps[slot] = axis_taps(resize, to, slot);
  const std::int64_t slice_voxels = from.n[1] * from.n[2];
  const std::int64_t cost = 4 * to.voxels() / from.n[0];
  // Each feature slice gathers from the output slices that read it: nobody else writes to it, and
  // it adds up in their order whatever the number of threads.
  parallel_for(from.n[0], cost, [&] {
    return [&, slice_adjoint = SliceAdjoint(kernels, guide, taps, from)](std::int64_t k) mutable {
      double* sums[2] = {positive + k * slice_voxels, negative + k * slice_voxels};
      std::fill_n(sums[0], slice_voxels, 0.0);
      std::fill_n(sums[1], slice_voxels, 0.0);
      const auto& upper = taps[0].upper;
      const auto& lower = taps[0].lower;
      const auto begin = std::lower_bound(upper.begin(), upper.end(), k) - upper.begin();
      const auto end = std::upper_bound(lower.begin(), lower.end(), k) - lower.begin();
      for (std::int64_t slice = begin; slice < end; ++slice) {
        const double weight = taps[0].weight[slice];
        const double share =
            (lower[slice] == k ? 1.0 - weight : 0.0) + (upper[slice] == k ? weight : 0.0);
        if (share > 0.0) slice_adjoint.add(image, target, slice, share, sums[0], sums[1]);
      }
    };
  });
}

}  // namespace protoseg
