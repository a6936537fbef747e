// What kernels are compared with: random input, and sums and counts written directly.
#pragma once

#include <simt/scenario.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "boundary.cuh"
#include "launch.cuh"
#include "sums.cuh"

namespace direct {

using namespace protoseg;
using namespace protoseg::cuda;

// ---- elements ----------------------------------------------------------------------------------

inline Half narrow_to(Half, double x) {
  return {__half_as_ushort(__float2half_rn(static_cast<float>(x)))};
}
inline Bfloat narrow_to(Bfloat, double x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(static_cast<float>(x)))};
}
inline float narrow_to(float, double x) { return static_cast<float>(x); }
inline double narrow_to(double, double x) { return x; }

template <class T>
constexpr DType dtype_of() {
  if (std::is_same_v<T, Half>) return DType::float16;
  if (std::is_same_v<T, Bfloat>) return DType::bfloat16;
  return std::is_same_v<T, float> ? DType::float32 : DType::float64;
}

inline std::mt19937_64& generator() {
  static std::mt19937_64 random(7);
  return random;
}
inline double normal() { return std::normal_distribution<double>()(generator()); }
inline double uniform() { return std::uniform_real_distribution<double>()(generator()); }

template <class T>
std::vector<T> normals(std::int64_t n, double scale = 1.0, double shift = 0.0) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < n; ++i) values.push_back(narrow_to(T{}, shift + scale * normal()));
  return values;
}

// ---- features ----------------------------------------------------------------------------------

// Features [N, C, voxels] on the device, and their values.
template <class T>
struct Features {
  // misalignment: elements that the first one lies behind a multiple of 16 bytes
  Features(std::int64_t images, std::int64_t channels, const Extent& extent, Layout layout,
           const std::vector<T>& values, int misalignment = 0)
      : memory(turned(values, images, channels, extent.voxels(), layout), "features",
               static_cast<std::size_t>(misalignment) * sizeof(T)),
        value(values) {
    tensor.data = memory.data();
    tensor.dtype = dtype_of<T>();
    tensor.layout = layout;
    tensor.extent = extent;
    const std::int64_t voxels = extent.voxels();
    const bool last = layout == Layout::channels_last;
    tensor.x_stride = last ? channels : 1;
    tensor.y_stride = extent.x * tensor.x_stride;
    tensor.z_stride = extent.y * tensor.y_stride;
    tensor.channel_stride = last ? 1 : voxels;
    tensor.image_stride = channels * voxels;
  }

  const T* plane(std::int64_t unit) const { return &value[unit * tensor.extent.voxels()]; }

  simt::DeviceArray<T> memory;
  std::vector<T> value;  // [N, C, voxels]
  Tensor tensor;

 private:
  static std::vector<T> turned(const std::vector<T>& values, std::int64_t images,
                               std::int64_t channels, std::int64_t voxels, Layout layout) {
    if (layout != Layout::channels_last) return values;
    std::vector<T> out(values.size());
    for (std::int64_t n = 0; n < images; ++n)
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t v = 0; v < voxels; ++v)
          out[(n * voxels + v) * channels + c] = values[(n * channels + c) * voxels + v];
    return out;
  }
};

inline Extent line_of(std::int64_t voxels) {
  Extent extent;
  extent.x = voxels;
  return extent;
}

// ---- weights -----------------------------------------------------------------------------------

// Kept weights of `planes` images and targets.
template <class Sum>
struct KeptWeights {
  KeptWeights(std::int64_t images, std::int64_t targets, std::int64_t voxels)
      : KeptWeights(images * targets, targets, voxels,
                    [](std::int64_t, int, std::int64_t) { return uniform(); }) {}
  // weight(plane, side, voxel)
  template <class Weight>
  KeptWeights(std::int64_t planes, std::int64_t targets, std::int64_t voxels, Weight weight)
      : pitch(round_up(voxels, 8)),
        value(padded(planes, voxels, pitch, weight)),
        memory(value, "weights"),
        totals(totals_of(value, pitch)),
        total(totals, "totals") {
    weights.positive = memory.data();
    weights.negative = memory.data() + pitch;
    weights.target_stride = 2 * pitch;
    weights.image_stride = targets * 2 * pitch;
    weights.total = total.data();
  }
  const Sum* row(std::int64_t plane, int side) const { return &value[(2 * plane + side) * pitch]; }

  std::int64_t pitch;
  std::vector<Sum> value;  // [planes, 2, pitch]
  simt::DeviceArray<Sum> memory;
  std::vector<double> totals;
  simt::DeviceArray<double> total;
  Weights<Sum> weights;

 private:
  template <class Weight>
  static std::vector<Sum> padded(std::int64_t planes, std::int64_t voxels, std::int64_t pitch,
                                 Weight weight) {
    std::vector<Sum> values(static_cast<std::size_t>(planes * 2 * pitch), Sum(0));
    for (std::int64_t row = 0; row < planes * 2; ++row)
      for (std::int64_t v = 0; v < voxels; ++v)
        values[row * pitch + v] = static_cast<Sum>(weight(row / 2, static_cast<int>(row % 2), v));
    return values;
  }
  static std::vector<double> totals_of(const std::vector<Sum>& value, std::int64_t pitch) {
    std::vector<double> totals(value.size() / pitch, 0.0);
    for (std::size_t i = 0; i < value.size(); ++i) totals[i / pitch] += value[i];
    return totals;
  }
};

// One segment of one plane, in the shape of shape.cuh, step by step: bit for bit what kernels have.
template <class T>
double segment_sum(const T* f, const SumOf<T>* weight, std::int64_t n, double reference) {
  using Sum = SumOf<T>;
  Sum lane[threads] = {};
  for (std::int64_t v = 0; v < n; ++v) {
    Sum& sum = lane[v % row_voxels<Sum> / step<Sum>];
    sum = std::fma(static_cast<Sum>(widen(f[v])) - static_cast<Sum>(reference), weight[v], sum);
  }
  double total = 0.0;
  for (int warp = 0; warp < warps; ++warp) {
    double tree[warp_lanes];
    for (int k = 0; k < warp_lanes; ++k) tree[k] = lane[warp * warp_lanes + k];
    for (int n_left = warp_lanes; n_left > 1; n_left /= 2)
      for (int k = 0; k < n_left / 2; ++k) tree[k] = tree[2 * k] + tree[2 * k + 1];
    total = warp == 0 ? tree[0] : total + tree[0];
  }
  return total;
}

// The same in double, for features that float has no digits or no room for.
template <class T>
double exact_sum(const T* f, const SumOf<T>* weight, std::int64_t n, double reference) {
  double sum = 0.0;
  for (std::int64_t v = 0; v < n; ++v)
    sum += (static_cast<double>(widen(f[v])) - reference) * static_cast<double>(weight[v]);
  return sum;
}

// ---- references --------------------------------------------------------------------------------

// Random packed bits: what counts, and two references within it.
struct Bits {
  Bits(std::int64_t images, std::int64_t targets, std::int64_t voxels)
      : words(divide_up(voxels, 32)),
        valid_bit(random(images * voxels, 0.8)),
        actual_bit{within(targets, voxels, 0.4), within(targets, voxels, 0.5)},
        valid(packed(valid_bit, voxels), "valid"),
        actual{{packed(actual_bit[0], voxels), "target"},
               {packed(actual_bit[1], voxels), "output"}},
        voxel_count(counted(valid_bit, voxels), "voxel counts"),
        actual_count{{counted(actual_bit[0], voxels), "target counts"},
                     {counted(actual_bit[1], voxels), "output counts"}} {
    references.words = words;
    references.valid = valid.data();
    references.voxel_count = voxel_count.data();
    for (int which = 0; which < 2; ++which) {
      references.actual[which] = actual[which].data();
      references.actual_count[which] = actual_count[which].data();
    }
  }

  std::int64_t words;
  std::vector<bool> valid_bit;      // [N, voxels]
  std::vector<bool> actual_bit[2];  // [N, T, voxels]
  simt::DeviceArray<unsigned> valid, actual[2];
  simt::DeviceArray<std::int64_t> voxel_count, actual_count[2];
  References references;

 private:
  static std::vector<bool> random(std::int64_t n, double share) {
    std::vector<bool> bits;
    for (std::int64_t i = 0; i < n; ++i) bits.push_back(uniform() < share);
    return bits;
  }
  std::vector<bool> within(std::int64_t targets, std::int64_t voxels, double share) const {
    std::vector<bool> bits;
    for (std::size_t i = 0; i < valid_bit.size() / voxels * targets * voxels; ++i)
      bits.push_back(uniform() < share && valid_bit[i / voxels / targets * voxels + i % voxels]);
    return bits;
  }
  std::vector<unsigned> packed(const std::vector<bool>& bits, std::int64_t voxels) const {
    std::vector<unsigned> out(bits.size() / voxels * words, 0u);
    for (std::size_t i = 0; i < bits.size(); ++i)
      if (bits[i]) out[i / voxels * words + i % voxels / 32] |= 1u << (i % voxels % 32);
    return out;
  }
  static std::vector<std::int64_t> counted(const std::vector<bool>& bits, std::int64_t voxels) {
    std::vector<std::int64_t> out(bits.size() / voxels, 0);
    for (std::size_t i = 0; i < bits.size(); ++i) out[i / voxels] += bits[i];
    return out;
  }
};

// Results on the device; what is added to starts at 0, the rest unwritten.
struct Results {
  Results(std::int64_t pairs, const Bits& bits_in, std::int64_t groups_in, std::int64_t targets_in)
      : bits(bits_in),
        groups(groups_in),
        targets(targets_in),
        known(static_cast<std::size_t>(pairs)) {
    for (int which = 0; which < 2; ++which) {
      const std::string name = which == 0 ? " of target" : " of output";
      counts[which].emplace_back(std::vector<std::int64_t>(known, 0), "tp" + name);
      counts[which].emplace_back(std::vector<std::int64_t>(known, 0), "predicted" + name);
      counts[which].emplace_back(known, "actual" + name);
      defined.emplace_back(known, "defined" + name);
      out.tp[which] = counts[which][0].data();
      out.predicted[which] = counts[which][1].data();
      out.actual[which] = counts[which][2].data();
      out.defined[which] = defined[which].data();
    }
  }

  // foreground(group of all, target, voxel), for every voxel
  template <class Foreground>
  void expect_counts(std::int64_t voxels, Foreground foreground) const {
    for (int which = 0; which < 2; ++which) {
      const auto tp = counts[which][0].download(), predicted = counts[which][1].download();
      for (std::int64_t i = 0; i < static_cast<std::int64_t>(known); ++i) {
        const std::int64_t group = i / targets, target = i % targets, image = group / groups;
        std::int64_t both = 0, all = 0;
        for (std::int64_t v = 0; v < voxels; ++v) {
          const bool valid = bits.valid_bit[image * voxels + v];
          const bool actual = bits.actual_bit[which][(image * targets + target) * voxels + v];
          if (!foreground(group, target, v)) continue;
          all += valid;
          both += actual;
        }
        SIMT_EXPECT_EQUAL(predicted[i], all);
        SIMT_EXPECT_EQUAL(tp[i], both);
      }
    }
  }

  // What does not depend on the map; defined(group, target).
  template <class Defined>
  void expect_known(Defined is_defined) const {
    for (int which = 0; which < 2; ++which) {
      const auto actual = counts[which][2].download();
      const auto found = defined[which].download();
      const auto expected = bits.actual_count[which].download();
      for (std::int64_t i = 0; i < static_cast<std::int64_t>(known); ++i) {
        const std::int64_t group = i / targets, target = i % targets;
        SIMT_EXPECT_EQUAL(actual[i], expected[group / groups * targets + target]);
        SIMT_EXPECT_EQUAL(found[i] != 0, is_defined(group, target));
      }
    }
  }

  const Bits& bits;
  std::int64_t groups, targets;
  std::size_t known;
  std::vector<simt::DeviceArray<std::int64_t>> counts[2];
  std::vector<simt::DeviceArray<std::uint8_t>> defined;
  CountOutputs out;
};

template <class Params>
void start(void (*kernel)(Params), std::int64_t blocks, const std::common_type_t<Params>& params,
           std::int64_t shared_bytes = 0, int cluster = 1) {
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(blocks * cluster));
  shape.block = dim3(threads);
  shape.cluster = static_cast<unsigned>(cluster);
  shape.shared_bytes = static_cast<std::size_t>(shared_bytes);
  SIMT_EXPECT(launch(kernel, shape, nullptr, params) == cudaSuccess);
}

// How often and how well features were read, by all launches so far.
inline simt::GlobalTraffic features_read() {
  std::string name;
  name = "features";
  return simt::total().read(name);
}

inline void expect_near(double found, double expected, double tolerance) {
  if (found == expected || (std::isnan(expected) && std::isnan(found))) return;
  if (!(std::fabs(found - expected) <= tolerance))
    simt::wrong("expected " + std::to_string(expected) + ", found " + std::to_string(found),
                __FILE__, __LINE__);
}

}  // namespace direct
