// Places beyond 2^31 elements: the last blocks of huge grids, over arrays that take no memory where
// nobody touches them.
#pragma once

#include "direct.hpp"

namespace huge {

using namespace direct;

constexpr std::int64_t planes = std::int64_t{1}
                                << 26;  // of some 100 voxels, which is 2^32 and more

// Memory that is all zeros, except where it is set.
template <class T>
struct Zeros {
  Zeros(std::int64_t count, const char* name)
      : memory(simt::DeviceArray<T>::zeros(static_cast<std::size_t>(count), name)) {}
  void set(std::int64_t at, const std::vector<T>& values) const {
    simt::upload(memory.data() + at, values.data(), values.size() * sizeof(T));
  }
  T get(std::int64_t at) const {
    T value;
    simt::download(&value, memory.data() + at, sizeof(T));
    return value;
  }
  T* data() const { return memory.data(); }
  simt::DeviceArray<T> memory;
};

inline Tensor rows_of(const float* data, std::int64_t channels, std::int64_t voxels) {
  Tensor tensor;
  tensor.data = data;
  tensor.extent = line_of(voxels);
  tensor.x_stride = 1;
  tensor.y_stride = tensor.z_stride = voxels;
  tensor.channel_stride = voxels;
  tensor.image_stride = channels * voxels;
  return tensor;
}

// Features whose last channel alone is not zero: 0, 1, 0, 2, 0, 0, ...; one image and target.
struct LastUnit {
  static constexpr std::int64_t voxels = 100, channels = planes, last = planes - 1;
  LastUnit()
      : features(channels * voxels, "features"),
        weights(std::vector<float>(208, 1.0f), "weights"),
        total(std::vector<double>{100.0, 100.0}, "totals"),
        bits(1, 1, voxels) {
    features.set(last * voxels, {0.0f, 1.0f, 0.0f, 2.0f});
    row.positive = weights.data();
    row.negative = weights.data() + 104;
    row.total = total.data();
    tensor = rows_of(features.data(), channels, voxels);
  }
  Zeros<float> features;
  simt::DeviceArray<float> weights;
  simt::DeviceArray<double> total;
  Bits bits;
  Weights<float> row;
  Tensor tensor;
};

struct HugeCounts {
  explicit HugeCounts(std::int64_t pairs)
      : tp(pairs, "tp"),
        predicted(pairs, "predicted"),
        actual(pairs, "actual"),
        defined(pairs, "defined") {
    out.tp[0] = tp.data();
    out.predicted[0] = predicted.data();
    out.actual[0] = actual.data();
    out.defined[0] = defined.data();
  }
  Zeros<std::int64_t> tp, predicted, actual;
  Zeros<std::uint8_t> defined;
  CountOutputs out;
};

// Valid voxels among 1 and 3, which are above zero.
inline std::int64_t above_zero(const Bits& bits) { return bits.valid_bit[1] + bits.valid_bit[3]; }

inline void last_block(std::int64_t blocks) {
  simt::options().blocks = {static_cast<std::uint64_t>(blocks - 1)};
}

}  // namespace huge
