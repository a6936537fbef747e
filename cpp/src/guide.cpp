#include "guide.hpp"

#include <cmath>
#include <limits>

#include "dispatch.hpp"
#include "parallel.hpp"
#include "resize_plan.hpp"
#include "validate.hpp"

namespace protoseg {
namespace {

// Voxels validated and packed per task: a multiple of word_bits and of block_voxels.
constexpr std::int64_t guide_chunk = 16 * block_voxels;

constexpr double infinity = std::numeric_limits<double>::infinity();

Range empty_range() { return {infinity, -infinity, false}; }

void merge(Range& into, const Range& from) {
  into.lowest = std::min(into.lowest, from.lowest);
  into.highest = std::max(into.highest, from.highest);
  into.has_nan = into.has_nan || from.has_nan;
}

// What one chunk of voxels of one image tells; [T] where it depends on the target.
struct ChunkFindings {
  Range mask = empty_range();
  std::vector<Range> pred;
  std::vector<double> largest;       // [T, 2]
  std::vector<std::int64_t> actual;  // [references, T]
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
    found.actual.assign(guide_.references * guide_.targets, 0);
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
      for (int which = guide_.references - 1; which >= 0; --which) {
        std::uint64_t* actual = guide_.actual.get() +
                                guide_.plane(which, image, target) * guide_.words +
                                first / word_bits;
        if (which == guide_.references - 1)
          scan_pred(image, target, first, n, actual, found);
        else
          pack_target(image, target, first, n, actual, found);
        for (std::int64_t i = 0; valid != nullptr && i < words; ++i) actual[i] &= valid[i];
        found.actual[which * guide_.targets + target] += popcount(actual, words);
      }
    }
  }

  // Packs the output, and measures pred.
  void scan_pred(std::int64_t image, std::int64_t target, std::int64_t first, std::int64_t n,
                 std::uint64_t* output, ChunkFindings& found) {
    double* largest = &found.largest[2 * target];
    const Plane plane = plane_of(guide_.pred, image, target);
    if (plane.dtype == DType::float32 && plane.is_row() && !guide_.binarize && !guide_.has_mask) {
      Range range = empty_range();
      kernels_.scan_floats(reinterpret_cast<const float*>(plane.at(first)), n, &range, output);
      merge(found.pred[target], range);
      largest[0] = std::max(largest[0], range.highest);
      largest[1] = std::max(largest[1], 1.0 - range.lowest);
      return;
    }
    guide_.read_pred(kernels_, image, target, first, n, positive_.get());
    if (guide_.binarize) {
      read(kernels_, plane, first, n, value_.get());
      kernels_.range(value_.get(), n, &found.pred[target]);
      kernels_.pack(value_.get(), 0.5, n, output);
    } else {
      std::swap(value_, positive_);
      kernels_.pack(value_.get(), 0.5, n, output);
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
    kernels_.weights_double(pred, guide_.has_mask ? mask_.get() : nullptr, one, n, positive_.get(),
                            negative_.get());
    Range positive = empty_range(), negative = empty_range();
    kernels_.range(positive_.get(), n, &positive);
    kernels_.range(negative_.get(), n, &negative);
    largest[0] = std::max(largest[0], positive.highest);
    largest[1] = std::max(largest[1], negative.highest);
  }

  void pack_target(std::int64_t image, std::int64_t target, std::int64_t first, std::int64_t n,
                   std::uint64_t* words, ChunkFindings& found) {
    const Plane plane = plane_of(*target_, image, target);
    if ((plane.dtype == DType::boolean || plane.dtype == DType::uint8) && plane.is_row()) {
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(plane.at(first));
      found.target_binary = kernels_.scan_bytes(bytes, n, words) && found.target_binary;
      return;
    }
    read(kernels_, plane, first, n, value_.get());
    found.target_binary = found.target_binary && kernels_.is_binary(value_.get(), n);
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
  guide.actual_count.assign(guide.references * guide.images * guide.targets, 0);
  guide.voxel_count.assign(guide.images, 0);
  for (std::int64_t task = 0; task < guide.images * chunks; ++task) {
    const std::int64_t image = task / chunks;
    guide.voxel_count[image] += findings[task].voxels;
    for (std::int64_t target_index = 0; target_index < guide.targets; ++target_index) {
      const std::int64_t at = image * guide.targets + target_index;
      for (int which = 0; which < guide.references; ++which)
        guide.actual_count[guide.plane(which, image, target_index)] +=
            findings[task].actual[which * guide.targets + target_index];
      for (int side = 0; side < 2; ++side)
        guide.largest[2 * at + side] =
            std::max(guide.largest[2 * at + side], findings[task].largest[2 * target_index + side]);
    }
  }
}

}  // namespace

void GuideState::read_pred(const Kernels& kernels, std::int64_t image, std::int64_t target,
                           std::int64_t first, std::int64_t n, double* out) const {
  read(kernels, plane_of(pred, image, target), first, n, out);
  if (!binarize) return;
  for (std::int64_t i = 0; i < n; ++i) out[i] = out[i] > *binarize ? 1.0 : 0.0;
}

const double* GuideState::read_mask(const Kernels& kernels, std::int64_t image, std::int64_t first,
                                    std::int64_t n, double* scratch) const {
  if (!has_mask) return nullptr;
  read(kernels, plane_of(mask, image, 0), first, n, scratch);
  return scratch;
}

std::int64_t GuideState::bytes() const {
  std::int64_t total = (references * images * targets + (has_mask ? images : 0)) * words * 8;
  const std::lock_guard<std::mutex> lock(mutex);
  for (const auto& entry : float_weights) total += entry.second->bytes;
  for (const auto& entry : double_weights) total += entry.second->bytes;
  for (const auto& entry : plans) total += entry.second->bytes();
  return total;
}

std::shared_ptr<const ResizePlan> GuideState::plan(const Resize& resize) const {
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<const ResizePlan>& kept = plans[resize];
  if (!kept) kept = std::make_shared<const ResizePlan>(extent, resize);
  return kept;
}

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
  guide.references = target != nullptr ? 2 : 1;
  guide.actual =
      make_buffer<std::uint64_t>(guide.references * guide.images * guide.targets * guide.words);
  if (guide.has_mask) guide.valid = make_buffer<std::uint64_t>(guide.images * guide.words);
  scan(kernels(), guide, target);
}

std::int64_t Guide::images() const { return state_->images; }
std::int64_t Guide::targets() const { return state_->targets; }
std::vector<std::int64_t> Guide::size() const { return state_->size; }
std::int64_t Guide::bytes() const { return state_->bytes(); }

}  // namespace protoseg
