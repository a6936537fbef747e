// The margin for training, forward and backward: docs/gradients.md has the derivation and the
// order of work.
#include "protoseg/gradients.hpp"

#include "cosine_resized.hpp"
#include "project.hpp"

namespace protoseg {
namespace {

// ---- forward -------------------------------------------------------------------------------

template <class T>
void fill_tape(const Guide& guide, const TensorView& features, const Options& options,
               const Tape<T>& tape) {
  const Problem<T> problem(guide, features, options);
  const std::vector<ChannelPrototypes> prototypes = channel_prototypes(problem);
  for (std::size_t i = 0; i < prototypes.size(); ++i) {
    tape.prototypes[2 * i] = prototypes[i].positive;
    tape.prototypes[2 * i + 1] = prototypes[i].negative;
  }
  MarginSink<T> sink(problem, tape);

  project(problem, make_boundaries(problem, prototypes), sink);
}

template <class T>
void check_dtype(const TensorView& features) {
  if ((features.dtype == DType::float64) != std::is_same_v<T, double>)
    throw Error("The tape must be double for float64 features, and float for all others.",
                Error::Kind::type);
}

// ---- backward ------------------------------------------------------------------------------

// [N, T, C], as channel_prototypes gave them.
template <class T>
std::vector<ChannelPrototypes> taped_prototypes(const Problem<T>& problem, const double* tape) {
  std::vector<ChannelPrototypes> result(problem.images * problem.targets * problem.channels);
  for (std::size_t i = 0; i < result.size(); ++i) {
    const std::int64_t at = static_cast<std::int64_t>(i);
    T reference;
    read(problem.kernels,
         plane_of(problem.features, at / problem.channels / problem.targets, at % problem.channels),
         0, 1, &reference);
    result[i] = {static_cast<double>(reference), tape[2 * i], tape[2 * i + 1]};
  }
  return result;
}

// One pass over the voxels: projections for pred and mask, and the features' gradient. One per
// thread.
template <class T>
class Sweep {
 public:
  Sweep(const Problem<T>& problem, const MarginGradient<T>& margin, const GroupBatch<T>& batch,
        const ChannelGradients& gradients, const GuideProjection& projection,
        const MutableView* features)
      : problem_(problem),
        batch_(batch),
        gradients_(gradients),
        projection_(projection),
        shrinks_(needs_square(problem.options.metric) && features != nullptr),
        reads_(projection.sides > 0 || shrinks_),
        count_(problem.channels_last ? problem.tile : plane_batch),
        rows_(problem, margin, batch, block_voxels, shrinks_),
        tile_(problem, count_) {
    if (features != nullptr) features_.emplace_back(problem, gradients, *features);
  }

  // Voxels [first, first + n), n <= block_voxels. q [T, sides, pitch] is added to.
  void operator()(std::int64_t image, std::int64_t first, std::int64_t n, double* q,
                  std::int64_t pitch) {
    for (auto& writer : features_) writer.read_weights(image, first, n);
    for (std::int64_t group = batch_.begin; group < batch_.end; ++group) {
      if (!features_.empty()) rows_.read(image, group, first, n);
      const std::int64_t begin = group * problem_.group_channels;
      const std::int64_t end = begin + problem_.group_channels;
      for (std::int64_t channel = begin; channel < end; channel += count_)
        channels(image, group, channel, std::min(count_, end - channel), first, n, q, pitch);
    }
  }

 private:
  static constexpr std::int64_t plane_batch = 8;  // see Projector

  void channels(std::int64_t image, std::int64_t group, std::int64_t channel, std::int64_t count,
                std::int64_t first, std::int64_t n, double* q, std::int64_t pitch) {
    const StoredRow* f = reads_ ? tile_.read(image, channel, count, first, n) : nullptr;
    const std::int64_t plane = image * problem_.groups + group;
    const std::int64_t ahead = problem_.in_place ? count * problem_.features.strides[1] : 0;
    for (std::int64_t target = 0; target < problem_.targets && projection_.sides > 0; ++target) {
      if (gradients_.active[plane * problem_.targets + target] == 0) continue;
      const std::int64_t row = projection_.row(image, target, problem_.targets);
      for (std::int64_t side = 0; side < projection_.sides; ++side)
        problem_.kernels.project(f, &projection_.weight[(row + side) * problem_.channels + channel],
                                 count, ahead, n, q + (target * projection_.sides + side) * pitch);
    }
    for (auto& writer : features_)
      for (std::int64_t i = 0; i < count; ++i)
        writer.write_row(
            image, channel + i, first, n, [&](std::int64_t target) { return rows_.along(target); },
            rows_.shrink(), reads_ ? f[i] : StoredRow{}, nullptr);
  }

  const Problem<T>& problem_;
  const GroupBatch<T>& batch_;
  const ChannelGradients& gradients_;
  const GuideProjection& projection_;
  const bool shrinks_, reads_;
  const std::int64_t count_;  // channels read together
  FeatureRows<T> rows_;
  TileReader<T> tile_;
  std::vector<FeatureGradient<T>> features_;  // none or one
};

// Sweeps a batch over all voxels. stored [N, T, sides, voxels]: where projections add up if
// features are resized; otherwise they become gradients of pred and mask at once.
template <class T>
void sweep(const Problem<T>& problem, const MarginGradient<T>& margin, const GroupBatch<T>& batch,
           const ChannelGradients& gradients, const GuideProjection& projection,
           const MutableView* features, double* stored, const Gradients& out) {
  const std::int64_t blocks = (problem.voxels + block_voxels - 1) / block_voxels;
  const std::int64_t maps = problem.targets * projection.sides;
  const std::int64_t cost =
      std::min(problem.voxels, block_voxels) * (batch.end - batch.begin) * problem.group_channels;
  parallel_for(problem.images * blocks, cost, [&] {
    return [&, block = Sweep<T>(problem, margin, batch, gradients, projection, features),
            guide = GuideGradient<T>(problem, projection, out),
            q = make_buffer<double>(maps * block_voxels)](std::int64_t task) mutable {
      const std::int64_t image = task / blocks, first = task % blocks * block_voxels;
      const std::int64_t n = std::min(block_voxels, problem.voxels - first);
      if (stored != nullptr) {
        block(image, first, n, stored + image * maps * problem.voxels + first, problem.voxels);
        return;
      }
      std::fill_n(q.get(), maps * block_voxels, 0.0);
      block(image, first, n, q.get(), block_voxels);
      if (maps > 0) guide.take(image, first, n, q.get(), block_voxels);
    };
  });
}

template <class T>
void backward(const Guide& guide, const TensorView& features, const Options& options,
              const Tape<T>& tape, const T* grad, const Gradients& out) {
  const Problem<T> problem(guide, features, options);
  const MarginGradient<T> margin(problem, tape, grad);
  const std::vector<ChannelPrototypes> prototypes = taped_prototypes(problem, tape.prototypes);
  ChannelGradients gradients = make_channel_gradients(problem);
  GuideProjection projection;
  projection.sides = out.mask != nullptr ? 2 : out.pred != nullptr ? 1 : 0;
  const bool shrinks = needs_square(options.metric) && out.features != nullptr;
  const bool apart = shrinks && !problem.same_size;
  const std::int64_t maps = problem.images * problem.targets * projection.sides;
  std::vector<double> stored(problem.same_size ? 0 : maps * problem.voxels);
  for (std::int64_t group = 0; group < problem.groups;) {
    const GroupBatch<T> batch = make_batch(problem, margin, group);
    group = batch.end;
    add_channel_gradients(problem, margin, batch, prototypes, gradients);
    make_projection(problem, prototypes, gradients, projection);
    if (maps > 0 || !apart)
      sweep(problem, margin, batch, gradients, projection, apart ? nullptr : out.features,
            stored.empty() ? nullptr : stored.data(), out);
    if (apart) cosine_resized(problem, margin, batch, gradients, *out.features);
  }
  if (!stored.empty()) resize_projections(problem, projection, stored.data(), out);
}

template <class T>
void checked_backward(const Guide& guide, const TensorView& features, const Options& options,
                      const Tape<T>& tape, const T* grad, const Gradients& out) {
  validate_features(features, guide.state()->pred, options);
  check_dtype<T>(features);
  const GuideState& state = *guide.state();
  if (out.features != nullptr) validate_gradient("features", *out.features, features);
  if (out.pred != nullptr) validate_gradient("pred", *out.pred, state.pred);
  if (out.mask != nullptr && !state.has_mask)
    throw Error("The guide has no mask to give a gradient to.");
  if (out.mask != nullptr) validate_gradient("mask", *out.mask, state.mask);
  backward(guide, features, options, tape, grad, out);
}

}  // namespace

bool needs_square(const TensorView& features, const Options& options) {
  return needs_square(options.metric) && features.rank > 1 && options.groups > 0 &&
         has_gradient(options.metric, features.shape[1] / options.groups);
}

void margin(const Guide& guide, const TensorView& features, const Options& options,
            const Tape<float>& tape) {
  validate_features(features, guide.state()->pred, options);
  check_dtype<float>(features);
  fill_tape(guide, features, options, tape);
}
void margin(const Guide& guide, const TensorView& features, const Options& options,
            const Tape<double>& tape) {
  validate_features(features, guide.state()->pred, options);
  check_dtype<double>(features);
  fill_tape(guide, features, options, tape);
}

void margin_backward(const Guide& guide, const TensorView& features, const Options& options,
                     const Tape<float>& tape, const float* grad, const Gradients& out) {
  checked_backward(guide, features, options, tape, grad, out);
}
void margin_backward(const Guide& guide, const TensorView& features, const Options& options,
                     const Tape<double>& tape, const double* grad, const Gradients& out) {
  checked_backward(guide, features, options, tape, grad, out);
}

}  // namespace protoseg
