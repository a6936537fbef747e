// The private extension module protoseg_fast._core: names, conversions, and the GIL.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "array.hpp"
#include "cuda_guide.hpp"
#include "given.hpp"
#include "options.hpp"
#include "protoseg/gradients.hpp"

namespace protoseg_python {
namespace {

// A Guide and the memory it borrows.
class PyGuide {
 public:
  PyGuide(const py::object& pred, const py::object& target, const py::object& mask,
          std::optional<double> binarize)
      : pred_(borrow("pred", pred)) {
    Borrowed target_array;
    if (!target.is_none()) target_array = borrow("target", target);
    if (!mask.is_none()) mask_ = borrow("mask", mask);
    const TensorView* target_view = target.is_none() ? nullptr : &target_array.view;
    const TensorView* mask_view = mask.is_none() ? nullptr : &mask_.view;
    const py::gil_scoped_release release;
    guide_.emplace(pred_.view, target_view, mask_view, binarize);
  }

  const protoseg::Guide& guide() const { return *guide_; }

  // Of each division, whose options differ in their groups only: against the target and, if asked
  // for, the output, each (tp, predicted, actual [N, G, T]; voxels [N, 1, 1]; defined [N, G, T])
  py::list sa_counts(const py::object& features, const std::vector<Options>& divisions, bool output,
                     const py::object& prototypes) const {
    const Borrowed array = borrow("features", features);
    const Given given(prototypes, shape(), array.view);
    std::vector<std::vector<protoseg::Counts>> counts;  // [divisions, references asked for]
    if (!divisions.empty()) {
      const py::gil_scoped_release release;
      std::vector<protoseg::Division> wanted;
      for (const Options& options : divisions) {
        const std::int64_t n = checked_size(array.view, options) * guide_->targets();
        protoseg::Counts* against[2] = {nullptr, nullptr};
        for (int which = 0; which < 1 + int{output}; ++which)
          against[which] = counts.emplace_back(n).data();
        wanted.push_back({options.groups, against[0], against[1]});
      }
      protoseg::sa_counts(*guide_, array.view, divisions.front(), wanted, given.get());
    }
    py::list result;
    std::size_t next = 0;
    for (const Options& options : divisions) {
      py::list references;
      for (int i = 0; i < 1 + int{output}; ++i)
        references.append(count_arrays(counts[next++], options));
      result.append(references);
    }
    return result;
  }

  // [N, G, T]
  py::array_t<double> sa_score(const py::object& features, const Options& options,
                               const std::string& empty) const {
    const protoseg::Empty policy = parse("empty", empty, protoseg::empty_names());
    const Borrowed array = borrow("features", features);
    std::vector<protoseg::Counts> counts;
    {
      const py::gil_scoped_release release;
      counts.resize(checked_size(array.view, options) * guide_->targets());
      protoseg::sa_counts(*guide_, array.view, options, counts.data());
    }
    py::array_t<double> result(
        std::vector<py::ssize_t>{guide_->images(), options.groups, guide_->targets()});
    for (std::size_t i = 0; i < counts.size(); ++i)
      result.mutable_data()[i] = protoseg::score(counts[i], protoseg::Score::dice, policy);
    return result;
  }

  // (positive, negative [N, T, C]; positive_weight, negative_weight [N, T])
  py::tuple prototypes(const py::object& features, const Options& options) const {
    const Borrowed array = borrow("features", features);
    const std::vector<py::ssize_t> per_target = {guide_->images(), guide_->targets()};
    std::vector<py::ssize_t> per_channel = per_target;
    per_channel.push_back(array.view.shape[1]);
    py::array_t<double> positive(per_channel), negative(per_channel);
    py::array_t<double> positive_weight(per_target), negative_weight(per_target);
    const protoseg::PrototypeArrays out = {positive.mutable_data(), negative.mutable_data(),
                                           positive_weight.mutable_data(),
                                           negative_weight.mutable_data()};
    {
      const py::gil_scoped_release release;
      protoseg::prototypes(*guide_, array.view, options, out);
    }
    return py::make_tuple(positive, negative, positive_weight, negative_weight);
  }

  py::array segment(const py::object& features, const Options& options,
                    const py::object& prototypes) const {
    const Borrowed array = borrow("features", features);
    const Given given(prototypes, shape(), array.view);
    py::array_t<bool> map(map_shape(array.view, options));
    auto* out = reinterpret_cast<std::uint8_t*>(map.mutable_data());
    {
      const py::gil_scoped_release release;
      protoseg::segment(*guide_, array.view, options, out, given.get());
    }
    return map;
  }

  py::array probability(const py::object& features, const Options& options) const {
    const Borrowed array = borrow("features", features);
    const std::vector<py::ssize_t> shape = map_shape(array.view, options);
    if (array.view.dtype == DType::float64)
      return write_probability(py::array_t<double>(shape), array.view, options);
    return write_probability(py::array_t<float>(shape), array.view, options);
  }

  // (margin [N, G, T, *size]; prototypes [N, T, C, 2]; square [N, G, *size], or empty): what
  // the backward pass needs.
  py::tuple margin_tape(const py::object& features, const Options& options) const {
    const Borrowed array = borrow("features", features);
    if (array.view.dtype == DType::float64) return fill_tape<double>(array.view, options);
    return fill_tape<float>(array.view, options);
  }

  // Writes the gradients asked for; None: not. margin and square may be anything if there is no
  // square to need.
  void margin_backward(const py::object& features, const Options& options, const py::object& margin,
                       const py::object& prototypes, const py::object& square,
                       const py::object& grad, const py::object& features_grad,
                       const py::object& pred_grad, const py::object& mask_grad) const {
    const Borrowed array = borrow("features", features);
    const GivenTape tape = {margin, prototypes, square, grad};
    const GivenGradients out(features_grad, pred_grad, mask_grad, dlpack::cpu);
    if (array.view.dtype == DType::float64)
      backward<double>(array.view, options, tape, out.get());
    else
      backward<float>(array.view, options, tape, out.get());
  }

  py::tuple size() const { return py::tuple(py::cast(guide_->size())); }

 private:
  GuideShape shape() const { return {guide_->images(), guide_->targets()}; }

  template <class T>
  py::array write_probability(py::array_t<T> out, const TensorView& features,
                              const Options& options) const {
    T* data = out.mutable_data();
    {
      const py::gil_scoped_release release;
      protoseg::probability(*guide_, features, options, data);
    }
    return out;
  }

  template <class T>
  py::tuple fill_tape(const TensorView& features, const Options& options) const {
    const std::vector<py::ssize_t> shape = map_shape(features, options);
    std::vector<py::ssize_t> square_shape = shape;
    if (protoseg::needs_square(features, options) && shape.size() > 3)
      square_shape.erase(square_shape.begin() + 2);
    else
      square_shape = {0};
    py::array_t<T> margin(shape), square(square_shape);
    py::array_t<double> prototypes(std::vector<py::ssize_t>{
        guide_->images(), guide_->targets(), features.rank > 1 ? features.shape[1] : 0, 2});
    const protoseg::Tape<T> tape = {margin.mutable_data(), prototypes.mutable_data(),
                                    square.size() > 0 ? square.mutable_data() : nullptr};
    {
      const py::gil_scoped_release release;
      protoseg::margin(*guide_, features, options, tape);
    }
    return py::make_tuple(margin, prototypes, square);
  }

  template <class T>
  void backward(const TensorView& features, const Options& options, const GivenTape& given,
                const protoseg::Gradients& out) const {
    const std::int64_t targets = guide_->targets();
    TapeSizes sizes = {checked_size(features, options), targets, 1,
                       guide_->images() * targets * features.shape[1] * 2};
    for (const std::int64_t extent : guide_->size()) sizes.voxels *= extent;
    const BorrowedTape<T> tape(given, sizes, protoseg::needs_square(features, options),
                               dlpack::cpu);
    const py::gil_scoped_release release;
    protoseg::margin_backward(*guide_, features, options, tape.tape, tape.grad, out);
  }

  py::tuple count_arrays(const std::vector<protoseg::Counts>& counts,
                         const Options& options) const {
    const std::int64_t images = guide_->images(), targets = guide_->targets();
    const std::vector<py::ssize_t> shape = {images, options.groups, targets};
    py::array_t<std::int64_t> tp(shape), predicted(shape), actual(shape);
    py::array_t<std::int64_t> voxels(std::vector<py::ssize_t>{images, 1, 1});
    py::array_t<bool> defined(shape);
    for (std::size_t i = 0; i < counts.size(); ++i) {
      tp.mutable_data()[i] = counts[i].tp;
      predicted.mutable_data()[i] = counts[i].predicted;
      actual.mutable_data()[i] = counts[i].actual;
      defined.mutable_data()[i] = counts[i].defined;
      voxels.mutable_data()[i / (options.groups * targets)] = counts[i].voxels;
    }
    return py::make_tuple(tp, predicted, actual, voxels, defined);
  }

  // N * G, before the engine has checked groups: outputs are allocated first.
  std::int64_t checked_size(const TensorView& features, const Options& options) const {
    if (options.groups < 1 || features.rank < 2 || options.groups > features.shape[1]) return 0;
    return guide_->images() * options.groups;
  }

  std::vector<py::ssize_t> map_shape(const TensorView& features, const Options& options) const {
    if (checked_size(features, options) == 0) return {0};
    std::vector<py::ssize_t> shape = {guide_->images(), options.groups, guide_->targets()};
    for (const std::int64_t extent : guide_->size()) shape.push_back(extent);
    return shape;
  }

  Borrowed pred_, mask_;
  std::optional<protoseg::Guide> guide_;
};

// Element-wise score of count arrays of one shape.
py::array_t<double> score(const std::string& name, const py::array_t<std::int64_t>& tp,
                          const py::array_t<std::int64_t>& predicted,
                          const py::array_t<std::int64_t>& actual, const py::array_t<bool>& defined,
                          const std::string& empty) {
  const protoseg::Score which = parse("score", name, protoseg::score_names());
  const protoseg::Empty policy = parse("empty", empty, protoseg::empty_names());
  for (const py::array& other : {py::array(predicted), py::array(actual), py::array(defined)})
    if (other.size() != tp.size()) throw Error("count arrays must have one shape.");
  py::array_t<double> result(std::vector<py::ssize_t>(tp.shape(), tp.shape() + tp.ndim()));
  for (py::ssize_t i = 0; i < tp.size(); ++i) {
    const protoseg::Counts counts = {tp.data()[i], predicted.data()[i], actual.data()[i], 0,
                                     defined.data()[i]};
    result.mutable_data()[i] = protoseg::score(counts, which, policy);
  }
  return result;
}

py::dict build_config() {
  const protoseg::BuildConfig config = protoseg::build_config();
  py::dict result;
  result["version"] = config.version;
  result["compiler"] = config.compiler;
  result["build_type"] = config.build_type;
  result["threads"] = config.threads;
  result["compiled_isas"] = config.compiled_isas;
  result["available_isas"] = protoseg::available_isas();
  result["isa"] = protoseg::current_isa();
  result["cuda"] = config.cuda;
  return result;
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled engine behind protoseg_fast. Private: use the package.";
  m.attr("__version__") = PROTOSEG_VERSION;

  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      PyErr_SetString(error.kind() == Error::Kind::type ? PyExc_TypeError : PyExc_ValueError,
                      error.what());
    }
  });

  py::class_<Options>(m, "Options", py::module_local())
      .def(py::init(&make_options), py::kw_only(), py::arg("groups"), py::arg("metric"),
           py::arg("interpolation"), py::arg("align_corners"), py::arg("temperature"));

  py::class_<PyGuide>(m, "Guide", py::module_local())
      .def(py::init<const py::object&, const py::object&, const py::object&,
                    std::optional<double>>(),
           py::arg("pred"), py::arg("target"), py::arg("mask"), py::arg("binarize"))
      .def("sa_counts", &PyGuide::sa_counts, py::arg("features"), py::arg("divisions"),
           py::arg("output"), py::arg("prototypes") = py::none())
      .def("sa_score", &PyGuide::sa_score, py::arg("features"), py::arg("options"),
           py::arg("empty"))
      .def("prototypes", &PyGuide::prototypes, py::arg("features"), py::arg("options"))
      .def("segment", &PyGuide::segment, py::arg("features"), py::arg("options"),
           py::arg("prototypes") = py::none())
      .def("probability", &PyGuide::probability, py::arg("features"), py::arg("options"))
      .def("margin_tape", &PyGuide::margin_tape, py::arg("features"), py::arg("options"))
      .def("margin_backward", &PyGuide::margin_backward, py::arg("features"), py::arg("options"),
           py::arg("margin"), py::arg("prototypes"), py::arg("square"), py::arg("grad"),
           py::arg("features_grad"), py::arg("pred_grad"), py::arg("mask_grad"))
      .def_property_readonly("images", [](const PyGuide& g) { return g.guide().images(); })
      .def_property_readonly("targets", [](const PyGuide& g) { return g.guide().targets(); })
      .def_property_readonly("size", &PyGuide::size)
      .def_property_readonly("nbytes", [](const PyGuide& g) { return g.guide().bytes(); });

  py::class_<PyCudaGuide>(m, "CudaGuide", py::module_local())
      .def(py::init<const py::object&, const py::object&, const py::object&, std::optional<double>,
                    const py::object&, std::uintptr_t>(),
           py::arg("pred"), py::arg("target"), py::arg("mask"), py::arg("binarize"),
           py::arg("memory"), py::arg("stream"))
      .def("sa_counts", &PyCudaGuide::sa_counts, py::arg("layers"), py::arg("output"),
           py::arg("stream"))
      .def("sa_score", &PyCudaGuide::sa_score, py::arg("features"), py::arg("options"),
           py::arg("empty"), py::arg("stream"))
      .def("prototypes", &PyCudaGuide::prototypes, py::arg("features"), py::arg("options"),
           py::arg("stream"))
      .def("segment", &PyCudaGuide::segment, py::arg("features"), py::arg("options"),
           py::arg("prototypes"), py::arg("stream"))
      .def("probability", &PyCudaGuide::probability, py::arg("features"), py::arg("options"),
           py::arg("stream"))
      .def("margin_tape", &PyCudaGuide::margin_tape, py::arg("features"), py::arg("options"),
           py::arg("stream"))
      .def("margin_backward", &PyCudaGuide::margin_backward, py::arg("features"),
           py::arg("options"), py::arg("margin"), py::arg("prototypes"), py::arg("square"),
           py::arg("grad"), py::arg("features_grad"), py::arg("pred_grad"), py::arg("mask_grad"),
           py::arg("stream"))
      .def("check", &PyCudaGuide::check, py::arg("stream"))
      .def("set_tuning", &PyCudaGuide::set_tuning, py::arg("strategy"), py::arg("cluster"),
           py::arg("units"), py::arg("cache_bytes"))
      .def_property_readonly("images", &PyCudaGuide::images)
      .def_property_readonly("targets", &PyCudaGuide::targets)
      .def_property_readonly("size", &PyCudaGuide::size)
      .def_property_readonly("nbytes", &PyCudaGuide::bytes)
      .def_property_readonly("allocations", &PyCudaGuide::allocations);

  m.def("score", &score, py::arg("name"), py::arg("tp").noconvert(),
        py::arg("predicted").noconvert(), py::arg("actual").noconvert(),
        py::arg("defined").noconvert(), py::arg("empty"));
  m.def("cuda_score", &cuda_score, py::arg("name"), py::arg("counts"), py::arg("shape"),
        py::arg("empty"), py::arg("memory"), py::arg("stream"));
  m.def("cuda_compiled", &protoseg::cuda_compiled,
        "Whether this build has the CUDA engine; asks no driver.");
  m.def(
      "cuda_available", [] { return protoseg::cuda_available(); },
      "Whether a CUDA device can be used; build_config()[\"cuda\"] says why not.");
  m.def("option_names", [] {
    py::dict names;
    names["metric"] = listed(protoseg::metric_names());
    names["interpolation"] = listed(protoseg::interpolation_names());
    names["score"] = listed(protoseg::score_names());
    names["empty"] = listed(protoseg::empty_names());
    return names;
  });
  m.def("available_isas", &protoseg::available_isas);
  m.def("set_isa", &protoseg::set_isa, py::arg("name"));
  m.def("build_config", &build_config);
}

}  // namespace protoseg_python
