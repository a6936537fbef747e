// Vectors of the native register width, as GCC and Clang spell them, and the two operations that
// need an instruction set's own words. Everything is static: see PROTOSEG_INLINE in dtype.hpp.
#pragma once

#include <cstdint>

#include "kernels.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace protoseg {
namespace {

#if defined(__AVX512F__)
constexpr int register_bytes = 64;
#elif defined(__AVX2__)
constexpr int register_bytes = 32;
#else
constexpr int register_bytes = 16;
#endif

typedef float FloatVec __attribute__((vector_size(register_bytes)));
typedef double DoubleVec __attribute__((vector_size(register_bytes)));
// As many floats as DoubleVec has doubles, for exact widening.
typedef float HalfFloatVec __attribute__((vector_size(register_bytes / 2)));

template <class T>
struct VecOf;
template <>
struct VecOf<float> {
  using type = FloatVec;
};
template <>
struct VecOf<double> {
  using type = DoubleVec;
};
template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
constexpr int width = register_bytes / static_cast<int>(sizeof(T));

// One unaligned register load or store. A vector wider than a register would go through the
// stack and stall on store forwarding.
template <class V, class T>
PROTOSEG_INLINE V load(const T* source) {
  V v;
  __builtin_memcpy(&v, source, sizeof(V));
  return v;
}
template <class V, class T>
PROTOSEG_INLINE void store(T* target, V v) {
  __builtin_memcpy(target, &v, sizeof(V));
}

template <class T>
PROTOSEG_INLINE Vec<T> splat(T x) {
  return x - Vec<T>{};
}

// width<double> values of f, widened exactly.
PROTOSEG_INLINE DoubleVec load_double(const float* f) {
#if defined(__AVX512F__)
  return _mm512_cvtps_pd(_mm256_loadu_ps(f));
#elif defined(__AVX2__)  // GCC 12 takes three instructions for the conversion below
  return _mm256_cvtps_pd(_mm_loadu_ps(f));
#else
  return __builtin_convertvector(load<HalfFloatVec>(f), DoubleVec);
#endif
}
PROTOSEG_INLINE DoubleVec load_double(const double* f) { return load<DoubleVec>(f); }

// Bit i of the result: a[i] > b[i] (ordered: false for NaN).
PROTOSEG_INLINE std::uint64_t greater_bits(FloatVec a, FloatVec b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
#elif defined(__AVX2__)
  return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
#elif defined(__SSE2__)
  return static_cast<std::uint32_t>(_mm_movemask_ps(_mm_cmpgt_ps(a, b)));
#else
  std::uint64_t bits = 0;
  for (int i = 0; i < width<float>; ++i) bits |= std::uint64_t{a[i] > b[i]} << i;
  return bits;
#endif
}
PROTOSEG_INLINE std::uint64_t greater_bits(DoubleVec a, DoubleVec b) {
#if defined(__AVX512F__)
  return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ);
#elif defined(__AVX2__)
  return static_cast<std::uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_GT_OQ)));
#elif defined(__SSE2__)
  return static_cast<std::uint32_t>(_mm_movemask_pd(_mm_cmpgt_pd(a, b)));
#else
  std::uint64_t bits = 0;
  for (int i = 0; i < width<double>; ++i) bits |= std::uint64_t{a[i] > b[i]} << i;
  return bits;
#endif
}

// IEEE half -> float, exact. Sub-normal halves become normal floats, so flush-to-zero is harmless.
PROTOSEG_INLINE float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t magnitude = half & 0x7fffu;
  std::uint32_t bits;
  if (magnitude >= 0x7c00u) {
    bits = 0x7f800000u | (magnitude << 13);
  } else if (magnitude >= 0x0400u) {
    bits = (magnitude << 13) + (112u << 23);
  } else {
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    __builtin_memcpy(&bits, &value, sizeof(bits));
  }
  bits |= sign;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

PROTOSEG_INLINE float bfloat_to_float(std::uint16_t bfloat) {
  const std::uint32_t bits = static_cast<std::uint32_t>(bfloat) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

// width<float> consecutive halves or bfloats.
PROTOSEG_INLINE FloatVec widen_halves(const std::uint16_t* half) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(half)));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(half)));
#else
  FloatVec v;
  for (int i = 0; i < width<float>; ++i) v[i] = half_to_float(half[i]);
  return v;
#endif
}
PROTOSEG_INLINE FloatVec widen_bfloats(const std::uint16_t* bfloat) {
#if defined(__AVX512F__)
  const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bfloat));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
#elif defined(__AVX2__)
  const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bfloat));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
#else
  FloatVec v;
  for (int i = 0; i < width<float>; ++i) v[i] = bfloat_to_float(bfloat[i]);
  return v;
#endif
}

// Four floats, for turning channels-last tiles: 4 x 4 at a time on every instruction set.
typedef float Quad __attribute__((vector_size(16)));

// Four consecutive halves or bfloats.
PROTOSEG_INLINE Quad widen_four_halves(const std::uint16_t* half) {
#if defined(__F16C__)
  return _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(half)));
#else
  return Quad{half_to_float(half[0]), half_to_float(half[1]), half_to_float(half[2]),
              half_to_float(half[3])};
#endif
}
PROTOSEG_INLINE Quad widen_four_bfloats(const std::uint16_t* bfloat) {
  return Quad{bfloat_to_float(bfloat[0]), bfloat_to_float(bfloat[1]), bfloat_to_float(bfloat[2]),
              bfloat_to_float(bfloat[3])};
}

// As many of them side by side as a register takes.
#if defined(__AVX2__)
typedef float Quads __attribute__((vector_size(32)));
#else
typedef Quad Quads;
#endif
constexpr int quad_voxels = sizeof(Quads) / sizeof(float);

// a and b in turns: their lower or upper halves, within each quad.
PROTOSEG_INLINE Quads interleave(Quads a, Quads b, bool upper) {
#if defined(__AVX2__)
  return upper ? _mm256_unpackhi_ps(a, b) : _mm256_unpacklo_ps(a, b);
#elif defined(__SSE2__)
  return upper ? _mm_unpackhi_ps(a, b) : _mm_unpacklo_ps(a, b);
#else
  return upper ? Quads{a[2], b[2], a[3], b[3]} : Quads{a[0], b[0], a[1], b[1]};
#endif
}

// Rows of each quad become columns.
PROTOSEG_INLINE void transpose(Quads (&q)[4]) {
  const Quads even_low = interleave(q[0], q[2], false), even_high = interleave(q[0], q[2], true);
  const Quads odd_low = interleave(q[1], q[3], false), odd_high = interleave(q[1], q[3], true);
  q[0] = interleave(even_low, odd_low, false);
  q[1] = interleave(even_low, odd_low, true);
  q[2] = interleave(even_high, odd_high, false);
  q[3] = interleave(even_high, odd_high, true);
}

// width<double> consecutive halves or bfloats.
PROTOSEG_INLINE DoubleVec halves_to_double(const std::uint16_t* half) {
#if defined(__AVX512F__)
  return _mm512_cvtps_pd(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(half))));
#elif defined(__F16C__)
  return _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(half))));
#else
  DoubleVec v;
  for (int i = 0; i < width<double>; ++i) v[i] = static_cast<double>(half_to_float(half[i]));
  return v;
#endif
}
PROTOSEG_INLINE DoubleVec bfloats_to_double(const std::uint16_t* bfloat) {
#if defined(__AVX512F__)
  const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bfloat));
  return _mm512_cvtps_pd(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16)));
#elif defined(__AVX2__)
  const __m128i narrow = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bfloat));
  return _mm256_cvtps_pd(_mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(narrow), 16)));
#else
  DoubleVec v;
  for (int i = 0; i < width<double>; ++i) v[i] = static_cast<double>(bfloat_to_float(bfloat[i]));
  return v;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// Bit 8 i + k of the word: mask i has ones at k.
PROTOSEG_INLINE std::uint64_t masks_word(const __m256i mask[8]) {
  // Packing works within halves of a register: put the halves of a mask side by side again.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const auto half = [=](const __m256i* m) {
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(m[0], m[1]), _mm256_packs_epi32(m[2], m[3]));
    return std::uint64_t{static_cast<std::uint32_t>(
        _mm256_movemask_epi8(_mm256_permutevar8x32_epi32(bytes, order)))};
  };
  return half(mask) | half(mask + 4) << 32;
}
#endif

}  // namespace
}  // namespace protoseg
