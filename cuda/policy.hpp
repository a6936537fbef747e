// Which strategy a sweep of units takes, by size: plain arithmetic on the host.
//
// What decides: features should cross the memory bus once, and several blocks should share a
// multiprocessor, so that one loads while another counts.
//   small     up to 256 voxels: a warp per plane, else most threads of a block would idle
//   resident  planes fit into the shared memory of a block or, from sm_90 on, of a cluster
//   streamed  they do not, but those of all running blocks together stay in the cache
//   split     few or large planes: each is split over blocks, in chunks of half the cache
// Small resized layers of a list are resident, all of them in one launch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "limits.hpp"
#include "protoseg/cuda.hpp"

namespace protoseg::cuda {

struct Device {
  int multiprocessors = 1;
  std::int64_t cache_bytes = 0;             // of the second level
  std::int64_t block_bytes = 48 << 10;      // shared memory that one block may have
  std::int64_t processor_bytes = 64 << 10;  // shared memory of a multiprocessor
  bool clusters = false;
  std::int64_t map_bytes = std::int64_t{32} << 20;  // of maps at feature size, kept at a time
};

struct Sweep {
  std::int64_t units = 1, channels = 1;  // N x C, C
  std::int64_t voxels = 1;               // of a feature plane
  std::int64_t segment = 8192;           // voxels that are summed together, see shape.cuh
  std::int64_t item = 4;                 // bytes of a stored element
  bool resized = false;
  bool channels_last = false;
};

struct Plan {
  Strategy strategy = Strategy::split;
  int cluster = 1;
  int units = 1;                    // planes of a block
  std::int64_t block_segments = 1;  // of each plane that a block has
  std::int64_t pitch = 0;           // elements between staged planes
  std::int64_t shared_bytes = 0;
  std::int64_t grid = 0;         // clusters at most, of resident and streamed; 0: any number
  std::int64_t chunk_units = 0;  // of split: units whose planes fill half the cache

  bool possible(const Device& device) const {
    return shared_bytes + static_bytes <= device.block_bytes;
  }
  // What kernels have of static shared memory, and what the system keeps of each block.
  static constexpr std::int64_t static_bytes = 2560;
  // Bytes of sums per segment: doubles of targets x units x 2 sides.
  static constexpr std::int64_t segment_bytes = target_tile * most_units * 2 * 8;
  // A block of streamed planes keeps the sums of all its segments.
  static constexpr std::int64_t most_streamed_segments = 64;
};

inline std::int64_t segments_of(const Sweep& sweep) {
  return (sweep.voxels + sweep.segment - 1) / sweep.segment;
}

// The shape of a strategy with so many blocks per cluster and planes per block.
inline Plan make_plan(const Sweep& sweep, Strategy strategy, int cluster, int units) {
  Plan plan;
  plan.strategy = strategy;
  plan.cluster = cluster;
  plan.units = static_cast<int>(std::min<std::int64_t>(units, sweep.channels));
  plan.block_segments = (segments_of(sweep) + cluster - 1) / cluster;
  const std::int64_t staged = strategy == Strategy::resident ? plan.block_segments : 1;
  const std::int64_t voxels = std::min(sweep.voxels, staged * sweep.segment);
  const std::int64_t vector = 16 / sweep.item;
  plan.pitch = (voxels + vector - 1) / vector * vector;
  plan.shared_bytes = plan.units * plan.pitch * sweep.item;
  if (strategy != Strategy::split) plan.shared_bytes += plan.block_segments * Plan::segment_bytes;
  return plan;
}

inline std::int64_t tiles_of(const Sweep& sweep, const Plan& plan) {
  return sweep.units / sweep.channels * ((sweep.channels + plan.units - 1) / plan.units);
}

// As many planes per block (they share their weights) as leave room for `blocks` blocks on a
// multiprocessor, and work for every multiprocessor; 0 if not even `least` do.
inline int affordable_units(const Sweep& sweep, const Device& device, Strategy strategy,
                            int cluster, int blocks, int least) {
  const std::int64_t parts = strategy == Strategy::split ? segments_of(sweep) : cluster;
  for (int units = most_units; units >= least; units /= 2) {
    const Plan plan = make_plan(sweep, strategy, cluster, units);
    if (!plan.possible(device)) continue;
    if (blocks * (plan.shared_bytes + Plan::static_bytes) > device.processor_bytes) continue;
    if (units > 1 && tiles_of(sweep, plan) * parts < device.multiprocessors) continue;
    return units;
  }
  return 0;
}

// Three blocks to a multiprocessor if possible; then, planes that share their weights, at least by
// twos; then, the smallest cluster.
inline Plan resident_plan(const Sweep& sweep, const Device& device) {
  const int largest = device.clusters && !sweep.resized ? 8 : 1;
  for (int blocks = 3; blocks >= 1; --blocks)
    for (int least = 2; least >= 1; --least)
      for (int cluster = 1; cluster <= largest && cluster <= segments_of(sweep); cluster *= 2) {
        const int units =
            affordable_units(sweep, device, Strategy::resident, cluster, blocks, least);
        if (units > 0) return make_plan(sweep, Strategy::resident, cluster, units);
      }
  Plan impossible;
  impossible.shared_bytes = device.block_bytes;
  return impossible;
}

// Planes of this many clusters at a time fill half the cache.
inline Plan streamed_plan(const Sweep& sweep, const Device& device, int units) {
  Plan plan = make_plan(sweep, Strategy::streamed, 1, units);
  plan.grid =
      std::max<std::int64_t>(1, device.cache_bytes / 2 / (plan.units * sweep.voxels * sweep.item));
  return plan;
}

// Channels-last blocks take as many channels as one 32-byte sector holds.
inline Plan split_plan(const Sweep& sweep, const Device& device) {
  int units = sweep.channels_last ? static_cast<int>(32 / sweep.item) : 0;
  for (int blocks = 3; blocks >= 1 && units == 0; --blocks)
    units = affordable_units(sweep, device, Strategy::split, 1, blocks, 1);
  Plan plan = make_plan(sweep, Strategy::split, 1, std::max(1, units));
  plan.chunk_units =
      std::max<std::int64_t>(plan.units, device.cache_bytes / 2 / (sweep.voxels * sweep.item));
  return plan;
}

inline Plan automatic_plan(const Sweep& sweep, const Device& device) {
  if (!sweep.resized && sweep.voxels <= small_voxels)
    return make_plan(sweep, Strategy::small, 1, 1);
  if (sweep.channels_last && !sweep.resized) return split_plan(sweep, device);
  const Plan resident = resident_plan(sweep, device);
  // Counting resized planes is most of their work, and one block does it for its planes alone.
  // Others would leave too many multiprocessors idle only if they were large and few.
  const std::int64_t blocks = tiles_of(sweep, resident) * resident.cluster;
  const bool busy = sweep.resized ? blocks >= device.multiprocessors
                                  : blocks >= device.multiprocessors / 4 ||
                                        segments_of(sweep) <= resident.cluster;
  if (resident.possible(device) && busy) return resident;
  const Plan streamed = streamed_plan(sweep, device, 1);
  if (!sweep.resized && streamed.possible(device) && streamed.grid >= device.multiprocessors &&
      tiles_of(sweep, streamed) >= device.multiprocessors &&
      streamed.block_segments <= Plan::most_streamed_segments)
    return streamed;
  return split_plan(sweep, device);
}

// How a layer goes into one launch with others, if it can: resized, and of planes so small that
// blocks of other layers lose no room on a multiprocessor. Whether all of them together keep the
// device busy is not asked here.
inline std::optional<Plan> shared_plan(const Sweep& sweep, const Device& device) {
  if (!sweep.resized) return std::nullopt;
  const int units = affordable_units(sweep, device, Strategy::resident, 1, 3, 1);
  if (units == 0) return std::nullopt;
  return make_plan(sweep, Strategy::resident, 1, units);
}

// What `tuning` asks for where it does; it throws if that is not possible.
inline Plan choose_strategy(const Sweep& sweep, const Device& device, const Tuning& tuning) {
  if (tuning.strategy == Strategy::automatic) return automatic_plan(sweep, device);
  if (tuning.strategy == Strategy::split) {
    Plan plan = split_plan(sweep, device);
    const std::int64_t chunk = plan.chunk_units;
    if (tuning.units > 0 && !sweep.channels_last)
      plan = make_plan(sweep, Strategy::split, 1, tuning.units);
    plan.chunk_units = std::max<std::int64_t>(chunk, plan.units);
    return plan;
  }
  const int cluster = std::max(1, tuning.cluster), units = std::max(1, tuning.units);
  Plan plan = make_plan(sweep, tuning.strategy, cluster, units);
  if (tuning.strategy == Strategy::streamed) plan = streamed_plan(sweep, device, units);
  const bool fits = plan.possible(device) && (cluster == 1 || device.clusters);
  const bool allowed = tuning.strategy == Strategy::small
                           ? !sweep.resized && sweep.voxels <= small_voxels
                       : tuning.strategy == Strategy::resident
                           ? !sweep.resized || cluster == 1
                           : !sweep.resized && plan.block_segments <= Plan::most_streamed_segments;
  if (!fits || !allowed)
    throw Error("the strategy asked for is not possible for features of this size on this device.");
  return plan;
}

}  // namespace protoseg::cuda
