// Device memory of the runtime and its options, for Python: a C interface for ctypes.
#include <cstring>
#include <exception>
#include <string>

#include <simt/simt.hpp>

#define EXPORTED __attribute__((visibility("default")))

namespace {
thread_local std::string problem;
}  // namespace

extern "C" {

EXPORTED void* device_allocate(std::size_t bytes, const char* name, std::size_t misalignment) {
  return simt::allocate(bytes, name, misalignment);
}
EXPORTED void device_release(void* pointer) { simt::release(pointer); }
EXPORTED std::size_t device_allocations() { return simt::allocations(); }
EXPORTED void device_upload(void* device, const void* host, std::size_t bytes) {
  simt::upload(device, host, bytes);
}

// Null, or what is wrong: bytes that nothing was written to.
EXPORTED const char* device_download(void* host, const void* device, std::size_t bytes) {
  try {
    simt::download(host, device, bytes);
    return nullptr;
  } catch (const std::exception& error) {
    problem = error.what();
    return problem.c_str();
  }
}

EXPORTED void device_seed(std::uint64_t seed) { simt::options().seed = seed; }

// Launches since the last call of device_clear.
EXPORTED void device_clear() { simt::clear_launches(); }
EXPORTED std::size_t device_launches() { return simt::launches().size(); }
EXPORTED const char* device_launch(std::size_t index) {
  problem = simt::launches().at(index).json();
  return problem.c_str();
}

}  // extern "C"
