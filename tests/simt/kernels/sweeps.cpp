// needs: cuda/guide.cu cuda/guide_sizes.cu
// needs plain: cpp/src/validate.cpp
//
// The drivers, for floats: whatever the strategy, the chunks and the layout, what is found is what
// loops written directly find, in memory of just the size that was measured.
#include "group_sweep.hpp"

#include "sweep_problem.hpp"

using namespace direct;

namespace {

void count(const SweepProblem& p, const Tuning& tuning) {
  const Found found;
  with_call(
      p, channels, tuning,
      [&](const Sizes& sizes, const Device& device, Arena& arena) {
        const Plan plan = units_plan<float>(sizes, device, tuning);
        if (plan.strategy == Strategy::split) take_unit_chunk<float>(sizes, plan, true, arena);
      },
      [&](const auto& problem, Arena& arena) { count_units(problem, arena, found.out); });
  expect_counts(p, found, channels);
}

void expect_prototypes(const SweepProblem& p, std::int64_t cache_bytes) {
  const simt::DeviceArray<double> positive(images * targets * channels, "positive"),
      negative(images * targets * channels, "negative"), weights(images * targets * 2, "weights");
  const Tuning tuning = tuned(Strategy::automatic, 0, cache_bytes);
  with_call(
      p, 1, tuning,
      [&](const Sizes& sizes, const Device& device, Arena& arena) {
        take_unit_chunk<float>(sizes, sums_plan<float>(sizes, device), false, arena);
      },
      [&](const auto& problem, Arena& arena) {
        compute_prototypes(
            problem, arena,
            {positive.data(), negative.data(), weights.data(), weights.data() + images * targets});
      });
  const auto found_positive = positive.download(), found_negative = negative.download();
  for (std::int64_t i = 0; i < images * targets * channels; ++i) {
    expect_near(found_positive[i], p.mean(i / channels, i % channels, 0), 1e-6);
    expect_near(found_negative[i], p.mean(i / channels, i % channels, 1), 1e-6);
  }
  const auto found_weights = weights.download();
  for (std::int64_t plane = 0; plane < images * targets; ++plane)
    for (int side = 0; side < 2; ++side)
      expect_near(found_weights[side * images * targets + plane], p.totals[2 * plane + side], 1e-3);
}

// Counts and a map of groups, in chunks of images, and of maps that are resized.
void expect_groups(const SweepProblem& p, std::int64_t groups, std::int64_t cache_bytes,
                   std::int64_t map_bytes = 0) {
  const std::int64_t voxels = p.to.voxels();
  Tuning tuning = tuned(Strategy::automatic, 0, cache_bytes);
  tuning.map_bytes = map_bytes;
  const simt::DeviceArray<std::uint8_t> map(images * groups * targets * voxels, "map");
  const Found found;
  for (const Sink sink : {Sink::counts, Sink::map})
    with_call(
        p, groups, tuning,
        [&](const Sizes& sizes, const Device& device, Arena& arena) {
          take_group_chunk<float>(sizes, device, arena);
        },
        [&](const auto& problem, Arena& arena) {
          project_groups(problem, arena, {sink, map.data(), found.out});
        });
  expect_counts(p, found, groups);
  const auto maps = map.download();
  const std::int64_t count = channels / groups;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(maps.size()); ++i) {
    const std::int64_t pair = i / voxels, group = pair / targets;
    SIMT_EXPECT_EQUAL(maps[i] != 0, p.margin(group / groups, group % groups * count, count,
                                             pair % targets, i % voxels) > 0);
  }
}

// Groups, and the units of the same features on the way.
void expect_both(const SweepProblem& p, std::int64_t groups, const Tuning& tuning) {
  const Found of_groups, of_units;
  with_call(
      p, groups, tuning,
      [&](const Sizes& sizes, const Device& device, Arena& arena) {
        const GroupChunk chunk = take_group_chunk<float>(sizes, device, arena);
        UnitsBeside<float>(sizes, device, tuning, chunk, arena);
      },
      [&](const auto& problem, Arena& arena) {
        project_groups(problem, arena, {Sink::counts, nullptr, of_groups.out}, &of_units.out);
      });
  expect_counts(p, of_groups, groups);
  expect_counts(p, of_units, channels);
}

}  // namespace

SIMT_SCENARIO(units_of_several_segments) {
  const SweepProblem p(plane_of(77, 109), plane_of(77, 109), Layout::rows);
  count(p, {});
  count(p, tuned(Strategy::resident, 2, 0, 2));
  count(p, tuned(Strategy::streamed, 2, 300'000));
  count(p, tuned(Strategy::split, 2, 200'000));
  count(p, tuned(Strategy::split, 2, 600'000));
}
// Features of 0, 1 and 2 and thresholds of 1 - 1e-9, which float rounds to 1: 1 is foreground.
SIMT_SCENARIO(thresholds_between_floats) {
  for (const Extent& extent : {plane_of(78, 110), plane_of(10, 12)}) {
    const std::int64_t planes = images * channels, voxels = extent.voxels();
    std::vector<float> pred, values;
    for (std::int64_t i = 0; i < planes * voxels; ++i) values.push_back(static_cast<float>(i % 3));
    for (std::int64_t i = 0; i < images * targets * voxels; ++i)
      pred.push_back(i % 3 == 0 ? 1e-9f : i % 3 == 1 ? 0.5f : 1.0f);
    const std::vector<float> mask(images * voxels, 1.0f);
    const SweepProblem p(extent, std::make_shared<const GuideProblem>(extent, pred, mask),
                         Layout::rows, values);
    SIMT_EXPECT(p.margin(0, 0, 1, 0, 1) > 0.0);
    count(p, {});
    count(p, tuned(Strategy::resident, 2));
    count(p, tuned(Strategy::split, 2));
  }
}
SIMT_SCENARIO(small_units) {
  const SweepProblem p(plane_of(9, 11), plane_of(9, 11), Layout::rows);
  count(p, {});
  count(p, tuned(Strategy::split, 2, 1));  // sums of warps, or of blocks, by the size of a chunk
  count(p, tuned(Strategy::split, 4));
}
SIMT_SCENARIO(units_channels_last) {
  const SweepProblem p(plane_of(30, 37), plane_of(30, 37), Layout::channels_last);
  count(p, {});
  count(p, tuned(Strategy::split, 0, 1));
}
SIMT_SCENARIO(resized_units) {
  const SweepProblem p(plane_of(9, 12), plane_of(33, 50), Layout::rows);
  count(p, tuned(Strategy::resident, 2));
  count(p, tuned(Strategy::split, 2));
  count(p, tuned(Strategy::split, 3, 1));
}
SIMT_SCENARIO(prototypes) {
  for (const std::int64_t cache_bytes : {0, 1, 36'000}) {
    expect_prototypes({plane_of(30, 37), plane_of(30, 37), Layout::rows}, cache_bytes);
    expect_prototypes({plane_of(30, 37), plane_of(30, 37), Layout::channels_last}, cache_bytes);
    expect_prototypes({plane_of(9, 12), plane_of(33, 50), Layout::rows}, cache_bytes);
  }
}
SIMT_SCENARIO(prototypes_of_whole_steps) {
  expect_prototypes({plane_of(16, 24), plane_of(16, 24), Layout::rows}, 0);
}
SIMT_SCENARIO(groups) {
  for (const std::int64_t cache_bytes : {0, 1}) {
    const SweepProblem p(plane_of(30, 37), plane_of(30, 37), Layout::rows);
    expect_groups(p, 1, cache_bytes);
    expect_groups(p, channels, cache_bytes);
    expect_groups({plane_of(30, 37), plane_of(30, 37), Layout::channels_last}, 1, cache_bytes);
  }
}
SIMT_SCENARIO(resized_groups) {
  for (const std::int64_t cache_bytes : {0, 1}) {
    const SweepProblem p(plane_of(9, 12), plane_of(33, 50), Layout::rows);
    expect_groups(p, 1, cache_bytes);
    expect_groups(p, channels, cache_bytes);
  }
}
// Chunks of all 18 groups, and of the 12 of two images; maps of five groups, and of one at a time.
SIMT_SCENARIO(resized_groups_in_parts) {
  constexpr std::int64_t voxels = 9 * 12, maps = 5 * targets * voxels * 8;
  const SweepProblem p(plane_of(9, 12), plane_of(33, 50), Layout::rows);
  const auto projections = [&](std::int64_t cache_bytes, std::int64_t map_bytes) {
    simt::clear_launches();
    expect_groups(p, channels, cache_bytes, map_bytes);
    std::int64_t count = 0;
    for (const simt::Traffic& launch : simt::launches())
      count += launch.kernel.find("::project_kernel") != std::string::npos;
    return count / 2;  // of counts and of a map
  };
  constexpr std::int64_t two_images = 2 * 2 * channels * voxels * 4;
  SIMT_EXPECT_EQUAL(projections(0, 0), 1);
  SIMT_EXPECT_EQUAL(projections(0, maps), 4);
  SIMT_EXPECT_EQUAL(projections(two_images, maps), 3 + 2);
  SIMT_EXPECT_EQUAL(projections(two_images, 1), 18);
}
SIMT_SCENARIO(resized_groups_in_uneven_chunks) {
  // Half the cache holds two of three images.
  const SweepProblem p(plane_of(9, 12), plane_of(33, 50), Layout::rows);
  expect_groups(p, 1, 2 * 2 * channels * 9 * 12 * 4);
}
SIMT_SCENARIO(units_beside_groups) {
  for (const std::int64_t cache_bytes : {0, 1}) {
    const SweepProblem p(plane_of(77, 109), plane_of(77, 109), Layout::rows);
    expect_both(p, 1, tuned(Strategy::resident, 2, cache_bytes, 2));
    expect_both(p, 3, tuned(Strategy::streamed, 4, cache_bytes));
    expect_both(p, 2, tuned(Strategy::split, 2, cache_bytes));
  }
}
SIMT_SCENARIO(units_beside_groups_of_other_features) {
  for (const std::int64_t cache_bytes : {0, 1}) {
    const Tuning automatic = tuned(Strategy::automatic, 0, cache_bytes);
    expect_both({plane_of(9, 11), plane_of(9, 11), Layout::rows}, 1, automatic);
    expect_both({plane_of(30, 37), plane_of(30, 37), Layout::channels_last}, 2, automatic);
    const SweepProblem p(plane_of(9, 12), plane_of(33, 50), Layout::rows);
    expect_both(p, 1, automatic);
    expect_both(p, 2, tuned(Strategy::resident, 2, cache_bytes));
  }
}
// Twice: for both maps' sums and the units' counts, and for the projection.
SIMT_SCENARIO(units_beside_groups_cost_no_read) {
  const SweepProblem p(plane_of(80, 128), plane_of(80, 128), Layout::rows);
  expect_both(p, 1, tuned(Strategy::resident, 2, 0, 2));
  simt::clear_launches();
  expect_both(p, 1, tuned(Strategy::resident, 2, 0, 2));
  SIMT_EXPECT_EQUAL(simt::launches().size(), 3u);
  SIMT_EXPECT(features_read().sectors * 32.0 < 2.1 * images * channels * 80 * 128 * 4);
}
// Two launches, whatever the strategy asked for and the cache: boundaries, and counts or maps.
SIMT_SCENARIO(units_at_given_prototypes) {
  const auto expect_two_launches = [](const SweepProblem& p, const Tuning& tuning) {
    count(p, tuning);  // what the guide keeps is made
    simt::clear_launches();
    count(p, tuning);
    SIMT_EXPECT_EQUAL(simt::launches().size(), 2u);
  };
  for (const Layout layout : {Layout::rows, Layout::channels_last})
    for (const Extent& from : {plane_of(30, 37), plane_of(9, 12)}) {
      SweepProblem p(from, plane_of(30, 37), layout);
      p.give_prototypes();
      expect_two_launches(p, {});
      expect_two_launches(p, tuned(Strategy::resident, 2, 1));
      expect_two_launches(p, tuned(Strategy::split, 2, 1));
    }
}
SIMT_SCENARIO(groups_at_given_prototypes) {
  for (const Layout layout : {Layout::rows, Layout::channels_last})
    for (const std::int64_t groups : {std::int64_t{2}, channels}) {
      SweepProblem p(plane_of(30, 37), plane_of(30, 37), layout);
      p.give_prototypes();
      expect_groups(p, groups, 1);
      simt::clear_launches();
      expect_groups(p, groups, 1);
      SIMT_EXPECT_EQUAL(simt::launches().size(), 4u);  // two of counts, two of a map
    }
  SweepProblem p(plane_of(9, 12), plane_of(33, 50), Layout::rows);
  p.give_prototypes();
  expect_groups(p, 3, 1);
  expect_groups(p, 3, 1, 1);
}
