// One call's arguments, validated, with the sizes and tables that every driver needs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "dispatch.hpp"
#include "guide.hpp"
#include "plane.hpp"
#include "validate.hpp"

namespace protoseg {

// Sums and comparisons run in T: float for float16, bfloat16 and float32 features, double for
// float64 ones.
template <class T>
struct Problem {
  Problem(const Guide& guide_in, const TensorView& features_in, const Options& options_in,
          std::vector<int> asked_in = {0})
      : kernels(protoseg::kernels()),
        guide(*guide_in.state()),
        features(features_in),
        options(options_in),
        images(guide.images),
        targets(guide.targets),
        asked(std::move(asked_in)),
        pairs(targets * static_cast<std::int64_t>(asked.size())),
        channels(features.shape[1]),
        groups(options.groups),
        group_channels(channels / groups),
        from(spatial_extent(features)),
        voxels(from.voxels()),
        same_size(guide.same_size(from)),
        resize{from, options.interpolation, options.align_corners},
        weights(guide.weights<T>(kernels, resize)) {
    const Plane plane = plane_of(features, 0, 0);
    const bool evenly_spaced = plane.extent.n[2] == voxels;
    const bool neighbours = evenly_spaced && plane.stride[2] == 1;
    rows_of_t = neighbours && features.dtype == dtype_of<T>();
    in_place = rows_of_t || (neighbours && item_size(features.dtype) == 2);
    channels_last = evenly_spaced && !neighbours && channels > 1 && features.strides[1] == 1;
    if (channels_last)
      tile = 16;
    else if (weights->source == Weights<T>::Source::computed)
      tile = 8;
  }

  const Kernels& kernels;
  const GuideState& guide;
  const TensorView features;
  const Options options;
  const std::int64_t images, targets;
  // What maps are compared with, see GuideState::plane; tallies are [..., T, asked].
  const std::vector<int> asked;
  const std::int64_t pairs;  // T x asked
  const std::int64_t channels, groups, group_channels;
  const Extent from;
  const std::int64_t voxels;  // of a feature plane
  const bool same_size;
  const Resize resize;
  const std::shared_ptr<const Weights<T>> weights;
  bool rows_of_t = false;      // planes are contiguous in T
  bool in_place = false;       // or in halves that kernels widen: read without a copy
  bool channels_last = false;  // channels are neighbours, voxels evenly spaced
  // Channels read together: a cache line of neighbours in channels-last memory, or as many as
  // make recomputing a block's weights cheap, or one.
  std::int64_t tile = 1;

  // Voxels that one kernel call may cover: rows in memory have no end, scratch holds a block.
  std::int64_t feature_piece() const { return in_place ? segment_voxels : block_voxels; }
  std::int64_t sum_piece() const {
    return weights->source == Weights<T>::Source::computed ? block_voxels : feature_piece();
  }

  std::int64_t tiles() const { return (channels + tile - 1) / tile; }
  std::int64_t segments() const { return (voxels + segment_voxels - 1) / segment_voxels; }
};

// What to fetch from memory while a plane is read. A plane that stays in the cache is read twice,
// first from memory: then the fetching goes on evenly through both passes, half a plane ahead, so
// that memory never waits for arithmetic. Otherwise it runs a few blocks ahead.
template <class T>
class ReadAhead {
 public:
  ReadAhead(const Problem<T>& problem, bool planes_from_cache)
      : problem_(problem), evenly_(planes_from_cache && problem.in_place) {}

  // While row, the voxels from `first` on, is read for the first or second time.
  Soon of_first_pass(const void* row, std::int64_t image, std::int64_t channel,
                     std::int64_t first) const {
    return evenly_ ? plane_at(image, channel, (first + problem_.voxels) / 2 + margin)
                   : further_on(row);
  }
  Soon of_second_pass(const void* row, std::int64_t image, std::int64_t channel,
                      std::int64_t first) const {
    return evenly_ ? plane_at(image, channel, problem_.voxels + first / 2 + margin)
                   : further_on(row);
  }

 private:
  static constexpr std::int64_t margin = 2 * block_voxels;

  Soon further_on(const void* row) const {
    const std::int64_t item =
        problem_.in_place ? item_size(problem_.features.dtype) : std::int64_t{sizeof(T)};
    return {static_cast<const std::byte*>(row) + 8 * block_voxels * item, false};
  }

  // The voxel at `position` of the plane and its successor.
  Soon plane_at(std::int64_t image, std::int64_t channel, std::int64_t position) const {
    if (position >= problem_.voxels) {
      position -= problem_.voxels;
      if (++channel == problem_.channels) {
        channel = 0;
        image = std::min(image + 1, problem_.images - 1);
      }
    }
    const TensorView& f = problem_.features;
    return {element(f, image * f.strides[0] + channel * f.strides[1] +
                           std::min(position, problem_.voxels - 1)),
            true};
  }

  const Problem<T>& problem_;
  const bool evenly_;
};

// Rows of neighbouring channels: where they lie if kernels can read them there, otherwise as rows
// of T in scratch.
template <class T>
class TileReader {
 public:
  TileReader(const Problem<T>& problem, std::int64_t most_channels)
      : problem_(problem), rows_(most_channels), scratch_(make_buffer<T>(most_channels * pitch)) {}

  // [count] rows of n <= feature_piece() voxels from `first` on.
  const StoredRow* read(std::int64_t image, std::int64_t channel, std::int64_t count,
                        std::int64_t first, std::int64_t n) {
    if (problem_.in_place) {
      const TensorView& f = problem_.features;
      const std::int64_t at = image * f.strides[0] + channel * f.strides[1] + first;
      for (std::int64_t i = 0; i < count; ++i)
        rows_[i] = {element(f, at + i * f.strides[1]), f.dtype};
    } else {
      copy(image, channel, count, first, n, scratch_.get(), pitch);
      for (std::int64_t i = 0; i < count; ++i)
        rows_[i] = {scratch_.get() + i * pitch, dtype_of<T>()};
    }
    return rows_.data();
  }

  // The same in T, written as rows `to_pitch` apart; n may be larger.
  void copy(std::int64_t image, std::int64_t channel, std::int64_t count, std::int64_t first,
            std::int64_t n, T* to, std::int64_t to_pitch) const {
    if (problem_.channels_last)
      return turn(plane_of(problem_.features, image, channel), count, first, n, to, to_pitch);
    for (std::int64_t i = 0; i < count; ++i)
      protoseg::read(problem_.kernels, plane_of(problem_.features, image, channel + i), first, n,
                     to + i * to_pitch);
  }

  // Rows a power of two apart would all compete for the same cache sets.
  static constexpr std::int64_t gap = 16;

 private:
  static constexpr std::int64_t pitch = block_voxels + gap;

  void turn(const Plane& plane, std::int64_t count, std::int64_t first, std::int64_t n, T* to,
            std::int64_t to_pitch) const {
    const auto read_rows = [&] {
      if constexpr (std::is_same_v<T, float>)
        return problem_.kernels.tile_to_float;
      else
        return problem_.kernels.tile_to_double;
    }();
    read_rows(plane.dtype, plane.at(first), plane.stride[2], n, count, to, to_pitch);
  }

  const Problem<T>& problem_;
  std::vector<StoredRow> rows_;
  Buffer<T> scratch_;
};

}  // namespace protoseg
