// Tests of bits that do not depend on instruction sets and threads, and of what becomes of threads
// after fork() and exceptions. Part of test_engine.cpp.
#pragma once

#include "harness.hpp"

namespace {

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

}  // namespace
