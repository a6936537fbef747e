// Where the weights of prototypes come from at a feature size: the pred, kept arrays, or a
// computation per block; and their sums.
#include <algorithm>

#include "guide.hpp"
#include "parallel.hpp"
#include "protoseg/weight.hpp"

namespace protoseg {
namespace {

// Same-size weights up to this many bytes are kept; larger ones are recomputed block by block, so
// that a 512^3 volume needs no copies of its guide.
constexpr std::int64_t kept_weight_bytes = std::int64_t{16} << 20;

inline void add_totals(const Kernels& kernels, const float* positive, const float* negative,
                       std::int64_t n, double lane[2][lanes]) {
  kernels.totals_float(positive, negative, n, lane[0], lane[1]);
}
inline void add_totals(const Kernels& kernels, const double* positive, const double* negative,
                       std::int64_t n, double lane[2][lanes]) {
  kernels.totals_double(positive, negative, n, lane[0], lane[1]);
}

// Totals of the scaled weights, in the fixed reduction shape; `fill(image, target, first, n)`
// gives the pointers of one block.
template <class T, class MakeFill>
void sum_weights(const Kernels& kernels, const GuideState& guide, std::int64_t voxels,
                 Weights<T>& weights, MakeFill make_fill) {
  const std::int64_t planes = guide.images * guide.targets;
  const std::int64_t segments = (voxels + segment_voxels - 1) / segment_voxels;
  std::vector<double> partial(planes * segments * 2);
  parallel_for(planes * segments, std::min(voxels, segment_voxels), [&] {
    return [&, fill = make_fill()](std::int64_t task) mutable {
      const std::int64_t plane = task / segments, begin = task % segments * segment_voxels;
      const std::int64_t end = std::min(voxels, begin + segment_voxels);
      double lane[2][lanes] = {};
      for (std::int64_t first = begin; first < end; first += block_voxels) {
        const std::int64_t n = std::min(block_voxels, end - first);
        const auto [positive, negative] = fill(plane, first, n);
        add_totals(kernels, positive, negative, n, lane);
      }
      for (int side = 0; side < 2; ++side) partial[2 * task + side] = reduce_lanes(lane[side]);
    };
  });
  weights.total.assign(planes * 2, 0.0);
  for (std::int64_t task = 0; task < planes * segments; ++task)
    for (int side = 0; side < 2; ++side)
      weights.total[task / segments * 2 + side] += partial[2 * task + side];
}

// The pred can serve as weights where it lies: rows of T, used as they are.
template <class T>
bool pred_is_weights(const GuideState& guide, const std::vector<double>& scale) {
  const Plane plane = plane_of(guide.pred, 0, 0);
  return !guide.has_mask && !guide.binarize && plane.dtype == dtype_of<T>() &&
         plane.extent.n[2] == guide.extent.voxels() && plane.stride[2] == 1 &&
         std::all_of(scale.begin(), scale.end(), [](double s) { return s == 1.0; });
}

template <class T>
void prepare_same_size(const Kernels& kernels, const GuideState& guide, Weights<T>& weights) {
  const std::int64_t voxels = guide.extent.voxels();
  for (const double largest : guide.largest) weights.scale.push_back(normalising_scale(largest));
  const std::int64_t bytes = guide.images * guide.targets * 2 * voxels * std::int64_t{sizeof(T)};
  Buffer<T> kept;
  if (pred_is_weights<T>(guide, weights.scale)) {
    weights.source = Weights<T>::Source::pred;
  } else if (bytes <= kept_weight_bytes) {
    kept = make_buffer<T>(bytes / std::int64_t{sizeof(T)});
    weights.bytes = bytes;
  }
  sum_weights(kernels, guide, voxels, weights, [&] {
    return [&, reader = WeightReader<T>(kernels, guide, weights, voxels)](
               std::int64_t plane, std::int64_t first, std::int64_t n) mutable {
      reader.read(plane / guide.targets, plane % guide.targets, first, n);
      if (kept) {
        T* row = kept.get() + 2 * plane * voxels + first;
        std::copy_n(reader.rows.positive, n, row);
        std::copy_n(reader.rows.negative, n, row + voxels);
      }
      return std::make_pair(reader.rows.positive, reader.rows.negative);
    };
  });
  if (!kept) return;
  weights.values = std::move(kept);
  weights.source = Weights<T>::Source::kept;
}

template <class T>
void prepare_resized(const Kernels& kernels, const GuideState& guide, const Resize& resize,
                     Weights<T>& weights) {
  const std::int64_t voxels = resize.from.voxels();
  const std::int64_t planes = guide.images * guide.targets;
  weights.source = Weights<T>::Source::kept;
  weights.values = make_buffer<T>(planes * 2 * voxels);
  weights.bytes = planes * 2 * voxels * std::int64_t{sizeof(T)};
  const Buffer<double> adjoint = make_buffer<double>(2 * voxels);
  for (std::int64_t plane = 0; plane < planes; ++plane) {
    adjoint_weights(kernels, guide, resize, plane / guide.targets, plane % guide.targets,
                    adjoint.get(), adjoint.get() + voxels);
    for (int side = 0; side < 2; ++side) {
      const double* exact = adjoint.get() + side * voxels;
      const double scale = normalising_scale(*std::max_element(exact, exact + voxels));
      weights.scale.push_back(scale);
      T* out = weights.values.get() + (2 * plane + side) * voxels;
      for (std::int64_t i = 0; i < voxels; ++i) out[i] = static_cast<T>(scale * exact[i]);
    }
  }
  sum_weights(kernels, guide, voxels, weights, [&] {
    return [&](std::int64_t plane, std::int64_t first, std::int64_t) {
      const T* positive = weights.values.get() + 2 * plane * voxels + first;
      return std::make_pair(positive, positive + voxels);
    };
  });
}

template <class T>
auto& weight_cache(const GuideState& guide) {
  if constexpr (std::is_same_v<T, float>)
    return guide.float_weights;
  else
    return guide.double_weights;
}

}  // namespace

template <class T>
std::shared_ptr<const Weights<T>> GuideState::weights(const Kernels& kernels,
                                                      const Resize& resize) const {
  Resize key = resize;
  if (same_size(resize.from)) key = {resize.from, Interpolation::linear, false};
  const std::lock_guard<std::mutex> lock(mutex);
  auto& cache = weight_cache<T>(*this);
  const auto found = cache.find(key);
  if (found != cache.end()) return found->second;
  auto weights = std::make_shared<Weights<T>>();
  if (same_size(resize.from))
    prepare_same_size(kernels, *this, *weights);
  else
    prepare_resized(kernels, *this, key, *weights);
  cache.emplace(key, weights);
  return weights;
}
template std::shared_ptr<const Weights<float>> GuideState::weights(const Kernels&,
                                                                   const Resize&) const;
template std::shared_ptr<const Weights<double>> GuideState::weights(const Kernels&,
                                                                    const Resize&) const;

template <class T>
WeightReader<T>::WeightReader(const Kernels& kernels, const GuideState& guide,
                              const Weights<T>& weights, std::int64_t feature_voxels)
    : kernels_(kernels), guide_(guide), weights_(weights), feature_voxels_(feature_voxels) {
  if (weights.source != Weights<T>::Source::computed) return;
  pred_ = make_buffer<double>(block_voxels);
  mask_ = make_buffer<double>(block_voxels);
  scratch_ = make_buffer<T>(2 * block_voxels);
}

template <class T>
void WeightReader<T>::read(std::int64_t image, std::int64_t target, std::int64_t first,
                           std::int64_t n) {
  const std::int64_t plane = image * guide_.targets + target;
  if (weights_.source == Weights<T>::Source::pred) {
    const TensorView& pred = guide_.pred;
    const T* row = static_cast<const T*>(pred.data) + image * pred.strides[0] +
                   target * pred.strides[1] + first;
    // While the sums are still being taken, either will do.
    const bool known = !weights_.total.empty();
    rows = {row, nullptr, known && weights_.total[2 * plane] > weights_.total[2 * plane + 1]};
    return;
  }
  if (weights_.source == Weights<T>::Source::kept) {
    const T* row = weights_.values.get() + 2 * plane * feature_voxels_ + first;
    rows = {row, row + feature_voxels_, false};
    return;
  }
  guide_.read_pred(kernels_, image, target, first, n, pred_.get());
  const double* mask = guide_.read_mask(kernels_, image, first, n, mask_.get());
  fill_weights(kernels_, pred_.get(), mask, &weights_.scale[2 * plane], n, scratch_.get(),
               scratch_.get() + block_voxels);
  rows = {scratch_.get(), scratch_.get() + block_voxels, false};
}
template class WeightReader<float>;
template class WeightReader<double>;

}  // namespace protoseg
