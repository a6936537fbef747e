// The mock of the CUDA runtime.
#include "simt/host.hpp"

#include <cstring>

#include "memory.hpp"

using simt::is_device;

namespace {

void host_only(const char* call) {
  if (simt::current) simt::fail(std::string(call) + " in a kernel");
}

void expect(const void* pointer, bool on_device, const char* what) {
  if (is_device(reinterpret_cast<std::uintptr_t>(pointer)) != on_device)
    simt::fail(std::string("cudaMemcpyAsync: the ") + what + " is " +
               (on_device ? "no device memory" : "device memory, not the host's"));
}

// Unwritten bytes stay unwritten.
void copy_device(void* to, const void* from, std::size_t bytes) {
  std::memmove(to, from, bytes);
  const auto a = reinterpret_cast<std::uintptr_t>(from), b = reinterpret_cast<std::uintptr_t>(to);
  const simt::Allocation* source = simt::allocation_at(a);
  const simt::Allocation* target = simt::allocation_at(b);
  if (!source || a < source->begin || a + bytes > source->end)
    simt::fail("out of bounds: cudaMemcpyAsync reads " + simt::describe_outside(a));
  if (!target || b < target->begin || b + bytes > target->end)
    simt::fail("out of bounds: cudaMemcpyAsync writes " + simt::describe_outside(b));
  simt::Bits written = target->written;
  for (std::size_t i = 0; i < bytes; ++i)
    written.fill(b - target->origin + i, 1,
                 source->zeros || source->written.get(a - source->origin + i, 1));
}

}  // namespace

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
  host_only("cudaMemcpyAsync");
  if (bytes == 0) return cudaSuccess;
  if (kind == cudaMemcpyDefault) {
    const bool reads = is_device(reinterpret_cast<std::uintptr_t>(from));
    const bool writes = is_device(reinterpret_cast<std::uintptr_t>(to));
    kind = reads ? (writes ? cudaMemcpyDeviceToDevice : cudaMemcpyDeviceToHost)
                 : (writes ? cudaMemcpyHostToDevice : cudaMemcpyHostToHost);
  }
  expect(from, kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice, "source");
  expect(to, kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice, "destination");
  switch (kind) {
    case cudaMemcpyHostToDevice: simt::upload(to, from, bytes); break;
    case cudaMemcpyDeviceToHost: simt::download(to, from, bytes); break;
    case cudaMemcpyDeviceToDevice: copy_device(to, from, bytes); break;
    default: std::memcpy(to, from, bytes);
  }
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  host_only("cudaMemsetAsync");
  simt::set(to, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const simt::Device& d = simt::device();
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 << 10; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = d.multiprocessors; break;
    case cudaDevAttrL2CacheSize: *value = d.l2_bytes; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = d.threads_multiprocessor; break;
    case cudaDevAttrComputeCapabilityMajor: *value = d.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = d.minor; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = d.shared_bytes_multiprocessor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = d.shared_bytes; break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *value = d.blocks_multiprocessor; break;
    case cudaDevAttrReservedSharedMemoryPerBlock: *value = 1024; break;
    case cudaDevAttrClusterLaunch: *value = d.major >= 9; break;
    default: return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || value > simt::device().shared_bytes) return cudaErrorInvalidValue;
  simt::request_shared(kernel, static_cast<std::uint32_t>(value));
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
  }
  return "unknown error";
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
