#include "traffic.hpp"

#include <algorithm>
#include <vector>

namespace simt {

namespace {

struct Visit {
  std::uint32_t segment, count;
};

struct Request {
  unsigned mask = 0;
  unsigned bytes = 0;
  std::uintptr_t addresses[warp_lanes];
};

struct WarpRequests {
  std::uint32_t segment = 0;
  std::vector<Request> requests;
};

struct Site {
  const void* code;
  Access access;
  bool shared;
  std::vector<Visit> visits;                                        // [thread of the cluster]
  std::vector<WarpRequests> warps;                                  // [warp of the cluster]
  std::uint64_t requests = 0, bytes = 0, moved = 0, conflicts = 0;  // moved: sectors or wavefronts
};

// More requests than this in one segment are not grouped any more; it bounds memory.
constexpr std::uint32_t max_requests = 1 << 16;

constexpr std::size_t max_history = 1 << 16;

std::vector<Site> sites;
std::uint32_t next_segment = 1;
std::uint32_t stamp = 0;  // of the launch
std::vector<Traffic> history;

struct Slot {
  std::uintptr_t key;
  std::uint32_t site, stamp;
};
std::vector<Slot> slots(1024);

std::uint32_t add_site(std::uintptr_t key, std::size_t slot, Access access, bool shared,
                       const void* code) {
  Site site{code, access, shared, {}, {}};
  const Cluster& cluster = active->cluster;
  site.visits.resize(cluster.threads.size());
  site.warps.resize(cluster.blocks.size() * cluster.blocks[0].warps.size());
  slots[slot] = {key, static_cast<std::uint32_t>(sites.size()), stamp};
  sites.push_back(std::move(site));
  if (2 * sites.size() > slots.size()) {
    std::vector<Slot> old(2 * slots.size());
    old.swap(slots);
    for (const Slot& s : old) {
      if (s.stamp != stamp) continue;
      std::size_t at = s.key * 0x9e3779b97f4a7c15u >> 32 & (slots.size() - 1);
      while (slots[at].stamp == stamp) at = (at + 1) & (slots.size() - 1);
      slots[at] = s;
    }
  }
  return static_cast<std::uint32_t>(sites.size() - 1);
}

std::uint32_t find_site(Access access, bool shared, const void* code) {
  const std::uintptr_t key = reinterpret_cast<std::uintptr_t>(code) << 1 | shared;
  std::size_t at = key * 0x9e3779b97f4a7c15u >> 32 & (slots.size() - 1);
  while (slots[at].stamp == stamp) {
    if (slots[at].key == key) return slots[at].site;
    at = (at + 1) & (slots.size() - 1);
  }
  return add_site(key, at, access, shared, code);
}

void count_global(Site& site, const Request& request) {
  std::uintptr_t distinct[2 * warp_lanes];
  unsigned count = 0;
  Allocation* allocation = nullptr;
  const bool reads = site.access == Access::read;
  GlobalTraffic* traffic = nullptr;
  for (unsigned lane = 0; lane < warp_lanes; ++lane) {
    if (!(request.mask >> lane & 1)) continue;
    const std::uintptr_t address = request.addresses[lane];
    if (!allocation || address < allocation->begin || address >= allocation->end) {
      allocation = allocation_at(address);
      traffic = reads ? &allocation->reads : &allocation->writes;
      ++traffic->requests;
    }
    traffic->bytes += request.bytes;
    for (std::uintptr_t sector = address / 32; sector <= (address + request.bytes - 1) / 32;
         ++sector) {
      if (std::find(distinct, distinct + count, sector) != distinct + count) continue;
      distinct[count++] = sector;
      ++traffic->sectors;
      std::uint32_t* stamps = reads ? allocation->read_stamps : allocation->write_stamps;
      std::uint32_t& last = stamps[sector - allocation->origin / 32];
      if (last != stamp) ++traffic->unique_sectors;
      last = stamp;
    }
  }
  site.moved += count;
}

// A request takes as many wavefronts as the busiest bank has different words; accesses of 8 and 16
// bytes go by half and quarter warps.
void count_shared(Site& site, const Request& request) {
  const unsigned parts = request.bytes <= 4 ? 1 : request.bytes <= 8 ? 2 : 4;
  const unsigned lanes = warp_lanes / parts;
  unsigned wavefronts = 0, needed = 0;
  for (unsigned part = 0; part < parts; ++part) {
    std::uintptr_t words[warp_lanes * 2];
    unsigned count = 0, per_bank[32] = {}, busiest = 0;
    for (unsigned lane = part * lanes; lane < (part + 1) * lanes; ++lane) {
      if (!(request.mask >> lane & 1)) continue;
      const std::uintptr_t address = request.addresses[lane];
      for (std::uintptr_t word = address / 4; word <= (address + request.bytes - 1) / 4; ++word) {
        if (std::find(words, words + count, word) != words + count) continue;
        words[count++] = word;
        busiest = std::max(busiest, ++per_bank[word % 32]);
      }
    }
    wavefronts += busiest;
    needed += busiest > 0;
  }
  Traffic& total = active->traffic;
  SharedTraffic& traffic = site.access == Access::read ? total.shared_reads : total.shared_writes;
  ++traffic.requests;
  traffic.wavefronts += wavefronts;
  traffic.conflicts += wavefronts - needed;
  site.moved += wavefronts;
  site.conflicts += wavefronts - needed;
}

void finish(Site& site, Request& request) {
  if (!request.mask) return;
  ++site.requests;
  site.bytes += static_cast<std::uint64_t>(__builtin_popcount(request.mask)) * request.bytes;
  if (site.shared)
    count_shared(site, request);
  else
    count_global(site, request);
  request.mask = 0;
}

}  // namespace

void begin_traffic() {
  sites.clear();
  ++stamp;
  for (Allocation* a : device_allocations)
    if (a) a->reads = a->writes = {};
}

void end_traffic() {
  Traffic& traffic = active->traffic;
  traffic.kernel = function_name(active->kernel);
  traffic.launches = 1;
  traffic.blocks = active->started;
  const dim3 b = active->shape.block;
  traffic.threads = traffic.blocks * b.x * b.y * b.z;
  auto add = [](GlobalTraffic& sum, const GlobalTraffic& more) {
    sum.requests += more.requests;
    sum.bytes += more.bytes;
    sum.sectors += more.sectors;
    sum.unique_sectors += more.unique_sectors;
  };
  for (const Allocation* a : device_allocations) {
    if (!a) continue;
    if (a->reads.requests) add(traffic.reads[a->name], a->reads);
    if (a->writes.requests) add(traffic.writes[a->name], a->writes);
  }
  if (history.size() >= max_history)
    history.erase(history.begin(), history.end() - max_history / 2);
  history.push_back(traffic);
}

void begin_segment(Warp& warp) {
  warp.segment = next_segment++;
  warp.sites.clear();
}

void end_segment(Warp& warp) {
  for (std::uint32_t index : warp.sites)
    for (Request& request : sites[index].warps[warp.slot].requests) finish(sites[index], request);
  warp.sites.clear();
}

std::uint32_t count_access(const Thread& thread, std::uintptr_t address, unsigned bytes,
                           Access access, bool shared, const void* code) {
  const std::uint32_t index = find_site(access, shared, code);
  if (access == Access::atomic) {
    ++(shared ? active->traffic.shared_atomics : active->traffic.global_atomics);
    return index;
  }
  Site& site = sites[index];
  Warp& warp = *thread.warp;
  Visit& visit = site.visits[thread.slot];
  if (visit.segment != warp.segment) visit = {warp.segment, 0};
  const std::uint32_t nth = visit.count++;
  WarpRequests& own = site.warps[warp.slot];
  if (own.segment != warp.segment) {
    own.segment = warp.segment;
    own.requests.clear();
    warp.sites.push_back(index);
  }
  if (nth >= max_requests) {
    Request single;
    single.mask = 1u << thread.lane;
    single.bytes = bytes;
    single.addresses[thread.lane] = address;
    finish(site, single);
    return index;
  }
  while (nth >= own.requests.size()) own.requests.emplace_back();
  Request& request = own.requests[nth];
  request.mask |= 1u << thread.lane;
  request.bytes = bytes;
  request.addresses[thread.lane] = address;
  if (request.mask == warp.existing) finish(site, request);
  return index;
}

const void* site_code(std::uint32_t site) {
  return site < sites.size() ? sites[site].code : nullptr;
}

std::string site_line(std::uint32_t site) {
  return site < sites.size() ? source_line(sites[site].code) : "";
}

// ---- Reports ----

const std::vector<Traffic>& launches() { return history; }
void clear_launches() { history.clear(); }

Traffic total() {
  Traffic sum;
  for (const Traffic& traffic : history) sum += traffic;
  return sum;
}

std::string hot_lines(std::size_t lines) {
  std::vector<const Site*> order;
  for (const Site& site : sites) order.push_back(&site);
  std::sort(order.begin(), order.end(),
            [](const Site* a, const Site* b) { return a->moved > b->moved; });
  std::string text = "   requests     bytes     moved  conflicts\n";
  for (std::size_t i = 0; i < std::min(lines, order.size()); ++i) {
    const Site& s = *order[i];
    char line[160];
    std::snprintf(
        line, sizeof line, "%11llu %9llu %9llu %10llu  %s %s of %s memory (%s)\n",
        static_cast<unsigned long long>(s.requests), static_cast<unsigned long long>(s.bytes),
        static_cast<unsigned long long>(s.moved), static_cast<unsigned long long>(s.conflicts),
        source_line(s.code).c_str(), s.access == Access::read ? "read" : "write",
        s.shared ? "shared" : "global", s.shared ? "wavefronts" : "sectors");
    text += line;
  }
  return text;
}

}  // namespace simt
