// What comes down from the loss, voxel by voxel: the maps `along` and `shrink` of
// docs/gradients.md, at `size` and at feature size.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "adjoint.hpp"
#include "problem.hpp"
#include "protoseg/gradients.hpp"
#include "protoseg/rule_gradient.hpp"

namespace protoseg {

// The maps at `size`, computed where they are asked for.
template <class T>
class MarginGradient {
 public:
  MarginGradient(const Problem<T>& problem, const Tape<T>& tape, const T* grad)
      : problem_(problem), tape_(tape), grad_(grad), voxels_(problem.guide.extent.voxels()) {}

  // along [n] of voxels [first, first + n); shrink [n], unless null, is added to.
  template <class Out>
  void read(std::int64_t image, std::int64_t group, std::int64_t target, std::int64_t first,
            std::int64_t n, Out* along, Out* shrink) const {
    const std::int64_t plane = image * problem_.groups + group;
    const T* h = grad_ + (plane * problem_.targets + target) * voxels_ + first;
    if (problem_.options.metric == Metric::euclidean) {
      for (std::int64_t i = 0; i < n; ++i) along[i] = static_cast<Out>(h[i]);
      return;
    }
    if (!has_gradient(problem_.options.metric, problem_.group_channels)) {
      std::fill_n(along, n, Out{0});
      return;
    }
    const T* margin = tape_.margin + (h - grad_);
    const T* square = tape_.square + plane * voxels_ + first;
    for (std::int64_t i = 0; i < n; ++i) {
      const VoxelGradient v = voxel_gradient(
          static_cast<double>(h[i]), static_cast<double>(margin[i]), static_cast<double>(square[i]),
          problem_.options.metric, problem_.options.temperature);
      along[i] = static_cast<Out>(v.along);
      if (shrink != nullptr) shrink[i] += static_cast<Out>(v.shrink);
    }
  }

  // `along` where it lies, if it is the gradient that came down itself; otherwise null.
  const T* in_place(std::int64_t image, std::int64_t group, std::int64_t target,
                    std::int64_t first) const {
    if (problem_.options.metric != Metric::euclidean) return nullptr;
    return grad_ + ((image * problem_.groups + group) * problem_.targets + target) * voxels_ +
           first;
  }

  // Something other than exact zeros comes down.
  bool any(std::int64_t image, std::int64_t group, std::int64_t target) const {
    const T* h = grad_ + ((image * problem_.groups + group) * problem_.targets + target) * voxels_;
    return std::any_of(h, h + voxels_, [](T x) { return x != T{0}; });
  }

 private:
  const Problem<T>& problem_;
  const Tape<T> tape_;
  const T* grad_;
  const std::int64_t voxels_;  // of `size`
};

// Groups [begin, end) of all images, with U^T along [N, groups, T, voxels] if features are resized.
template <class T>
struct GroupBatch {
  std::int64_t begin, end;
  Buffer<T> along;

  const T* row(const Problem<T>& problem, std::int64_t image, std::int64_t group,
               std::int64_t target, std::int64_t first) const {
    const std::int64_t plane = image * (end - begin) + group - begin;
    return along.get() + (plane * problem.targets + target) * problem.voxels + first;
  }
};

// As many groups as fill a few MiB: what is kept of them must not grow with the channels.
template <class T>
std::int64_t groups_per_batch(const Problem<T>& problem) {
  constexpr std::int64_t most_bytes = std::int64_t{2} << 20;
  if (problem.same_size) return problem.groups;
  const std::int64_t bytes =
      problem.images * problem.targets * problem.voxels * std::int64_t{sizeof(T)};
  return std::clamp<std::int64_t>(most_bytes / bytes, 1, problem.groups);
}

template <class T>
GroupBatch<T> make_batch(const Problem<T>& problem, const MarginGradient<T>& margin,
                         std::int64_t begin) {
  GroupBatch<T> batch{begin, std::min(problem.groups, begin + groups_per_batch(problem)), nullptr};
  if (problem.same_size) return batch;
  const std::int64_t groups = batch.end - begin, planes = problem.images * groups;
  batch.along = make_buffer<T>(planes * problem.targets * problem.voxels);
  const auto make_rows = [&] {
    return [&](std::int64_t plane, std::int64_t first, std::int64_t n, double* out,
               std::int64_t pitch) {
      for (std::int64_t target = 0; target < problem.targets; ++target)
        margin.template read<double>(plane / groups, begin + plane % groups, target, first, n,
                                     out + target * pitch, nullptr);
    };
  };
  adjoint_maps(
      problem.kernels, problem.resize, problem.guide.extent, planes, problem.targets, make_rows,
      [&](std::int64_t plane, std::int64_t target, std::int64_t first, std::int64_t n,
          const double* values) {
        T* out = batch.along.get() + (plane * problem.targets + target) * problem.voxels + first;
        for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(values[i]);
      });
  return batch;
}

// The maps at feature size, for up to `most` voxels at a time. One per thread.
template <class T>
class FeatureRows {
 public:
  FeatureRows(const Problem<T>& problem, const MarginGradient<T>& margin,
              const GroupBatch<T>& batch, std::int64_t most, bool shrinks)
      : problem_(problem), margin_(margin), batch_(batch), most_(most), along_(problem.targets) {
    if (!problem.same_size || problem.options.metric == Metric::euclidean) return;
    scratch_ = make_buffer<T>(problem.targets * most);
    if (shrinks) shrink_ = make_buffer<T>(most);
  }

  void read(std::int64_t image, std::int64_t group, std::int64_t first, std::int64_t n) {
    if (shrink_) std::fill_n(shrink_.get(), n, T{0});
    for (std::int64_t target = 0; target < problem_.targets; ++target) {
      along_[target] = problem_.same_size ? margin_.in_place(image, group, target, first)
                                          : batch_.row(problem_, image, group, target, first);
      if (along_[target] != nullptr) continue;
      T* row = scratch_.get() + target * most_;
      margin_.read(image, group, target, first, n, row, shrink_.get());
      along_[target] = row;
    }
  }
  const T* along(std::int64_t target) const { return along_[target]; }
  const T* shrink() const { return shrink_.get(); }  // null: none

 private:
  const Problem<T>& problem_;
  const MarginGradient<T>& margin_;
  const GroupBatch<T>& batch_;
  const std::int64_t most_;
  std::vector<const T*> along_;
  Buffer<T> scratch_, shrink_;
};

}  // namespace protoseg
