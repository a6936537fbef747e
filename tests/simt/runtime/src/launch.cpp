// Runs a grid: clusters in random order, the threads of a cluster as fibers.
#include <algorithm>
#include <numeric>

#include "machine.hpp"
#include "memory.hpp"
#include "traffic.hpp"

namespace simt {

thread_local Thread* current __attribute__((tls_model("initial-exec"))) = nullptr;
Launch* active = nullptr;
std::recursive_mutex device_mutex;

namespace {

Stacks stacks;
std::uint32_t next_epoch = 1;

// A first-in first-out queue, a stack, or a random pick, by seed.
Thread* next_thread() {
  Launch& launch = *active;
  if (launch.ready_head == launch.ready.size()) return nullptr;
  const std::size_t waiting = launch.ready.size() - launch.ready_head;
  std::size_t pick = launch.ready_head;
  if (launch.seed % 4 == 1) pick += waiting - 1;
  if (launch.seed % 4 > 1) pick += next_random() % waiting;
  if (launch.seed % 4 == 1) {
    Thread* last = launch.ready.back();
    launch.ready.pop_back();
    return last;
  }
  std::swap(launch.ready[pick], launch.ready[launch.ready_head]);
  Thread* thread = launch.ready[launch.ready_head++];
  if (launch.ready_head == launch.ready.size()) {
    launch.ready.clear();
    launch.ready_head = 0;
  }
  return thread;
}

void exit_thread() {
  Thread& thread = *current;
  Block& block = *thread.block;
  Warp& warp = *thread.warp;
  thread.state = State::exited;
  warp.exited |= 1u << thread.lane;
  ++block.exited;
  for (const WarpOperation& operation : warp.pending)
    if (operation.mask >> thread.lane & 1)
      fail("divergence: returns, but lanes of its warp wait for it in " + where(operation.place));
  if (block.barrier.arrived > 0)
    fail("divergent barrier: returns, but threads of its block wait in " +
         where(block.barrier.place));
  Cluster& cluster = active->cluster;
  if (cluster.barrier.arrived > 0)
    fail("divergent barrier: returns, but threads of its cluster wait in " +
         where(cluster.barrier.place));
  if (warp.exited == warp.existing) end_segment(warp);
  if (block.exited == block.size && block.read_remotely)
    fail("distributed shared memory: the block ends after other blocks of the cluster used its "
         "shared memory, with no cluster barrier since");
  Thread* next = next_thread();
  current = next;
  switch_context(thread.context, next ? next->context : active->host);
  __builtin_unreachable();
}

void enter_thread() {
  active->run(active->call);
  exit_thread();
}

void start_block(Block& block, std::uint64_t linear, unsigned rank, Thread* threads) {
  Launch& launch = *active;
  const dim3 extent = launch.shape.block, grid = launch.shape.grid;
  block.index.x = static_cast<unsigned>(linear % grid.x);
  block.index.y = static_cast<unsigned>(linear / grid.x % grid.y);
  block.index.z = static_cast<unsigned>(linear / grid.x / grid.y);
  block.rank = rank;
  block.ordinal = launch.started++;
  launch.block_linear.push_back(linear);
  block.threads = threads;
  block.size = extent.x * extent.y * extent.z;
  block.exited = 0;
  block.barrier = {};
  block.read_remotely = false;
  block.acquired.clear();
  block.fences = 0;
  block.first_epoch = new_epoch(block);
  block.warps.resize((block.size + warp_lanes - 1) / warp_lanes);
  for (std::uint32_t w = 0; w < block.warps.size(); ++w) {
    Warp& warp = block.warps[w];
    const unsigned lanes = std::min(warp_lanes, block.size - w * warp_lanes);
    warp.block = &block;
    warp.number = w;
    warp.slot = static_cast<std::uint32_t>(rank * block.warps.size() + w);
    warp.threads = threads + w * warp_lanes;
    warp.existing = lanes == warp_lanes ? ~0u : (1u << lanes) - 1;
    warp.exited = 0;
    warp.pending.clear();
    if (warp.clocks_used || launch.started <= launch.shape.cluster) {
      std::fill_n(&warp.known[0][0], warp_lanes * warp_lanes, 0u);
      warp.clocks_used = false;
    }
    begin_segment(warp);
  }
  for (std::uint32_t n = 0; n < block.size; ++n) {
    Thread& thread = threads[n];
    thread.block = &block;
    thread.warp = &block.warps[n / warp_lanes];
    thread.number = n;
    thread.lane = n % warp_lanes;
    thread.slot = static_cast<std::uint32_t>(&thread - launch.cluster.threads.data());
    thread.clock = 1;
    thread.fenced = 0;
    thread.state = State::ready;
    thread.index = {n % extent.x, n / extent.x % extent.y, n / extent.x / extent.y};
    thread.stack_low = stacks.low(thread.slot);
    // Tops at different places of a page, so that stacks do not compete for the same cache lines.
    const std::uintptr_t high = thread.stack_low + stack_bytes - (thread.slot * 192 & 4032);
    prepare_context(thread.context, thread.stack_low, high, &enter_thread);
    make_ready(thread);
  }
}

[[noreturn]] void fail_stuck() {
  // What the first waiting thread waits for, and whom else there is.
  const Thread* first = nullptr;
  std::string others;
  std::size_t kinds = 0;
  for (const Thread& thread : active->cluster.threads) {
    if (thread.state == State::exited) continue;
    if (!first) first = &thread;
    if (thread.place == first->place && thread.state == first->state) continue;
    if (++kinds <= 3)
      others += "\n  " + describe(*thread.block, thread) + " waits in " + where(thread.place);
  }
  if (others.empty()) others = "\n  the threads it waits for never come";
  fail_at(*first, "divergence: waits for ever in " + where(first->place) + "; meanwhile" + others);
}

void run_cluster(std::uint64_t first_linear) {
  Launch& launch = *active;
  Cluster& cluster = launch.cluster;
  const dim3 extent = launch.shape.block;
  const std::size_t size = std::size_t{1} * extent.x * extent.y * extent.z;
  cluster.barrier = {};
  cluster.synced = 0;
  cluster.first_epoch = next_epoch;
  launch.ready.clear();
  launch.ready_head = 0;
  for (unsigned rank = 0; rank < launch.shape.cluster; ++rank) {
    start_block(cluster.blocks[rank], first_linear + rank, rank, &cluster.threads[rank * size]);
    start_shared(rank);
  }
  Thread* first = next_thread();
  current = first;
  switch_context(launch.host, first->context);
  throw_pending_failure();
  for (const Block& block : cluster.blocks)
    if (block.exited != block.size) fail_stuck();
}

// Visits 0 .. count - 1 in an order that the seed decides, without a list of them.
template <class Visit>
void in_random_order(std::uint64_t count, Visit visit) {
  if (active->seed % 4 < 2) {
    for (std::uint64_t i = 0; i < count; ++i) visit(active->seed % 4 == 0 ? i : count - 1 - i);
    return;
  }
  const std::uint64_t start = next_random() % count;
  std::uint64_t step = next_random() % count;
  while (std::gcd(step, count) != 1) step = (step + 1) % count;
  std::uint64_t at = start;
  for (std::uint64_t i = 0; i < count; ++i) {
    visit(at);
    at = static_cast<std::uint64_t>((static_cast<unsigned __int128>(at) + step) % count);
  }
}

void check_limits(const LaunchShape& shape) {
  const dim3 g = shape.grid, b = shape.block;
  const std::uint64_t size = std::uint64_t{1} * b.x * b.y * b.z;
  auto refuse = [](const std::string& what) { fail("launch limits: " + what); };
  if (size < 1 || size > max_block || b.z > 64)
    refuse("a block of " + number(b.x) + " x " + number(b.y) + " x " + number(b.z) +
           " threads; at most 1024, and 64 along z");
  if (g.x < 1 || g.y < 1 || g.z < 1) refuse("an empty grid");
  if (g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535)
    refuse("a grid of " + number(g.x) + " x " + number(g.y) + " x " + number(g.z) +
           " blocks; at most 2^31 - 1 along x, 65535 along y and z");
  if (shape.cluster < 1 || shape.cluster > max_cluster)
    refuse("a cluster of " + number(shape.cluster) + " blocks; at most 8");
  if (shape.cluster > 1 && device().major < 9) refuse("clusters need compute capability 9.0");
  if (g.x % shape.cluster) refuse("the grid's x is no multiple of the cluster");
}

std::vector<std::uint64_t> chosen_clusters(const Launch& launch) {
  std::vector<std::uint64_t> clusters;
  for (std::uint64_t block : options().blocks) clusters.push_back(block / launch.shape.cluster);
  std::sort(clusters.begin(), clusters.end());
  clusters.erase(std::unique(clusters.begin(), clusters.end()), clusters.end());
  return clusters;
}

void run_grid() {
  Launch& launch = *active;
  const dim3 g = launch.shape.grid;
  const std::uint64_t count = std::uint64_t{1} * g.x * g.y * g.z / launch.shape.cluster;
  if (options().blocks.empty()) {
    in_random_order(count, [&](std::uint64_t c) { run_cluster(c * launch.shape.cluster); });
    return;
  }
  for (std::uint64_t c : chosen_clusters(launch)) {
    if (c >= count) fail("launch limits: options().blocks has a block beyond the grid");
    run_cluster(c * launch.shape.cluster);
  }
}

}  // namespace

Options& options() {
  static Options options;
  return options;
}

Device& device() {
  static Device device;
  return device;
}

std::uint64_t next_random() {  // splitmix64
  std::uint64_t z = active->random += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

std::uint32_t new_epoch(Block& block) {
  active->epoch_owner.push_back(block.ordinal);
  block.epoch = next_epoch++;
  return block.epoch;
}

void make_ready(Thread& thread) {
  thread.state = State::ready;
  active->ready.push_back(&thread);
}

void give_way() {
  Thread& self = *current;
  Thread* next = next_thread();
  if (next != &self) {
    current = next;
    switch_context(self.context, next ? next->context : active->host);
  }
  if (expired) fail_expired();
}

void detail::launch(const void* kernel, const LaunchShape& shape, void (*run)(const void*),
                    const void* call) {
  if (current) fail("a kernel launches a kernel");
  const std::lock_guard lock(device_mutex);
  Launch launch;
  launch.kernel = kernel;
  launch.shape = shape;
  launch.run = run;
  launch.call = call;
  launch.seed = options().seed;
  launch.random = options().seed;
  launch.first_epoch = next_epoch;
  const dim3 b = shape.block;
  struct Active {  // whatever happens, the next launch starts afresh
    explicit Active(Launch* launch) { active = launch; }
    ~Active() {
      stop_watchdog();
      current = nullptr;
      end_shared();
      active = nullptr;
    }
  } scope(&launch);
  check_limits(shape);
  launch.cluster.blocks.resize(shape.cluster);
  launch.cluster.threads.resize(std::size_t{shape.cluster} * b.x * b.y * b.z);
  begin_shared(shape);
  begin_traffic();
  start_watchdog(options().seconds);
  run_grid();
  end_traffic();
}

// ---- Built-in variables ----

uint3 thread_index() { return current->index; }
uint3 block_index() { return current->block->index; }
uint3 block_extent() {
  const dim3 b = active->shape.block;
  return {b.x, b.y, b.z};
}
uint3 grid_extent() {
  const dim3 g = active->shape.grid;
  return {g.x, g.y, g.z};
}
unsigned cluster_block_rank() { return current->block->rank; }
unsigned cluster_blocks() { return active->shape.cluster; }

}  // namespace simt
