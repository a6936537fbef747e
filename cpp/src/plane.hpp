// Reading voxels in row-major order from memory with any strides, without copying arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels.hpp"
#include "protoseg/tensor.hpp"

namespace protoseg {

// Spatial extents as three: (1, 1, L), (H, 1, W) or (D, H, W). The first is the one that work is
// split and streamed along, the last the one whose voxels are neighbours.
struct Extent {
  std::int64_t n[3] = {1, 1, 1};
  std::int64_t voxels() const { return n[0] * n[1] * n[2]; }
  bool operator==(const Extent& other) const {
    return n[0] == other.n[0] && n[1] == other.n[1] && n[2] == other.n[2];
  }
  bool operator<(const Extent& other) const {
    for (int i = 0; i < 3; ++i)
      if (n[i] != other.n[i]) return n[i] < other.n[i];
    return false;
  }
};

// Slot of spatial axis `axis` of `rank` in an Extent.
inline int extent_slot(int axis, int rank) {
  if (rank == 3) return axis;
  return rank == 2 && axis == 0 ? 0 : 2;
}

inline Extent spatial_extent(const TensorView& view) {
  Extent extent;
  const int rank = view.rank - 2;
  for (int axis = 0; axis < rank; ++axis) extent.n[extent_slot(axis, rank)] = view.shape[2 + axis];
  return extent;
}

// One image's channel (or target): voxels in row-major order.
struct Plane {
  const std::byte* data;
  DType dtype;
  Extent extent;
  std::int64_t stride[3];
  std::int64_t item;

  // All voxels are neighbours in memory.
  bool is_row() const {
    return extent.n[0] * extent.n[1] == 1 && (stride[2] == 1 || extent.n[2] == 1);
  }
  const std::byte* at(std::int64_t voxel) const {
    const std::int64_t row = voxel / extent.n[2];
    return data + (row / extent.n[1] * stride[0] + row % extent.n[1] * stride[1] +
                   voxel % extent.n[2] * stride[2]) *
                      item;
  }
};

inline const std::byte* element(const TensorView& view, std::int64_t offset) {
  return static_cast<const std::byte*>(view.data) + offset * item_size(view.dtype);
}

inline Plane plane_of(const TensorView& view, std::int64_t image, std::int64_t channel) {
  Plane plane;
  plane.item = item_size(view.dtype);
  plane.dtype = view.dtype;
  plane.data = element(view, image * view.strides[0] + channel * view.strides[1]);
  plane.extent = spatial_extent(view);
  for (std::int64_t& stride : plane.stride) stride = 0;
  const int rank = view.rank - 2;
  for (int axis = 0; axis < rank; ++axis)
    plane.stride[extent_slot(axis, rank)] = view.strides[2 + axis];
  // Merge axes that follow each other in memory, so that rows are as long as they can be.
  for (int slot = 1; slot >= 0; --slot) {
    const bool alone = plane.extent.n[slot] == 1;
    const bool first = plane.extent.n[2] == 1;
    if (!alone && !first && plane.stride[slot] != plane.stride[2] * plane.extent.n[2]) break;
    if (first && !alone) plane.stride[2] = plane.stride[slot];
    plane.extent.n[2] *= plane.extent.n[slot];
    plane.extent.n[slot] = 1;
  }
  return plane;
}

template <class T>
constexpr DType dtype_of() {
  return std::is_same_v<T, float> ? DType::float32 : DType::float64;
}

inline void convert(const Kernels& kernels, DType dtype, const void* source, std::int64_t stride,
                    std::int64_t n, float* out) {
  kernels.to_float(dtype, source, stride, n, out);
}
inline void convert(const Kernels& kernels, DType dtype, const void* source, std::int64_t stride,
                    std::int64_t n, double* out) {
  kernels.to_double(dtype, source, stride, n, out);
}

// Voxels [first, first + n) as T.
template <class T>
void read(const Kernels& kernels, const Plane& plane, std::int64_t first, std::int64_t n, T* out) {
  while (n > 0) {
    const std::int64_t left = plane.extent.n[2] - first % plane.extent.n[2];
    const std::int64_t here = left < n ? left : n;
    convert(kernels, plane.dtype, plane.at(first), plane.stride[2], here, out);
    first += here;
    out += here;
    n -= here;
  }
}

inline void convert_back(const Kernels& kernels, const float* x, std::int64_t n, DType dtype,
                         void* target, std::int64_t stride) {
  kernels.write_float(x, n, dtype, target, stride);
}
inline void convert_back(const Kernels& kernels, const double* x, std::int64_t n, DType dtype,
                         void* target, std::int64_t stride) {
  kernels.write_double(x, n, dtype, target, stride);
}

// The inverse of read, for planes of memory that may be written: rounds to the plane's dtype.
template <class T>
void write(const Kernels& kernels, const Plane& plane, std::int64_t first, std::int64_t n,
           const T* x) {
  while (n > 0) {
    const std::int64_t left = plane.extent.n[2] - first % plane.extent.n[2];
    const std::int64_t here = left < n ? left : n;
    convert_back(kernels, x, here, plane.dtype, const_cast<std::byte*>(plane.at(first)),
                 plane.stride[2]);
    first += here;
    x += here;
    n -= here;
  }
}

}  // namespace protoseg
