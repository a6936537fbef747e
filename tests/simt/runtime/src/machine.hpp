// The state of a running launch: cluster, blocks, warps, threads. One launch runs at a time, on
// one OS thread; only one cluster of it is alive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "fiber.hpp"
#include "simt/simt.hpp"

namespace simt {

using detail::Reduce;
using detail::Shuffle;
using detail::Vote;

constexpr unsigned warp_lanes = 32;
constexpr unsigned max_cluster = 8;
constexpr unsigned max_block = 1024;

// A barrier, shuffle or vote in the source.
struct Place {
  const char* operation = nullptr;
  const char* file = nullptr;
  int line = 0;

  bool operator==(const Place& o) const {
    return line == o.line && operation == o.operation &&
           (file == o.file || (file && o.file && !std::strcmp(file, o.file)));
  }
};

struct Block;
struct Warp;

enum class State : std::uint8_t {
  ready,
  at_barrier,
  at_cluster_barrier,
  at_warp_operation,
  exited
};

struct Thread {
  std::uintptr_t stack_low = 0;  // first: compared at every access
  Block* block = nullptr;
  Warp* warp = nullptr;
  std::uint32_t number = 0;  // in its block
  std::uint32_t lane = 0;
  std::uint32_t slot = 0;    // in its cluster
  std::uint32_t clock = 1;   // __syncwarps so far, plus one
  std::uint32_t fenced = 0;  // epoch of its last __threadfence
  State state = State::ready;
  uint3 index{};
  Place place;               // where it waits
  std::uint64_t result = 0;  // of the shuffle or vote it waited for
  Context context;
};

// A warp-wide operation that waits for lanes.
struct WarpOperation {
  Place place;
  unsigned mask = 0, arrived = 0;
  int kind = 0, width = warp_lanes;
  std::uint64_t values[warp_lanes];
  int arguments[warp_lanes];
};

struct Warp {
  Block* block = nullptr;
  std::uint32_t number = 0;  // in its block
  std::uint32_t slot = 0;    // in its cluster
  Thread* threads = nullptr;
  unsigned existing = 0, exited = 0;  // lanes
  std::vector<WarpOperation> pending;
  // known[l][j]: accesses of lane j with a clock up to this happened before what lane l does now.
  std::uint32_t known[warp_lanes][warp_lanes];
  bool clocks_used = false;
  // Traffic: requests are grouped within a segment, from one synchronisation to the next.
  std::uint32_t segment = 0;
  std::vector<std::uint32_t> sites;  // used in this segment
};

struct Barrier {
  Place place;
  unsigned arrived = 0;
  int any = 0, all = 1, count = 0;
};

// The last-block-done pattern: what a block did before a fence and an atomic is ordered before what
// a block does that saw the atomic.
struct Released {
  std::uint32_t owner = 0;   // ordinal of the block
  std::uint32_t before = 0;  // all its threads did in earlier epochs ...
  std::uint32_t thread = 0;  // ... and this one in that epoch
};

struct Block {
  uint3 index{};
  unsigned rank = 0;          // in its cluster
  std::uint32_t ordinal = 0;  // in the order of starting
  std::uint32_t epoch = 0;    // a new one after every barrier; unique among all blocks and launches
  std::uint32_t first_epoch = 0;
  Thread* threads = nullptr;
  std::vector<Warp> warps;
  unsigned size = 0, exited = 0;
  Barrier barrier;
  int barrier_result = 0;
  bool read_remotely = false;  // since the last cluster barrier
  std::vector<Released> acquired;
  std::uint32_t fences = 0;
};

struct Cluster {
  std::vector<Block> blocks;
  std::vector<Thread> threads;
  Barrier barrier;
  std::uint32_t first_epoch = 0;
  std::uint32_t synced = 0;  // epochs before this happened before; 0: no cluster barrier yet
};

struct Launch {
  const void* kernel = nullptr;
  LaunchShape shape;
  void (*run)(const void*) = nullptr;
  const void* call = nullptr;
  std::uint64_t seed = 0, random = 0;
  std::uint32_t first_epoch = 0;
  std::uint32_t started = 0;                // blocks
  std::vector<std::uint32_t> epoch_owner;   // [epoch - first_epoch] ordinal of the block
  std::vector<std::uint64_t> block_linear;  // [ordinal] index in the grid
  Cluster cluster;
  std::vector<Thread*> ready;
  std::size_t ready_head = 0;
  Context host;
  Traffic traffic;
};

// The thread that runs; null on the host. Other OS threads see their own, hence null.
extern thread_local Thread* current __attribute__((tls_model("initial-exec")));
extern Launch* active;  // null between launches

// Held during a launch, and while memory is allocated, released or copied.
extern std::recursive_mutex device_mutex;

// Gives way to a ready thread, or back to the host if there is none. Returns when this one runs
// again.
void give_way();
void make_ready(Thread& thread);
std::uint64_t next_random();
std::uint32_t new_epoch(Block& block);

void throw_pending_failure();

std::string describe(const Block& block, const Thread& thread);
std::string where(const Place& place);

// ---- Faults ----

// Ends the launch: never returns to the kernel. On the host it throws Failure.
[[noreturn]] void fail(const std::string& message, const void* address_of_code = nullptr);
// The same for another thread than the running one.
[[noreturn]] void fail_at(const Thread& thread, const std::string& message,
                          const void* address_of_code = nullptr);
std::string source_line(const void* address_of_code);  // "file:line", or "" if unknown
std::string function_name(const void* function);
std::string number(std::uint64_t n);

// ---- Watchdog ----

extern volatile bool expired;  // set when the launch has run for too long
void start_watchdog(double seconds);
void stop_watchdog();
[[noreturn]] void fail_expired();

}  // namespace simt
