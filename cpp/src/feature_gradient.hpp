// The gradient of the features: for every channel a combination of maps that all channels share,
// see "Through the prototypes" in docs/gradients.md.
#pragma once

#include <cstdint>
#include <vector>

#include "gradient_sums.hpp"

namespace protoseg {

inline void combine(const Kernels& kernels, const float* const* rows, const float* weight,
                    std::int64_t count, std::int64_t n, float* out) {
  kernels.combine_float(rows, weight, count, n, out);
}
inline void combine(const Kernels& kernels, const double* const* rows, const double* weight,
                    std::int64_t count, std::int64_t n, double* out) {
  kernels.combine_double(rows, weight, count, n, out);
}
inline void shrink_row(const Kernels& kernels, StoredRow f, const float* factor, std::int64_t n,
                       float* out) {
  kernels.shrink_float(f, factor, n, out);
}
inline void shrink_row(const Kernels& kernels, StoredRow f, const double* factor, std::int64_t n,
                       double* out) {
  kernels.shrink_double(f, factor, n, out);
}

// Rows of the gradient of n <= block_voxels voxels. One per thread.
template <class T>
class FeatureGradient {
 public:
  FeatureGradient(const Problem<T>& problem, const ChannelGradients& gradients,
                  const MutableView& out)
      : problem_(problem),
        gradients_(gradients),
        out_(out),
        complement_(make_buffer<T>(problem.targets * block_voxels)),
        row_(make_buffer<T>(block_voxels)),
        rows_(3 * problem.targets),
        weight_(3 * problem.targets) {
    for (std::int64_t target = 0; target < problem.targets; ++target)
      weights_.emplace_back(problem.kernels, problem.guide, *problem.weights, problem.voxels);
  }

  // The weights of voxels [first, first + n), for all channels.
  void read_weights(std::int64_t image, std::int64_t first, std::int64_t n) {
    for (std::int64_t target = 0; target < problem_.targets; ++target) {
      weights_[target].read(image, target, first, n);
      const WeightRows<T>& w = weights_[target].rows;
      rows_[3 * target + 1] = w.positive;
      rows_[3 * target + 2] = w.negative;
      if (w.negative != nullptr) continue;
      T* complement = complement_.get() + target * block_voxels;
      for (std::int64_t i = 0; i < n; ++i) complement[i] = T{1} - w.positive[i];
      rows_[3 * target + 2] = complement;
    }
  }

  // along(target) [n]; shrink [n] and f, or null; less [n], or null, is added.
  template <class Along>
  void write_row(std::int64_t image, std::int64_t channel, std::int64_t first, std::int64_t n,
                 Along along, const T* shrink, StoredRow f, const double* added) {
    for (std::int64_t target = 0; target < problem_.targets; ++target) {
      const std::int64_t at = (image * problem_.targets + target) * problem_.channels + channel;
      rows_[3 * target] = along(target);
      weight_[3 * target] = static_cast<T>(gradients_.direction[at]);
      weight_[3 * target + 1] = static_cast<T>(gradients_.positive[at]);
      weight_[3 * target + 2] = static_cast<T>(gradients_.negative[at]);
    }
    const Plane plane = plane_of(out_, image, channel);
    const bool in_place = plane.dtype == dtype_of<T>() && plane.stride[2] == 1 &&
                          plane.extent.n[2] == problem_.voxels;
    T* out = in_place ? reinterpret_cast<T*>(const_cast<std::byte*>(plane.at(first))) : row_.get();
    combine(problem_.kernels, rows_.data(), weight_.data(), 3 * problem_.targets, n, out);
    if (shrink != nullptr) shrink_row(problem_.kernels, f, shrink, n, out);
    for (std::int64_t i = 0; added != nullptr && i < n; ++i) out[i] += static_cast<T>(added[i]);
    if (!in_place) write(problem_.kernels, plane, first, n, out);
  }

 private:
  const Problem<T>& problem_;
  const ChannelGradients& gradients_;
  const MutableView out_;
  std::vector<WeightReader<T>> weights_;  // [T]
  Buffer<T> complement_, row_;
  std::vector<const T*> rows_;  // [T, 3]
  std::vector<T> weight_;       // [T, 3]
};

}  // namespace protoseg
