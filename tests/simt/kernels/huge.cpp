// The last of a great many units and groups.
#include "huge.hpp"

#include "channels_last.cuh"
#include "project.cuh"
#include "small_units.cuh"
#include "units.cuh"

using namespace huge;

SIMT_SCENARIO(sums_and_counts_of_the_last_unit) {
  const LastUnit unit;
  const UnitTiles tiles = {LastUnit::channels, 1, 0, LastUnit::channels};
  const Zeros<double> sums(LastUnit::channels * 2, "sums");
  last_block(LastUnit::channels);
  for (const auto kernel : {unit_sums_kernel<float>, turned_sums_kernel<float>}) {
    sums.set(LastUnit::last * 2, {0.0, 0.0});
    UnitSumsParams<float> p{};
    p.features = unit.tensor;
    p.weights = unit.row;
    p.tiles = tiles;
    p.targets = 1;
    p.segments = 1;
    p.sums = sums.data();
    start(kernel, LastUnit::channels, p, turned_bytes<float>);
    for (int side = 0; side < 2; ++side)
      SIMT_EXPECT_EQUAL(sums.get(LastUnit::last * 2 + side), 3.0);
  }
  const HugeCounts counts(LastUnit::channels);
  const Zeros<UnitThreshold<double>> threshold(LastUnit::channels, "thresholds");
  threshold.set(LastUnit::last, {{true, true, 0.5}});
  std::int64_t expected = 0;
  for (const auto kernel : {unit_counts_kernel<float>, turned_counts_kernel<float>}) {
    UnitCountsParams<float> p{};
    p.features = unit.tensor;
    p.tiles = tiles;
    p.targets = 1;
    p.segments = 1;
    p.threshold = threshold.data();
    p.references = unit.bits.references;
    p.out = counts.out;
    start(kernel, LastUnit::channels, p, turned_bytes<float>);
    expected += above_zero(unit.bits);
    SIMT_EXPECT_EQUAL(counts.predicted.get(LastUnit::last), expected);
  }
}

SIMT_SCENARIO(small_and_resident_planes_of_the_last_unit) {
  const LastUnit unit;
  const HugeCounts counts(LastUnit::channels);
  SmallUnitsParams<float> s{};
  s.features = unit.tensor;
  s.weights = unit.row;
  s.units = s.channels = LastUnit::channels;
  s.targets = 1;
  s.metric = Metric::euclidean;
  s.temperature = 1.0;
  const Zeros<double> sums(LastUnit::channels * 2, "sums");
  s.sums = sums.data();
  last_block(LastUnit::channels / warps);
  start(small_units_kernel<float>, LastUnit::channels / warps, s);
  for (int side = 0; side < 2; ++side) SIMT_EXPECT_EQUAL(sums.get(LastUnit::last * 2 + side), 3.0);
  // Other weights, so that prototypes differ: those of the first two voxels.
  std::vector<float> halves(208, 0.0f);
  halves[0] = halves[105] = 1.0f;
  simt::upload(unit.weights.data(), halves.data(), halves.size() * sizeof(float));
  const double ones[2] = {1.0, 1.0};
  simt::upload(unit.total.data(), ones, sizeof(ones));
  // Foreground lies below 0.5 now.
  const auto valid = unit.bits.voxel_count.download()[0];
  const std::int64_t expected = valid - above_zero(unit.bits);
  s.sums = nullptr;
  s.references = unit.bits.references;
  s.out = counts.out;
  start(small_units_kernel<float>, LastUnit::channels / warps, s);
  SIMT_EXPECT_EQUAL(counts.predicted.get(LastUnit::last), expected);
  SIMT_EXPECT_EQUAL(counts.defined.get(LastUnit::last), 1);
  UnitsParams<float> p{};
  p.features = unit.tensor;
  p.weights = unit.row;
  p.tiles = {LastUnit::channels, 1, 0, LastUnit::channels};
  p.targets = p.segments = p.block_segments = 1;
  p.voxels = p.pitch = LastUnit::voxels;
  p.resident = true;
  p.metric = Metric::euclidean;
  p.temperature = 1.0;
  p.references = unit.bits.references;
  p.out = counts.out;
  last_block(LastUnit::channels);
  start(units_kernel<float, false>, LastUnit::channels, p,
        shared_sums(1) * 8 + LastUnit::voxels * 4);
  SIMT_EXPECT_EQUAL(counts.predicted.get(LastUnit::last), 2 * expected);
}

SIMT_SCENARIO(boundary_of_the_last_unit) {
  const LastUnit unit;
  constexpr std::int64_t segments = 40, last = LastUnit::last;
  const Zeros<double> sums(LastUnit::channels * segments * 2, "sums");
  sums.set(last * segments * 2, {100.0, 300.0});
  PartialSums partial = {sums.data(), unit.total.data(), unit.tensor, 0, LastUnit::channels,
                         1,           segments};
  const HugeCounts counts(LastUnit::channels);
  const Zeros<UnitThreshold<double>> threshold(LastUnit::channels, "thresholds");
  UnitBoundaryParams u{};
  u.sums = partial;
  u.units = LastUnit::channels;
  u.metric = Metric::euclidean;
  u.temperature = 1.0;
  u.threshold = threshold.data();
  u.references = unit.bits.references;
  u.out = counts.out;
  last_block(LastUnit::channels / threads);
  start(unit_boundary_kernel<>, LastUnit::channels / threads, u);
  SIMT_EXPECT_EQUAL(threshold.get(last).threshold, 2.0);
  SIMT_EXPECT(!threshold.get(last).above);
  const Zeros<double> means(2 * LastUnit::channels, "means"), weight(2, "weights of means");
  const simt::DeviceArray<double> scale(std::vector<double>{1.0, 1.0}, "scale");
  PrototypesParams m{};
  m.sums = partial;
  m.units = LastUnit::channels;
  m.scale = scale.data();
  m.positive = means.data();
  m.negative = means.data() + LastUnit::channels;
  m.positive_weight = weight.data();
  m.negative_weight = weight.data() + 1;
  start(prototypes_kernel<>, LastUnit::channels / threads, m);
  SIMT_EXPECT_EQUAL(means.get(last), 1.0);
  SIMT_EXPECT_EQUAL(means.get(LastUnit::channels + last), 3.0);
  GroupBoundaryParams g{};
  const Zeros<ChannelPrototypes> scratch(LastUnit::channels, "scratch");
  const Zeros<double> normal(LastUnit::channels, "normals");
  const Zeros<Boundary> boundary(LastUnit::channels / 2, "boundaries");
  g.sums = partial;
  g.groups_total = LastUnit::channels / 2;
  g.groups = g.groups_total;
  g.group_channels = 2;
  g.metric = Metric::euclidean;
  g.temperature = 1.0;
  g.prototypes = scratch.data();
  g.weight = normal.data();
  g.boundary = boundary.data();
  g.threshold = threshold.data();
  g.references = unit.bits.references;
  g.out = counts.out;
  last_block(g.groups_total);
  start(group_boundary_kernel<>, g.groups_total, g);
  SIMT_EXPECT(normal.get(last) < 0.0 && normal.get(last - 1) == 0.0);
}

SIMT_SCENARIO(projection_of_the_last_group) {
  const LastUnit unit;
  constexpr std::int64_t groups = LastUnit::channels, last = LastUnit::last;
  const Zeros<double> normal(groups, "normals");
  const Zeros<Boundary> boundary(groups, "boundaries");
  normal.set(last, {2.0});
  boundary.set(last, {{1.0, 2.0, true}});
  const HugeCounts counts(groups);
  const Zeros<std::uint8_t> map(groups * LastUnit::voxels, "map");
  const Zeros<double> projections(groups * LastUnit::voxels, "projections");
  ProjectParams p{};
  p.features = unit.tensor;
  p.count = groups;
  p.groups = groups;
  p.group_channels = p.targets = 1;
  p.pieces = 1;
  p.weight = normal.data();
  p.boundary = boundary.data();
  p.references = unit.bits.references;
  p.out = counts.out;
  last_block(groups);
  for (const Layout layout : {Layout::rows, Layout::strided})
    for (const Sink sink : {Sink::counts, Sink::map, Sink::projection}) {
      p.features.layout = layout;
      p.sink = sink;
      p.map = sink == Sink::map ? static_cast<void*>(map.data()) : projections.data();
      start(project_kernel<float>, groups, p, turned_bytes<float>);
    }
  SIMT_EXPECT_EQUAL(counts.predicted.get(last), 2 * above_zero(unit.bits));
  for (std::int64_t v = 0; v < 4; ++v) {
    SIMT_EXPECT_EQUAL(map.get(last * LastUnit::voxels + v), v % 2);
    SIMT_EXPECT_EQUAL(projections.get(last * LastUnit::voxels + v), v == 1   ? 2.0
                                                                    : v == 3 ? 4.0
                                                                             : 0);
  }
}

SIMT_SCENARIO(references_beyond_2_31_words) {
  constexpr std::int64_t images = planes, voxels = 100, words = 40;
  const Zeros<float> features(images * voxels, "features");
  const Zeros<unsigned> bits(images * words, "bits");
  const Zeros<UnitThreshold<double>> threshold(images, "thresholds");
  const HugeCounts counts(images);
  features.set((images - 1) * voxels, {0.0f, 1.0f, 0.0f, 1.0f});
  bits.set((images - 1) * words, {10u});
  threshold.set(images - 1, {{true, true, 0.5}});
  UnitCountsParams<float> p{};
  p.features = rows_of(features.data(), 1, voxels);
  p.tiles = {1, 1, 0, images};
  p.targets = 1;
  p.segments = 1;
  p.threshold = threshold.data();
  p.references.words = words;
  p.references.valid = p.references.actual[0] = bits.data();
  p.out = counts.out;
  last_block(images);
  start(unit_counts_kernel<float>, images, p, turned_bytes<float>);
  SIMT_EXPECT_EQUAL(counts.predicted.get(images - 1), 2);
  SIMT_EXPECT_EQUAL(counts.tp.get(images - 1), 2);
}
