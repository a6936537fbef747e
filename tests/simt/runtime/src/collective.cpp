// Barriers, shuffles and votes.
#include <algorithm>

#include "machine.hpp"
#include "traffic.hpp"

namespace simt {

namespace {

const char* const barrier_names[] = {"__syncthreads", "__syncthreads_or", "__syncthreads_and",
                                     "__syncthreads_count"};
const char* const vote_names[] = {"__all_sync", "__any_sync", "__ballot_sync"};
const char* const shuffle_names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",
                                     "__shfl_xor_sync"};
const char* const warp_barrier_name = "__syncwarp";
const char* const cluster_barrier_name = "cluster_sync";

std::string hexadecimal(unsigned x) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", x);
  return text;
}

// Counts an arrival. All threads have to come to the same barrier of the source.
void arrive(Barrier& barrier, const Place& place, const char* scope, bool one_has_returned) {
  if (barrier.arrived == 0) {
    barrier.place = place;
  } else if (!(barrier.place == place)) {
    fail("divergent barrier: comes to " + where(place) + " while threads of its " + scope +
         " wait in " + where(barrier.place));
  }
  if (one_has_returned)
    fail(std::string("divergent barrier: comes to ") + where(place) + ", but a thread of its " +
         scope + " has returned");
  ++barrier.arrived;
  current->place = place;
}

void begin_epoch(Block& block) {
  new_epoch(block);
  for (Warp& warp : block.warps) {
    end_segment(warp);
    begin_segment(warp);
  }
}

}  // namespace

int detail::barrier(Reduce reduce, int predicate, const char* file, int line) {
  if (!current) fail("__syncthreads on the host");
  Thread& thread = *current;
  Block& block = *thread.block;
  Barrier& barrier = block.barrier;
  arrive(barrier, {barrier_names[static_cast<int>(reduce)], file, line}, "block", block.exited > 0);
  barrier.any |= predicate != 0;
  barrier.all &= predicate != 0;
  barrier.count += predicate != 0;
  if (barrier.arrived < block.size) {
    thread.state = State::at_barrier;
    give_way();
  } else {
    block.barrier_result = reduce == Reduce::count         ? barrier.count
                           : reduce == Reduce::conjunction ? barrier.all
                                                           : barrier.any;
    barrier = {};
    ++active->traffic.barriers;
    begin_epoch(block);
    for (unsigned n = 0; n < block.size; ++n) make_ready(block.threads[n]);
    thread.state = State::ready;
    give_way();
  }
  return block.barrier_result;
}

void detail::cluster_barrier(const char* file, int line) {
  Launch& launch = *active;
  Cluster& cluster = launch.cluster;
  unsigned exited = 0;
  for (const Block& block : cluster.blocks) exited += block.exited;
  for (const Block& block : cluster.blocks)
    if (block.barrier.arrived > 0 && &block == current->block)
      fail("divergent barrier: comes to " + where({cluster_barrier_name, file, line}) +
           " while threads of its block wait in " + where(block.barrier.place));
  arrive(cluster.barrier, {cluster_barrier_name, file, line}, "cluster", exited > 0);
  if (cluster.barrier.arrived < cluster.threads.size()) {
    current->state = State::at_cluster_barrier;
    give_way();
    return;
  }
  cluster.barrier = {};
  ++launch.traffic.cluster_barriers;
  cluster.synced = 0;
  for (Block& block : cluster.blocks) {
    begin_epoch(block);
    if (!cluster.synced) cluster.synced = block.epoch;
    block.read_remotely = false;
  }
  for (Thread& thread : cluster.threads) make_ready(thread);
  give_way();
}

namespace {

// The operation that the lane takes part in, or a new one.
WarpOperation& join(const Place& place, unsigned mask, int kind, int width) {
  Thread& thread = *current;
  Warp& warp = *thread.warp;
  if (!(mask >> thread.lane & 1))
    fail("mask: calls " + where(place) + " with mask " + hexadecimal(mask) +
         ", which does not have its own lane");
  if (mask & ~warp.existing)
    fail("mask: " + where(place) + " with mask " + hexadecimal(mask) + " names lanes " +
         hexadecimal(mask & ~warp.existing) + ", which do not exist in this block");
  if (mask & warp.exited)
    fail("mask: " + where(place) + " with mask " + hexadecimal(mask) + " names lanes " +
         hexadecimal(mask & warp.exited) + ", which have returned");
  for (WarpOperation& pending : warp.pending) {
    if (!(pending.mask & mask)) continue;
    if (!(pending.place == place))
      fail("divergence: comes to " + where(place) + " while lanes of its warp wait for it in " +
           where(pending.place));
    if (pending.mask != mask)
      fail("mask: calls " + where(place) + " with mask " + hexadecimal(mask) +
           ", another lane with mask " + hexadecimal(pending.mask));
    if (pending.width != width)
      fail("width: calls " + where(place) + " with width " + number(width) +
           ", another lane with width " + number(pending.width));
    return pending;
  }
  WarpOperation operation;
  operation.place = place;
  operation.mask = mask;
  operation.kind = kind;
  operation.width = width;
  warp.pending.push_back(operation);
  return warp.pending.back();
}

// Where a lane of a shuffle reads; a lane that would read outside its segment reads itself.
int source_lane(Shuffle kind, int lane, int argument, int width) {
  const int first = lane & ~(width - 1), last = lane | (width - 1);
  int source = lane;
  switch (kind) {
    case Shuffle::index: return first + (argument & (width - 1));
    case Shuffle::up: source = lane - argument; break;
    case Shuffle::down: source = lane + argument; break;
    case Shuffle::exclusive_or: return (lane ^ argument) > last ? lane : lane ^ argument;
  }
  return source < first || source > last ? lane : source;
}

void finish_shuffle(const WarpOperation& operation, Warp& warp) {
  for (unsigned lane = 0; lane < warp_lanes; ++lane) {
    if (!(operation.mask >> lane & 1)) continue;
    const int source = source_lane(static_cast<Shuffle>(operation.kind), static_cast<int>(lane),
                                   operation.arguments[lane], operation.width);
    if (source < 0 || !(operation.mask >> source & 1))
      fail_at(warp.threads[lane], "inactive lane: " + where(operation.place) + " reads lane " +
                                      std::to_string(source) + ", which is not in mask " +
                                      hexadecimal(operation.mask));
    warp.threads[lane].result = operation.values[source];
  }
  ++active->traffic.shuffles;
}

void finish_vote(const WarpOperation& operation, Warp& warp) {
  unsigned ballot = 0;
  for (unsigned lane = 0; lane < warp_lanes; ++lane)
    if (operation.mask >> lane & 1 && operation.values[lane]) ballot |= 1u << lane;
  const Vote vote = static_cast<Vote>(operation.kind);
  const unsigned result = vote == Vote::ballot ? ballot
                          : vote == Vote::any  ? ballot != 0
                                               : ballot == operation.mask;
  for (unsigned lane = 0; lane < warp_lanes; ++lane)
    if (operation.mask >> lane & 1) warp.threads[lane].result = result;
  ++active->traffic.shuffles;
}

// Everything that any of the lanes did or knew of happened before what they do from now on.
void finish_warp_barrier(const WarpOperation& operation, Warp& warp) {
  std::uint32_t joined[warp_lanes] = {};
  warp.clocks_used = true;
  for (unsigned lane = 0; lane < warp_lanes; ++lane) {
    if (!(operation.mask >> lane & 1)) continue;
    warp.known[lane][lane] = warp.threads[lane].clock++;
    for (unsigned j = 0; j < warp_lanes; ++j) joined[j] = std::max(joined[j], warp.known[lane][j]);
  }
  for (unsigned lane = 0; lane < warp_lanes; ++lane)
    if (operation.mask >> lane & 1) std::copy_n(joined, warp_lanes, warp.known[lane]);
  ++active->traffic.warp_barriers;
}

// Waits until every lane of the mask is here; the last one finishes the operation for all.
template <class Finish>
std::uint64_t operate(const Place& place, unsigned mask, int kind, int width, std::uint64_t value,
                      int argument, Finish finish) {
  if (!current) fail(std::string(place.operation) + " on the host");
  Thread& thread = *current;
  Warp& warp = *thread.warp;
  WarpOperation& operation = join(place, mask, kind, width);
  operation.arrived |= 1u << thread.lane;
  operation.values[thread.lane] = value;
  operation.arguments[thread.lane] = argument;
  if (operation.arrived != operation.mask) {
    thread.place = place;
    thread.state = State::at_warp_operation;
    give_way();
    return thread.result;
  }
  const WarpOperation complete = operation;
  warp.pending.erase(warp.pending.begin() + (&operation - warp.pending.data()));
  finish(complete, warp);
  if (complete.mask == warp.existing) {
    end_segment(warp);
    begin_segment(warp);
  }
  for (unsigned lane = 0; lane < warp_lanes; ++lane)
    if (complete.mask >> lane & 1) make_ready(warp.threads[lane]);
  give_way();
  return thread.result;
}

}  // namespace

void detail::warp_barrier(unsigned mask, const char* file, int line) {
  operate({warp_barrier_name, file, line}, mask, 0, warp_lanes, 0, 0, finish_warp_barrier);
}

unsigned detail::vote(Vote vote, unsigned mask, int predicate, const char* file, int line) {
  return static_cast<unsigned>(operate({vote_names[static_cast<int>(vote)], file, line}, mask,
                                       static_cast<int>(vote), warp_lanes, predicate != 0, 0,
                                       finish_vote));
}

std::uint64_t detail::shuffle(Shuffle shuffle, unsigned mask, std::uint64_t value, int argument,
                              int width, const char* file, int line) {
  const Place place{shuffle_names[static_cast<int>(shuffle)], file, line};
  if (width < 1 || width > 32 || (width & (width - 1)))
    fail("width: " + where(place) + " with width " + std::to_string(width) +
         "; it is a power of two up to 32");
  return operate(place, mask, static_cast<int>(shuffle), width, value, argument, finish_shuffle);
}

void detail::fence() {
  Thread& thread = *current;
  thread.fenced = thread.block->epoch;
  ++thread.block->fences;
}

void detail::trap() { fail("__trap"); }

}  // namespace simt
