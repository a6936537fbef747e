// Weighted sums of channels and the prototypes made from them.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "parallel.hpp"
#include "problem.hpp"
#include "protoseg/rule.hpp"

namespace protoseg {

inline void add_sums(const Kernels& kernels, StoredRow f, float reference,
                     const WeightRows<float>& weight, std::int64_t n, const Soon& soon, double* p,
                     double* q) {
  kernels.sums_float(f, reference, weight, n, soon, p, q);
}
inline void add_sums(const Kernels& kernels, StoredRow f, double reference,
                     const WeightRows<double>& weight, std::int64_t n, const Soon& soon, double* p,
                     double* q) {
  kernels.sums_double(f, reference, weight, n, soon, p, q);
}

// Sums of one tile of channels over one segment of voxels. One per thread.
template <class T>
class TileSums {
 public:
  TileSums(const Problem<T>& problem, bool planes_from_cache)
      : problem_(problem),
        tile_(problem, problem.tile),
        ahead_(problem, planes_from_cache),
        weights_(problem.kernels, problem.guide, *problem.weights, problem.voxels),
        lane_(problem.tile * problem.targets * 2 * lanes),
        reference_(problem.tile) {}

  // sum [count, T, 2]: sum w (f - reference) over the segment; reference [count] is the first
  // voxel of each channel, relative to which a constant channel sums to exactly zero.
  void operator()(std::int64_t image, std::int64_t channel, std::int64_t count,
                  std::int64_t segment, double* sum) {
    for (std::int64_t i = 0; i < count; ++i) reference_[i] = first_voxel(image, channel + i);
    accumulate<T>(image, channel, count, segment, sum);
    if constexpr (std::is_same_v<T, float>) {
      // A sum that is not finite is a feature that is not finite, or float's range exceeded by
      // finite features: double tells them apart. A tiny sum may be of subnormal numbers, which
      // have few digits.
      constexpr double tiny = 0x1p-80;
      for (std::int64_t i = 0; i < count; ++i) {
        bool finite = true;
        double largest = 0.0;
        for (std::int64_t k = 0; k < 2 * problem_.targets; ++k) {
          const double size = std::fabs(sum[i * 2 * problem_.targets + k]);
          finite = finite && std::isfinite(size);
          largest = std::max(largest, size);
        }
        if (!finite || (largest > 0.0 && largest < tiny)) {
          reference_[0] = reference_[i];
          accumulate<double>(image, channel + i, 1, segment, sum + i * 2 * problem_.targets);
        }
      }
    }
  }

  T first_voxel(std::int64_t image, std::int64_t channel) const {
    T value;
    read(problem_.kernels, plane_of(problem_.features, image, channel), 0, 1, &value);
    return value;
  }

 private:
  template <class Sum>
  void accumulate(std::int64_t image, std::int64_t channel, std::int64_t count,
                  std::int64_t segment, double* sum) {
    const std::int64_t begin = segment * segment_voxels;
    const std::int64_t end = std::min(problem_.voxels, begin + segment_voxels);
    std::fill_n(lane_.begin(), count * problem_.targets * 2 * lanes, 0.0);
    const bool wider = !std::is_same_v<Sum, T>;
    const std::int64_t piece = wider ? block_voxels : problem_.sum_piece();
    for (std::int64_t first = begin; first < end; first += piece) {
      const std::int64_t n = std::min(piece, end - first);
      const StoredRow* rows = tile_.read(image, channel, count, first, n);
      for (std::int64_t target = 0; target < problem_.targets; ++target) {
        weights_.read(image, target, first, n);
        for (std::int64_t i = 0; i < count; ++i) {
          double* lane = &lane_[(i * problem_.targets + target) * 2 * lanes];
          block_sums<Sum>(rows[i], reference_[i], n,
                          ahead_.of_first_pass(rows[i].data, image, channel + i, first), lane);
        }
      }
    }
    for (std::int64_t k = 0; k < count * problem_.targets * 2; ++k)
      sum[k] = reduce_lanes(&lane_[k * lanes]);
  }

  template <class Sum>
  void block_sums(StoredRow row, T reference, std::int64_t n, const Soon& soon, double* lane) {
    if constexpr (std::is_same_v<Sum, T>) {
      add_sums(problem_.kernels, row, reference, weights_.rows, n, soon, lane, lane + lanes);
    } else {
      wide_.resize(3 * block_voxels);
      double* wide = wide_.data();
      convert(problem_.kernels, row.dtype, row.data, 1, n, wide);
      const WeightRows<T>& narrow = weights_.rows;
      WeightRows<double> weight = {wide + block_voxels, nullptr, narrow.mostly_positive};
      convert(problem_.kernels, DType::float32, narrow.positive, 1, n, wide + block_voxels);
      if (narrow.negative != nullptr) {
        weight.negative = wide + 2 * block_voxels;
        convert(problem_.kernels, DType::float32, narrow.negative, 1, n, wide + 2 * block_voxels);
      }
      add_sums(problem_.kernels, {wide, DType::float64}, static_cast<double>(reference), weight, n,
               soon, lane, lane + lanes);
    }
  }

  const Problem<T>& problem_;
  TileReader<T> tile_;
  ReadAhead<T> ahead_;
  WeightReader<T> weights_;
  std::vector<double> lane_;  // [tile, T, 2, lanes]
  std::vector<T> reference_;  // [tile]
  std::vector<double> wide_;
};

// Prototypes of one channel and target from its sums over all segments, [2] each.
template <class T>
ChannelPrototypes make_prototypes(const Problem<T>& problem, std::int64_t image,
                                  std::int64_t target, double reference, const double* sum) {
  const double* total = &problem.weights->total[(image * problem.targets + target) * 2];
  return {reference, sum[0] / total[0], sum[1] / total[1]};
}

// [N, T, C]: every prototype of the problem.
template <class T>
std::vector<ChannelPrototypes> channel_prototypes(const Problem<T>& problem) {
  const std::int64_t tiles = problem.tiles(), segments = problem.segments();
  const std::int64_t targets = problem.targets, channels = problem.channels;
  // [N, C, segments, T, 2], written by tile and then added over segments in order
  std::vector<double> partial(problem.images * channels * segments * targets * 2);
  const auto partial_at = [&](std::int64_t image, std::int64_t channel, std::int64_t segment) {
    return &partial[((image * channels + channel) * segments + segment) * targets * 2];
  };
  const std::int64_t cost = std::min(problem.voxels, segment_voxels) * problem.tile;
  parallel_for(problem.images * tiles * segments, cost, [&] {
    return [&, sums = TileSums<T>(problem, false),
            tile_sum = std::vector<double>(problem.tile * targets * 2)](std::int64_t task) mutable {
      const std::int64_t segment = task % segments, image = task / segments / tiles;
      const std::int64_t channel = task / segments % tiles * problem.tile;
      const std::int64_t count = std::min(problem.tile, channels - channel);
      sums(image, channel, count, segment, tile_sum.data());
      for (std::int64_t i = 0; i < count; ++i)
        std::copy_n(&tile_sum[i * targets * 2], targets * 2,
                    partial_at(image, channel + i, segment));
    };
  });
  std::vector<ChannelPrototypes> prototypes(problem.images * targets * channels);
  for (std::int64_t image = 0; image < problem.images; ++image)
    for (std::int64_t channel = 0; channel < channels; ++channel) {
      T reference;
      read(problem.kernels, plane_of(problem.features, image, channel), 0, 1, &reference);
      for (std::int64_t target = 0; target < targets; ++target) {
        double sum[2] = {0.0, 0.0};
        for (std::int64_t segment = 0; segment < segments; ++segment)
          for (int side = 0; side < 2; ++side)
            sum[side] += partial_at(image, channel, segment)[target * 2 + side];
        prototypes[(image * targets + target) * channels + channel] =
            make_prototypes(problem, image, target, static_cast<double>(reference), sum);
      }
    }
  return prototypes;
}

// Decision boundaries of every group: weights [N, T, C] and boundaries [N, G, T].
struct Boundaries {
  std::vector<double> weight;
  std::vector<Boundary> boundary;
};

template <class T>
Boundaries make_boundaries(const Problem<T>& problem,
                           const std::vector<ChannelPrototypes>& prototypes) {
  Boundaries result;
  result.weight.resize(problem.images * problem.targets * problem.channels);
  result.boundary.resize(problem.images * problem.groups * problem.targets);
  for (std::int64_t image = 0; image < problem.images; ++image)
    for (std::int64_t group = 0; group < problem.groups; ++group)
      for (std::int64_t target = 0; target < problem.targets; ++target) {
        const std::int64_t at =
            (image * problem.targets + target) * problem.channels + group * problem.group_channels;
        result.boundary[(image * problem.groups + group) * problem.targets + target] =
            group_boundary(&prototypes[at], problem.group_channels, problem.options.metric,
                           problem.options.temperature, &result.weight[at]);
      }
  return result;
}

}  // namespace protoseg
