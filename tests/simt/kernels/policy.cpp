// The policy: what it chooses on three devices, and what holds of every choice.
#include <simt/scenario.hpp>

#include "policy.hpp"

using namespace protoseg::cuda;

namespace {

Device h100() { return {132, 50 << 20, 227 << 10, 228 << 10, true}; }
Device a100() { return {108, 40 << 20, 163 << 10, 164 << 10, false}; }
Device t4() { return {40, 4 << 20, 64 << 10, 64 << 10, false}; }

Sweep sweep(std::int64_t images, std::int64_t channels, std::int64_t voxels, std::int64_t item = 4,
            bool resized = false, bool channels_last = false) {
  return {images * channels, channels,     voxels, item == 8 ? 4096 : 8192, item,
          resized,           channels_last};
}

void expect_plan(const Plan& plan, Strategy strategy, int cluster, int units) {
  SIMT_EXPECT_EQUAL(static_cast<int>(plan.strategy), static_cast<int>(strategy));
  SIMT_EXPECT_EQUAL(plan.cluster, cluster);
  SIMT_EXPECT_EQUAL(plan.units, units);
}

}  // namespace

SIMT_SCENARIO(hopper) {
  expect_plan(automatic_plan(sweep(1, 64, 256 * 256), h100()), Strategy::resident, 8, 2);
  expect_plan(automatic_plan(sweep(8, 64, 256 * 256, 2), h100()), Strategy::resident, 4, 2);
  expect_plan(automatic_plan(sweep(8, 256, 64 * 64), h100()), Strategy::resident, 1, 4);
  expect_plan(automatic_plan(sweep(8, 512, 16 * 16), h100()), Strategy::small, 1, 1);
  expect_plan(automatic_plan(sweep(1, 64, 512 * 512), h100()), Strategy::resident, 8, 1);
  expect_plan(automatic_plan(sweep(1, 1, 512ll * 512 * 512), h100()), Strategy::split, 1, 1);
}
SIMT_SCENARIO(resized) {
  expect_plan(automatic_plan(sweep(1, 256, 64 * 64, 4, true), h100()), Strategy::resident, 1, 1);
  expect_plan(automatic_plan(sweep(1, 128, 16 * 16 * 16, 4, true), h100()), Strategy::split, 1, 1);
  expect_plan(automatic_plan(sweep(4, 512, 8 * 8, 4, true), h100()), Strategy::resident, 1, 4);
  expect_plan(automatic_plan(sweep(1, 64, 256 * 256, 4, true), h100()), Strategy::split, 1, 2);
}
SIMT_SCENARIO(before_hopper) {
  expect_plan(automatic_plan(sweep(4, 64, 256 * 256), a100()), Strategy::split, 1, 1);
  expect_plan(automatic_plan(sweep(8, 64, 128 * 128, 2), a100()), Strategy::resident, 1, 1);
  expect_plan(automatic_plan(sweep(8, 64, 64 * 64), a100()), Strategy::resident, 1, 2);
  expect_plan(automatic_plan(sweep(4, 64, 64 * 64), t4()), Strategy::resident, 1, 1);
}
SIMT_SCENARIO(channels_last_by_sectors) {
  expect_plan(automatic_plan(sweep(1, 64, 256 * 256, 4, false, true), h100()), Strategy::split, 1,
              8);
  expect_plan(automatic_plan(sweep(1, 64, 256 * 256, 2, false, true), h100()), Strategy::split, 1,
              16);
  expect_plan(automatic_plan(sweep(1, 3, 256 * 256, 4, false, true), h100()), Strategy::split, 1,
              3);
}
SIMT_SCENARIO(every_plan_is_possible) {
  for (const Device& device : {h100(), a100(), t4()})
    for (const std::int64_t item : {2, 4, 8})
      for (const std::int64_t channels : {1, 3, 64, 2048})
        for (std::int64_t voxels = 1; voxels < (std::int64_t{1} << 34); voxels = voxels * 5 / 2 + 1)
          for (const bool resized : {false, true}) {
            const Sweep s = sweep(2, channels, voxels, item, resized);
            const Plan plan = automatic_plan(s, device);
            SIMT_EXPECT(plan.possible(device));
            SIMT_EXPECT(plan.units >= 1 && plan.units <= most_units && plan.units <= channels);
            SIMT_EXPECT(plan.cluster == 1 || (device.clusters && !resized));
            SIMT_EXPECT(plan.block_segments * plan.cluster >= segments_of(s));
            if (plan.strategy == Strategy::split) SIMT_EXPECT(plan.chunk_units >= plan.units);
            if (plan.strategy == Strategy::small) SIMT_EXPECT(voxels <= small_voxels && !resized);
            if (plan.strategy == Strategy::streamed) SIMT_EXPECT(!resized && plan.grid >= 1);
          }
}
SIMT_SCENARIO(what_is_asked_for) {
  Tuning tuning;
  tuning.strategy = Strategy::resident;
  tuning.cluster = 4;
  tuning.units = 3;
  expect_plan(choose_strategy(sweep(1, 64, 4 * 8192), h100(), tuning), Strategy::resident, 4, 3);
  const auto refused = [&](const Sweep& s, const Device& device) {
    try {
      choose_strategy(s, device, tuning);
    } catch (const protoseg::Error&) {
      return true;
    }
    return false;
  };
  SIMT_EXPECT(refused(sweep(1, 64, 4 * 8192), a100()));               // no clusters
  SIMT_EXPECT(refused(sweep(1, 64, 4 * 8192, 4, true), h100()));      // resized
  SIMT_EXPECT(refused(sweep(1, 64, std::int64_t{1} << 30), h100()));  // too large
  tuning = {};
  tuning.strategy = Strategy::small;
  SIMT_EXPECT(refused(sweep(1, 64, 257), h100()));
  tuning.strategy = Strategy::streamed;
  SIMT_EXPECT(refused(sweep(1, 64, 65 * 8192), h100()));
  tuning.strategy = Strategy::split;
  SIMT_EXPECT_EQUAL(choose_strategy(sweep(1, 64, 8192), h100(), tuning).chunk_units, 800);
}
