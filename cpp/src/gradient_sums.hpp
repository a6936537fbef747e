// The first read of the features: F and H of docs/gradients.md, and the gradients of prototypes
// made from them.
#pragma once

#include <cmath>
#include <limits>

#include "gradient_rows.hpp"
#include "sums.hpp"

namespace protoseg {

// What every channel contributes, [N, T, C] each. The gradients of prototypes are divided by the
// sums of the (scaled) weights: they multiply weights of voxels.
struct ChannelGradients {
  std::vector<double> direction, positive, negative;
  std::vector<char> active;  // [N, G, T]: false: nothing comes down, not even 0 times NaN
};

template <class T>
ChannelGradients make_channel_gradients(const Problem<T>& problem) {
  const std::int64_t n = problem.images * problem.targets * problem.channels;
  ChannelGradients result;
  for (auto* values : {&result.direction, &result.positive, &result.negative})
    values->assign(n, 0.0);
  result.active.assign(problem.images * problem.groups * problem.targets, 0);
  return result;
}

// Sums over one segment of voxels of some channels of a group. Targets are summed in pairs, because
// the kernel of the prototypes takes two weights at a time. One per thread.
template <class T>
class SegmentSums {
 public:
  SegmentSums(const Problem<T>& problem, const MarginGradient<T>& margin,
              const GroupBatch<T>& batch)
      : problem_(problem),
        rows_(problem, margin, batch, segment_voxels, false),
        tile_(problem, problem.tile),
        ahead_(problem, false),
        pairs_((problem.targets + 1) / 2),
        lane_(problem.tile * pairs_ * 2 * lanes),
        reference_(problem.tile) {}

  void read(std::int64_t image, std::int64_t group, std::int64_t segment) {
    begin_ = segment * segment_voxels;
    voxels_ = std::min(problem_.voxels - begin_, segment_voxels);
    rows_.read(image, group, begin_, voxels_);
  }

  // total [pairs, 2]: sum along
  void totals(double* total) {
    for (std::int64_t pair = 0; pair < pairs_; ++pair) {
      double lane[2][lanes] = {};
      const WeightRows<T> rows = pair_rows(pair, 0);
      if constexpr (std::is_same_v<T, float>)
        problem_.kernels.totals_float(rows.positive, rows.negative, voxels_, lane[0], lane[1]);
      else
        problem_.kernels.totals_double(rows.positive, rows.negative, voxels_, lane[0], lane[1]);
      for (int side = 0; side < 2; ++side) total[2 * pair + side] = reduce_lanes(lane[side]);
    }
  }

  // sum [count, pairs, 2]: sum along (f - reference)
  void sums(std::int64_t image, std::int64_t channel, std::int64_t count, double* sum) {
    for (std::int64_t i = 0; i < count; ++i)
      protoseg::read(problem_.kernels, plane_of(problem_.features, image, channel + i), 0, 1,
                     &reference_[i]);
    std::fill_n(lane_.begin(), count * pairs_ * 2 * lanes, 0.0);
    const std::int64_t piece = problem_.feature_piece();
    for (std::int64_t done = 0; done < voxels_; done += piece) {
      const std::int64_t n = std::min(piece, voxels_ - done);
      const StoredRow* f = tile_.read(image, channel, count, begin_ + done, n);
      for (std::int64_t pair = 0; pair < pairs_; ++pair)
        for (std::int64_t i = 0; i < count; ++i) {
          double* lane = &lane_[(i * pairs_ + pair) * 2 * lanes];
          add_sums(problem_.kernels, f[i], reference_[i], pair_rows(pair, done), n,
                   ahead_.of_first_pass(f[i].data, image, channel + i, begin_ + done), lane,
                   lane + lanes);
        }
    }
    for (std::int64_t k = 0; k < count * pairs_ * 2; ++k) sum[k] = reduce_lanes(&lane_[k * lanes]);
  }

 private:
  // An odd last target is summed twice.
  WeightRows<T> pair_rows(std::int64_t pair, std::int64_t done) const {
    const std::int64_t other = std::min(2 * pair + 1, problem_.targets - 1);
    return {rows_.along(2 * pair) + done, rows_.along(other) + done, false};
  }

  const Problem<T>& problem_;
  FeatureRows<T> rows_;
  TileReader<T> tile_;
  ReadAhead<T> ahead_;
  const std::int64_t pairs_;
  std::int64_t begin_ = 0, voxels_ = 0;
  std::vector<double> lane_;  // [tile, pairs, 2, lanes]
  std::vector<T> reference_;  // [tile]
};

// F [N, groups, T, group_channels] and H [N, groups, T] of a batch of groups.
struct GradientSums {
  std::vector<double> channel, total;
};

template <class T>
GradientSums gradient_sums(const Problem<T>& problem, const MarginGradient<T>& margin,
                           const GroupBatch<T>& batch) {
  const std::int64_t groups = batch.end - batch.begin, channels = problem.group_channels;
  const std::int64_t segments = problem.segments(), pairs = (problem.targets + 1) / 2;
  const std::int64_t part_channels = std::min<std::int64_t>(channels, 2 * 16);  // 16: widest tile
  const std::int64_t parts = (channels + part_channels - 1) / part_channels;
  const std::int64_t planes = problem.images * groups, width = 2 * pairs;
  std::vector<double> partial(planes * segments * channels * width);
  std::vector<double> partial_total(planes * segments * width);
  const std::int64_t cost = std::min(problem.voxels, segment_voxels) * part_channels;
  parallel_for(planes * segments * parts, cost, [&] {
    return [&, sums = SegmentSums<T>(problem, margin, batch)](std::int64_t task) mutable {
      const std::int64_t part = task % parts, at = task / parts;  // [planes, segments]
      const std::int64_t plane = at / segments;
      const std::int64_t image = plane / groups, group = batch.begin + plane % groups;
      sums.read(image, group, at % segments);
      if (part == 0) sums.totals(&partial_total[at * width]);
      const std::int64_t end = std::min(channels, (part + 1) * part_channels);
      for (std::int64_t c = part * part_channels; c < end; c += problem.tile)
        sums.sums(image, group * channels + c, std::min(problem.tile, end - c),
                  &partial[(at * channels + c) * width]);
    };
  });
  GradientSums result{std::vector<double>(planes * problem.targets * channels),
                      std::vector<double>(planes * problem.targets)};
  for (std::int64_t plane = 0; plane < planes; ++plane)
    for (std::int64_t segment = 0; segment < segments; ++segment)
      for (std::int64_t target = 0; target < problem.targets; ++target) {
        const std::int64_t at = plane * segments + segment, to = plane * problem.targets + target;
        result.total[to] += partial_total[at * width + target];
        for (std::int64_t c = 0; c < channels; ++c)
          result.channel[to * channels + c] += partial[(at * channels + c) * width + target];
      }
  return result;
}

// Of one group and target, at its prototypes p [group_channels].
template <class T>
void write_channel_gradients(const Problem<T>& problem, const MarginGradient<T>& margin,
                             std::int64_t image, std::int64_t group, std::int64_t target,
                             const ChannelPrototypes* p, const double* sum, double total,
                             ChannelGradients& out) {
  const std::int64_t channels = problem.group_channels;
  const bool defined = std::all_of(p, p + channels, [](const auto& c) { return is_defined(c); });
  // Where the margin is NaN, exact zeros still send nothing back.
  const bool active = has_gradient(problem.options.metric, channels) &&
                      (defined || margin.any(image, group, target));
  out.active[(image * problem.groups + group) * problem.targets + target] = active ? 1 : 0;
  if (!active) return;
  std::vector<ChannelGradient> gradient(channels);
  group_gradient(p, channels, problem.options.metric, sum, total, gradient.data());
  const double* weight = &problem.weights->total[(image * problem.targets + target) * 2];
  const std::int64_t at = (image * problem.targets + target) * problem.channels + group * channels;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (std::int64_t c = 0; c < channels; ++c) {
    out.direction[at + c] = defined ? gradient[c].direction : nan;
    out.positive[at + c] = defined ? gradient[c].positive / weight[0] : nan;
    out.negative[at + c] = defined ? gradient[c].negative / weight[1] : nan;
  }
}

// Fills in the groups of a batch; prototypes [N, T, C].
template <class T>
void add_channel_gradients(const Problem<T>& problem, const MarginGradient<T>& margin,
                           const GroupBatch<T>& batch,
                           const std::vector<ChannelPrototypes>& prototypes,
                           ChannelGradients& out) {
  const GradientSums sums = gradient_sums(problem, margin, batch);
  const std::int64_t groups = batch.end - batch.begin, channels = problem.group_channels;
  for (std::int64_t image = 0; image < problem.images; ++image)
    for (std::int64_t group = batch.begin; group < batch.end; ++group)
      for (std::int64_t target = 0; target < problem.targets; ++target) {
        const std::int64_t at = (image * groups + group - batch.begin) * problem.targets + target;
        const ChannelPrototypes* p =
            &prototypes[(image * problem.targets + target) * problem.channels + group * channels];
        write_channel_gradients(problem, margin, image, group, target, p,
                                &sums.channel[at * channels], sums.total[at], out);
      }
}

}  // namespace protoseg
