// Host side of units: sums, decisions and counts by the strategy that the policy chose.
#pragma once

#include "channels_last.cuh"
#include "problem.hpp"
#include "small_units.cuh"
#include "units.cuh"

namespace protoseg::cuda {

constexpr std::int64_t staged_bytes_of(const Plan& plan, std::int64_t item) {
  return plan.units * plan.pitch * item;
}

// Sums of tiles [first, first + count) of units: sums [units, segments, T, 2]. Planes of up to 256
// voxels, for which a chunk is all there is, are summed by warps.
template <class T>
void launch_sums(const Problem<T>& problem, const Plan& plan, std::int64_t first_tile,
                 std::int64_t tiles, double* sums) {
  if (problem.voxels <= small_voxels && first_tile == 0 &&
      tiles == tiles_of(problem.template sweep<T>(), plan)) {
    SmallUnitsParams<T> p{};
    p.features = problem.features;
    p.weights = problem.kept.weights;
    p.units = problem.units();
    p.channels = problem.channels;
    p.targets = problem.targets;
    p.sums = sums;
    return run(small_units_kernel<T>, divide_up(p.units, warps), problem.call.stream, p);
  }
  UnitSumsParams<T> p{};
  p.features = problem.features;
  p.weights = problem.kept.weights;
  p.tiles = {problem.channels, plan.units, first_tile, tiles};
  p.targets = problem.targets;
  p.segments = problem.template segments<T>();
  p.sums = sums;
  p.first_unit = first_unit_of(p.tiles);
  const bool turned = problem.features.layout == Layout::channels_last;
  run(turned ? turned_sums_kernel<T> : unit_sums_kernel<T>, tiles * p.segments, problem.call.stream,
      p, turned ? turned_bytes<T> : staged_bytes_of(plan, sizeof(T)));
}

// What a chunk of units needs between its kernels.
struct UnitChunk {
  std::int64_t tiles;  // of a chunk at most
  double* sums;
  UnitThreshold<double>* threshold;
};

template <class T>
UnitChunk take_unit_chunk(const Sizes& sizes, const Plan& plan, bool thresholds, Arena& arena) {
  const std::int64_t all = tiles_of(sizes.sweep<T>(), plan);
  const std::int64_t tiles =
      sizes.has_prototypes() ? all : std::min(all, divide_up(plan.chunk_units, plan.units));
  const std::int64_t units = std::min(tiles * plan.units, sizes.units());
  const std::int64_t summed = sizes.has_prototypes() ? 0 : units;
  UnitChunk chunk{tiles, arena.take<double>(summed * sizes.segments<T>() * sizes.targets * 2),
                  nullptr};
  if (thresholds) chunk.threshold = arena.take<UnitThreshold<double>>(units * sizes.targets);
  return chunk;
}

// Parts of a resized plane, so that all planes together keep the device busy.
inline std::int64_t part_tiles(const Cells& cells, std::int64_t planes, const Device& device) {
  const std::int64_t parts = divide_up(8 * std::int64_t{device.multiprocessors}, planes);
  return std::max<std::int64_t>(4 * warps, divide_up(cells.tiles(), parts));
}

template <class T>
void launch_unit_counts(const Problem<T>& problem, const Plan& plan, const UnitTiles& tiles,
                        std::int64_t units, const UnitChunk& chunk, const CountOutputs& out) {
  if (problem.resized) {
    ResizedCountsParams p{};
    p.values = problem.features;
    p.first = first_unit_of(tiles);
    p.count = units;
    p.per_image = problem.channels;
    p.targets = problem.targets;
    p.part_tiles = part_tiles(problem.cells, units * problem.targets, problem.guide.device);
    p.threshold = chunk.threshold;
    p.cells = problem.cells;
    p.parts = divide_up(p.cells.tiles(), p.part_tiles);
    p.out = out;
    return run(resized_counts_kernel<T>, units * problem.targets * p.parts, problem.call.stream, p);
  }
  UnitCountsParams<T> p{};
  p.features = problem.features;
  p.tiles = tiles;
  p.targets = problem.targets;
  p.segments = problem.template segments<T>();
  p.threshold = chunk.threshold;
  p.first_unit = first_unit_of(tiles);
  p.references = problem.guide.references;
  p.out = out;
  const bool turned = problem.features.layout == Layout::channels_last;
  run(turned ? turned_counts_kernel<T> : unit_counts_kernel<T>, tiles.count * p.segments,
      problem.call.stream, p, turned ? turned_bytes<T> : staged_bytes_of(plan, sizeof(T)));
}

// Tiles of units by sums, boundaries and counts, each a launch. chunk: of these tiles.
template <class T>
void count_tiles_split(const Problem<T>& problem, const Plan& plan, const UnitTiles& tiles,
                       const UnitChunk& chunk, const CountOutputs& out) {
  const UnitTiles next = {problem.channels, plan.units, tiles.first + tiles.count, 0};
  if (!problem.has_prototypes()) launch_sums(problem, plan, tiles.first, tiles.count, chunk.sums);
  UnitBoundaryParams p{};
  p.sums = problem.partial_sums(chunk.sums, first_unit_of(tiles));
  p.units = first_unit_of(next) - first_unit_of(tiles);
  p.metric = problem.options.metric;
  p.temperature = problem.options.temperature;
  p.threshold = chunk.threshold;
  p.exact_in_float = !std::is_same_v<SumOf<T>, double> && !problem.resized;
  p.out = out;
  p.references = problem.guide.references;
  run_elements(unit_boundary_kernel<>, p.units * problem.targets, problem.call.stream, p);
  launch_unit_counts(problem, plan, tiles, p.units, chunk, out);
}

// Three launches per chunk; the second read of a chunk is from the cache. At given prototypes, two
// launches and one read.
template <class T>
void count_units_split(const Problem<T>& problem, const Plan& plan, Arena& arena,
                       const CountOutputs& out) {
  const UnitChunk chunk = take_unit_chunk<T>(problem, plan, true, arena);
  const std::int64_t all = tiles_of(problem.template sweep<T>(), plan);
  for (std::int64_t first = 0; first < all; first += chunk.tiles)
    count_tiles_split(problem, plan,
                      {problem.channels, plan.units, first, std::min(chunk.tiles, all - first)},
                      chunk, out);
}

// The plan of sums alone.
template <class T>
Plan sums_plan(const Sizes& sizes, const Device& device) {
  return split_plan(sizes.sweep<T>(), device);
}

template <class T>
void compute_prototypes(const Problem<T>& problem, Arena& arena, const PrototypeArrays& out) {
  const Plan plan = sums_plan<T>(problem, device_of(problem.guide, problem.call.tuning));
  const UnitChunk chunk = take_unit_chunk<T>(problem, plan, false, arena);
  const std::int64_t all = tiles_of(problem.template sweep<T>(), plan);
  for (std::int64_t first = 0; first < all; first += chunk.tiles) {
    const std::int64_t tiles = std::min(chunk.tiles, all - first);
    const std::int64_t first_unit = first_unit_of({problem.channels, plan.units, first, tiles});
    launch_sums(problem, plan, first, tiles, chunk.sums);
    PrototypesParams p{};
    p.sums = problem.partial_sums(chunk.sums, first_unit);
    p.units = first_unit_of({problem.channels, plan.units, first + tiles, 0}) - first_unit;
    p.scale = problem.kept.scale;
    p.positive = out.positive;
    p.negative = out.negative;
    p.positive_weight = out.positive_weight;
    p.negative_weight = out.negative_weight;
    run_elements(prototypes_kernel<>, p.units * problem.targets, problem.call.stream, p);
  }
}

template <class T>
UnitsParams<T> units_params(const Problem<T>& problem, const Plan& plan, const UnitTiles& tiles,
                            const CountOutputs& out) {
  UnitsParams<T> p{};
  p.features = problem.features;
  p.weights = problem.kept.weights;
  p.tiles = tiles;
  p.targets = static_cast<int>(problem.targets);
  p.voxels = static_cast<int>(problem.voxels);
  p.segments = static_cast<int>(problem.template segments<T>());
  p.block_segments = static_cast<int>(plan.block_segments);
  p.pitch = static_cast<int>(plan.pitch);
  p.resident = plan.strategy == Strategy::resident;
  p.metric = problem.options.metric;
  p.temperature = problem.options.temperature;
  p.references = problem.guide.references;
  p.out = out;
  p.cells = problem.cells;
  p.first_unit = first_unit_of(tiles);
  return p;
}

template <class T>
UnitTiles all_tiles(const Problem<T>& problem, const Plan& plan) {
  return {problem.channels, plan.units, 0, tiles_of(problem.template sweep<T>(), plan)};
}

// Tiles of units in one launch. sums: of these tiles, if others need them, or null
template <class T>
void count_tiles_at_once(const Problem<T>& problem, const Plan& plan, const UnitTiles& tiles,
                         double* sums, const CountOutputs& out) {
  UnitsParams<T> p = units_params(problem, plan, tiles, out);
  p.sums = sums;
  const std::int64_t blocks = plan.grid > 0 ? std::min(plan.grid, tiles.count) : tiles.count;
  run(problem.resized ? units_kernel<T, true> : units_kernel<T, false>, blocks, problem.call.stream,
      p, plan.shared_bytes, plan.cluster);
}

template <class T>
void count_small_units(const Problem<T>& problem, const CountOutputs& out) {
  SmallUnitsParams<T> p{};
  p.features = problem.features;
  p.weights = problem.kept.weights;
  p.units = problem.units();
  p.channels = problem.channels;
  p.targets = problem.targets;
  p.metric = problem.options.metric;
  p.temperature = problem.options.temperature;
  p.references = problem.guide.references;
  p.out = out;
  run(small_units_kernel<T>, divide_up(p.units, warps), problem.call.stream, p);
}

// At given prototypes there is nothing to sum before counting, and planes are always split.
template <class T>
Plan units_plan(const Sizes& sizes, const Device& device, const Tuning& tuning) {
  if (sizes.has_prototypes() && tuning.strategy != Strategy::split)
    return split_plan(sizes.sweep<T>(), device);
  return choose_strategy(sizes.sweep<T>(), device, tuning);
}

template <class T>
void count_units(const Problem<T>& problem, Arena& arena, const CountOutputs& out) {
  const Tuning& tuning = problem.call.tuning;
  const Plan plan = units_plan<T>(problem, device_of(problem.guide, tuning), tuning);
  if (plan.strategy == Strategy::small) return count_small_units(problem, out);
  if (plan.strategy == Strategy::split) return count_units_split(problem, plan, arena, out);
  count_tiles_at_once(problem, plan, all_tiles(problem, plan), nullptr, out);
}

}  // namespace protoseg::cuda
