// Chunks of groups that the backward pass takes at a time, and their workspace.
#pragma once

#include <algorithm>
#include <cstdint>

#include "gradient_sweep.cuh"
#include "memory.hpp"
#include "problem.hpp"

namespace protoseg::cuda {

// Which gradients are asked for, and what follows from it.
struct Wanted {
  Wanted(const Sizes& sizes, const Gradients& out)
      : features(out.features != nullptr),
        pred(out.pred != nullptr),
        mask(out.mask != nullptr),
        sides(mask   ? 2
              : pred ? 1
                     : 0),
        shrinks(features && needs_square(sizes.options.metric)),
        apart(shrinks && sizes.resized) {}

  bool features, pred, mask;
  int sides;
  bool shrinks;  // the gradient of the features takes a part off that depends on them
  bool apart;    // and that part does not commute with resizing
};

// The gradient that comes down serves as the maps where it lies: whole steps of aligned rows.
template <class Sum>
bool grad_is_along(const Sizes& sizes, const void* grad) {
  return !sizes.resized && !needs_square(sizes.options.metric) && sizes.voxels % step<Sum> == 0 &&
         (sizes.targets == 1 || sizes.targets % 2 == 0) &&
         reinterpret_cast<std::uintptr_t>(grad) % 16 == 0;
}

// Groups of a chunk: all groups of some images, or some groups of one.
struct ChunkSize {
  std::int64_t images, groups;
  std::int64_t count() const { return images * groups; }
};

// Doubles of the adjoint of one map, after each axis.
struct AdjointSizes {
  explicit AdjointSizes(const Extent& from, const Extent& to)
      : after_x(to.z * to.y * from.x), after_y(to.z * from.y * from.x), after_z(from.voxels()) {}
  std::int64_t all() const { return after_x + after_y + after_z; }
  std::int64_t after_x, after_y, after_z;
};

inline std::int64_t along_pitch(const Sizes& sizes) { return round_up(sizes.voxels, 8); }

// Of `shrink`, which is needed at `size`.
inline std::int64_t shrink_pitch(const Sizes& sizes, const Wanted& wanted, const Extent& size) {
  if (!wanted.shrinks) return 0;
  return wanted.apart ? size.voxels() : along_pitch(sizes);
}

// As many groups as the cache holds features of, whose maps take an eighth of the features and
// 32 MiB at most; or one.
template <class T>
ChunkSize chunk_size(const Sizes& sizes, const Wanted& wanted, const Extent& size,
                     const Device& device) {
  constexpr std::int64_t most_bytes = std::int64_t{32} << 20;
  const std::int64_t group_bytes = sizes.group_channels * sizes.voxels * std::int64_t{sizeof(T)};
  const std::int64_t all_bytes = group_bytes * sizes.groups * sizes.images;
  std::int64_t map_bytes =
      (along_rows(sizes.targets) * along_pitch(sizes) + shrink_pitch(sizes, wanted, size)) *
      std::int64_t{sizeof(SumOf<T>)};
  if (sizes.resized)
    map_bytes += sizes.targets * AdjointSizes(sizes.features.extent, size).all() * 8;
  const std::int64_t affordable = std::min(device.cache_bytes / 2 / group_bytes,
                                           std::min(all_bytes / 8, most_bytes) / map_bytes);
  if (affordable < sizes.groups) return {1, std::max<std::int64_t>(1, affordable)};
  // Groups of several images are taken as one row of them, where the strides allow.
  const bool linear = sizes.groups == 1 ||
                      sizes.features.image_stride == sizes.channels * sizes.features.channel_stride;
  return {linear ? std::min(affordable / sizes.groups, sizes.images) : 1, sizes.groups};
}

// What lies between the kernels of the backward pass.
template <class Sum>
struct GradientMemory {
  // of a chunk
  double* sums;        // [count, group channels, segments, pairs, 2]
  double* total;       // [count, T, total_segments]
  Sum* along;          // [count, along_rows, pitch]; null where the gradient itself serves
  Sum* shrink;         // [count, shrink_pitch]
  double* adjoint[3];  // [count, T, ...], after each axis
  Coefficient<Sum>* coefficient;  // [count, T, group channels]
  double* normal;                 // [count, T, sides, group channels]
  std::uint8_t* active;           // [count, T]
  // of the whole call
  double* constant_part;  // [N, G, T, sides]
  double* constant;       // [N, T, sides]
  double* projection;     // [N, T, sides, voxels]
};

template <class T>
GradientMemory<SumOf<T>> take_gradient_memory(const Sizes& sizes, const Wanted& wanted,
                                              const Extent& size, const ChunkSize& chunk,
                                              Arena& arena) {
  using Sum = SumOf<T>;
  GradientMemory<Sum> memory{};
  const std::int64_t maps = chunk.count() * sizes.targets;
  const std::int64_t pitch = along_pitch(sizes);
  memory.sums = arena.take<double>(chunk.count() * sizes.group_channels * sizes.segments<T>() *
                                   divide_up(sizes.targets, 2) * 2);
  memory.total = arena.take<double>(maps * divide_up(pitch, totals_voxels));
  memory.along = arena.take<Sum>(chunk.count() * along_rows(sizes.targets) * pitch);
  if (wanted.shrinks)
    memory.shrink = arena.take<Sum>(chunk.count() * shrink_pitch(sizes, wanted, size));
  if (sizes.resized) {
    const AdjointSizes adjoint(sizes.features.extent, size);
    memory.adjoint[0] = arena.take<double>(maps * adjoint.after_x);
    memory.adjoint[1] = arena.take<double>(maps * adjoint.after_y);
    memory.adjoint[2] = arena.take<double>(maps * adjoint.after_z);
  }
  memory.coefficient = arena.take<Coefficient<Sum>>(maps * sizes.group_channels);
  memory.active = arena.take<std::uint8_t>(maps);
  if (wanted.sides == 0) return memory;
  const std::int64_t rows = sizes.images * sizes.targets * wanted.sides;
  memory.normal = arena.take<double>(maps * wanted.sides * sizes.group_channels);
  memory.constant_part = arena.take<double>(rows * sizes.groups);
  memory.constant = arena.take<double>(rows);
  memory.projection = arena.take<double>(rows * sizes.voxels);
  return memory;
}

}  // namespace protoseg::cuda
