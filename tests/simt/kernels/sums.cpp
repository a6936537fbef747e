// Sums of units: split over segments, of any layout, alignment and number of targets.
#include "channels_last.cuh"
#include "direct.hpp"

using namespace direct;

namespace {

template <class T>
struct SumsProblem {
  SumsProblem(const std::vector<T>& values, std::int64_t channels_in, std::int64_t voxels_in,
              std::int64_t targets_in, Layout layout, int misalignment = 0)
      : images(static_cast<std::int64_t>(values.size()) / channels_in / voxels_in),
        channels(channels_in),
        voxels(voxels_in),
        targets(targets_in),
        features(images, channels, line_of(voxels), layout, values, misalignment),
        weights(images, targets, voxels) {}

  // Sums of tiles from `first_tile` on, [units, segments, T, 2].
  std::vector<double> run(void (*kernel)(UnitSumsParams<T>), int units, std::int64_t first_tile,
                          std::int64_t tiles, std::int64_t blocks, std::int64_t bytes) const {
    UnitSumsParams<T> p{};
    p.features = features.tensor;
    p.weights = weights.weights;
    p.tiles = {channels, units, first_tile, tiles};
    p.targets = targets;
    p.segments = segments();
    p.first_unit = first_unit_of(p.tiles);
    const std::int64_t last = first_unit_of({channels, units, first_tile + tiles, 0});
    const simt::DeviceArray<double> sums((last - p.first_unit) * p.segments * targets * 2, "sums");
    p.sums = sums.data();
    start(kernel, blocks, p, bytes);
    return sums.download();
  }

  std::int64_t segments() const { return divide_up(voxels, segment_voxels<SumOf<T>>); }

  // sum(plane, weights, n, reference) of every segment
  template <class Sum>
  std::vector<double> expected(std::int64_t first_unit, std::int64_t units, Sum sum) const {
    std::vector<double> all;
    for (std::int64_t unit = first_unit; unit < first_unit + units; ++unit)
      for (std::int64_t s = 0; s < segments(); ++s)
        for (std::int64_t t = 0; t < targets; ++t)
          for (int side = 0; side < 2; ++side) {
            const std::int64_t first = s * segment_voxels<SumOf<T>>;
            const T* plane = features.plane(unit);
            all.push_back(sum(plane + first,
                              weights.row(unit / channels * targets + t, side) + first,
                              lesser(segment_voxels<SumOf<T>>, voxels - first), widen(plane[0])));
          }
    return all;
  }

  std::int64_t images, channels, voxels, targets;
  Features<T> features;
  KeptWeights<SumOf<T>> weights;
};

template <class T>
constexpr std::int64_t staged_bytes(int units) {
  return units * staged_pitch<T>(segment_voxels<SumOf<T>>) * std::int64_t{sizeof(T)};
}

void expect_same(const std::vector<double>& found, const std::vector<double>& expected) {
  SIMT_EXPECT_EQUAL(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) SIMT_EXPECT_EQUAL(found[i], expected[i]);
}

template <class T>
void exact_shape(Layout layout, int misalignment, std::int64_t voxels) {
  const SumsProblem<T> problem(normals<T>(2 * 5 * voxels, 1.0, 3.0), 5, voxels, 2, layout,
                               misalignment);
  // Tiles of 2, 2 and 1 channels; the last four of six tiles, by fewer blocks than there is work.
  const auto found = problem.run(unit_sums_kernel<T>, 2, 2, 4, 3, staged_bytes<T>(2));
  expect_same(found, problem.expected(4, 6, segment_sum<T>));
}

template <class T>
void exact_shape_turned(std::int64_t channels, std::int64_t voxels, std::int64_t targets) {
  const SumsProblem<T> problem(normals<T>(channels * voxels, 1.0, 3.0), channels, voxels, targets,
                               Layout::channels_last);
  const auto found = problem.run(turned_sums_kernel<T>, neighbours<T>, 0, 2, 2, turned_bytes<T>);
  expect_same(found, problem.expected(0, channels, segment_sum<T>));
}

}  // namespace

SIMT_SCENARIO(rows_of_floats) {
  exact_shape<float>(Layout::rows, 0, 8192 + 4096);
  SIMT_EXPECT(features_read().efficiency() >= 0.95 && features_read().passes() < 1.05);
  SIMT_EXPECT_EQUAL(simt::total().bank_conflicts(), 0u);
}
SIMT_SCENARIO(odd_rows_of_floats) { exact_shape<float>(Layout::rows, 0, 8192 + 1027); }
SIMT_SCENARIO(misaligned_rows_of_floats) {
  for (const int skew : {1, 2, 3}) exact_shape<float>(Layout::rows, skew, 1021);
}
SIMT_SCENARIO(misaligned_rows_of_halves) {
  for (const int skew : {0, 1, 3, 6}) exact_shape<Half>(Layout::rows, skew, 1021);
}
SIMT_SCENARIO(rows_of_doubles) { exact_shape<double>(Layout::rows, 1, 4096 + 513); }
SIMT_SCENARIO(planes_of_one_voxel) { exact_shape<float>(Layout::rows, 0, 1); }
SIMT_SCENARIO(channels_last_by_elements) {
  exact_shape<float>(Layout::channels_last, 0, 1500);
  exact_shape<Half>(Layout::channels_last, 1, 300);
}
SIMT_SCENARIO(channels_last_by_sectors) {
  exact_shape_turned<float>(16, 8192 + 1100, 3);
  SIMT_EXPECT(features_read().efficiency() > 0.95);
  SIMT_EXPECT_EQUAL(simt::total().bank_conflicts(), 0u);
}
SIMT_SCENARIO(channels_last_of_other_types) {
  exact_shape_turned<Half>(19, 1100, 2);
  exact_shape_turned<double>(7, 600, 3);
  exact_shape_turned<float>(11, 1029, 1);
}

// A constant channel sums to exactly nothing; one NaN or infinity to none; tiny ones are exact.
template <class T>
void special_features(Layout layout) {
  constexpr std::int64_t channels = 5, voxels = 1300;
  std::vector<T> values = normals<T>(channels * voxels);
  for (std::int64_t v = 0; v < voxels; ++v) {
    values[v] = narrow_to(T{}, 1.1);
    values[3 * voxels + v] = narrow_to(T{}, 1e-44 * (v % 7));
    values[4 * voxels + v] = narrow_to(T{}, v % 3 == 0 ? 3e38 : -3e38);
  }
  values[voxels + 1299] = narrow_to(T{}, INFINITY);
  values[2 * voxels + 700] = narrow_to(T{}, NAN);
  const SumsProblem<T> problem(values, channels, voxels, 1, layout);
  const bool turned = layout == Layout::channels_last;
  const auto found =
      turned ? problem.run(turned_sums_kernel<T>, neighbours<T>, 0, 1, 1, turned_bytes<T>)
             : problem.run(unit_sums_kernel<T>, 4, 0, 2, 2, staged_bytes<T>(4));
  const auto exact = problem.expected(0, channels, exact_sum<T>);
  for (int side = 0; side < 2; ++side) {
    SIMT_EXPECT_EQUAL(found[side], 0.0);
    SIMT_EXPECT(!std::isfinite(found[2 + side]) && !std::isfinite(found[4 + side]));
    for (const int unit : {3, 4})
      expect_near(found[2 * unit + side] / exact[2 * unit + side], 1.0, 1e-9);
  }
}
SIMT_SCENARIO(special_rows) { special_features<float>(Layout::rows); }
SIMT_SCENARIO(special_channels_last) { special_features<float>(Layout::channels_last); }

// A pred that serves as weights, scaled by powers of two.
SIMT_SCENARIO(pred_as_weights) {
  constexpr std::int64_t voxels = 2048;
  SumsProblem<float> problem(normals<float>(3 * voxels), 3, voxels, 1, Layout::rows);
  std::vector<float> pred;
  for (std::int64_t v = 0; v < voxels; ++v)
    pred.push_back(static_cast<float>(uniform() * 0x1p-130));
  const simt::DeviceArray<float> memory(pred, "pred");
  const simt::DeviceArray<double> scale(std::vector<double>{0x1p126, 0.5}, "scale");
  problem.weights.weights.positive = memory.data();
  problem.weights.weights.negative = nullptr;
  problem.weights.weights.image_stride = voxels;
  problem.weights.weights.target_stride = voxels;
  problem.weights.weights.scale = scale.data();
  for (std::int64_t v = 0; v < voxels; ++v) {
    problem.weights.value[v] = 0x1p126f * pred[v];
    problem.weights.value[problem.weights.pitch + v] = 0.5f * (1.0f - pred[v]);
  }
  const auto found = problem.run(unit_sums_kernel<float>, 3, 0, 1, 1, staged_bytes<float>(3));
  expect_same(found, problem.expected(0, 3, segment_sum<float>));
}
