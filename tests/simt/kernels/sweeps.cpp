// needs: cuda/guide.cu cuda/guide_sizes.cu
// needs plain: cpp/src/validate.cpp
//
// The drivers, for floats: whatever the strategy, the chunks and the layout, what is found is what
// loops written directly find, in memory of just the size that was measured.
#include "group_sweep.hpp"

#include "direct.hpp"

using namespace direct;

namespace {

constexpr std::int64_t images = 3, channels = 6, targets = 2;

void* take(std::size_t bytes, Stream, void*) { return simt::allocate(bytes, "guide"); }
void give_back(void* pointer, Stream, void*) { simt::release(pointer); }

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

Extent plane_of(std::int64_t y, std::int64_t x) {
  Extent extent;
  extent.y = y;
  extent.x = x;
  return extent;
}

// A guide and features of `from`, and what is to be found: prototypes and margins in double.
class SweepProblem {
 public:
  SweepProblem(const Extent& from_in, const Extent& to_in, Layout layout)
      : SweepProblem(from_in, to_in, layout, probabilities(images * targets * to_in.voxels()),
                     zeros_and_ones(images * to_in.voxels()),
                     normals<float>(images * channels * from_in.voxels(), 1.0, 0.5)) {}
  SweepProblem(const Extent& from_in, const Extent& to_in, Layout layout,
               const std::vector<float>& pred_in, const std::vector<float>& mask_in,
               const std::vector<float>& features_in)
      : from(from_in),
        to(to_in),
        pred(images, targets, to, Layout::rows, pred_in),
        mask(images, 1, to, Layout::rows, mask_in),
        features(images, channels, from, layout, features_in),
        guide(view_of(pred, targets, DType::float32), nullptr, &mask_view(), std::nullopt,
              Allocator{take, give_back, nullptr}, nullptr) {
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
  bool valid(std::int64_t image, std::int64_t v) const {
    return mask.value[image * to.voxels() + v] > 0.0f;
  }
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
  Features<float> pred, mask, features;
  protoseg::cuda::Guide guide;
  std::vector<double> means;   // [N, T, C, 2]
  std::vector<double> totals;  // [N, T, 2]
  std::vector<simt::DeviceArray<double>> given_memory;
  protoseg::GivenPrototypes given{};

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
  const TensorView& mask_view() {
    view_ = view_of(mask, 1, DType::float32);
    return view_;
  }
  void add_prototypes(std::int64_t plane, std::int64_t c) {
    double sum[2] = {}, weight[2] = {};
    for (std::int64_t v = 0; v < to.voxels(); ++v) {
      if (!valid(plane / targets, v)) continue;
      const double f = resized(plane / targets * channels + c, v);
      const double p = pred.value[plane * to.voxels() + v];
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
  TensorView view_{};
};

// Calls run(problem, arena) with a workspace of the size that measure(sizes, device, arena) takes.
template <class Measure, class Run>
void with_call(const SweepProblem& p, std::int64_t groups, const Tuning& tuning, Measure measure,
               Run run) {
  protoseg::Options options;
  options.groups = groups;
  const protoseg::cuda::GuideState& state = *p.guide.state();
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

void expect_counts(const SweepProblem& p, const Found& found, std::int64_t groups) {
  const auto tp = found.tp[0].download(), predicted = found.predicted[0].download();
  for (std::int64_t i = 0; i < images * groups * targets; ++i) {
    const std::int64_t image = i / targets / groups, group = i / targets % groups;
    const std::int64_t target = i % targets, count = channels / groups;
    std::int64_t all = 0, both = 0;
    for (std::int64_t v = 0; v < p.to.voxels(); ++v) {
      if (!p.valid(image, v) || !(p.margin(image, group * count, count, target, v) > 0)) continue;
      ++all;
      both += p.pred.value[(image * targets + target) * p.to.voxels() + v] > 0.5f;
    }
    SIMT_EXPECT_EQUAL(predicted[i], all);
    SIMT_EXPECT_EQUAL(tp[i], both);
  }
}

void count(const SweepProblem& p, const Tuning& tuning) {
  const Found found;
  with_call(
      p, channels, tuning,
      [&](const Sizes& sizes, const Device& device, Arena& arena) {
        const Plan plan = units_plan<float>(sizes, device, tuning);
        if (plan.strategy == Strategy::split) take_unit_chunk<float>(sizes, plan, true, arena);
      },
      [&](const auto& problem, Arena& arena) { count_units(problem, arena, found.out); });
  expect_counts(p, found, channels);
}

Tuning tuned(Strategy strategy, int units, std::int64_t cache_bytes = 0, int cluster = 0) {
  Tuning tuning;
  tuning.strategy = strategy;
  tuning.units = units;
  tuning.cache_bytes = cache_bytes;
  tuning.cluster = cluster;
  return tuning;
}

void expect_prototypes(const SweepProblem& p, std::int64_t cache_bytes) {
  const simt::DeviceArray<double> positive(images * targets * channels, "positive"),
      negative(images * targets * channels, "negative"), weights(images * targets * 2, "weights");
  const Tuning tuning = tuned(Strategy::automatic, 0, cache_bytes);
  with_call(
      p, 1, tuning,
      [&](const Sizes& sizes, const Device& device, Arena& arena) {
        take_unit_chunk<float>(sizes, sums_plan<float>(sizes, device), false, arena);
      },
      [&](const auto& problem, Arena& arena) {
        compute_prototypes(
            problem, arena,
            {positive.data(), negative.data(), weights.data(), weights.data() + images * targets});
      });
  const auto found_positive = positive.download(), found_negative = negative.download();
  for (std::int64_t i = 0; i < images * targets * channels; ++i) {
    expect_near(found_positive[i], p.mean(i / channels, i % channels, 0), 1e-6);
    expect_near(found_negative[i], p.mean(i / channels, i % channels, 1), 1e-6);
  }
  const auto found_weights = weights.download();
  for (std::int64_t plane = 0; plane < images * targets; ++plane)
    for (int side = 0; side < 2; ++side)
      expect_near(found_weights[side * images * targets + plane], p.totals[2 * plane + side], 1e-3);
}

// Counts and a map of groups, in chunks of images, and of maps that are resized.
void expect_groups(const SweepProblem& p, std::int64_t groups, std::int64_t cache_bytes,
                   std::int64_t map_bytes = 0) {
  const std::int64_t voxels = p.to.voxels();
  Tuning tuning = tuned(Strategy::automatic, 0, cache_bytes);
  tuning.map_bytes = map_bytes;
  const simt::DeviceArray<std::uint8_t> map(images * groups * targets * voxels, "map");
  const Found found;
  for (const Sink sink : {Sink::counts, Sink::map})
    with_call(
        p, groups, tuning,
        [&](const Sizes& sizes, const Device& device, Arena& arena) {
          take_group_chunk<float>(sizes, device, arena);
        },
        [&](const auto& problem, Arena& arena) {
          project_groups(problem, arena, {sink, map.data(), found.out});
        });
  expect_counts(p, found, groups);
  const auto maps = map.download();
  const std::int64_t count = channels / groups;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(maps.size()); ++i) {
    const std::int64_t pair = i / voxels, group = pair / targets;
    SIMT_EXPECT_EQUAL(maps[i] != 0, p.margin(group / groups, group % groups * count, count,
                                             pair % targets, i % voxels) > 0);
  }
}

}  // namespace

SIMT_SCENARIO(units_of_several_segments) {
  const SweepProblem p(plane_of(77, 109), plane_of(77, 109), Layout::rows);
  count(p, {});
  count(p, tuned(Strategy::resident, 2, 0, 2));
  count(p, tuned(Strategy::streamed, 2, 300'000));
  count(p, tuned(Strategy::split, 2, 200'000));
  count(p, tuned(Strategy::split, 2, 600'000));
}
// Features of 0, 1 and 2 and thresholds of 1 - 1e-9, which float rounds to 1: 1 is foreground.
SIMT_SCENARIO(thresholds_between_floats) {
  for (const Extent& extent : {plane_of(78, 110), plane_of(10, 12)}) {
    const std::int64_t planes = images * channels, voxels = extent.voxels();
    std::vector<float> pred, values;
    for (std::int64_t i = 0; i < planes * voxels; ++i) values.push_back(static_cast<float>(i % 3));
    for (std::int64_t i = 0; i < images * targets * voxels; ++i)
      pred.push_back(i % 3 == 0 ? 1e-9f : i % 3 == 1 ? 0.5f : 1.0f);
    const SweepProblem p(extent, extent, Layout::rows, pred,
                         std::vector<float>(images * voxels, 1.0f), values);
    SIMT_EXPECT(p.margin(0, 0, 1, 0, 1) > 0.0);
    count(p, {});
    count(p, tuned(Strategy::resident, 2));
    count(p, tuned(Strategy::split, 2));
  }
}
SIMT_SCENARIO(small_units) {
  const SweepProblem p(plane_of(9, 11), plane_of(9, 11), Layout::rows);
  count(p, {});
  count(p, tuned(Strategy::split, 2, 1));  // sums of warps, or of blocks, by the size of a chunk
  count(p, tuned(Strategy::split, 4));
}
SIMT_SCENARIO(units_channels_last) {
  const SweepProblem p(plane_of(30, 37), plane_of(30, 37), Layout::channels_last);
  count(p, {});
  count(p, tuned(Strategy::split, 0, 1));
}
SIMT_SCENARIO(resized_units) {
  const SweepProblem p(plane_of(9, 12), plane_of(33, 50), Layout::rows);
  count(p, tuned(Strategy::resident, 2));
  count(p, tuned(Strategy::split, 2));
  count(p, tuned(Strategy::split, 3, 1));
}
SIMT_SCENARIO(prototypes) {
  for (const std::int64_t cache_bytes : {0, 1, 36'000}) {
    expect_prototypes({plane_of(30, 37), plane_of(30, 37), Layout::rows}, cache_bytes);
    expect_prototypes({plane_of(30, 37), plane_of(30, 37), Layout::channels_last}, cache_bytes);
    expect_prototypes({plane_of(9, 12), plane_of(33, 50), Layout::rows}, cache_bytes);
  }
}
SIMT_SCENARIO(prototypes_of_whole_steps) {
  expect_prototypes({plane_of(16, 24), plane_of(16, 24), Layout::rows}, 0);
}
SIMT_SCENARIO(groups) {
  for (const std::int64_t cache_bytes : {0, 1}) {
    const SweepProblem p(plane_of(30, 37), plane_of(30, 37), Layout::rows);
    expect_groups(p, 1, cache_bytes);
    expect_groups(p, channels, cache_bytes);
    expect_groups({plane_of(30, 37), plane_of(30, 37), Layout::channels_last}, 1, cache_bytes);
  }
}
SIMT_SCENARIO(resized_groups) {
  for (const std::int64_t cache_bytes : {0, 1}) {
    const SweepProblem p(plane_of(9, 12), plane_of(33, 50), Layout::rows);
    expect_groups(p, 1, cache_bytes);
    expect_groups(p, channels, cache_bytes);
  }
}
// Chunks of all 18 groups, and of the 12 of two images; maps of five groups, and of one at a time.
SIMT_SCENARIO(resized_groups_in_parts) {
  constexpr std::int64_t voxels = 9 * 12, maps = 5 * targets * voxels * 8;
  const SweepProblem p(plane_of(9, 12), plane_of(33, 50), Layout::rows);
  const auto projections = [&](std::int64_t cache_bytes, std::int64_t map_bytes) {
    simt::clear_launches();
    expect_groups(p, channels, cache_bytes, map_bytes);
    std::int64_t count = 0;
    for (const simt::Traffic& launch : simt::launches())
      count += launch.kernel.find("::project_kernel") != std::string::npos;
    return count / 2;  // of counts and of a map
  };
  constexpr std::int64_t two_images = 2 * 2 * channels * voxels * 4;
  SIMT_EXPECT_EQUAL(projections(0, 0), 1);
  SIMT_EXPECT_EQUAL(projections(0, maps), 4);
  SIMT_EXPECT_EQUAL(projections(two_images, maps), 3 + 2);
  SIMT_EXPECT_EQUAL(projections(two_images, 1), 18);
}
SIMT_SCENARIO(resized_groups_in_uneven_chunks) {
  // Half the cache holds two of three images.
  const SweepProblem p(plane_of(9, 12), plane_of(33, 50), Layout::rows);
  expect_groups(p, 1, 2 * 2 * channels * 9 * 12 * 4);
}
// Two launches, whatever the strategy asked for and the cache: boundaries, and counts or maps.
SIMT_SCENARIO(units_at_given_prototypes) {
  const auto expect_two_launches = [](const SweepProblem& p, const Tuning& tuning) {
    count(p, tuning);  // what the guide keeps is made
    simt::clear_launches();
    count(p, tuning);
    SIMT_EXPECT_EQUAL(simt::launches().size(), 2u);
  };
  for (const Layout layout : {Layout::rows, Layout::channels_last})
    for (const Extent& from : {plane_of(30, 37), plane_of(9, 12)}) {
      SweepProblem p(from, plane_of(30, 37), layout);
      p.give_prototypes();
      expect_two_launches(p, {});
      expect_two_launches(p, tuned(Strategy::resident, 2, 1));
      expect_two_launches(p, tuned(Strategy::split, 2, 1));
    }
}
SIMT_SCENARIO(groups_at_given_prototypes) {
  for (const Layout layout : {Layout::rows, Layout::channels_last})
    for (const std::int64_t groups : {std::int64_t{2}, channels}) {
      SweepProblem p(plane_of(30, 37), plane_of(30, 37), layout);
      p.give_prototypes();
      expect_groups(p, groups, 1);
      simt::clear_launches();
      expect_groups(p, groups, 1);
      SIMT_EXPECT_EQUAL(simt::launches().size(), 4u);  // two of counts, two of a map
    }
  SweepProblem p(plane_of(9, 12), plane_of(33, 50), Layout::rows);
  p.give_prototypes();
  expect_groups(p, 3, 1);
  expect_groups(p, 3, 1, 1);
}
