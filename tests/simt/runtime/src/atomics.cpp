// C++ atomics of instrumented *host* code; kernels have CUDA's.
#include <cstdint>

#include "machine.hpp"

namespace {
void only_on_host() {
  if (simt::current) simt::fail("a C++ atomic in a kernel");
}
}  // namespace

// All in the strongest order.
#define SIMT_ATOMIC(bits)                                                                        \
  using T##bits = std::uint##bits##_t;                                                           \
  extern "C" {                                                                                   \
  T##bits __tsan_atomic##bits##_load(const volatile T##bits* p, int) {                           \
    return only_on_host(), __atomic_load_n(p, __ATOMIC_SEQ_CST);                                 \
  }                                                                                              \
  void __tsan_atomic##bits##_store(volatile T##bits* p, T##bits v, int) {                        \
    only_on_host(), __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                    \
  }                                                                                              \
  T##bits __tsan_atomic##bits##_exchange(volatile T##bits* p, T##bits v, int) {                  \
    return only_on_host(), __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                          \
  }                                                                                              \
  T##bits __tsan_atomic##bits##_fetch_add(volatile T##bits* p, T##bits v, int) {                 \
    return only_on_host(), __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                           \
  }                                                                                              \
  T##bits __tsan_atomic##bits##_fetch_sub(volatile T##bits* p, T##bits v, int) {                 \
    return only_on_host(), __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                           \
  }                                                                                              \
  T##bits __tsan_atomic##bits##_fetch_and(volatile T##bits* p, T##bits v, int) {                 \
    return only_on_host(), __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST);                           \
  }                                                                                              \
  T##bits __tsan_atomic##bits##_fetch_or(volatile T##bits* p, T##bits v, int) {                  \
    return only_on_host(), __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST);                            \
  }                                                                                              \
  T##bits __tsan_atomic##bits##_fetch_xor(volatile T##bits* p, T##bits v, int) {                 \
    return only_on_host(), __atomic_fetch_xor(p, v, __ATOMIC_SEQ_CST);                           \
  }                                                                                              \
  T##bits __tsan_atomic##bits##_fetch_nand(volatile T##bits* p, T##bits v, int) {                \
    return only_on_host(), __atomic_fetch_nand(p, v, __ATOMIC_SEQ_CST);                          \
  }                                                                                              \
  bool __tsan_atomic##bits##_compare_exchange_strong(volatile T##bits* p, T##bits* e, T##bits v, \
                                                     int, int) {                                 \
    only_on_host();                                                                              \
    return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);      \
  }                                                                                              \
  bool __tsan_atomic##bits##_compare_exchange_weak(volatile T##bits* p, T##bits* e, T##bits v,   \
                                                   int, int) {                                   \
    only_on_host();                                                                              \
    return __atomic_compare_exchange_n(p, e, v, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);       \
  }                                                                                              \
  }
SIMT_ATOMIC(8)
SIMT_ATOMIC(16)
SIMT_ATOMIC(32)
SIMT_ATOMIC(64)

extern "C" {
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}
}
