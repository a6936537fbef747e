// Dynamic parallel loops. Results never depend on the number of threads: a task writes only what
// is its own, and whoever adds up does so in a fixed order.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>

#if defined(PROTOSEG_OPENMP)
#include <omp.h>
#else
#include <thread>
#include <vector>
#endif

namespace protoseg {

// Threads a parallel loop may use: OpenMP's setting (OMP_NUM_THREADS, threadpoolctl), and 1 in a
// forked child, whose copy of the OpenMP runtime has lost its threads.
int max_threads();

// Calls make_worker() once in every thread that takes part, and the worker it returns with task
// numbers from [0, tasks). `cost` is the rough number of elements a task touches: small loops stay
// on the calling thread. The first exception thrown by a task is rethrown here.
template <class MakeWorker>
void parallel_for(std::int64_t tasks, std::int64_t cost, MakeWorker make_worker) {
  constexpr std::int64_t worthwhile = 1 << 14;  // elements per thread that outweigh waking it
  const std::int64_t useful = std::max<std::int64_t>(1, tasks * cost / worthwhile);
  const int threads = static_cast<int>(std::min<std::int64_t>({max_threads(), tasks, useful}));
  std::atomic<std::int64_t> next{0};
  // Neighbouring tasks go to one thread, which finds their memory prefetched; helpings shrink
  // towards the end, so that threads finish together.
  const auto take = [&](std::int64_t& first, std::int64_t& last) {
    first = next.load(std::memory_order_relaxed);
    do {
      last = std::min(tasks, first + std::max<std::int64_t>(1, (tasks - first) / (4 * threads)));
    } while (first < tasks && !next.compare_exchange_weak(first, last, std::memory_order_relaxed));
    return first < tasks;
  };
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto run = [&] {
    try {
      auto worker = make_worker();
      for (std::int64_t task, last; take(task, last);)
        for (; task < last; ++task) worker(task);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failure_mutex);
      if (!failure) failure = std::current_exception();
      next = tasks;
    }
  };
  if (threads <= 1) {
    run();
  } else {
#if defined(PROTOSEG_OPENMP)
#pragma omp parallel num_threads(threads)
    run();
#else
    std::vector<std::thread> pool;
    for (int i = 1; i < threads; ++i) pool.emplace_back(run);
    run();
    for (std::thread& thread : pool) thread.join();
#endif
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace protoseg
