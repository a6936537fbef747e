// What tests of kernels use: device memory, options of a run, traffic of the launches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "simt/cuda.hpp"

namespace simt {

// ---- Options of the launches to come ----

struct Options {
  std::uint64_t seed =
      1;                // of the schedule; 4 n: threads in order, 4 n + 1: in reverse, else random
  double seconds = 20;  // for one launch, then it fails
  // Run these blocks of the grid only (linear index, whole clusters are run); empty: all of them.
  std::vector<std::uint64_t> blocks;
};
Options& options();

// What cudaDeviceGetAttribute answers and launches are checked against; an H100 unless changed.
struct Device {
  int major = 9, minor = 0;
  int multiprocessors = 132;
  int l2_bytes = 50 << 20;
  int shared_bytes = 227 << 10;  // of a block, when asked for
  int shared_bytes_multiprocessor = 228 << 10;
  int threads_multiprocessor = 2048;
  int blocks_multiprocessor = 32;
};
Device& device();

// ---- Device memory: exact size, unwritten until written ----

// `misalignment` moves the beginning that many bytes past a multiple of 256.
void* allocate(std::size_t bytes, const std::string& name, std::size_t misalignment = 0);
// All zeros, which count as written; of any size, as only what is touched takes memory.
void* allocate_zeros(std::size_t bytes, const std::string& name);
void release(void* pointer);
std::size_t allocations();  // live ones

void upload(void* device, const void* host, std::size_t bytes);
void download(void* host, const void* device, std::size_t bytes);  // fails on unwritten bytes
void set(void* device, int value, std::size_t bytes);
void forget(void* device, std::size_t bytes);  // unwritten again

template <class T>
class DeviceArray {
 public:
  DeviceArray(std::size_t count, const std::string& name, std::size_t misalignment = 0)
      : count_(count), data_(static_cast<T*>(allocate(count * sizeof(T), name, misalignment))) {}
  DeviceArray(const std::vector<T>& values, const std::string& name, std::size_t misalignment = 0)
      : DeviceArray(values.size(), name, misalignment) {
    simt::upload(data_, values.data(), values.size() * sizeof(T));
  }
  static DeviceArray zeros(std::size_t count, const std::string& name) {
    return DeviceArray(count, static_cast<T*>(allocate_zeros(count * sizeof(T), name)));
  }
  DeviceArray(DeviceArray&& other) noexcept : count_(other.count_), data_(other.data_) {
    other.data_ = nullptr;
  }
  DeviceArray& operator=(DeviceArray&&) = delete;
  ~DeviceArray() {
    if (data_) release(data_);
  }

  T* data() const { return data_; }
  std::size_t size() const { return count_; }
  std::vector<T> download() const {
    std::vector<T> values(count_);
    simt::download(values.data(), data_, count_ * sizeof(T));
    return values;
  }
  void fill_bytes(int value) { set(data_, value, count_ * sizeof(T)); }

 private:
  DeviceArray(std::size_t count, T* data) : count_(count), data_(data) {}

  std::size_t count_;
  T* data_;
};

// ---- Traffic ----

struct GlobalTraffic {
  std::uint64_t requests = 0;        // of a warp
  std::uint64_t bytes = 0;           // asked for by threads
  std::uint64_t sectors = 0;         // of 32 bytes, distinct within each request
  std::uint64_t unique_sectors = 0;  // distinct within the launch

  // Share of the bytes in the sectors moved that were asked for; above 1 for broadcasts.
  double efficiency() const { return sectors ? bytes / (32.0 * sectors) : 1.0; }
  // How often a sector was asked for, on average.
  double passes() const { return unique_sectors ? double(sectors) / unique_sectors : 0.0; }
};

struct SharedTraffic {
  std::uint64_t requests = 0;
  std::uint64_t wavefronts = 0;
  std::uint64_t conflicts = 0;  // wavefronts beyond those that the size of the access needs
};

struct Traffic {
  std::string kernel;  // of one launch; empty for a sum
  std::uint64_t launches = 0, blocks = 0, threads = 0;
  std::uint64_t barriers = 0;                            // per block
  std::uint64_t cluster_barriers = 0;                    // per cluster
  std::uint64_t warp_barriers = 0;                       // __syncwarp
  std::uint64_t shuffles = 0;                            // and votes, per warp
  std::uint64_t global_atomics = 0, shared_atomics = 0;  // per thread
  std::map<std::string, GlobalTraffic> reads, writes;    // by the allocation's name
  SharedTraffic shared_reads, shared_writes;

  Traffic& operator+=(const Traffic& other);
  // Missing names are no traffic.
  GlobalTraffic read(const std::string& name) const;
  GlobalTraffic written(const std::string& name) const;
  std::uint64_t bank_conflicts() const { return shared_reads.conflicts + shared_writes.conflicts; }
  std::string json() const;
};

const std::vector<Traffic>&
launches();  // since the last clear_launches; the latest 32,768 at least
void clear_launches();
Traffic total();
// The lines of source that moved most in the last launch: sectors, efficiency, bank conflicts.
std::string hot_lines(std::size_t lines = 20);

}  // namespace simt
