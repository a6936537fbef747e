// The second read of the features: their projections for the gradients of pred and mask, and in the
// same pass the write of their own gradient, a combination of maps that all channels of a group
// share.
#pragma once

#include <cstdint>

#include "channels_last.cuh"
#include "gradient_groups.cuh"

namespace protoseg::cuda {

__device__ __forceinline__ Half narrow_to(Half, float x) {
  return {__half_as_ushort(__float2half_rn(x))};
}
__device__ __forceinline__ Bfloat narrow_to(Bfloat, float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}
__device__ __forceinline__ float narrow_to(float, float x) { return x; }
__device__ __forceinline__ double narrow_to(double, double x) { return x; }

// The maps of a chunk's groups at feature size.
template <class Sum>
struct GroupMaps {
  const Sum* along;  // [groups, rows, pitch]
  std::int64_t rows, pitch;
  const Sum* shrink;  // [groups, shrink_pitch]; null: none
  std::int64_t shrink_pitch;
  Weights<Sum> weights;
  const Coefficient<Sum>* coefficient;  // [groups, T, group channels]

  __device__ const Sum* along_row(std::int64_t group, std::int64_t target) const {
    return along + (group * rows + target) * pitch;
  }
};

template <class T>
struct GradientSweepParams {
  Tensor features, out;              // out.data null: no gradient of the features
  std::int64_t first_image, images;  // images [first, first + images) are those of the chunk
  std::int64_t first_group, groups;  // of every image
  std::int64_t group_channels, targets;
  Divisor pieces;  // of a plane, of sweep_voxels each
  GroupMaps<SumOf<T>> maps;
  const double* normal;        // [groups of the chunk, T, sides, group channels]
  const std::uint8_t* active;  // [groups of the chunk, T]
  int sides;
  double* projection;  // [N, T, sides, voxels]; added to unless first_group is 0
};

// Voxels of one block, and projections that are taken of one read; with more of them, the next come
// from the cache.
template <class T>
constexpr int sweep_voxels = row_voxels<SumOf<T>>;
constexpr int sweep_rows = 2;

// What one target sends to a thread's step of voxels.
template <class Sum>
struct TargetMaps {
  static constexpr int count = step<Sum>;
  Sum along[count], positive[count], negative[count];

  __device__ TargetMaps(const GroupMaps<Sum>& maps, std::int64_t group, std::int64_t image,
                        std::int64_t target, std::int64_t targets, std::int64_t voxel) {
    load_aligned(maps.along_row(group, target) + voxel, along);
    load_weights(maps.weights.row(image, target, targets).from(voxel), 0, positive, negative);
  }
  __device__ void add(const Coefficient<Sum>& c, Sum (&sum)[count]) const {
#pragma unroll
    for (int k = 0; k < count; ++k)
      sum[k] = fused(c.negative, negative[k],
                     fused(c.positive, positive[k], fused(c.direction, along[k], sum[k])));
  }
};

// One thread's step of voxels of one image, group after group, channel after channel.
template <class T>
class GradientStep {
 public:
  using Sum = SumOf<T>;
  static constexpr int count = step<Sum>;

  __device__ GradientStep(const GradientSweepParams<T>& p, std::int64_t image, std::int64_t voxel,
                          std::int64_t n, std::int64_t row)
      : p_(p), image_(image), voxel_(voxel), n_(n), row_(row) {
    if (p.projection == nullptr) return;
    const std::int64_t voxels = p.features.extent.voxels();
#pragma unroll
    for (int r = 0; r < sweep_rows; ++r)
      if (p.first_group > 0 && row + r < rows())
#pragma unroll
        for (int k = 0; k < count; ++k)
          if (k < n) projection_[r][k] = p.projection[out_row(r) * voxels + voxel + k];
  }

  // group: of the chunk; channel: of the group
  __device__ void project(std::int64_t group, std::int64_t channel, const T (&value)[count]) {
#pragma unroll
    for (int r = 0; r < sweep_rows; ++r) {
      if (row_ + r >= rows()) break;
      const std::int64_t target = (row_ + r) / (p_.sides > 1 ? 2 : 1);
      if (p_.active[group * p_.targets + target] == 0) continue;
      const double normal = p_.normal[(group * rows() + row_ + r) * p_.group_channels + channel];
#pragma unroll
      for (int k = 0; k < count; ++k)
        projection_[r][k] = fma(static_cast<double>(widen(value[k])), normal, projection_[r][k]);
    }
  }

  // The gradient of a channel; the first target's maps are at hand.
  __device__ void combine(std::int64_t group, std::int64_t channel, const TargetMaps<Sum>& first,
                          const Sum (&shrink)[count], const T (&value)[count],
                          T (&gradient)[count]) const {
    Sum sum[count] = {};
    const Coefficient<Sum>* c =
        p_.maps.coefficient + group * p_.targets * p_.group_channels + channel;
    first.add(*c, sum);
#pragma unroll 1
    for (std::int64_t target = 1; target < p_.targets; ++target)
      TargetMaps<Sum>(p_.maps, group, image_, target, p_.targets, voxel_)
          .add(c[target * p_.group_channels], sum);
#pragma unroll
    for (int k = 0; k < count; ++k)
      gradient[k] = narrow_to(T{}, sum[k] - shrunk(shrink[k], static_cast<Sum>(widen(value[k]))));
  }

  __device__ void store() const {
    const std::int64_t voxels = p_.features.extent.voxels();
#pragma unroll
    for (int r = 0; r < sweep_rows; ++r)
      if (row_ + r < rows())
        store_step(p_.projection + out_row(r) * voxels, voxel_, voxel_ + n_, projection_[r]);
  }

  __device__ std::int64_t rows() const { return p_.targets * p_.sides; }

 private:
  __device__ std::int64_t out_row(int r) const { return image_ * rows() + row_ + r; }

  const GradientSweepParams<T>& p_;
  const std::int64_t image_, voxel_, n_, row_;  // n: voxels left of the plane
  double projection_[sweep_rows][count] = {};
};

template <class Sum>
__device__ __forceinline__ void load_shrink(const GroupMaps<Sum>& maps, std::int64_t group,
                                            std::int64_t voxel, Sum (&shrink)[step<Sum>]) {
  if (maps.shrink != nullptr)
    return load_aligned(maps.shrink + group * maps.shrink_pitch + voxel, shrink);
#pragma unroll
  for (int k = 0; k < step<Sum>; ++k) shrink[k] = Sum(0);
}

// One block's voxels [first, first + n) of an image, whose groups of the chunk begin with `group`.
struct SweepTask {
  std::int64_t image, group, first, n;
};

// Features and their gradient in rows.
template <class T>
__device__ __forceinline__ void sweep_rows_of(const GradientSweepParams<T>& p,
                                              const SweepTask& task, bool writes, bool reads,
                                              GradientStep<T>* mine) {
  using Sum = SumOf<T>;
  const std::int64_t v = threadIdx.x * step<Sum>, voxel = task.first + v;
  if (v >= task.n) return;
  for (std::int64_t g = 0; g < p.groups; ++g) {
    const std::int64_t group = task.group + g, channel = (p.first_group + g) * p.group_channels;
    const T* row =
        static_cast<const T*>(p.features.data) + p.features.plane(task.image, channel) + task.first;
    T* out = static_cast<T*>(const_cast<void*>(p.out.data)) +
             (writes ? p.out.plane(task.image, channel) + task.first : 0);
    const TargetMaps<Sum> first(p.maps, group, task.image, 0, p.targets, voxel);
    Sum shrink[step<Sum>];
    load_shrink(p.maps, group, voxel, shrink);
#pragma unroll 2
    for (std::int64_t c = 0; c < p.group_channels; ++c) {
      T value[step<Sum>] = {};
      if (reads) load_step(row + c * p.features.channel_stride, v, task.n, value);
      mine->project(group, c, value);
      if (!writes) continue;
      T gradient[step<Sum>];
      mine->combine(group, c, first, shrink, value, gradient);
      store_step(out + c * p.out.channel_stride, v, task.n, gradient);
    }
  }
}

// What stage_elements read, the other way round.
template <class T>
__device__ __forceinline__ void unstage_elements(const Tensor& out, std::int64_t image,
                                                 std::int64_t channel, int channels,
                                                 std::int64_t first, std::int64_t n,
                                                 const T* staged, std::int64_t pitch) {
  T* data = static_cast<T*>(const_cast<void*>(out.data));
  const bool by_channel = out.layout == Layout::channels_last;
  for (int i = threadIdx.x; i < n * channels; i += threads) {
    const int u = by_channel ? i % channels : i / static_cast<int>(n);
    const int v = by_channel ? i / channels : i % static_cast<int>(n);
    data[out.plane(image, channel + u) + out.offset(first + v)] = staged[u * pitch + v];
  }
}

// Of any layout, a sector of neighbouring channels at a time by way of shared memory.
template <class T>
__device__ __forceinline__ void sweep_elements(const GradientSweepParams<T>& p,
                                               const SweepTask& task, bool writes, bool reads,
                                               T* staged, GradientStep<T>* mine) {
  using Sum = SumOf<T>;
  const std::int64_t v = threadIdx.x * step<Sum>;
  for (std::int64_t g = 0; g < p.groups; ++g) {
    const std::int64_t group = task.group + g, channel = (p.first_group + g) * p.group_channels;
    for (std::int64_t c = 0; c < p.group_channels; c += neighbours<T>) {
      const int here = static_cast<int>(lesser(neighbours<T>, p.group_channels - c));
      __syncthreads();  // nobody reads the channels before any more
      if (reads)
        stage_elements(p.features, task.image, channel + c, here, task.first, task.n, staged,
                       turned_pitch<T>);
      __syncthreads();
      if (v < task.n) {
        const TargetMaps<Sum> first(p.maps, group, task.image, 0, p.targets, task.first + v);
        Sum shrink[step<Sum>];
        load_shrink(p.maps, group, task.first + v, shrink);
        for (int k = 0; k < here; ++k) {
          T value[step<Sum>] = {}, gradient[step<Sum>];
          T* own = staged + k * turned_pitch<T> + v;
          if (reads) load_aligned(own, value);
          mine->project(group, c + k, value);
          if (!writes) continue;
          mine->combine(group, c + k, first, shrink, value, gradient);
          store_step(own, 0, step<Sum>, gradient);
        }
      }
      if (!writes) continue;
      __syncthreads();
      unstage_elements(p.out, task.image, channel + c, here, task.first, task.n, staged,
                       turned_pitch<T>);
    }
  }
}

// Whether features and their gradient lie in rows.
template <class T>
bool in_rows(const GradientSweepParams<T>& p) {
  return p.features.layout == Layout::rows &&
         (p.out.data == nullptr || p.out.layout == Layout::rows);
}

// One block per image and piece of its voxels.
template <class T, bool rows>
__global__ void __launch_bounds__(threads, 2) gradient_sweep_kernel(GradientSweepParams<T> p) {
  const std::int64_t voxels = p.features.extent.voxels();
  const bool reads = p.sides > 0 || p.maps.shrink != nullptr;
  for (std::int64_t i = blockIdx.x; i < p.images * p.pieces; i += gridDim.x) {
    const std::int64_t image = i / p.pieces, first = i % p.pieces * sweep_voxels<T>;
    const SweepTask task = {p.first_image + image, image * p.groups, first,
                            lesser(sweep_voxels<T>, voxels - first)};
    const std::int64_t v = threadIdx.x * step<SumOf<T>>;
    std::int64_t row = 0;
    do {
      const bool writes = p.out.data != nullptr && row == 0;
      GradientStep<T> mine(p, task.image, first + v, task.n - v, row);
      if constexpr (rows)
        sweep_rows_of(p, task, writes, reads, &mine);
      else
        sweep_elements(p, task, writes, reads, dynamic_shared<T>(), &mine);
      if (p.projection != nullptr && v < task.n) mine.store();
      row += sweep_rows;
    } while (row < p.targets * p.sides);
  }
}

}  // namespace protoseg::cuda
