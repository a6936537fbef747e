// Registers of 16-bit integers, for fixed point. Part of kernels.cpp, compiled once per instruction
// set; the operations are exact, so every copy gives the same bits.
#pragma once

#include "lanes.hpp"

namespace protoseg {
namespace {

#if defined(__AVX2__)
constexpr int shorts = 16;  // also beside AVX-512: a tile rarely has more neighbours
#else
constexpr int shorts = 8;
#endif
typedef std::int16_t Shorts __attribute__((vector_size(2 * shorts)));
typedef std::uint16_t UnsignedShorts __attribute__((vector_size(2 * shorts)));

PROTOSEG_INLINE Shorts splat_short(std::int16_t x) { return x - Shorts{}; }

// round(a w / 2^15), halves up.
PROTOSEG_INLINE Shorts multiply_rounded(Shorts a, Shorts w) {
#if defined(__AVX2__)
  return Shorts(_mm256_mulhrs_epi16(__m256i(a), __m256i(w)));
#elif defined(__SSE2__)
  const UnsignedShorts low = UnsignedShorts(_mm_mullo_epi16(__m128i(a), __m128i(w)));
  const Shorts high = Shorts(_mm_mulhi_epi16(__m128i(a), __m128i(w)));
  return high + high + Shorts((low >> 15) + (low >> 14 & 1));
#else
  Shorts result;
  for (int k = 0; k < shorts; ++k)
    result[k] = static_cast<std::int16_t>((std::int32_t{a[k]} * w[k] + 0x4000) >> 15);
  return result;
#endif
}

PROTOSEG_INLINE UnsignedShorts smaller(UnsignedShorts a, UnsignedShorts b) {
#if defined(__AVX2__)
  return UnsignedShorts(_mm256_min_epu16(__m256i(a), __m256i(b)));
#elif defined(__SSE2__)
  return a - UnsignedShorts(_mm_subs_epu16(__m128i(a), __m128i(b)));
#else
  return a < b ? a : b;
#endif
}

// Mask: a <= b.
PROTOSEG_INLINE Shorts not_above(UnsignedShorts a, Shorts b) {
  return Shorts(smaller(a, UnsignedShorts(b))) == Shorts(a);
}
PROTOSEG_INLINE bool any_of(Shorts mask) {
#if defined(__AVX2__)
  return _mm256_movemask_epi8(__m256i(mask)) != 0;
#elif defined(__SSE2__)
  return _mm_movemask_epi8(__m128i(mask)) != 0;
#else
  bool any = false;
  for (int k = 0; k < shorts; ++k) any |= mask[k] != 0;
  return any;
#endif
}

// Bit k of the result: mask a, then mask b, has ones at k.
PROTOSEG_INLINE std::uint64_t mask_bits(Shorts a, Shorts b) {
#if defined(__AVX2__)
  const __m256i bytes = _mm256_packs_epi16(__m256i(a), __m256i(b));
  return static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_permute4x64_epi64(bytes, 0xd8)));
#elif defined(__SSE2__)
  return static_cast<std::uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(__m128i(a), __m128i(b))));
#else
  std::uint64_t bits = 0;
  for (int k = 0; k < shorts; ++k)
    bits |= (std::uint64_t{a[k] != 0} << k) | (std::uint64_t{b[k] != 0} << (shorts + k));
  return bits;
#endif
}
// Of word_bits masks.
PROTOSEG_INLINE std::uint64_t masks_word(const Shorts mask[word_bits / shorts]) {
  std::uint64_t word = 0;
#pragma GCC unroll 4
  for (int v = 0; v < word_bits / shorts; v += 2)
    word |= mask_bits(mask[v], mask[v + 1]) << (v * shorts);
  return word;
}

// The values of two registers, to the nearest integers; of magnitude below 2^15.
PROTOSEG_INLINE void store_rounded(std::int16_t* out, FloatVec x, FloatVec y) {
#if defined(__AVX512F__)
  store(out, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x)));
  store(out + 16, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(y)));
#elif defined(__AVX2__)
  const __m256i both = _mm256_packs_epi32(_mm256_cvtps_epi32(x), _mm256_cvtps_epi32(y));
  store(out, _mm256_permute4x64_epi64(both, 0xd8));
#elif defined(__SSE2__)
  store(out, _mm_packs_epi32(_mm_cvtps_epi32(x), _mm_cvtps_epi32(y)));
#else
  for (int k = 0; k < width<float>; ++k) {
    out[k] = static_cast<std::int16_t>(__builtin_lrintf(x[k]));
    out[width<float> + k] = static_cast<std::int16_t>(__builtin_lrintf(y[k]));
  }
#endif
}

}  // namespace
}  // namespace protoseg
