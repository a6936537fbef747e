// Prototypes (positive, negative) [N, T, C] that the caller gives, or none.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

#include "array.hpp"
#include "protoseg/engine.hpp"

namespace protoseg_python {

// The N and T of a guide.
struct GuideShape {
  std::int64_t images, targets;
};

inline void check_prototypes(const std::vector<std::int64_t>& shape, const GuideShape& guide,
                             const TensorView& features) {
  if (features.rank < 2 ||
      shape != std::vector<std::int64_t>{guide.images, guide.targets, features.shape[1]})
    throw Error("prototypes must have shape (N, T, C) with the N and T of the guide and the C of "
                "features.");
}

// In CPU memory; copied if they are not contiguous or not of double.
class Given {
 public:
  Given(const py::object& pair, const GuideShape& guide, const TensorView& features) {
    if (pair.is_none()) return;
    arrays_ = pair.cast<std::pair<Array, Array>>();
    for (const Array& array : {arrays_.first, arrays_.second})
      check_prototypes({array.shape(), array.shape() + array.ndim()}, guide, features);
    given_ = {arrays_.first.data(), arrays_.second.data()};
    present_ = true;
  }

  const protoseg::GivenPrototypes* get() const { return present_ ? &given_ : nullptr; }

 private:
  using Array = py::array_t<double, py::array::c_style | py::array::forcecast>;

  std::pair<Array, Array> arrays_;
  protoseg::GivenPrototypes given_{};
  bool present_ = false;
};

// On a CUDA device, borrowed: contiguous and of double.
class GivenOnDevice {
 public:
  GivenOnDevice(const py::object& pair, const GuideShape& guide, const TensorView& features) {
    if (pair.is_none()) return;
    const auto objects = pair.cast<std::pair<py::object, py::object>>();
    positive_ = borrow("prototypes", objects.first, dlpack::cuda);
    negative_ = borrow("prototypes", objects.second, dlpack::cuda);
    given_ = {checked(positive_, guide, features), checked(negative_, guide, features)};
    present_ = true;
  }

  const protoseg::GivenPrototypes* get() const { return present_ ? &given_ : nullptr; }

 private:
  static const double* checked(const Borrowed& array, const GuideShape& guide,
                               const TensorView& features) {
    const TensorView& view = array.view;
    check_prototypes({view.shape.begin(), view.shape.begin() + view.rank}, guide, features);
    if (view.dtype != DType::float64)
      type_error("prototypes on a CUDA device must be float64; convert them first.");
    if (!is_contiguous(view)) throw Error("prototypes must be contiguous; copy them first.");
    return static_cast<const double*>(view.data);
  }

  Borrowed positive_, negative_;
  protoseg::GivenPrototypes given_{};
  bool present_ = false;
};

}  // namespace protoseg_python
