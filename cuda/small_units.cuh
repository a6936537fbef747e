// Planes of up to 256 voxels: a warp keeps one in its registers, a block has eight of them. Sums
// have the shape of shape.cuh: what is a warp there is one step of the warp here.
#pragma once

#include <cstdint>

#include "count.cuh"

namespace protoseg::cuda {

template <class T>
struct SmallUnitsParams {
  Tensor features;
  Weights<SumOf<T>> weights;
  std::int64_t units;
  Divisor channels;
  std::int64_t targets;
  double* sums;  // [units, T, 2]: if not null, nothing else is done
  Metric metric;
  double temperature;
  References references;
  CountOutputs out;
};

// One plane; of its steps, a lane has every 32nd.
template <class T>
class SmallUnit {
 public:
  using Sum = SumOf<T>;
  static constexpr int steps = small_voxels / (warp_lanes * step<Sum>);

  __device__ SmallUnit(const Tensor& f, std::int64_t image, std::int64_t channel)
      : n_(f.extent.voxels()), reference_(widen(f.at<T>(image, channel, 0))) {
    const T* row = static_cast<const T*>(f.data) + f.plane(image, channel);
#pragma unroll
    for (int k = 0; k < steps; ++k) {
      if (f.layout == Layout::rows) {
        load_step(row, voxel(k), n_, value_[k]);
        continue;
      }
      for (int j = 0; j < step<Sum>; ++j)
        value_[k][j] = voxel(k) + j < n_ ? row[f.offset(voxel(k) + j)] : T{};
    }
  }

  __device__ double reference() const { return reference_; }

  // sum [2], in every lane
  __device__ void add_up(const WeightRow<Sum>& weights, double (&sum)[2]) const {
    add_up_in<Sum>(weights, sum);
    if constexpr (std::is_same_v<Sum, float>) {
      double wide[2];
      if (!needs_double(sum[0]) && !needs_double(sum[1])) return;
      add_up_in<double>(weights, wide);
      for (int side = 0; side < 2; ++side)
        if (needs_double(sum[side])) sum[side] = wide[side];
    }
  }

  // The warp's counts, packed as count_bits has them, in every lane.
  __device__ unsigned long long count(const UnitThreshold<double>& unit,
                                      const PackedRow& bits) const {
    const Sum side = unit.above ? Sum(1) : Sum(-1);
    const Sum threshold = side * static_cast<Sum>(unit.threshold);
    unsigned long long packed = 0;
#pragma unroll
    for (int k = 0; k < steps; ++k) {
      if (voxel(k) >= n_) continue;
      unsigned foreground = 0;
#pragma unroll
      for (int j = 0; j < step<Sum>; ++j)
        foreground |= static_cast<unsigned>(side * widen(value_[k][j]) > threshold) << j;
      const int word = voxel(k) / 32, shift = voxel(k) % 32;
      packed += count_bits(foreground, bits.valid[word] >> shift,
                           bits.actual[0] ? bits.actual[0][word] >> shift : 0u,
                           bits.actual[1] ? bits.actual[1][word] >> shift : 0u);
    }
    return warp_sum(packed);
  }

 private:
  __device__ int voxel(int k) const { return (k * warp_lanes + lane_of_thread()) * step<Sum>; }

  template <class S>
  __device__ void add_up_in(const WeightRow<Sum>& weights, double (&sum)[2]) const {
    sum[0] = sum[1] = 0.0;
#pragma unroll
    for (int k = 0; k < steps; ++k) {
      if (k * warp_lanes * step<Sum> >= n_) break;
      S lane[2] = {};
      if (voxel(k) < n_) {
        Sum positive[step<Sum>], negative[step<Sum>];
        load_weights(weights, voxel(k), positive, negative);
        add_step(value_[k], reference_, positive, negative, lane);
      }
      for (int side = 0; side < 2; ++side) {
        const double warp = warp_sum(static_cast<double>(lane[side]));
        sum[side] = k == 0 ? warp : sum[side] + warp;
      }
    }
  }

  const std::int64_t n_;
  const Sum reference_;
  T value_[steps][step<Sum>];
};

template <class T>
__device__ __forceinline__ void finish_small_unit(const SmallUnitsParams<T>& p,
                                                  const SmallUnit<T>& plane, std::int64_t unit,
                                                  std::int64_t image, std::int64_t target,
                                                  const double (&sum)[2]) {
  const std::int64_t at = unit * p.targets + target;
  const double* total = p.weights.total + (image * p.targets + target) * 2;
  Boundary boundary;
  const UnitThreshold<double> threshold =
      decide_unit(make_prototypes(plane.reference(), sum, total), p.metric, p.temperature,
                  std::is_same_v<SumOf<T>, float>, &boundary);
  if (lane_of_thread() == 0)
    write_known(p.out, p.references, at, image, target, p.targets, boundary.defined);
  if (!threshold.anything) return;
  const unsigned long long packed =
      plane.count(threshold, packed_row(p.references, p.out, image, target, p.targets));
  if (lane_of_thread() < counts_of_pair)
    flush_count(p.out, at, lane_of_thread(),
                static_cast<unsigned>(packed >> (21 * lane_of_thread())) & 0x1fffff);
}

// One warp per unit.
template <class T>
__global__ void __launch_bounds__(threads, 2) small_units_kernel(SmallUnitsParams<T> p) {
  const std::int64_t all_warps = static_cast<std::int64_t>(gridDim.x) * warps;
  for (std::int64_t unit = static_cast<std::int64_t>(blockIdx.x) * warps + warp_of_thread();
       unit < p.units; unit += all_warps) {
    const std::int64_t image = unit / p.channels;
    const SmallUnit<T> plane(p.features, image, unit - image * p.channels);
    for (std::int64_t target = 0; target < p.targets; ++target) {
      double sum[2];
      plane.add_up(p.weights.row(image, target, p.targets), sum);
      if (p.sums == nullptr)
        finish_small_unit(p, plane, unit, image, target, sum);
      else if (lane_of_thread() < 2)
        p.sums[(unit * p.targets + target) * 2 + lane_of_thread()] =
            lane_of_thread() == 0 ? sum[0] : sum[1];
    }
  }
}

}  // namespace protoseg::cuda
