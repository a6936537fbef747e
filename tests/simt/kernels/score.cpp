// Scores of counts on the device, and grids within their limits.
#include "score.cuh"

#include "direct.hpp"
#include "grid.hpp"

using namespace direct;

namespace {

// Counts [n] of all kinds: empty maps and targets, undefined ones, and some beyond 2^32.
struct ScoreCounts {
  explicit ScoreCounts(std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t scale = i % 7 == 0 ? std::int64_t{1} << 33 : 1;
      predicted.push_back(i % 3 == 0 ? 0 : scale * (10 + i % 50));
      actual.push_back(i % 5 == 0 ? 0 : scale * (5 + i % 40));
      tp.push_back(std::min(predicted.back(), actual.back()) / 2);
      defined.push_back(i % 11 != 4);
    }
  }
  std::vector<std::int64_t> tp, predicted, actual;
  std::vector<std::uint8_t> defined;
};

void scores(std::int64_t n, std::int64_t blocks, Score which, Empty empty) {
  const ScoreCounts counts(n);
  const simt::DeviceArray<std::int64_t> tp(counts.tp, "tp"),
      predicted(counts.predicted, "predicted"), actual(counts.actual, "actual");
  const simt::DeviceArray<std::uint8_t> defined(counts.defined, "defined");
  const simt::DeviceArray<double> found(n, "scores");
  ScoreParams p{};
  p.counts = {tp.data(), predicted.data(), actual.data(), nullptr, defined.data()};
  p.count = n;
  p.which = which;
  p.empty = empty;
  p.scores = found.data();
  start(score_kernel<>, blocks, p);
  const auto all = found.download();
  for (std::int64_t i = 0; i < n; ++i) {
    const double s = static_cast<double>(counts.predicted[i]);
    const double g = static_cast<double>(counts.actual[i]);
    const double both = static_cast<double>(counts.tp[i]);
    double expected = 2 * both / (s + g);
    if (which == Score::precision) expected = both / s;
    if (which == Score::recall) expected = both / g;
    if (which == Score::iou) expected = both / (s + g - both);
    const bool overlap = which == Score::dice || which == Score::iou;
    if (overlap && (s == 0 || g == 0)) expected = empty == Empty::monai && g == 0 ? NAN : 0.0;
    const bool nothing = which == Score::precision ? s == 0
                         : which == Score::recall  ? g == 0
                                                   : s == 0 && g == 0;
    if (nothing) expected = empty == Empty::one ? 1.0 : empty == Empty::zero ? 0.0 : NAN;
    if (!counts.defined[i]) expected = NAN;
    expect_near(all[i], expected, 0.0);
  }
}

// Every thread writes to the dynamic shared memory of the next block of its cluster.
struct NeighbourParams {
  unsigned* out;  // [blocks, threads]
};
template <class = void>
__global__ void neighbour_kernel(NeighbourParams p) {
  unsigned* own = dynamic_shared<unsigned>();
  const unsigned next = (cluster_block_rank() + 1) % cluster_blocks();
  cluster_sync();
  cluster_map_shared(own, next)[threadIdx.x] = blockIdx.x + 1000 * threadIdx.x;
  cluster_sync();
  p.out[blockIdx.x * threads + threadIdx.x] = own[threadIdx.x];
}

}  // namespace

SIMT_SCENARIO(scores_of_every_kind) {
  for (const Score which : {Score::dice, Score::iou, Score::precision, Score::recall})
    for (const Empty empty : {Empty::nan, Empty::monai, Empty::one, Empty::zero})
      scores(700, 2, which, empty);
}
SIMT_SCENARIO(scores_of_one) { scores(1, 3, Score::dice, Empty::nan); }
SIMT_SCENARIO(grids_within_their_limits) {
  const simt::DeviceArray<double> found(std::vector<double>{-1.0}, "scores");
  ScoreParams p{};  // of nothing
  p.scores = found.data();
  simt::options().blocks = {0};
  run(score_kernel<>, std::int64_t{1} << 40, nullptr, p);
  run(score_kernel<>, std::int64_t{1} << 40, nullptr, p, 0, 8);
  run_elements(score_kernel<>, std::int64_t{1} << 50, nullptr, p);
  SIMT_EXPECT_EQUAL(simt::launches().size(), 3u);
  SIMT_EXPECT_EQUAL(found.download()[0], -1.0);
  run(score_kernel<>, 0, nullptr, p);
  run_elements(score_kernel<>, 0, nullptr, p);
  SIMT_EXPECT_EQUAL(simt::launches().size(), 3u);
  // As many blocks as there is work for, and no more.
  simt::options().blocks.clear();
  run_elements(score_kernel<>, threads + 1, nullptr, p);
  SIMT_EXPECT_EQUAL(simt::launches().back().blocks, 2u);
  run(score_kernel<>, 3, nullptr, p, 0, 4);
  SIMT_EXPECT_EQUAL(simt::launches().back().blocks, 12u);
}
SIMT_SCENARIO(grids_have_what_is_asked_for) {
  constexpr unsigned clusters = 3, cluster = 4;
  const simt::DeviceArray<unsigned> out(clusters * cluster * threads, "out");
  run(neighbour_kernel<>, clusters, nullptr, {out.data()}, threads * sizeof(unsigned), cluster);
  const auto found = out.download();
  for (unsigned i = 0; i < found.size(); ++i) {
    const unsigned block = i / threads, first = block / cluster * cluster;
    SIMT_EXPECT_EQUAL(found[i], first + (block + cluster - 1) % cluster + 1000 * (i % threads));
  }
}
SIMT_SCENARIO(grids_that_are_refused) {
  bool refused = false;
  try {
    run(score_kernel<>, 1, nullptr, ScoreParams{}, std::int64_t{1} << 20);
  } catch (const Error&) {
    refused = true;
  }
  SIMT_EXPECT(refused);
}
