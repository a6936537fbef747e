// Blocks of one launch: what they may not share, and how they can.
#include <thread>

#include "micro.hpp"

namespace {

using micro::Params;

__device__ inline int thread() { return static_cast<int>(threadIdx.x); }
__device__ inline int block() { return static_cast<int>(blockIdx.x); }

template <bool planted>
__global__ void neighbours(Params p) {
  const int i = block() * 32 + thread();
  p.out[i] = i;
  __syncthreads();
  const int other = planted ? (i + 32) % 128 : i / 32 * 32 + 31 - thread();
  const int seen = p.out[other];
  __syncthreads();
  p.out[i] = seen;
}

template <bool planted>
__global__ void same_place(Params p) {
  if (thread() == 0) p.out[planted ? 0 : block()] = 1;
}

__global__ void all_count(Params p) { atomicAdd(p.out, 1); }

template <bool planted>
__global__ void look_at_counter(Params p) {
  atomicAdd(p.out, 1);
  if (planted && thread() == 0 && block() == 1) p.out[1] = p.out[0];
}

// The last block to finish adds up what the others left.
template <int planted>  // 0: nothing, 1: no fence, 2: no barrier before it, 3: each fences for
                        // itself
__global__ void last_block(Params p) {
  PROTOSEG_SHARED(int, is_last, 1);
  int* partial = p.out + 2;
  partial[block() * 32 + thread()] = thread();
  if (planted == 3) __threadfence();
  if (planted != 2) __syncthreads();
  if (thread() == 0) {
    if (planted == 0 || planted == 2) __threadfence();
    is_last[0] = atomicAdd(p.out, 1) == static_cast<int>(gridDim.x) - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last[0] || thread() > 0) return;
  int sum = 0;
  for (unsigned i = 0; i < 32 * gridDim.x; ++i) sum += partial[i];
  p.out[1] = sum;
  p.out[0] = 0;
}

void count_blocks(micro::Kernel kernel) {
  simt::DeviceArray<int> out(2 + 32 * 5, "out");
  out.fill_bytes(0);
  for (int launch = 0; launch < 2; ++launch) {
    micro::pc::launch(kernel, {5, 32}, nullptr, {nullptr, out.data(), 0});
    SIMT_EXPECT_EQUAL(out.download()[1], 5 * 496);
  }
}

__global__ void where_am_i(Params p) {
  if (thread() == 0)
    p.out[0] = static_cast<int>(blockIdx.x + 1000 * blockIdx.y + 1000000 * blockIdx.z);
}

}  // namespace

SIMT_FAULT(reads_another_block, "memory") { micro::run(neighbours<true>, {4, 32}, 1, 128); }
SIMT_SCENARIO(reads_its_own_block) { micro::run(neighbours<false>, {4, 32}, 1, 128); }

SIMT_FAULT(blocks_write_one_place, "race on global memory between blocks: writes") {
  micro::run(same_place<true>, {4, 32}, 1, 1);
}
SIMT_SCENARIO(blocks_write_their_places) { micro::run(same_place<false>, {4, 32}, 1, 4); }

SIMT_SCENARIO(blocks_count_atomically) {
  simt::DeviceArray<int> out(1, "out");
  out.fill_bytes(0);
  for (int launch = 0; launch < 2; ++launch)
    micro::pc::launch(all_count, {7, 64}, nullptr, {nullptr, out.data(), 0});
  SIMT_EXPECT_EQUAL(out.download()[0], 2 * 7 * 64);
  SIMT_EXPECT_EQUAL(simt::total().global_atomics, 2u * 7 * 64);
}
SIMT_FAULT(counter_read_while_counting, "race on global memory") {
  simt::DeviceArray<int> out(2, "out");
  out.fill_bytes(0);
  micro::pc::launch(look_at_counter<true>, {3, 64}, nullptr, {nullptr, out.data(), 0});
}

SIMT_SCENARIO(last_block_adds_up) { count_blocks(last_block<0>); }
SIMT_FAULT(last_block_without_fence, "race on global memory between blocks: reads") {
  count_blocks(last_block<1>);
}
SIMT_FAULT(last_block_without_barrier, "race on global memory between blocks: reads") {
  count_blocks(last_block<2>);
}
SIMT_SCENARIO(last_block_all_fence) { count_blocks(last_block<3>); }

// Launches from several threads of the host take turns.
SIMT_SCENARIO(host_threads) {
  std::vector<std::thread> threads;
  std::vector<int> counted(4);
  for (std::size_t i = 0; i < counted.size(); ++i)
    threads.emplace_back([&counted, i] {
      for (int round = 0; round < 20; ++round) {
        simt::DeviceArray<int> out(1, "out");
        out.fill_bytes(0);
        micro::pc::launch(all_count, {3, 64}, nullptr, {nullptr, out.data(), 0});
        counted[i] += out.download()[0];
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (int count : counted) SIMT_EXPECT_EQUAL(count, 20 * 3 * 64);
}

SIMT_SCENARIO(chosen_blocks_of_a_huge_grid) {
  simt::DeviceArray<int> out(1, "out");
  simt::options().blocks = {3000000000u + 7};
  micro::pc::launch(where_am_i, {dim3(100000, 300, 200), 32}, nullptr, {nullptr, out.data(), 0});
  SIMT_EXPECT_EQUAL(simt::total().blocks, 1u);
  SIMT_EXPECT_EQUAL(out.download()[0], 7 + 1000 * 0 + 1000000 * 100);
}
