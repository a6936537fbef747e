// One call's arguments, validated, with what the drivers need of the guide.
#pragma once

#include <algorithm>
#include <cstdint>

#include "boundary.cuh"
#include "grid.hpp"
#include "guide.hpp"
#include "sums.cuh"

namespace protoseg::cuda {

// Calls run(T{}) with the stored type of the features.
template <class Run>
decltype(auto) with_type(DType dtype, Run run) {
  switch (dtype) {
    case DType::float16: return run(Half{});
    case DType::bfloat16: return run(Bfloat{});
    case DType::float64: return run(double{});
    default: return run(float{});
  }
}

// Sizes of a call; everything but what the guide keeps.
struct Sizes {
  Sizes(const GuideState& guide, const TensorView& view, const Options& options_in,
        const GivenPrototypes* given_in = nullptr)
      : features(to_tensor(view)),
        options(options_in),
        images(guide.images),
        targets(guide.targets),
        channels(view.shape[1]),
        groups(options.groups),
        group_channels(channels / groups),
        voxels(features.extent.voxels()),
        resized(!guide.same_size(features.extent)),
        resize{features.extent, options.interpolation, options.align_corners} {
    if (given_in != nullptr) given = *given_in;
  }

  Tensor features;
  Options options;
  std::int64_t images, targets, channels, groups, group_channels, voxels;
  bool resized;
  Resize resize;
  GivenPrototypes given{};

  // Nothing is summed then: features are read once, whatever the chunks.
  bool has_prototypes() const { return given.positive != nullptr; }
  std::int64_t units() const { return images * channels; }
  template <class T>
  Sweep sweep() const {
    return {units(),
            channels,
            voxels,
            segment_voxels<SumOf<T>>,
            sizeof(T),
            resized,
            features.layout == Layout::channels_last};
  }
  template <class T>
  std::int64_t segments() const {
    return divide_up(voxels, segment_voxels<SumOf<T>>);
  }
};

// The same with what the guide keeps for features of T.
template <class T>
struct Problem : Sizes {
  Problem(const GuideState& guide_in, const Sizes& sizes, const Call& call_in)
      : Sizes(sizes),
        guide(guide_in),
        call(call_in),
        kept(guide.weights<SumOf<T>>(resize, call.stream)),
        cells(resized ? guide.cells(resize, call.stream).cells : Cells{}) {}

  const GuideState& guide;
  const Call& call;
  const KeptWeights<SumOf<T>>& kept;
  const Cells cells;

  // Sums of units [first, first + ...) as later kernels read them.
  PartialSums partial_sums(const double* sums, std::int64_t first_unit) const {
    const std::int64_t summed = has_prototypes() ? 0 : this->template segments<T>();
    return {sums,   kept.weights.total, features,      first_unit, channels, targets,
            summed, given.positive,     given.negative};
  }
};

// The device whose limits the policy reads, with what the caller wants to be different.
inline Device device_of(const GuideState& guide, const Tuning& tuning) {
  Device device = guide.device;
  if (tuning.cache_bytes > 0) device.cache_bytes = tuning.cache_bytes;
  if (tuning.map_bytes > 0) device.map_bytes = tuning.map_bytes;
  return device;
}

}  // namespace protoseg::cuda
