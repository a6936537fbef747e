// The library `protoseg` as a plain C++ program meets it: only the public headers, no Python. Run
// by ctest, also under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.
#include "gradients.hpp"
#include "harness.hpp"
#include "loops.hpp"
#include "threads.hpp"

namespace {

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
  RUN(test_gradients_against_differences);
  RUN(test_gradients_have_the_same_bits_on_every_instruction_set);
  RUN(test_gradients_refuse_what_does_not_fit);
  RUN(test_every_instruction_set_gives_the_same_bits);
  RUN(test_threads_share_a_guide);
  RUN(test_after_fork);
  RUN(test_exceptions_leave_parallel_tasks);
  RUN(test_strides_beyond_32_bits);
  RUN(test_more_than_2_to_the_31_elements);
  std::printf("%d failed checks\n", failures.load());
  return failures == 0 ? 0 : 1;
}
