// Counts of resized maps, and what is prepared for them: taps, tiles, totals.
#include "resized.cuh"

#include <algorithm>

#include "direct.hpp"
#include "guide_cells.cuh"
#include "taps.hpp"
#include "units.cuh"

using namespace direct;

namespace {

constexpr std::int64_t images = 2;

struct Geometry {
  std::int64_t from[3], to[3];
  Interpolation interpolation = Interpolation::linear;
  bool align_corners = false;
};

Extent extent_of(const std::int64_t n[3]) {
  Extent extent;
  extent.z = n[0];
  extent.y = n[1];
  extent.x = n[2];
  return extent;
}

struct CellsProblem {
  CellsProblem(const Geometry& g, std::int64_t targets_in)
      : targets(targets_in),
        from(extent_of(g.from)),
        to(extent_of(g.to)),
        z(g.from[0], g.to[0], g.interpolation, g.align_corners),
        y(g.from[1], g.to[1], g.interpolation, g.align_corners),
        x(g.from[2], g.to[2], g.interpolation, g.align_corners),
        bits(images, targets, to.voxels()) {
    cells.resized = true;
    cells.from = from;
    cells.to = to;
    cells.z = z.taps();
    cells.y = y.taps();
    cells.x = x.taps();
    cells.words = divide_up(to.x, 32);
    cells.lines = from.z * from.y;
    pack(images, bits.valid.data(), &cells.valid, &cells.valid_total);
    for (int which = 0; which < 2; ++which)
      pack(images * targets, bits.actual[which].data(), &cells.actual[which],
           &cells.actual_total[which]);
  }

  void expect_totals() const {
    // All tiles of a plane together hold all its voxels.
    std::vector<unsigned> total(images * cells.tiles());
    simt::download(total.data(), cells.valid_total, total.size() * sizeof(unsigned));
    for (std::int64_t image = 0; image < images; ++image) {
      std::int64_t sum = 0, expected = 0;
      for (std::int64_t i = 0; i < cells.tiles(); ++i) sum += total[image * cells.tiles() + i];
      for (std::int64_t v = 0; v < to.voxels(); ++v)
        expected += bits.valid_bit[image * to.voxels() + v];
      SIMT_EXPECT_EQUAL(sum, expected);
    }
  }

  // value(z, y, x): a double
  template <class Value>
  double resize(std::int64_t v, Value value) const {
    const Tap &tz = z.tap[v / to.x / to.y], &ty = y.tap[v / to.x % to.y], &tx = x.tap[v % to.x];
    double row[2];
    for (int k = 0; k < 2; ++k) {
      const std::int64_t tap = k == 0 ? tx.lower : tx.upper;
      row[k] = lerp(lerp(value(tz.lower, ty.lower, tap), value(tz.upper, ty.lower, tap), tz.weight),
                    lerp(value(tz.lower, ty.upper, tap), value(tz.upper, ty.upper, tap), tz.weight),
                    ty.weight);
    }
    return lerp(row[0], row[1], tx.weight);
  }

  std::int64_t targets;
  Extent from, to;
  DeviceTaps z, y, x;
  Bits bits;
  Cells cells;

 private:
  void pack(std::int64_t planes, const unsigned* packed, const unsigned** rows,
            const unsigned** total) {
    unsigned* row = memory.emplace_back(planes * cells.tile_rows(), "rows of tiles").data();
    unsigned* sum = memory.emplace_back(planes * cells.tiles(), "totals of tiles").data();
    TileBitsParams b{};
    b.cells = cells;
    b.packed = packed;
    b.planes = planes;
    b.words = bits.words;
    b.rows = row;
    start(tile_bits_kernel<>, 2, b);
    TileTotalsParams t{};
    t.cells = cells;
    t.rows = row;
    t.planes = planes;
    t.total = sum;
    start(tile_totals_kernel<>, 2, t);
    *rows = row;
    *total = sum;
  }
  std::vector<simt::DeviceArray<unsigned>> memory;
};

// Smooth in part, so that corners decide tiles; with a plateau at the threshold, which ties.
template <class T>
std::vector<T> landscape(std::int64_t planes, const Extent& from, double threshold) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < planes; ++i)
    for (std::int64_t z = 0; z < from.z; ++z)
      for (std::int64_t y = 0; y < from.y; ++y)
        for (std::int64_t x = 0; x < from.x; ++x) {
          double f = threshold + std::sin(0.7 * x + i) + std::cos(0.9 * y - z);
          if (x > from.x / 2) f = threshold + 4.0;
          if (y < 2) f = threshold;
          if (i % 2 == 1) f = threshold + direct::normal();
          values.push_back(narrow_to(T{}, f));
        }
  return values;
}

constexpr double plateau = 0.25;

UnitThreshold<double> threshold_of(std::int64_t pair) {
  return {pair % 6 != 5, pair % 4 < 2, plateau + (pair % 3 == 0 ? 0.0 : 0.01)};
}

// One voxel of one plane of features at the size of the pred.
template <class V>
double resized_value(const CellsProblem& problem, const Features<V>& features, std::int64_t plane,
                     std::int64_t v) {
  return problem.resize(v, [&](std::int64_t z, std::int64_t y, std::int64_t x) {
    return static_cast<double>(
        widen(features.plane(plane)[(z * problem.from.y + y) * problem.from.x + x]));
  });
}

template <class V>
void expect_counts(const CellsProblem& problem, const Features<V>& features, std::int64_t channels,
                   const std::vector<UnitThreshold<double>>& thresholds) {
  const std::int64_t units = images * channels, targets = problem.targets;
  const Results results(units * targets, problem.bits, channels, targets);
  for (const std::int64_t first : {std::int64_t{0}, units - 1}) {
    const simt::DeviceArray<UnitThreshold<double>> memory(
        {thresholds.begin() + first * targets, thresholds.end()}, "thresholds");
    ResizedCountsParams p{};
    p.values = features.tensor;
    p.first = first;
    p.count = first == 0 ? units - 1 : 1;
    p.per_image = channels;
    p.targets = targets;
    p.part_tiles = divide_up(problem.cells.tiles(), 3) + 1;  // so that parts cross words
    p.parts = divide_up(problem.cells.tiles(), p.part_tiles);
    p.threshold = memory.data();
    p.cells = problem.cells;
    p.out = results.out;
    start(resized_counts_kernel<V>, 5, p);
  }
  problem.expect_totals();
  results.expect_counts(problem.to.voxels(),
                        [&](std::int64_t unit, std::int64_t target, std::int64_t v) {
                          const UnitThreshold<double>& t = thresholds[unit * targets + target];
                          if (!t.anything) return false;
                          const double f = resized_value(problem, features, unit, v);
                          return t.above ? f > t.threshold : f < t.threshold;
                        });
}

template <class V>
void counts(const Geometry& g, std::int64_t channels, std::int64_t targets, Layout layout) {
  const CellsProblem problem(g, targets);
  const std::int64_t units = images * channels;
  const Features<V> features(images, channels, problem.from, layout,
                             landscape<V>(units, problem.from, plateau));
  std::vector<UnitThreshold<double>> thresholds;
  for (std::int64_t i = 0; i < units * targets; ++i) thresholds.push_back(threshold_of(i));
  expect_counts(problem, features, channels, thresholds);
}

// Every threshold is the value of one voxel, which is background, among others that are near.
template <class V>
void ties(double scale, double shift, const Geometry& g = {{1, 6, 7}, {1, 13, 40}}) {
  constexpr std::int64_t channels = 6, targets = 2;
  const CellsProblem problem(g, targets);
  const Features<V> features(images, channels, problem.from, Layout::rows,
                             normals<V>(images * channels * problem.from.voxels(), scale, shift));
  std::vector<UnitThreshold<double>> thresholds;
  for (std::int64_t i = 0; i < images * channels * targets; ++i)
    thresholds.push_back(
        {true, i % 4 < 2, resized_value(problem, features, i / targets, 17 + 41 * i % 500)});
  expect_counts(problem, features, channels, thresholds);
}

// Planes that are all foreground but around one feature voxel, and all background but there.
void single_voxels() {
  const CellsProblem problem({{1, 3, 9}, {1, 7, 75}}, 1);
  const std::int64_t voxels = problem.from.voxels(), channels = 2 * voxels;
  std::vector<float> values;
  for (std::int64_t i = 0; i < images * channels * voxels; ++i) {
    const std::int64_t channel = i / voxels % channels;
    const float elsewhere = channel % 2 == 0 ? 1.0f : -1.0f;
    values.push_back(i % voxels == channel / 2 ? -3.0f * elsewhere : elsewhere);
  }
  const Features<float> features(images, channels, problem.from, Layout::rows, values);
  std::vector<UnitThreshold<double>> thresholds;
  for (std::int64_t i = 0; i < images * channels; ++i)
    thresholds.push_back({true, i < channels, 0.0});
  expect_counts(problem, features, channels, thresholds);
}

// A voxel in float, in the order of `evaluate`, as a share of the largest corner that it depends
// on.
double share_in_float(const CellsProblem& problem, const std::vector<float>& plane, std::int64_t v,
                      const UnitThreshold<double>& unit) {
  const Centre centre = centre_of(unit);
  const Extent &from = problem.from, &to = problem.to;
  const Tap &z = problem.z.tap[v / to.x / to.y], &y = problem.y.tap[v / to.x % to.y],
            &x = problem.x.tap[v % to.x];
  float row[4], largest = 0.0f;
  for (int k = 0; k < 4; ++k) {
    const std::int64_t first = ((k < 2 ? z.lower : z.upper) * from.y + (k % 2 ? y.upper : y.lower));
    const float a = centred(centre, plane[first * from.x + x.lower]);
    const float b = centred(centre, plane[first * from.x + x.upper]);
    row[k] = std::fma(static_cast<float>(x.weight), b - a, a);
    largest = std::max({largest, std::fabs(a), std::fabs(b)});
  }
  const auto z_weight = static_cast<float>(z.weight), y_weight = static_cast<float>(y.weight);
  const float a = std::fma(z_weight, row[2] - row[0], row[0]);
  const float b = std::fma(z_weight, row[3] - row[1], row[1]);
  return std::fma(y_weight, b - a, a) / largest;
}

// Voxels that float puts on the wrong side of the threshold, as far from it as a search finds.
void wrong_in_float() {
  constexpr std::int64_t channels = 8;
  const CellsProblem problem({{3, 3, 3}, {7, 8, 37}}, 1);
  struct Wrong {
    double share;
    std::vector<float> plane;
    UnitThreshold<double> unit;
    bool operator<(const Wrong& other) const { return share > other.share; }
  };
  std::vector<Wrong> wrong;
  for (int trial = 0; trial < 20'000; ++trial) {
    std::vector<float> plane;  // far from each other: sums round most
    for (std::int64_t i = 0; i < problem.from.voxels(); ++i)
      plane.push_back(static_cast<float>((uniform() < 0.5 ? -1.0 : 1.0) * (1.0 - uniform() / 8)));
    const auto v = static_cast<std::int64_t>(uniform() * 0.999 * problem.to.voxels());
    const double exact =
        problem.resize(v, [&](std::int64_t z, std::int64_t y, std::int64_t x) -> double {
          return plane[(z * problem.from.y + y) * problem.from.x + x];
        });
    // With the threshold a fifth of the error away, float has the voxel on its other side.
    const double error = share_in_float(problem, plane, v, {true, true, exact});
    const UnitThreshold<double> unit = {true, true, exact + error / 5};
    const double share = share_in_float(problem, plane, v, unit);
    if ((share > 0) != (exact > unit.threshold)) wrong.push_back({std::fabs(share), plane, unit});
  }
  std::sort(wrong.begin(), wrong.end());
  std::vector<float> values;
  std::vector<UnitThreshold<double>> thresholds;
  for (std::int64_t i = 0; i < images * channels; ++i) {
    values.insert(values.end(), wrong[i].plane.begin(), wrong[i].plane.end());
    thresholds.push_back(wrong[i].unit);
  }
  SIMT_EXPECT(wrong.front().share > 0x1p-24);
  const Features<float> features(images, channels, problem.from, Layout::rows, values);
  expect_counts(problem, features, channels, thresholds);
}

// Maps [groups from the first on, T], as they are projected.
void maps_of_groups() {
  constexpr std::int64_t groups = 3, targets = 2, first = 2, count = 3;
  const CellsProblem problem({{1, 5, 6}, {1, 11, 34}}, targets);
  const std::int64_t voxels = problem.from.voxels();
  const Features<double> maps(1, count * targets, problem.from, Layout::rows,
                              normals<double>(count * targets * voxels));
  const Results results(images * groups * targets, problem.bits, groups, targets);
  std::vector<UnitThreshold<double>> thresholds;
  for (std::int64_t i = 0; i < count * targets; ++i) thresholds.push_back({i != 3, true, 0.1 * i});
  const simt::DeviceArray<UnitThreshold<double>> memory(thresholds, "thresholds");
  ResizedCountsParams p{};
  p.values = maps.tensor;
  p.values.channel_stride = targets * voxels;
  p.values.image_stride = groups * targets * voxels;
  p.map_offset = first * targets * voxels;
  p.target_stride = voxels;
  p.first = first;
  p.count = count;
  p.per_image = groups;
  p.targets = targets;
  p.part_tiles = problem.cells.tiles();
  p.threshold = memory.data();
  p.cells = problem.cells;
  p.out = results.out;
  start(resized_counts_kernel<double>, 4, p);
  results.expect_counts(problem.to.voxels(),
                        [&](std::int64_t group, std::int64_t target, std::int64_t v) {
                          const std::int64_t map = (group - first) * targets + target;
                          if (map < 0 || map >= count * targets || !thresholds[map].anything)
                            return false;
                          return resized_value(problem, maps, map, v) > thresholds[map].threshold;
                        });
}

// Units whose planes stay in shared memory while they are summed and counted.
template <class T>
void resident(const Geometry& g, std::int64_t targets) {
  constexpr std::int64_t channels = 3;
  const CellsProblem problem(g, targets);
  const std::int64_t units = images * channels, voxels = problem.from.voxels();
  const Features<T> features(images, channels, problem.from, Layout::rows,
                             normals<T>(units * voxels));
  const KeptWeights<SumOf<T>> weights(images, targets, voxels);
  const Results results(units * targets, problem.bits, channels, targets);
  UnitsParams<T> p{};
  p.features = features.tensor;
  p.weights = weights.weights;
  p.tiles = {channels, 2, 0, images * 2};
  p.targets = static_cast<int>(targets);
  p.voxels = static_cast<int>(voxels);
  p.segments = p.block_segments = 1;
  p.pitch = static_cast<int>(staged_pitch<T>(voxels));
  p.resident = true;
  p.metric = Metric::euclidean;
  p.temperature = 1.0;
  p.references = problem.bits.references;
  p.out = results.out;
  p.cells = problem.cells;
  start(units_kernel<T, true>, 3, p, shared_sums(1) * 8 + 2 * p.pitch * std::int64_t{sizeof(T)});
  std::vector<UnitThreshold<double>> thresholds;
  for (std::int64_t i = 0; i < units * targets; ++i) {
    const std::int64_t unit = i / targets, plane = unit / channels * targets + i % targets;
    const T* f = features.plane(unit);
    double sum[2], weight;
    for (int side = 0; side < 2; ++side)
      sum[side] = segment_sum(f, weights.row(plane, side), voxels, widen(f[0]));
    const Boundary boundary =
        unit_boundary(make_prototypes(widen(f[0]), sum, &weights.totals[2 * plane]),
                      Metric::euclidean, 1.0, &weight);
    thresholds.push_back(unit_threshold<double>(weight, boundary));
  }
  results.expect_known([](std::int64_t, std::int64_t) { return true; });
  results.expect_counts(problem.to.voxels(),
                        [&](std::int64_t unit, std::int64_t target, std::int64_t v) {
                          const UnitThreshold<double>& t = thresholds[unit * targets + target];
                          const double f = resized_value(problem, features, unit, v);
                          return t.above ? f > t.threshold : f < t.threshold;
                        });
}

constexpr Geometry up_2d = {{1, 9, 13}, {1, 33, 75}};
constexpr Geometry down_2d = {{1, 40, 70}, {1, 9, 33}};
constexpr Geometry up_3d = {{3, 4, 5}, {17, 13, 40}};

}  // namespace

SIMT_SCENARIO(taps) {
  for (const bool align : {false, true})
    for (const auto interpolation : {Interpolation::linear, Interpolation::nearest})
      for (const Geometry& g : {up_2d, down_2d, up_3d})
        for (int axis = 0; axis < 3; ++axis)
          if (interpolation == Interpolation::linear || !align)
            DeviceTaps(g.from[axis], g.to[axis], interpolation, align).expect_taps();
}
SIMT_SCENARIO(taps_of_long_axes) {
  DeviceTaps(700, 900).expect_taps();
  DeviceTaps(900, 300).expect_taps();
}
SIMT_SCENARIO(doubtful_voxels) { ties<float>(1.0, 0.3); }
SIMT_SCENARIO(doubtful_voxels_of_volumes) { ties<float>(1.0, 0.3, {{3, 3, 4}, {8, 7, 12}}); }
SIMT_SCENARIO(voxels_that_float_puts_on_the_wrong_side) { wrong_in_float(); }
SIMT_SCENARIO(one_voxel_that_differs) { single_voxels(); }
SIMT_SCENARIO(thresholds_between_floats) { ties<float>(1e-3, 1000.0); }
SIMT_SCENARIO(maps_that_double_decides) { ties<double>(1e-12, 1000.0); }
SIMT_SCENARIO(maps_by_group_and_target) { maps_of_groups(); }
SIMT_SCENARIO(enlarged) { counts<float>(up_2d, 3, 2, Layout::rows); }
SIMT_SCENARIO(enlarged_volumes) { counts<float>(up_3d, 2, 1, Layout::rows); }
SIMT_SCENARIO(reduced) { counts<float>(down_2d, 3, 1, Layout::rows); }
SIMT_SCENARIO(lines) { counts<float>({{1, 1, 21}, {1, 1, 200}}, 2, 1, Layout::rows); }
SIMT_SCENARIO(aligned_corners) {
  counts<float>({{1, 9, 13}, {1, 33, 75}, Interpolation::linear, true}, 3, 1, Layout::rows);
}
SIMT_SCENARIO(nearest) {
  counts<float>({{1, 9, 13}, {1, 33, 75}, Interpolation::nearest, false}, 3, 1, Layout::rows);
}
SIMT_SCENARIO(of_other_types) {
  counts<Half>(up_2d, 2, 1, Layout::rows);
  counts<double>(up_2d, 2, 1, Layout::rows);
}
SIMT_SCENARIO(channels_last) { counts<float>(up_2d, 3, 1, Layout::channels_last); }
SIMT_SCENARIO(many_rows_in_a_tile) { counts<float>({{2, 2, 3}, {11, 13, 40}}, 2, 1, Layout::rows); }
SIMT_SCENARIO(resident_planes) { resident<float>(up_2d, 5); }
SIMT_SCENARIO(resident_planes_are_read_once) {
  resident<float>({{1, 64, 64}, {1, 80, 70}}, 1);
  SIMT_EXPECT(features_read().passes() < 1.05);
}
