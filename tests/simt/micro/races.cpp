// Races inside a block.
#include "micro.hpp"

namespace {

using micro::Params;

__device__ inline int thread() { return static_cast<int>(threadIdx.x); }

template <bool planted>
__global__ void read_after_write(Params p) {
  PROTOSEG_SHARED(int, values, 64);
  values[thread()] = thread();
  __syncthreads();
  values[thread()] = thread() + 1;
  if (!planted) __syncthreads();
  p.out[thread()] = values[63 - thread()];
}

template <bool planted>
__global__ void write_after_read(Params p) {
  PROTOSEG_SHARED(int, value, 1);
  for (int round = 0; round < 2; ++round) {
    if (thread() == 0) value[0] = round;
    __syncthreads();
    p.out[thread()] = value[0];
    if (!planted) __syncthreads();
  }
}

template <bool planted>
__global__ void write_write(Params p) {
  PROTOSEG_SHARED(int, value, 1);
  if (planted || thread() == 0) value[0] = 7;  // the same value: still a race
  __syncthreads();
  p.out[thread()] = value[0];
}

// A tree of one warp through shared memory.
template <int order>  // 0: none, 1: __syncwarp, 2: a shuffle, which orders no memory, 3: half masks
__global__ void warp_tree(Params p) {
  PROTOSEG_SHARED(int, values, 64);
  const int lane = thread() % 32;
  int* own = values + thread() / 32 * 32;
  own[lane] = lane;
  for (int d = 16; d > 0; d /= 2) {
    if constexpr (order == 1) __syncwarp();
    if constexpr (order == 2) __shfl_sync(0xffffffffu, lane, 0);
    if constexpr (order == 3) __syncwarp(lane < 16 ? 0xffffu : 0xffff0000u);
    if (lane < d) own[lane] += own[lane + d];
  }
  if (lane == 0) p.out[thread() / 32] = own[0];
}

template <bool planted>
__global__ void between_warps(Params p) {
  PROTOSEG_SHARED(int, values, 64);
  values[thread()] = thread();
  if (planted)
    __syncwarp();
  else
    __syncthreads();
  p.out[thread()] = values[(thread() + (p.n > 0 ? 32 : 0)) % 64];
}

template <bool planted>
__global__ void bytes_of_a_word(Params p) {
  PROTOSEG_SHARED(unsigned char, bytes, 64);
  bytes[planted ? thread() / 2 : thread()] = static_cast<unsigned char>(thread());
  __syncthreads();
  p.out[thread()] = bytes[planted ? 0 : thread()];
}

template <bool planted>
__global__ void byte_and_word(Params p) {
  PROTOSEG_SHARED(unsigned, words, 16);
  if (thread() < 16) words[thread()] = 0;
  __syncthreads();
  if (thread() == 40) reinterpret_cast<unsigned char*>(words)[planted ? 13 : 61] = 1;
  if (thread() < 15) p.out[thread()] = static_cast<int>(words[thread()]);
}

// Lanes read one word together; a lane of the same or of another warp then writes it.
template <bool planted>
__global__ void many_readers(Params p) {
  PROTOSEG_SHARED(int, value, 1);
  if (thread() == 0) value[0] = 5;
  __syncthreads();
  int seen = 0;
  if (thread() < 32) seen = value[0];
  if (!planted) __syncwarp();
  if (thread() == 31) value[0] = seen + 1;
  __syncthreads();
  p.out[thread()] = value[0];
}

template <bool planted>
__global__ void through_global(Params p) {
  p.out[thread()] = thread();
  if (!planted) __syncthreads();
  const int other = p.out[63 - thread()];
  __syncthreads();
  p.out[thread()] = other;
}

template <bool planted>
__global__ void counter(Params p) {
  PROTOSEG_SHARED(int, count, 1);
  if (thread() == 0) count[0] = 0;
  __syncthreads();
  if (planted && thread() == 20)
    count[0] = count[0] + 1;
  else
    atomicAdd(count, 1);
  __syncthreads();
  p.out[thread()] = count[0];
}

}  // namespace

SIMT_FAULT(shared_read_without_barrier, "race on shared memory") {
  micro::run(read_after_write<true>, {1, 64}, 1, 64);
}
SIMT_SCENARIO(shared_read_after_barrier) {
  SIMT_EXPECT_EQUAL(micro::run(read_after_write<false>, {1, 64}, 1, 64)[0], 64);
}

SIMT_FAULT(shared_overwritten_while_read, "race on shared memory") {
  micro::run(write_after_read<true>, {1, 64}, 1, 64);
}
SIMT_SCENARIO(shared_overwritten_after_barrier) {
  micro::run(write_after_read<false>, {1, 64}, 1, 64);
}

SIMT_FAULT(shared_written_by_all, "race on shared memory: writes at byte 0 of shared 'value'") {
  micro::run(write_write<true>, {1, 64}, 1, 64);
}
SIMT_SCENARIO(shared_written_by_one) { micro::run(write_write<false>, {1, 64}, 1, 64); }

SIMT_FAULT(warp_tree_without_order, "memory") { micro::run(warp_tree<0>, {1, 64}, 1, 2); }
SIMT_SCENARIO(warp_tree_with_syncwarp) {
  SIMT_EXPECT_EQUAL(micro::run(warp_tree<1>, {1, 64}, 1, 2)[1], 496);
}
SIMT_FAULT(warp_tree_with_shuffle, "race on shared memory") {
  micro::run(warp_tree<2>, {1, 64}, 1, 2);
}
SIMT_FAULT(warp_tree_with_half_masks, "memory") { micro::run(warp_tree<3>, {1, 64}, 1, 2); }

SIMT_FAULT(syncwarp_between_warps, "memory") { micro::run(between_warps<true>, {1, 64}, 1, 64); }
SIMT_SCENARIO(barrier_between_warps) { micro::run(between_warps<false>, {1, 64}, 1, 64); }

SIMT_FAULT(one_byte_by_two, "race on shared memory") {
  micro::run(bytes_of_a_word<true>, {1, 64}, 1, 64);
}
SIMT_SCENARIO(bytes_of_a_word_by_four) {
  SIMT_EXPECT_EQUAL(micro::run(bytes_of_a_word<false>, {1, 64}, 1, 64)[21], 21);
}

SIMT_FAULT(byte_within_a_word, "race on shared memory") {
  micro::run(byte_and_word<true>, {1, 64}, 1, 15);
}
SIMT_SCENARIO(byte_beside_words) { micro::run(byte_and_word<false>, {1, 64}, 1, 15); }

SIMT_FAULT(written_while_the_warp_reads, "race on shared memory") {
  micro::run(many_readers<true>, {1, 64}, 1, 64);
}
SIMT_SCENARIO(written_after_the_warp_read) {
  SIMT_EXPECT_EQUAL(micro::run(many_readers<false>, {1, 64}, 1, 64)[60], 6);
}

SIMT_FAULT(global_without_barrier, "memory") { micro::run(through_global<true>, {1, 64}, 1, 64); }
SIMT_SCENARIO(global_after_barrier) { micro::run(through_global<false>, {1, 64}, 1, 64); }

SIMT_FAULT(atomic_and_plain, "race on shared memory") { micro::run(counter<true>, {1, 64}, 1, 64); }
SIMT_SCENARIO(atomics_of_all) {
  SIMT_EXPECT_EQUAL(micro::run(counter<false>, {1, 64}, 1, 64)[9], 64);
  SIMT_EXPECT_EQUAL(simt::total().shared_atomics, 64u);
}
