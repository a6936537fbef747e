// Shuffles and votes: who takes part, and what they return.
#include "micro.hpp"

namespace {

using micro::Params;

__device__ inline int thread() { return static_cast<int>(threadIdx.x); }

template <bool planted>
__global__ void exited_lane(Params p) {
  if (planted && thread() == 9) return;
  p.out[thread()] = __shfl_xor_sync(0xffffffffu, thread(), 1);
}

template <bool planted>
__global__ void own_lane_missing(Params p) {
  p.out[thread()] = __any_sync(planted ? 0xfffffffeu : 0xffffffffu, thread() == 3);
}

template <bool planted>
__global__ void different_masks(Params p) {
  const unsigned mask = planted && thread() < 16 ? 0x0000ffffu : 0xffffffffu;
  p.out[thread()] = static_cast<int>(__ballot_sync(mask, thread() & 1) & 2u);
}

template <bool planted>
__global__ void half_in_branch(Params p) {
  int value = thread();
  if (thread() < 16) value = __shfl_down_sync(planted ? 0xffffffffu : 0xffffu, value, 1, 16);
  p.out[thread()] = value;
}

template <bool planted>
__global__ void reads_inactive(Params p) {
  int value = thread();
  if (thread() < 24) value = __shfl_down_sync(0x00ffffffu, value, planted ? 8 : 0);
  p.out[thread()] = value;
}

template <bool planted>
__global__ void two_places(Params p) {
  int value = thread();
  if (planted && value % 2)
    value = __shfl_sync(0xffffffffu, value, 0);
  else
    value = __shfl_sync(0xffffffffu, value, 0);
  p.out[thread()] = value;
}

template <bool planted>
__global__ void odd_width(Params p) {
  p.out[thread()] = __shfl_down_sync(0xffffffffu, thread(), 1, planted ? 24 : 8);
}

template <bool planted>
__global__ void different_widths(Params p) {
  p.out[thread()] = __shfl_down_sync(0xffffffffu, thread(), 1, planted && thread() ? 8 : 16);
}

__global__ void full_mask(Params p) { p.out[thread()] = __all_sync(0xffffffffu, 1); }

// Each half warp on its own, at different times.
__global__ void halves(Params p) {
  const unsigned mask = thread() % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  int sum = thread();
  for (int d = 8; d > 0; d /= 2) sum += __shfl_xor_sync(mask, sum, d);
  __syncwarp(mask);
  p.out[thread()] = sum;
}

struct AllShuffles {
  int* out;  // [kind][argument][width][lane]
};

__global__ void all_shuffles(AllShuffles p) {
  int* out = p.out + threadIdx.x;
  for (int argument = 0; argument < 32; ++argument)
    for (int width = 1; width <= 32; width *= 2) {
      const unsigned u = static_cast<unsigned>(argument);
      out[0] = __shfl_sync(0xffffffffu, thread(), argument, width);
      out[32] = __shfl_up_sync(0xffffffffu, thread(), u, width);
      out[64] = static_cast<int>(__shfl_down_sync(0xffffffffu, 0.5 * thread(), u, width) * 2);
      out[96] = static_cast<int>(
          __shfl_xor_sync(0xffffffffu, (1LL << 40) * thread(), argument, width) >> 40);
      out += 128;
    }
}

}  // namespace

SIMT_FAULT(shuffle_with_lane_that_returned, "divergence: returns|have returned") {
  micro::run(exited_lane<true>, {1, 32}, 1, 32);
}
SIMT_SCENARIO(shuffle_with_all_lanes) {
  SIMT_EXPECT_EQUAL(micro::run(exited_lane<false>, {1, 64}, 1, 64)[40], 41);
}

SIMT_FAULT(mask_without_own_lane, "does not have its own lane") {
  micro::run(own_lane_missing<true>, {1, 32}, 1, 32);
}
SIMT_SCENARIO(mask_with_own_lane) { micro::run(own_lane_missing<false>, {1, 32}, 1, 32); }

SIMT_FAULT(masks_that_differ, "another lane with mask|divergence: returns") {
  micro::run(different_masks<true>, {1, 32}, 1, 32);
}
SIMT_SCENARIO(masks_that_agree) { micro::run(different_masks<false>, {1, 32}, 1, 32); }

SIMT_FAULT(full_mask_in_branch, "lanes of its warp wait for it|have returned") {
  micro::run(half_in_branch<true>, {1, 32}, 1, 32);
}
SIMT_SCENARIO(half_mask_in_branch) {
  SIMT_EXPECT_EQUAL(micro::run(half_in_branch<false>, {1, 32}, 1, 32)[14], 15);
}

SIMT_FAULT(shuffle_reads_inactive_lane, "inactive lane") {
  micro::run(reads_inactive<true>, {1, 32}, 1, 32);
}
SIMT_SCENARIO(shuffle_reads_active_lanes) { micro::run(reads_inactive<false>, {1, 32}, 1, 32); }

SIMT_FAULT(shuffles_at_two_places, "divergence: comes to __shfl_sync .warps.cpp:") {
  micro::run(two_places<true>, {1, 32}, 1, 32);
}
SIMT_SCENARIO(shuffles_at_one_place) { micro::run(two_places<false>, {1, 32}, 1, 32); }

SIMT_FAULT(width_no_power_of_two, "power of two") { micro::run(odd_width<true>, {1, 32}, 1, 32); }
SIMT_SCENARIO(width_power_of_two) { micro::run(odd_width<false>, {1, 32}, 1, 32); }

SIMT_FAULT(widths_that_differ, "another lane with width") {
  micro::run(different_widths<true>, {1, 32}, 1, 32);
}
SIMT_SCENARIO(widths_that_agree) { micro::run(different_widths<false>, {1, 32}, 1, 32); }

SIMT_FAULT(full_mask_in_partial_warp, "which do not exist") {
  micro::run(full_mask, {1, 40}, 1, 40);
}
SIMT_SCENARIO(full_mask_in_full_warps) { micro::run(full_mask, {1, 64}, 1, 64); }

SIMT_SCENARIO(half_warps_apart) {
  const std::vector<int> sums = micro::run(halves, {1, 64}, 1, 64);
  for (int t = 0; t < 64; ++t)
    SIMT_EXPECT_EQUAL(sums[static_cast<std::size_t>(t)], 16 * (t / 16 * 16) + 120);
}

// The definitions of the CUDA programming guide, written again.
SIMT_SCENARIO(shuffles_as_the_guide_has_them) {
  simt::DeviceArray<int> out(32 * 6 * 4 * 32, "out");
  micro::pc::launch(all_shuffles, {1, 32}, nullptr, {out.data()});
  const std::vector<int> values = out.download();
  std::size_t at = 0;
  for (int argument = 0; argument < 32; ++argument)
    for (int width = 1; width <= 32; width *= 2)
      for (int kind = 0; kind < 4; ++kind)
        for (int lane = 0; lane < 32; ++lane) {
          const int first = lane / width * width, place = lane % width;
          int expected = lane;
          if (kind == 0) expected = first + argument % width;
          if (kind == 1 && place >= argument) expected = lane - argument;
          if (kind == 2 && place + argument < width) expected = lane + argument;
          if (kind == 3 && (lane ^ argument) < first + width) expected = lane ^ argument;
          SIMT_EXPECT_EQUAL(values[at++], expected);
        }
}
