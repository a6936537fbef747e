// Where the compiler's -fsanitize=thread instrumentation arrives: each load and store of a kernel.
#include <link.h>

#include <cstring>
#include <map>
#include <vector>

#include "machine.hpp"
#include "memory.hpp"
#include "race.hpp"
#include "traffic.hpp"

namespace simt {

namespace {

const char* verb(Access access) {
  return access == Access::read    ? "reads "
         : access == Access::write ? "writes "
                                   : "atomically changes ";
}

[[noreturn, gnu::noinline]] void out_of_bounds(std::uintptr_t a, unsigned n, Access access,
                                               const void* code) {
  fail(std::string("out of bounds: ") + verb(access) + number(n) + " bytes, " +
           (is_shared(a) ? describe_shared(a) : describe_outside(a)),
       code);
}

[[noreturn, gnu::noinline]] void unwritten(std::uintptr_t a, unsigned n, const void* code) {
  fail("unwritten memory: reads " + number(n) + " bytes " +
           (is_shared(a) ? describe_shared(a) : describe_outside(a)) + ", not all of them written",
       code);
}

[[noreturn, gnu::noinline]] void misaligned(std::uintptr_t a, unsigned n, Access access,
                                            const void* code) {
  fail(std::string("misaligned: ") + verb(access) + number(n) + " bytes at once, " +
           (is_shared(a) ? describe_shared(a) : describe_outside(a)) +
           ", whose address is no multiple of " + number(n),
       code);
}

// Tables of constants may be read: they lie in pages that nobody can write.
struct Segment {
  std::uintptr_t begin, end;
};
int add_constant_segments(dl_phdr_info* info, std::size_t, void* list) {
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    const bool constant =
        (header.p_type == PT_LOAD && !(header.p_flags & PF_W)) || header.p_type == PT_GNU_RELRO;
    const std::uintptr_t begin = info->dlpi_addr + header.p_vaddr;
    if (constant)
      static_cast<std::vector<Segment>*>(list)->push_back({begin, begin + header.p_memsz});
  }
  return 0;
}

bool is_constant(std::uintptr_t address) {
  static std::vector<Segment> segments;
  for (int attempt = 0; attempt < 2; ++attempt) {
    for (const Segment& s : segments)
      if (address >= s.begin && address < s.end) return true;
    segments.clear();
    dl_iterate_phdr(&add_constant_segments, &segments);
  }
  return false;
}

void touch_elsewhere(std::uintptr_t a, unsigned n, Access access, const void* code) {
  if (access == Access::read && is_constant(a)) return;
  for (const Thread& other : active->cluster.threads)
    if (a - other.stack_low < stack_bytes)
      fail(std::string("local memory: ") + verb(access) + number(n) + " bytes of a variable of " +
               describe(*other.block, other),
           code);
  if (a < 4096) fail(std::string("null pointer: ") + verb(access) + number(n) + " bytes", code);
  fail(std::string("host memory: ") + verb(access) + number(n) + " bytes, " + describe_outside(a),
       code);
}

inline Toucher toucher(const Thread& t, std::uint32_t site, std::uint32_t floor, std::uintptr_t a) {
  return {t, t.block->epoch, t.clock << thread_bits | t.number, site, floor, a};
}

void touch_device(const Thread& t, std::uintptr_t a, unsigned n, Access access, const void* code) {
  Allocation* allocation = allocation_at(a);
  if (!allocation || a < allocation->begin || a + n > allocation->end)
    out_of_bounds(a, n, access, code);
  const std::size_t offset = a - allocation->origin;
  const std::uint32_t wanted = (1u << n) - 1;
  if (access != Access::write && allocation->written.get(offset, n) != wanted && !allocation->zeros)
    unwritten(a, n, code);
  if (access == Access::write) allocation->written.set(offset, n);
  const std::uint32_t site = count_access(t, a, n, access, false, code);
  touch_records(allocation->records, offset, n, toucher(t, site, active->first_epoch, a), access);
}

void check_remote(const Thread& t, unsigned rank, std::uintptr_t a, const void* code) {
  if (rank >= active->shape.cluster) out_of_bounds(a, 1, Access::read, code);
  Block& owner = active->cluster.blocks[rank];
  if (!active->cluster.synced)
    fail("distributed shared memory: used before the first cluster barrier; the block of rank " +
             number(rank) + " may not have started",
         code);
  if (owner.exited == owner.size)
    fail("distributed shared memory: the block of rank " + number(rank) + " has ended", code);
  owner.read_remotely = true;
  static_cast<void>(t);
}

void touch_shared(const Thread& t, std::uintptr_t a, unsigned n, Access access, const void* code) {
  const std::size_t offset = a - shared_space;
  const auto rank = static_cast<unsigned>(offset / arena_bytes);
  if (rank != t.block->rank) check_remote(t, rank, a, code);
  const std::uint32_t wanted = (1u << n) - 1;
  if (shared_valid.get(offset, n) != wanted) out_of_bounds(a, n, access, code);
  if (access != Access::write && shared_written.get(offset, n) != wanted) unwritten(a, n, code);
  if (access == Access::write) shared_written.set(offset, n);
  const std::uint32_t site = count_access(t, a, n, access, true, code);
  touch_records(shared_records, offset, n, toucher(t, site, active->cluster.first_epoch, a),
                access);
}

[[noreturn]] void touch_on_host(std::uintptr_t a) {
  std::fprintf(stderr, "simt: host code touches device memory, %s\n", describe_outside(a).c_str());
  std::abort();
}

inline void touch(std::uintptr_t a, unsigned n, Access access, bool aligned, const void* code) {
  const Thread* t = current;
  if (!t) {
    if (__builtin_expect(is_device(a), 0)) touch_on_host(a);
    return;
  }
  if (a - t->stack_low < stack_bytes) return;
  if (__builtin_expect(expired, 0)) fail_expired();
  if (aligned && (a & (n - 1))) misaligned(a, n, access, code);
  if (is_device(a)) return touch_device(*t, a, n, access, code);
  if (is_shared(a)) return touch_shared(*t, a, n, access, code);
  touch_elsewhere(a, n, access, code);
}

// Byte by byte as far as the hardware is concerned: no alignment is asked for.
void touch_range(const void* p, std::size_t bytes, Access access, const void* code) {
  auto a = reinterpret_cast<std::uintptr_t>(p);
  for (; bytes > 0; a += 16) {
    const unsigned n = bytes < 16 ? static_cast<unsigned>(bytes) : 16;
    touch(a, n, access, false, code);
    bytes -= n;
  }
}

// ---- The last-block-done pattern ----

std::map<std::uintptr_t, std::vector<Released>> released;
const Launch* released_in = nullptr;
std::uint32_t released_epoch = 0;

void acquire_and_release(Thread& t, std::uintptr_t a) {
  Block& block = *t.block;
  if (released_in != active || released_epoch != active->first_epoch) {
    released.clear();
    released_in = active;
    released_epoch = active->first_epoch;
  }
  std::vector<Released>& list = released[a];
  for (const Released& r : list)
    if (r.owner != block.ordinal) block.acquired.push_back(r);
  std::uint32_t all = block.fences < block.size ? 0 : ~0u;  // each fenced what it did itself
  if (all)
    for (unsigned n = 0; n < block.size; ++n) all = std::min(all, block.threads[n].fenced);
  const std::uint32_t before = std::max(t.fenced, all ? all + 1 : 0);
  if (before) list.push_back({block.ordinal, before, t.number});
}

template <class T>
std::uint64_t change(detail::Atomic operation, void* p, std::uint64_t value,
                     std::uint64_t compare) {
  using A = detail::Atomic;
  T old, operand = static_cast<T>(value), result;
  std::memcpy(&old, p, sizeof old);
  result = old;
  switch (operation) {
    case A::add: result = static_cast<T>(static_cast<std::uint64_t>(old) + value); break;
    case A::minimum: result = std::min(old, operand); break;
    case A::maximum: result = std::max(old, operand); break;
    case A::conjunction: result = old & operand; break;
    case A::disjunction: result = old | operand; break;
    case A::exclusive_or: result = old ^ operand; break;
    case A::exchange: result = operand; break;
    case A::compare: result = old == static_cast<T>(compare) ? operand : old; break;
  }
  std::memcpy(p, &result, sizeof result);
  return static_cast<std::uint64_t>(old);
}

}  // namespace

[[gnu::noinline]] std::uint64_t detail::atomic(Atomic operation, void* p, unsigned bytes,
                                               bool is_signed, std::uint64_t value,
                                               std::uint64_t compare) {
  if (!current) fail("an atomic on the host");
  const auto a = reinterpret_cast<std::uintptr_t>(p);
  const void* code = __builtin_return_address(0);
  touch(a, bytes, Access::atomic, true, code);
  if (is_device(a)) acquire_and_release(*current, a);
  if (bytes == 4)
    return is_signed ? change<std::int32_t>(operation, p, value, compare)
                     : change<std::uint32_t>(operation, p, value, compare);
  return is_signed ? change<std::int64_t>(operation, p, value, compare)
                   : change<std::uint64_t>(operation, p, value, compare);
}

}  // namespace simt

// ---- What the compiler calls ----

using simt::Access;

#define SIMT_ACCESS(name, n, access, aligned)                            \
  extern "C" void name(void* p) {                                        \
    simt::touch(reinterpret_cast<std::uintptr_t>(p), n, access, aligned, \
                __builtin_return_address(0));                            \
  }
#define SIMT_ACCESSES(n)                                        \
  SIMT_ACCESS(__tsan_read##n, n, Access::read, true)            \
  SIMT_ACCESS(__tsan_write##n, n, Access::write, true)          \
  SIMT_ACCESS(__tsan_volatile_read##n, n, Access::read, true)   \
  SIMT_ACCESS(__tsan_volatile_write##n, n, Access::write, true) \
  SIMT_ACCESS(__tsan_unaligned_read##n, n, Access::read, false) \
  SIMT_ACCESS(__tsan_unaligned_write##n, n, Access::write, false)
SIMT_ACCESSES(1)
SIMT_ACCESSES(2)
SIMT_ACCESSES(4)
SIMT_ACCESSES(8)
SIMT_ACCESSES(16)

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

void __tsan_read_range(void* p, std::size_t n) {
  simt::touch_range(p, n, Access::read, __builtin_return_address(0));
}
void __tsan_write_range(void* p, std::size_t n) {
  simt::touch_range(p, n, Access::write, __builtin_return_address(0));
}
void __tsan_vptr_update(void** p, void*) {
  simt::touch(reinterpret_cast<std::uintptr_t>(p), 8, Access::write, true,
              __builtin_return_address(0));
}
void __tsan_vptr_read(void** p) {
  simt::touch(reinterpret_cast<std::uintptr_t>(p), 8, Access::read, true,
              __builtin_return_address(0));
}

// Copies that kernels ask for (simt/copies.hpp), and calls of the C library that the compiler makes
// of its own; build.py renames those.
void* simt_memcpy(void* to, const void* from, std::size_t n) {
  simt::touch_range(from, n, Access::read, __builtin_return_address(0));
  simt::touch_range(to, n, Access::write, __builtin_return_address(0));
  return std::memcpy(to, from, n);
}
void* simt_memmove(void* to, const void* from, std::size_t n) {
  simt::touch_range(from, n, Access::read, __builtin_return_address(0));
  simt::touch_range(to, n, Access::write, __builtin_return_address(0));
  return std::memmove(to, from, n);
}
void* simt_memset(void* to, int value, std::size_t n) {
  simt::touch_range(to, n, Access::write, __builtin_return_address(0));
  return std::memset(to, value, n);
}

}  // extern "C"
