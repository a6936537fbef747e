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
typedef std::int8_t Bytes __attribute__((vector_size(2 * shorts)));
typedef std::uint8_t UnsignedBytes __attribute__((vector_size(2 * shorts)));

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

// Of all values of a register.
PROTOSEG_INLINE std::int16_t lowest_of(Shorts x) {
#if defined(__AVX2__)
  const __m128i half =
      _mm_min_epi16(_mm256_castsi256_si128(__m256i(x)), _mm256_extracti128_si256(__m256i(x), 1));
  const __m128i flip = _mm_set1_epi16(-0x8000);  // the instruction compares unsigned numbers
  return static_cast<std::int16_t>(
      _mm_cvtsi128_si32(_mm_xor_si128(_mm_minpos_epu16(_mm_xor_si128(half, flip)), flip)));
#else
  std::int16_t least = x[0];
  for (int k = 1; k < shorts; ++k) least = x[k] < least ? x[k] : least;
  return least;
#endif
}
PROTOSEG_INLINE std::int16_t highest_of(Shorts x) {  // -1 - x is the highest where x is lowest
  return static_cast<std::int16_t>(-1 - lowest_of(-1 - x));
}

// The octet at `x`, as often as a register takes it.
PROTOSEG_INLINE Shorts repeat_octet(const std::int16_t* x) {
#if defined(__AVX2__)
  return Shorts(_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))));
#else
  return load<Shorts>(x);
#endif
}

// A word of values as signed bytes.
constexpr int byte_registers = word_bits / (2 * shorts);
struct ByteWord {
  Bytes part[byte_registers];
};
PROTOSEG_INLINE Bytes splat_byte(std::int8_t x) { return x - Bytes{}; }

// Values beyond -128 and 127 become these.
PROTOSEG_INLINE ByteWord narrowed(const Shorts x[word_bits / shorts]) {
  ByteWord word;
#pragma GCC unroll 4
  for (int r = 0; r < byte_registers; ++r) {
    const Shorts a = x[2 * r], b = x[2 * r + 1];
#if defined(__AVX2__)  // packs half by half: put the octets in order again
    word.part[r] =
        Bytes(_mm256_permute4x64_epi64(_mm256_packs_epi16(__m256i(a), __m256i(b)), 0xd8));
#elif defined(__SSE2__)
    word.part[r] = Bytes(_mm_packs_epi16(__m128i(a), __m128i(b)));
#else
    const auto clamped = [](std::int16_t v) {
      return static_cast<std::int8_t>(v < -128 ? -128 : v > 127 ? 127 : v);
    };
    for (int k = 0; k < shorts; ++k) {
      word.part[r][k] = clamped(a[k]);
      word.part[r][shorts + k] = clamped(b[k]);
    }
#endif
  }
  return word;
}

// Bit k: byte k is negative.
PROTOSEG_INLINE std::uint64_t negative_bits(const ByteWord& word) {
  std::uint64_t bits = 0;
#pragma GCC unroll 4
  for (int r = 0; r < byte_registers; ++r) {
#if defined(__AVX2__)
    const auto here = static_cast<std::uint32_t>(_mm256_movemask_epi8(__m256i(word.part[r])));
#elif defined(__SSE2__)
    const auto here = static_cast<std::uint32_t>(_mm_movemask_epi8(__m128i(word.part[r])));
#else
    std::uint32_t here = 0;
    for (int k = 0; k < 2 * shorts; ++k) here |= std::uint32_t{word.part[r][k] < 0} << k;
#endif
    bits |= std::uint64_t{here} << (2 * shorts * r);
  }
  return bits;
}

// As unsigned numbers: which are below the limit, and whether any is.
PROTOSEG_INLINE std::uint64_t bits_below(const ByteWord& word, Bytes limit) {
  ByteWord mask;
  for (int r = 0; r < byte_registers; ++r)
    mask.part[r] = Bytes(UnsignedBytes(word.part[r]) < UnsignedBytes(limit));
  return negative_bits(mask);
}
PROTOSEG_INLINE bool any_below(const ByteWord& word, Bytes limit) {
#if defined(__AVX2__)
  const __m256i least = _mm256_min_epu8(__m256i(word.part[0]), __m256i(word.part[1]));
  const __m256i lacking = _mm256_subs_epu8(__m256i(limit), least);
  return !_mm256_testz_si256(lacking, lacking);
#elif defined(__SSE2__)
  __m128i least = __m128i(word.part[0]);
  for (int r = 1; r < byte_registers; ++r) least = _mm_min_epu8(least, __m128i(word.part[r]));
  const __m128i lacking = _mm_subs_epu8(__m128i(limit), least);
  return _mm_movemask_epi8(_mm_cmpeq_epi8(lacking, __m128i{})) != 0xffff;
#else
  return bits_below(word, limit) != 0;
#endif
}

// What a word is decided with: bytes, or as many shorts where instructions turn them into bits.
#if defined(__AVX512BW__)
constexpr int wide_shorts = 32;
typedef std::int16_t WideShorts __attribute__((vector_size(64)));
struct WordValues {
  __m512i part[2];
};
typedef __m512i WordLimit;
PROTOSEG_INLINE WideShorts multiply_rounded(WideShorts a, WideShorts w) {
  return WideShorts(_mm512_mulhrs_epi16(__m512i(a), __m512i(w)));
}
PROTOSEG_INLINE WordValues word_values(const WideShorts x[2]) {
  return {{__m512i(x[0]), __m512i(x[1])}};
}
PROTOSEG_INLINE WordLimit word_limit(int x) {
  return _mm512_set1_epi16(static_cast<std::int16_t>(x));
}
PROTOSEG_INLINE std::uint64_t both_masks(__mmask32 low, __mmask32 high) {
  return _mm512_kunpackd(high, low);
}
PROTOSEG_INLINE std::uint64_t negative_bits(const WordValues& word) {
  return both_masks(_mm512_movepi16_mask(word.part[0]), _mm512_movepi16_mask(word.part[1]));
}
PROTOSEG_INLINE std::uint64_t bits_below(const WordValues& word, WordLimit limit) {
  return both_masks(_mm512_cmplt_epu16_mask(word.part[0], limit),
                    _mm512_cmplt_epu16_mask(word.part[1], limit));
}
PROTOSEG_INLINE bool any_below(const WordValues& word, WordLimit limit) {
  return _mm512_cmplt_epu16_mask(_mm512_min_epu16(word.part[0], word.part[1]), limit) != 0;
}
#else
constexpr int wide_shorts = shorts;
typedef Shorts WideShorts;
typedef ByteWord WordValues;
typedef Bytes WordLimit;
PROTOSEG_INLINE WordValues word_values(const WideShorts x[word_bits / shorts]) {
  return narrowed(x);
}
PROTOSEG_INLINE WordLimit word_limit(int x) { return splat_byte(static_cast<std::int8_t>(x)); }
#endif
PROTOSEG_INLINE WideShorts splat_wide(std::int16_t x) { return x - WideShorts{}; }

// What has no meaning may be out of range, and wraps around.
typedef std::uint16_t UnsignedWideShorts __attribute__((vector_size(2 * wide_shorts)));
PROTOSEG_INLINE WideShorts wrapped_sum(WideShorts a, WideShorts b) {
  return WideShorts(UnsignedWideShorts(a) + UnsignedWideShorts(b));
}
PROTOSEG_INLINE WideShorts wrapped_difference(WideShorts a, WideShorts b) {
  return WideShorts(UnsignedWideShorts(a) - UnsignedWideShorts(b));
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
