// The backward pass: docs/gradients.md has the derivation and the order of work.
#include "adjoint.hpp"
#include "call.hpp"
#include "gradient_guide.cuh"
#include "gradient_plan.hpp"
#include "gradient_resized.cuh"

namespace protoseg::cuda {
namespace {

// A gradient's memory as kernels have it; data null: not asked for.
Tensor tensor_of(const MutableView* view) { return view != nullptr ? to_tensor(*view) : Tensor{}; }

// Everything that one call knows.
template <class T>
struct Backward : Problem<T> {
  using Sum = SumOf<T>;

  Backward(const GuideState& guide, const Sizes& sizes, const Call& call, const Tape<Sum>& tape_in,
           const Sum* grad, const Gradients& out)
      : Problem<T>(guide, sizes, call),
        wanted(sizes, out),
        chunk(chunk_size<T>(sizes, wanted, guide.extent, device_of(guide, call.tuning))),
        tape(tape_in),
        in_place(grad_is_along<Sum>(sizes, grad)),
        total_segments(divide_up(along_pitch(sizes), totals_voxels)),
        features_out(tensor_of(out.features)),
        pred_out(tensor_of(out.pred)),
        mask_out(tensor_of(out.mask)) {
    Arena arena(call.workspace);
    memory = take_gradient_memory<T>(sizes, wanted, guide.extent, chunk, arena);
    upstream.grad = grad;
    upstream.margin = tape.margin;
    upstream.square = tape.square;
    upstream.voxels = guide.extent.voxels();
    upstream.targets = sizes.targets;
    upstream.metric = sizes.options.metric;
    upstream.temperature = sizes.options.temperature;
    upstream.differentiable = has_gradient(sizes.options.metric, sizes.group_channels);
  }

  Wanted wanted;
  ChunkSize chunk;
  Tape<Sum> tape;
  bool in_place;
  std::int64_t total_segments;
  Tensor features_out, pred_out, mask_out;
  GradientMemory<Sum> memory;
  Upstream<Sum> upstream;
};

// The groups of one chunk: groups [group, group + groups) of images [image, image + images).
struct ChunkRange {
  std::int64_t image, images, group, groups;
  std::int64_t count() const { return images * groups; }
  std::int64_t first(const Sizes& sizes) const { return image * sizes.groups + group; }
};

// U' along of resized features, axis by axis, the last one first, which leaves the least.
template <class T>
void launch_adjoint(const Backward<T>& call, const ChunkRange& range) {
  using Sum = SumOf<T>;
  const Cells& cells = call.cells;
  const std::int64_t rows = range.count() * call.targets;
  UpstreamRowsParams<Sum> p{};
  p.upstream = call.upstream;
  p.cells = cells;
  p.first_group = range.first(call);
  p.rows = rows;
  p.out = call.memory.adjoint[0];
  run_elements(upstream_rows_kernel<Sum>, rows * cells.to.z * cells.to.y * cells.from.x,
               call.call.stream, p);
  adjoint_axis(cells.y, rows * cells.to.z, {cells.from.y, cells.to.y}, cells.from.x,
               call.memory.adjoint[0], call.memory.adjoint[1], call.call.stream);
  adjoint_axis(cells.z, rows, {cells.from.z, cells.to.z}, cells.from.y * cells.from.x,
               call.memory.adjoint[1], call.memory.adjoint[2], call.call.stream);
}

// The sum of `shrink` over targets at `size`, for features of another size.
template <class T>
void launch_shrink(const Backward<T>& call, const ChunkRange& range) {
  AlongParams<SumOf<T>> p{};
  p.upstream = call.upstream;
  p.first_group = range.first(call);
  p.groups = range.count();
  p.targets = call.targets;
  p.voxels = p.pitch = call.upstream.voxels;
  p.segments = divide_up(p.voxels, totals_voxels);
  p.shrink = call.memory.shrink;
  run(along_kernel<SumOf<T>>, p.groups * p.segments, call.call.stream, p);
}

template <class T>
void launch_along(const Backward<T>& call, const ChunkRange& range) {
  using Sum = SumOf<T>;
  if (call.resized) launch_adjoint(call, range);
  AlongParams<Sum> p{};
  p.upstream = call.upstream;
  p.adjoint = call.memory.adjoint[2];
  p.first_group = range.first(call);
  p.groups = range.count();
  p.targets = call.targets;
  p.voxels = call.voxels;
  p.pitch = along_pitch(call);
  p.segments = call.total_segments;
  p.along = call.in_place ? nullptr : call.memory.along;
  p.shrink = call.wanted.apart ? nullptr : call.memory.shrink;
  p.partial = call.memory.total;
  run(along_kernel<Sum>, p.groups * p.segments, call.call.stream, p);
}

// The maps of a chunk as later kernels read them.
template <class T>
GroupMaps<SumOf<T>> maps_of(const Backward<T>& call, const ChunkRange& range) {
  GroupMaps<SumOf<T>> maps{};
  maps.rows = call.in_place ? call.targets : along_rows(call.targets);
  maps.pitch = call.in_place ? call.voxels : along_pitch(call);
  maps.along = call.in_place ? call.upstream.grad + range.first(call) * call.targets * call.voxels
                             : call.memory.along;
  maps.shrink = call.memory.shrink;
  maps.shrink_pitch = shrink_pitch(call, call.wanted, call.guide.extent);
  maps.weights = call.kept.weights;
  maps.coefficient = call.memory.coefficient;
  return maps;
}

// F of a chunk, by the kernel of the prototypes: groups take the place of images, pairs of targets
// that of targets with two weights.
template <class T>
void launch_gradient_sums(const Backward<T>& call, const ChunkRange& range) {
  const GroupMaps<SumOf<T>> maps = maps_of(call, range);
  UnitSumsParams<T> p{};
  p.features = call.features;
  p.features.data = static_cast<const T*>(call.features.data) +
                    range.image * call.features.image_stride +
                    range.group * call.group_channels * call.features.channel_stride;
  if (call.groups > 1) p.features.image_stride = call.group_channels * call.features.channel_stride;
  p.weights.positive = maps.along;
  p.weights.negative = maps.along + (call.targets == 1 ? 0 : maps.pitch);
  p.weights.target_stride = 2 * maps.pitch;
  p.weights.image_stride = maps.rows * maps.pitch;
  p.targets = divide_up(call.targets, 2);
  p.segments = call.template segments<T>();
  p.sums = call.memory.sums;
  Sweep sweep = call.template sweep<T>();
  sweep.units = range.count() * call.group_channels;
  sweep.channels = call.group_channels;
  const Plan plan = split_plan(sweep, device_of(call.guide, call.call.tuning));
  p.tiles = {call.group_channels, plan.units, 0, tiles_of(sweep, plan)};
  const bool turned = call.features.layout == Layout::channels_last;
  run(turned ? turned_sums_kernel<T> : unit_sums_kernel<T>, p.tiles.count * p.segments,
      call.call.stream, p, turned ? turned_bytes<T> : plan.units * plan.pitch * sizeof(T));
}

template <class T>
void launch_group_gradients(const Backward<T>& call, const ChunkRange& range) {
  using Sum = SumOf<T>;
  GroupGradientParams<Sum> p{};
  p.features = call.features;
  p.prototypes = call.tape.prototypes;
  p.sums = call.memory.sums;
  p.segments = call.template segments<T>();
  p.total = call.memory.total;
  p.total_segments = call.total_segments;
  p.first_group = range.first(call);
  p.count = range.count();
  p.groups = call.groups;
  p.targets = call.targets;
  p.group_channels = call.group_channels;
  p.upstream = call.upstream;
  p.weight_total = call.kept.weights.total;
  p.weight_scale = call.kept.scale;
  p.sides = call.wanted.sides;
  p.coefficient = call.memory.coefficient;
  p.normal = call.memory.normal;
  p.constant = call.memory.constant_part;
  p.active = call.memory.active;
  run(group_gradient_kernel<Sum>, p.count * call.targets, call.call.stream, p);
}

template <class T>
void launch_sweep(const Backward<T>& call, const ChunkRange& range) {
  if (call.wanted.sides == 0 && call.wanted.apart) return;
  GradientSweepParams<T> p{};
  p.features = call.features;
  if (!call.wanted.apart) p.out = call.features_out;
  p.first_image = range.image;
  p.images = range.images;
  p.first_group = range.group;
  p.groups = range.groups;
  p.group_channels = call.group_channels;
  p.targets = call.targets;
  p.pieces = divide_up(call.voxels, sweep_voxels<T>);
  p.maps = maps_of(call, range);
  if (call.wanted.apart) p.maps.shrink = nullptr;  // at another size, and not for this kernel
  p.normal = call.memory.normal;
  p.active = call.memory.active;
  p.sides = call.wanted.sides;
  p.projection = call.memory.projection;
  if (in_rows(p))
    run(gradient_sweep_kernel<T, true>, p.images * p.pieces, call.call.stream, p);
  else
    run(gradient_sweep_kernel<T, false>, p.images * p.pieces, call.call.stream, p, turned_bytes<T>);
}

template <class T>
void launch_resized_gradient(const Backward<T>& call, const ChunkRange& range) {
  launch_shrink(call, range);
  ResizedGradientParams<T> p{};
  p.features = call.features;
  p.out = call.features_out;
  p.first_group = range.first(call);
  p.count = range.count();
  p.groups = call.groups;
  p.group_channels = call.group_channels;
  p.targets = call.targets;
  p.pieces = divide_up(call.voxels, threads);
  p.cells = call.cells;
  p.maps = maps_of(call, range);
  run(resized_gradient_kernel<T>, p.count * p.pieces, call.call.stream, p);
}

template <class T>
void launch_guide_gradients(const Backward<T>& call) {
  ConstantsParams constants{};
  constants.part = call.memory.constant_part;
  constants.images = call.images;
  constants.groups = call.groups;
  constants.rows = call.targets * call.wanted.sides;
  constants.constant = call.memory.constant;
  run_elements(constants_kernel<>, constants.images * constants.rows, call.call.stream, constants);
  GuideGradientParams p{};
  p.guiding = call.guide.guiding();
  p.projection = call.memory.projection;
  p.constant = call.memory.constant;
  p.images = call.images;
  p.feature_voxels = call.voxels;
  p.voxels = call.guide.extent.voxels();
  p.sides = call.wanted.sides;
  p.resized = call.resized;
  p.cells = call.cells;
  p.pred = call.pred_out;
  p.mask = call.mask_out;
  run_elements(guide_gradient_kernel<>, p.images * p.voxels, call.call.stream, p);
}

template <class T>
void backward(const Backward<T>& call) {
  for (std::int64_t image = 0; image < call.images; image += call.chunk.images)
    for (std::int64_t group = 0; group < call.groups; group += call.chunk.groups) {
      const ChunkRange range = {image, std::min(call.chunk.images, call.images - image), group,
                                std::min(call.chunk.groups, call.groups - group)};
      launch_along(call, range);
      launch_gradient_sums(call, range);
      launch_group_gradients(call, range);
      launch_sweep(call, range);
      if (call.wanted.apart) launch_resized_gradient(call, range);
    }
  if (call.wanted.sides > 0) launch_guide_gradients(call);
}

// ---- checks ------------------------------------------------------------------------------------

std::size_t measure(const GuideState& guide, const Sizes& sizes, const Gradients& out,
                    const Tuning& tuning) {
  const Wanted wanted(sizes, out);
  return with_type(sizes.features.dtype, [&](auto type) {
    using T = decltype(type);
    Arena arena;
    const ChunkSize chunk = chunk_size<T>(sizes, wanted, guide.extent, device_of(guide, tuning));
    take_gradient_memory<T>(sizes, wanted, guide.extent, chunk, arena);
    return arena.used();
  });
}

void validate(const GuideState& guide, const TensorView& features, const Gradients& out) {
  if (out.features != nullptr) {
    validate_gradient("features", *out.features, features);
    if (out.features->dtype != features.dtype)
      throw Error("the gradient of features must have their dtype on CUDA, " +
                      dtype_name(features.dtype) + ", got " + dtype_name(out.features->dtype) + ".",
                  Error::Kind::type);
  }
  if (out.pred != nullptr) validate_gradient("pred", *out.pred, guide.pred_view);
  if (out.mask == nullptr) return;
  if (!guide.has_mask) throw Error("The guide has no mask to give a gradient to.");
  TensorView mask = guide.pred_view;
  mask.shape[1] = 1;
  validate_gradient("mask", *out.mask, mask);
}

template <class Sum>
void checked_backward(const Guide& guide, const TensorView& features, const Options& options,
                      const Tape<Sum>& tape, const Sum* grad, const Gradients& out,
                      const Call& call) {
  const Sizes sizes = checked(guide, features, options);
  check_tape<Sum>(features);
  const GuideState& state = *guide.state();
  validate(state, features, out);
  check_workspace(call, measure(state, sizes, out, call.tuning));
  if (out.features == nullptr && out.pred == nullptr && out.mask == nullptr) return;
  with_type(features.dtype, [&](auto type) {
    using T = decltype(type);
    if constexpr (std::is_same_v<SumOf<T>, Sum>)
      backward(Backward<T>(state, sizes, call, tape, grad, out));
  });
}

}  // namespace

std::size_t backward_workspace_bytes(const Guide& guide, const TensorView& features,
                                     const Options& options, const Gradients& wanted,
                                     const Tuning& tuning) {
  return measure(*guide.state(), checked(guide, features, options), wanted, tuning);
}

void margin_backward(const Guide& guide, const TensorView& features, const Options& options,
                     const Tape<float>& tape, const float* grad, const Gradients& out,
                     const Call& call) {
  checked_backward(guide, features, options, tape, grad, out, call);
}
void margin_backward(const Guide& guide, const TensorView& features, const Options& options,
                     const Tape<double>& tape, const double* grad, const Gradients& out,
                     const Call& call) {
  checked_backward(guide, features, options, tape, grad, out, call);
}

}  // namespace protoseg::cuda
