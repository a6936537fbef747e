// Clusters and distributed shared memory.
#include "micro.hpp"

namespace {

using micro::Params;
namespace pc = micro::pc;

__device__ inline int thread() { return static_cast<int>(threadIdx.x); }

enum Planted {
  nothing,
  no_first_sync,
  no_middle_sync,
  no_last_sync,
  rank_too_high,
  one_stays_away
};

// Every block adds up what all blocks of its cluster have.
template <Planted planted>
__global__ void add_up(Params p) {
  PROTOSEG_SHARED(int, own, 32);
  own[thread()] = static_cast<int>(blockIdx.x) * 100 + thread();
  if (planted == one_stays_away && pc::cluster_block_rank() == 1) return;
  if (planted != no_first_sync) pc::cluster_sync();
  int sum = 0;
  const unsigned blocks = pc::cluster_blocks() + (planted == rank_too_high);
  for (unsigned rank = 0; rank < blocks; ++rank) sum += pc::cluster_map_shared(own, rank)[thread()];
  if (planted != no_middle_sync) pc::cluster_sync();
  own[thread()] = sum;
  __syncthreads();
  p.out[blockIdx.x * 32 + threadIdx.x] = own[31 - thread()];
}

// Blocks push into the memory of block 0.
template <Planted planted>
__global__ void push(Params p) {
  PROTOSEG_SHARED(int, all, 8);
  pc::cluster_sync();
  if (thread() == 0) pc::cluster_map_shared(all, 0)[pc::cluster_block_rank()] = 7;
  if (planted != no_last_sync) pc::cluster_sync();
  if (planted != no_last_sync && pc::cluster_block_rank() == 0 && thread() < 4)
    p.out[blockIdx.x + threadIdx.x] = all[thread()];
}

template <Planted planted>
std::vector<int> run() {
  return micro::run(add_up<planted>, {8, 32, 4}, 1, 8 * 32);
}

}  // namespace

SIMT_SCENARIO(cluster_adds_up) {
  const std::vector<int> out = run<nothing>();
  SIMT_EXPECT_EQUAL(out[0], 600 + 4 * 31);
  SIMT_EXPECT_EQUAL(out[7 * 32 + 31], 400 + 500 + 600 + 700);
  SIMT_EXPECT_EQUAL(simt::total().cluster_barriers, 4u);
}
SIMT_FAULT(remote_before_first_sync, "used before the first cluster barrier") {
  run<no_first_sync>();
}
SIMT_FAULT(overwritten_while_read_remotely,
           "race on shared memory|has ended|ends after other blocks") {
  run<no_middle_sync>();
}
SIMT_FAULT(rank_beyond_cluster, "block rank 4 of a cluster of 4") { run<rank_too_high>(); }
SIMT_FAULT(block_stays_away, "divergent barrier") { run<one_stays_away>(); }
SIMT_FAULT(ends_while_used_remotely, "has ended|ends after other blocks") {
  micro::run(push<no_last_sync>, {4, 32, 4}, 1, 4);
}
SIMT_SCENARIO(cluster_pushes) {
  SIMT_EXPECT_EQUAL(micro::run(push<nothing>, {4, 32, 4}, 1, 4)[3], 7);
}
SIMT_SCENARIO(cluster_of_one) { micro::run(add_up<nothing>, {3, 32}, 1, 96); }
