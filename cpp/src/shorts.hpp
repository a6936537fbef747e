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

// Values beyond -128 and 127 become these. Octets of x are in the order of octet_at, those of the
// result in order.
PROTOSEG_INLINE ByteWord narrowed(const Shorts x[word_bits / shorts]) {
  ByteWord word;
#pragma GCC unroll 4
  for (int r = 0; r < byte_registers; ++r) {
#if defined(__AVX2__)  // packs half by half
    word.part[r] = Bytes(_mm256_packs_epi16(__m256i(x[2 * r]), __m256i(x[2 * r + 1])));
#else
    const Shorts a = x[octet_at(2 * r)], b = x[octet_at(2 * r + 1)];
#if defined(__SSE2__)
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

// Mask: a < limit, as unsigned numbers.
PROTOSEG_INLINE Bytes below(Bytes a, Bytes limit) {
  return Bytes(UnsignedBytes(a) < UnsignedBytes(limit));
}
PROTOSEG_INLINE std::uint64_t bits_below(const ByteWord& word, Bytes limit) {
  ByteWord mask;
  for (int r = 0; r < byte_registers; ++r) mask.part[r] = below(word.part[r], limit);
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
