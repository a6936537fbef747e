// Arrays of the caller's library on a CUDA device.
//
// `memory` is an object of _arrays.py: memory.empty(shape, dtype name) makes an array on the
// device, memory.pointer(array) says where it lies. All arrays of a call are made with it.
#pragma once

#include <pybind11/pybind11.h>

#include <unordered_map>
#include <utility>
#include <vector>

#include "array.hpp"
#include "protoseg/cuda.hpp"

namespace protoseg_python {

namespace cuda = protoseg::cuda;
using Shape = std::vector<std::int64_t>;

inline cuda::Stream stream_of(std::uintptr_t stream) {
  return reinterpret_cast<cuda::Stream>(stream);
}

inline py::object device_array(const py::object& memory, const Shape& shape, const char* dtype) {
  return memory.attr("empty")(py::tuple(py::cast(shape)), dtype);
}

template <class T>
T* device_pointer(const py::object& memory, const py::object& array) {
  return reinterpret_cast<T*>(py::cast<std::uintptr_t>(memory.attr("pointer")(array)));
}

// What a guide keeps, as arrays of the caller's library.
class KeptMemory {
 public:
  explicit KeptMemory(py::object memory) : memory_(std::move(memory)) {}

  cuda::Allocator allocator() { return {&allocate, &free, this}; }
  std::int64_t allocations() const { return allocations_; }
  const py::object& memory() const { return memory_; }

 private:
  static void* allocate(std::size_t bytes, cuda::Stream, void* context) {
    const py::gil_scoped_acquire gil;
    auto* self = static_cast<KeptMemory*>(context);
    const Shape shape = {static_cast<std::int64_t>(bytes)};
    py::object array = device_array(self->memory_, shape, "uint8");
    void* const pointer = device_pointer<void>(self->memory_, array);
    self->arrays_.emplace(pointer, std::move(array));
    ++self->allocations_;
    return pointer;
  }
  static void free(void* pointer, cuda::Stream, void* context) {
    const py::gil_scoped_acquire gil;
    static_cast<KeptMemory*>(context)->arrays_.erase(pointer);
  }

  py::object memory_;
  std::unordered_map<void*, py::object> arrays_;
  std::int64_t allocations_ = 0;
};

}  // namespace protoseg_python
