// Host side of groups, and of maps of any groups: sums, boundaries, projections and their sinks,
// image by image as far as the cache holds them; at given prototypes, boundaries and projections of
// all images at once.
#pragma once

#include <optional>

#include "resize_map.cuh"
#include "tape.cuh"
#include "unit_sweep.hpp"

namespace protoseg::cuda {

// What a chunk of images needs between its kernels.
struct GroupChunk {
  std::int64_t images;  // of a chunk at most
  std::int64_t map_groups;
  double* sums;                   // [images, C, segments, T, 2]
  ChannelPrototypes* prototypes;  // [images, G, T, group channels]
  double* weight;                 // the same
  Boundary* boundary;             // [images, G, T]
  UnitThreshold<double>* threshold;
  double* maps;  // [map_groups, T, voxels], of resized features
};

template <class T>
GroupChunk take_group_chunk(const Sizes& sizes, const Device& device, Arena& arena) {
  GroupChunk chunk{};
  const std::int64_t image_bytes = sizes.channels * sizes.voxels * std::int64_t{sizeof(T)};
  chunk.images = std::clamp<std::int64_t>(device.cache_bytes / 2 / image_bytes, 1, sizes.images);
  if (sizes.has_prototypes()) chunk.images = sizes.images;
  const std::int64_t groups = chunk.images * sizes.groups;
  const std::int64_t normals = groups * sizes.targets * sizes.group_channels;
  const std::int64_t summed = sizes.has_prototypes() ? 0 : chunk.images * sizes.channels;
  chunk.sums = arena.take<double>(summed * sizes.segments<T>() * sizes.targets * 2);
  chunk.prototypes = arena.take<ChannelPrototypes>(normals);
  chunk.weight = arena.take<double>(normals);
  chunk.boundary = arena.take<Boundary>(groups * sizes.targets);
  chunk.threshold = arena.take<UnitThreshold<double>>(groups * sizes.targets);
  if (!sizes.resized) return chunk;
  const std::int64_t values = sizes.targets * sizes.voxels;
  // Maps of as many groups as there may be bytes for, or of one.
  chunk.map_groups = std::clamp<std::int64_t>(device.map_bytes / 8 / values, 1, groups);
  chunk.maps = arena.take<double>(chunk.map_groups * values);
  return chunk;
}

// Where projections go.
struct SinkRequest {
  Sink sink;
  void* map = nullptr;
  CountOutputs out{};
  void* square = nullptr;        // of the margin: squared norms
  double* prototypes = nullptr;  // of the margin: [N, T, C, 2], see Tape
};

// Groups [first, first + count) of all N x G, of a chunk that begins with group `origin`.
struct GroupRange {
  std::int64_t origin, first, count;
};

template <class T>
void launch_boundaries(const Problem<T>& problem, const GroupChunk& chunk, const GroupRange& range,
                       const CountOutputs& out) {
  GroupBoundaryParams p{};
  p.sums = problem.partial_sums(chunk.sums, range.first * problem.group_channels);
  p.first_group = range.first;
  p.groups_total = range.count;
  p.groups = problem.groups;
  p.group_channels = problem.group_channels;
  p.metric = problem.options.metric;
  p.temperature = problem.options.temperature;
  p.prototypes = chunk.prototypes;
  p.weight = chunk.weight;
  p.boundary = chunk.boundary;
  p.threshold = chunk.threshold;
  p.out = out;
  p.references = problem.guide.references;
  run(group_boundary_kernel<>, range.count * problem.targets, problem.call.stream, p);
}

template <class T>
void launch_projection(const Problem<T>& problem, const GroupChunk& chunk, const GroupRange& range,
                       const SinkRequest& request) {
  const std::int64_t at = (range.first - range.origin) * problem.targets;
  ProjectParams p{};
  p.features = problem.features;
  p.first_group = range.first;
  p.count = range.count;
  p.groups = problem.groups;
  p.group_channels = problem.group_channels;
  p.targets = problem.targets;
  p.pieces = divide_up(problem.voxels, project_voxels<T>);
  p.weight = chunk.weight + at * problem.group_channels;
  p.boundary = chunk.boundary + at;
  p.metric = problem.options.metric;
  p.sink = request.sink;
  p.map = request.map;
  p.square = request.square;
  p.references = problem.guide.references;
  p.out = request.out;
  const bool rows = problem.features.layout == Layout::rows;
  run(project_kernel<T>, range.count * p.pieces, problem.call.stream, p,
      rows ? 0 : turned_bytes<T>);
}

template <class T>
void launch_map_counts(const Problem<T>& problem, const GroupChunk& chunk, const GroupRange& range,
                       const CountOutputs& out) {
  ResizedCountsParams p{};
  p.values.data = chunk.maps;
  p.values.y_stride = problem.features.extent.x;
  p.values.z_stride = problem.features.extent.y * problem.features.extent.x;
  p.values.x_stride = 1;
  p.target_stride = problem.voxels;
  p.values.channel_stride = problem.targets * problem.voxels;
  p.values.image_stride = problem.groups * p.values.channel_stride;
  p.map_offset = range.first * p.values.channel_stride;
  p.first = range.first;
  p.count = range.count;
  p.per_image = problem.groups;
  p.targets = problem.targets;
  p.part_tiles = part_tiles(problem.cells, range.count * problem.targets, problem.guide.device);
  p.threshold = chunk.threshold + (range.first - range.origin) * problem.targets;
  p.cells = problem.cells;
  p.parts = divide_up(p.cells.tiles(), p.part_tiles);
  p.out = out;
  run(resized_counts_kernel<double>, range.count * problem.targets * p.parts, problem.call.stream,
      p);
}

template <class T>
void launch_resize_map(const Problem<T>& problem, const GroupChunk& chunk, const GroupRange& range,
                       const SinkRequest& request) {
  ResizeMapParams p{};
  p.projection = chunk.maps;
  p.first_group = range.first;
  p.count = range.count;
  p.groups = problem.groups;
  p.group_channels = problem.group_channels;
  p.targets = problem.targets;
  p.boundary = chunk.boundary + (range.first - range.origin) * problem.targets;
  p.cells = problem.cells;
  p.voxels = p.cells.to.voxels();
  p.features = problem.features;
  p.metric = problem.options.metric;
  p.sink = request.sink;
  p.map = request.map;
  p.square = request.square;
  run_elements(resize_map_kernel<>, range.count * problem.cells.to.voxels(), problem.call.stream,
               p);
}

// A chunk's projections at feature size, as many as there is room for, and what is made of them.
template <class T>
void sink_resized(const Problem<T>& problem, const GroupChunk& chunk, const GroupRange& range,
                  const SinkRequest& request) {
  for (std::int64_t done = 0; done < range.count; done += chunk.map_groups) {
    const GroupRange part = {range.origin, range.first + done,
                             std::min(chunk.map_groups, range.count - done)};
    launch_projection(problem, chunk, part, {Sink::projection, chunk.maps, {}});
    if (request.sink == Sink::counts)
      launch_map_counts(problem, chunk, part, request.out);
    else
      launch_resize_map(problem, chunk, part, request);
  }
}

// Keeps a chunk's prototypes for the backward pass.
template <class T>
void launch_tape(const Problem<T>& problem, const GroupChunk& chunk, const GroupRange& range,
                 double* prototypes) {
  TapeParams p{};
  p.prototypes = chunk.prototypes;
  p.first_group = range.first;
  p.count = range.count;
  p.groups = problem.groups;
  p.group_channels = problem.group_channels;
  p.targets = problem.targets;
  p.out = prototypes;
  run_elements(tape_kernel<>, range.count * problem.targets * problem.group_channels,
               problem.call.stream, p);
}

// Units of the same features that are counted on the way: their sums, and so one read of the
// features, serve both.
template <class T>
struct UnitsBeside {
  UnitsBeside(const Sizes& sizes, const Device& device, const Tuning& tuning,
              const GroupChunk& chunk, Arena& arena)
      : plan(plan_of(sizes, device, tuning, chunk.images)), of_chunk{0, chunk.sums, nullptr} {
    if (plan.strategy == Strategy::split)
      of_chunk.threshold =
          arena.take<UnitThreshold<double>>(chunk.images * sizes.channels * sizes.targets);
  }

  void count(const Problem<T>& problem, const UnitTiles& tiles, const CountOutputs& out) const {
    if (plan.strategy == Strategy::split)
      count_tiles_split(problem, plan, tiles, of_chunk, out);
    else
      count_tiles_at_once(problem, plan, tiles, of_chunk.sums, out);
  }

  Plan plan;
  UnitChunk of_chunk;

 private:
  static Plan plan_of(const Sizes& sizes, const Device& device, const Tuning& tuning,
                      std::int64_t images) {
    Sweep sweep = sizes.sweep<T>();
    sweep.units = images * sizes.channels;
    const Plan plan = choose_strategy(sweep, device, tuning);
    return plan.strategy == Strategy::small ? resident_plan(sweep, device) : plan;
  }
};

// units: where the counts of the features' units go, if they are wanted too; not at given
// prototypes.
template <class T>
void project_groups(const Problem<T>& problem, Arena& arena, const SinkRequest& request,
                    const CountOutputs* units = nullptr) {
  const Device device = device_of(problem.guide, problem.call.tuning);
  const GroupChunk chunk = take_group_chunk<T>(problem, device, arena);
  std::optional<UnitsBeside<T>> beside;
  if (units != nullptr) beside.emplace(problem, device, problem.call.tuning, chunk, arena);
  const Plan plan = beside ? beside->plan : sums_plan<T>(problem, device);
  const std::int64_t image_tiles = divide_up(problem.channels, plan.units);
  for (std::int64_t image = 0; image < problem.images; image += chunk.images) {
    const std::int64_t images = std::min(chunk.images, problem.images - image);
    const UnitTiles tiles = {problem.channels, plan.units, image * image_tiles,
                             images * image_tiles};
    if (beside)
      beside->count(problem, tiles, *units);
    else if (!problem.has_prototypes())
      launch_sums(problem, plan, tiles.first, tiles.count, chunk.sums);
    const GroupRange range = {image * problem.groups, image * problem.groups,
                              images * problem.groups};
    launch_boundaries(problem, chunk, range, request.out);
    if (request.prototypes != nullptr) launch_tape(problem, chunk, range, request.prototypes);
    if (problem.resized)
      sink_resized(problem, chunk, range, request);
    else
      launch_projection(problem, chunk, range, request);
  }
}

}  // namespace protoseg::cuda
