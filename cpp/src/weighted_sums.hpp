// Inner loops of weighted sums, in the fixed shape that kernels.hpp describes. Part of kernels.cpp,
// compiled once per instruction set.
#pragma once

#include "protoseg/weight.hpp"
#include "reading.hpp"

namespace protoseg {
namespace {

// Asks the second-level cache for what will be read soon, while `lanes` elements from i on are
// read: the hardware's own prefetcher stops at every page, and does not know the next plane. Asking
// past the end of an array is harmless.
template <class T>
PROTOSEG_INLINE void prefetch(const Soon& soon, std::int64_t i) {
  constexpr int line = 64 / static_cast<int>(sizeof(T));
  const auto* at = static_cast<const T*>(soon.data) + (soon.half_rate ? i / 2 : i);
  for (int k = 0; k < lanes / 2; k += line) __builtin_prefetch(at + k, 0, 2);
  if (soon.half_rate) return;
  for (int k = lanes / 2; k < lanes; k += line) __builtin_prefetch(at + k, 0, 2);
}

// How the two weights of a voxel are given.
enum class WeightPair {
  both,        // two arrays
  positive,    // w+; w- = 1 - w+ is the larger in sum
  complement,  // the same, but w+ is the larger
};

// One block. Where w+ + w- = 1, only the smaller sum is computed, and the other is what it lacks of
// the sum of all: so nothing small is ever a difference of large numbers.
template <WeightPair pair, class E, class T>
PROTOSEG_INLINE void block_sums(const typename E::Type* f, T reference, const T* positive_weight,
                                const T* negative_weight, std::int64_t n, const Soon& soon,
                                std::int64_t offset, double* positive, double* negative) {
  constexpr int registers = lanes / width<T>;
  constexpr bool all = pair != WeightPair::both;
  // p: of w+, or of the smaller weight; q: of w-, or of all voxels
  Vec<T> p[registers] = {}, q[registers] = {};
  const Vec<T> r = splat(reference), one = splat(T{1});
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    prefetch<typename E::Type>(soon, offset + i);
#pragma GCC unroll 16
    for (int k = 0; k < registers; ++k) {
      const std::int64_t at = i + k * width<T>;
      const Vec<T> d = E::load_register(f + at) - r;
      const Vec<T> w = load<Vec<T>>(positive_weight + at);
      p[k] += d * (pair == WeightPair::complement ? one - w : w);
      q[k] += all ? d : d * load<Vec<T>>(negative_weight + at);
    }
  }
  T p_lane[lanes], q_lane[lanes];
  for (int k = 0; k < registers; ++k) {
    store(p_lane + k * width<T>, p[k]);
    store(q_lane + k * width<T>, q[k]);
  }
  for (int lane = 0; i < n; ++i, ++lane) {
    const T d = E::template read<T>(f[i]) - reference, w = positive_weight[i];
    p_lane[lane] += d * (pair == WeightPair::complement ? T{1} - w : w);
    q_lane[lane] += all ? d : d * negative_weight[i];
  }
  for (int lane = 0; lane < lanes; ++lane) {
    const double small = static_cast<double>(p_lane[lane]);
    const double other = static_cast<double>(q_lane[lane]) - (all ? small : 0.0);
    positive[lane] += pair == WeightPair::complement ? other : small;
    negative[lane] += pair == WeightPair::complement ? small : other;
  }
}

template <WeightPair pair, class E, class T>
PROTOSEG_INLINE void sums_of(const typename E::Type* f, T reference, const T* positive_weight,
                             const T* negative_weight, std::int64_t n, const Soon& soon,
                             double* positive, double* negative) {
  for (std::int64_t i = 0; i < n; i += block_voxels) {
    const std::int64_t here = n - i < block_voxels ? n - i : block_voxels;
    block_sums<pair, E>(f + i, reference, positive_weight + i, negative_weight + i, here, soon, i,
                        positive, negative);
  }
}

template <class T>
void sums(StoredRow row, T reference, const WeightRows<T>& weight, std::int64_t n, const Soon& soon,
          double* positive, double* negative) {
  with_row_of<T>(row.dtype, [&](auto element) {
    using E = decltype(element);
    const auto* f = static_cast<const typename E::Type*>(row.data);
    if (weight.negative != nullptr)
      sums_of<WeightPair::both, E>(f, reference, weight.positive, weight.negative, n, soon,
                                   positive, negative);
    else if (weight.mostly_positive)
      sums_of<WeightPair::complement, E>(f, reference, weight.positive, weight.positive, n, soon,
                                         positive, negative);
    else
      sums_of<WeightPair::positive, E>(f, reference, weight.positive, weight.positive, n, soon,
                                       positive, negative);
  });
}

// sum[lane] += w, or 1 - w, in double.
template <bool complement, class T>
PROTOSEG_INLINE void lane_totals(const T* weight, std::int64_t n, double* sum) {
  constexpr int registers = lanes / width<double>;
  DoubleVec s[registers];
  for (int k = 0; k < registers; ++k) s[k] = load<DoubleVec>(sum + k * width<double>);
  const auto term = [](auto w) { return complement ? 1.0 - w : w; };
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
#pragma GCC unroll 16
    for (int k = 0; k < registers; ++k) s[k] += term(load_double(weight + i + k * width<double>));
  for (int k = 0; k < registers; ++k) store(sum + k * width<double>, s[k]);
  for (int lane = 0; i < n; ++i, ++lane) sum[lane] += term(static_cast<double>(weight[i]));
}

template <class T>
void totals(const T* positive_weight, const T* negative_weight, std::int64_t n, double* positive,
            double* negative) {
  lane_totals<false>(positive_weight, n, positive);
  if (negative_weight == nullptr)
    lane_totals<true>(positive_weight, n, negative);
  else
    lane_totals<false>(negative_weight, n, negative);
}

// Both weights are computed before either is stored, so that pred may be overwritten in place.
template <class T>
void weights(const double* pred, const double* mask, const double* scale, std::int64_t n,
             T* positive, T* negative) {
  const double p_scale = scale[0], q_scale = scale[1];
  for (std::int64_t i = 0; i < n; ++i) {
    const double p = pred[i], m = mask == nullptr ? 1.0 : mask[i];
    positive[i] = static_cast<T>(positive_weight(m, p, p_scale));
    negative[i] = static_cast<T>(negative_weight(m, p, q_scale));
  }
}

}  // namespace
}  // namespace protoseg
