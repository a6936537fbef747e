// Kernels that would never end, or take the process with them.
#include "micro.hpp"

namespace {

using micro::Params;

__global__ void spins_in_registers(Params p) {
  unsigned x = threadIdx.x + 1;
  while (x != 0) x = x * 3u | 1u;
  p.out[threadIdx.x] = static_cast<int>(x);
}

__global__ void spins_on_memory(Params p) {
  while (*static_cast<const volatile int*>(p.in) == 0) {
  }
  p.out[threadIdx.x] = 1;
}

__global__ void spins_on_barriers(Params p) {
  while (p.in[0] == 0) __syncthreads();
  p.out[threadIdx.x] = 1;
}

// Waits for a block that may come later.
__global__ void waits_for_block(Params p) {
  if (blockIdx.x == 0)
    while (atomicAdd(p.out, 0) == 0) {
    }
  else
    atomicExch(p.out, 1);
}

__device__ __attribute__((noinline)) int recurse(const Params& p, int depth) {
  int values[256];
  for (int i = 0; i < 256; ++i) values[i] = depth + i;
  return p.n < 0 ? 0 : recurse(p, depth + values[depth % 256] / 1000) + values[depth % 7];
}

__global__ void recurses(Params p) { p.out[threadIdx.x] = recurse(p, 1); }
__global__ void traps(Params) { __trap(); }

void run(micro::Kernel kernel) {
  simt::options().seconds = 0.3;
  micro::run(kernel, {1, 64}, 1, 64);
}

}  // namespace

SIMT_FAULT(endless_in_registers, "time limit: a thread computes for ever") {
  run(spins_in_registers);
}
SIMT_FAULT(endless_on_memory, "time limit") { run(spins_on_memory); }
SIMT_FAULT(endless_on_barriers, "time limit") { run(spins_on_barriers); }
SIMT_FAULT(endless_wait_for_block, "time limit") {
  simt::options().seconds = 0.3;
  if (simt::options().seed % 4 > 0) simt::options().seed = 0;
  simt::DeviceArray<int> out(1, "out");
  out.fill_bytes(0);
  micro::pc::launch(waits_for_block, {2, 1}, nullptr, {nullptr, out.data(), 0});
}
SIMT_FAULT(endless_recursion, "stack overflows") { run(recurses); }
SIMT_FAULT(trap, "__trap") { run(traps); }

// After any of these, the next launch is as good as the first.
SIMT_SCENARIO(launches_go_on_after_faults) {
  for (micro::Kernel kernel : {spins_on_memory, traps, recurses}) {
    bool failed = false;
    try {
      run(kernel);
    } catch (const simt::Failure&) {
      failed = true;
    }
    SIMT_EXPECT(failed);
    simt::DeviceArray<int> out(1, "out");
    out.fill_bytes(1);
    micro::pc::launch(waits_for_block, {1, 1}, nullptr, {nullptr, out.data(), 0});
  }
}
