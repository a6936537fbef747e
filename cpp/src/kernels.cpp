// Every inner loop of the engine. This file is compiled once per instruction set, with
// PROTOSEG_ISA naming the copy; the results have the same bits in every copy, because lanes,
// blocks and the order of every addition are fixed and contraction is off.
//
// Only functions with internal linkage here, and no STL: a weak symbol compiled for AVX-512 could
// otherwise become everyone's copy.
#include "kernels.hpp"

#include "lanes.hpp"
#include "protoseg/resize.hpp"
#include "protoseg/rule.hpp"
#include "tiles.hpp"

namespace protoseg {
namespace {

// ---- reading -------------------------------------------------------------------------------

// How one stored element becomes a number, by DType.
template <DType dtype>
struct Element;
template <class Stored>
struct Plain {
  using Type = Stored;
  template <class Out>
  PROTOSEG_INLINE Out read(Stored x) {
    return static_cast<Out>(x);
  }
};
template <>
struct Element<DType::boolean> : Plain<std::uint8_t> {};
template <>
struct Element<DType::int8> : Plain<std::int8_t> {};
template <>
struct Element<DType::uint8> : Plain<std::uint8_t> {};
template <>
struct Element<DType::int16> : Plain<std::int16_t> {};
template <>
struct Element<DType::uint16> : Plain<std::uint16_t> {};
template <>
struct Element<DType::int32> : Plain<std::int32_t> {};
template <>
struct Element<DType::uint32> : Plain<std::uint32_t> {};
template <>
struct Element<DType::int64> : Plain<std::int64_t> {};
template <>
struct Element<DType::uint64> : Plain<std::uint64_t> {};
template <>
struct Element<DType::float32> : Plain<float> {};
template <>
struct Element<DType::float64> : Plain<double> {};
template <>
struct Element<DType::float16> {
  using Type = std::uint16_t;
  template <class Out>
  PROTOSEG_INLINE Out read(std::uint16_t x) {
    return static_cast<Out>(half_to_float(x));
  }
};
template <>
struct Element<DType::bfloat16> {
  using Type = std::uint16_t;
  template <class Out>
  PROTOSEG_INLINE Out read(std::uint16_t x) {
    return static_cast<Out>(bfloat_to_float(x));
  }
};

// Calls f(Element<dtype>{}) for the dtype at hand.
template <class F>
PROTOSEG_INLINE void with_element(DType dtype, F f) {
  switch (dtype) {
    case DType::boolean: return f(Element<DType::boolean>{});
    case DType::int8: return f(Element<DType::int8>{});
    case DType::uint8: return f(Element<DType::uint8>{});
    case DType::int16: return f(Element<DType::int16>{});
    case DType::uint16: return f(Element<DType::uint16>{});
    case DType::int32: return f(Element<DType::int32>{});
    case DType::uint32: return f(Element<DType::uint32>{});
    case DType::int64: return f(Element<DType::int64>{});
    case DType::uint64: return f(Element<DType::uint64>{});
    case DType::float16: return f(Element<DType::float16>{});
    case DType::bfloat16: return f(Element<DType::bfloat16>{});
    case DType::float32: return f(Element<DType::float32>{});
    case DType::float64: return f(Element<DType::float64>{});
  }
}

template <class Out>
void read_strided(DType dtype, const void* source, std::int64_t stride, std::int64_t n, Out* out) {
  with_element(dtype, [=](auto element) {
    using E = decltype(element);
    const auto* x = static_cast<const typename E::Type*>(source);
    if (stride == 1) {
      for (std::int64_t i = 0; i < n; ++i) out[i] = E::template read<Out>(x[i]);
    } else {
      for (std::int64_t i = 0; i < n; ++i) out[i] = E::template read<Out>(x[i * stride]);
    }
  });
}

// Contiguous 16-bit floats in whole registers; the rest one by one.
template <FloatVec (*widen)(const std::uint16_t*), DType dtype>
PROTOSEG_INLINE void read_halves(const void* source, std::int64_t n, float* out) {
  const auto* x = static_cast<const std::uint16_t*>(source);
  std::int64_t i = 0;
  for (; i + width<float> <= n; i += width<float>) store(out + i, widen(x + i));
  read_strided(dtype, x + i, 1, n - i, out + i);
}

void to_float(DType dtype, const void* source, std::int64_t stride, std::int64_t n, float* out) {
  if (stride == 1 && dtype == DType::float16)
    return read_halves<widen_halves, DType::float16>(source, n, out);
  if (stride == 1 && dtype == DType::bfloat16)
    return read_halves<widen_bfloats, DType::bfloat16>(source, n, out);
  read_strided(dtype, source, stride, n, out);
}

void to_double(DType dtype, const void* source, std::int64_t stride, std::int64_t n, double* out) {
  read_strided(dtype, source, stride, n, out);
}

template <class Out>
void read_tile(DType dtype, const void* source, std::int64_t stride, std::int64_t n,
               std::int64_t channels, Out* out, std::int64_t pitch) {
  constexpr std::int64_t few = 16;    // voxels turned at a time, while their rows are close by
  constexpr std::int64_t ahead = 64;  // voxels: each is a cache line of its own
  with_element(dtype, [=](auto element) {
    using E = decltype(element);
    const auto* x = static_cast<const typename E::Type*>(source);
    for (std::int64_t i = 0; i < n; i += few) {
      const std::int64_t here = n - i < few ? n - i : few;
      for (std::int64_t k = 0; k < here; ++k) __builtin_prefetch(x + (i + k + ahead) * stride);
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t k = 0; k < here; ++k)
          out[c * pitch + i + k] = E::template read<Out>(x[(i + k) * stride + c]);
    }
  });
}

// ---- weighted sums -------------------------------------------------------------------------

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
template <WeightPair pair, class T>
PROTOSEG_INLINE void block_sums(const T* f, T reference, const T* positive_weight,
                                const T* negative_weight, std::int64_t n, const Soon& soon,
                                std::int64_t offset, double* positive, double* negative) {
  constexpr int registers = lanes / width<T>;
  constexpr bool all = pair != WeightPair::both;
  // p: of w+, or of the smaller weight; q: of w-, or of all voxels
  Vec<T> p[registers] = {}, q[registers] = {};
  const Vec<T> r = splat(reference), one = splat(T{1});
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    prefetch<T>(soon, offset + i);
#pragma GCC unroll 16
    for (int k = 0; k < registers; ++k) {
      const std::int64_t at = i + k * width<T>;
      const Vec<T> d = load<Vec<T>>(f + at) - r;
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
    const T d = f[i] - reference, w = positive_weight[i];
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

template <WeightPair pair, class T>
PROTOSEG_INLINE void sums_of(const T* f, T reference, const T* positive_weight,
                             const T* negative_weight, std::int64_t n, const Soon& soon,
                             double* positive, double* negative) {
  for (std::int64_t i = 0; i < n; i += block_voxels) {
    const std::int64_t here = n - i < block_voxels ? n - i : block_voxels;
    block_sums<pair>(f + i, reference, positive_weight + i, negative_weight + i, here, soon, i,
                     positive, negative);
  }
}

template <class T>
void sums(const T* f, T reference, const WeightRows<T>& weight, std::int64_t n, const Soon& soon,
          double* positive, double* negative) {
  if (weight.negative != nullptr)
    sums_of<WeightPair::both>(f, reference, weight.positive, weight.negative, n, soon, positive,
                              negative);
  else if (weight.mostly_positive)
    sums_of<WeightPair::complement>(f, reference, weight.positive, weight.positive, n, soon,
                                    positive, negative);
  else
    sums_of<WeightPair::positive>(f, reference, weight.positive, weight.positive, n, soon, positive,
                                  negative);
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
    const double p = pred[i], q = 1.0 - p;
    const double m = mask == nullptr ? 1.0 : mask[i];
    positive[i] = static_cast<T>(p_scale * (m * p));
    negative[i] = static_cast<T>(q_scale * (m * q));
  }
}

// ---- decisions -----------------------------------------------------------------------------

PROTOSEG_INLINE void tally_word(std::uint64_t foreground, std::uint64_t actual, Tally* tally) {
  tally->predicted += __builtin_popcountll(foreground);
  tally->tp += __builtin_popcountll(foreground & actual);
}

// 64 decisions as bits; `above` says on which side of the threshold the foreground lies.
template <bool foreground_above, class T>
PROTOSEG_INLINE std::uint64_t decide_word(const T* f, Vec<T> threshold) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (sizeof(T) == sizeof(float)) {
    OctetMask octet[8];
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      const Octet x = load_octet(f + 8 * k);
      octet[k] = foreground_above ? above(x, threshold) : above(threshold, x);
    }
    return octets_word(octet);
  }
#endif
  std::uint64_t bits = 0;
#pragma GCC unroll 32
  for (int k = 0; k < word_bits / width<T>; ++k) {
    const Vec<T> x = load<Vec<T>>(f + k * width<T>);
    bits |= (foreground_above ? greater_bits(x, threshold) : greater_bits(threshold, x))
            << (k * width<T>);
  }
  return bits;
}
template <bool above, class T>
PROTOSEG_INLINE std::uint64_t decide_tail(const T* f, T threshold, std::int64_t n) {
  std::uint64_t bits = 0;
  for (std::int64_t i = 0; i < n; ++i)
    bits |= std::uint64_t{above ? f[i] > threshold : threshold > f[i]} << i;
  return bits;
}

template <bool above, class T>
void count(const T* f, T threshold, std::int64_t n, Reference reference, std::int64_t offset,
           const Soon& soon, Tally* tally) {
  const Vec<T> t = splat(threshold);
  Tally sum = {0, 0};
  for (std::int64_t i = 0; i < n; i += word_bits) {
    const std::int64_t here = n - i < word_bits ? n - i : word_bits;
    prefetch<T>(soon, i);
    prefetch<T>(soon, i + lanes);
    std::uint64_t bits = here == word_bits ? decide_word<above>(f + i, t)
                                           : decide_tail<above>(f + i, threshold, here);
    if (reference.valid != nullptr) bits &= bits_at(reference.valid, offset + i, here);
    tally_word(bits, bits_at(reference.actual, offset + i, here), &sum);
  }
  tally->tp += sum.tp;
  tally->predicted += sum.predicted;
}

void decide(const double* projection, double threshold, std::int64_t n, std::uint8_t* map) {
  for (std::int64_t i = 0; i < n; ++i) map[i] = is_foreground(projection[i], threshold);
}

// ---- projections ---------------------------------------------------------------------------

// Term(f, channel) of each channel, added in the order of the channels. The running sum of a
// register of voxels stays in a register while the channels pass by.
template <class T, class Term>
PROTOSEG_INLINE void add_channels(const T* const* f, std::int64_t channels, std::int64_t ahead,
                                  std::int64_t n, double* sum, Term term) {
  constexpr int step = width<double>, registers = 16 / step;
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    DoubleVec s[registers];
#pragma GCC unroll 8
    for (int k = 0; k < registers; ++k) s[k] = load<DoubleVec>(sum + i + k * step);
    for (std::int64_t c = 0; c < channels; ++c) {
      __builtin_prefetch(f[c] + i + ahead, 0, 2);
#pragma GCC unroll 8
      for (int k = 0; k < registers; ++k) s[k] += term(load_double(f[c] + i + k * step), c);
    }
#pragma GCC unroll 8
    for (int k = 0; k < registers; ++k) store(sum + i + k * step, s[k]);
  }
  for (; i < n; ++i)
    for (std::int64_t c = 0; c < channels; ++c) sum[i] += term(static_cast<double>(f[c][i]), c);
}

template <class T>
void project(const T* const* f, const double* weight, std::int64_t channels, std::int64_t ahead,
             std::int64_t n, double* projection) {
  add_channels(f, channels, ahead, n, projection,
               [weight](auto x, std::int64_t c) { return x * weight[c]; });
}

template <class T>
void square(const T* const* f, std::int64_t channels, std::int64_t n, double* squares) {
  add_channels(f, channels, 0, n, squares, [](auto x, std::int64_t) { return x * x; });
}

// ---- resizing ------------------------------------------------------------------------------

void blend(const double* a, const double* b, double weight, std::int64_t n, double* out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = lerp(a[i], b[i], weight);
}

void sample(const double* row, const std::int64_t* lower, const std::int64_t* upper,
            const double* weight, std::int64_t n, double* out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = lerp(row[lower[i]], row[upper[i]], weight[i]);
}

void spread(const double* x, double lower_share, double upper_share, std::int64_t n, double* lower,
            double* upper) {
  if (lower == upper) upper_share += lower_share;
  const DoubleVec a = splat(lower_share), b = splat(upper_share);
  std::int64_t i = 0;
  for (; lower != upper && i + width<double> <= n; i += width<double>) {
    const DoubleVec v = load<DoubleVec>(x + i);
    store(lower + i, load<DoubleVec>(lower + i) + a * v);
    store(upper + i, load<DoubleVec>(upper + i) + b * v);
  }
  for (; lower != upper && i < n; ++i) {
    lower[i] += lower_share * x[i];
    upper[i] += upper_share * x[i];
  }
  for (; i < n; ++i) upper[i] += upper_share * x[i];
}

// ---- validation and packing ----------------------------------------------------------------

void range(const double* x, std::int64_t n, Range* result) {
  DoubleVec low = splat(result->lowest), high = splat(result->highest);
  auto nan = low != low;
  std::int64_t i = 0;
  for (; i + width<double> <= n; i += width<double>) {
    const DoubleVec v = load<DoubleVec>(x + i);
    low = v < low ? v : low;
    high = v > high ? v : high;
    nan |= v != v;
  }
  for (int k = 0; k < width<double>; ++k) {
    if (low[k] < result->lowest) result->lowest = low[k];
    if (high[k] > result->highest) result->highest = high[k];
    if (nan[k] != 0) result->has_nan = true;
  }
  for (; i < n; ++i) {
    if (x[i] < result->lowest) result->lowest = x[i];
    if (x[i] > result->highest) result->highest = x[i];
    if (x[i] != x[i]) result->has_nan = true;
  }
}

bool is_binary(const double* x, std::int64_t n) {
  int other = 0;
  for (std::int64_t i = 0; i < n; ++i) other |= int{x[i] != 0.0} & int{x[i] != 1.0};
  return other == 0;
}

void pack(const double* x, double threshold, std::int64_t n, std::uint64_t* words) {
  const DoubleVec t = splat(threshold);
  for (std::int64_t i = 0; i < n; i += word_bits)
    words[i / word_bits] = i + word_bits <= n ? decide_word<true>(x + i, t)
                                              : decide_tail<true>(x + i, threshold, n - i);
}

void scan_floats(const float* x, std::int64_t n, Range* result, std::uint64_t* words) {
  FloatVec low = splat(__builtin_inff()), high = -low;
  auto nan = low != low;
  std::int64_t i = 0;
  for (; i + word_bits <= n; i += word_bits) {
#pragma GCC unroll 16
    for (int k = 0; k < word_bits; k += width<float>) {
      const FloatVec v = load<FloatVec>(x + i + k);
      low = v < low ? v : low;
      high = v > high ? v : high;
      nan |= v != v;
    }
    *words++ = decide_word<true>(x + i, splat(0.5f));
  }
  if (i < n) *words = decide_tail<true>(x + i, 0.5f, n - i);
  const auto merge = [result](float lowest, float highest) {
    if (lowest < result->lowest) result->lowest = lowest;
    if (highest > result->highest) result->highest = highest;
  };
  for (int k = 0; k < width<float>; ++k) {
    merge(low[k], high[k]);
    if (nan[k] != 0) result->has_nan = true;
  }
  for (; i < n; ++i) {
    merge(x[i], x[i]);
    if (x[i] != x[i]) result->has_nan = true;
  }
}

bool scan_bytes(const std::uint8_t* x, std::int64_t n, std::uint64_t* words) {
  std::uint8_t seen = 0;
  for (std::int64_t i = 0; i < n; i += word_bits) {
    const std::int64_t here = n - i < word_bits ? n - i : word_bits;
    std::uint64_t word = 0;
    std::int64_t k = 0;
    for (; k + 8 <= here; k += 8) {  // eight bytes of 0 or 1, gathered in one by a product
      std::uint64_t bytes;
      __builtin_memcpy(&bytes, x + i + k, sizeof(bytes));
      seen |= (bytes & 0xfefefefefefefefeu) != 0;
      word |= (bytes * 0x0102040810204080u >> 56) << k;
    }
    for (; k < here; ++k) {
      seen |= x[i + k] > 1;
      word |= std::uint64_t{x[i + k] == 1} << k;
    }
    *words++ = word;
  }
  return seen == 0;
}

}  // namespace

#define PROTOSEG_JOIN_(a, b) a##b
#define PROTOSEG_JOIN(a, b) PROTOSEG_JOIN_(a, b)
#define PROTOSEG_QUOTE_(a) #a
#define PROTOSEG_QUOTE(a) PROTOSEG_QUOTE_(a)

extern const Kernels PROTOSEG_JOIN(kernels_, PROTOSEG_ISA);
const Kernels PROTOSEG_JOIN(kernels_, PROTOSEG_ISA) = {
    PROTOSEG_QUOTE(PROTOSEG_ISA),
    to_float,
    to_double,
    read_tile<float>,
    read_tile<double>,
    sums<float>,
    sums<double>,
    totals<float>,
    totals<double>,
    weights<float>,
    weights<double>,
    count<true, float>,
    count<false, float>,
    count<true, double>,
    count<false, double>,
    decide,
    project<float>,
    project<double>,
    square<float>,
    square<double>,
    blend,
    sample,
    centre_float,
    centre_double,
    corner_bits,
    classify,
    resize_octets,
    {count_tiles_of<8>(), count_tiles_of<16>(), count_tiles_of<32>(), count_tiles_of<64>()},
    spread,
    range,
    is_binary,
    pack,
    scan_floats,
    scan_bytes,
};

}  // namespace protoseg
