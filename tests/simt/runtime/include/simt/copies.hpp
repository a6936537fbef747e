// memcpy and its kin, seen by the runtime. The compiler expands copies of odd sizes so late that
// it does not instrument them; sizes of one register become a load and a store early enough.
#pragma once

#include <cstddef>
#include <cstring>

extern "C" {

void* simt_memcpy(void* to, const void* from, std::size_t n);
void* simt_memmove(void* to, const void* from, std::size_t n);
void* simt_memset(void* to, int value, std::size_t n);

// As the C library's own headers replace them for its checks.
#define SIMT_REPLACE extern inline __attribute__((always_inline, gnu_inline, artificial)) void*

SIMT_REPLACE memcpy(void* __restrict to, const void* __restrict from, std::size_t n) noexcept {
  if (__builtin_constant_p(n) && (n == 1 || n == 2 || n == 4 || n == 8 || n == 16))
    return __builtin_memcpy(to, from, n);
  return simt_memcpy(to, from, n);
}
SIMT_REPLACE memmove(void* to, const void* from, std::size_t n) noexcept {
  return simt_memmove(to, from, n);
}
SIMT_REPLACE memset(void* to, int value, std::size_t n) noexcept {
  return simt_memset(to, value, n);
}

#undef SIMT_REPLACE
}
