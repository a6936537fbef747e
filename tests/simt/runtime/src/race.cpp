#include "race.hpp"

#include <algorithm>
#include <vector>

#include "traffic.hpp"

namespace simt {

namespace {

constexpr std::uint32_t thread_mask = (1u << thread_bits) - 1;
constexpr std::uint32_t clock_mask = (1u << clock_bits) - 1;
constexpr std::uint32_t warp_clock_bits = 17;

std::uint32_t kind_of(std::uint32_t meta) { return meta >> 30; }
std::uint32_t thread_of(std::uint32_t meta) { return meta & thread_mask; }
std::uint32_t clock_of(std::uint32_t meta) { return meta >> thread_bits & clock_mask; }

// Several lanes of a warp: the warp, which groups of four lanes, the latest clock of them.
std::uint32_t warp_meta(std::uint32_t warp, std::uint32_t quads, std::uint32_t clock) {
  return kind_warp << 30 | clock << 13 | quads << 5 | warp;
}
std::uint32_t warp_of(std::uint32_t meta) { return meta & 31; }
std::uint32_t quads_of(std::uint32_t meta) { return meta >> 5 & 255; }
std::uint32_t warp_clock_of(std::uint32_t meta) {
  return meta >> 13 & ((1u << warp_clock_bits) - 1);
}
std::uint32_t quad_of(std::uint32_t lane) { return 1u << lane / 4; }

std::uint32_t owner_of(std::uint32_t epoch) {
  return active->epoch_owner[epoch - active->first_epoch];
}

constexpr std::uint32_t any_thread = ~0u;

// Blocks of the running cluster started one after the other.
bool in_cluster(const Block& mine, std::uint32_t owner) {
  return owner - (mine.ordinal - mine.rank) < active->shape.cluster;
}

// Another block's accesses of that epoch, by one thread or any, happened before.
bool block_ordered(const Block& mine, std::uint32_t owner, std::uint32_t epoch,
                   std::uint32_t thread) {
  if (in_cluster(mine, owner) && epoch < active->cluster.synced) return true;
  for (const Released& r : mine.acquired)
    if (r.owner == owner && (epoch < r.before || (epoch == r.before && thread == r.thread)))
      return true;
  return false;
}

bool lane_ordered(const Thread& me, std::uint32_t lane, std::uint32_t clock) {
  return lane == me.lane || me.warp->known[me.lane][lane] >= clock;
}

// All accesses of that epoch, by whichever thread.
bool epoch_ordered(const Thread& me, std::uint32_t epoch, std::uint32_t thread = any_thread) {
  if (epoch == me.block->epoch) return false;
  const std::uint32_t owner = owner_of(epoch);
  return owner == me.block->ordinal || block_ordered(*me.block, owner, epoch, thread);
}

bool one_ordered(const Thread& me, std::uint32_t epoch, std::uint32_t meta) {
  const std::uint32_t thread = thread_of(meta);
  if (epoch != me.block->epoch) return epoch_ordered(me, epoch, thread);
  if (thread == me.number) return true;
  return thread / warp_lanes == me.warp->number &&
         lane_ordered(me, thread % warp_lanes, clock_of(meta));
}

bool warp_ordered(const Thread& me, std::uint32_t epoch, std::uint32_t meta) {
  if (epoch != me.block->epoch) return epoch_ordered(me, epoch);
  if (warp_of(meta) != me.warp->number) return false;
  for (std::uint32_t lane = 0; lane < warp_lanes; ++lane)
    if (quads_of(meta) & quad_of(lane) && me.warp->existing >> lane & 1 &&
        !lane_ordered(me, lane, warp_clock_of(meta)))
      return false;
  return true;
}

// Accesses by several blocks, the latest in `epoch`: a cluster barrier orders those of one cluster.
constexpr std::uint32_t cluster_only = 1;
bool blocks_ordered(const Thread& me, std::uint32_t epoch, std::uint32_t meta) {
  return meta & cluster_only && in_cluster(*me.block, owner_of(epoch)) &&
         epoch < active->cluster.synced;
}

bool write_ordered(const Record& r, const Thread& me) {
  switch (kind_of(r.write_meta)) {
    case kind_plain:
    case kind_atomic: return one_ordered(me, r.write_epoch, r.write_meta);
    case kind_atomic_block: return epoch_ordered(me, r.write_epoch);
    default:
      return blocks_ordered(me, r.write_epoch, r.write_meta) ||
             (!me.block->acquired.empty() && me.fenced > 0);
  }
}

bool read_ordered(const Record& r, const Thread& me) {
  switch (kind_of(r.read_meta)) {
    case kind_one: return one_ordered(me, r.read_epoch, r.read_meta);
    case kind_warp: return warp_ordered(me, r.read_epoch, r.read_meta);
    case kind_block: return epoch_ordered(me, r.read_epoch);
    default: return blocks_ordered(me, r.read_epoch, r.read_meta);
  }
}

std::string other(std::uint32_t epoch, std::uint32_t meta, bool names_thread, std::uint32_t site) {
  const std::uint32_t owner = owner_of(epoch);
  const bool same = owner == current->block->ordinal;
  std::string text;
  if (names_thread)
    text = "thread " + number(thread_of(meta)) + " of ";
  else
    text = "threads of ";
  text += same ? "the same block" : "block " + number(active->block_linear[owner]);
  const std::string line = site_line(site);
  return line.empty() ? text : text + " at " + line;
}

[[noreturn]] void race(const Toucher& me, const char* verb, const char* other_verb,
                       const std::string& who, std::uint32_t epoch) {
  const bool shared = is_shared(me.address);
  const bool same = owner_of(epoch) == current->block->ordinal;
  std::string where = shared ? describe_shared(me.address) : describe_outside(me.address);
  fail(std::string("race on ") + (shared ? "shared" : "global") + " memory" +
           (same ? "" : " between blocks") + ": " + verb + " " + where + ", which was " +
           other_verb + " by " + who + "; nothing orders the two",
       site_code(me.site));
}

struct Split {
  Record* word;
  Record bytes[4];
};
std::vector<Split> splits;

}  // namespace

void read_after_write(const Record& r, const Toucher& me) {
  if (write_ordered(r, me.thread)) return;
  race(me, "reads", kind_of(r.write_meta) ? "changed atomically" : "written",
       other(r.write_epoch, r.write_meta, kind_of(r.write_meta) <= kind_atomic, r.write_site),
       r.write_epoch);
}

void write_after(const Record& r, const Toucher& me, bool atomic) {
  const char* verb = atomic ? "atomically changes" : "writes";
  const bool both_atomic = atomic && kind_of(r.write_meta) != kind_plain;
  if (r.write_epoch >= me.floor && !both_atomic && !write_ordered(r, me.thread))
    race(me, verb, kind_of(r.write_meta) ? "changed atomically" : "written",
         other(r.write_epoch, r.write_meta, kind_of(r.write_meta) <= kind_atomic, r.write_site),
         r.write_epoch);
  if (r.read_epoch >= me.floor && !read_ordered(r, me.thread))
    race(me, verb, "read",
         other(r.read_epoch, r.read_meta, kind_of(r.read_meta) == kind_one, r.read_site),
         r.read_epoch);
}

void note_atomic(Record& r, const Toucher& me) {
  std::uint32_t meta = me.meta | kind_atomic << 30, epoch = me.epoch;
  const std::uint32_t kind = kind_of(r.write_meta);
  if (r.write_epoch >= me.floor && kind != kind_plain && !write_ordered(r, me.thread)) {
    const Block& block = *me.thread.block;
    const std::uint32_t owner = owner_of(r.write_epoch);
    if (owner == block.ordinal && kind != kind_atomic_launch)
      meta = kind_atomic_block << 30;
    else
      meta =
          kind_atomic_launch << 30 |
          (in_cluster(block, owner) && (kind != kind_atomic_launch || r.write_meta & cluster_only));
    epoch = std::max(epoch, r.write_epoch);
  }
  r.write_epoch = epoch;
  r.write_meta = meta;
  r.write_site = me.site;
  r.read_epoch = 0;
}

void merge_read(Record& r, const Toucher& me) {
  const Thread& t = me.thread;
  const std::uint32_t kind = kind_of(r.read_meta);
  if (kind == kind_launch && !(r.read_meta & cluster_only)) return;
  auto become = [&](std::uint32_t meta) {
    const bool several = meta >> 30 == kind_launch;
    r.read_epoch = several ? std::max(r.read_epoch, me.epoch) : me.epoch;
    r.read_meta = meta;
    r.read_site = me.site;
  };
  if (r.read_epoch != me.epoch || kind == kind_launch) {
    const std::uint32_t owner = owner_of(r.read_epoch);
    const bool ordered =
        kind == kind_launch
            ? blocks_ordered(t, r.read_epoch, r.read_meta)
            : owner == t.block->ordinal ||
                  block_ordered(*t.block, owner, r.read_epoch,
                                kind == kind_one ? thread_of(r.read_meta) : any_thread);
    return become(ordered ? me.meta : kind_launch << 30 | in_cluster(*t.block, owner));
  }
  if (kind == kind_block) return;
  const std::uint32_t clock = clock_of(me.meta);
  const std::uint32_t quad = quad_of(t.lane);
  if (kind == kind_warp) {
    if (warp_of(r.read_meta) != t.warp->number || clock >> warp_clock_bits)
      return become(me.meta | kind_block << 30);
    return become(warp_meta(t.warp->number, quads_of(r.read_meta) | quad,
                            std::max(clock, warp_clock_of(r.read_meta))));
  }
  if (one_ordered(t, r.read_epoch, r.read_meta)) return become(me.meta);
  const std::uint32_t thread = thread_of(r.read_meta);
  const std::uint32_t later = std::max(clock, clock_of(r.read_meta));
  if (thread / warp_lanes != t.warp->number || later >> warp_clock_bits)
    return become(me.meta | kind_block << 30);
  become(warp_meta(t.warp->number, quad | quad_of(thread % warp_lanes), later));
}

void touch_split(Record& r, const Toucher& me, unsigned first, unsigned count, Access access) {
  if (r.write_epoch != split_epoch) {
    splits.push_back({&r, {r, r, r, r}});
    r.write_epoch = split_epoch;
    r.write_meta = static_cast<std::uint32_t>(splits.size() - 1);
  }
  Record* bytes = splits[r.write_meta].bytes;
  for (unsigned byte = first; byte < first + count; ++byte) touch_word(bytes[byte], me, access);
}

void reset_splits() {
  for (const Split& split : splits) *split.word = {};
  splits.clear();
}

}  // namespace simt
