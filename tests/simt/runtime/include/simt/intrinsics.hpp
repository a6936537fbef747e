// Built-in variables and functions of device code, each a thin call into the runtime.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simt/vectors.hpp"

namespace simt {

// The same during the whole life of a thread, hence `const`: read once, no memory access.
uint3 thread_index() __attribute__((const));
uint3 block_index() __attribute__((const));
uint3 block_extent() __attribute__((const));
uint3 grid_extent() __attribute__((const));
unsigned cluster_block_rank() __attribute__((const));
unsigned cluster_blocks() __attribute__((const));

namespace detail {

enum class Vote { all, any, ballot };
enum class Shuffle { index, up, down, exclusive_or };
enum class Reduce { none, disjunction, conjunction, count };
enum class Atomic {
  add,
  minimum,
  maximum,
  conjunction,
  disjunction,
  exclusive_or,
  exchange,
  compare
};

int barrier(Reduce reduce, int predicate, const char* file, int line);
void cluster_barrier(const char* file, int line);
void warp_barrier(unsigned mask, const char* file, int line);
unsigned vote(Vote vote, unsigned mask, int predicate, const char* file, int line);
std::uint64_t shuffle(Shuffle shuffle, unsigned mask, std::uint64_t value, int argument, int width,
                      const char* file, int line);
std::uint64_t atomic(Atomic operation, void* address, unsigned bytes, bool is_signed,
                     std::uint64_t value, std::uint64_t compare);
void fence();
void* shared_array(const void* key, const char* name, std::size_t item, std::size_t alignment,
                   std::size_t count);
void* dynamic_shared_buffer();
void* map_shared(const void* pointer, unsigned rank);
[[noreturn]] void trap();

}  // namespace detail

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(detail::dynamic_shared_buffer());
}

template <class T>
T* cluster_map_shared(T* pointer, unsigned rank) {
  return static_cast<T*>(detail::map_shared(pointer, rank));
}

inline void cluster_sync(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  detail::cluster_barrier(file, line);
}

}  // namespace simt

#define threadIdx (::simt::thread_index())
#define blockIdx (::simt::block_index())
#define blockDim (::simt::block_extent())
#define gridDim (::simt::grid_extent())
inline constexpr int warpSize = 32;

// One array per block, keyed by this very declaration (of each instantiation of a template).
#define PROTOSEG_SHARED(type, name, count)                            \
  static const char name##_declaration = 0;                           \
  type* const name = static_cast<type*>(::simt::detail::shared_array( \
      &name##_declaration, #name, sizeof(type), alignof(type), count))

#define SIMT_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(SIMT_HERE) {
  simt::detail::barrier(simt::detail::Reduce::none, 0, file, line);
}
inline int __syncthreads_or(int predicate, SIMT_HERE) {
  return simt::detail::barrier(simt::detail::Reduce::disjunction, predicate, file, line);
}
inline int __syncthreads_and(int predicate, SIMT_HERE) {
  return simt::detail::barrier(simt::detail::Reduce::conjunction, predicate, file, line);
}
inline int __syncthreads_count(int predicate, SIMT_HERE) {
  return simt::detail::barrier(simt::detail::Reduce::count, predicate, file, line);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_HERE) {
  simt::detail::warp_barrier(mask, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_HERE) {
  return simt::detail::vote(simt::detail::Vote::ballot, mask, predicate, file, line);
}
inline int __any_sync(unsigned mask, int predicate, SIMT_HERE) {
  return static_cast<int>(simt::detail::vote(simt::detail::Vote::any, mask, predicate, file, line));
}
inline int __all_sync(unsigned mask, int predicate, SIMT_HERE) {
  return static_cast<int>(simt::detail::vote(simt::detail::Vote::all, mask, predicate, file, line));
}

namespace simt::detail {

template <class T>
T shuffle_value(Shuffle kind, unsigned mask, T value, int argument, int width, const char* file,
                int line) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4 && sizeof(T) <= 8,
                "CUDA shuffles 32-bit and 64-bit numbers");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = shuffle(kind, mask, bits, argument, width, file, line);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace simt::detail

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_HERE) {
  return simt::detail::shuffle_value(simt::detail::Shuffle::index, mask, value, source, width, file,
                                     line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_HERE) {
  return simt::detail::shuffle_value(simt::detail::Shuffle::up, mask, value,
                                     static_cast<int>(delta), width, file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_HERE) {
  return simt::detail::shuffle_value(simt::detail::Shuffle::down, mask, value,
                                     static_cast<int>(delta), width, file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, SIMT_HERE) {
  return simt::detail::shuffle_value(simt::detail::Shuffle::exclusive_or, mask, value, lanes, width,
                                     file, line);
}

#undef SIMT_HERE

namespace simt::detail {

template <class T>
T atomic_value(Atomic operation, T* address, T value, T compare = T()) {
  static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  return static_cast<T>(atomic(operation, address, sizeof(T), std::is_signed_v<T>,
                               static_cast<std::uint64_t>(value),
                               static_cast<std::uint64_t>(compare)));
}

}  // namespace simt::detail

// Integers only: sums of floats by atomics would depend on the schedule.
#define SIMT_ATOMICS(T)                                                              \
  inline T atomicAdd(T* p, T v) {                                                    \
    return simt::detail::atomic_value(simt::detail::Atomic::add, p, v);              \
  }                                                                                  \
  inline T atomicMin(T* p, T v) {                                                    \
    return simt::detail::atomic_value(simt::detail::Atomic::minimum, p, v);          \
  }                                                                                  \
  inline T atomicMax(T* p, T v) {                                                    \
    return simt::detail::atomic_value(simt::detail::Atomic::maximum, p, v);          \
  }                                                                                  \
  inline T atomicAnd(T* p, T v) {                                                    \
    return simt::detail::atomic_value(simt::detail::Atomic::conjunction, p, v);      \
  }                                                                                  \
  inline T atomicOr(T* p, T v) {                                                     \
    return simt::detail::atomic_value(simt::detail::Atomic::disjunction, p, v);      \
  }                                                                                  \
  inline T atomicXor(T* p, T v) {                                                    \
    return simt::detail::atomic_value(simt::detail::Atomic::exclusive_or, p, v);     \
  }                                                                                  \
  inline T atomicExch(T* p, T v) {                                                   \
    return simt::detail::atomic_value(simt::detail::Atomic::exchange, p, v);         \
  }                                                                                  \
  inline T atomicCAS(T* p, T compare, T v) {                                         \
    return simt::detail::atomic_value(simt::detail::Atomic::compare, p, v, compare); \
  }
SIMT_ATOMICS(int)
SIMT_ATOMICS(unsigned)
SIMT_ATOMICS(long long)
SIMT_ATOMICS(unsigned long long)
#undef SIMT_ATOMICS

inline void __threadfence() { simt::detail::fence(); }
inline void __threadfence_block() {}
inline void __threadfence_system() { simt::detail::fence(); }
[[noreturn]] inline void __trap() { simt::detail::trap(); }

// Loads and stores with cache hints are plain ones here.
// clang-format off
#define SIMT_LOAD(name) \
  template <class T> __attribute__((always_inline)) inline T name(const T* p) { return *p; }
#define SIMT_STORE(name) \
  template <class T> __attribute__((always_inline)) inline void name(T* p, T v) { *p = v; }
SIMT_LOAD(__ldg) SIMT_LOAD(__ldca) SIMT_LOAD(__ldcg) SIMT_LOAD(__ldcs) SIMT_LOAD(__ldlu) SIMT_LOAD(__ldcv)
SIMT_STORE(__stwb) SIMT_STORE(__stcg) SIMT_STORE(__stcs) SIMT_STORE(__stwt)
#undef SIMT_LOAD
#undef SIMT_STORE
    // clang-format on

    inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) {
  return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64;
}
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1u) << (31 - bit);
  return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(high) << 32 | low) >> (shift & 31));
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(high) << 32 | low) << (shift & 31) >>
                               32);
}

inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }

// CUDA has these without a namespace, for all arithmetic types.
template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}
