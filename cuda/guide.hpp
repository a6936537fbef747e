// What a Guide keeps on the device: packed bits, and per feature size weights and cells.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <vector>

#include "guide_weights.cuh"
#include "memory.hpp"
#include "policy.hpp"
#include "protoseg/cuda.hpp"

namespace protoseg::cuda {

// What the resizing operator depends on.
struct Resize {
  Extent from;
  Interpolation interpolation = Interpolation::linear;
  bool align_corners = false;
  auto key() const {
    return std::make_tuple(from.z, from.y, from.x, static_cast<int>(interpolation), align_corners);
  }
  bool operator<(const Resize& other) const { return key() < other.key(); }
  bool operator==(const Resize& other) const { return key() == other.key(); }
};

template <class Sum>
struct KeptWeights {
  Weights<Sum> weights;
  const double* scale = nullptr;  // [N, T, 2]
  Buffer buffer;
};

struct KeptCells {
  Cells cells;
  Buffer buffer;
};

// The tensor as kernels have it.
Tensor to_tensor(const TensorView& view);
Device current_device();

struct GuideState {
  TensorView pred_view;
  Tensor pred, target, mask;
  bool has_target = false, has_mask = false;
  std::optional<double> binarize;
  std::int64_t images = 0, targets = 0;
  std::vector<std::int64_t> size;
  Extent extent;
  Allocator allocator;
  int device_index = 0;
  Device device;

  Buffer buffer;  // what `references`, `largest` and `findings` point to
  References references;
  unsigned long long* largest = nullptr;  // [N, T, 2], ordered
  Findings* findings = nullptr;
  Limits limits{};

  std::int64_t planes() const { return images * targets; }
  bool same_size(const Extent& from) const { return from == extent; }
  Guiding guiding() const {
    return {pred, mask, has_mask, binarize.has_value(), binarize.value_or(0.0), targets};
  }

  // Prepared once per feature size and kept.
  template <class Sum>
  const KeptWeights<Sum>& weights(const Resize& resize, Stream stream) const;
  const KeptCells& cells(const Resize& resize, Stream stream) const;

  std::int64_t bytes() const;

  mutable std::mutex mutex;
  mutable std::map<Resize, std::unique_ptr<KeptWeights<float>>> float_weights;
  mutable std::map<Resize, std::unique_ptr<KeptWeights<double>>> double_weights;
  mutable std::map<Resize, std::unique_ptr<KeptCells>> kept_cells;
};

// Throws unless the guide's device is the current one.
void check_device(const GuideState& guide);

}  // namespace protoseg::cuda
