// CUDA failures as exceptions, with call, file and line.
#pragma once

#include <string>

#include "platform.cuh"
#include "protoseg/tensor.hpp"

namespace protoseg::cuda {

inline void check_call(cudaError_t error, const char* call, const char* file, int line) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // the next call is not to find it again
  throw Error(std::string("CUDA call failed: ") + call + " returned \"" +
              cudaGetErrorString(error) + "\" (" + file + ":" + std::to_string(line) + ").");
}

}  // namespace protoseg::cuda

#define PROTOSEG_CUDA_CHECK(call) ::protoseg::cuda::check_call((call), #call, __FILE__, __LINE__)
