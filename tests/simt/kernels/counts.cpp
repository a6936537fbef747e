// Counts of units by segments, and small units from features to counts.
#include "channels_last.cuh"
#include "direct.hpp"
#include "small_units.cuh"

using namespace direct;

namespace {

constexpr std::int64_t images = 2, channels = 5;

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
void counts(Layout layout, std::int64_t voxels, std::int64_t targets) {
  const Features<T> features(images, channels, line_of(voxels), layout,
                             tying<T>(images * channels * voxels), 1);
  const Bits bits(images, targets, voxels);
  const Results results(images * channels * targets, bits, channels, targets);
  std::vector<UnitThreshold<double>> thresholds;
  for (std::int64_t i = 0; i < images * channels * targets; ++i)
    thresholds.push_back(threshold_of(i));
  const bool turned = layout == Layout::channels_last;
  const int units = turned ? neighbours<T> : 2;
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
void small(Layout layout, std::int64_t voxels, std::int64_t targets, bool only_sums) {
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
  start(small_units_kernel<T>, 1, p);
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

SIMT_SCENARIO(segments_of_floats) { counts<float>(Layout::rows, 8192 + 999, 2); }
SIMT_SCENARIO(many_targets) { counts<float>(Layout::rows, 555, 6); }
SIMT_SCENARIO(segments_of_halves) { counts<Half>(Layout::rows, 1111, 1); }
SIMT_SCENARIO(segments_of_doubles) { counts<double>(Layout::rows, 4096 + 77, 1); }
SIMT_SCENARIO(channels_last_by_sectors) { counts<float>(Layout::channels_last, 8192 + 1100, 5); }
SIMT_SCENARIO(channels_last_of_halves) { counts<Half>(Layout::channels_last, 1100, 1); }
SIMT_SCENARIO(small_planes) {
  for (const std::int64_t voxels : {1, 31, 127, 129, 256})
    small<float>(Layout::rows, voxels, 2, false);
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
