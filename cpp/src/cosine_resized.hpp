// The part of the cosine gradient that does not commute with resizing: U' [shrink U f_c], channel
// by channel, as the norms of the forward pass.
#pragma once

#include "feature_gradient.hpp"
#include "guide_gradient.hpp"

namespace protoseg {

// -U' [shrink U f] of one channel. One per thread.
template <class T>
class ChannelShrink {
 public:
  ChannelShrink(const Problem<T>& problem, const AxisTaps taps[3])
      : problem_(problem),
        taps_(taps),
        resizer_(problem.kernels, problem.from, problem.guide.extent, taps),
        feature_(make_buffer<double>(problem.from.n[2])),
        row_(make_buffer<double>(problem.guide.extent.n[2])),
        reduced_(make_buffer<double>(problem.from.n[2])),
        sum_(make_buffer<double>(problem.voxels)) {}

  // shrink [size] of the channel's group; the result [voxels] stays valid until the next call.
  const double* operator()(std::int64_t image, std::int64_t channel, const T* shrink) {
    const Extent &from = problem_.from, &to = problem_.guide.extent;
    const Plane plane = plane_of(problem_.features, image, channel);
    const auto feature_row = [&](std::int64_t k) {
      read(problem_.kernels, plane, k * from.n[2], from.n[2], feature_.get());
      return feature_.get();
    };
    std::fill_n(sum_.get(), problem_.voxels, 0.0);
    for (std::int64_t slice = 0; slice < to.n[0]; ++slice)
      for (std::int64_t row = 0; row < to.n[1]; ++row, shrink += to.n[2]) {
        resizer_(slice, row, feature_row, row_.get());
        for (std::int64_t i = 0; i < to.n[2]; ++i)
          row_[i] = shrunk(-static_cast<double>(shrink[i]), row_[i]);
        reduce_columns();
        spread(slice, row);
      }
    return sum_.get();
  }

 private:
  void reduce_columns() {
    std::fill_n(reduced_.get(), problem_.from.n[2], 0.0);
    for (std::int64_t i = 0; i < problem_.guide.extent.n[2]; ++i) {
      const double upper = taps_[2].weight[i] * row_[i];
      reduced_[taps_[2].lower[i]] += row_[i] - upper;
      reduced_[taps_[2].upper[i]] += upper;
    }
  }

  void spread(std::int64_t slice, std::int64_t row) {
    const std::int64_t length = problem_.from.n[2], rows = problem_.from.n[1];
    const double z = taps_[0].weight[slice], y = taps_[1].weight[row];
    const std::int64_t slices[2] = {taps_[0].lower[slice], taps_[0].upper[slice]};
    const double share[2] = {1.0 - z, z};
    for (int k = 0; k < (z == 0.0 ? 1 : 2); ++k) {
      const double lower = share[k] * (1.0 - y), upper = share[k] * y;
      problem_.kernels.spread(reduced_.get(), 0, &lower, &upper, 1, length,
                              sum_.get() + (slices[k] * rows + taps_[1].lower[row]) * length,
                              sum_.get() + (slices[k] * rows + taps_[1].upper[row]) * length);
    }
  }

  const Problem<T>& problem_;
  const AxisTaps* taps_;
  RowResizer resizer_;
  Buffer<double> feature_, row_, reduced_, sum_;
};

// shrink [N, groups, size] of a batch.
template <class T>
Buffer<T> shrink_maps(const Problem<T>& problem, const MarginGradient<T>& margin,
                      const GroupBatch<T>& batch) {
  const std::int64_t groups = batch.end - batch.begin, voxels = problem.guide.extent.voxels();
  const std::int64_t blocks = (voxels + block_voxels - 1) / block_voxels;
  Buffer<T> maps = make_buffer<T>(problem.images * groups * voxels);
  parallel_for(problem.images * groups * blocks, 16 * problem.targets * block_voxels, [&] {
    return [&, along = make_buffer<T>(block_voxels)](std::int64_t task) {
      const std::int64_t plane = task / blocks, first = task % blocks * block_voxels;
      const std::int64_t n = std::min(block_voxels, voxels - first);
      T* out = maps.get() + plane * voxels + first;
      std::fill_n(out, n, T{0});
      for (std::int64_t target = 0; target < problem.targets; ++target)
        margin.read(plane / groups, batch.begin + plane % groups, target, first, n, along.get(),
                    out);
    };
  });
  return maps;
}

// The gradients of the features of a batch of groups.
template <class T>
void cosine_resized(const Problem<T>& problem, const MarginGradient<T>& margin,
                    const GroupBatch<T>& batch, const ChannelGradients& gradients,
                    const MutableView& out) {
  AxisTaps taps[3];
  for (int slot = 0; slot < 3; ++slot)
    taps[slot] = axis_taps(problem.resize, problem.guide.extent, slot);
  const Buffer<T> shrink = shrink_maps(problem, margin, batch);
  const std::int64_t groups = batch.end - batch.begin, size = problem.guide.extent.voxels();
  const std::int64_t count = groups * problem.group_channels;
  parallel_for(problem.images * count, 4 * (problem.voxels + size), [&] {
    return [&, channel_shrink = ChannelShrink<T>(problem, taps),
            rows = FeatureGradient<T>(problem, gradients, out)](std::int64_t task) mutable {
      const std::int64_t image = task / count, c = task % count;
      const std::int64_t channel = batch.begin * problem.group_channels + c;
      const std::int64_t group = channel / problem.group_channels;
      const std::int64_t plane = image * groups + group - batch.begin;
      const double* added = channel_shrink(image, channel, shrink.get() + plane * size);
      for (std::int64_t first = 0; first < problem.voxels; first += block_voxels) {
        const std::int64_t n = std::min(block_voxels, problem.voxels - first);
        rows.read_weights(image, first, n);
        rows.write_row(
            image, channel, first, n,
            [&](std::int64_t target) { return batch.row(problem, image, group, target, first); },
            nullptr, {}, added + first);
      }
    };
  });
}

}  // namespace protoseg
