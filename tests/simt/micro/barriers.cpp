// Barriers that not all threads of a block come to.
#include "micro.hpp"

namespace {

using micro::Params;

template <bool planted>
__global__ void branch(Params p) {
  const int t = static_cast<int>(threadIdx.x);
  if (!planted || t < 40) __syncthreads();
  p.out[t] = t;
}

template <bool planted>
__global__ void two_barriers(Params p) {
  const int t = static_cast<int>(threadIdx.x);
  if (planted && t % 2) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  p.out[t] = t;
}

template <bool planted>
__global__ void early_return(Params p) {
  const int t = static_cast<int>(threadIdx.x);
  if (planted && t >= 50) return;
  __syncthreads();
  if (t < 64) p.out[t] = t;
}

template <bool planted>
__global__ void uneven_loop(Params p) {
  const int t = static_cast<int>(threadIdx.x);
  const int rounds = planted ? 3 + t / 32 : 4;
  for (int round = 0; round < rounds; ++round) __syncthreads();
  p.out[t] = t;
}

template <bool planted>
__global__ void barrier_and_shuffle(Params p) {
  const int t = static_cast<int>(threadIdx.x);
  if (planted && t == 5) {
    __syncthreads();
  } else {
    p.out[t] = __shfl_sync(planted ? 0xffffffffu : 1u << t % 32, t, t % 32);
    if (planted) __syncthreads();
  }
}

__global__ void reductions(Params p) {
  const int t = static_cast<int>(threadIdx.x);
  const int any = __syncthreads_or(t == 17), none = __syncthreads_or(t < 0);
  const int all = __syncthreads_and(t < 64), not_all = __syncthreads_and(t != 3);
  const int count = __syncthreads_count(t % 3 == 0);
  p.out[t] = (any != 0) + 2 * (none == 0) + 4 * (all != 0) + 8 * (not_all == 0) + 16 * count;
}

}  // namespace

SIMT_FAULT(barrier_in_branch, "divergent barrier") { micro::run(branch<true>, {2, 64}, 1, 64); }
SIMT_SCENARIO(barrier_for_all) {
  SIMT_EXPECT_EQUAL(micro::run(branch<false>, {1, 64}, 1, 64)[63], 63);
}

SIMT_FAULT(barriers_in_two_branches, "divergent barrier: comes to __syncthreads .barriers.cpp:") {
  micro::run(two_barriers<true>, {1, 64}, 1, 64);
}
SIMT_SCENARIO(barriers_in_one_branch) { micro::run(two_barriers<false>, {1, 64}, 1, 64); }

SIMT_FAULT(return_before_barrier, "divergent barrier") {
  micro::run(early_return<true>, {1, 64}, 1, 64);
}
SIMT_SCENARIO(return_after_barrier) { micro::run(early_return<false>, {1, 64}, 1, 64); }

SIMT_FAULT(barrier_in_uneven_loop, "divergent barrier") {
  micro::run(uneven_loop<true>, {1, 64}, 1, 64);
}
SIMT_SCENARIO(barrier_in_even_loop) { micro::run(uneven_loop<false>, {1, 64}, 1, 64); }

SIMT_FAULT(lane_at_barrier_while_others_shuffle, "divergence: waits for ever in") {
  micro::run(barrier_and_shuffle<true>, {1, 32}, 1, 32);
}
SIMT_SCENARIO(lanes_shuffle_alone) { micro::run(barrier_and_shuffle<false>, {1, 32}, 1, 32); }

SIMT_SCENARIO(barrier_reductions) {
  for (int value : micro::run(reductions, {1, 64}, 1, 64)) SIMT_EXPECT_EQUAL(value, 15 + 16 * 22);
  SIMT_EXPECT_EQUAL(simt::total().barriers, 5u);
}
