// The small kernels of the backward pass, each on its own: what is kept of the forward pass, maps
// of what comes down, constants, and the gradients of pred and mask.
#include "direct.hpp"
#include "gradient_guide.cuh"
#include "guide_cells.cuh"
#include "tape.cuh"
#include "taps.hpp"

using namespace direct;

namespace {

// What comes down to maps [groups, targets, voxels].
struct Down {
  Down(std::int64_t groups, std::int64_t targets_in, std::int64_t voxels_in, Metric metric_in)
      : targets(targets_in),
        voxels(voxels_in),
        metric(metric_in),
        h(normals<float>(groups * targets * voxels)),
        m(normals<float>(groups * targets * voxels)),
        s(normals<float>(groups * voxels)),
        grad(h, "grad"),
        margin(m, "margin"),
        square(positive(), "square") {
    upstream.grad = grad.data();
    upstream.margin = margin.data();
    upstream.square = square.data();
    upstream.voxels = voxels;
    upstream.targets = targets;
    upstream.metric = metric;
    upstream.temperature = 3.0;
  }
  VoxelGradient at(std::int64_t group, std::int64_t target, std::int64_t v) const {
    const std::int64_t i = (group * targets + target) * voxels + v;
    return voxel_gradient(h[i], m[i], s[group * voxels + v], metric, 3.0);
  }

  std::int64_t targets, voxels;
  Metric metric;
  std::vector<float> h, m, s;
  simt::DeviceArray<float> grad, margin, square;
  Upstream<float> upstream;

 private:
  std::vector<float>& positive() {
    for (float& x : s) x = 0.5f + x * x;
    return s;
  }
};

// found [groups from `first` on, pitch]: sums over targets, zero beyond the voxels.
void expect_shrink(const Down& down, std::int64_t first, std::int64_t pitch,
                   const std::vector<float>& found) {
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(found.size()); ++i) {
    double sum = 0.0, size = 0.0;
    for (std::int64_t target = 0; target < down.targets && i % pitch < down.voxels; ++target) {
      const double part = down.at(first + i / pitch, target, i % pitch).shrink;
      sum += part;
      size += std::fabs(part);
    }
    expect_near(found[i], sum, 1e-6 * size);
  }
}

// Groups [1, 3) of three.
void along(Metric metric, bool resized) {
  constexpr std::int64_t all = 3, first = 1, count = 2, targets = 3;
  constexpr std::int64_t voxels = totals_voxels + 77, pitch = totals_voxels + 80, segments = 2;
  const std::int64_t rows = along_rows(targets);
  const Down down(all, targets, voxels, metric);
  const std::vector<double> given = normals<double>(count * targets * voxels);
  const simt::DeviceArray<double> adjoint(given, "adjoint");
  const simt::DeviceArray<float> map(count * rows * pitch, "along"),
      shrink(count * pitch, "shrink");
  const simt::DeviceArray<double> partial(count * targets * segments, "partial");
  AlongParams<float> p{};
  p.upstream = down.upstream;
  p.adjoint = resized ? adjoint.data() : nullptr;
  p.first_group = first;
  p.groups = count;
  p.targets = targets;
  p.voxels = voxels;
  p.pitch = pitch;
  p.segments = segments;
  p.along = map.data();
  p.shrink = resized ? nullptr : shrink.data();
  p.partial = partial.data();
  start(along_kernel<float>, 3, p);
  const auto found = map.download();
  const auto found_partial = partial.download();
  for (std::int64_t group = 0; group < count; ++group)
    for (std::int64_t target = 0; target < rows; ++target) {
      double sum[segments] = {};
      for (std::int64_t v = 0; v < pitch; ++v) {
        double expected = 0.0;
        if (v < voxels && target < targets)
          expected = resized ? given[(group * targets + target) * voxels + v]
                             : down.at(first + group, target, v).along;
        const float map_found = found[(group * rows + target) * pitch + v];
        expect_near(map_found, expected, 1e-6 * std::fabs(expected));
        sum[v / totals_voxels] += map_found;
      }
      for (std::int64_t s = 0; s < segments && target < targets; ++s)
        expect_near(found_partial[(group * targets + target) * segments + s], sum[s], 1e-9);
    }
  if (!resized) expect_shrink(down, first, pitch, shrink.download());
}

// Projections of features of a line of another size or of the same, and what they are combined
// with.
struct GuideProblem {
  static constexpr std::int64_t images = 2, targets = 3, voxels = 307;

  GuideProblem(std::int64_t feature_voxels_in, std::int64_t sides_in)
      : feature_voxels(feature_voxels_in),
        sides(sides_in),
        one(1, 1),
        line(feature_voxels, voxels),
        pred(images, targets, line_of(voxels), Layout::channels_last,
             normals<float>(images * targets * voxels, 0.2, 0.5)),
        mask(images, 1, line_of(voxels), Layout::rows, normals<float>(images * voxels, 0.1, 1.0)),
        map(normals<double>(images * targets * sides * feature_voxels)),
        taken(normals<double>(images * targets * sides)),
        projection(map, "projection"),
        constant(taken, "constant") {
    p.guiding = {pred.tensor, mask.tensor, true, false, 0.0, targets};
    p.projection = projection.data();
    p.constant = constant.data();
    p.images = images;
    p.feature_voxels = feature_voxels;
    p.voxels = voxels;
    p.sides = static_cast<int>(sides);
    p.resized = feature_voxels != voxels;
    p.cells.from = line_of(feature_voxels);
    p.cells.to = line_of(voxels);
    p.cells.z = p.cells.y = one.taps();
    p.cells.x = line.taps();
    p.pred = pred.tensor;  // the gradients have the strides of their namesakes
    p.mask = mask.tensor;
  }
  // q+ and q- of a voxel of a plane
  Sides at(std::int64_t plane, std::int64_t v) const {
    const Tap& tap = line.tap[v];
    Sides q = {{0.0, 0.0}};
    for (std::int64_t side = 0; side < sides; ++side) {
      const double* row = &map[(plane * sides + side) * feature_voxels];
      const double value = p.resized ? lerp(row[tap.lower], row[tap.upper], tap.weight) : row[v];
      q.value[side] = value - taken[plane * sides + side];
    }
    return q;
  }

  std::int64_t feature_voxels, sides;
  DeviceTaps one, line;
  Features<float> pred, mask;
  std::vector<double> map, taken;
  simt::DeviceArray<double> projection, constant;
  GuideGradientParams p{};
};

// Gradients of pred as E and of mask as double, or of pred alone.
template <class E>
void guide_gradients(std::int64_t feature_voxels, bool with_mask) {
  GuideProblem problem(feature_voxels, with_mask ? 2 : 1);
  constexpr std::int64_t targets = GuideProblem::targets, voxels = GuideProblem::voxels;
  constexpr std::int64_t all = GuideProblem::images * voxels;
  const simt::DeviceArray<E> of_pred(all * targets, "pred gradient");
  const simt::DeviceArray<double> of_mask(all, "mask gradient");
  GuideGradientParams& p = problem.p;
  p.pred.data = of_pred.data();
  p.pred.dtype = dtype_of<E>();
  p.mask.data = with_mask ? of_mask.data() : nullptr;
  p.mask.dtype = DType::float64;
  start(guide_gradient_kernel<>, 2, p);
  const auto found = of_pred.download();
  const auto found_mask = with_mask ? of_mask.download() : std::vector<double>(all, 0.0);
  for (std::int64_t i = 0; i < all; ++i) {
    double expected_mask = 0.0;
    for (std::int64_t target = 0; target < targets; ++target) {
      const std::int64_t plane = i / voxels * targets + target;
      const Sides q = problem.at(plane, i % voxels);
      const double of = problem.pred.value[plane * voxels + i % voxels];
      expected_mask += of * q.value[0] + (1.0 - of) * q.value[1];
      const double expected = problem.mask.value[i] * (q.value[0] - q.value[1]);
      const double rounding = std::is_same_v<E, float> ? 1e-6 : 1e-2;
      expect_near(widen(found[i * targets + target]), expected,
                  rounding * (1e-3 + std::fabs(expected)));
    }
    if (with_mask) expect_near(found_mask[i], expected_mask, 1e-12);
  }
}

}  // namespace

// Groups [2, 7) of three images, of three groups each.
SIMT_SCENARIO(tape_of_a_chunk) {
  constexpr std::int64_t images = 3, groups = 3, group_channels = 60, targets = 2;
  constexpr std::int64_t first = 2, count = 5, channels = groups * group_channels;
  std::vector<ChannelPrototypes> values;
  for (std::int64_t i = 0; i < count * targets * group_channels; ++i)
    values.push_back({normal(), normal(), normal()});
  const simt::DeviceArray<ChannelPrototypes> prototypes(values, "prototypes");
  const simt::DeviceArray<double> out(
      std::vector<double>(images * targets * channels * 2, HUGE_VAL), "tape");
  TapeParams p{};
  p.prototypes = prototypes.data();
  p.first_group = first;
  p.count = count;
  p.groups = groups;
  p.group_channels = group_channels;
  p.targets = targets;
  p.out = out.data();
  start(tape_kernel<>, 2, p);
  std::vector<double> expected(images * targets * channels * 2, HUGE_VAL);
  for (std::int64_t i = 0; i < count * targets * group_channels; ++i) {
    const std::int64_t group = first + i / group_channels / targets;
    const std::int64_t plane = group / groups * targets + i / group_channels % targets;
    double* at =
        &expected[(plane * channels + group % groups * group_channels + i % group_channels) * 2];
    at[0] = values[i].positive;
    at[1] = values[i].negative;
  }
  const auto found = out.download();
  for (std::size_t i = 0; i < found.size(); ++i) SIMT_EXPECT_EQUAL(found[i], expected[i]);
}

SIMT_SCENARIO(constants_of_many_rows) {
  constexpr std::int64_t images = 3, groups = 5, rows = 200;
  const std::vector<double> values = normals<double>(images * groups * rows);
  const simt::DeviceArray<double> part(values, "part"), constant(images * rows, "constant");
  ConstantsParams p{};
  p.part = part.data();
  p.images = images;
  p.groups = groups;
  p.rows = rows;
  p.constant = constant.data();
  start(constants_kernel<>, 2, p);
  const auto found = constant.download();
  for (std::int64_t i = 0; i < images * rows; ++i) {
    double sum = 0.0;
    for (std::int64_t group = 0; group < groups; ++group)
      sum += values[(i / rows * groups + group) * rows + i % rows];
    SIMT_EXPECT_EQUAL(found[i], sum);
  }
}

// Groups [1, 3) of three, along x.
SIMT_SCENARIO(what_comes_down_along_x) {
  constexpr std::int64_t first = 1, rows = 4, targets = 2, n_in = 37, n_out = 50;
  constexpr std::int64_t slices = 2, lines = 3 * slices;
  const DeviceTaps x(n_in, n_out);
  const Down down(3, targets, lines * n_out, Metric::cosine);
  const simt::DeviceArray<double> out(rows * lines * n_in, "out");
  UpstreamRowsParams<float> p{};
  p.upstream = down.upstream;
  p.cells.x = x.taps();
  p.cells.from.x = n_in;
  p.cells.to.z = slices;
  p.cells.to.y = lines / slices;
  p.cells.to.x = n_out;
  p.first_group = first;
  p.rows = rows;
  p.out = out.data();
  start(upstream_rows_kernel<float>, 2, p);
  std::vector<double> expected(rows * lines * n_in, 0.0);
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t v = 0; v < lines * n_out; ++v) {
      const double value = down.at(first + row / targets, row % targets, v).along;
      const Tap& tap = x.tap[v % n_out];
      double* line = &expected[(row * lines + v / n_out) * n_in];
      line[tap.lower] += (1.0 - tap.weight) * value;
      line[tap.upper] += tap.weight * value;
    }
  const auto found = out.download();
  for (std::size_t i = 0; i < found.size(); ++i) expect_near(found[i], expected[i], 1e-12);
}

SIMT_SCENARIO(maps_of_what_comes_down) { along(Metric::cosine, false); }
SIMT_SCENARIO(maps_of_an_adjoint) { along(Metric::euclidean, true); }
SIMT_SCENARIO(of_pred_and_mask) { guide_gradients<float>(307, true); }
SIMT_SCENARIO(of_pred_alone) { guide_gradients<Half>(307, false); }
SIMT_SCENARIO(of_pred_and_mask_resized) { guide_gradients<float>(37, true); }
