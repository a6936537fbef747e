// Starting kernels from host code: grids within their limits, failures as exceptions.
#pragma once

#include <algorithm>
#include <cstdint>

#include "check.hpp"
#include "launch.cuh"
#include "protoseg/cuda.hpp"
#include "shape.cuh"

namespace protoseg::cuda {

inline cudaStream_t as_stream(Stream stream) { return static_cast<cudaStream_t>(stream); }

// Kernels stride over whatever is more than a grid may be.
constexpr std::int64_t most_blocks = std::int64_t{1} << 30;

// `blocks` clusters of `cluster` blocks of `threads` threads. Nothing to do is no launch.
template <class Params>
void run(void (*kernel)(Params), std::int64_t blocks, Stream stream,
         const std::common_type_t<Params>& params, std::int64_t shared_bytes = 0, int cluster = 1) {
  if (blocks <= 0) return;
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(std::min(blocks, most_blocks / cluster) * cluster));
  shape.block = dim3(threads);
  shape.cluster = static_cast<unsigned>(cluster);
  shape.shared_bytes = static_cast<std::size_t>(shared_bytes);
  PROTOSEG_CUDA_CHECK(launch(kernel, shape, as_stream(stream), params));
}

// One thread per element.
template <class Params>
void run_elements(void (*kernel)(Params), std::int64_t elements, Stream stream,
                  const std::common_type_t<Params>& params) {
  run(kernel, divide_up(elements, threads), stream, params);
}

}  // namespace protoseg::cuda
