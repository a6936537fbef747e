// Device memory.
#include "memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "traffic.hpp"

namespace simt {

std::uintptr_t device_space = 0;
std::uint32_t* device_pages = nullptr;
std::vector<Allocation*> device_allocations{nullptr};

namespace {

constexpr std::size_t page_bytes = std::size_t{1} << device_page_shift;
constexpr std::size_t page_count = device_space_bytes / page_bytes;
std::size_t next_page = 1;
std::vector<std::uint32_t> free_slots;
std::size_t live = 0;

void* map(std::size_t bytes, int protection) {
  void* memory =
      mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return memory;
}

// Pages that are free, with as many free ones behind: what runs out of an array hits nothing.
std::size_t find_pages(std::size_t pages) {
  const std::size_t wanted = 2 * pages + 1;
  for (int wrapped = 0; wrapped < 2; ++wrapped) {
    std::size_t run = 0;
    for (std::size_t page = next_page; page < page_count; ++page) {
      run = device_pages[page] ? 0 : run + 1;
      if (run == wanted) {
        next_page = page + 1 - wanted + pages + 1 + pages;
        return page + 1 - wanted;
      }
    }
    next_page = 1;
  }
  throw std::bad_alloc();
}

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

Allocation& find(const void* pointer, const char* caller) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  Allocation* allocation = is_device(address) ? allocation_at(address) : nullptr;
  if (!allocation) fail(std::string(caller) + ": " + describe_outside(address));
  return *allocation;
}

void check_range(const Allocation& a, const void* pointer, std::size_t bytes, const char* caller) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  if (address < a.begin || address + bytes > a.end)
    fail(std::string("out of bounds: ") + caller + " of " + number(bytes) + " bytes, " +
         describe_outside(address));
}

}  // namespace

void Bits::fill(std::size_t at, std::size_t n, bool value) {
  auto one = [&](std::size_t bit) {
    if (value)
      bits_[bit >> 3] = static_cast<std::uint8_t>(bits_[bit >> 3] | 1u << (bit & 7));
    else
      bits_[bit >> 3] = static_cast<std::uint8_t>(bits_[bit >> 3] & ~(1u << (bit & 7)));
  };
  for (; n > 0 && at & 7; ++at, --n) one(at);
  std::memset(bits_ + (at >> 3), value ? 0xff : 0, n / 8);
  for (at += n / 8 * 8, n %= 8; n > 0; ++at, --n) one(at);
}

bool Bits::all(std::size_t at, std::size_t n) const {
  for (; n > 0 && at & 7; ++at, --n)
    if (!(bits_[at >> 3] >> (at & 7) & 1)) return false;
  for (; n >= 8; at += 8, n -= 8)
    if (bits_[at >> 3] != 0xff) return false;
  for (; n > 0; ++at, --n)
    if (!(bits_[at >> 3] >> (at & 7) & 1)) return false;
  return true;
}

namespace {

Allocation& make(std::size_t bytes, const std::string& name, std::size_t misalignment) {
  const std::lock_guard lock(device_mutex);
  if (!device_space) {
    device_space = reinterpret_cast<std::uintptr_t>(map(device_space_bytes, PROT_NONE));
    device_pages =
        static_cast<std::uint32_t*>(map(page_count * sizeof *device_pages, PROT_READ | PROT_WRITE));
  }
  auto* a = new Allocation;
  a->name = name;
  // 256 past the page: aligned as cudaMalloc promises, and no better.
  constexpr std::size_t lead = 256;
  a->pages = round_up(lead + misalignment + bytes + 1, page_bytes) / page_bytes;
  a->first_page = find_pages(a->pages);
  const std::uintptr_t page = device_space + a->first_page * page_bytes;
  if (mmap(reinterpret_cast<void*>(page), a->pages * page_bytes, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
    throw std::bad_alloc();
  a->begin = page + lead + misalignment;
  a->end = a->begin + bytes;
  a->origin = a->begin & ~std::uintptr_t{255};
  const std::size_t span = a->end - a->origin;
  const std::size_t record_bytes = (span / 4 + 8) * sizeof(Record);
  const std::size_t stamp_bytes = round_up((span / 32 + 2) * sizeof(std::uint32_t), 16);
  const std::size_t bit_bytes = round_up(Bits::bytes(span), 16);
  a->bookkeeping_bytes = record_bytes + 2 * stamp_bytes + bit_bytes;
  a->bookkeeping = map(a->bookkeeping_bytes, PROT_READ | PROT_WRITE);
  if (bytes >= std::size_t{1} << 20) madvise(a->bookkeeping, a->bookkeeping_bytes, MADV_HUGEPAGE);
  auto* at = static_cast<std::uint8_t*>(a->bookkeeping);
  a->records = reinterpret_cast<Record*>(at);
  a->read_stamps = reinterpret_cast<std::uint32_t*>(at += record_bytes);
  a->write_stamps = reinterpret_cast<std::uint32_t*>(at += stamp_bytes);
  a->written = Bits(at + stamp_bytes);
  std::uint32_t slot;
  if (free_slots.empty()) {
    slot = static_cast<std::uint32_t>(device_allocations.size());
    device_allocations.push_back(a);
  } else {
    slot = free_slots.back();
    free_slots.pop_back();
    device_allocations[slot] = a;
  }
  std::fill_n(device_pages + a->first_page, a->pages, slot);
  ++live;
  return *a;
}

}  // namespace

void* allocate(std::size_t bytes, const std::string& name, std::size_t misalignment) {
  return reinterpret_cast<void*>(make(bytes, name, misalignment).begin);
}

void* allocate_zeros(std::size_t bytes, const std::string& name) {
  Allocation& a = make(bytes, name, 0);
  a.zeros = true;
  return reinterpret_cast<void*>(a.begin);
}

void release(void* pointer) {
  if (!pointer) return;
  const std::lock_guard lock(device_mutex);
  Allocation& a = find(pointer, "release");
  const std::uintptr_t page = device_space + a.first_page * page_bytes;
  free_slots.push_back(device_pages[a.first_page]);
  device_allocations[free_slots.back()] = nullptr;
  std::fill_n(device_pages + a.first_page, a.pages, 0u);
  mmap(reinterpret_cast<void*>(page), a.pages * page_bytes, PROT_NONE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  munmap(a.bookkeeping, a.bookkeeping_bytes);
  delete &a;
  --live;
}

std::size_t allocations() { return live; }

void upload(void* device, const void* host, std::size_t bytes) {
  if (!bytes) return;
  const std::lock_guard lock(device_mutex);
  Allocation& a = find(device, "upload");
  check_range(a, device, bytes, "upload");
  std::memcpy(device, host, bytes);
  a.written.fill(reinterpret_cast<std::uintptr_t>(device) - a.origin, bytes, true);
}

void download(void* host, const void* device, std::size_t bytes) {
  if (!bytes) return;
  const std::lock_guard lock(device_mutex);
  const Allocation& a = find(device, "download");
  check_range(a, device, bytes, "download");
  const std::size_t at = reinterpret_cast<std::uintptr_t>(device) - a.origin;
  if (!a.zeros && !a.written.all(at, bytes)) {
    std::size_t first = 0;
    while (a.written.get(at + first, 1)) ++first;
    fail("unwritten memory: the host reads '" + a.name + "', whose byte " +
         number(reinterpret_cast<std::uintptr_t>(device) - a.begin + first) + " of " +
         number(a.end - a.begin) + " was never written");
  }
  std::memcpy(host, device, bytes);
}

void set(void* device, int value, std::size_t bytes) {
  if (!bytes) return;
  const std::lock_guard lock(device_mutex);
  Allocation& a = find(device, "memset");
  check_range(a, device, bytes, "memset");
  std::memset(device, value, bytes);
  a.written.fill(reinterpret_cast<std::uintptr_t>(device) - a.origin, bytes, true);
}

void forget(void* device, std::size_t bytes) {
  if (!bytes) return;
  const std::lock_guard lock(device_mutex);
  Allocation& a = find(device, "forget");
  check_range(a, device, bytes, "forget");
  a.zeros = false;
  a.written.fill(reinterpret_cast<std::uintptr_t>(device) - a.origin, bytes, false);
}

std::string describe_outside(std::uintptr_t address) {
  char text[32];
  std::snprintf(text, sizeof text, "%#zx", static_cast<std::size_t>(address));
  const Allocation* nearest = nullptr;
  std::uintptr_t distance = ~std::uintptr_t{0};
  for (const Allocation* a : device_allocations) {
    if (!a) continue;
    const std::uintptr_t away = address < a->begin  ? a->begin - address
                                : address >= a->end ? address - a->end
                                                    : 0;
    if (away < distance) {
      distance = away;
      nearest = a;
    }
  }
  if (!is_device(address) || !nearest) return std::string(text) + " is no device memory";
  const std::string array =
      "'" + nearest->name + "' of " + number(nearest->end - nearest->begin) + " bytes";
  if (address < nearest->begin) return number(distance) + " bytes before the beginning of " + array;
  if (address >= nearest->end) return number(distance) + " bytes after the end of " + array;
  return "at byte " + number(address - nearest->begin) + " of " + array;
}

}  // namespace simt
