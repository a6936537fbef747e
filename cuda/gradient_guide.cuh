// The gradients of pred and mask: projections of the features onto the gradients of the prototypes,
// see "To pred and mask" in docs/gradients.md.
#pragma once

#include <cstdint>

#include "gradient_sweep.cuh"
#include "resize_map.cuh"

namespace protoseg::cuda {

struct ConstantsParams {
  const double* part;                 // [N, G, T, sides]
  std::int64_t images, groups, rows;  // rows: T x sides
  double* constant;                   // [N, T, sides]
};

// One thread per image and row; groups in their order.
template <class = void>
__global__ void __launch_bounds__(threads) constants_kernel(ConstantsParams p) {
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(threads) + threadIdx.x;
       i < p.images * p.rows; i += static_cast<std::int64_t>(gridDim.x) * threads) {
    const double* part = p.part + i / p.rows * p.groups * p.rows + i % p.rows;
    double sum = 0.0;
#pragma unroll 8
    for (std::int64_t group = 0; group < p.groups; ++group) sum += part[group * p.rows];
    p.constant[i] = sum;
  }
}

// Writes an element of a floating dtype.
__device__ __forceinline__ void write_element(const Tensor& out, std::int64_t at, double value) {
  void* data = const_cast<void*>(out.data);
  const float narrow = static_cast<float>(value);
  switch (out.dtype) {
    case DType::float16: static_cast<Half*>(data)[at] = narrow_to(Half{}, narrow); return;
    case DType::bfloat16: static_cast<Bfloat*>(data)[at] = narrow_to(Bfloat{}, narrow); return;
    case DType::float32: static_cast<float*>(data)[at] = narrow; return;
    default: static_cast<double*>(data)[at] = value;
  }
}

struct GuideGradientParams {
  Guiding guiding;
  const double* projection;  // [N, T, sides, feature voxels]
  const double* constant;    // [N, T, sides]
  std::int64_t images, feature_voxels;
  Divisor voxels;  // of `size`
  int sides;
  bool resized;
  Cells cells;        // of features that are resized
  Tensor pred, mask;  // the gradients; data null: not asked for
};

// q+ and q- of a voxel, or their difference alone.
struct Sides {
  double value[most_sides];
};

__device__ __forceinline__ Sides sides_at(const GuideGradientParams& p, std::int64_t plane,
                                          std::int64_t voxel, const Place& at) {
  Sides sides = {{0.0, 0.0}};
#pragma unroll
  for (int side = 0; side < most_sides; ++side) {
    if (side >= p.sides) break;
    const double* map = p.projection + (plane * p.sides + side) * p.feature_voxels;
    const double value =
        p.resized ? resize_at(at,
                              [&](std::int64_t z, std::int64_t y, std::int64_t x) {
                                return map[(z * p.cells.from.y + y) * p.cells.from.x + x];
                              })
                  : map[voxel];
    sides.value[side] = value - p.constant[plane * p.sides + side];
  }
  return sides;
}

// One thread per voxel of an image.
template <class = void>
__global__ void __launch_bounds__(threads) guide_gradient_kernel(GuideGradientParams p) {
  const Guiding& guide = p.guiding;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(threads) + threadIdx.x;
       i < p.images * p.voxels; i += static_cast<std::int64_t>(gridDim.x) * threads) {
    const std::int64_t image = i / p.voxels, voxel = i - image * p.voxels;
    const Place at = p.resized ? place_of(p.cells, voxel) : Place{};
    const double mask = guide.has_mask ? guide.mask.value(image, 0, voxel) : 1.0;
    double of_mask = 0.0;
    for (std::int64_t target = 0; target < guide.targets; ++target) {
      const Sides q = sides_at(p, image * guide.targets + target, voxel, at);
      if (p.mask.data != nullptr) {
        const double pred =
            guiding_pred(guide.pred.value(image, target, voxel), guide.binarized, guide.binarize);
        of_mask += mask_gradient(pred, q.value[0], q.value[1]);
      }
      if (p.pred.data == nullptr) continue;
      // pred > threshold is a step
      const double gradient = guide.binarized ? 0.0 : pred_gradient(mask, q.value[0] - q.value[1]);
      write_element(p.pred, p.pred.plane(image, target) + p.pred.offset(voxel), gradient);
    }
    if (p.mask.data != nullptr)
      write_element(p.mask, p.mask.plane(image, 0) + p.mask.offset(voxel), of_mask);
  }
}

}  // namespace protoseg::cuda
