// Inner loops that count a resized map in fixed point; see resize_plan.hpp. Part of kernels.cpp,
// compiled once per instruction set.
#pragma once

#include "shorts.hpp"

namespace protoseg {
namespace {

template <class T>
void span(const T* f, std::int64_t n, double* lowest, double* highest) {
  Vec<T> low[2] = {splat(f[0]), splat(f[0])}, high[2] = {low[0], low[0]};
  std::int64_t i = 0;
  for (; i + 2 * width<T> <= n; i += 2 * width<T>)
    for (int k = 0; k < 2; ++k) {
      const Vec<T> v = load<Vec<T>>(f + i + k * width<T>);
      low[k] = v < low[k] ? v : low[k];
      high[k] = v > high[k] ? v : high[k];
    }
  T least = f[0], most = f[0];
  const auto merge = [&](T a, T b) {
    if (a < least) least = a;
    if (b > most) most = b;
  };
  for (int k = 0; k < 2 * width<T>; ++k)
    merge(low[k / width<T>][k % width<T>], high[k / width<T>][k % width<T>]);
  for (; i < n; ++i) merge(f[i], f[i]);
  *lowest = static_cast<double>(least);
  *highest = static_cast<double>(most);
}

// out = scale (f - offset), to the nearest integer: errs by 1/2 and the rounding of two float
// operations, of at most coarse_steps.
void quantise_float(const float* f, double offset, double scale, std::int64_t n,
                    std::int16_t* out) {
  constexpr int step = width<float>;
  const FloatVec o = splat(static_cast<float>(offset)), s = splat(static_cast<float>(scale));
  const auto scaled = [=](const float* x) { return (load<FloatVec>(x) - o) * s; };
  std::int64_t i = 0;
#pragma GCC unroll 2
  for (; i + 2 * step <= n; i += 2 * step)
    store_rounded(out + i, scaled(f + i), scaled(f + i + step));
  for (; i < n; ++i)
    out[i] = static_cast<std::int16_t>(
        __builtin_lrintf((f[i] - static_cast<float>(offset)) * static_cast<float>(scale)));
}
void quantise_double(const double* f, double offset, double scale, std::int64_t n,
                     std::int16_t* out) {
  for (std::int64_t i = 0; i < n; ++i)
    out[i] = static_cast<std::int16_t>(__builtin_lrint((f[i] - offset) * scale));
}

// Lowest and highest value of every row [rows, n].
void row_spans(const std::int16_t* x, std::int64_t rows, std::int64_t n, std::int16_t* lowest,
               std::int16_t* highest) {
  for (std::int64_t row = 0; row < rows; ++row, x += n) {
    std::int16_t least = x[0], most = x[0];
    if (n >= shorts) {
      Shorts low = load<Shorts>(x + n - shorts), high = low;
      for (std::int64_t i = 0; i + shorts < n; i += shorts) {
        const Shorts v = load<Shorts>(x + i);
        low = v < low ? v : low;
        high = v > high ? v : high;
      }
      least = lowest_of(low);
      most = highest_of(high);
    } else {
      for (std::int64_t i = 1; i < n; ++i) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
      }
    }
    lowest[row] = least;
    highest[row] = most;
  }
}

// Reads as many values from the first tap of each octet, or of each four, on.
PROTOSEG_INLINE void resize_row(const std::int16_t* row, const RowTaps& taps, std::int16_t* out) {
#if defined(__AVX512BW__)
  for (std::int64_t i = 0; i < 8 * taps.octets; i += wide_shorts) {
    const std::int16_t* x = row + taps.first_of_four[i / wide_shorts];
    const __m512i order = _mm512_loadu_si512(taps.index + i);
    const auto at_taps = [&](const std::int16_t* values) {
      return WideShorts(_mm512_permutexvar_epi16(order, _mm512_loadu_si512(values)));
    };
    const WideShorts lower = at_taps(x), step = at_taps(x + 1) - lower;
    store(out + i, lower + multiply_rounded(step, load<WideShorts>(taps.weight + i)));
  }
#elif defined(__AVX2__)
  const auto resize_two = [&](std::int64_t o, Shorts below, Shorts above) {
    const __m256i order = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(taps.bytes + 16 * o));
    const Shorts lower = Shorts(_mm256_shuffle_epi8(__m256i(below), order));
    const Shorts upper = Shorts(_mm256_shuffle_epi8(__m256i(above), order));
    const Shorts weight = load<Shorts>(taps.weight + 8 * o);
    store(out + 8 * o, lower + multiply_rounded(upper - lower, weight));
  };
  const auto two = [](const std::int16_t* low, const std::int16_t* high) {
    return Shorts(_mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(high),
                                      reinterpret_cast<const __m128i*>(low)));
  };
  if (taps.near)
#pragma GCC unroll 2
    for (std::int64_t o = 0; o < taps.octets; o += 2) {
      const std::int16_t* x = row + taps.first[o];
      resize_two(o, repeat_octet(x), repeat_octet(x + 1));
    }
  else
    for (std::int64_t o = 0; o < taps.octets; o += 2) {
      const std::int16_t *x = row + taps.first[o], *y = row + taps.first[o + 1];
      resize_two(o, two(x, y), two(x + 1, y + 1));
    }
#else
  for (std::int64_t i = 0; i < 8 * taps.octets; ++i) {
    const std::int16_t* x = row + taps.first_of_four[i / 32] + taps.index[i];
    const std::int32_t step = (x[1] - x[0]) * std::int32_t{taps.weight[i]};
    out[i] = static_cast<std::int16_t>(x[0] + ((step + 0x4000) >> 15));
  }
#endif
}

// Every out = lower tap + weight (upper tap - lower tap), rounded: errs by 1/2 and what the weight
// lacks.
void resize_rows(const std::int16_t* x, std::int64_t rows, std::int64_t n, const RowTaps& given,
                 std::int16_t* out, std::int64_t pitch) {
  const RowTaps taps = given;  // which, unlike a reference, no store can change
  for (std::int64_t row = 0; row < rows; ++row) resize_row(x + row * n, taps, out + row * pitch);
}

// The same along the other axis.
void blend_rows(const CoarseRows& given, const std::int64_t* lower, const std::int64_t* upper,
                const std::int16_t* weight, std::int64_t rows, std::int64_t n, std::int16_t* out) {
  const CoarseRows x = given;
  const auto at = [=](std::int64_t row) { return x.values + (row - x.first) * x.pitch; };
  for (std::int64_t row = 0; row < rows; ++row, out += n) {
    const std::int16_t *a = at(lower[row]), *b = at(upper[row]);
    const WideShorts w = splat_wide(weight[row]);
    for (std::int64_t i = 0; i < n; i += wide_shorts) {
      const WideShorts low = load<WideShorts>(a + i), high = load<WideShorts>(b + i);
      store(out + i, low + multiply_rounded(high - low, w));
    }
  }
}

// 64 values of a run: those of the lower slice, relative to the level and `doubt` higher than they
// are, and steps to the upper slice. So negative values are surely below the level, and those up to
// 2 doubt are doubtful.
struct CoarseWord {
  static constexpr int parts = word_bits / wide_shorts;
  WideShorts base[parts], step[parts];

  PROTOSEG_INLINE void load(const std::int16_t* lower, const std::int16_t* upper, WideShorts shift,
                            CoarseWord& word) {
#pragma GCC unroll 8
    for (int v = 0; v < parts; ++v) {
      const WideShorts a = protoseg::load<WideShorts>(lower + wide_shorts * v);
      word.base[v] = wrapped_sum(a, shift);
      word.step[v] = wrapped_difference(protoseg::load<WideShorts>(upper + wide_shorts * v), a);
    }
  }

  PROTOSEG_INLINE WordValues at(const CoarseWord& word, WideShorts weight) {
    WideShorts x[parts];
#pragma GCC unroll 8
    for (int v = 0; v < parts; ++v)
      x[v] = wrapped_sum(word.base[v], multiply_rounded(word.step[v], weight));
    return word_values(x);
  }
};

// Counts the words of a run. `whole_bytes`: voxel 0 of a slice is the first bit of a byte of packed
// words.
template <bool whole_bytes>
struct SliceCounter {
  const SliceRun run;  // a copy, which no store can change
  DoubtfulVoxels* doubtful;
  const WordLimit doubt = word_limit(2 * run.doubt + 1);
  const WideShorts shift = splat_wide(static_cast<std::int16_t>(run.doubt - run.level));
  MapTally sum = {0, {0, 0}};
  std::int64_t words_in_doubt = 0;

  // `here` bits, and whatever follows them.
  PROTOSEG_INLINE std::uint64_t packed(const std::uint64_t* words, std::int64_t bit,
                                       std::int64_t here) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (whole_bytes && here == word_bits)
      return load<std::uint64_t>(reinterpret_cast<const unsigned char*>(words) + bit / 8);
#endif
    return bits_at(words, bit, here);
  }
  __attribute__((always_inline)) std::uint64_t counted(std::int64_t bit, std::int64_t here) const {
    const std::uint64_t* valid = run.references.valid;
    return low_bits(here) & (valid == nullptr ? ~std::uint64_t{0} : packed(valid, bit, here));
  }
  __attribute__((always_inline)) std::uint64_t foreground(const WordValues& values) const {
    return ~(negative_bits(values) ^ run.below);
  }

  // Voxels [i, i + here) of every slice of an interval.
  __attribute__((always_inline)) void count(const SliceInterval& interval, std::int64_t i,
                                            std::int64_t here) {
    const std::int64_t first_bit = run.first_bit + i;
    CoarseWord word;
    CoarseWord::load(interval.lower + i, interval.upper + i, shift, word);
    for (std::int64_t z = interval.begin; z < interval.end; ++z) {
      const std::int64_t bit = first_bit + z * run.slice_bits;
      const WordValues values = CoarseWord::at(word, splat_wide(run.weight[z]));
      std::uint64_t counts = counted(bit, here);
      if (__builtin_expect(any_below(values, doubt), 0)) {
        const std::uint64_t voxels = bits_below(values, doubt);
        doubtful[words_in_doubt++] = {z, i, voxels & counts};
        counts &= ~voxels;
      }
      add(foreground(values) & counts, bit, here);
    }
  }

  // A word of one slice.
  __attribute__((always_inline)) void add(std::uint64_t bits, std::int64_t bit, std::int64_t here) {
    const std::uint64_t *target = run.references.actual[0], *output = run.references.actual[1];
    sum.predicted += __builtin_popcountll(bits);
    sum.tp[0] += __builtin_popcountll(bits & packed(target, bit, here));
    if (output != nullptr) sum.tp[1] += __builtin_popcountll(bits & packed(output, bit, here));
  }

  PROTOSEG_INLINE std::int64_t all(const SliceRun& run, MapTally* tally, DoubtfulVoxels* doubtful) {
    SliceCounter counter{run, doubtful};
    for (std::int64_t k = 0; k < run.count; ++k) {
      const SliceInterval interval = run.intervals[k];
      std::int64_t i = 0;
      for (; i + word_bits <= run.voxels; i += word_bits) counter.count(interval, i, word_bits);
      if (i < run.voxels) counter.count(interval, i, run.voxels - i);
    }
    tally->predicted += counter.sum.predicted;
    tally->tp[0] += counter.sum.tp[0];
    tally->tp[1] += counter.sum.tp[1];
    return counter.words_in_doubt;
  }
};

// `doubtful` receives the voxels that fixed point cannot decide, which are not counted; the number
// of entries is returned.
std::int64_t count_slices(const SliceRun& run, MapTally* tally, DoubtfulVoxels* doubtful) {
  return (run.first_bit | run.slice_bits) % 8 == 0 ? SliceCounter<true>::all(run, tally, doubtful)
                                                   : SliceCounter<false>::all(run, tally, doubtful);
}

// The same of voxels that are all foreground.
void count_whole(const References& references, std::int64_t first_bit, std::int64_t n,
                 MapTally* tally) {
  for (std::int64_t i = 0; i < n; i += word_bits) {
    const std::int64_t here = n - i < word_bits ? n - i : word_bits;
    const auto ones = [&](const std::uint64_t* words) {
      return __builtin_popcountll(bits_at(words, first_bit + i, here) & low_bits(here));
    };
    tally->predicted += references.valid != nullptr ? ones(references.valid) : here;
    tally->tp[0] += ones(references.actual[0]);
    if (references.actual[1] != nullptr) tally->tp[1] += ones(references.actual[1]);
  }
}

}  // namespace
}  // namespace protoseg
