// A launch that runs for too long, or crashes, ends like any other fault.
#include <csignal>
#include <cstring>
#include <ctime>

#include "machine.hpp"

namespace simt {

volatile bool expired = false;

namespace {

const int timer_signal = SIGRTMIN + 5;
const int crash_signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};

timer_t timer;
bool has_timer = false, running = false;
struct sigaction previous[4];
alignas(16) char signal_stack[64 << 10];
stack_t previous_stack;
int ticks = 0;

// Leaves a signal handler for the host side of the launch.
[[noreturn]] void leave_handler(const std::string& message, const void* code) {
  sigset_t all;
  sigemptyset(&all);
  sigaddset(&all, timer_signal);
  for (int signal : crash_signals) sigaddset(&all, signal);
  pthread_sigmask(SIG_UNBLOCK, &all, nullptr);
  fail(message, code);
}

const void* interrupted_code(void* context) {
#if defined(__x86_64__)
  const auto* machine = &static_cast<ucontext_t*>(context)->uc_mcontext;
  return reinterpret_cast<const void*>(machine->gregs[REG_RIP] + 1);
#else
  static_cast<void>(context);
  return nullptr;
#endif
}

// The first tick asks the runtime to stop at its next entry. If half a second goes by without one,
// the thread computes without touching memory, and can be left where it is.
void on_timer(int, siginfo_t*, void* context) {
  if (!current) return;
  expired = true;
  if (++ticks >= 3)
    leave_handler("time limit: a thread computes for ever without touching memory",
                  interrupted_code(context));
}

void on_crash(int signal, siginfo_t* info, void* context) {
  if (!current) {  // not ours: as if this handler were not there
    for (int i = 0; i < 4; ++i)
      if (crash_signals[i] == signal) sigaction(signal, &previous[i], nullptr);
    return;
  }
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  const bool overflow = signal == SIGSEGV && current->stack_low - address <= 8192;
  leave_handler(overflow           ? "crash: the thread's stack overflows (128 KiB)"
                : signal == SIGFPE ? "crash: integer division by zero"
                                   : "crash: " + std::string(strsignal(signal)),
                interrupted_code(context));
}

}  // namespace

void start_watchdog(double seconds) {
  expired = false;
  ticks = 0;
  struct sigaction action = {};
  if (!has_timer) {
    action.sa_sigaction = on_timer;
    action.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER;
    sigaction(timer_signal, &action, nullptr);
  }
  // Signals go to the thread that launches: the timer is made anew where that may change.
  sigevent event = {};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = timer_signal;
  event._sigev_un._tid = gettid();
  has_timer = timer_create(CLOCK_MONOTONIC, &event, &timer) == 0;
  if (has_timer) {
    itimerspec spec = {};
    spec.it_value.tv_sec = static_cast<time_t>(seconds);
    spec.it_value.tv_nsec = static_cast<long>((seconds - double(spec.it_value.tv_sec)) * 1e9) + 1;
    spec.it_interval.tv_nsec = 250'000'000;
    timer_settime(timer, 0, &spec, nullptr);
  }
  stack_t stack = {};
  stack.ss_sp = signal_stack;
  stack.ss_size = sizeof signal_stack;
  sigaltstack(&stack, &previous_stack);
  action = {};
  action.sa_sigaction = on_crash;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < 4; ++i) sigaction(crash_signals[i], &action, &previous[i]);
  running = true;
}

void stop_watchdog() {
  if (!running) return;
  running = false;
  if (has_timer) timer_delete(timer);
  has_timer = false;
  for (int i = 0; i < 4; ++i) sigaction(crash_signals[i], &previous[i], nullptr);
  if (!(previous_stack.ss_flags & SS_DISABLE)) sigaltstack(&previous_stack, nullptr);
}

void fail_expired() {
  fail("time limit: the launch runs for longer than " + std::to_string(options().seconds) +
       " seconds");
}

}  // namespace simt
