#include "parallel.hpp"

#include <cstdlib>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace protoseg {
namespace {

std::atomic<bool> forked{false};

#if defined(__unix__) || defined(__APPLE__)
const int fork_handler = pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif

}  // namespace

int max_threads() {
#if defined(__unix__) || defined(__APPLE__)
  static_cast<void>(fork_handler);
#endif
  if (forked) return 1;
#if defined(PROTOSEG_OPENMP)
  return omp_get_max_threads();
#else
  static const int threads = [] {
    const char* setting = std::getenv("OMP_NUM_THREADS");
    const int wanted = setting != nullptr ? std::atoi(setting) : 0;
    return wanted > 0 ? wanted : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }();
  return threads;
#endif
}

}  // namespace protoseg
