// The gradients of pred and mask: projections of the features onto the gradients of the prototypes,
// see "To pred and mask" in docs/gradients.md.
#pragma once

#include <cstdint>
#include <vector>

#include "gradient_sums.hpp"
#include "taps.hpp"

namespace protoseg {

// Which projections are needed, and onto what.
struct GuideProjection {
  std::int64_t sides = 0;        // 0: none; 1: q+ - q-, for pred alone; 2: q+ and q-
  std::vector<double> weight;    // [N, T, sides, C]
  std::vector<double> constant;  // [N, T, sides]: the projection of the prototypes themselves

  std::int64_t row(std::int64_t image, std::int64_t target, std::int64_t targets) const {
    return (image * targets + target) * sides;
  }
};

template <class T>
void make_projection(const Problem<T>& problem, const std::vector<ChannelPrototypes>& prototypes,
                     const ChannelGradients& gradients, GuideProjection& out) {
  const std::int64_t channels = problem.channels, maps = problem.images * problem.targets;
  out.weight.assign(maps * out.sides * channels, 0.0);
  out.constant.assign(maps * out.sides, 0.0);
  for (std::int64_t map = 0; map < maps && out.sides > 0; ++map)
    for (std::int64_t c = 0; c < channels; ++c) {
      const std::int64_t group = c / problem.group_channels;
      const std::int64_t plane = map / problem.targets * problem.groups + group;
      if (gradients.active[plane * problem.targets + map % problem.targets] == 0) continue;
      const ChannelPrototypes& p = prototypes[map * channels + c];
      const double* scale = &problem.weights->scale[2 * map];
      const double q[2] = {gradients.positive[map * channels + c] * scale[0],
                           gradients.negative[map * channels + c] * scale[1]};
      const double at[2] = {q[0] * (p.reference + p.positive), q[1] * (p.reference + p.negative)};
      double* weight = &out.weight[map * out.sides * channels + c];
      double* constant = &out.constant[map * out.sides];
      weight[0] = out.sides == 1 ? q[0] - q[1] : q[0];
      constant[0] += out.sides == 1 ? at[0] - at[1] : at[0];
      if (out.sides == 1) continue;
      weight[channels] = q[1];
      constant[1] += at[1];
    }
}

// Turns projections at `size` into gradients of pred and mask. One per thread.
template <class T>
class GuideGradient {
 public:
  GuideGradient(const Problem<T>& problem, const GuideProjection& projection, const Gradients& out)
      : problem_(problem), projection_(projection), out_(out) {
    for (Buffer<double>* row : {&mask_, &pred_, &pred_out_, &mask_out_})
      *row = make_buffer<double>(block_voxels);
  }

  // q [T, sides, pitch] of voxels [first, first + n)
  void take(std::int64_t image, std::int64_t first, std::int64_t n, const double* q,
            std::int64_t pitch) {
    for (std::int64_t done = 0; done < n; done += block_voxels)
      block(image, first + done, std::min(block_voxels, n - done), q + done, pitch);
  }

 private:
  void block(std::int64_t image, std::int64_t first, std::int64_t n, const double* q,
             std::int64_t pitch) {
    const GuideState& guide = problem_.guide;
    const double* mask = guide.read_mask(problem_.kernels, image, first, n, mask_.get());
    std::fill_n(mask_out_.get(), n, 0.0);
    for (std::int64_t target = 0; target < problem_.targets; ++target) {
      const std::int64_t row = projection_.row(image, target, problem_.targets);
      const double* constant = &projection_.constant[row];
      const double* side = q + target * projection_.sides * pitch;
      if (out_.mask != nullptr) add_to_mask(image, target, first, n, side, pitch, constant);
      if (out_.pred == nullptr) continue;
      const bool both = projection_.sides == 2;
      for (std::int64_t i = 0; i < n; ++i) {
        const double positive = side[i] - constant[0];
        const double difference = both ? positive - (side[pitch + i] - constant[1]) : positive;
        pred_out_[i] = mask != nullptr ? pred_gradient(mask[i], difference) : difference;
      }
      if (guide.binarize) std::fill_n(pred_out_.get(), n, 0.0);  // pred > threshold is a step
      write(problem_.kernels, plane_of(*out_.pred, image, target), first, n, pred_out_.get());
    }
    if (out_.mask != nullptr)
      write(problem_.kernels, plane_of(*out_.mask, image, 0), first, n, mask_out_.get());
  }

  void add_to_mask(std::int64_t image, std::int64_t target, std::int64_t first, std::int64_t n,
                   const double* side, std::int64_t pitch, const double* constant) {
    problem_.guide.read_pred(problem_.kernels, image, target, first, n, pred_.get());
    for (std::int64_t i = 0; i < n; ++i)
      mask_out_[i] += mask_gradient(pred_[i], side[i] - constant[0], side[pitch + i] - constant[1]);
  }

  const Problem<T>& problem_;
  const GuideProjection& projection_;
  const Gradients out_;
  Buffer<double> mask_, pred_, pred_out_, mask_out_;
};

// Resizes rows of maps from feature size to `size`. One per thread.
class RowResizer {
 public:
  RowResizer(const Kernels& kernels, const Extent& from, const Extent& to, const AxisTaps taps[3])
      : kernels_(kernels),
        from_(from),
        to_(to),
        taps_(taps),
        row_(make_buffer<double>(from.n[2])),
        other_(make_buffer<double>(from.n[2])) {}

  // Row (slice, row) of the output [to.x] of a map; feature_row(k) points to its feature row k.
  template <class FeatureRow>
  void operator()(std::int64_t slice, std::int64_t row, FeatureRow feature_row, double* out) {
    const std::int64_t lower = taps_[1].lower[row], upper = taps_[1].upper[row];
    blend_slices(slice, lower, feature_row, row_.get());
    if (upper != lower) {
      blend_slices(slice, upper, feature_row, other_.get());
      kernels_.blend(row_.get(), other_.get(), taps_[1].weight[row], from_.n[2], row_.get());
    }
    kernels_.sample(row_.get(), taps_[2].lower.data(), taps_[2].upper.data(),
                    taps_[2].weight.data(), to_.n[2], out);
  }

 private:
  template <class FeatureRow>
  void blend_slices(std::int64_t slice, std::int64_t row, FeatureRow feature_row, double* out) {
    const double* lower = feature_row(taps_[0].lower[slice] * from_.n[1] + row);
    std::copy_n(lower, from_.n[2], out);
    if (taps_[0].upper[slice] == taps_[0].lower[slice]) return;
    const double* upper = feature_row(taps_[0].upper[slice] * from_.n[1] + row);
    kernels_.blend(out, upper, taps_[0].weight[slice], from_.n[2], out);
  }

  const Kernels& kernels_;
  const Extent from_, to_;
  const AxisTaps* taps_;
  Buffer<double> row_, other_;
};

// Projections q [N, T, sides, voxels] at feature size, resized row by row.
template <class T>
void resize_projections(const Problem<T>& problem, const GuideProjection& projection,
                        const double* q, const Gradients& out) {
  const Extent &from = problem.from, &to = problem.guide.extent;
  AxisTaps taps[3];
  for (int slot = 0; slot < 3; ++slot) taps[slot] = axis_taps(problem.resize, to, slot);
  const std::int64_t maps = problem.targets * projection.sides;
  parallel_for(problem.images * to.n[0], 4 * maps * to.n[1] * to.n[2], [&] {
    return [&, gradient = GuideGradient<T>(problem, projection, out),
            resizer = RowResizer(problem.kernels, from, to, taps),
            rows = make_buffer<double>(maps * to.n[2])](std::int64_t task) mutable {
      const std::int64_t image = task / to.n[0], slice = task % to.n[0];
      for (std::int64_t row = 0; row < to.n[1]; ++row) {
        for (std::int64_t map = 0; map < maps; ++map) {
          const double* values = q + (image * maps + map) * problem.voxels;
          resizer(
              slice, row, [&](std::int64_t k) { return values + k * from.n[2]; },
              rows.get() + map * to.n[2]);
        }
        gradient.take(image, (slice * to.n[1] + row) * to.n[2], to.n[2], rows.get(), to.n[2]);
      }
    };
  });
}

}  // namespace protoseg
