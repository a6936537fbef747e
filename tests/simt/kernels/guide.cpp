// A guide: bits, counts, ranges and weights of pred, target and mask, and the adjoint of resizing.
#include <optional>

#include "direct.hpp"
#include "guide_cells.cuh"
#include "guide_weights.cuh"

using namespace direct;

namespace {

constexpr std::int64_t images = 2, targets = 2;

// pred, target and mask of images of one line of voxels, channels-last to have strides.
struct Arrays {
  explicit Arrays(std::int64_t voxels_in, bool masked_in)
      : voxels(voxels_in),
        masked(masked_in),
        pred(images, targets, line_of(voxels), Layout::channels_last, probabilities()),
        target(images, targets, line_of(voxels), Layout::rows, binary()),
        mask(images, 1, line_of(voxels), Layout::rows, weights()) {}

  double m(std::int64_t image, std::int64_t v) const {
    return masked ? mask.value[image * voxels + v] : 1.0;
  }
  double p(std::int64_t plane, std::int64_t v) const { return pred.value[plane * voxels + v]; }
  Guiding guiding() const { return {pred.tensor, mask.tensor, masked, false, 0.0, targets}; }

  std::int64_t voxels;
  bool masked;
  Features<float> pred;
  Features<double> target;
  Features<float> mask;

 private:
  std::vector<float> probabilities() const {
    std::vector<float> values;
    for (std::int64_t i = 0; i < images * targets * voxels; ++i)
      values.push_back(0.75f * static_cast<float>(uniform()));
    for (std::size_t i = 0; i < values.size(); i += 13) values[i] = 0.5f;
    for (const std::size_t i : {45, 46, 47}) values[i] = 0.8125f;  // the highest, of three lanes
    return values;
  }
  std::vector<double> binary() const {
    std::vector<double> values;
    for (std::int64_t i = 0; i < images * targets * voxels; ++i) values.push_back(uniform() < 0.4);
    return values;
  }
  std::vector<float> weights() const {
    std::vector<float> values;
    for (std::int64_t i = 0; i < images * voxels; ++i)
      values.push_back(uniform() < 0.3 ? 0.0f : static_cast<float>(3 * uniform()));
    return values;
  }
};

struct Scan {
  explicit Scan(const Arrays& arrays, std::optional<double> binarize = {})
      : words(divide_up(arrays.voxels, 32)),
        valid(images * words, "valid"),
        target(images * targets * words, "target bits"),
        output(images * targets * words, "output bits"),
        voxel_count(std::vector<std::int64_t>(images, 0), "voxels"),
        target_count(std::vector<std::int64_t>(images * targets, 0), "in target"),
        output_count(std::vector<std::int64_t>(images * targets, 0), "in output"),
        largest(std::vector<unsigned long long>(images * targets * 2, 0), "largest"),
        findings(std::vector<Findings>(1, Findings{}), "findings") {
    ScanParams p{};
    p.pred = arrays.pred.tensor;
    p.target = arrays.target.tensor;
    p.mask = arrays.mask.tensor;
    p.has_target = true;
    p.has_mask = arrays.masked;
    p.binarized = binarize.has_value();
    p.binarize = binarize.value_or(0.0);
    p.images = images;
    p.targets = targets;
    p.words = words;
    p.piece_words = 5;
    p.valid = valid.data();
    p.actual[0] = target.data();
    p.actual[1] = output.data();
    p.voxel_count = voxel_count.data();
    p.actual_count[0] = target_count.data();
    p.actual_count[1] = output_count.data();
    p.largest = largest.data();
    p.findings = findings.data();
    start(scan_kernel<>, 2, p);
  }

  bool bit(const simt::DeviceArray<unsigned>& packed, std::int64_t plane, std::int64_t v) const {
    unsigned word;
    simt::download(&word, packed.data() + plane * words + v / 32, sizeof(word));
    return word >> (v % 32) & 1u;
  }
  bool accepted(const Limits& limits) const { return acceptable(findings.download()[0], limits); }

  std::int64_t words;
  simt::DeviceArray<unsigned> valid, target, output;
  simt::DeviceArray<std::int64_t> voxel_count, target_count, output_count;
  simt::DeviceArray<unsigned long long> largest;
  simt::DeviceArray<Findings> findings;
};

void scan(std::int64_t voxels, bool masked, std::optional<double> binarize = {}) {
  const Arrays arrays(voxels, masked);
  const Scan found(arrays, binarize);
  const auto voxel_count = found.voxel_count.download();
  const auto target_count = found.target_count.download();
  const auto output_count = found.output_count.download();
  const auto largest = found.largest.download();
  double lowest = 2.0, highest = -1.0;
  for (std::int64_t plane = 0; plane < images * targets; ++plane) {
    const std::int64_t image = plane / targets;
    std::int64_t valid = 0, target = 0, output = 0;
    double most[2] = {};
    for (std::int64_t v = 0; v < voxels; ++v) {
      const double m = arrays.m(image, v), p = arrays.p(plane, v);
      const bool is_target = arrays.target.value[plane * voxels + v] > 0.5;
      SIMT_EXPECT_EQUAL(found.bit(found.valid, image, v), m > 0);
      SIMT_EXPECT_EQUAL(found.bit(found.target, plane, v), m > 0 && is_target);
      SIMT_EXPECT_EQUAL(found.bit(found.output, plane, v), m > 0 && p > 0.5);
      valid += m > 0;
      target += m > 0 && is_target;
      output += m > 0 && p > 0.5;
      const double guiding = binarize ? (p > *binarize ? 1.0 : 0.0) : p;
      most[0] = std::fmax(most[0], m * guiding);
      most[1] = std::fmax(most[1], m * (1.0 - guiding));
      lowest = std::fmin(lowest, p);
      highest = std::fmax(highest, p);
    }
    for (std::int64_t v = voxels; v < found.words * 32; ++v)
      SIMT_EXPECT_EQUAL(found.bit(found.valid, image, v), false);
    SIMT_EXPECT_EQUAL(voxel_count[image], valid);
    SIMT_EXPECT_EQUAL(target_count[plane], target);
    SIMT_EXPECT_EQUAL(output_count[plane], output);
    for (int side = 0; side < 2; ++side)
      SIMT_EXPECT_EQUAL(from_ordered(largest[2 * plane + side]), most[side]);
  }
  const Findings findings = found.findings.download()[0];
  SIMT_EXPECT_EQUAL(-from_ordered(findings.pred_lowest), lowest);
  SIMT_EXPECT_EQUAL(from_ordered(findings.pred_highest), highest);
  SIMT_EXPECT(found.accepted({masked, 3.0}));
}

// Weights of the size of the pred, or of given ones.
template <class Sum>
void weights(std::int64_t voxels, double scale, bool adjoint) {
  const Arrays arrays(voxels, true);
  const Scan scanned(arrays);
  const std::int64_t rows = images * targets * 2, pitch = round_up(voxels, 8);
  std::vector<double> exact;
  std::vector<unsigned long long> keys;
  for (std::int64_t row = 0; row < rows; ++row) {
    double most = 0.0;
    for (std::int64_t v = 0; v < voxels; ++v) {
      const double p = arrays.p(row / 2, v), m = arrays.m(row / 2 / targets, v);
      const double given = scale * (v + 1 == voxels ? 2.0 + 0.125 * row : uniform());
      exact.push_back(adjoint ? given : m * (row % 2 == 0 ? p : 1.0 - p));
      most = std::fmax(most, exact.back());
    }
    keys.push_back(ordered(most));
  }
  const simt::DeviceArray<double> given(exact, "adjoint");
  const simt::DeviceArray<unsigned long long> largest(std::vector<unsigned long long>(rows, 0),
                                                      "largest");
  LargestParams l{};
  l.weight = given.data();
  l.rows = rows;
  l.voxels = voxels;
  l.segments = divide_up(voxels, totals_voxels);
  l.largest = largest.data();
  start(largest_kernel<>, 3, l);
  for (std::int64_t row = 0; row < rows; ++row)
    SIMT_EXPECT_EQUAL(largest.download()[row], keys[row]);
  WeightsParams<Sum> p{};
  p.guiding = arrays.guiding();
  p.adjoint = adjoint ? given.data() : nullptr;
  p.planes = images * targets;
  p.voxels = voxels;
  p.segments = divide_up(pitch, totals_voxels);
  p.largest = largest.data();
  p.most_exponent = 1023;
  const simt::DeviceArray<Sum> out(rows * pitch, "weights");
  const simt::DeviceArray<double> scales(rows, "scale"), partial(rows * p.segments, "partial"),
      total(rows, "totals");
  p.out = out.data();
  p.pitch = pitch;
  p.scale = scales.data();
  p.partial = partial.data();
  start(weights_kernel<Sum>, 3, p);
  TotalsParams t{};
  t.partial = partial.data();
  t.rows = rows;
  t.segments = p.segments;
  t.total = total.data();
  t.findings = scanned.findings.data();
  t.limits = {true, 3.0};
  start(totals_kernel<>, 1, t);
  const auto found = out.download();
  const auto found_scale = scales.download(), found_total = total.download();
  for (std::int64_t row = 0; row < rows; ++row) {
    const double expected_scale = normalising_scale(from_ordered(keys[row]));
    SIMT_EXPECT_EQUAL(found_scale[row], expected_scale);
    double sum = 0.0;
    for (std::int64_t v = 0; v < pitch; ++v) {
      const double w = v < voxels ? expected_scale * exact[row * voxels + v] : 0.0;
      SIMT_EXPECT_EQUAL(found[row * pitch + v], static_cast<Sum>(w));
      sum += static_cast<double>(static_cast<Sum>(w));
    }
    expect_near(found_total[row] / sum, 1.0, 1e-13);
  }
  // An invalid guide has no totals.
  t.limits = {true, 1.0};
  start(totals_kernel<>, 1, t);
  for (const double none : total.download()) SIMT_EXPECT(std::isnan(none));
}

// The adjoint along one axis, against every tap of every output.
void adjoint_axis(std::int64_t n_in, std::int64_t n_out, bool align_corners) {
  constexpr std::int64_t outer = 3, inner = 5;
  std::vector<Tap> tap;
  std::vector<int> lower, upper, begin(n_in + 1, 0);
  std::vector<double> exact;
  for (std::int64_t o = 0; o < n_out; ++o) {
    tap.push_back(resize_tap(o, n_in, n_out, Interpolation::linear, align_corners));
    lower.push_back(static_cast<int>(tap[o].lower));
    upper.push_back(static_cast<int>(tap[o].upper));
    exact.push_back(tap[o].weight);
    for (std::int64_t k = tap[o].lower + 1; k <= n_in; ++k) begin[k] = static_cast<int>(o + 1);
  }
  const simt::DeviceArray<int> l(lower, "lower"), u(upper, "upper"), b(begin, "begin");
  const simt::DeviceArray<double> e(exact, "exact");
  const std::vector<double> values = normals<double>(outer * n_out * inner);
  const simt::DeviceArray<double> in(values, "in"), out(outer * n_in * inner, "out");
  AdjointAxisParams p{};
  p.axis = {l.data(), u.data(), nullptr, e.data(), b.data()};
  p.outer = outer;
  p.n_out = n_out;
  p.n_in = n_in;
  p.inner = inner;
  p.in = in.data();
  p.out = out.data();
  start(adjoint_axis_kernel<>, 2, p);
  std::vector<double> expected(outer * n_in * inner, 0.0);
  for (std::int64_t i = 0; i < outer; ++i)
    for (std::int64_t o = 0; o < n_out; ++o)
      for (std::int64_t j = 0; j < inner; ++j) {
        const double w = values[(i * n_out + o) * inner + j];
        expected[(i * n_in + tap[o].lower) * inner + j] += (1.0 - tap[o].weight) * w;
        expected[(i * n_in + tap[o].upper) * inner + j] += tap[o].weight * w;
      }
  const auto found = out.download();
  for (std::size_t i = 0; i < found.size(); ++i) expect_near(found[i], expected[i], 1e-12);
}

}  // namespace

// More rows than threads, of three segments each.
SIMT_SCENARIO(totals_of_many_rows) {
  constexpr std::int64_t rows = 2 * threads + 7, segments = 3;
  const std::vector<double> values = normals<double>(rows * segments);
  const simt::DeviceArray<double> partial(values, "partial"), total(rows, "totals");
  const simt::DeviceArray<Findings> findings(std::vector<Findings>(1, Findings{}), "findings");
  TotalsParams p{};
  p.partial = partial.data();
  p.rows = rows;
  p.segments = segments;
  p.total = total.data();
  p.findings = findings.data();
  start(totals_kernel<>, 2, p);
  const auto found = total.download();
  for (std::int64_t row = 0; row < rows; ++row) {
    const double* part = &values[row * segments];
    SIMT_EXPECT_EQUAL(found[row], part[0] + part[1] + part[2]);
  }
}

// Along x, from pred and mask, of planes [1, 3); more elements than threads.
SIMT_SCENARIO(adjoint_of_rows) {
  constexpr std::int64_t n_out = 50, n_in = 37, slices = 2, lines = 2 * slices;
  const Arrays arrays(lines * n_out, true);
  const simt::DeviceArray<int> lower(n_out, "lower"), upper(n_out, "upper"),
      begin(n_in + 1, "begin");
  const simt::DeviceArray<float> weight(n_out, "weight");
  const simt::DeviceArray<double> exact(n_out, "exact");
  TapsParams t{};
  t.n_in = n_in;
  t.n_out = n_out;
  t.lower = lower.data();
  t.upper = upper.data();
  t.weight = weight.data();
  t.exact = exact.data();
  t.begin = begin.data();
  start(taps_kernel<>, 1, t);
  const simt::DeviceArray<double> out(2 * 2 * lines * n_in, "out");
  AdjointRowsParams p{};
  p.guiding = arrays.guiding();
  p.cells.x = {lower.data(), upper.data(), weight.data(), exact.data(), begin.data()};
  p.cells.from.x = n_in;
  p.cells.to.z = slices;
  p.cells.to.y = lines / slices;
  p.cells.to.x = n_out;
  p.first_plane = 1;
  p.planes = 2;
  p.out = out.data();
  start(adjoint_rows_kernel<>, 2, p);
  const auto found = out.download();
  std::vector<double> expected(found.size(), 0.0);
  for (std::int64_t row = 0; row < 4; ++row)
    for (std::int64_t v = 0; v < lines * n_out; ++v) {
      const std::int64_t plane = 1 + row / 2;
      const double pred = arrays.p(plane, v), m = arrays.m(plane / targets, v);
      const double w = m * (row % 2 == 0 ? pred : 1.0 - pred);
      const Tap tap = resize_tap(v % n_out, n_in, n_out, Interpolation::linear, false);
      const std::int64_t at = (row * lines + v / n_out) * n_in;
      expected[at + tap.lower] += (1.0 - tap.weight) * w;
      expected[at + tap.upper] += tap.weight * w;
    }
  for (std::size_t i = 0; i < found.size(); ++i) expect_near(found[i], expected[i], 1e-12);
}

SIMT_SCENARIO(first_look) { scan(32 * 11 + 5, true); }
SIMT_SCENARIO(first_look_binarized) { scan(32 * 11 + 5, true, 0.5); }
// Nothing is above the threshold, but some voxels are on it.
SIMT_SCENARIO(first_look_binarized_at_the_highest) { scan(90, true, 0.8125); }
SIMT_SCENARIO(first_look_without_mask) { scan(77, false); }
SIMT_SCENARIO(values_that_are_not_acceptable) {
  const auto accepted = [](auto change) {
    Arrays arrays(200, true);
    change(arrays);
    return Scan(arrays).accepted({true, 3.0});
  };
  const auto at = [](const auto& array, std::int64_t i, double x) {
    using T = std::decay_t<decltype(array.value[0])>;
    const T value = static_cast<T>(x);
    simt::upload(array.memory.data() + i, &value, sizeof(value));
  };
  SIMT_EXPECT(accepted([&](Arrays&) {}));
  for (const double bad : {-0.01, 1.01, static_cast<double>(NAN), -HUGE_VAL})
    SIMT_EXPECT(!accepted([&](Arrays& a) { at(a.pred, 333, bad); }));
  for (const double bad : {0.5, 2.0, static_cast<double>(NAN)})
    SIMT_EXPECT(!accepted([&](Arrays& a) { at(a.target, 605, bad); }));
  for (const double bad : {-1.0, 3.5, static_cast<double>(NAN)})
    SIMT_EXPECT(!accepted([&](Arrays& a) { at(a.mask, 399, bad); }));
  for (const double good : {0.0, -0.0, 1.0})
    SIMT_EXPECT(accepted([&](Arrays& a) { at(a.pred, 333, good); }));
}
SIMT_SCENARIO(weights_of_the_pred) {
  weights<float>(8192 + 77, 1.0, false);
  weights<double>(333, 1.0, false);
}
SIMT_SCENARIO(weights_of_any_magnitude) {
  weights<float>(333, 1e-60, true);
  weights<float>(333, 1e60, true);
  weights<double>(8192 + 1, 1e-300, true);
}
SIMT_SCENARIO(adjoint_of_an_axis) {
  for (const bool align_corners : {false, true}) {
    adjoint_axis(7, 50, align_corners);
    adjoint_axis(50, 7, align_corners);
    adjoint_axis(6, 6, align_corners);
    adjoint_axis(1, 9, align_corners);
    adjoint_axis(9, 1, align_corners);
  }
}
