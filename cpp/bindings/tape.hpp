// What goes to and fro between the forward and the backward pass of training, on any device.
#pragma once

#include <optional>
#include <string>

#include "array.hpp"
#include "protoseg/gradients.hpp"

namespace protoseg_python {

// An array of the tape: contiguous, of T and of n elements.
template <class T>
T* tape_array(const char* name, const Borrowed& array, std::int64_t n) {
  const TensorView& view = array.view;
  std::int64_t elements = 1;
  for (int axis = 0; axis < view.rank; ++axis) elements *= view.shape[axis];
  if (elements != n || !is_contiguous(view) ||
      view.dtype != (sizeof(T) == 4 ? DType::float32 : DType::float64))
    throw Error(std::string(name) + " is not what margin_tape returned, or its like.");
  return static_cast<T*>(const_cast<void*>(view.data));
}

// The tape that comes back and the gradient that comes down, as Python has them. margin and square
// may be anything if there is no square to need.
struct GivenTape {
  py::object margin, prototypes, square, grad;
};

// Sizes that the tape must have.
struct TapeSizes {
  std::int64_t groups, targets, voxels, prototypes;  // N x G; T; of size; N x T x C x 2
};

// The same, borrowed and checked.
template <class T>
struct BorrowedTape {
  BorrowedTape(const GivenTape& given, const TapeSizes& sizes, bool squares, std::int32_t device)
      : arrays{squares ? borrow("margin", given.margin, device) : Borrowed{},
               borrow("prototypes", given.prototypes, device),
               squares ? borrow("square", given.square, device) : Borrowed{},
               borrow("grad", given.grad, device)} {
    const std::int64_t map = sizes.groups * sizes.voxels;
    tape.margin = squares ? tape_array<T>("margin", arrays[0], map * sizes.targets) : nullptr;
    tape.prototypes = tape_array<double>("prototypes", arrays[1], sizes.prototypes);
    tape.square = squares ? tape_array<T>("square", arrays[2], map) : nullptr;
    grad = tape_array<T>("grad", arrays[3], map * sizes.targets);
  }

  Borrowed arrays[4];
  protoseg::Tape<T> tape;
  const T* grad;
};

// Gradients of features, pred and mask to be written; None: not asked for.
class GivenGradients {
 public:
  GivenGradients(const py::object& features, const py::object& pred, const py::object& mask,
                 std::int32_t device) {
    const py::object* given[3] = {&features, &pred, &mask};
    for (int i = 0; i < 3; ++i) {
      if (given[i]->is_none()) continue;
      outputs_[i] = borrow("a gradient", *given[i], device);
      static_cast<TensorView&>(views_[i]) = outputs_[i]->view;
    }
  }
  protoseg::Gradients get() const {
    return {outputs_[0] ? &views_[0] : nullptr, outputs_[1] ? &views_[1] : nullptr,
            outputs_[2] ? &views_[2] : nullptr};
  }

 private:
  std::optional<Borrowed> outputs_[3];
  protoseg::MutableView views_[3];
};

}  // namespace protoseg_python
