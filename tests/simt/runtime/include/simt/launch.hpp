// Running kernels, and what goes wrong in them. Scenarios include simt/simt.hpp, which has more.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "simt/host.hpp"
#include "simt/vectors.hpp"

namespace simt {

// What a launch throws: the message names the fault, kernel, block, thread, source line and seed.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct LaunchShape {
  dim3 grid;
  dim3 block;
  unsigned cluster = 1;
  std::size_t shared_bytes = 0;
};

namespace detail {

// Reads of the kernel's own parameters are no accesses to memory.
template <class Params>
struct Call {
  void (*kernel)(Params);
  Params params;

  __attribute__((no_sanitize("thread"))) static void run(const void* call) {
    const Call* self = static_cast<const Call*>(call);
    self->kernel(self->params);
  }
};

void launch(const void* kernel, const LaunchShape& shape, void (*run)(const void*),
            const void* call);

}  // namespace detail

// Runs the whole grid and returns; throws Failure at the first fault.
template <class Params>
cudaError_t launch(void (*kernel)(Params), const LaunchShape& shape, cudaStream_t,
                   const std::common_type_t<Params>& params) {
  using Call = detail::Call<Params>;
  const Call call{kernel, params};
  detail::launch(reinterpret_cast<const void*>(kernel), shape, &Call::run, &call);
  return cudaSuccess;
}

}  // namespace simt
