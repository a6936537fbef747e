// Building a guide: the first look at its arrays, and checks of what was found.
#include "guide.hpp"

#include <algorithm>
#include <limits>

#include "check.hpp"
#include "grid.hpp"
#include "guide_scan.cuh"
#include "validate.hpp"

namespace protoseg::cuda {
namespace {

Extent extent_of(const TensorView& view) {
  const auto from_last = [&](int axis) {
    return axis + 2 < view.rank ? view.shape[view.rank - 1 - axis] : 1;
  };
  Extent extent;
  extent.z = from_last(2);
  extent.y = from_last(1);
  extent.x = from_last(0);
  return extent;
}

// Rows have no gaps, whatever the strides of axes of one voxel.
bool is_row(const TensorView& view) {
  std::int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 2; --axis) {
    if (view.shape[axis] > 1 && view.strides[axis] != stride) return false;
    stride *= view.shape[axis];
  }
  return true;
}

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  PROTOSEG_CUDA_CHECK(cudaDeviceGetAttribute(&value, name, device));
  return value;
}

int current_device_index() {
  int index = 0;
  PROTOSEG_CUDA_CHECK(cudaGetDevice(&index));
  return index;
}

// Room for what is kept of the arrays themselves.
void lay_out(GuideState& guide, Arena& arena) {
  References& r = guide.references;
  r.words = divide_up(guide.extent.voxels(), 32);
  guide.findings = arena.take<Findings>(1);
  guide.largest = arena.take<unsigned long long>(guide.planes() * 2);
  r.voxel_count = arena.take<std::int64_t>(guide.images);
  r.actual_count[1] = arena.take<std::int64_t>(guide.planes());
  r.actual_count[0] =
      guide.has_target ? arena.take<std::int64_t>(guide.planes()) : r.actual_count[1];
}
void lay_out_bits(GuideState& guide, Arena& arena) {
  References& r = guide.references;
  r.valid = arena.take<unsigned>(guide.images * r.words);
  r.actual[1] = arena.take<unsigned>(guide.planes() * r.words);
  r.actual[0] = guide.has_target ? arena.take<unsigned>(guide.planes() * r.words) : r.actual[1];
}

ScanParams scan_params(const GuideState& guide) {
  const References& r = guide.references;
  ScanParams p{};
  p.pred = guide.pred;
  p.target = guide.target;
  p.mask = guide.mask;
  p.has_target = guide.has_target;
  p.has_mask = guide.has_mask;
  p.binarized = guide.binarize.has_value();
  p.binarize = guide.binarize.value_or(0.0);
  p.images = guide.images;
  p.targets = guide.targets;
  p.words = r.words;
  // Some 64 warps for each multiprocessor, so that not too many report.
  const std::int64_t all = 64 * std::int64_t{guide.device.multiprocessors};
  p.piece_words = std::clamp<std::int64_t>(r.words * guide.planes() / all, 4, 4096);
  p.valid = const_cast<unsigned*>(r.valid);
  p.voxel_count = const_cast<std::int64_t*>(r.voxel_count);
  for (int which = 0; which < 2; ++which) {
    p.actual[which] = const_cast<unsigned*>(r.actual[which]);
    p.actual_count[which] = const_cast<std::int64_t*>(r.actual_count[which]);
  }
  p.largest = guide.largest;
  p.findings = guide.findings;
  return p;
}

void scan(GuideState& guide, Stream stream) {
  Arena measure;
  lay_out(guide, measure);
  const std::size_t counters = measure.used();
  lay_out_bits(guide, measure);
  guide.buffer = Buffer(guide.allocator, stream, static_cast<std::int64_t>(measure.used()));
  Arena arena(guide.buffer.data());
  lay_out(guide, arena);
  lay_out_bits(guide, arena);
  PROTOSEG_CUDA_CHECK(cudaMemsetAsync(guide.buffer.data(), 0, counters, as_stream(stream)));
  const ScanParams params = scan_params(guide);
  const std::int64_t pieces = divide_up(params.words, params.piece_words);
  run(scan_kernel<>, divide_up(guide.planes() * pieces, warps), stream, params);
}

Range range_of(unsigned long long lowest, unsigned long long highest, bool has_nan) {
  return {0.0 - from_ordered(lowest), from_ordered(highest), has_nan};  // 0 rather than -0
}

}  // namespace

Tensor to_tensor(const TensorView& view) {
  Tensor tensor;
  tensor.data = view.data;
  tensor.dtype = view.dtype;
  tensor.extent = extent_of(view);
  tensor.image_stride = view.strides[0];
  tensor.channel_stride = view.strides[1];
  const int rank = view.rank - 2;
  if (is_row(view)) {
    tensor.layout = Layout::rows;
    tensor.x_stride = 1;
    tensor.y_stride = tensor.extent.x;
    tensor.z_stride = tensor.extent.y * tensor.extent.x;
    return tensor;
  }
  const bool channels_last = view.shape[1] > 1 && view.strides[1] == 1;
  tensor.layout = channels_last ? Layout::channels_last : Layout::strided;
  std::int64_t* const slot[3] = {&tensor.z_stride, &tensor.y_stride, &tensor.x_stride};
  for (int axis = 0; axis < rank; ++axis) *slot[3 - rank + axis] = view.strides[2 + axis];
  return tensor;
}

Device current_device() {
  const int index = current_device_index();
  Device device;
  device.multiprocessors = attribute(cudaDevAttrMultiProcessorCount, index);
  device.cache_bytes = attribute(cudaDevAttrL2CacheSize, index);
  device.block_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
  device.processor_bytes = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, index);
  device.clusters = attribute(cudaDevAttrComputeCapabilityMajor, index) >= 9;
  return device;
}

void check_device(const GuideState& guide) {
  const int index = current_device_index();
  if (index != guide.device_index)
    throw Error("the guide is on CUDA device " + std::to_string(guide.device_index) +
                ", but the current device is " + std::to_string(index) + ".");
}

std::int64_t GuideState::bytes() const {
  std::int64_t total = buffer.bytes();
  const std::lock_guard<std::mutex> lock(mutex);
  for (const auto& entry : float_weights) total += entry.second->buffer.bytes();
  for (const auto& entry : double_weights) total += entry.second->buffer.bytes();
  for (const auto& entry : kept_cells) total += entry.second->buffer.bytes();
  return total;
}

Guide::Guide(const TensorView& pred, const TensorView* target, const TensorView* mask,
             std::optional<double> binarize, const Allocator& allocator, Stream stream)
    : state_(std::make_shared<GuideState>()) {
  validate_guide(pred, target, mask, binarize);
  GuideState& guide = *state_;
  guide.pred_view = pred;
  guide.pred = to_tensor(pred);
  guide.has_target = target != nullptr;
  if (target != nullptr) guide.target = to_tensor(*target);
  guide.has_mask = mask != nullptr;
  if (mask != nullptr) guide.mask = to_tensor(*mask);
  guide.binarize = binarize;
  guide.images = pred.shape[0];
  guide.targets = pred.shape[1];
  guide.size.assign(pred.shape.begin() + 2, pred.shape.begin() + pred.rank);
  guide.extent = guide.pred.extent;
  guide.allocator = allocator;
  guide.device_index = current_device_index();
  guide.device = current_device();
  guide.limits = {guide.has_mask, guide.has_mask && is_floating(mask->dtype)
                                      ? std::numeric_limits<double>::max()
                                      : 1.0};
  scan(guide, stream);
}

std::int64_t Guide::images() const { return state_->images; }
std::int64_t Guide::targets() const { return state_->targets; }
std::vector<std::int64_t> Guide::size() const { return state_->size; }
std::int64_t Guide::bytes() const { return state_->bytes(); }

void Guide::check(Stream stream) const {
  const GuideState& guide = *state_;
  check_device(guide);
  Findings found{};
  // To pageable memory: returns when the copy has been made.
  PROTOSEG_CUDA_CHECK(cudaMemcpyAsync(&found, guide.findings, sizeof(found), cudaMemcpyDeviceToHost,
                                      as_stream(stream)));
  if (!pred_in_range(found))
    throw_pred_range(range_of(found.pred_lowest, found.pred_highest, found.pred_nan != 0));
  if (found.target_values != 0) throw_target_values();
  if (!mask_in_range(found, guide.limits))
    throw_mask_values(guide.mask.dtype,
                      range_of(found.mask_lowest, found.mask_highest, found.mask_nan != 0));
}

}  // namespace protoseg::cuda
