// NumPy arrays, DLPack capsules and __cuda_array_interface__ dictionaries as borrowed, read-only
// TensorViews. Refuses, never copies.
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
constexpr std::int32_t cuda = 2;
constexpr std::int32_t cuda_managed = 13;
}  // namespace dlpack

// Rows follow each other, whatever the stride of an axis of one.
inline bool is_contiguous(const TensorView& view) {
  std::int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    if (view.shape[axis] != 1 && view.strides[axis] != stride) return false;
    stride *= view.shape[axis];
  }
  return true;
}

struct Borrowed {
  TensorView view;
  py::object owner;  // keeps the memory alive
  std::int32_t device = dlpack::cpu;
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

// DLPack's code for NumPy's letter; -1: none of ours.
inline int code_of(char kind) {
  switch (kind) {
    case 'b': return dlpack::boolean;
    case 'i': return dlpack::integer;
    case 'u': return dlpack::unsigned_integer;
    case 'f': return dlpack::floating;
    default: return -1;
  }
}

inline void set_stride(const std::string& name, TensorView& view, int axis, std::int64_t bytes,
                       std::int64_t item) {
  if (bytes % item != 0)
    throw Error(name + " has strides that are no multiple of its element size; copy it first.");
  view.strides[axis] = bytes / item;
}

inline Borrowed borrow_numpy(const std::string& name, const py::array& array) {
  check_rank(name, array.ndim());
  const py::dtype dtype = array.dtype();
  if (!py::cast<bool>(dtype.attr("isnative")))
    type_error(name + " is not in native byte order; convert it with "
                      ".astype(x.dtype.newbyteorder('=')).");
  Borrowed result;
  result.view.dtype = dtype_from(name, code_of(dtype.kind()), 8 * dtype.itemsize());
  result.view.data = array.data();
  result.view.rank = static_cast<int>(array.ndim());
  for (int axis = 0; axis < result.view.rank; ++axis) {
    result.view.shape[axis] = array.shape(axis);
    set_stride(name, result.view, axis, array.strides(axis), dtype.itemsize());
  }
  result.owner = array;
  return result;
}

// What Numba's arrays offer instead of DLPack; their owner is kept by the caller's tuple
// (dictionary, owner).
inline Borrowed borrow_interface(const std::string& name, const py::dict& interface,
                                 const py::object& owner) {
  const auto shape = py::cast<std::vector<std::int64_t>>(interface["shape"]);
  const auto type = py::cast<std::string>(interface["typestr"]);  // such as "<f4"
  if (type.size() < 3 || type[0] == '>')
    type_error(name + " is of type \"" + type + "\", not of numbers in native byte order.");
  check_rank(name, static_cast<std::int64_t>(shape.size()));
  const std::int64_t item = std::stoll(type.substr(2));
  const DType dtype = dtype_from(name, code_of(type[1]), 8 * item);
  const auto data = py::cast<std::uintptr_t>(py::tuple(interface["data"])[0]);
  Borrowed result;
  result.view = protoseg::contiguous_view(reinterpret_cast<const void*>(data), dtype,
                                          static_cast<int>(shape.size()), shape.data());
  if (interface.contains("strides") && !interface["strides"].is_none()) {
    const auto strides = py::cast<std::vector<std::int64_t>>(interface["strides"]);
    for (int axis = 0; axis < result.view.rank; ++axis)
      set_stride(name, result.view, axis, strides.at(axis), item);
  }
  result.owner = owner;
  result.device = dlpack::cuda;
  return result;
}

inline TensorView view_of(const std::string& name, const dlpack::Tensor& tensor) {
  check_rank(name, tensor.rank);
  const std::int32_t device = tensor.device.type;
  if (device != dlpack::cpu && device != dlpack::cuda && device != dlpack::cuda_managed)
    type_error(name + " is neither in CPU memory nor on a CUDA device (its DLPack device type is " +
               std::to_string(device) + "); copy it to the CPU first.");
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
  if (managed->tensor.device.type != dlpack::cpu) result.device = dlpack::cuda;
  PyCapsule_SetName(capsule.ptr(), used_name);
  result.owner = py::capsule(managed, [](void* pointer) {
    auto* owned = static_cast<Managed*>(pointer);
    if (owned->deleter != nullptr) owned->deleter(owned);
  });
  return result;
}

inline Borrowed borrow_any(const std::string& name, const py::object& object) {
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
  if (py::isinstance<py::tuple>(object) && py::len(object) == 2) {
    const auto pair = py::cast<py::tuple>(object);
    return borrow_interface(name, py::cast<py::dict>(pair[0]), py::cast<py::object>(pair[1]));
  }
  type_error(name + " must be a NumPy array or a DLPack capsule.");
}

// In memory of the given kind of device.
inline Borrowed borrow(const std::string& name, const py::object& object,
                       std::int32_t device = dlpack::cpu) {
  Borrowed result = borrow_any(name, object);
  if (result.device != device)
    type_error(name + (device == dlpack::cpu
                           ? " is on a CUDA device, but the guide is in CPU memory; move one."
                           : " is in CPU memory, but the guide is on a CUDA device; move one."));
  return result;
}

}  // namespace protoseg_python
