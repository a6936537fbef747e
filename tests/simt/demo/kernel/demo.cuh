// A kernel for the tests of the mutation harness: the sum of each row.
#pragma once

#include "platform.cuh"

namespace demo {

struct Rows {
  const float* values;  // [rows, length]
  double* sums;         // [rows]
  int length;
};

__global__ inline void row_sums(Rows p) {
  PROTOSEG_SHARED(double, of_warp, 32);
  const float* row = p.values + static_cast<long long>(blockIdx.x) * p.length;
  double sum = 0.0;
  for (int i = static_cast<int>(threadIdx.x); i < p.length; i += static_cast<int>(blockDim.x))
    sum += row[i];
  for (unsigned delta = 16; delta > 0; delta /= 2) sum += __shfl_down_sync(0xffffffffu, sum, delta);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) sum += of_warp[warp];
  p.sums[blockIdx.x] = sum;
}

}  // namespace demo
