// NumPy arrays and DLPack capsules as borrowed, read-only TensorViews. Refuses, never copies.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "protoseg/tensor.hpp"

namespace protoseg_python {

namespace py = pybind11;
using protoseg::DType;
using protoseg::Error;
using protoseg::TensorView;

// The C structs of the DLPack standard (version 1), as the array libraries exchange them.
namespace dlpack {
struct Device {
  std::int32_t type;
  std::int32_t id;
};
struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  std::int32_t rank;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // may be null: row-major
  std::uint64_t byte_offset;
};
struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};
struct ManagedVersioned {
  std::uint32_t major, minor;
  void* context;
  void (*deleter)(ManagedVersioned*);
  std::uint64_t flags;
  Tensor tensor;
};
enum Code : std::uint8_t {
  integer = 0,
  unsigned_integer = 1,
  floating = 2,
  bfloat = 4,
  complex = 5,
  boolean = 6
};
constexpr std::int32_t cpu = 1;
}  // namespace dlpack

struct Borrowed {
  TensorView view;
  py::object owner;  // keeps the memory alive
};

[[noreturn]] inline void type_error(const std::string& message) {
  throw Error(message, Error::Kind::type);
}

inline DType dtype_from(const std::string& name, int code, std::int64_t bits) {
  struct Row {
    int code;
    int bits;
    DType dtype;
  };
  static constexpr Row rows[] = {
      {dlpack::boolean, 8, DType::boolean},          {dlpack::integer, 8, DType::int8},
      {dlpack::unsigned_integer, 8, DType::uint8},   {dlpack::integer, 16, DType::int16},
      {dlpack::unsigned_integer, 16, DType::uint16}, {dlpack::integer, 32, DType::int32},
      {dlpack::unsigned_integer, 32, DType::uint32}, {dlpack::integer, 64, DType::int64},
      {dlpack::unsigned_integer, 64, DType::uint64}, {dlpack::floating, 16, DType::float16},
      {dlpack::bfloat, 16, DType::bfloat16},         {dlpack::floating, 32, DType::float32},
      {dlpack::floating, 64, DType::float64}};
  for (const Row& row : rows)
    if (row.code == code && row.bits == bits) return row.dtype;
  type_error(name + " has an unsupported dtype; use bool, an integer dtype, float16, bfloat16, "
                    "float32 or float64.");
}

inline void check_rank(const std::string& name, std::int64_t rank) {
  if (rank > protoseg::max_rank)
    throw Error(name + " must have 3 to 5 axes (N, channels, and 1 to 3 spatial axes), got " +
                std::to_string(rank) + ".");
}

inline Borrowed borrow_numpy(const std::string& name, const py::array& array) {
  check_rank(name, array.ndim());
  const py::dtype dtype = array.dtype();
  int code = -1;
  switch (dtype.kind()) {
    case 'b': code = dlpack::boolean; break;
    case 'i': code = dlpack::integer; break;
    case 'u': code = dlpack::unsigned_integer; break;
    case 'f': code = dlpack::floating; break;
    default: break;
  }
  if (!py::cast<bool>(dtype.attr("isnative")))
    type_error(name + " is not in native byte order; convert it with "
                      ".astype(x.dtype.newbyteorder('=')).");
  Borrowed result;
  result.view.dtype = dtype_from(name, code, 8 * dtype.itemsize());
  result.view.data = array.data();
  result.view.rank = static_cast<int>(array.ndim());
  for (int axis = 0; axis < result.view.rank; ++axis) {
    if (array.strides(axis) % dtype.itemsize() != 0)
      throw Error(name + " has strides that are no multiple of its element size; copy it first.");
    result.view.shape[axis] = array.shape(axis);
    result.view.strides[axis] = array.strides(axis) / dtype.itemsize();
  }
  result.owner = array;
  return result;
}

inline TensorView view_of(const std::string& name, const dlpack::Tensor& tensor) {
  check_rank(name, tensor.rank);
  if (tensor.device.type != dlpack::cpu)
    type_error(name + " is not in CPU memory, and this build scores on the CPU; copy it to the "
                      "CPU first.");
  if (tensor.dtype.code == dlpack::complex)
    type_error(name + " must be real, got a complex dtype.");
  if (tensor.dtype.lanes != 1) type_error(name + " holds vectors, not numbers.");
  const DType dtype = dtype_from(name, tensor.dtype.code, tensor.dtype.bits);
  const void* data = static_cast<const char*>(tensor.data) + tensor.byte_offset;
  TensorView view = protoseg::contiguous_view(data, dtype, tensor.rank, tensor.shape);
  if (tensor.strides != nullptr)
    for (int axis = 0; axis < tensor.rank; ++axis) view.strides[axis] = tensor.strides[axis];
  return view;
}

// Takes over a capsule's tensor, as the DLPack protocol asks of a consumer: the capsule is renamed
// and the deleter runs when the owner goes.
template <class Managed>
Borrowed consume(const std::string& name, const py::handle& capsule, const char* capsule_name,
                 const char* used_name) {
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), capsule_name));
  if (managed == nullptr) throw py::error_already_set();
  Borrowed result;
  result.view = view_of(name, managed->tensor);
  PyCapsule_SetName(capsule.ptr(), used_name);
  result.owner = py::capsule(managed, [](void* pointer) {
    auto* owned = static_cast<Managed*>(pointer);
    if (owned->deleter != nullptr) owned->deleter(owned);
  });
  return result;
}

inline Borrowed borrow(const std::string& name, const py::object& object) {
  if (PyCapsule_IsValid(object.ptr(), "dltensor"))
    return consume<dlpack::Managed>(name, object, "dltensor", "used_dltensor");
  if (PyCapsule_IsValid(object.ptr(), "dltensor_versioned")) {
    const auto* managed = static_cast<dlpack::ManagedVersioned*>(
        PyCapsule_GetPointer(object.ptr(), "dltensor_versioned"));
    if (managed->major != 1) type_error(name + " uses an unknown major version of DLPack.");
    return consume<dlpack::ManagedVersioned>(name, object, "dltensor_versioned",
                                             "used_dltensor_versioned");
  }
  if (py::isinstance<py::array>(object)) return borrow_numpy(name, py::cast<py::array>(object));
  type_error(name + " must be a NumPy array or a DLPack capsule.");
}

}  // namespace protoseg_python
