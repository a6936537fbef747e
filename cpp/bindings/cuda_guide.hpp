// cuda::Guide for Python: memory comes from the caller's array library, work goes on its stream.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <deque>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "array.hpp"
#include "device_memory.hpp"
#include "given.hpp"
#include "options.hpp"
#include "protoseg/cuda.hpp"
#include "tape.hpp"

namespace protoseg_python {

// A layer's features, its divisions into groups, and prototypes (positive, negative) or None.
using PyLayer = std::tuple<py::object, std::vector<Options>, py::object>;

class PyCudaGuide {
 public:
  PyCudaGuide(const py::object& pred, const py::object& target, const py::object& mask,
              std::optional<double> binarize, const py::object& memory, std::uintptr_t stream)
      : kept_(memory), pred_(borrow("pred", pred, dlpack::cuda)) {
    Borrowed target_array;
    if (!target.is_none()) target_array = borrow("target", target, dlpack::cuda);
    if (!mask.is_none()) mask_ = borrow("mask", mask, dlpack::cuda);
    const TensorView* target_view = target.is_none() ? nullptr : &target_array.view;
    const TensorView* mask_view = mask.is_none() ? nullptr : &mask_.view;
    const py::gil_scoped_release release;
    guide_.emplace(pred_.view, target_view, mask_view, binarize, kept_.allocator(),
                   stream_of(stream));
  }

  PyCudaGuide(const PyCudaGuide&) = delete;  // what is kept points to kept_
  PyCudaGuide& operator=(const PyCudaGuide&) = delete;

  // Of each layer (features, divisions, prototypes or None) what PyGuide's has, on the device; all
  // in one call of the engine.
  py::list sa_counts(const std::vector<PyLayer>& layers, bool output, std::uintptr_t stream) const {
    std::deque<LayerArrays> arrays;  // what is given is pointed to
    std::vector<cuda::LayerCounts> counted;
    for (const auto& [features, divisions, prototypes] : layers) {
      const LayerArrays& layer = arrays.emplace_back(features, prototypes, shape());
      for (const Options& options : divisions)
        counted.push_back({layer.features.view, options, nullptr, nullptr, layer.given.get()});
    }
    CallInProgress call(*this, stream);
    call.take_workspace(*this, cuda::workspace_bytes(*guide_, counted, tuning_));
    const CountsOnDevice counts = make_counts(&counted, output);
    {
      const py::gil_scoped_release release;
      cuda::sa_counts(*guide_, counted, call.call);
    }
    py::list result;
    std::size_t next = 0;
    for (const PyLayer& layer : layers) {
      py::list references;
      for (std::size_t i = 0; i < std::get<1>(layer).size(); ++i)
        references.append(counts.references[next++]);
      result.append(references);
    }
    return result;
  }

  // [N, G, T] on the device
  py::object sa_score(const py::object& features, const Options& options, const std::string& empty,
                      std::uintptr_t stream) const {
    const protoseg::Empty policy = parse("empty", empty, protoseg::empty_names());
    const FeaturesInProgress call(*this, features, options, cuda::Task::sa_counts, stream);
    std::vector<cuda::LayerCounts> counted = {{call.features.view, options}};
    const CountsOnDevice counts = make_counts(&counted, false);
    py::object scores = device_array(memory(), group_shape(options), "float64");
    auto* const out = device_pointer<double>(memory(), scores);
    {
      const py::gil_scoped_release release;
      cuda::sa_counts(*guide_, counted, call.call);
      cuda::score(counts.arrays.front(), count_of(group_shape(options)), protoseg::Score::dice,
                  policy, out, call.call.stream);
    }
    return scores;
  }

  // (positive, negative [N, T, C]; positive_weight, negative_weight [N, T]) on the device
  py::tuple prototypes(const py::object& features, const Options& options,
                       std::uintptr_t stream) const {
    const FeaturesInProgress call(*this, features, options, cuda::Task::prototypes, stream);
    const Shape planes = {guide_->images(), guide_->targets()};
    const Shape means = {planes[0], planes[1], call.features.view.shape[1]};
    py::object arrays[4];
    double* pointers[4];
    for (int i = 0; i < 4; ++i) {
      arrays[i] = device_array(memory(), i < 2 ? means : planes, "float64");
      pointers[i] = device_pointer<double>(memory(), arrays[i]);
    }
    {
      const py::gil_scoped_release release;
      cuda::prototypes(*guide_, call.features.view, options,
                       {pointers[0], pointers[1], pointers[2], pointers[3]}, call.call);
    }
    return py::make_tuple(arrays[0], arrays[1], arrays[2], arrays[3]);
  }

  py::object segment(const py::object& features, const Options& options,
                     const py::object& prototypes, std::uintptr_t stream) const {
    const FeaturesInProgress call(*this, features, options, cuda::Task::segment, stream,
                                  prototypes);
    py::object map = device_array(memory(), map_shape(options), "bool");
    auto* const out = device_pointer<std::uint8_t>(memory(), map);
    {
      const py::gil_scoped_release release;
      cuda::segment(*guide_, call.features.view, options, out, call.call, call.given.get());
    }
    return map;
  }

  py::object probability(const py::object& features, const Options& options,
                         std::uintptr_t stream) const {
    const FeaturesInProgress call(*this, features, options, cuda::Task::probability, stream);
    if (call.features.view.dtype == DType::float64)
      return write_probability<double>("float64", call, options);
    return write_probability<float>("float32", call, options);
  }

  // As PyGuide's, on the device.
  py::tuple margin_tape(const py::object& features, const Options& options,
                        std::uintptr_t stream) const {
    const FeaturesInProgress call(*this, features, options, cuda::Task::margin, stream);
    if (call.features.view.dtype == DType::float64)
      return fill_tape<double>("float64", call, options);
    return fill_tape<float>("float32", call, options);
  }

  void margin_backward(const py::object& features, const Options& options, const py::object& margin,
                       const py::object& prototypes, const py::object& square,
                       const py::object& grad, const py::object& features_grad,
                       const py::object& pred_grad, const py::object& mask_grad,
                       std::uintptr_t stream) const {
    const GivenGradients out(features_grad, pred_grad, mask_grad, dlpack::cuda);
    const GivenTape tape = {margin, prototypes, square, grad};
    const protoseg::Gradients wanted = out.get();
    const FeaturesInProgress call(*this, features, stream, [&](const TensorView& view) {
      return cuda::backward_workspace_bytes(*guide_, view, options, wanted, tuning_);
    });
    if (call.features.view.dtype == DType::float64)
      backward<double>(call, options, tape, wanted);
    else
      backward<float>(call, options, tape, wanted);
  }

  void check(std::uintptr_t stream) const {
    const py::gil_scoped_release release;
    guide_->check(stream_of(stream));
  }

  void set_tuning(int strategy, int cluster, int units, std::int64_t cache_bytes) {
    tuning_.strategy = static_cast<cuda::Strategy>(strategy);
    tuning_.cluster = cluster;
    tuning_.units = units;
    tuning_.cache_bytes = cache_bytes;
  }

  std::int64_t images() const { return guide_->images(); }
  std::int64_t targets() const { return guide_->targets(); }
  py::tuple size() const { return py::tuple(py::cast(guide_->size())); }
  std::int64_t allocations() const { return kept_.allocations(); }
  std::int64_t bytes() const {
    const py::gil_scoped_release release;  // another thread may wait for the GIL in an allocation
    return guide_->bytes();
  }

 private:
  // A layer's features, and the prototypes if they are given.
  struct LayerArrays {
    LayerArrays(const py::object& object, const py::object& prototypes, const GuideShape& guide)
        : features(borrow("features", object, dlpack::cuda)),
          given(prototypes, guide, features.view) {}
    Borrowed features;
    GivenOnDevice given;
  };

  // The stream and the workspace. Whoever frees the workspace may use it again for what follows on
  // the stream.
  struct CallInProgress {
    CallInProgress(const PyCudaGuide& guide, std::uintptr_t stream) {
      call.stream = stream_of(stream);
      call.tuning = guide.tuning_;
    }
    void take_workspace(const PyCudaGuide& guide, std::size_t bytes) {
      call.workspace_bytes = bytes;
      if (bytes == 0) return;
      workspace = device_array(guide.memory(), {static_cast<std::int64_t>(bytes)}, "uint8");
      call.workspace = device_pointer<void>(guide.memory(), workspace);
    }
    py::object workspace;
    cuda::Call call;
  };

  // The same with the features of one layer; asking for the size of the workspace checks all
  // arguments.
  struct FeaturesInProgress : LayerArrays, CallInProgress {
    FeaturesInProgress(const PyCudaGuide& guide, const py::object& object, const Options& options,
                       cuda::Task task, std::uintptr_t stream,
                       const py::object& prototypes = py::none())
        : LayerArrays(object, prototypes, guide.shape()), CallInProgress(guide, stream) {
      take_workspace(guide, cuda::workspace_bytes(*guide.guide_, features.view, options, task,
                                                  guide.tuning_, given.get()));
    }
    // bytes(view of the features): how large the workspace must be
    template <class Bytes>
    FeaturesInProgress(const PyCudaGuide& guide, const py::object& object, std::uintptr_t stream,
                       Bytes bytes)
        : LayerArrays(object, py::none(), guide.shape()), CallInProgress(guide, stream) {
      take_workspace(guide, bytes(features.view));
    }
  };

  struct CountsOnDevice {
    std::vector<py::list> references;  // of each layer: (tp, predicted, actual, voxels, defined)
    std::deque<cuda::CountArrays> arrays;
  };

  // Counts of all layers against the target and, if asked for, the output, to which the layers are
  // made to point.
  // What starts at zero lies together, so that one call to the driver clears it; voxels and defined
  // do not depend on the reference, and are shared.
  CountsOnDevice make_counts(std::vector<cuda::LayerCounts>* layers, bool output) const {
    const int references = 1 + int{output};
    std::int64_t pairs = 0;
    for (const cuda::LayerCounts& layer : *layers) pairs += count_of(group_shape(layer.options));
    const py::object all = device_array(memory(), {3 * references * pairs}, "int64");
    const py::object all_defined = device_array(memory(), {pairs}, "bool");
    const py::object voxels = device_array(memory(), {guide_->images(), 1, 1}, "int64");
    auto* const counts = device_pointer<std::int64_t>(memory(), all);
    auto* const defined = device_pointer<std::uint8_t>(memory(), all_defined);
    CountsOnDevice found;
    std::int64_t first = 0;
    for (cuda::LayerCounts& layer : *layers) {
      const Shape shape = group_shape(layer.options);
      const std::int64_t count = count_of(shape);
      Shape together = shape;
      together.insert(together.begin(), 3 * references);
      const py::object parts = part_of(all, 3 * references * first, together);
      const py::object defined_part = part_of(all_defined, first, shape);
      py::list tuples;
      for (int i = 0; i < references; ++i) {
        const int tp = 2 * i, predicted = tp + 1, actual = 2 * references + i;
        tuples.append(py::make_tuple(parts[py::int_(tp)], parts[py::int_(predicted)],
                                     parts[py::int_(actual)], voxels, defined_part));
        std::int64_t* const at = counts + 3 * references * first;
        found.arrays.push_back(
            {at + tp * count, at + predicted * count, at + actual * count,
             found.arrays.empty() ? device_pointer<std::int64_t>(memory(), voxels) : nullptr,
             defined + first});
        (i == 0 ? layer.against_target : layer.against_output) = &found.arrays.back();
      }
      found.references.push_back(std::move(tuples));
      first += count;
    }
    return found;
  }

  static py::object part_of(const py::object& array, std::int64_t first, const Shape& shape) {
    const py::slice part(py::int_(first), py::int_(first + count_of(shape)), py::none());
    return array[part].attr("reshape")(py::tuple(py::cast(shape)));
  }

  template <class T>
  py::object write_probability(const char* dtype, const FeaturesInProgress& call,
                               const Options& options) const {
    py::object map = device_array(memory(), map_shape(options), dtype);
    T* const out = device_pointer<T>(memory(), map);
    {
      const py::gil_scoped_release release;
      cuda::probability(*guide_, call.features.view, options, out, call.call);
    }
    return map;
  }

  template <class T>
  py::tuple fill_tape(const char* dtype, const FeaturesInProgress& call,
                      const Options& options) const {
    const TensorView& features = call.features.view;
    Shape squares = map_shape(options);
    if (protoseg::needs_square(features, options))
      squares.erase(squares.begin() + 2);
    else
      squares = {0};
    const py::object margin = device_array(memory(), map_shape(options), dtype);
    const py::object square = device_array(memory(), squares, dtype);
    const py::object prototypes = device_array(
        memory(), {guide_->images(), guide_->targets(), features.shape[1], 2}, "float64");
    const protoseg::Tape<T> tape = {
        device_pointer<T>(memory(), margin), device_pointer<double>(memory(), prototypes),
        squares.size() > 1 ? device_pointer<T>(memory(), square) : nullptr};
    {
      const py::gil_scoped_release release;
      cuda::margin(*guide_, features, options, tape, call.call);
    }
    return py::make_tuple(margin, prototypes, square);
  }

  template <class T>
  void backward(const FeaturesInProgress& call, const Options& options, const GivenTape& given,
                const protoseg::Gradients& out) const {
    const TensorView& features = call.features.view;
    const std::int64_t images = guide_->images(), targets = guide_->targets();
    const TapeSizes sizes = {images * options.groups, targets, count_of(guide_->size()),
                             images * targets * features.shape[1] * 2};
    const BorrowedTape<T> tape(given, sizes, protoseg::needs_square(features, options),
                               dlpack::cuda);
    const py::gil_scoped_release release;
    cuda::margin_backward(*guide_, features, options, tape.tape, tape.grad, out, call.call);
  }

  GuideShape shape() const { return {guide_->images(), guide_->targets()}; }
  Shape group_shape(const Options& options) const {
    return {guide_->images(), options.groups, guide_->targets()};
  }
  Shape map_shape(const Options& options) const {
    Shape shape = group_shape(options);
    for (const std::int64_t extent : guide_->size()) shape.push_back(extent);
    return shape;
  }
  static std::int64_t count_of(const Shape& shape) {
    std::int64_t count = 1;
    for (const std::int64_t extent : shape) count *= extent;
    return count;
  }
  const py::object& memory() const { return kept_.memory(); }

  KeptMemory kept_;  // outlives the guide, which gives back to it
  Borrowed pred_, mask_;
  cuda::Tuning tuning_;
  std::optional<cuda::Guide> guide_;
};

// Element-wise score of count arrays on the device, all contiguous and of one shape.
inline py::object cuda_score(const std::string& name, const py::tuple& counts,
                             const std::vector<std::int64_t>& shape, const std::string& empty,
                             const py::object& memory, std::uintptr_t stream) {
  const protoseg::Score which = parse("score", name, protoseg::score_names());
  const protoseg::Empty policy = parse("empty", empty, protoseg::empty_names());
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  cuda::CountArrays arrays;
  arrays.tp = device_pointer<std::int64_t>(memory, counts[0]);
  arrays.predicted = device_pointer<std::int64_t>(memory, counts[1]);
  arrays.actual = device_pointer<std::int64_t>(memory, counts[2]);
  arrays.defined = device_pointer<std::uint8_t>(memory, counts[3]);
  py::object scores = device_array(memory, shape, "float64");
  auto* const out = device_pointer<double>(memory, scores);
  {
    const py::gil_scoped_release release;
    cuda::score(arrays, count, which, policy, out, stream_of(stream));
  }
  return scores;
}

}  // namespace protoseg_python
