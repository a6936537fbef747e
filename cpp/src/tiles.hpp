// Inner loops that count a resized map without storing it; see cells.hpp for the geometry. Part of
// kernels.cpp, compiled once per instruction set.
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

// Of rows [rows, n], word by word: `all`, surely in the foreground; `any`, possibly. x is followed
// by word_bits values of no meaning.
void corner_bits(const std::int16_t* x, std::int16_t level, std::int16_t doubt, bool below,
                 std::int64_t rows, std::int64_t n, std::uint64_t* all, std::uint64_t* any) {
  const Shorts high = splat_short(static_cast<std::int16_t>(level + doubt));
  const Shorts low = splat_short(static_cast<std::int16_t>(level - doubt));
  for (std::int64_t row = 0; row < rows; ++row, x += n) {
    for (std::int64_t i = 0; i < n; i += word_bits) {
      Shorts above[word_bits / shorts], under[word_bits / shorts];
#pragma GCC unroll 8
      for (int k = 0; k < word_bits / shorts; ++k) {
        const Shorts v = load<Shorts>(x + i + shorts * k);
        above[k] = v > high;
        under[k] = low > v;
      }
      const std::uint64_t mask = low_bits(n - i < word_bits ? n - i : word_bits);
      const std::uint64_t a = masks_word(above), u = masks_word(under);
      *all++ = (below ? u : a) & mask;
      *any++ = ~(below ? a : u) & mask;
    }
  }
}

// Bit b of `full`: all corners of block b are in the foreground; of `open`: undecided. For up to
// word_bits blocks.
void classify(const std::uint64_t* all, const std::uint64_t* any, const BlockCorners& corners,
              std::int64_t first, std::int64_t blocks, std::uint64_t* full, std::uint64_t* open) {
  const std::uint64_t *low = corners.low + first, *high = corners.high + first;
  const std::int64_t* word = corners.word + first;
  std::uint64_t missing = 0, present = 0;
  std::int64_t b = 0;
#if defined(__AVX2__)
  typedef std::uint64_t Four __attribute__((vector_size(32)));
  if (corners.one_word) {
    const Four a = ~(Four{} + all[0]), p = Four{} + any[0];
    for (; b + 4 <= blocks; b += 4) {
      const Four bits = load<Four>(low + b);
      const auto zeros = [](auto mask) {
        return static_cast<std::uint64_t>(_mm256_movemask_pd(reinterpret_cast<__m256d>(mask)));
      };
      missing |= (zeros((bits & a) == Four{}) ^ 15) << b;
      present |= (zeros((bits & p) == Four{}) ^ 15) << b;
    }
  }
#endif
  for (; b < blocks; ++b) {
    const std::uint64_t *a = all + word[b], *p = any + word[b];
    const std::uint64_t lacking = (low[b] & ~a[0]) | (high[b] & ~a[1]);
    const std::uint64_t having = (low[b] & p[0]) | (high[b] & p[1]);
    missing |= std::uint64_t{lacking != 0} << b;
    present |= std::uint64_t{having != 0} << b;
  }
  *full = ~missing & low_bits(blocks);
  *open = missing & present;
}

// out = row[lower] + weight (row[lower + 1] - row[lower]), rounded: errs by 1/2 and what the weight
// lacks. Reads up to 9 values from each octet's first one on.
void resize_coarse(const std::int16_t* row, const OctetTaps& given, std::int64_t octets,
                   std::int16_t* out) {
  const OctetTaps taps = given;  // which, unlike a reference, no store can change
  std::int64_t o = 0;
#if defined(__AVX2__)
  const auto resize_two = [&](Shorts below, Shorts above) {
    const __m256i order = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(taps.bytes + 16 * o));
    const Shorts lower = Shorts(_mm256_shuffle_epi8(__m256i(below), order));
    const Shorts upper = Shorts(_mm256_shuffle_epi8(__m256i(above), order));
    const Shorts weight = load<Shorts>(taps.coarse_weight + 8 * o);
    store(out + 8 * o, lower + multiply_rounded(upper - lower, weight));
  };
  const auto two = [](const std::int16_t* low, const std::int16_t* high) {
    return Shorts(_mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(high),
                                      reinterpret_cast<const __m128i*>(low)));
  };
  if (taps.near)
#pragma GCC unroll 2
    for (; o + 2 <= octets; o += 2) {
      const std::int16_t* x = row + taps.first[o];
      resize_two(repeat_octet(x), repeat_octet(x + 1));
    }
  for (; o + 2 <= octets; o += 2) {
    const std::int16_t *x = row + taps.first[o], *y = row + taps.first[o + 1];
    resize_two(two(x, y), two(x + 1, y + 1));
  }
#endif
  for (; o < octets; ++o)
    for (int k = 0; k < 8; ++k) {
      const std::int16_t* x = row + taps.first[o] + taps.index[8 * o + k];
      const std::int32_t step = (x[1] - x[0]) * std::int32_t{taps.coarse_weight[8 * o + k]};
      out[8 * o + k] = static_cast<std::int16_t>(x[0] + ((step + 0x4000) >> 15));
    }
}

// Register v of a word's columns, octets in the order of octet_at. Rows of 8 and 16 columns repeat.
template <int columns>
PROTOSEG_INLINE Shorts load_columns(const std::int16_t* row, int v) {
  if (columns >= 32) return load<Shorts>(row + shorts * v % columns);
  return repeat_octet(row + shorts * v / 16 * 8 % columns);
}

// One word of a tile: its rows on the lower slice, relative to the level and `doubt` higher than
// they are, and steps to the upper slice. So negative values are surely below the level, and those
// up to 2 doubt are doubtful.
template <int columns, bool flat>
struct CoarseWord {
  static constexpr int parts = word_bits / shorts;
  Shorts base[parts], step[parts];

  PROTOSEG_INLINE void load(const TileRun& run, std::int64_t first, const std::int16_t* y_weight,
                            Shorts shift, CoarseWord& word) {
#pragma GCC unroll 8
    for (int v = 0; v < parts; ++v) {
      const Shorts wy = protoseg::load<Shorts>(y_weight + shorts * v);
      const auto rows = [&](int slice) {
        const Shorts a = load_columns<columns>(run.corner[2 * slice] + first, v);
        const Shorts b = load_columns<columns>(run.corner[2 * slice + 1] + first, v);
        return a + shift + multiply_rounded(b - a, wy);
      };
      word.base[v] = rows(0);
      if (!flat) word.step[v] = rows(1) - word.base[v];
    }
  }

  // Of all the word's values; those beyond what a byte holds become its extremes.
  PROTOSEG_INLINE ByteWord bytes(const CoarseWord& word, Shorts z_weight) {
    Shorts x[parts];
#pragma GCC unroll 8
    for (int v = 0; v < parts; ++v)
      x[v] = flat ? word.base[v] : word.base[v] + multiply_rounded(word.step[v], z_weight);
    return narrowed(x);
  }
};

// Counts neighbouring tiles of a line. `flat`: in one slice, between two feature rows instead of
// four; `single`: one word per slice. `doubtful` receives the voxels that fixed point cannot
// decide, which are not counted; the number of their words is returned.
template <int columns, bool flat, bool single>
std::int64_t count_tiles(const TileRun& run, TileTally* tally, DoubtfulVoxels* doubtful) {
  using Word = CoarseWord<columns, flat>;
  const std::int64_t slices = flat ? 1 : run.slices, words = single ? 1 : run.words;
  const std::uint64_t *target = run.actual[0], *output = run.actual[1];
  TileTally sum = {0, {0, 0}};
  std::int64_t words_in_doubt = 0;
  const Bytes doubt = splat_byte(static_cast<std::int8_t>(2 * run.doubt + 1));
  const Shorts shift = splat_short(static_cast<std::int16_t>(run.doubt - run.level));
  for (std::int64_t tile = 0; tile < run.tiles; ++tile)
    for (std::int64_t w = 0; w < words; ++w) {
      Word word;
      Word::load(run, tile * columns, run.y_weight + word_bits * w, shift, word);
      const std::uint64_t* valid = run.valid + tile * run.valid_per_tile + w;
      std::int64_t at = tile * slices * words + w;
      for (std::int64_t z = 0; z < slices; ++z, at += words, valid += run.valid_per_slice) {
        const Shorts z_weight = flat ? Shorts{} : splat_short(run.z_weight[z]);
        const ByteWord values = Word::bytes(word, z_weight);
        std::uint64_t counted = *valid;
        if (__builtin_expect(any_below(values, doubt), 0)) {
          const std::uint64_t voxels = bits_below(values, doubt);
          doubtful[words_in_doubt++] = {tile, z, w, voxels & counted};
          counted &= ~voxels;
        }
        const std::uint64_t bits = ~(negative_bits(values) ^ run.below) & counted;
        sum.predicted += __builtin_popcountll(bits);
        sum.tp[0] += __builtin_popcountll(bits & target[at]);
        if (output != nullptr) sum.tp[1] += __builtin_popcountll(bits & output[at]);
      }
    }
  tally->predicted += sum.predicted;
  tally->tp[0] += sum.tp[0];
  tally->tp[1] += sum.tp[1];
  return words_in_doubt;
}

template <int columns>
constexpr CountTiles count_tiles_of() {
  return {{{count_tiles<columns, false, false>, count_tiles<columns, false, true>},
           {count_tiles<columns, true, false>, count_tiles<columns, true, true>}}};
}

}  // namespace
}  // namespace protoseg
