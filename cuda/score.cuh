// Scores from counts that lie on the device.
#pragma once

#include <cstdint>

#include "protoseg/cuda.hpp"
#include "shape.cuh"

namespace protoseg::cuda {

struct ScoreParams {
  CountArrays counts;  // [count] each but voxels, which no score needs
  std::int64_t count;
  Score which;
  Empty empty;
  double* scores;  // [count]
};

template <class = void>
__global__ void __launch_bounds__(threads) score_kernel(ScoreParams p) {
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(threads) + threadIdx.x; i < p.count;
       i += static_cast<std::int64_t>(gridDim.x) * threads) {
    Counts counts;
    counts.tp = p.counts.tp[i];
    counts.predicted = p.counts.predicted[i];
    counts.actual = p.counts.actual[i];
    counts.defined = p.counts.defined[i] != 0;
    p.scores[i] = score(counts, p.which, p.empty);
  }
}

}  // namespace protoseg::cuda
