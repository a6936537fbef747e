// Counts of units by segments, and small units from features to counts.
#include "channels_last.cuh"
#include "direct.hpp"
#include "small_units.cuh"

using namespace direct;

namespace {

constexpr std::int64_t images = 3, channels = 5;

// Values among which many tie with the thresholds.
template <class T>
std::vector<T> tying(std::int64_t n) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < n; ++i)
    values.push_back(narrow_to(T{}, std::round(2 * normal()) / 4));
  return values;
}

UnitThreshold<double> threshold_of(std::int64_t pair) {
  if (pair % 7 == 3) return {false, true, 0.0};
  return {true, pair % 2 == 0, static_cast<double>(pair % 5 - 2) / 4};
}

template <class T>
void counts(Layout layout, std::int64_t voxels, std::int64_t targets, int rows_units = 2) {
  const Features<T> features(images, channels, line_of(voxels), layout,
                             tying<T>(images * channels * voxels), 1);
  const Bits bits(images, targets, voxels);
  const Results results(images * channels * targets, bits, channels, targets);
  std::vector<UnitThreshold<double>> thresholds;
  for (std::int64_t i = 0; i < images * channels * targets; ++i)
    thresholds.push_back(threshold_of(i));
  const bool turned = layout == Layout::channels_last;
  const int units = turned ? neighbours<T> : rows_units;
  // In two launches, as chunks are.
  const std::int64_t tiles = images * divide_up(channels, units);
  for (const std::int64_t first : {std::int64_t{0}, tiles / 2}) {
    UnitCountsParams<T> p{};
    p.features = features.tensor;
    p.tiles = {channels, units, first, first == 0 ? tiles / 2 : tiles - tiles / 2};
    p.targets = targets;
    p.segments = divide_up(voxels, segment_voxels<SumOf<T>>);
    p.first_unit = first_unit_of(p.tiles);
    const simt::DeviceArray<UnitThreshold<double>> memory(
        {thresholds.begin() + p.first_unit * targets, thresholds.end()}, "thresholds");
    p.threshold = memory.data();
    p.references = bits.references;
    p.out = results.out;
    start(turned ? turned_counts_kernel<T> : unit_counts_kernel<T>, 3, p,
          turned ? std::int64_t{turned_bytes<T>}
                 : units * staged_pitch<T>(segment_voxels<SumOf<T>>) * std::int64_t{sizeof(T)});
  }
  results.expect_counts(voxels, [&](std::int64_t unit, std::int64_t target, std::int64_t v) {
    const UnitThreshold<double>& t = thresholds[unit * targets + target];
    const double f = widen(features.plane(unit)[v]);
    return t.anything && (t.above ? f > t.threshold : f < t.threshold);
  });
}

// Units of up to 256 voxels, which decide for themselves.
template <class T>
void small(Layout layout, std::int64_t voxels, std::int64_t targets, bool only_sums,
           std::int64_t channels = ::channels, std::int64_t blocks = 1) {
  const Features<T> features(images, channels, line_of(voxels), layout,
                             normals<T>(images * channels * voxels, 1.0, 0.3));
  const KeptWeights<SumOf<T>> weights(images, targets, voxels);
  const Bits bits(images, targets, voxels);
  const Results results(images * channels * targets, bits, channels, targets);
  const simt::DeviceArray<double> sums(images * channels * targets * 2, "sums");
  SmallUnitsParams<T> p{};
  p.features = features.tensor;
  p.weights = weights.weights;
  p.units = images * channels;
  p.channels = channels;
  p.targets = targets;
  p.sums = only_sums ? sums.data() : nullptr;
  p.metric = Metric::euclidean;
  p.temperature = 1.0;
  p.references = bits.references;
  p.out = results.out;
  start(small_units_kernel<T>, blocks, p);
  std::vector<double> expected;
  std::vector<UnitThreshold<SumOf<T>>> thresholds;
  for (std::int64_t i = 0; i < p.units * targets; ++i) {
    const std::int64_t unit = i / targets, plane = unit / channels * targets + i % targets;
    const T* f = features.plane(unit);
    double sum[2], weight;
    for (int side = 0; side < 2; ++side) {
      sum[side] = segment_sum(f, weights.row(plane, side), voxels, widen(f[0]));
      expected.push_back(sum[side]);
    }
    const Boundary boundary =
        unit_boundary(make_prototypes(widen(f[0]), sum, &weights.totals[2 * plane]),
                      Metric::euclidean, 1.0, &weight);
    thresholds.push_back(unit_threshold<SumOf<T>>(weight, boundary));
  }
  if (only_sums) {
    const auto found = sums.download();
    for (std::size_t i = 0; i < expected.size(); ++i) SIMT_EXPECT_EQUAL(found[i], expected[i]);
    return;
  }
  results.expect_known([](std::int64_t, std::int64_t) { return true; });
  results.expect_counts(voxels, [&](std::int64_t unit, std::int64_t target, std::int64_t v) {
    const auto& t = thresholds[unit * targets + target];
    const auto f = widen(features.plane(unit)[v]);
    return t.anything && (t.above ? f > t.threshold : f < t.threshold);
  });
}

}  // namespace

// A plane of -1, 0 and 1 whose prototypes are -1 and 1, so that 0 is neither.
SIMT_SCENARIO(small_planes_that_tie) {
  constexpr std::int64_t voxels = 200;
  std::vector<float> values;
  for (std::int64_t i = 0; i < 3 * voxels; ++i) values.push_back(static_cast<float>(i % 3 - 1));
  const Features<float> features(1, 3, line_of(voxels), Layout::rows, values);
  const KeptWeights<float> weights(
      2, 2, voxels, [&](std::int64_t target, int side, std::int64_t v) {
        return values[v] == (side == target ? 1.0f : -1.0f) ? 0.5 : 0.0;
      });
  const Bits bits(1, 2, voxels);
  const Results results(3 * 2, bits, 3, 2);
  SmallUnitsParams<float> p{};
  p.features = features.tensor;
  p.weights = weights.weights;
  p.weights.image_stride = 0;
  p.units = p.channels = 1;
  p.targets = 2;
  p.metric = Metric::euclidean;
  p.temperature = 1.0;
  p.references = bits.references;
  p.out = results.out;
  start(small_units_kernel<float>, 1, p);
  for (const std::int64_t target : {0, 1}) {
    std::int64_t expected = 0, found;
    for (std::int64_t v = 0; v < voxels; ++v)
      expected += bits.valid_bit[v] && values[v] == (target == 0 ? 1.0f : -1.0f);
    simt::download(&found, results.out.predicted[0] + target, sizeof(found));
    SIMT_EXPECT_EQUAL(found, expected);
  }
}
// Sums beyond float's range, and below its smallest numbers of all digits.
SIMT_SCENARIO(small_planes_of_special_values) {
  constexpr std::int64_t voxels = 130;
  std::vector<float> values;
  for (std::int64_t v = 0; v < voxels; ++v) values.push_back(v % 3 == 0 ? 3e38f : -3e38f);
  for (std::int64_t v = 0; v < voxels; ++v) values.push_back(1e-44f * static_cast<float>(v % 7));
  for (std::int64_t v = 0; v < voxels; ++v) values.push_back(v == 129 ? NAN : 1.0f);
  const Features<float> features(1, 3, line_of(voxels), Layout::rows, values);
  const KeptWeights<float> weights(1, 1, voxels);
  const simt::DeviceArray<double> sums(3 * 2, "sums");
  SmallUnitsParams<float> p{};
  p.features = features.tensor;
  p.weights = weights.weights;
  p.units = p.channels = 3;
  p.targets = 1;
  p.sums = sums.data();
  start(small_units_kernel<float>, 1, p);
  const auto found = sums.download();
  for (int side = 0; side < 2; ++side) {
    for (const int unit : {0, 1}) {
      const float* f = features.plane(unit);
      const double exact = exact_sum(f, weights.row(0, side), voxels, f[0]);
      expect_near(found[2 * unit + side] / exact, 1.0, 1e-9);
    }
    SIMT_EXPECT(std::isnan(found[4 + side]));
  }
}
SIMT_SCENARIO(segments_that_are_all_foreground) {
  constexpr std::int64_t voxels = 8192;
  const Features<float> features(1, 1, line_of(voxels), Layout::rows,
                                 std::vector<float>(voxels, 2.0f));
  const Bits bits(1, 1, voxels);
  const Results results(1, bits, 1, 1);
  UnitCountsParams<float> p{};
  p.features = features.tensor;
  p.tiles = {1, 1, 0, 1};
  p.targets = 1;
  const simt::DeviceArray<UnitThreshold<double>> threshold({{true, true, 1.0}}, "thresholds");
  p.threshold = threshold.data();
  p.references = bits.references;
  p.out = results.out;
  start(unit_counts_kernel<float>, 1, p, voxels * 4);
  results.expect_counts(voxels, [](std::int64_t, std::int64_t, std::int64_t) { return true; });
}

SIMT_SCENARIO(segments_of_floats) { counts<float>(Layout::rows, 8192 + 999, 2); }
SIMT_SCENARIO(many_targets) { counts<float>(Layout::rows, 555, 6, 4); }
SIMT_SCENARIO(segments_of_halves) { counts<Half>(Layout::rows, 1111, 1); }
SIMT_SCENARIO(segments_of_doubles) { counts<double>(Layout::rows, 4096 + 77, 1); }
SIMT_SCENARIO(channels_last_by_sectors) { counts<float>(Layout::channels_last, 8192 + 1100, 5); }
SIMT_SCENARIO(channels_last_of_halves) { counts<Half>(Layout::channels_last, 1100, 1); }
SIMT_SCENARIO(small_planes) {
  for (const std::int64_t voxels : {1, 31, 127, 129, 256})
    small<float>(Layout::rows, voxels, 2, false);
}
SIMT_SCENARIO(small_planes_of_many_blocks) {
  small<float>(Layout::rows, 33, 1, false, 21, 2);  // more units than warps
}
SIMT_SCENARIO(small_planes_of_other_types) {
  small<Half>(Layout::rows, 255, 1, false);
  small<double>(Layout::rows, 255, 1, false);
}
SIMT_SCENARIO(small_planes_channels_last) { small<float>(Layout::channels_last, 100, 1, false); }
SIMT_SCENARIO(small_sums) {
  small<float>(Layout::rows, 200, 3, true);
  small<double>(Layout::rows, 131, 3, true);
}
SIMT_SCENARIO(small_planes_are_read_once) {
  small<float>(Layout::rows, 256, 1, false);
  // and the first voxel of each once more
  SIMT_EXPECT(features_read().passes() < 1.05);
}
