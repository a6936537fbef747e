// What a Guide keeps: packed targets, and the weights of prototypes per feature size.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <vector>

#include "plane.hpp"
#include "protoseg/engine.hpp"

namespace protoseg {

// An array whose elements are written before they are read.
template <class T>
using Buffer = std::unique_ptr<T[]>;
template <class T>
Buffer<T> make_buffer(std::int64_t n) {
  return Buffer<T>(new T[static_cast<std::size_t>(n)]);
}

// Positive and negative weights at one feature size. Where the largest is tiny or huge they are
// multiplied by a power of two, so that no guide underflows or loses digits in float.
template <class T>
struct Weights {
  // Where a block's weights come from: the pred itself, as w and 1 - w, if it is a plain array of
  // T; the kept `values` [N, T, 2, voxels]; or, too large to keep, a computation per block.
  enum class Source { pred, kept, computed } source = Source::computed;
  Buffer<T> values;
  std::vector<double> scale;  // [N, T, 2], powers of two
  std::vector<double> total;  // [N, T, 2], sums of the scaled weights
  std::int64_t bytes = 0;
};

// What the resizing operator U depends on.
struct Resize {
  Extent from;
  Interpolation interpolation = Interpolation::linear;
  bool align_corners = false;
  bool operator<(const Resize& other) const {
    const auto key = [](const Resize& r) {
      return std::make_tuple(r.from, static_cast<int>(r.interpolation), r.align_corners);
    };
    return key(*this) < key(other);
  }
};

struct ResizePlan;

struct GuideState {
  TensorView pred, mask;  // borrowed
  bool has_mask = false;
  std::optional<double> binarize;
  std::int64_t images = 0, targets = 0;
  std::vector<std::int64_t> size;
  Extent extent;
  std::int64_t words = 0;  // per packed plane
  // What maps are compared with: the target, and the output, pred > 0.5 (the same without a
  // target).
  std::int64_t references = 1;
  Buffer<std::uint64_t> actual;            // [references, N, T, words]: and mask > 0
  Buffer<std::uint64_t> valid;             // [N, words]: mask > 0; null without a mask
  std::vector<std::int64_t> actual_count;  // [references, N, T]
  std::vector<std::int64_t> voxel_count;   // [N]
  std::vector<double> largest;             // [N, T, 2]: largest positive and negative weight

  // Place of a plane in arrays [references, N, T]; `which`: 0 the target, 1 the output.
  std::int64_t plane(int which, std::int64_t image, std::int64_t target) const {
    return (std::min<std::int64_t>(which, references - 1) * images + image) * targets + target;
  }
  const std::uint64_t* actual_of(int which, std::int64_t image, std::int64_t target) const {
    return actual.get() + plane(which, image, target) * words;
  }
  const std::uint64_t* valid_of(std::int64_t image) const {
    return valid ? valid.get() + image * words : nullptr;
  }
  // asked: one or two of `which`.
  References compared(const std::vector<int>& asked, std::int64_t image,
                      std::int64_t target) const {
    return {{actual_of(asked[0], image, target),
             asked.size() > 1 ? actual_of(asked[1], image, target) : nullptr},
            valid_of(image)};
  }
  bool same_size(const Extent& from) const { return from == extent; }

  // Weights at a feature size, prepared once and kept.
  template <class T>
  std::shared_ptr<const Weights<T>> weights(const Kernels& kernels, const Resize& resize) const;

  // How maps of a feature size are resized, prepared once and kept.
  std::shared_ptr<const ResizePlan> plan(const Resize& resize) const;

  std::int64_t bytes() const;

  // The pred (binarized) or mask of voxels [first, first + n) in double.
  void read_pred(const Kernels& kernels, std::int64_t image, std::int64_t target,
                 std::int64_t first, std::int64_t n, double* out) const;
  const double* read_mask(const Kernels& kernels, std::int64_t image, std::int64_t first,
                          std::int64_t n, double* scratch) const;

  mutable std::mutex mutex;
  mutable std::map<Resize, std::shared_ptr<const Weights<float>>> float_weights;
  mutable std::map<Resize, std::shared_ptr<const Weights<double>>> double_weights;
  mutable std::map<Resize, std::shared_ptr<const ResizePlan>> plans;
};

// Pointers to the weights of a block, wherever they come from. One per thread.
template <class T>
class WeightReader {
 public:
  WeightReader(const Kernels& kernels, const GuideState& guide, const Weights<T>& weights,
               std::int64_t feature_voxels);
  // [n] positive and negative weights of voxels [first, first + n); n <= block_voxels if they are
  // computed.
  void read(std::int64_t image, std::int64_t target, std::int64_t first, std::int64_t n);
  WeightRows<T> rows{};

 private:
  const Kernels& kernels_;
  const GuideState& guide_;
  const Weights<T>& weights_;
  std::int64_t feature_voxels_;
  Buffer<double> pred_, mask_;
  Buffer<T> scratch_;
};

inline void fill_weights(const Kernels& kernels, const double* pred, const double* mask,
                         const double* scale, std::int64_t n, float* positive, float* negative) {
  kernels.weights_float(pred, mask, scale, n, positive, negative);
}
inline void fill_weights(const Kernels& kernels, const double* pred, const double* mask,
                         const double* scale, std::int64_t n, double* positive, double* negative) {
  kernels.weights_double(pred, mask, scale, n, positive, negative);
}

// positive, negative [from.voxels()]: U^T (m p) and U^T (m (1 - p)) of one image and target.
void adjoint_weights(const Kernels& kernels, const GuideState& guide, const Resize& resize,
                     std::int64_t image, std::int64_t target, double* positive, double* negative);

}  // namespace protoseg
