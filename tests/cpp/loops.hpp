// The specification in direct loops, and the engine compared with it.
#pragma once

#include "harness.hpp"

namespace {

double coordinate(std::int64_t output, std::int64_t n_in, std::int64_t n_out,
                  const Options& options) {
  if (n_in == n_out) return static_cast<double>(output);
  if (options.interpolation == Interpolation::nearest)
    return static_cast<double>(output * n_in / n_out);
  if (options.align_corners) return n_out == 1 ? 0.0 : output * (n_in - 1.0) / (n_out - 1.0);
  return std::max(0.0, (output + 0.5) * n_in / n_out - 0.5);
}

// f [from] resized to [to], both with three axes.
std::vector<double> resized(const double* f, const Shape& from, const Shape& to,
                            const Options& options) {
  std::vector<double> result;
  for (std::int64_t i = 0; i < to[0]; ++i)
    for (std::int64_t j = 0; j < to[1]; ++j)
      for (std::int64_t k = 0; k < to[2]; ++k) {
        const std::int64_t at[3] = {i, j, k};
        double value = 0.0;
        for (int corner = 0; corner < 8; ++corner) {
          double weight = 1.0;
          std::int64_t index = 0;
          for (int axis = 0; axis < 3; ++axis) {
            const double x = coordinate(at[axis], from[axis], to[axis], options);
            const auto lower = static_cast<std::int64_t>(x);
            const bool upper = (corner >> axis & 1) != 0;
            weight *= upper ? x - lower : 1.0 - (x - lower);
            index = index * from[axis] + std::min(lower + upper, from[axis] - 1);
          }
          value += weight * f[index];
        }
        result.push_back(value);
      }
  return result;
}

Shape three_axes(const Shape& shape) {
  Shape size(shape.begin() + 2, shape.end());
  while (size.size() < 3) size.insert(size.begin(), 1);
  return size;
}

// Compares everything with direct sums over resized features. Voxels whose margin is within
// rounding of zero may fall on either side.
void check_against_loops(const Array<float>& features, const Array<float>& pred,
                         const Array<std::uint8_t>& target, const Array<float>* mask,
                         const Options& options) {
  const TensorView target_view = view_of(target);
  TensorView mask_view;
  if (mask != nullptr) mask_view = view_of(*mask);
  const Guide guide(view_of(pred), &target_view, mask != nullptr ? &mask_view : nullptr,
                    std::nullopt);
  const Results found = compute(guide, view_of(features), options);

  const Shape from = three_axes(features.shape), to = three_axes(pred.shape);
  const std::int64_t images = pred.shape[0], targets = pred.shape[1];
  const std::int64_t channels = features.shape[1], voxels = product(to);
  const std::int64_t group_channels = channels / options.groups;
  for (std::int64_t n = 0; n < images; ++n) {
    std::vector<std::vector<double>> f;
    for (std::int64_t c = 0; c < channels; ++c) {
      const float* plane = &features.data[(n * channels + c) * product(from)];
      const std::vector<double> exact(plane, plane + product(from));
      f.push_back(resized(exact.data(), from, to, options));
    }
    for (std::int64_t t = 0; t < targets; ++t) {
      const float* p = &pred.data[(n * targets + t) * voxels];
      const std::uint8_t* g = &target.data[(n * targets + t) * voxels];
      const float* m = mask != nullptr ? &mask->data[n * voxels] : nullptr;
      std::vector<double> a(channels), b(channels);
      for (std::int64_t c = 0; c < channels; ++c) {
        double sum[2] = {0.0, 0.0}, weight[2] = {0.0, 0.0};
        for (std::int64_t x = 0; x < voxels; ++x)
          for (int side = 0; side < 2; ++side) {
            const double probability = p[x];
            const double w =
                (m != nullptr ? m[x] : 1.0) * (side == 0 ? probability : 1.0 - probability);
            sum[side] += w * f[c][x];
            weight[side] += w;
          }
        a[c] = sum[0] / weight[0];
        b[c] = sum[1] / weight[1];
        const std::int64_t at = (n * targets + t) * channels + c;
        CHECK(near(found.positive[at], a[c], 2e-6));
        CHECK(near(found.negative[at], b[c], 2e-6));
        CHECK(near(found.positive_weight[n * targets + t], weight[0], 1e-4));
        CHECK(near(found.negative_weight[n * targets + t], weight[1], 1e-4));
      }
      for (std::int64_t group = 0; group < options.groups; ++group) {
        const std::int64_t map_at = (n * options.groups + group) * targets + t;
        std::int64_t tp = 0, predicted = 0, actual = 0, counted = 0, doubtful = 0;
        for (std::int64_t x = 0; x < voxels; ++x) {
          double fa = 0, fb = 0, ff = 0, aa = 0, bb = 0;
          for (std::int64_t c = group * group_channels; c < (group + 1) * group_channels; ++c) {
            fa += f[c][x] * a[c];
            fb += f[c][x] * b[c];
            ff += f[c][x] * f[c][x];
            aa += a[c] * a[c];
            bb += b[c] * b[c];
          }
          const double margin =
              options.metric == Metric::euclidean
                  ? 2 * (fa - fb) - (aa - bb)
                  : options.temperature * (fa / std::sqrt(aa) - fb / std::sqrt(bb)) / std::sqrt(ff);
          const bool foreground = margin > 0.0, close = std::fabs(margin) < 1e-4;
          const bool valid = m == nullptr || m[x] > 0.0f;
          CHECK(close || (found.map[map_at * voxels + x] != 0) == foreground);
          CHECK(near(found.probability[map_at * voxels + x], 1 / (1 + std::exp(-margin)), 2e-5));
          counted += valid;
          doubtful += valid && close;
          predicted += valid && foreground;
          tp += valid && foreground && g[x];
          actual += valid && g[x];
        }
        const Counts& counts = found.counts[map_at];
        CHECK(counts.defined);
        CHECK(counts.voxels == counted);
        CHECK(counts.actual == actual);
        CHECK(std::llabs(counts.predicted - predicted) <= doubtful);
        CHECK(std::llabs(counts.tp - tp) <= doubtful);
      }
    }
  }
}

}  // namespace
