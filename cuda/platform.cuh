// What kernels know of their platform: nvcc, or a host compiler with the SIMT runtime of
// tests/simt.
//
// Kernels include this header and nothing else of CUDA, so that the same source runs on both.
#pragma once

#include <cstddef>

#if defined(__CUDACC__)

#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

// A static shared array of a block.
#define PROTOSEG_SHARED(type, name, count) __shared__ type name[count]

namespace protoseg::cuda {

// What we let the parameters of a kernel take. 4 KB always go; drivers that run CUDA 13 take 32.
constexpr std::size_t most_parameter_bytes = CUDART_VERSION >= 13000 ? 16384 : 4096;

// The one dynamic shared buffer of a block, aligned to 16 bytes.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ uint4 protoseg_dynamic_shared[];
  return reinterpret_cast<T*>(protoseg_dynamic_shared);
}

// Thread-block clusters, sm_90 and later. Before that every block is a cluster of its own.

__device__ __forceinline__ unsigned cluster_block_rank() {
#if __CUDA_ARCH__ >= 900
  return cooperative_groups::this_cluster().block_rank();
#else
  return 0;
#endif
}

__device__ __forceinline__ unsigned cluster_blocks() {
#if __CUDA_ARCH__ >= 900
  return cooperative_groups::this_cluster().num_blocks();
#else
  return 1;
#endif
}

// A barrier for every thread of every block of the cluster; orders shared and global memory.
__device__ __forceinline__ void cluster_sync() {
#if __CUDA_ARCH__ >= 900
  cooperative_groups::this_cluster().sync();
#else
  __syncthreads();
#endif
}

// Where block `rank` of the cluster has what this block has at `pointer`, in shared memory. Needs
// a cluster_sync before the first use, and one before that block ends.
template <class T>
__device__ __forceinline__ T* cluster_map_shared(T* pointer, unsigned rank) {
#if __CUDA_ARCH__ >= 900
  return cooperative_groups::this_cluster().map_shared_rank(pointer, rank);
#else
  static_cast<void>(rank);
  return pointer;
#endif
}

}  // namespace protoseg::cuda

#else

#include <simt/cuda.hpp>

namespace protoseg::cuda {

constexpr std::size_t most_parameter_bytes = 4096;

using simt::cluster_block_rank;
using simt::cluster_blocks;
using simt::cluster_map_shared;
using simt::cluster_sync;
using simt::dynamic_shared;

}  // namespace protoseg::cuda

#endif
