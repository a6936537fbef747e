#include "fiber.hpp"

#include <sys/mman.h>

#include <new>

namespace simt {

#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)

// Callee-saved registers and the stack pointer are all there is; kernels leave the floating-point
// control words alone.
asm(R"(
.text
.globl simt_switch_stack
.hidden simt_switch_stack
.type simt_switch_stack, @function
simt_switch_stack:
  endbr64
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq (%rsi), %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch_stack, .-simt_switch_stack
)");
extern "C" void simt_switch_stack(void** from, void** to);

void switch_context(Context& from, Context& to) { simt_switch_stack(&from.stack, &to.stack); }

void prepare_context(Context& context, std::uintptr_t, std::uintptr_t high, void (*entry)()) {
  auto top = reinterpret_cast<std::uintptr_t*>(high & ~std::uintptr_t{15});
  *--top = 0;  // leaves the alignment that a call would, and ends backtraces
  *--top = reinterpret_cast<std::uintptr_t>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = 0;
  context.stack = top;
}

#else

void switch_context(Context& from, Context& to) { swapcontext(&from.context, &to.context); }

void prepare_context(Context& context, std::uintptr_t low, std::uintptr_t high, void (*entry)()) {
  getcontext(&context.context);
  context.context.uc_stack.ss_sp = reinterpret_cast<void*>(low);
  context.context.uc_stack.ss_size = high - low;
  context.context.uc_link = nullptr;
  makecontext(&context.context, entry, 0);
}

#endif

namespace {
constexpr std::size_t guard_bytes = 4096;
}

std::uintptr_t Stacks::low(std::size_t index) {
  while (lows_.size() <= index) {
    void* memory = mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, guard_bytes, PROT_NONE);
    lows_.push_back(reinterpret_cast<std::uintptr_t>(memory) + guard_bytes);
  }
  return lows_[index];
}

bool Stacks::is_guard(std::uintptr_t address) const {
  for (std::uintptr_t low : lows_)
    if (low - address <= guard_bytes) return true;
  return false;
}

}  // namespace simt
