// The one way to start a kernel.
#pragma once

#include <cstddef>
#include <type_traits>

#include "platform.cuh"

namespace protoseg::cuda {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  unsigned cluster = 1;          // blocks of a cluster, along x; grid.x is a multiple of it
  std::size_t shared_bytes = 0;  // of the dynamic shared buffer
};

// More dynamic shared memory than this has to be asked for.
constexpr std::size_t default_shared_bytes = 48 << 10;

// Puts the kernel on the stream and returns at once. Faults of the kernel itself surface later on
// a GPU; the SIMT runtime throws them from here.
template <class Params>
cudaError_t launch(void (*kernel)(Params), const LaunchShape& shape, cudaStream_t stream,
                   const std::common_type_t<Params>& params) {
  if (shape.shared_bytes > default_shared_bytes) {
    const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shape.shared_bytes));
    if (error != cudaSuccess) return error;
  }
#if defined(__CUDACC__)
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attribute = {};
  if (shape.cluster > 1) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = shape.cluster;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
  }
  return cudaLaunchKernelEx(&config, kernel, params);
#else
  return simt::launch(kernel, {shape.grid, shape.block, shape.cluster, shape.shared_bytes}, stream,
                      params);
#endif
}

}  // namespace protoseg::cuda
