// Shared memory: one arena per block of the cluster, the same layout in all of them.
#include <sys/mman.h>

#include <cstring>
#include <map>
#include <new>

#include "memory.hpp"

namespace simt {

std::uintptr_t shared_space = 0;
Record* shared_records = nullptr;
Bits shared_valid, shared_written;

namespace {

constexpr std::size_t default_dynamic_bytes = 48 << 10;
constexpr std::size_t static_limit = 48 << 10;
constexpr std::size_t bank_cycle = 128;

std::vector<SharedArray> layout;  // of the running launch
std::size_t used = 0, static_bytes = 0;
std::map<const void*, std::uint32_t> requested;

void* map(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return memory;
}

void mark_valid(const SharedArray& array, bool value) {
  for (unsigned rank = 0; rank < active->shape.cluster; ++rank)
    shared_valid.fill(rank * arena_bytes + array.offset, array.bytes, value);
}

// Arrays lie as far apart as they are long, and are aligned as their type and no better.
const SharedArray& add(const void* key, const std::string& name, std::size_t bytes,
                       std::size_t alignment) {
  const std::size_t gap = std::max<std::size_t>(bytes, 512);
  const std::size_t offset =
      (used + gap) / bank_cycle * bank_cycle + bank_cycle + alignment % bank_cycle;
  if (offset + bytes + gap > arena_bytes)
    fail("shared memory: the arrays of the block are too large");
  used = offset + bytes;
  layout.push_back({key, name, offset, bytes});
  mark_valid(layout.back(), true);
  return layout.back();
}

std::size_t total_bytes() { return static_bytes + active->shape.shared_bytes; }

}  // namespace

void begin_shared(const LaunchShape& shape) {
  if (!shared_space) {
    shared_space = reinterpret_cast<std::uintptr_t>(map(shared_space_bytes));
    shared_records = static_cast<Record*>(map(shared_space_bytes / 4 * sizeof(Record)));
    shared_valid = Bits(static_cast<std::uint8_t*>(map(Bits::bytes(shared_space_bytes))));
    shared_written = Bits(static_cast<std::uint8_t*>(map(Bits::bytes(shared_space_bytes))));
  }
  used = static_bytes = 0;
  const auto limit = static_cast<std::size_t>(device().shared_bytes);
  if (shape.shared_bytes > limit)
    fail("launch limits: " + number(shape.shared_bytes) + " bytes of shared memory; at most " +
         number(limit));
  const auto found = requested.find(active->kernel);
  const std::size_t allowed = found == requested.end() ? default_dynamic_bytes : found->second;
  if (shape.shared_bytes > allowed)
    fail("launch limits: " + number(shape.shared_bytes) + " bytes of dynamic shared memory, but " +
         number(allowed) + " were asked for with cudaFuncSetAttribute");
  if (shape.shared_bytes > 0) add(nullptr, "dynamic shared memory", shape.shared_bytes, 16);
}

void start_shared(unsigned rank) {
  std::memset(shared_written.data() + rank * arena_bytes / 8, 0, (used + 64) / 8);
}

void end_shared() {
  if (shared_space)
    for (const SharedArray& array : layout) mark_valid(array, false);
  layout.clear();
}

void* detail::shared_array(const void* key, const char* name, std::size_t item,
                           std::size_t alignment, std::size_t count) {
  if (!current) fail("a shared array on the host");
  const SharedArray* array = nullptr;
  for (const SharedArray& known : layout)
    if (known.key == key) array = &known;
  if (!array) {
    static_bytes += item * count;
    if (static_bytes > static_limit)
      fail("shared memory: " + number(static_bytes) + " bytes of static arrays; at most 49152");
    if (total_bytes() > static_cast<std::size_t>(device().shared_bytes))
      fail("shared memory: " + number(total_bytes()) + " bytes of static and dynamic arrays");
    array = &add(key, name, item * count, alignment);
    // Bits above what was in use when the blocks started.
    for (unsigned rank = 0; rank < active->shape.cluster; ++rank)
      shared_written.fill(rank * arena_bytes + array->offset, array->bytes, false);
  }
  return reinterpret_cast<void*>(shared_space + current->block->rank * arena_bytes + array->offset);
}

void* detail::dynamic_shared_buffer() {
  if (!current) fail("dynamic shared memory on the host");
  const std::size_t offset = layout.empty() || layout[0].key ? arena_bytes - 16 : layout[0].offset;
  return reinterpret_cast<void*>(shared_space + current->block->rank * arena_bytes + offset);
}

void* detail::map_shared(const void* pointer, unsigned rank) {
  if (rank >= active->shape.cluster)
    fail("distributed shared memory: block rank " + number(rank) + " of a cluster of " +
         number(active->shape.cluster));
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  if (!is_shared(address)) fail("distributed shared memory: the pointer is not to shared memory");
  const std::size_t offset = (address - shared_space) % arena_bytes;
  return reinterpret_cast<void*>(shared_space + rank * arena_bytes + offset);
}

std::string describe_shared(std::uintptr_t address) {
  const std::size_t offset = (address - shared_space) % arena_bytes;
  const SharedArray* nearest = nullptr;
  std::size_t distance = ~std::size_t{0};
  for (const SharedArray& a : layout) {
    const std::size_t away = offset < a.offset              ? a.offset - offset
                             : offset >= a.offset + a.bytes ? offset - a.offset - a.bytes
                                                            : 0;
    if (away < distance) {
      distance = away;
      nearest = &a;
    }
  }
  if (!nearest) return "in shared memory, of which the block has none";
  const std::string array =
      "shared '" + nearest->name + "' of " + number(nearest->bytes) + " bytes";
  if (offset < nearest->offset) return number(distance) + " bytes before the beginning of " + array;
  if (offset >= nearest->offset + nearest->bytes)
    return number(distance) + " bytes after the end of " + array;
  return "at byte " + number(offset - nearest->offset) + " of " + array;
}

void request_shared(const void* kernel, std::uint32_t bytes) { requested[kernel] = bytes; }

}  // namespace simt
