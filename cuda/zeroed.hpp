// Counts that start at zero.
#pragma once

#include <cstdint>

#include "check.hpp"
#include "grid.hpp"

namespace protoseg::cuda {

// Zeroes arrays that follow each other by one call: it costs more than the bytes.
class ZeroedArrays {
 public:
  explicit ZeroedArrays(Stream stream) : stream_(stream) {}

  void add(std::int64_t* array, std::int64_t count) {
    if (array != end_) {
      clear();
      begin_ = array;
    }
    end_ = array + count;
  }
  // Only if it costs nothing: what a kernel overwrites.
  void add_if_next(const std::int64_t* array, std::int64_t count) {
    if (array == end_) end_ += count;
  }
  void clear() {
    const auto bytes = static_cast<std::size_t>(end_ - begin_) * sizeof(std::int64_t);
    if (bytes > 0) PROTOSEG_CUDA_CHECK(cudaMemsetAsync(begin_, 0, bytes, as_stream(stream_)));
    begin_ = end_ = nullptr;
  }

 private:
  Stream stream_;
  std::int64_t *begin_ = nullptr, *end_ = nullptr;
};

}  // namespace protoseg::cuda
