// Stacks and the switch between them: a few instructions on x86-64, ucontext elsewhere or where
// SIMT_UCONTEXT is defined.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#if !defined(__x86_64__) || defined(SIMT_UCONTEXT)
#include <ucontext.h>
#endif

namespace simt {

#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)
struct Context {
  void* stack = nullptr;
};
#else
struct Context {
  ucontext_t context;
};
#endif

// Saves where it was called into `from` and goes on where `to` was saved.
void switch_context(Context& from, Context& to);

// `entry` will run on the stack [low, high) at the first switch, and must never return.
void prepare_context(Context& context, std::uintptr_t low, std::uintptr_t high, void (*entry)());

constexpr std::size_t stack_bytes = 128 << 10;

// Stacks with an inaccessible page below each, mapped when first asked for, kept for ever.
class Stacks {
 public:
  std::uintptr_t low(std::size_t index);
  bool is_guard(std::uintptr_t address) const;

 private:
  std::vector<std::uintptr_t> lows_;
};

}  // namespace simt
