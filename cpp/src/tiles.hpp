// Inner loops that count a resized map without storing it; see cells.hpp for the geometry. Part of
// kernels.cpp, compiled once per instruction set.
#pragma once

#include "lanes.hpp"

namespace protoseg {
namespace {

// Rows [rows, n]: centred = side (f - threshold), so that the foreground is above zero, and the
// largest magnitude of each row. Errs by less than 3 units in the last place of the result: what a
// float threshold lacks is subtracted too.
void centre_float(const float* f, double threshold, float side, std::int64_t rows, std::int64_t n,
                  float* centred, float* largest) {
  const float coarse = static_cast<float>(threshold);
  const float fine = static_cast<float>(threshold - static_cast<double>(coarse));
  const Octet c = splat_octet(coarse), d = splat_octet(fine), s = splat_octet(side);
  const Octet zero = splat_octet(0.0f);
  for (std::int64_t row = 0; row < rows; ++row, f += n, centred += n) {
    Octet most = zero;
    std::int64_t i = 0;
#pragma GCC unroll 4
    for (; i + 8 <= n; i += 8) {
      const Octet x = multiply(subtract(subtract(load_octet(f + i), c), d), s);
      most = larger(magnitude(x), most);
      store_octet(centred + i, x);
    }
    float result = largest_of(most);
    for (; i < n; ++i) {
      centred[i] = side * ((f[i] - coarse) - fine);
      const float size = __builtin_fabsf(centred[i]);
      result = size > result ? size : result;
    }
    largest[row] = result;
  }
}

void centre_double(const double* f, double threshold, float side, std::int64_t rows, std::int64_t n,
                   float* centred, float* largest) {
  for (std::int64_t row = 0; row < rows; ++row, f += n, centred += n) {
    float result = 0.0f;
    for (std::int64_t i = 0; i < n; ++i) {
      centred[i] = side * static_cast<float>(f[i] - threshold);
      const float size = __builtin_fabsf(centred[i]);
      result = size > result ? size : result;
    }
    largest[row] = result;
  }
}

// Of rows [rows, n], word by word: above, x > doubt[row]; possible, x > -doubt[row].
void corner_bits(const float* x, const float* doubt, std::int64_t rows, std::int64_t n,
                 std::uint64_t* above_words, std::uint64_t* possible_words) {
  for (std::int64_t row = 0; row < rows; ++row, x += n) {
    const Octet high = splat_octet(doubt[row]), low = splat_octet(-doubt[row]);
    for (std::int64_t i = 0; i < n; i += word_bits) {
      OctetMask a[8], p[8];
#pragma GCC unroll 8
      for (int k = 0; k < 8; ++k) {  // past the end of a row: masked below
        const Octet v = load_octet(x + i + 8 * k);
        a[k] = above(v, high);
        p[k] = above(v, low);
      }
      const std::uint64_t mask = low_bits(n - i < word_bits ? n - i : word_bits);
      *above_words++ = octets_word(a) & mask;
      *possible_words++ = octets_word(p) & mask;
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

// out[i] = (1 - weight[i]) row[first + index[i]] + weight[i] row[first + index[i] + 1], for octets
// of outputs, each with its own `first`; coarse = scale out, rounded.
void resize_octets(const float* row, const std::int64_t* first, const std::int32_t* index,
                   const float* weight, float scale, std::int64_t octets, float* out,
                   std::int16_t* coarse) {
  const Octet s = splat_octet(scale);
  const auto resize = [=](std::int64_t o) {
    const float* source = row + first[o];
    const Octet a = permute(source, index + 8 * o), b = permute(source + 1, index + 8 * o);
    const Octet x = multiply_add(load_octet(weight + 8 * o), subtract(b, a), a);
    store_octet(out + 8 * o, x);
    return multiply(x, s);
  };
  std::int64_t o = 0;
  for (; o + 2 <= octets; o += 2) {
    const Octet x = resize(o);
    store_rounded(coarse + 8 * o, x, resize(o + 1));
  }
  if (o < octets) {
    std::int16_t both[16];
    const Octet x = resize(o);
    store_rounded(both, x, x);
    __builtin_memcpy(coarse + 8 * o, both, sizeof(both) / 2);
  }
}

// 64 values y0 + wy dy as decisions: word_bits / columns rows of `columns` neighbours. `least` is
// the smallest magnitude.
template <int octets>
PROTOSEG_INLINE std::uint64_t decide_rows(const Octet* y0, const Octet* dy, const float* y_weight,
                                          Octet* least) {
  OctetMask foreground[8];
  const Octet zero = splat_octet(0.0f);
#pragma GCC unroll 8
  for (int r = 0; r < 8 / octets; ++r) {
    const Octet wy = splat_octet(y_weight[r]);
#pragma GCC unroll 8
    for (int k = 0; k < octets; ++k) {
      const Octet value = multiply_add(wy, dy[k], y0[k]);
      foreground[r * octets + k] = above(value, zero);
      *least = smaller(magnitude(value), *least);
    }
  }
  return octets_word(foreground);
}

// One word of a tile in float. True if some value is within run.doubt of zero.
template <int columns, bool flat>
PROTOSEG_INLINE bool decide_word_in_float(const TileRun& run, std::int64_t first, std::int64_t z,
                                          std::int64_t word, std::uint64_t* bits) {
  constexpr int octets = columns / 8;
  Octet y0[octets], dy[octets], least = splat_octet(__builtin_inff());
  for (int k = 0; k < octets; ++k) {
    const std::int64_t at = first + 8 * k;
    y0[k] = load_octet(run.corner[0] + at);
    Octet y1 = load_octet(run.corner[1] + at);
    if (!flat) {
      const Octet wz = splat_octet(run.z_weight[z]);
      y0[k] = multiply_add(wz, subtract(load_octet(run.corner[2] + at), y0[k]), y0[k]);
      y1 = multiply_add(wz, subtract(load_octet(run.corner[3] + at), y1), y1);
    }
    dy[k] = subtract(y1, y0[k]);
  }
  *bits = decide_rows<octets>(y0, dy, run.y_weight + word * (8 / octets), &least);
  return above_bits(splat_octet(run.doubt), least) != 0;
}

#if defined(__AVX2__)
// Sixteen neighbours of a row of `columns` that repeats: vector v of a word.
template <int columns>
PROTOSEG_INLINE __m256i load_coarse(const std::int16_t* row, int v) {
  if (columns == 8)
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row)));
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 16 * v));
}

// The corners of a tile, and what every word of one of its slices shares: values at the lower row,
// `doubt` higher than they are, and steps to the upper one.
template <int columns, bool flat>
struct CoarseTile {
  static constexpr int vectors = columns < 16 ? 1 : columns / 16;
  __m256i lower[vectors], upper[vectors], lower_step[vectors], upper_step[vectors];
  __m256i y0[vectors], dy[vectors];

  PROTOSEG_INLINE void load(const TileRun& run, std::int64_t first, CoarseTile& tile) {
    for (int v = 0; v < vectors; ++v) {
      const auto corner = [&](int k) { return load_coarse<columns>(run.coarse[k] + first, v); };
      tile.lower[v] = corner(0);
      tile.upper[v] = corner(1);
      if (flat) continue;
      tile.lower_step[v] = _mm256_sub_epi16(corner(2), tile.lower[v]);
      tile.upper_step[v] = _mm256_sub_epi16(corner(3), tile.upper[v]);
    }
  }
  PROTOSEG_INLINE void enter_slice(const TileRun& run, std::int64_t z, __m256i doubt,
                                   CoarseTile& tile) {
    for (int v = 0; v < vectors; ++v) {
      __m256i lower_row = tile.lower[v], upper_row = tile.upper[v];
      if (!flat) {
        const __m256i wz = _mm256_set1_epi16(run.coarse_z_weight[z]);
        lower_row = _mm256_add_epi16(lower_row, _mm256_mulhrs_epi16(wz, tile.lower_step[v]));
        upper_row = _mm256_add_epi16(upper_row, _mm256_mulhrs_epi16(wz, tile.upper_step[v]));
      }
      tile.y0[v] = _mm256_add_epi16(lower_row, doubt);
      tile.dy[v] = _mm256_sub_epi16(upper_row, lower_row);
    }
  }
};

// One word of a tile in 16-bit fixed point. True if some value is within `doubt` of zero.
template <int columns, bool flat>
PROTOSEG_INLINE bool decide_word_coarsely(const CoarseTile<columns, flat>& tile,
                                          const std::int16_t* y_weight, __m256i doubt,
                                          std::uint64_t* bits) {
  constexpr int vectors = CoarseTile<columns, flat>::vectors;
  // Values are `doubt` too high: as unsigned numbers, the doubtful ones are the smallest.
  __m256i least = _mm256_set1_epi16(-1), foreground[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const __m256i wy = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(y_weight + 16 * v));
    const __m256i value =
        _mm256_add_epi16(tile.y0[v % vectors], _mm256_mulhrs_epi16(wy, tile.dy[v % vectors]));
    foreground[v] = _mm256_cmpgt_epi16(value, doubt);
    least = _mm256_min_epu16(least, value);
  }
  const auto half = [](__m256i a, __m256i b) {
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8);
    return std::uint64_t{static_cast<std::uint32_t>(_mm256_movemask_epi8(bytes))};
  };
  *bits = half(foreground[0], foreground[1]) | half(foreground[2], foreground[3]) << 32;
  const __m256i above_all = _mm256_subs_epu16(least, _mm256_add_epi16(doubt, doubt));
  return _mm256_movemask_epi8(_mm256_cmpeq_epi16(above_all, _mm256_setzero_si256())) != 0;
}
#endif

// Counts neighbouring tiles of a line. `flat`: in one slice, between two feature rows instead of
// four; `single`: one word per slice. Every word is looked at in 16-bit fixed point, and in float
// where that is not enough; `doubtful` receives the words that neither can decide, which are not
// counted, and their number is returned.
template <int columns, bool flat, bool single>
std::int64_t count_tiles(const TileRun& run, Tally* tally, DoubtfulWord* doubtful) {
  const std::int64_t slices = flat ? 1 : run.slices, words = single ? 1 : run.words;
  Tally sum = {0, 0};
  std::int64_t at = 0, doubts = 0;
#if defined(__AVX2__)
  const __m256i doubt_of_coarse = _mm256_set1_epi16(run.coarse_doubt);
#endif
  for (std::int64_t tile = 0; tile < run.tiles; ++tile) {
    const std::int64_t first = tile * columns;
#if defined(__AVX2__)
    CoarseTile<columns, flat> corners;
    corners.load(run, first, corners);
#endif
    for (std::int64_t z = 0; z < slices; ++z) {
#if defined(__AVX2__)
      corners.enter_slice(run, z, doubt_of_coarse, corners);
#endif
      const std::uint64_t* valid = run.valid + tile * run.valid_per_tile + z * run.valid_per_slice;
      for (std::int64_t word = 0; word < words; ++word, ++at) {
        std::uint64_t bits = 0;
        bool doubt = true;
#if defined(__AVX2__)
        doubt = decide_word_coarsely<columns, flat>(corners, run.coarse_y_weight + 64 * word,
                                                    doubt_of_coarse, &bits);
#endif
        if (__builtin_expect(doubt, 0) &&
            decide_word_in_float<columns, flat>(run, first, z, word, &bits)) {
          doubtful[doubts++] = {tile, z, word};
          continue;
        }
        bits &= valid[word];
        sum.predicted += __builtin_popcountll(bits);
        sum.tp += __builtin_popcountll(bits & run.actual[at]);
      }
    }
  }
  tally->predicted += sum.predicted;
  tally->tp += sum.tp;
  return doubts;
}

template <int columns>
constexpr CountTiles count_tiles_of() {
  return {count_tiles<columns, false, false>, count_tiles<columns, true, false>,
          count_tiles<columns, true, true>};
}

}  // namespace
}  // namespace protoseg
