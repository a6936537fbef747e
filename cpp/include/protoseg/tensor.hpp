// What callers hand in: borrowed memory with a shape and strides. What they get back on misuse.
#pragma once

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "protoseg/dtype.hpp"

namespace protoseg {

inline constexpr int max_rank = 5;  // (N, C, and up to three spatial axes)

// A borrowed, read-only, strided array. Strides count elements and may be zero or negative.
struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::float32;
  int rank = 0;
  std::array<std::int64_t, max_rank> shape{};
  std::array<std::int64_t, max_rank> strides{};

  bool operator==(const TensorView& other) const {
    return data == other.data && dtype == other.dtype && rank == other.rank &&
           shape == other.shape && strides == other.strides;
  }
};

// Row-major view of `shape` starting at `data`.
inline TensorView contiguous_view(const void* data, DType dtype, int rank,
                                  const std::int64_t* shape) {
  TensorView view;
  view.data = data;
  view.dtype = dtype;
  view.rank = rank;
  std::int64_t stride = 1;
  for (int axis = rank - 1; axis >= 0; --axis) {
    view.shape[axis] = shape[axis];
    view.strides[axis] = stride;
    stride *= shape[axis];
  }
  return view;
}

// The one exception of the library. `type` says that the argument is of the wrong kind
// (Python: TypeError), `value` that a value of the right kind is not acceptable (ValueError).
class Error : public std::runtime_error {
 public:
  enum class Kind { value, type };
  explicit Error(const std::string& message, Kind kind = Kind::value)
      : std::runtime_error(message), kind_(kind) {}
  Kind kind() const noexcept { return kind_; }

 private:
  Kind kind_;
};

}  // namespace protoseg
