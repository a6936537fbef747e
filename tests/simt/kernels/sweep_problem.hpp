// A guide, features to sweep, and what is to be found in them: what scenarios of drivers share.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "direct.hpp"
#include "problem.hpp"

namespace direct {

constexpr std::int64_t images = 3, channels = 6, targets = 2;

inline void* take(std::size_t bytes, Stream, void*) { return simt::allocate(bytes, "guide"); }
inline void give_back(void* pointer, Stream, void*) { simt::release(pointer); }

template <class T>
TensorView view_of(const Features<T>& features, std::int64_t second, DType dtype) {
  TensorView view{};
  const Tensor& t = features.tensor;
  view.data = t.data;
  view.dtype = dtype;
  view.rank = 4;
  const std::int64_t shape[] = {images, second, t.extent.y, t.extent.x};
  const std::int64_t strides[] = {t.image_stride, t.channel_stride, t.y_stride, t.x_stride};
  std::copy(shape, shape + 4, view.shape.begin());
  std::copy(strides, strides + 4, view.strides.begin());
  return view;
}

inline Extent plane_of(std::int64_t y, std::int64_t x) {
  Extent extent;
  extent.y = y;
  extent.x = x;
  return extent;
}

// What guides all sweeps of a size.
struct GuideProblem {
  GuideProblem(const Extent& to_in, const std::vector<float>& pred_in,
               const std::vector<float>& mask_in)
      : to(to_in),
        pred(images, targets, to, Layout::rows, pred_in),
        mask(images, 1, to, Layout::rows, mask_in),
        mask_view(view_of(mask, 1, DType::float32)),
        guide(view_of(pred, targets, DType::float32), nullptr, &mask_view, std::nullopt,
              Allocator{take, give_back, nullptr}, nullptr) {}
  explicit GuideProblem(const Extent& to_in)
      : GuideProblem(to_in, probabilities(images * targets * to_in.voxels()),
                     zeros_and_ones(images * to_in.voxels())) {}

  bool valid(std::int64_t image, std::int64_t v) const {
    return mask.value[image * to.voxels() + v] > 0.0f;
  }

  Extent to;
  Features<float> pred, mask;
  TensorView mask_view;
  protoseg::cuda::Guide guide;

 private:
  static std::vector<float> probabilities(std::int64_t n) {
    std::vector<float> values;
    for (std::int64_t i = 0; i < n; ++i) values.push_back(static_cast<float>(uniform()));
    return values;
  }
  static std::vector<float> zeros_and_ones(std::int64_t n) {
    std::vector<float> values;
    for (std::int64_t i = 0; i < n; ++i) values.push_back(uniform() < 0.8 ? 1.0f : 0.0f);
    return values;
  }
};

// A guide and features of `from`, and what is to be found: prototypes and margins in double.
class SweepProblem {
 public:
  SweepProblem(const Extent& from_in, const Extent& to_in, Layout layout)
      : SweepProblem(from_in, std::make_shared<const GuideProblem>(to_in), layout) {}
  SweepProblem(const Extent& from_in, std::shared_ptr<const GuideProblem> guiding_in, Layout layout)
      : SweepProblem(from_in, std::move(guiding_in), layout,
                     normals<float>(images * channels * from_in.voxels(), 1.0, 0.5)) {}
  SweepProblem(const Extent& from_in, std::shared_ptr<const GuideProblem> guiding_in, Layout layout,
               const std::vector<float>& features_in)
      : from(from_in),
        to(guiding_in->to),
        guiding(std::move(guiding_in)),
        features(images, channels, from, layout, features_in) {
    for (std::int64_t plane = 0; plane < images * targets; ++plane)
      for (std::int64_t c = 0; c < channels; ++c) add_prototypes(plane, c);
  }

  double resized(std::int64_t unit, std::int64_t v) const {
    const float* plane = features.plane(unit);
    if (from == to) return plane[v];
    const Tap y = resize_tap(v / to.x, from.y, to.y, Interpolation::linear, false);
    const Tap x = resize_tap(v % to.x, from.x, to.x, Interpolation::linear, false);
    const auto at = [&](std::int64_t i, std::int64_t j) { return double{plane[i * from.x + j]}; };
    return lerp(lerp(at(y.lower, x.lower), at(y.upper, x.lower), y.weight),
                lerp(at(y.lower, x.upper), at(y.upper, x.upper), y.weight), x.weight);
  }
  bool valid(std::int64_t image, std::int64_t v) const { return guiding->valid(image, v); }
  double mean(std::int64_t plane, std::int64_t c, int side) const {
    return means[(plane * channels + c) * 2 + side];
  }
  // Above zero: nearer to the positive prototype than to the negative one.
  double margin(std::int64_t image, std::int64_t first, std::int64_t count, std::int64_t target,
                std::int64_t v) const {
    double sum = 0.0;
    for (std::int64_t c = first; c < first + count; ++c) {
      const double f = resized(image * channels + c, v);
      const double p = f - mean(image * targets + target, c, 0);
      const double n = f - mean(image * targets + target, c, 1);
      sum += n * n - p * p;
    }
    return sum;
  }

  // Maps are drawn at others than the averages from now on.
  void give_prototypes() {
    means = normals<double>(images * targets * channels * 2);
    std::vector<double> side[2];
    for (std::size_t i = 0; i < means.size(); ++i) side[i % 2].push_back(means[i]);
    for (const auto& values : side) given_memory.emplace_back(values, "given prototypes");
    given = {given_memory[0].data(), given_memory[1].data()};
  }
  const protoseg::GivenPrototypes* prototypes() const {
    return given_memory.empty() ? nullptr : &given;
  }

  Extent from, to;
  std::shared_ptr<const GuideProblem> guiding;
  Features<float> features;
  std::vector<double> means;   // [N, T, C, 2]
  std::vector<double> totals;  // [N, T, 2]
  std::vector<simt::DeviceArray<double>> given_memory;
  protoseg::GivenPrototypes given{};

 private:
  void add_prototypes(std::int64_t plane, std::int64_t c) {
    double sum[2] = {}, weight[2] = {};
    for (std::int64_t v = 0; v < to.voxels(); ++v) {
      if (!valid(plane / targets, v)) continue;
      const double f = resized(plane / targets * channels + c, v);
      const double p = guiding->pred.value[plane * to.voxels() + v];
      for (int side = 0; side < 2; ++side) {
        sum[side] += (side == 0 ? p : 1.0 - p) * f;
        weight[side] += side == 0 ? p : 1.0 - p;
      }
    }
    for (int side = 0; side < 2; ++side) {
      means.push_back(sum[side] / weight[side]);
      if (c == 0) totals.push_back(weight[side]);
    }
  }
};

// Calls run(problem, arena) with a workspace of the size that measure(sizes, device, arena) takes.
template <class Measure, class Run>
void with_call(const SweepProblem& p, std::int64_t groups, const Tuning& tuning, Measure measure,
               Run run) {
  protoseg::Options options;
  options.groups = groups;
  const protoseg::cuda::GuideState& state = *p.guiding->guide.state();
  const Sizes sizes(state, view_of(p.features, channels, DType::float32), options, p.prototypes());
  protoseg::cuda::Call call;
  call.tuning = tuning;
  Arena measured;
  measure(sizes, device_of(state, tuning), measured);
  const simt::DeviceArray<std::byte> workspace(std::max<std::size_t>(1, measured.used()),
                                               "workspace");
  const Problem<float> problem(state, sizes, call);
  Arena arena(workspace.data());
  run(problem, arena);
}

struct Found {
  Found() {
    for (auto* array : {&tp, &predicted, &actual})
      array->emplace_back(std::vector<std::int64_t>(images * channels * targets, 0), "counts");
    out.tp[1] = tp[0].data();
    out.predicted[1] = predicted[0].data();
    out.actual[1] = actual[0].data();
    defined.emplace_back(images * channels * targets, "defined");
    out.defined[1] = defined[0].data();
  }
  std::vector<simt::DeviceArray<std::int64_t>> tp, predicted, actual;
  std::vector<simt::DeviceArray<std::uint8_t>> defined;
  CountOutputs out;
};

inline void expect_counts(const SweepProblem& p, const Found& found, std::int64_t groups) {
  const auto tp = found.tp[0].download(), predicted = found.predicted[0].download();
  for (std::int64_t i = 0; i < images * groups * targets; ++i) {
    const std::int64_t image = i / targets / groups, group = i / targets % groups;
    const std::int64_t target = i % targets, count = channels / groups;
    std::int64_t all = 0, both = 0;
    for (std::int64_t v = 0; v < p.to.voxels(); ++v) {
      if (!p.valid(image, v) || !(p.margin(image, group * count, count, target, v) > 0)) continue;
      ++all;
      both += p.guiding->pred.value[(image * targets + target) * p.to.voxels() + v] > 0.5f;
    }
    SIMT_EXPECT_EQUAL(predicted[i], all);
    SIMT_EXPECT_EQUAL(tp[i], both);
  }
}

inline Tuning tuned(Strategy strategy, int units, std::int64_t cache_bytes = 0, int cluster = 0) {
  Tuning tuning;
  tuning.strategy = strategy;
  tuning.units = units;
  tuning.cache_bytes = cache_bytes;
  tuning.cluster = cluster;
  return tuning;
}

}  // namespace direct
