// From partial sums to prototypes, boundaries and thresholds.
#include "boundary.cuh"

#include "direct.hpp"

using namespace direct;

namespace {

constexpr std::int64_t images = 3, targets = 2, segments = 3;

// Partial sums of images [1, 3), as a chunk has them; or prototypes that are given for all images,
// with no sums.
struct SumsProblem {
  explicit SumsProblem(std::int64_t channels_in, bool given_in = false)
      : channels(channels_in),
        features(images, channels, line_of(9), Layout::rows, normals<float>(images * channels * 9)),
        value(normals<double>(2 * channels * segments * targets * 2)),
        memory(value, "sums"),
        totals(normals<double>(images * targets * 2, 0.1, 2.0)),
        total(zeroed(), "totals"),
        bits(images, targets, 9),
        given(given_in),
        means(normals<double>(2 * images * targets * channels)),
        given_memory(means, "given prototypes") {
    sums = {memory.data(), total.data(), features.tensor, channels, channels, targets, segments};
    if (!given) return;
    sums.sums = nullptr;
    sums.segments = 0;
    sums.positive = given_memory.data();
    sums.negative = given_memory.data() + images * targets * channels;
  }

  ChannelPrototypes prototypes(std::int64_t image, std::int64_t channel,
                               std::int64_t target) const {
    const double* weight = &totals[(image * targets + target) * 2];
    const std::int64_t at = (image * targets + target) * channels + channel;
    if (given)
      return {std::isnan(*weight) ? *weight : 0.0, means[at],
              means[images * targets * channels + at]};
    const std::int64_t unit = (image - 1) * channels + channel;
    double sum[2] = {};
    for (std::int64_t s = 0; s < segments; ++s)
      for (int side = 0; side < 2; ++side)
        sum[side] += value[((unit * segments + s) * targets + target) * 2 + side];
    const double reference = features.plane(image * channels + channel)[0];
    return {reference, sum[0] / weight[0], sum[1] / weight[1]};
  }

  std::int64_t channels;
  Features<float> features;
  std::vector<double> value;
  simt::DeviceArray<double> memory;
  std::vector<double> totals;
  simt::DeviceArray<double> total;
  Bits bits;
  bool given;
  std::vector<double> means;  // [2, N, T, C]
  simt::DeviceArray<double> given_memory;
  PartialSums sums;

 private:
  // One target of one image has no foreground to average, and one is that of an invalid guide.
  std::vector<double>& zeroed() {
    totals[(2 * targets + 1) * 2] = 0.0;
    totals[targets * 2] = totals[targets * 2 + 1] = std::nan("");
    for (std::size_t i = 0; i < value.size(); ++i)
      if (i / 2 % targets == 1 && i / value.size() * 2 >= value.size()) value[i] = 0.0;
    return totals;
  }
};

void units(Metric metric, bool in_float, bool given = false) {
  const SumsProblem problem(150, given);
  const std::int64_t units = 2 * problem.channels;
  const Results results(images * problem.channels * targets, problem.bits, problem.channels,
                        targets);
  simt::DeviceArray<UnitThreshold<double>> threshold(units * targets, "thresholds");
  threshold.fill_bytes(0xab);  // structures have bytes that nobody writes
  UnitBoundaryParams p{};
  p.sums = problem.sums;
  p.units = units;
  p.metric = metric;
  p.temperature = 1.0;
  p.threshold = threshold.data();
  p.exact_in_float = in_float;
  p.out = results.out;
  p.references = problem.bits.references;
  start(unit_boundary_kernel<>, 2, p);
  const auto found = threshold.download();
  const auto counts = problem.bits.actual_count[1].download();
  for (std::int64_t i = 0; i < units * targets; ++i) {
    const std::int64_t unit = problem.channels + i / targets, target = i % targets;
    double weight;
    const Boundary boundary =
        unit_boundary(problem.prototypes(unit / problem.channels, unit % problem.channels, target),
                      metric, 1.0, &weight);
    const auto exact = unit_threshold<double>(weight, boundary);
    const auto narrow = unit_threshold<float>(weight, boundary);
    SIMT_EXPECT_EQUAL(found[i].anything, exact.anything);
    SIMT_EXPECT_EQUAL(found[i].above, exact.above);
    SIMT_EXPECT_EQUAL(found[i].threshold, in_float ? narrow.threshold : exact.threshold);
    std::uint8_t defined;
    simt::download(&defined, results.out.defined[0] + unit * targets + target, 1);
    SIMT_EXPECT_EQUAL(defined != 0, boundary.defined);
    std::int64_t actual;
    simt::download(&actual, results.out.actual[1] + unit * targets + target, sizeof(actual));
    SIMT_EXPECT_EQUAL(actual, counts[unit / problem.channels * targets + target]);
  }
}

void groups(Metric metric, std::int64_t groups, std::int64_t group_channels, bool given = false) {
  const SumsProblem problem(groups * group_channels, given);
  const std::int64_t count = 2 * groups;
  const Results results(images * groups * targets, problem.bits, groups, targets);
  const simt::DeviceArray<ChannelPrototypes> scratch(count * targets * group_channels, "scratch");
  const simt::DeviceArray<double> weight(count * targets * group_channels, "normals");
  simt::DeviceArray<Boundary> boundary(count * targets, "boundaries");
  simt::DeviceArray<UnitThreshold<double>> threshold(count * targets, "thresholds");
  boundary.fill_bytes(0xab);  // structures have bytes that nobody writes
  threshold.fill_bytes(0xab);
  GroupBoundaryParams p{};
  p.sums = problem.sums;
  p.first_group = groups;
  p.groups_total = count;
  p.groups = groups;
  p.group_channels = group_channels;
  p.metric = metric;
  p.temperature = 1.5;
  p.prototypes = scratch.data();
  p.weight = weight.data();
  p.boundary = boundary.data();
  p.threshold = threshold.data();
  p.out = results.out;
  p.references = problem.bits.references;
  start(group_boundary_kernel<>, 3, p);
  const auto found = boundary.download();
  const auto normal_found = weight.download();
  const auto compared = threshold.download();
  for (std::int64_t i = 0; i < count * targets; ++i) {
    const std::int64_t group = groups + i / targets, target = i % targets;
    std::vector<ChannelPrototypes> prototypes;
    for (std::int64_t c = 0; c < group_channels; ++c)
      prototypes.push_back(
          problem.prototypes(group / groups, group % groups * group_channels + c, target));
    std::vector<double> normal(group_channels);
    const Boundary expected =
        group_boundary(prototypes.data(), group_channels, metric, 1.5, normal.data());
    SIMT_EXPECT_EQUAL(found[i].defined, expected.defined);
    SIMT_EXPECT_EQUAL(compared[i].anything, expected.defined);
    std::uint8_t defined;
    simt::download(&defined, results.out.defined[1] + group * targets + target, 1);
    SIMT_EXPECT_EQUAL(defined != 0, expected.defined);
    if (!expected.defined) continue;
    SIMT_EXPECT_EQUAL(found[i].scale, expected.scale);
    expect_near(found[i].threshold, expected.threshold, 1e-12 * group_channels);
    SIMT_EXPECT(compared[i].above && compared[i].threshold == found[i].threshold);
    for (std::int64_t c = 0; c < group_channels; ++c)
      expect_near(normal_found[i * group_channels + c], normal[c], 1e-14);
  }
}

}  // namespace

SIMT_SCENARIO(of_units) { units(Metric::euclidean, true); }
SIMT_SCENARIO(of_units_for_doubles) { units(Metric::euclidean, false); }
SIMT_SCENARIO(of_units_of_cosine) { units(Metric::cosine, false); }
SIMT_SCENARIO(of_groups) { groups(Metric::euclidean, 3, 5); }
SIMT_SCENARIO(of_wide_groups) { groups(Metric::euclidean, 1, 300); }
SIMT_SCENARIO(of_groups_of_cosine) { groups(Metric::cosine, 2, 40); }
SIMT_SCENARIO(of_groups_of_one) { groups(Metric::euclidean, 7, 1); }
SIMT_SCENARIO(given_of_units) { units(Metric::euclidean, true, true); }
SIMT_SCENARIO(given_of_groups) { groups(Metric::euclidean, 3, 5, true); }
SIMT_SCENARIO(prototypes) {
  const SumsProblem problem(150);
  const std::int64_t means = images * targets * problem.channels;
  const simt::DeviceArray<double> positive(means, "positive"), negative(means, "negative");
  const simt::DeviceArray<double> positive_weight(images * targets, "positive weight");
  const simt::DeviceArray<double> negative_weight(images * targets, "negative weight");
  const simt::DeviceArray<double> scale(std::vector<double>{1, 2, 4, 1, 1, 1, 8, 1, 1, 0.5, 1, 1},
                                        "scale");
  PrototypesParams p{};
  p.sums = problem.sums;
  p.units = 2 * problem.channels;
  p.scale = scale.data();
  p.positive = positive.data();
  p.negative = negative.data();
  p.positive_weight = positive_weight.data();
  p.negative_weight = negative_weight.data();
  start(prototypes_kernel<>, 2, p);
  const auto read = [](const double* at) {
    double value;
    simt::download(&value, at, sizeof(value));
    return value;
  };
  const auto scales = scale.download();
  for (std::int64_t image = 1; image < images; ++image)
    for (std::int64_t target = 0; target < targets; ++target) {
      const std::int64_t plane = image * targets + target;
      for (std::int64_t c = 0; c < problem.channels; ++c) {
        const ChannelPrototypes expected = problem.prototypes(image, c, target);
        const std::int64_t at = plane * problem.channels + c;
        expect_near(read(p.positive + at), expected.reference + expected.positive, 0.0);
        expect_near(read(p.negative + at), expected.reference + expected.negative, 0.0);
      }
      expect_near(read(p.positive_weight + plane), problem.totals[2 * plane] / scales[2 * plane],
                  0);
      expect_near(read(p.negative_weight + plane),
                  problem.totals[2 * plane + 1] / scales[2 * plane + 1], 0);
    }
}
