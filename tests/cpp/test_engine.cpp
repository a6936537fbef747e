// The library `protoseg` as a plain C++ program meets it: only the public headers, no Python. Run
// by ctest, also under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "protoseg/engine.hpp"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

// ---- allocations that fail on demand -------------------------------------------------------

namespace {

std::atomic<std::int64_t> live_allocations{0};
std::atomic<std::int64_t> until_failure{-1};  // large allocations left; negative: never fail
// Buffers of the engine, not the small change of threads and exceptions.
constexpr std::size_t large = 512;

void* allocate(std::size_t bytes) {
  if (bytes >= large && until_failure >= 0 && until_failure-- == 0) throw std::bad_alloc();
  void* memory = std::malloc(std::max<std::size_t>(bytes, 1));
  if (memory == nullptr) throw std::bad_alloc();
  ++live_allocations;
  return memory;
}
void release(void* memory) noexcept {
  if (memory != nullptr) --live_allocations;
  std::free(memory);
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { release(memory); }

namespace {

using namespace protoseg;

// ---- checks --------------------------------------------------------------------------------

std::atomic<int> failures{0};

#define CHECK(condition)                                                          \
  do {                                                                            \
    if (!(condition)) {                                                           \
      std::fprintf(stderr, "%s:%d: CHECK(%s)\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                                 \
    }                                                                             \
  } while (false)

bool near(double a, double b, double tolerance) {
  return std::fabs(a - b) <= tolerance || (std::isnan(a) && std::isnan(b));
}

// ---- arrays --------------------------------------------------------------------------------

using Shape = std::vector<std::int64_t>;

std::int64_t product(const Shape& shape, std::size_t from = 0) {
  std::int64_t result = 1;
  for (std::size_t i = from; i < shape.size(); ++i) result *= shape[i];
  return result;
}

TensorView view_of(const void* data, DType dtype, const Shape& shape) {
  return contiguous_view(data, dtype, static_cast<int>(shape.size()), shape.data());
}

template <class T>
struct Array {
  Shape shape;
  std::vector<T> data;
  TensorView view(DType dtype) const { return view_of(data.data(), dtype, shape); }
};

TensorView view_of(const Array<float>& a) { return a.view(DType::float32); }
TensorView view_of(const Array<double>& a) { return a.view(DType::float64); }
TensorView view_of(const Array<std::uint8_t>& a) { return a.view(DType::boolean); }

template <class T>
Array<T> make(const Shape& shape, const std::function<double(std::mt19937&)>& value,
              unsigned seed) {
  std::mt19937 random(seed);
  Array<T> array{shape, {}};
  for (std::int64_t i = 0; i < product(shape); ++i)
    array.data.push_back(static_cast<T>(value(random)));
  return array;
}

double uniform(std::mt19937& random) { return (random() >> 5) / double{1 << 27}; }
double spread(std::mt19937& random) { return 4.0 * uniform(random) - 2.0; }
double rare(std::mt19937& random) { return uniform(random) < 0.3; }

// ---- everything the engine computes of one problem -----------------------------------------

struct Results {
  std::vector<Counts> counts;
  std::vector<double> positive, negative, positive_weight, negative_weight;
  std::vector<std::uint8_t> map;
  std::vector<float> probability;
};

Results compute(const Guide& guide, const TensorView& features, const Options& options) {
  const std::int64_t planes = guide.images() * guide.targets();
  const std::int64_t maps = planes * options.groups, voxels = product(guide.size());
  Results r;
  r.counts.resize(maps);
  r.positive.resize(planes * features.shape[1]);
  r.negative.resize(r.positive.size());
  r.positive_weight.resize(planes);
  r.negative_weight.resize(planes);
  r.map.resize(maps * voxels);
  r.probability.resize(maps * voxels);
  sa_counts(guide, features, options, r.counts.data());
  prototypes(
      guide, features, options,
      {r.positive.data(), r.negative.data(), r.positive_weight.data(), r.negative_weight.data()});
  segment(guide, features, options, r.map.data());
  probability(guide, features, options, r.probability.data());
  return r;
}

template <class T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

bool same_counts(const Counts& a, const Counts& b) {
  return a.tp == b.tp && a.predicted == b.predicted && a.actual == b.actual &&
         a.voxels == b.voxels && a.defined == b.defined;
}

bool same_bits(const Results& a, const Results& b) {
  return std::equal(a.counts.begin(), a.counts.end(), b.counts.begin(), b.counts.end(),
                    same_counts) &&
         same_bytes(a.positive, b.positive) && same_bytes(a.negative, b.negative) &&
         same_bytes(a.positive_weight, b.positive_weight) &&
         same_bytes(a.negative_weight, b.negative_weight) && same_bytes(a.map, b.map) &&
         same_bytes(a.probability, b.probability);
}

// ---- the specification, in direct loops ----------------------------------------------------

double coordinate(std::int64_t output, std::int64_t n_in, std::int64_t n_out,
                  const Options& options) {
  if (n_in == n_out) return static_cast<double>(output);
  if (options.interpolation == Interpolation::nearest)
    return static_cast<double>(output * n_in / n_out);
  if (options.align_corners) return n_out == 1 ? 0.0 : output * (n_in - 1.0) / (n_out - 1.0);
  return std::max(0.0, (output + 0.5) * n_in / n_out - 0.5);
}

// f [from] resized to [to], both with three axes.
std::vector<double> resized(const double* f, const Shape& from, const Shape& to,
                            const Options& options) {
  std::vector<double> result;
  for (std::int64_t i = 0; i < to[0]; ++i)
    for (std::int64_t j = 0; j < to[1]; ++j)
      for (std::int64_t k = 0; k < to[2]; ++k) {
        const std::int64_t at[3] = {i, j, k};
        double value = 0.0;
        for (int corner = 0; corner < 8; ++corner) {
          double weight = 1.0;
          std::int64_t index = 0;
          for (int axis = 0; axis < 3; ++axis) {
            const double x = coordinate(at[axis], from[axis], to[axis], options);
            const auto lower = static_cast<std::int64_t>(x);
            const bool upper = (corner >> axis & 1) != 0;
            weight *= upper ? x - lower : 1.0 - (x - lower);
            index = index * from[axis] + std::min(lower + upper, from[axis] - 1);
          }
          value += weight * f[index];
        }
        result.push_back(value);
      }
  return result;
}

Shape three_axes(const Shape& shape) {
  Shape size(shape.begin() + 2, shape.end());
  while (size.size() < 3) size.insert(size.begin(), 1);
  return size;
}

// Compares everything with direct sums over resized features. Voxels whose margin is within
// rounding of zero may fall on either side.
void check_against_loops(const Array<float>& features, const Array<float>& pred,
                         const Array<std::uint8_t>& target, const Array<float>* mask,
                         const Options& options) {
  const TensorView target_view = view_of(target);
  TensorView mask_view;
  if (mask != nullptr) mask_view = view_of(*mask);
  const Guide guide(view_of(pred), &target_view, mask != nullptr ? &mask_view : nullptr,
                    std::nullopt);
  const Results found = compute(guide, view_of(features), options);

  const Shape from = three_axes(features.shape), to = three_axes(pred.shape);
  const std::int64_t images = pred.shape[0], targets = pred.shape[1];
  const std::int64_t channels = features.shape[1], voxels = product(to);
  const std::int64_t group_channels = channels / options.groups;
  for (std::int64_t n = 0; n < images; ++n) {
    std::vector<std::vector<double>> f;
    for (std::int64_t c = 0; c < channels; ++c) {
      const float* plane = &features.data[(n * channels + c) * product(from)];
      const std::vector<double> exact(plane, plane + product(from));
      f.push_back(resized(exact.data(), from, to, options));
    }
    for (std::int64_t t = 0; t < targets; ++t) {
      const float* p = &pred.data[(n * targets + t) * voxels];
      const std::uint8_t* g = &target.data[(n * targets + t) * voxels];
      const float* m = mask != nullptr ? &mask->data[n * voxels] : nullptr;
      std::vector<double> a(channels), b(channels);
      for (std::int64_t c = 0; c < channels; ++c) {
        double sum[2] = {0.0, 0.0}, weight[2] = {0.0, 0.0};
        for (std::int64_t x = 0; x < voxels; ++x)
          for (int side = 0; side < 2; ++side) {
            const double probability = p[x];
            const double w =
                (m != nullptr ? m[x] : 1.0) * (side == 0 ? probability : 1.0 - probability);
            sum[side] += w * f[c][x];
            weight[side] += w;
          }
        a[c] = sum[0] / weight[0];
        b[c] = sum[1] / weight[1];
        const std::int64_t at = (n * targets + t) * channels + c;
        CHECK(near(found.positive[at], a[c], 2e-6));
        CHECK(near(found.negative[at], b[c], 2e-6));
        CHECK(near(found.positive_weight[n * targets + t], weight[0], 1e-4));
        CHECK(near(found.negative_weight[n * targets + t], weight[1], 1e-4));
      }
      for (std::int64_t group = 0; group < options.groups; ++group) {
        const std::int64_t map_at = (n * options.groups + group) * targets + t;
        std::int64_t tp = 0, predicted = 0, actual = 0, counted = 0, doubtful = 0;
        for (std::int64_t x = 0; x < voxels; ++x) {
          double fa = 0, fb = 0, ff = 0, aa = 0, bb = 0;
          for (std::int64_t c = group * group_channels; c < (group + 1) * group_channels; ++c) {
            fa += f[c][x] * a[c];
            fb += f[c][x] * b[c];
            ff += f[c][x] * f[c][x];
            aa += a[c] * a[c];
            bb += b[c] * b[c];
          }
          const double margin =
              options.metric == Metric::euclidean
                  ? 2 * (fa - fb) - (aa - bb)
                  : options.temperature * (fa / std::sqrt(aa) - fb / std::sqrt(bb)) / std::sqrt(ff);
          const bool foreground = margin > 0.0, close = std::fabs(margin) < 1e-4;
          const bool valid = m == nullptr || m[x] > 0.0f;
          CHECK(close || (found.map[map_at * voxels + x] != 0) == foreground);
          CHECK(near(found.probability[map_at * voxels + x], 1 / (1 + std::exp(-margin)), 2e-5));
          counted += valid;
          doubtful += valid && close;
          predicted += valid && foreground;
          tp += valid && foreground && g[x];
          actual += valid && g[x];
        }
        const Counts& counts = found.counts[map_at];
        CHECK(counts.defined);
        CHECK(counts.voxels == counted);
        CHECK(counts.actual == actual);
        CHECK(std::llabs(counts.predicted - predicted) <= doubtful);
        CHECK(std::llabs(counts.tp - tp) <= doubtful);
      }
    }
  }
}

// ---- tests ---------------------------------------------------------------------------------

// Two channels, two targets and a mask, worked out by hand.
struct Example {
  Array<float> features{{1, 2, 2, 3}, {4, 2, 1, 0, 2, 9, 1, 3, 2, 6, 4, -1}};
  Array<float> pred{{1, 2, 2, 3}, {1, 1, 0, 0, 0, 1, 0.5, 0.5, 0.5, 0, 0, 0.25}};
  Array<std::uint8_t> target{{1, 2, 2, 3}, {1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 1, 0}};
  Array<std::uint8_t> mask{{1, 1, 2, 3}, {1, 1, 1, 1, 1, 0}};
  TensorView target_view = view_of(target), mask_view = view_of(mask);
  Guide guide{view_of(pred), &target_view, &mask_view, std::nullopt};
};

void test_hand_computed_units() {
  const Example e;
  Options options;
  options.groups = 2;
  const Results r = compute(e.guide, view_of(e.features), options);
  // [T, C]: positive (3, 2) and (7/3, 2), negative (1, 4) and (11/7, 26/7)
  const double positive[4] = {3, 2, 7. / 3, 2}, negative[4] = {1, 4, 11. / 7, 26. / 7};
  for (int i = 0; i < 4; ++i) {
    CHECK(near(r.positive[i], positive[i], 1e-6));
    CHECK(near(r.negative[i], negative[i], 1e-6));
  }
  CHECK(r.positive_weight == (std::vector<double>{2, 1.5}));
  CHECK(r.negative_weight == (std::vector<double>{3, 3.5}));
  // [G, T] maps; the tie of channel 0 (f = 2, midpoint 2) is background, and the masked voxel has
  // a map although it does not count.
  CHECK(r.map == (std::vector<std::uint8_t>{1, 0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1,  //
                                            1, 0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1}));
  const Counts expected[4] = {{1, 1, 2, 5}, {2, 3, 3, 5}, {1, 2, 2, 5}, {2, 2, 3, 5}};
  const double dice[4] = {2. / 3, 4. / 6, 2. / 4, 4. / 5};
  for (int i = 0; i < 4; ++i) {
    CHECK(same_counts(r.counts[i], expected[i]));
    CHECK(score(r.counts[i], Score::dice, Empty::nan) == dice[i]);
  }
  // margin = 2 (a - b) (f - (a + b) / 2) = 4 (f - 2) of channel 0 and target 0
  CHECK(near(r.probability[0], 1 / (1 + std::exp(-8.)), 1e-6));
  CHECK(r.probability[1] == 0.5f);
  CHECK(near(r.probability[3], 1 / (1 + std::exp(8.)), 1e-6));
}

void test_hand_computed_layer() {
  const Example e;
  const Results r = compute(e.guide, view_of(e.features), Options{});
  // target 0: margin = 2 (2 f0 - 2 f1 + 2), zero at voxels 1 and 2
  CHECK(r.map == (std::vector<std::uint8_t>{1, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 1}));
  CHECK(same_counts(r.counts[0], {1, 1, 2, 5}));
  CHECK(same_counts(r.counts[1], {2, 2, 3, 5}));
  CHECK(near(r.probability[0], 1 / (1 + std::exp(-16.)), 1e-6));
  CHECK(r.probability[1] == 0.5f && r.probability[2] == 0.5f);
}

void test_options_of_the_guide() {
  const Example e;
  // Without a target: pred > 0.5, within the mask. Binarized: the tie at 0.5 is background.
  const Guide estimate(view_of(e.pred), nullptr, &e.mask_view, std::nullopt);
  Counts counts[2];
  sa_counts(estimate, view_of(e.features), Options{}, counts);
  CHECK(counts[0].actual == 2 && counts[1].actual == 0);
  const Guide binarized(view_of(e.pred), &e.target_view, nullptr, 0.5);
  const Results r = compute(binarized, view_of(e.features), Options{});
  CHECK(r.positive_weight == (std::vector<double>{3, 0}));
  CHECK(near(r.positive[0], 5, 1e-6) && std::isnan(r.positive[2]));
  CHECK(r.counts[0].defined && !r.counts[1].defined);
  CHECK(std::isnan(score(r.counts[1], Score::dice, Empty::zero)));
  CHECK(std::count(r.map.begin() + 6, r.map.end(), 0) == 6);
  CHECK(std::isnan(r.probability[6]));
}

void test_scores() {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Counts counts{3, 4, 8, 20};
  CHECK(score(counts, Score::dice, Empty::nan) == 0.5);
  CHECK(score(counts, Score::iou, Empty::nan) == 3. / 9);
  CHECK(score(counts, Score::precision, Empty::nan) == 0.75);
  CHECK(score(counts, Score::recall, Empty::nan) == 3. / 8);
  const Counts both{0, 0, 0, 20}, only_target{0, 5, 0, 20}, only_map{0, 0, 5, 20};
  const double table[4][3] = {{nan, 0, 0}, {nan, nan, 0}, {1, 0, 0}, {0, 0, 0}};
  for (const auto& [name, policy] : empty_names()) {
    const double* row = table[static_cast<int>(policy)];
    CHECK(near(score(both, Score::dice, policy), row[0], 0));
    CHECK(near(score(only_target, Score::dice, policy), row[1], 0));
    CHECK(near(score(only_map, Score::iou, policy), row[2], 0));
  }
}

void test_resizing_against_loops() {
  struct Case {
    Shape size, feature_size;
  };
  const Case cases[] = {{{37}, {37}},
                        {{50}, {13}},
                        {{9}, {31}},
                        {{20, 23}, {20, 23}},
                        {{21, 30}, {8, 11}},
                        {{7, 9}, {16, 5}},
                        {{9, 10, 11}, {4, 5, 3}},
                        {{4, 6, 5}, {9, 3, 7}}};
  unsigned seed = 0;
  for (const Case& shapes : cases)
    for (const int variant : {0, 1, 2})
      for (const std::int64_t groups : {1, 2, 6})
        for (const Metric metric : {Metric::euclidean, Metric::cosine}) {
          // cosine of one channel: sign(f) decides alone, and rounding decides the sign
          if (metric == Metric::cosine && groups == 6) continue;
          Options options;
          options.groups = groups;
          options.metric = metric;
          options.temperature = metric == Metric::cosine ? 3.0 : 1.0;
          options.align_corners = variant == 1;
          if (variant == 2) options.interpolation = Interpolation::nearest;
          const auto shape = [](std::int64_t n, std::int64_t channels, const Shape& size) {
            Shape whole{n, channels};
            whole.insert(whole.end(), size.begin(), size.end());
            return whole;
          };
          ++seed;
          const auto features = make<float>(shape(2, 6, shapes.feature_size), spread, seed);
          const auto pred = make<float>(shape(2, 2, shapes.size), uniform, seed + 1000);
          const auto target = make<std::uint8_t>(shape(2, 2, shapes.size), rare, seed + 2000);
          const auto mask = make<float>(
              shape(2, 1, shapes.size),
              [](std::mt19937& random) { return std::max(0.0, spread(random)); }, seed + 3000);
          check_against_loops(features, pred, target, seed % 2 ? &mask : nullptr, options);
        }
}

void expect_error(Error::Kind kind, const std::string& words, const std::function<void()>& call) {
  try {
    call();
    std::fprintf(stderr, "no error, expected one about '%s'\n", words.c_str());
    ++failures;
  } catch (const Error& error) {
    const bool named = std::string(error.what()).find(words) != std::string::npos;
    if (named && error.kind() == kind) return;
    std::fprintf(stderr, "expected an error about '%s', got: %s\n", words.c_str(), error.what());
    ++failures;
  }
}

void test_errors() {
  const Example e;
  const auto guide_error = [&](Error::Kind kind, const std::string& words, TensorView pred,
                               const TensorView* target = nullptr, const TensorView* mask = nullptr,
                               std::optional<double> binarize = std::nullopt) {
    expect_error(kind, words, [&] { const Guide guide(pred, target, mask, binarize); });
  };
  const TensorView pred = view_of(e.pred);
  const auto value = Error::Kind::value, type = Error::Kind::type;
  TensorView bad = pred;
  bad.rank = 2;
  guide_error(value, "pred must have 3 to 5 axes", bad);
  bad.rank = 6;
  guide_error(value, "pred must have 3 to 5 axes", bad);
  bad = pred;
  bad.data = nullptr;
  guide_error(value, "null", bad);
  bad.data = static_cast<const char*>(pred.data) + 1;
  guide_error(value, "aligned", bad);
  bad = pred;
  bad.shape[2] = 0;
  guide_error(value, "must not be empty", bad);
  bad.shape[2] = std::int64_t{1} << 62;
  guide_error(value, "64-bit", bad);
  bad = pred;
  bad.dtype = DType::uint8;
  guide_error(type, "pred must hold probabilities", bad);
  guide_error(value, "binarize", pred, nullptr, nullptr, 1.5);
  guide_error(value, "binarize", pred, nullptr, nullptr, std::nan(""));
  guide_error(value, "(N, T, *size)", pred, &e.mask_view);
  guide_error(value, "(N, 1, *size)", pred, nullptr, &e.target_view);

  Example wrong;
  wrong.pred.data[4] = 1.5f;
  guide_error(value, "sigmoid", view_of(wrong.pred));
  wrong.pred.data[4] = std::nanf("");
  guide_error(value, "pred contains NaN", view_of(wrong.pred));
  wrong.target.data[7] = 2;
  const TensorView labels = wrong.target.view(DType::uint8);
  guide_error(value, "target must be binary", pred, &labels);
  wrong.mask.data[2] = 3;
  const TensorView integers = wrong.mask.view(DType::uint8);
  guide_error(value, "integer mask", pred, nullptr, &integers);
  const Array<float> negative{e.mask.shape, {1, 1, -1, 1, 1, 1}};
  const TensorView weights = view_of(negative);
  guide_error(value, "mask must hold finite weights", pred, nullptr, &weights);

  const auto features_error = [&](Error::Kind kind, const std::string& words,
                                  const TensorView& features, const Options& options) {
    expect_error(kind, words, [&] {
      Counts counts[8];
      sa_counts(e.guide, features, options, counts);
    });
  };
  const TensorView features = view_of(e.features);
  Options options;
  options.groups = 3;
  features_error(value, "groups must be a positive divisor", features, options);
  options.groups = 0;
  features_error(value, "groups must be a positive divisor", features, options);
  options = {};
  options.temperature = 2.0;
  features_error(value, "cosine", features, options);
  options.metric = Metric::cosine;
  options.temperature = -1.0;
  features_error(value, "temperature", features, options);
  options = {};
  options.interpolation = Interpolation::nearest;
  options.align_corners = true;
  features_error(value, "align_corners", features, options);
  bad = features;
  bad.dtype = DType::int32;
  features_error(type, "features must be float16", bad, Options{});
  bad = features;
  bad.rank = 3;
  features_error(value, "same number of spatial axes", bad, Options{});
  bad = features;
  bad.shape[0] = 2;
  features_error(value, "same number of images", bad, Options{});

  expect_error(value, "choose one of: baseline", [] { set_isa("mmx"); });
}

// Features of every kind, for the tests of reproducibility: large enough for several threads.
struct Mixture {
  Shape feature_shape{2, 6, 80, 101};
  Array<float> single = make<float>(feature_shape, spread, 1);
  Array<double> twice = make<double>(feature_shape, spread, 2);
  // Bit patterns of finite halves and bfloats, subnormal ones included.
  Array<std::uint16_t> half = make<std::uint16_t>(
      feature_shape, [](std::mt19937& random) { return random() % 2 * 0x8000 + random() % 0x4400; },
      3);
  Array<float> pred = make<float>({2, 2, 80, 101}, uniform, 4);
  Array<float> large_pred = make<float>({2, 2, 97, 64}, uniform, 5);
  Array<std::uint8_t> target = make<std::uint8_t>({2, 2, 80, 101}, rare, 6);
  Array<std::uint8_t> large_mask = make<std::uint8_t>({2, 1, 97, 64}, rare, 7);

  std::vector<TensorView> features() const {
    std::vector<TensorView> views = {view_of(single), view_of(twice), half.view(DType::float16),
                                     half.view(DType::bfloat16)};
    // The same memory read as channels-last: (N, 80, 101, 6)
    TensorView channels_last = view_of(single);
    channels_last.strides = {6 * 80 * 101, 1, 6 * 101, 6};
    views.push_back(channels_last);
    TensorView reversed = view_of(single);
    reversed.data = single.data.data() + single.data.size() - 1;
    for (auto& stride : reversed.strides) stride = -stride;
    views.push_back(reversed);
    return views;
  }

  std::vector<Guide> guides() const {
    const TensorView target_view = view_of(target), mask_view = view_of(large_mask);
    std::vector<Guide> guides;
    guides.emplace_back(view_of(pred), &target_view, nullptr, std::nullopt);
    guides.emplace_back(view_of(large_pred), nullptr, &mask_view, 0.4);
    return guides;
  }

  static std::vector<Options> options() {
    std::vector<Options> all(6);
    all[1].groups = 2;
    all[2].groups = 6;
    all[3].metric = Metric::cosine;
    all[4].align_corners = true;
    all[5].interpolation = Interpolation::nearest;
    return all;
  }

  std::vector<Results> results(const std::vector<Guide>& guides) const {
    std::vector<Results> all;
    for (const TensorView& view : features())
      for (const Options& option : options())
        for (const Guide& guide : guides) all.push_back(compute(guide, view, option));
    return all;
  }
  // The same, of guides that have kept nothing.
  std::vector<Results> fresh_results() const {
    std::vector<Results> all;
    for (const TensorView& view : features())
      for (const Options& option : options())
        for (const Guide& guide : guides()) all.push_back(compute(guide, view, option));
    return all;
  }
};

bool same_bits(const std::vector<Results>& a, const std::vector<Results>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Results& x, const Results& y) { return same_bits(x, y); });
}

void test_every_instruction_set_gives_the_same_bits() {
  const Mixture mixture;
  const std::string before = current_isa();
  set_isa("baseline");
  const std::vector<Results> expected = mixture.fresh_results();
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    CHECK(current_isa() == isa);
    CHECK(same_bits(mixture.results(mixture.guides()), expected));
  }
  set_isa(before);
}

void test_threads_share_a_guide() {
  const Mixture mixture;
  const std::vector<Results> expected = mixture.fresh_results();
  // Guides whose weights all threads ask for at once.
  const std::vector<Guide> shared = mixture.guides();
  constexpr int count = 5;
  std::atomic<int> ready{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i)
    threads.emplace_back([&] {
      for (++ready; ready < count;) std::this_thread::yield();
      CHECK(same_bits(mixture.results(shared), expected));
      CHECK(shared[0].bytes() > 0);
    });
  for (std::thread& thread : threads) thread.join();
}

// A child of fork() has lost the threads of its parent, and must not wait for them.
void test_after_fork() {
  const Mixture mixture;
  const std::vector<Guide> guides = mixture.guides();
  const std::vector<Results> expected = mixture.results(guides);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(same_bits(mixture.results(guides), expected) ? 0 : 1);
  }
  int status = -1;
  CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

// Fails one allocation after another, mostly inside parallel tasks: every call must end in
// bad_alloc, keep nothing, and leave its guide usable.
void test_exceptions_leave_parallel_tasks() {
  const Mixture mixture;
  const TensorView target = view_of(mixture.target);
  const TensorView features = view_of(mixture.single);
  Options options;
  options.groups = 6;
  const auto run = [&](const Guide& guide, std::vector<Counts>& counts) {
    counts.assign(24, {});
    sa_counts(guide, features, options, counts.data());
  };
  const Guide fresh(view_of(mixture.pred), &target, nullptr, std::nullopt);
  std::vector<Counts> expected, found(24);
  run(fresh, expected);

  int thrown = 0;
  for (bool finished = false; !finished && thrown < 1000;) {
    const std::int64_t before = live_allocations;
    until_failure = thrown;
    try {
      const Guide guide(view_of(mixture.pred), &target, nullptr, std::nullopt);
      run(guide, found);
      finished = true;
    } catch (const std::bad_alloc&) {
      ++thrown;
    }
    until_failure = -1;
    CHECK(live_allocations == before);
  }
  CHECK(thrown > 3 && thrown < 1000);
  CHECK(std::equal(found.begin(), found.end(), expected.begin(), same_counts));

  const Guide kept(view_of(mixture.large_pred), nullptr, nullptr, std::nullopt);
  thrown = 0;
  for (bool finished = false; !finished && thrown < 1000;) {
    until_failure = thrown;
    try {
      run(kept, found);
      finished = true;
    } catch (const std::bad_alloc&) {
      ++thrown;
    }
    until_failure = -1;
  }
  CHECK(thrown > 3 && thrown < 1000);
  run(Guide(view_of(mixture.large_pred), nullptr, nullptr, std::nullopt), expected);
  CHECK(std::equal(found.begin(), found.end(), expected.begin(), same_counts));
}

// Channels and images further apart than 32-bit indices reach, in memory that is never touched.
void test_strides_beyond_32_bits() {
  const Shape shape{2, 3, 31, 33};
  const auto compact = make<float>(shape, spread, 1);
  const std::int64_t far = (std::int64_t{1} << 31) + 1041;
  const std::int64_t elements = 5 * far + 31 * 33;
  const std::size_t bytes = static_cast<std::size_t>(elements) * sizeof(float);
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::printf("  skipped: no %zu GB of address space\n", bytes >> 30);
    return;
  }
  auto* data = static_cast<float*>(memory);
  for (std::int64_t plane = 0; plane < 6; ++plane)
    std::copy_n(&compact.data[plane * 31 * 33], 31 * 33, data + plane * far);
  TensorView forward = view_of(data, DType::float32, shape);
  forward.strides = {3 * far, far, 33, 1};
  // The same planes from the last to the first.
  TensorView backward = forward;
  backward.data = data + 5 * far;
  backward.strides = {-3 * far, -far, 33, 1};
  Array<float> mirrored = compact;
  for (std::int64_t plane = 0; plane < 6; ++plane)
    std::copy_n(&compact.data[(5 - plane) * 31 * 33], 31 * 33, &mirrored.data[plane * 31 * 33]);

  for (const Shape& size : {Shape{2, 2, 31, 33}, Shape{2, 2, 40, 20}}) {
    const auto pred = make<float>(size, uniform, 2);
    const Guide guide(view_of(pred), nullptr, nullptr, std::nullopt);
    for (const std::int64_t groups : {1, 3}) {
      Options options;
      options.groups = groups;
      CHECK(same_bits(compute(guide, forward, options), compute(guide, view_of(compact), options)));
      CHECK(
          same_bits(compute(guide, backward, options), compute(guide, view_of(mirrored), options)));
    }
  }
  munmap(memory, bytes);
}

// One channel, broadcast to more than 2^31 elements.
void test_more_than_2_to_the_31_elements() {
  const std::int64_t channels = sanitized ? 1000 : 32769;
  const auto plane = make<float>({1, 1, 256, 256}, spread, 1);
  const auto pred = make<float>({1, 1, 256, 256}, uniform, 2);
  const Guide guide(view_of(pred), nullptr, nullptr, std::nullopt);
  Counts expected;
  sa_counts(guide, view_of(plane), Options{}, &expected);
  TensorView broadcast = view_of(plane);
  broadcast.shape[1] = channels;
  broadcast.strides[1] = 0;
  Options options;
  options.groups = channels;
  std::vector<Counts> counts(channels);
  sa_counts(guide, broadcast, options, counts.data());
  CHECK(std::all_of(counts.begin(), counts.end(),
                    [&](const Counts& c) { return same_counts(c, expected); }));
}

void test_build_config() {
  const BuildConfig config = build_config();
  CHECK(config.version == PROTOSEG_VERSION);
  CHECK(!config.compiler.empty() && !config.build_type.empty() && !config.cuda.empty());
  CHECK(config.threads == "OpenMP" || config.threads == "std::thread");
  CHECK(config.compiled_isas.front() == "baseline" && available_isas().front() == "baseline");
  for (const std::string& isa : available_isas())
    CHECK(std::count(config.compiled_isas.begin(), config.compiled_isas.end(), isa) == 1);
}

}  // namespace

int main() {
  // Read when the first parallel loop starts, by builds without OpenMP: more threads than a small
  // machine has, for the thread sanitizer.
  setenv("OMP_NUM_THREADS", "4", 0);
  using Clock = std::chrono::steady_clock;
#define RUN(test)                                                       \
  do {                                                                  \
    const auto start = Clock::now();                                    \
    test();                                                             \
    const std::chrono::duration<double> seconds = Clock::now() - start; \
    std::printf("%6.2f s  %s\n", seconds.count(), #test);               \
    std::fflush(stdout);                                                \
  } while (false)
  RUN(test_build_config);
  RUN(test_hand_computed_units);
  RUN(test_hand_computed_layer);
  RUN(test_options_of_the_guide);
  RUN(test_scores);
  RUN(test_resizing_against_loops);
  RUN(test_errors);
  RUN(test_every_instruction_set_gives_the_same_bits);
  RUN(test_threads_share_a_guide);
  RUN(test_after_fork);
  RUN(test_exceptions_leave_parallel_tasks);
  RUN(test_strides_beyond_32_bits);
  RUN(test_more_than_2_to_the_31_elements);
  std::printf("%d failed checks\n", failures.load());
  return failures == 0 ? 0 : 1;
}
