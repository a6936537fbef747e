// Device memory that a guide keeps or needs for a moment, and the layout of a call's workspace.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "protoseg/cuda.hpp"
#include "protoseg/tensor.hpp"

namespace protoseg::cuda {

constexpr std::size_t memory_alignment = 256;

// Memory from the caller's allocator, given back on the stream it was taken on.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Allocator& allocator, Stream stream, std::int64_t bytes)
      : allocator_(allocator), stream_(stream), bytes_(bytes) {
    data_ = allocator_.allocate(static_cast<std::size_t>(bytes), stream_, allocator_.context);
    if (data_ == nullptr)
      throw Error("out of device memory: the allocator gave no " + std::to_string(bytes) +
                  " bytes.");
  }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(allocator_, other.allocator_);
    std::swap(stream_, other.stream_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) allocator_.free(data_, stream_, allocator_.context);
  }
  void* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  Allocator allocator_;
  Stream stream_ = nullptr;
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

// Hands out arrays of one piece of memory one after the other. Without memory it only measures: the
// same code says how much is needed, and then uses it.
class Arena {
 public:
  explicit Arena(void* memory = nullptr) : memory_(static_cast<std::byte*>(memory)) {}

  template <class T>
  T* take(std::int64_t count) {
    std::byte* at = memory_ != nullptr ? memory_ + used_ : nullptr;
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    used_ += (bytes + memory_alignment - 1) / memory_alignment * memory_alignment;
    return reinterpret_cast<T*>(at);
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

}  // namespace protoseg::cuda
