// Races by happens-before. Two accesses to the same bytes, one of them a write, are ordered if a
// barrier of the block, a cluster barrier, a __syncwarp of lanes of one warp, or fence and atomic
// (the last-block-done pattern) lies between. If not, they race, whatever order they came in.
//
// A record keeps the last write and the last read of a word. When several threads read without
// order, it keeps whom to ask instead: a warp, the block, or the whole launch.
#pragma once

#include "memory.hpp"

namespace simt {

enum class Access : std::uint8_t { read, write, atomic };

// Of `read_meta`: who read. Of `write_meta`: one by a plain write, or atomically (one thread, the
// block, the launch).
enum : std::uint32_t { kind_one = 0, kind_warp = 1, kind_block = 2, kind_launch = 3 };
enum : std::uint32_t {
  kind_plain = 0,
  kind_atomic = 1,
  kind_atomic_block = 2,
  kind_atomic_launch = 3
};
constexpr std::uint32_t split_epoch = 0xffffffffu;  // bytes have records of their own
constexpr std::uint32_t thread_bits = 10, clock_bits = 20;

struct Toucher {
  const Thread& thread;
  std::uint32_t epoch;
  std::uint32_t meta;  // thread and clock, kind 0
  std::uint32_t site;
  std::uint32_t floor;  // records of earlier epochs are of other launches (or clusters): forgotten
  std::uintptr_t address;
};

void read_after_write(const Record& record, const Toucher& me);
void merge_read(Record& record, const Toucher& me);
void touch_split(Record& record, const Toucher& me, unsigned first, unsigned count, Access access);
void write_after(const Record& record, const Toucher& me, bool atomic);
void note_atomic(Record& record, const Toucher& me);
void reset_splits();

inline void touch_word(Record& record, const Toucher& me, Access access) {
  if (record.write_epoch == split_epoch) return touch_split(record, me, 0, 4, access);
  if (access == Access::read) {
    if (record.write_epoch >= me.floor) read_after_write(record, me);
    if (record.read_epoch < me.floor ||
        (record.read_epoch == me.epoch && record.read_meta == me.meta)) {
      record.read_epoch = me.epoch;
      record.read_meta = me.meta;
      record.read_site = me.site;
    } else {
      merge_read(record, me);
    }
    return;
  }
  const bool atomic = access == Access::atomic;
  if (record.write_epoch >= me.floor || record.read_epoch >= me.floor)
    write_after(record, me, atomic);
  if (atomic) return note_atomic(record, me);
  record.write_epoch = me.epoch;
  record.write_meta = me.meta;
  record.write_site = me.site;
  record.read_epoch = 0;  // ordered before this write
}

// `n` bytes at byte `offset` of what `records` describes.
inline void touch_records(Record* records, std::size_t offset, unsigned n, const Toucher& me,
                          Access access) {
  if (((offset | n) & 3) == 0) {
    for (std::size_t word = offset / 4; word < (offset + n) / 4; ++word)
      touch_word(records[word], me, access);
    return;
  }
  while (n > 0) {
    const unsigned first = offset & 3, count = n < 4 - first ? n : 4 - first;
    if (count == 4)
      touch_word(records[offset / 4], me, access);
    else
      touch_split(records[offset / 4], me, first, count, access);
    offset += count;
    n -= count;
  }
}

}  // namespace simt
