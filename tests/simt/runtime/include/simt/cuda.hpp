// What a kernel sees in place of CUDA's headers. Included by cuda/platform.cuh for host compilers.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict

#if defined(__SANITIZE_THREAD__)  // kernels, not the runtime itself
#include "simt/copies.hpp"
#endif
#include "simt/half.hpp"
#include "simt/host.hpp"
#include "simt/intrinsics.hpp"
#include "simt/launch.hpp"
#include "simt/vectors.hpp"
