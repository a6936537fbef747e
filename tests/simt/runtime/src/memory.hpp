// Where memory lies. Device allocations are in one reserved range of addresses, shared memory of
// the blocks of a cluster in another; beside each runs bookkeeping: who touched a word, and which
// bytes were ever written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "machine.hpp"

namespace simt {

// Who touched a 4-byte word last (see race.hpp). An epoch of 0 is nobody.
struct Record {
  std::uint32_t write_epoch, write_meta, write_site;
  std::uint32_t read_epoch, read_meta, read_site;
};

// One bit per byte.
class Bits {
 public:
  Bits() = default;
  explicit Bits(std::uint8_t* bits) : bits_(bits) {}
  // Bits [at, at + n), n <= 16, as the low bits of the result.
  std::uint32_t get(std::size_t at, unsigned n) const {
    std::uint32_t window;
    __builtin_memcpy(&window, bits_ + (at >> 3), sizeof window);
    return window >> (at & 7) & ((1u << n) - 1);
  }
  void set(std::size_t at, unsigned n) {
    std::uint32_t window;
    __builtin_memcpy(&window, bits_ + (at >> 3), sizeof window);
    window |= ((1u << n) - 1) << (at & 7);
    __builtin_memcpy(bits_ + (at >> 3), &window, sizeof window);
  }
  void fill(std::size_t at, std::size_t n, bool value);
  bool all(std::size_t at, std::size_t n) const;
  std::uint8_t* data() const { return bits_; }
  static std::size_t bytes(std::size_t bits) { return bits / 8 + 8; }

 private:
  std::uint8_t* bits_ = nullptr;
};

// ---- Device memory ----

struct Allocation {
  std::uintptr_t begin = 0, end = 0;
  std::uintptr_t origin = 0;  // multiple of 256 at or before begin; index 0 of what follows
  std::string name;
  Bits written;
  Record* records = nullptr;             // [word]
  std::uint32_t* read_stamps = nullptr;  // [sector] launch that touched it last
  std::uint32_t* write_stamps = nullptr;
  GlobalTraffic reads, writes;  // of the running launch
  bool zeros = false;           // all of it counts as written
  std::size_t first_page = 0, pages = 0;
  void* bookkeeping = nullptr;
  std::size_t bookkeeping_bytes = 0;
};

constexpr std::size_t device_space_bytes = std::size_t{1} << 38;
constexpr unsigned device_page_shift = 16;
extern std::uintptr_t device_space;
extern std::uint32_t* device_pages;  // [page] index of the allocation, 0 for none
extern std::vector<Allocation*> device_allocations;

inline bool is_device(std::uintptr_t address) {
  return address - device_space < device_space_bytes && device_space;
}
inline Allocation* allocation_at(std::uintptr_t address) {
  return device_allocations[device_pages[(address - device_space) >> device_page_shift]];
}
// Of a page without one, the nearest; for messages.
std::string describe_outside(std::uintptr_t address);

// ---- Shared memory ----

struct SharedArray {
  const void* key;  // null: the dynamic buffer
  std::string name;
  std::size_t offset, bytes;
};

constexpr std::size_t arena_bytes = std::size_t{1} << 20;
constexpr std::size_t shared_space_bytes = max_cluster * arena_bytes;
extern std::uintptr_t shared_space;
extern Record* shared_records;  // [word]
extern Bits shared_valid, shared_written;

inline bool is_shared(std::uintptr_t address) {
  return address - shared_space < shared_space_bytes && shared_space;
}
void begin_shared(const LaunchShape& shape);
void start_shared(unsigned rank);  // a block starts: its shared memory is unwritten
void end_shared();
std::string describe_shared(std::uintptr_t address);
void request_shared(const void* kernel, std::uint32_t bytes);  // cudaFuncSetAttribute

}  // namespace simt
