// Projections and their sinks, and maps that are resized afterwards.
#include "project.cuh"

#include "direct.hpp"
#include "resize_map.cuh"

using namespace direct;

namespace {

constexpr std::int64_t images = 2, groups = 2;

template <class T>
struct ProjectProblem {
  ProjectProblem(std::int64_t group_channels_in, const Extent& extent, std::int64_t targets_in,
                 Layout layout, int misalignment, Metric metric_in = Metric::euclidean)
      : group_channels(group_channels_in),
        voxels(extent.voxels()),
        targets(targets_in),
        metric(metric_in),
        features(images, groups * group_channels, extent, layout,
                 normals<T>(images * groups * group_channels * voxels), misalignment),
        normal(normals<double>(images * groups * targets * group_channels)),
        normal_memory(normal, "normals"),
        boundary(boundaries(images * groups * targets)),
        boundary_memory(boundary, "boundaries"),
        bits(images, targets, voxels) {}

  static std::vector<Boundary> boundaries(std::int64_t n) {
    std::vector<Boundary> all;
    for (std::int64_t i = 0; i < n; ++i) all.push_back({0.3 * normal_(), 2.0, i % 5 != 3});
    return all;
  }
  static double normal_() { return direct::normal(); }

  // Groups [first, first + count) of all, into `map`.
  ProjectParams params(std::int64_t first, std::int64_t count, Sink sink, void* map) const {
    ProjectParams p{};
    p.features = features.tensor;
    p.first_group = first;
    p.count = count;
    p.groups = groups;
    p.group_channels = group_channels;
    p.targets = targets;
    p.pieces = divide_up(voxels, project_voxels<T>);
    p.weight = normal_memory.data() + first * targets * group_channels;
    p.boundary = boundary_memory.data() + first * targets;
    p.metric = metric;
    p.sink = sink;
    p.map = map;
    p.references = bits.references;
    return p;
  }
  void run(const ProjectParams& p, std::int64_t blocks = 3) const {
    const bool rows = features.tensor.layout == Layout::rows;
    start(project_kernel<T>, blocks, p, rows ? 0 : turned_bytes<T>);
  }

  double value(std::int64_t group, std::int64_t c, std::int64_t v) const {
    return widen(features.plane(group * group_channels + c)[v]);
  }
  double projection(std::int64_t group, std::int64_t target, std::int64_t v) const {
    double sum = 0.0;
    for (std::int64_t c = 0; c < group_channels; ++c)
      sum = std::fma(value(group, c, v), normal[(group * targets + target) * group_channels + c],
                     sum);
    return sum;
  }
  double square(std::int64_t group, std::int64_t v) const {
    double sum = 0.0;
    for (std::int64_t c = 0; c < group_channels; ++c) {
      const double f = value(group, c, v);
      sum = std::fma(f, f, sum);
    }
    return sum;
  }

  std::int64_t group_channels, voxels, targets;
  Metric metric;
  Features<T> features;
  std::vector<double> normal;
  simt::DeviceArray<double> normal_memory;
  std::vector<Boundary> boundary;
  simt::DeviceArray<Boundary> boundary_memory;
  Bits bits;
};

template <class T>
void counts(std::int64_t channels, std::int64_t voxels, std::int64_t targets, Layout layout,
            int misalignment) {
  const ProjectProblem<T> problem(channels, line_of(voxels), targets, layout, misalignment);
  const Results results(images * groups * targets, problem.bits, groups, targets);
  for (const std::int64_t first : {0, 3}) {  // in chunks of three groups and of one
    ProjectParams p = problem.params(first, first == 0 ? 3 : 1, Sink::counts, nullptr);
    p.out = results.out;
    problem.run(p);
  }
  results.expect_counts(voxels, [&](std::int64_t group, std::int64_t target, std::int64_t v) {
    const Boundary& boundary = problem.boundary[group * targets + target];
    return boundary.defined && problem.projection(group, target, v) > boundary.threshold;
  });
}

template <class T, class Out>
void maps(Sink sink, Metric metric, Layout layout, std::int64_t voxels, std::int64_t targets) {
  const ProjectProblem<T> problem(7, line_of(voxels), targets, layout, 0, metric);
  const simt::DeviceArray<Out> map(images * groups * targets * voxels, "map");
  problem.run(problem.params(0, 3, sink, map.data()));
  problem.run(problem.params(3, 1, sink, map.data()));
  const std::vector<Out> found = map.download();
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::int64_t v = i % voxels, pair = i / voxels;
    const Boundary& boundary = problem.boundary[pair];
    const double projection = problem.projection(pair / targets, pair % targets, v);
    double expected = boundary.defined && projection > boundary.threshold;
    if (sink != Sink::map) {
      const double square = problem.square(pair / targets, v);
      expected = boundary.defined ? probability_of(margin(projection, square, metric, boundary))
                                  : static_cast<double>(NAN);
    }
    expect_near(static_cast<double>(found[i]), static_cast<double>(static_cast<Out>(expected)),
                0.0);
  }
}

AxisTaps host_taps(const std::vector<Tap>& taps, std::vector<simt::DeviceArray<int>>& ints,
                   std::vector<simt::DeviceArray<double>>& doubles) {
  std::vector<int> lower, upper;
  std::vector<double> exact;
  for (const Tap& tap : taps) {
    lower.push_back(static_cast<int>(tap.lower));
    upper.push_back(static_cast<int>(tap.upper));
    exact.push_back(tap.weight);
  }
  AxisTaps axis;
  axis.lower = ints.emplace_back(lower, "lower").data();
  axis.upper = ints.emplace_back(upper, "upper").data();
  axis.exact = doubles.emplace_back(exact, "exact").data();
  return axis;
}

std::vector<Tap> taps_of(std::int64_t n_in, std::int64_t n_out) {
  std::vector<Tap> taps;
  for (std::int64_t o = 0; o < n_out; ++o)
    taps.push_back(resize_tap(o, n_in, n_out, Interpolation::linear, false));
  return taps;
}

template <class Out>
void resized(Sink sink, Metric metric, Layout layout = Layout::rows) {
  Extent from, to;
  from.z = 2, from.y = 3, from.x = 5;
  to.z = 3, to.y = 7, to.x = 11;
  constexpr std::int64_t targets = 2, first = 1, count = 2;
  const ProjectProblem<float> problem(3, from, targets, layout, 0, metric);
  const simt::DeviceArray<double> projections(count * targets * from.voxels(), "projections");
  problem.run(problem.params(first, count, Sink::projection, projections.data()));
  std::vector<simt::DeviceArray<int>> ints;
  std::vector<simt::DeviceArray<double>> doubles;
  const std::vector<Tap> z = taps_of(from.z, to.z), y = taps_of(from.y, to.y),
                         x = taps_of(from.x, to.x);
  const std::int64_t voxels = to.voxels();
  simt::DeviceArray<Out> map(images * groups * targets * voxels, "map");
  map.fill_bytes(0x7f);
  ResizeMapParams p{};
  p.projection = projections.data();
  p.first_group = first;
  p.count = count;
  p.groups = groups;
  p.group_channels = problem.group_channels;
  p.targets = targets;
  p.voxels = voxels;
  p.boundary = problem.boundary_memory.data() + first * targets;
  p.cells.from = from;
  p.cells.to = to;
  p.cells.z = host_taps(z, ints, doubles);
  p.cells.y = host_taps(y, ints, doubles);
  p.cells.x = host_taps(x, ints, doubles);
  p.features = problem.features.tensor;
  p.metric = metric;
  p.sink = sink;
  p.map = map.data();
  start(resize_map_kernel<>, 2, p);
  const std::vector<Out> found = map.download();
  const auto at = [&](std::int64_t v, auto value) {
    const Tap &tz = z[v / to.x / to.y], &ty = y[v / to.x % to.y], &tx = x[v % to.x];
    double row[2];
    for (int k = 0; k < 2; ++k) {
      const std::int64_t tap = k == 0 ? tx.lower : tx.upper;
      const auto corner = [&](std::int64_t i, std::int64_t j) {
        return value((i * from.y + j) * from.x + tap);
      };
      row[k] =
          lerp(lerp(corner(tz.lower, ty.lower), corner(tz.upper, ty.lower), tz.weight),
               lerp(corner(tz.lower, ty.upper), corner(tz.upper, ty.upper), tz.weight), ty.weight);
    }
    return lerp(row[0], row[1], tx.weight);
  };
  for (std::int64_t i = first * targets * voxels; i < (first + count) * targets * voxels; ++i) {
    const std::int64_t pair = i / voxels, v = i % voxels, group = pair / targets;
    const Boundary& boundary = problem.boundary[pair];
    const double projection =
        at(v, [&](std::int64_t k) { return problem.projection(group, pair % targets, k); });
    double square = 0.0;
    for (std::int64_t c = 0; c < problem.group_channels; ++c) {
      const double f = at(v, [&](std::int64_t k) { return problem.value(group, c, k); });
      square += f * f;
    }
    double expected = boundary.defined && projection > boundary.threshold;
    if (sink != Sink::map)
      expected = boundary.defined ? probability_of(margin(projection, square, metric, boundary))
                                  : static_cast<double>(NAN);
    expect_near(static_cast<double>(found[i]), static_cast<double>(static_cast<Out>(expected)),
                sink == Sink::map ? 0.0 : 1e-7);
  }
  Out untouched;
  std::memset(&untouched, 0x7f, sizeof(untouched));
  SIMT_EXPECT(found.front() == untouched && found.back() == untouched);
}

}  // namespace

// Every threshold is the projection of one of the voxels, which is background.
SIMT_SCENARIO(ties) {
  constexpr std::int64_t voxels = 1030, targets = 2;
  ProjectProblem<float> problem(5, line_of(voxels), targets, Layout::rows, 0);
  for (std::int64_t i = 0; i < images * groups * targets; ++i)
    problem.boundary[i] = {problem.projection(i / targets, i % targets, 37 * i + 5), 2.0, true};
  const simt::DeviceArray<Boundary> boundaries(problem.boundary, "boundaries");
  const simt::DeviceArray<std::uint8_t> map(images * groups * targets * voxels, "map");
  const Results results(images * groups * targets, problem.bits, groups, targets);
  for (const Sink sink : {Sink::map, Sink::counts}) {
    ProjectParams p = problem.params(0, images * groups, sink, map.data());
    p.boundary = boundaries.data();
    p.out = results.out;
    problem.run(p);
  }
  const auto foreground = [&](std::int64_t group, std::int64_t target, std::int64_t v) {
    return problem.projection(group, target, v) >
           problem.boundary[group * targets + target].threshold;
  };
  results.expect_counts(voxels, foreground);
  const auto found = map.download();
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::int64_t pair = static_cast<std::int64_t>(i) / voxels;
    SIMT_EXPECT_EQUAL(found[i] != 0, foreground(pair / targets, pair % targets, i % voxels));
  }
}
SIMT_SCENARIO(counts_of_floats) { counts<float>(9, 2048 + 7, 3, Layout::rows, 0); }
SIMT_SCENARIO(counts_of_rows) {
  counts<Half>(5, 1030, 1, Layout::rows, 0);
  counts<double>(5, 517, 2, Layout::rows, 0);
}
SIMT_SCENARIO(counts_of_misaligned_rows) {
  counts<float>(3, 1027, 1, Layout::rows, 1);
  counts<Half>(3, 1027, 1, Layout::rows, 3);
}
SIMT_SCENARIO(counts_of_channels_last) {
  counts<float>(21, 1024 + 5, 3, Layout::channels_last, 0);
  counts<Half>(17, 300, 1, Layout::channels_last, 1);
}
SIMT_SCENARIO(rows_are_read_once) {
  counts<float>(8, 4096, 2, Layout::rows, 0);
  SIMT_EXPECT(features_read().passes() < 1.01 && features_read().efficiency() > 0.95);
}
SIMT_SCENARIO(channels_last_are_read_once) {
  counts<float>(16, 2048, 2, Layout::channels_last, 0);
  SIMT_EXPECT(features_read().passes() < 1.01 && features_read().efficiency() > 0.95);
  SIMT_EXPECT_EQUAL(simt::total().bank_conflicts(), 0u);
}
SIMT_SCENARIO(a_map) {
  maps<float, std::uint8_t>(Sink::map, Metric::euclidean, Layout::rows, 1024 + 9, 3);
  maps<float, std::uint8_t>(Sink::map, Metric::cosine, Layout::channels_last, 512, 1);
}
SIMT_SCENARIO(probabilities) {
  maps<float, float>(Sink::probability, Metric::euclidean, Layout::rows, 1024 + 9, 3);
  maps<double, double>(Sink::wide_probability, Metric::euclidean, Layout::rows, 515, 1);
}
SIMT_SCENARIO(probabilities_of_cosine) {
  maps<float, float>(Sink::probability, Metric::cosine, Layout::rows, 1024 + 9, 3);
  maps<Half, float>(Sink::probability, Metric::cosine, Layout::channels_last, 130, 2);
}
SIMT_SCENARIO(a_resized_map) { resized<std::uint8_t>(Sink::map, Metric::euclidean); }
SIMT_SCENARIO(resized_probabilities) {
  resized<float>(Sink::probability, Metric::euclidean);
  resized<double>(Sink::wide_probability, Metric::euclidean);
}
SIMT_SCENARIO(resized_probabilities_of_cosine) {
  resized<float>(Sink::probability, Metric::cosine);
  resized<float>(Sink::probability, Metric::cosine, Layout::channels_last);
}
