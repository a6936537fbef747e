#include "guide.hpp"

#include <cmath>
#include <limits>

#include "dispatch.hpp"
#include "parallel.hpp"
#include "validate.hpp"

namespace protoseg {
namespace {

// Voxels validated and packed per task: a multiple of word_bits and of block_voxels.
constexpr std::int64_t guide_chunk = 16 * block_voxels;

// Same-size weights up to this many bytes are kept; larger ones are recomputed block by block, so
// that a 512^3 volume needs no copies of its guide.
constexpr std::int64_t kept_weight_bytes = std::int64_t{16} << 20;

constexpr double infinity = std::numeric_limits<double>::infinity();

Range empty_range() { return {infinity, -infinity, false}; }

void merge(Range& into, const Range& from) {
  into.lowest = std::min(into.lowest, from.lowest);
  into.highest = std::max(into.highest, from.highest);
  into.has_nan = into.has_nan || from.has_nan;
}

// The power of two that keeps weights in float's comfortable range: 1 for all ordinary guides.
double normalising_scale(double largest) {
  if (!(largest > 0.0) || (largest >= 0x1p-20 && largest <= 0x1p20)) return 1.0;
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::ldexp(1.0, std::min(-exponent, 1023));
}

// What one chunk of voxels of one image tells; [T] where it depends on the target.
struct ChunkFindings {
  Range mask = empty_range();
  std::vector<Range> pred;
  std::vector<double> largest;  // [T, 2]
  std::vector<std::int64_t> actual;
  std::int64_t voxels = 0;
  bool target_binary = true;
};

std::int64_t popcount(const std::uint64_t* words, std::int64_t n) {
  std::int64_t bits = 0;
  for (std::int64_t i = 0; i < n; ++i) bits += __builtin_popcountll(words[i]);
  return bits;
}

// Validates, packs and measures voxels [first, first + n) of one image.
class ChunkScan {
 public:
  ChunkScan(const Kernels& kernels, GuideState& guide, const TensorView* target)
      : kernels_(kernels),
        guide_(guide),
        target_(target),
        value_(make_buffer<double>(block_voxels)),
        mask_(make_buffer<double>(block_voxels)),
        positive_(make_buffer<double>(block_voxels)),
        negative_(make_buffer<double>(block_voxels)) {}

  ChunkFindings operator()(std::int64_t image, std::int64_t first, std::int64_t n) {
    ChunkFindings found;
    found.pred.assign(guide_.targets, empty_range());
    found.largest.assign(2 * guide_.targets, 0.0);
    found.actual.assign(guide_.targets, 0);
    for (std::int64_t done = 0; done < n; done += block_voxels)
      block(image, first + done, std::min(block_voxels, n - done), found);
    return found;
  }

 private:
  void block(std::int64_t image, std::int64_t first, std::int64_t n, ChunkFindings& found) {
    const std::int64_t words = (n + word_bits - 1) / word_bits;
    std::uint64_t* valid = nullptr;
    if (guide_.has_mask) {
      valid = guide_.valid.get() + image * guide_.words + first / word_bits;
      read(kernels_, plane_of(guide_.mask, image, 0), first, n, mask_.get());
      kernels_.range(mask_.get(), n, &found.mask);
      kernels_.pack(mask_.get(), 0.0, n, valid);
      found.voxels += popcount(valid, words);
    } else {
      found.voxels += n;
    }
    for (std::int64_t target = 0; target < guide_.targets; ++target) {
      scan_pred(image, target, first, n, found);
      std::uint64_t* actual = guide_.actual.get() +
                              (image * guide_.targets + target) * guide_.words +
                              first / word_bits;
      pack_reference(image, target, first, n, actual, found);
      for (std::int64_t i = 0; valid != nullptr && i < words; ++i) actual[i] &= valid[i];
      found.actual[target] += popcount(actual, words);
    }
  }

  // Leaves pred, not yet binarized, in value_.
  void scan_pred(std::int64_t image, std::int64_t target, std::int64_t first, std::int64_t n,
                 ChunkFindings& found) {
    double* largest = &found.largest[2 * target];
    guide_.read_pred(kernels_, image, target, first, n, positive_.get());
    if (guide_.binarize) {
      read(kernels_, plane_of(guide_.pred, image, target), first, n, value_.get());
      kernels_.range(value_.get(), n, &found.pred[target]);
    } else {
      std::swap(value_, positive_);
      Range range = empty_range();
      kernels_.range(value_.get(), n, &range);
      merge(found.pred[target], range);
      if (!guide_.has_mask) {
        largest[0] = std::max(largest[0], range.highest);
        largest[1] = std::max(largest[1], 1.0 - range.lowest);
        return;
      }
    }
    const double one[2] = {1.0, 1.0};
    const double* pred = guide_.binarize ? positive_.get() : value_.get();
    kernels_.weights_double(pred, guide_.has_mask ? mask_.get() : nullptr, one, n,
                            positive_.get(), negative_.get());
    Range positive = empty_range(), negative = empty_range();
    kernels_.range(positive_.get(), n, &positive);
    kernels_.range(negative_.get(), n, &negative);
    largest[0] = std::max(largest[0], positive.highest);
    largest[1] = std::max(largest[1], negative.highest);
  }

  void pack_reference(std::int64_t image, std::int64_t target, std::int64_t first, std::int64_t n,
                      std::uint64_t* words, ChunkFindings& found) {
    if (target_ != nullptr) {
      read(kernels_, plane_of(*target_, image, target), first, n, value_.get());
      found.target_binary = found.target_binary && kernels_.is_binary(value_.get(), n);
    }
    kernels_.pack(value_.get(), 0.5, n, words);
  }

  const Kernels& kernels_;
  GuideState& guide_;
  const TensorView* target_;
  Buffer<double> value_, mask_, positive_, negative_;
};

void check_findings(const GuideState& guide, const std::vector<ChunkFindings>& findings) {
  Range mask = empty_range(), pred = empty_range();
  bool target_binary = true;
  for (const ChunkFindings& found : findings) {
    merge(mask, found.mask);
    for (const Range& range : found.pred) merge(pred, range);
    target_binary = target_binary && found.target_binary;
  }
  if (pred.has_nan || !(pred.lowest >= 0.0 && pred.highest <= 1.0)) throw_pred_range(pred);
  if (!target_binary) throw_target_values();
  if (!guide.has_mask) return;
  const double most = is_floating(guide.mask.dtype) ? std::numeric_limits<double>::max() : 1.0;
  if (mask.has_nan || !(mask.lowest >= 0.0 && mask.highest <= most))
    throw_mask_values(guide.mask.dtype, mask);
}

void scan(const Kernels& kernels, GuideState& guide, const TensorView* target) {
  const std::int64_t voxels = guide.extent.voxels();
  const std::int64_t chunks = (voxels + guide_chunk - 1) / guide_chunk;
  std::vector<ChunkFindings> findings(guide.images * chunks);
  parallel_for(guide.images * chunks, guide_chunk * (1 + guide.targets), [&] {
    return [&, scan_chunk = ChunkScan(kernels, guide, target)](std::int64_t task) mutable {
      const std::int64_t first = task % chunks * guide_chunk;
      findings[task] = scan_chunk(task / chunks, first, std::min(guide_chunk, voxels - first));
    };
  });
  check_findings(guide, findings);
  guide.largest.assign(guide.images * guide.targets * 2, 0.0);
  guide.actual_count.assign(guide.images * guide.targets, 0);
  guide.voxel_count.assign(guide.images, 0);
  for (std::int64_t task = 0; task < guide.images * chunks; ++task) {
    const std::int64_t image = task / chunks;
    guide.voxel_count[image] += findings[task].voxels;
    for (std::int64_t target_index = 0; target_index < guide.targets; ++target_index) {
      const std::int64_t at = image * guide.targets + target_index;
      guide.actual_count[at] += findings[task].actual[target_index];
      for (int side = 0; side < 2; ++side)
        guide.largest[2 * at + side] = std::max(guide.largest[2 * at + side],
                                                findings[task].largest[2 * target_index + side]);
    }
  }
}

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
        std::copy_n(reader.positive, n, row);
        std::copy_n(reader.negative, n, row + voxels);
      }
      return std::make_pair(reader.positive, reader.negative);
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
      Range range = empty_range();
      kernels.range(exact, voxels, &range);
      const double scale = normalising_scale(range.highest);
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

void GuideState::read_pred(const Kernels& kernels, std::int64_t image, std::int64_t target,
                           std::int64_t first, std::int64_t n, double* out) const {
  read(kernels, plane_of(pred, image, target), first, n, out);
  if (!binarize) return;
  for (std::int64_t i = 0; i < n; ++i) out[i] = out[i] > *binarize ? 1.0 : 0.0;
}

const double* GuideState::read_mask(const Kernels& kernels, std::int64_t image,
                                    std::int64_t first, std::int64_t n, double* scratch) const {
  if (!has_mask) return nullptr;
  read(kernels, plane_of(mask, image, 0), first, n, scratch);
  return scratch;
}

std::int64_t GuideState::bytes() const {
  std::int64_t total = (images * targets + (has_mask ? images : 0)) * words * 8;
  const std::lock_guard<std::mutex> lock(mutex);
  for (const auto& entry : float_weights) total += entry.second->bytes;
  for (const auto& entry : double_weights) total += entry.second->bytes;
  return total;
}

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
    positive = static_cast<const T*>(pred.data) + image * pred.strides[0] +
               target * pred.strides[1] + first;
    negative = nullptr;
    return;
  }
  if (weights_.source == Weights<T>::Source::kept) {
    positive = weights_.values.get() + 2 * plane * feature_voxels_ + first;
    negative = positive + feature_voxels_;
    return;
  }
  guide_.read_pred(kernels_, image, target, first, n, pred_.get());
  const double* mask = guide_.read_mask(kernels_, image, first, n, mask_.get());
  fill_weights(kernels_, pred_.get(), mask, &weights_.scale[2 * plane], n, scratch_.get(),
               scratch_.get() + block_voxels);
  positive = scratch_.get();
  negative = positive + block_voxels;
}
template class WeightReader<float>;
template class WeightReader<double>;

Guide::Guide(const TensorView& pred, const TensorView* target, const TensorView* mask,
             std::optional<double> binarize)
    : state_(std::make_shared<GuideState>()) {
  validate_guide(pred, target, mask, binarize);
  GuideState& guide = *state_;
  guide.pred = pred;
  guide.has_mask = mask != nullptr;
  if (mask != nullptr) guide.mask = *mask;
  guide.binarize = binarize;
  guide.images = pred.shape[0];
  guide.targets = pred.shape[1];
  guide.size.assign(pred.shape.begin() + 2, pred.shape.begin() + pred.rank);
  guide.extent = spatial_extent(pred);
  guide.words = (guide.extent.voxels() + word_bits - 1) / word_bits;
  guide.actual = make_buffer<std::uint64_t>(guide.images * guide.targets * guide.words);
  if (guide.has_mask) guide.valid = make_buffer<std::uint64_t>(guide.images * guide.words);
  scan(kernels(), guide, target);
}

std::int64_t Guide::images() const { return state_->images; }
std::int64_t Guide::targets() const { return state_->targets; }
std::vector<std::int64_t> Guide::size() const { return state_->size; }
std::int64_t Guide::bytes() const { return state_->bytes(); }

}  // namespace protoseg
