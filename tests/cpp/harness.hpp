// What the tests of test_engine.cpp stand on: allocations that fail on demand, checks, arrays, and
// all results of one problem. For one translation unit: it replaces operator new.
#pragma once

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "protoseg/engine.hpp"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

// ---- allocations that fail on demand -------------------------------------------------------

namespace {

std::atomic<std::int64_t> live_allocations{0};
std::atomic<std::int64_t> until_failure{-1};  // large allocations left; negative: never fail
// Buffers of the engine, not the small change of threads and exceptions.
constexpr std::size_t large = 512;

void* allocate(std::size_t bytes) {
  if (bytes >= large && until_failure >= 0 && until_failure-- == 0) throw std::bad_alloc();
  void* memory = std::malloc(std::max<std::size_t>(bytes, 1));
  if (memory == nullptr) throw std::bad_alloc();
  ++live_allocations;
  return memory;
}
void release(void* memory) noexcept {
  if (memory != nullptr) --live_allocations;
  std::free(memory);
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { release(memory); }

namespace {

using namespace protoseg;

// ---- checks --------------------------------------------------------------------------------

std::atomic<int> failures{0};

#define CHECK(condition)                                                          \
  do {                                                                            \
    if (!(condition)) {                                                           \
      std::fprintf(stderr, "%s:%d: CHECK(%s)\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                                 \
    }                                                                             \
  } while (false)

bool near(double a, double b, double tolerance) {
  return std::fabs(a - b) <= tolerance || (std::isnan(a) && std::isnan(b));
}

// ---- arrays --------------------------------------------------------------------------------

using Shape = std::vector<std::int64_t>;

std::int64_t product(const Shape& shape, std::size_t from = 0) {
  std::int64_t result = 1;
  for (std::size_t i = from; i < shape.size(); ++i) result *= shape[i];
  return result;
}

TensorView view_of(const void* data, DType dtype, const Shape& shape) {
  return contiguous_view(data, dtype, static_cast<int>(shape.size()), shape.data());
}

template <class T>
struct Array {
  Shape shape;
  std::vector<T> data;
  TensorView view(DType dtype) const { return view_of(data.data(), dtype, shape); }
};

TensorView view_of(const Array<float>& a) { return a.view(DType::float32); }
TensorView view_of(const Array<double>& a) { return a.view(DType::float64); }
TensorView view_of(const Array<std::uint8_t>& a) { return a.view(DType::boolean); }

template <class T>
Array<T> make(const Shape& shape, const std::function<double(std::mt19937&)>& value,
              unsigned seed) {
  std::mt19937 random(seed);
  Array<T> array{shape, {}};
  for (std::int64_t i = 0; i < product(shape); ++i)
    array.data.push_back(static_cast<T>(value(random)));
  return array;
}

double uniform(std::mt19937& random) { return (random() >> 5) / double{1 << 27}; }
double spread(std::mt19937& random) { return 4.0 * uniform(random) - 2.0; }
double rare(std::mt19937& random) { return uniform(random) < 0.3; }

// ---- everything the engine computes of one problem -----------------------------------------

struct Results {
  std::vector<Counts> counts;
  std::vector<double> positive, negative, positive_weight, negative_weight;
  std::vector<std::uint8_t> map;
  std::vector<float> probability;
};

Results compute(const Guide& guide, const TensorView& features, const Options& options) {
  const std::int64_t planes = guide.images() * guide.targets();
  const std::int64_t maps = planes * options.groups, voxels = product(guide.size());
  Results r;
  r.counts.resize(maps);
  r.positive.resize(planes * features.shape[1]);
  r.negative.resize(r.positive.size());
  r.positive_weight.resize(planes);
  r.negative_weight.resize(planes);
  r.map.resize(maps * voxels);
  r.probability.resize(maps * voxels);
  sa_counts(guide, features, options, r.counts.data());
  prototypes(
      guide, features, options,
      {r.positive.data(), r.negative.data(), r.positive_weight.data(), r.negative_weight.data()});
  segment(guide, features, options, r.map.data());
  probability(guide, features, options, r.probability.data());
  return r;
}

template <class T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

bool same_counts(const Counts& a, const Counts& b) {
  return a.tp == b.tp && a.predicted == b.predicted && a.actual == b.actual &&
         a.voxels == b.voxels && a.defined == b.defined;
}

bool same_bits(const Results& a, const Results& b) {
  return std::equal(a.counts.begin(), a.counts.end(), b.counts.begin(), b.counts.end(),
                    same_counts) &&
         same_bytes(a.positive, b.positive) && same_bytes(a.negative, b.negative) &&
         same_bytes(a.positive_weight, b.positive_weight) &&
         same_bytes(a.negative_weight, b.negative_weight) && same_bytes(a.map, b.map) &&
         same_bytes(a.probability, b.probability);
}

}  // namespace
