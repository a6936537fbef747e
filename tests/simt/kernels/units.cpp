// Units from features to counts in one launch: resident in a block or a cluster, or streamed.
#include "units.cuh"

#include "direct.hpp"
#include "policy.hpp"

using namespace direct;

namespace {

constexpr std::int64_t images = 2, channels = 5;

struct Shape {
  Strategy strategy;
  int cluster, units;
  std::int64_t blocks;  // clusters
};

template <class T>
void units(const Shape& shape, std::int64_t voxels, std::int64_t targets, Metric metric) {
  using Sum = SumOf<T>;
  std::vector<T> values = normals<T>(images * channels * voxels, 1.0, 0.2);
  for (std::int64_t v = 0; v < voxels; ++v) values[3 * voxels + v] = narrow_to(T{}, -2.5);
  values[4 * voxels + voxels - 1] = narrow_to(T{}, NAN);
  const Features<T> features(images, channels, line_of(voxels), Layout::rows, values);
  const KeptWeights<Sum> weights(images, targets, voxels);
  const Bits bits(images, targets, voxels);
  const Results results(images * channels * targets, bits, channels, targets);
  const Sweep sweep = {images * channels, channels, voxels, segment_voxels<Sum>, sizeof(T)};
  const Plan plan = make_plan(sweep, shape.strategy, shape.cluster, shape.units);
  UnitsParams<T> p{};
  p.features = features.tensor;
  p.weights = weights.weights;
  p.tiles = {channels, plan.units, 0, tiles_of(sweep, plan)};
  p.targets = static_cast<int>(targets);
  p.voxels = static_cast<int>(voxels);
  p.segments = static_cast<int>(segments_of(sweep));
  p.block_segments = static_cast<int>(plan.block_segments);
  p.pitch = static_cast<int>(plan.pitch);
  p.resident = shape.strategy == Strategy::resident;
  p.metric = metric;
  p.temperature = 1.0;
  p.references = bits.references;
  p.out = results.out;
  start(units_kernel<T, false>, shape.blocks, p, plan.shared_bytes, shape.cluster);

  std::vector<UnitThreshold<Sum>> thresholds;
  std::vector<bool> defined;
  for (std::int64_t i = 0; i < images * channels * targets; ++i) {
    const std::int64_t unit = i / targets, plane = unit / channels * targets + i % targets;
    const T* f = features.plane(unit);
    double sum[2] = {}, weight;
    for (std::int64_t first = 0; first < voxels; first += segment_voxels<Sum>)
      for (int side = 0; side < 2; ++side)
        sum[side] += segment_sum(f + first, weights.row(plane, side) + first,
                                 lesser(segment_voxels<Sum>, voxels - first), widen(f[0]));
    const Boundary boundary = unit_boundary(
        make_prototypes(widen(f[0]), sum, &weights.totals[2 * plane]), metric, 1.0, &weight);
    thresholds.push_back(unit_threshold<Sum>(weight, boundary));
    defined.push_back(boundary.defined);
  }
  results.expect_known(
      [&](std::int64_t unit, std::int64_t target) { return defined[unit * targets + target]; });
  results.expect_counts(voxels, [&](std::int64_t unit, std::int64_t target, std::int64_t v) {
    const auto& t = thresholds[unit * targets + target];
    const auto f = widen(features.plane(unit)[v]);
    return t.anything && (t.above ? f > t.threshold : f < t.threshold);
  });
}

}  // namespace

SIMT_SCENARIO(in_one_block) {
  units<float>({Strategy::resident, 1, 2, 4}, 8192 + 1001, 2, Metric::euclidean);
}
SIMT_SCENARIO(in_a_cluster) {
  units<float>({Strategy::resident, 2, 1, 7}, 3 * 8192 + 8, 1, Metric::euclidean);
}
SIMT_SCENARIO(in_a_large_cluster) {
  // Fewer segments than blocks: some have nothing.
  units<float>({Strategy::resident, 4, 3, 2}, 2 * 8192 + 77, 5, Metric::euclidean);
}
SIMT_SCENARIO(streamed) {
  units<float>({Strategy::streamed, 1, 2, 3}, 2 * 8192 + 333, 5, Metric::euclidean);
}
SIMT_SCENARIO(of_cosine) { units<float>({Strategy::resident, 1, 4, 2}, 1003, 1, Metric::cosine); }
SIMT_SCENARIO(of_halves) {
  units<Half>({Strategy::resident, 2, 4, 2}, 8192 + 1003, 1, Metric::euclidean);
}
SIMT_SCENARIO(of_doubles) {
  units<double>({Strategy::resident, 2, 1, 10}, 4096 + 333, 1, Metric::euclidean);
}
SIMT_SCENARIO(resident_planes_are_read_once) {
  units<float>({Strategy::resident, 2, 2, 6}, 2 * 8192, 3, Metric::euclidean);
  SIMT_EXPECT(features_read().passes() < 1.01 && features_read().efficiency() > 0.95);
  SIMT_EXPECT_EQUAL(simt::total().shared_reads.conflicts, 0u);
}
SIMT_SCENARIO(streamed_planes_are_read_twice) {
  units<float>({Strategy::streamed, 1, 2, 6}, 2 * 8192, 3, Metric::euclidean);
  SIMT_EXPECT(features_read().passes() < 2.01 && features_read().efficiency() > 0.95);
}
