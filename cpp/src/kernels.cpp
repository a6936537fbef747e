// Every inner loop of the engine. This file is compiled once per instruction set, with
// PROTOSEG_ISA naming the copy; the results have the same bits in every copy, because lanes,
// blocks and the order of every addition are fixed and contraction is off.
//
// Only functions with internal linkage here, and no STL: a weak symbol compiled for AVX-512 could
// otherwise become everyone's copy.
#include "kernels.hpp"

#include "fixed_point.hpp"
#include "gradient_loops.hpp"
#include "lanes.hpp"
#include "protoseg/resize.hpp"
#include "protoseg/rule.hpp"
#include "reading.hpp"
#include "weighted_sums.hpp"

namespace protoseg {
namespace {

// ---- decisions -----------------------------------------------------------------------------

// 64 decisions as bits; `above` says on which side of the threshold the foreground lies.
template <bool foreground_above, class E, class T>
PROTOSEG_INLINE std::uint64_t decide_word(const typename E::Type* f, Vec<T> threshold) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (sizeof(T) == sizeof(float)) {
    __m256i foreground[8];
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      const FloatVec x = E::load_register(f + 8 * k);
      foreground[k] = __m256i(foreground_above ? x > threshold : threshold > x);
    }
    return masks_word(foreground);
  }
#endif
  std::uint64_t bits = 0;
#pragma GCC unroll 32
  for (int k = 0; k < word_bits / width<T>; ++k) {
    const Vec<T> x = E::load_register(f + k * width<T>);
    bits |= (foreground_above ? greater_bits(x, threshold) : greater_bits(threshold, x))
            << (k * width<T>);
  }
  return bits;
}
template <bool above, class E, class T>
PROTOSEG_INLINE std::uint64_t decide_tail(const typename E::Type* f, T threshold, std::int64_t n) {
  std::uint64_t bits = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const T x = E::template read<T>(f[i]);
    bits |= std::uint64_t{above ? x > threshold : threshold > x} << i;
  }
  return bits;
}

template <bool above, class E, class T>
PROTOSEG_INLINE void count_row(const typename E::Type* f, T threshold, std::int64_t n,
                               const References& references, std::int64_t offset, const Soon& soon,
                               Tally* tally) {
  const Vec<T> t = splat(threshold);
  const auto from_here = [offset](const std::uint64_t* words) {
    return words == nullptr ? nullptr : words + offset / word_bits;
  };
  const std::uint64_t* valid = from_here(references.valid);
  const std::uint64_t* first = from_here(references.actual[0]);
  const std::uint64_t* second = from_here(references.actual[1]);
  std::int64_t predicted = 0, tp[2] = {0, 0};
  const auto add = [&](std::uint64_t bits, std::int64_t k) {
    if (valid != nullptr) bits &= valid[k];
    predicted += __builtin_popcountll(bits);
    tp[0] += __builtin_popcountll(bits & first[k]);
    if (second != nullptr) tp[1] += __builtin_popcountll(bits & second[k]);
  };
  const std::int64_t whole = n / word_bits, done = whole * word_bits;
  for (std::int64_t k = 0; k < whole; ++k) {
    prefetch<typename E::Type>(soon, k * word_bits);
    prefetch<typename E::Type>(soon, k * word_bits + lanes);
    add(decide_word<above, E, T>(f + k * word_bits, t), k);
  }
  if (done < n) add(decide_tail<above, E>(f + done, threshold, n - done), whole);
  for (int k = 0; k < (second != nullptr ? 2 : 1); ++k) {
    tally[k].tp += tp[k];
    tally[k].predicted += predicted;
  }
}

template <bool above, class T>
void count(StoredRow row, T threshold, std::int64_t n, const References& references,
           std::int64_t offset, const Soon& soon, Tally* tally) {
  with_row_of<T>(row.dtype, [&](auto element) {
    using E = decltype(element);
    count_row<above, E>(static_cast<const typename E::Type*>(row.data), threshold, n, references,
                        offset, soon, tally);
  });
}

void decide(const double* projection, double threshold, std::int64_t n, std::uint8_t* map) {
  for (std::int64_t i = 0; i < n; ++i) map[i] = is_foreground(projection[i], threshold);
}

// ---- projections ---------------------------------------------------------------------------

// Term(f, channel) of each channel, added in the order of the channels. The running sum of a
// register of voxels stays in a register while the channels pass by.
template <class E, class Term>
PROTOSEG_INLINE void add_channels(const StoredRow* rows, std::int64_t channels, std::int64_t ahead,
                                  std::int64_t n, double* sum, Term term) {
  using Stored = typename E::Type;
  constexpr int step = width<double>, registers = 16 / step;
  const auto f = [rows](std::int64_t c) { return static_cast<const Stored*>(rows[c].data); };
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    DoubleVec s[registers];
#pragma GCC unroll 8
    for (int k = 0; k < registers; ++k) s[k] = load<DoubleVec>(sum + i + k * step);
    for (std::int64_t c = 0; c < channels; ++c) {
      __builtin_prefetch(f(c) + i + ahead, 0, 2);
#pragma GCC unroll 8
      for (int k = 0; k < registers; ++k) s[k] += term(E::load_doubles(f(c) + i + k * step), c);
    }
#pragma GCC unroll 8
    for (int k = 0; k < registers; ++k) store(sum + i + k * step, s[k]);
  }
  for (; i < n; ++i)
    for (std::int64_t c = 0; c < channels; ++c)
      sum[i] += term(E::template read<double>(f(c)[i]), c);
}

void project(const StoredRow* f, const double* weight, std::int64_t channels, std::int64_t ahead,
             std::int64_t n, double* projection) {
  with_row(f->dtype, [=](auto element) {
    add_channels<decltype(element)>(f, channels, ahead, n, projection,
                                    [weight](auto x, std::int64_t c) { return x * weight[c]; });
  });
}

void square(const StoredRow* f, std::int64_t channels, std::int64_t n, double* squares) {
  with_row(f->dtype, [=](auto element) {
    add_channels<decltype(element)>(f, channels, 0, n, squares,
                                    [](auto x, std::int64_t) { return x * x; });
  });
}

// ---- resizing ------------------------------------------------------------------------------

void blend(const double* a, const double* b, double weight, std::int64_t n, double* out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = lerp(a[i], b[i], weight);
}

void sample(const double* row, const std::int64_t* lower, const std::int64_t* upper,
            const double* weight, std::int64_t n, double* out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = lerp(row[lower[i]], row[upper[i]], weight[i]);
}

// V: a register, or one double. Columns [i, i + columns of V x parts).
template <class V, int parts>
PROTOSEG_INLINE void spread_columns(const double* x, std::int64_t pitch, const double* lower_share,
                                    const double* upper_share, std::int64_t rows, double* lower,
                                    double* upper) {
  constexpr int step = sizeof(V) / sizeof(double);
  V a[parts] = {}, b[parts] = {};
  for (std::int64_t r = 0; r < rows; ++r, x += pitch)
#pragma GCC unroll 4
    for (int k = 0; k < parts; ++k) {
      const V v = load<V>(x + k * step);
      a[k] += lower_share[r] * v;
      b[k] += upper_share[r] * v;
    }
  for (int k = 0; k < parts; ++k) {  // lower and upper may be one
    store(lower + k * step, load<V>(lower + k * step) + a[k]);
    store(upper + k * step, load<V>(upper + k * step) + b[k]);
  }
}

void spread(const double* x, std::int64_t pitch, const double* lower_share,
            const double* upper_share, std::int64_t rows, std::int64_t n, double* lower,
            double* upper) {
  constexpr int parts = 4, step = parts * width<double>;
  std::int64_t i = 0;
  for (; i + step <= n; i += step)
    spread_columns<DoubleVec, parts>(x + i, pitch, lower_share, upper_share, rows, lower + i,
                                     upper + i);
  for (; i < n; ++i)
    spread_columns<double, 1>(x + i, pitch, lower_share, upper_share, rows, lower + i, upper + i);
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
    words[i / word_bits] = i + word_bits <= n
                               ? decide_word<true, Plain<double>, double>(x + i, t)
                               : decide_tail<true, Plain<double>>(x + i, threshold, n - i);
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
    *words++ = decide_word<true, Plain<float>, float>(x + i, splat(0.5f));
  }
  if (i < n) *words = decide_tail<true, Plain<float>>(x + i, 0.5f, n - i);
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
    tile_to_float,
    tile_to_double,
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
    project,
    square,
    blend,
    sample,
    span<float>,
    span<double>,
    quantise_float,
    quantise_double,
    row_spans,
    resize_rows,
    blend_rows,
    count_slices,
    count_whole,
    spread,
    combine<float>,
    combine<double>,
    shrink<float>,
    shrink<double>,
    write<float>,
    write<double>,
    range,
    is_binary,
    pack,
    scan_floats,
    scan_bytes,
};

}  // namespace protoseg
