// Counters, on kernels whose traffic is known.
#include "micro.hpp"

namespace {

using micro::Params;
namespace pc = micro::pc;

__device__ inline int thread() { return static_cast<int>(threadIdx.x); }

struct Strided {
  const float* in;
  float* out;
  int stride, offset;
};

__global__ void strided(Strided p) { p.out[thread()] = p.in[thread() * p.stride + p.offset]; }

__global__ void vectors(Strided p) {
  reinterpret_cast<float4*>(p.out)[thread()] = reinterpret_cast<const float4*>(p.in)[thread()];
}

__global__ void loop(Strided p) {
  float sum = 0;
  for (int i = thread(); i < 1024; i += 64) sum += p.in[i];
  p.out[thread()] = sum;
}

// Every block reads everything.
__global__ void twice(Strided p) {
  p.out[blockIdx.x * 32 + threadIdx.x] = p.in[thread()] + p.in[31 - thread()];
}

simt::Traffic run(void (*kernel)(Strided), const pc::LaunchShape& shape, std::size_t in,
                  std::size_t out, int stride, int offset = 0) {
  simt::DeviceArray<float> source(std::vector<float>(in, 1.0f), "in");
  simt::DeviceArray<float> target(out, "out");
  pc::launch(kernel, shape, nullptr, {source.data(), target.data(), stride, offset});
  return simt::launches().back();
}

template <class T>
__global__ void banks(Strided p) {
  PROTOSEG_SHARED(T, values, 1024);
  for (int i = thread(); i < 1024; i += 32) values[i] = T();
  __syncthreads();
  volatile T* v = values;
  p.out[thread()] = static_cast<float>(v[thread() * p.stride + p.offset]);
}

__global__ void quads(Strided p) {
  PROTOSEG_SHARED(float4, values, 1024);
  for (int i = thread(); i < 1024; i += 32) values[i] = make_float4(0, 0, 0, 0);
  __syncthreads();
  const float4 v = values[thread() * p.stride];
  p.out[thread()] = v.x + v.w;
}

std::uint64_t conflicts(void (*kernel)(Strided), int stride) {
  return run(kernel, {1, 32}, 1, 32, stride).shared_reads.conflicts;
}

}  // namespace

SIMT_SCENARIO(coalesced) {
  const simt::Traffic traffic = run(strided, {1, 64}, 64, 64, 1);
  const simt::GlobalTraffic read = traffic.read("in");
  SIMT_EXPECT_EQUAL(read.requests, 2u);
  SIMT_EXPECT_EQUAL(read.bytes, 256u);
  SIMT_EXPECT_EQUAL(read.sectors, 8u);
  SIMT_EXPECT_EQUAL(read.unique_sectors, 8u);
  SIMT_EXPECT_EQUAL(read.efficiency(), 1.0);
  SIMT_EXPECT_EQUAL(read.passes(), 1.0);
  SIMT_EXPECT_EQUAL(traffic.written("out").sectors, 8u);
  SIMT_EXPECT_EQUAL(traffic.read("out").sectors, 0u);
}

SIMT_SCENARIO(stride_of_two) {
  const simt::GlobalTraffic read = run(strided, {1, 32}, 64, 32, 2).read("in");
  SIMT_EXPECT_EQUAL(read.sectors, 8u);
  SIMT_EXPECT_EQUAL(read.efficiency(), 0.5);
}

SIMT_SCENARIO(stride_of_eight) {
  SIMT_EXPECT_EQUAL(run(strided, {1, 32}, 256, 32, 8).read("in").sectors, 32u);
}

SIMT_SCENARIO(one_element_off) {
  SIMT_EXPECT_EQUAL(run(strided, {1, 32}, 33, 32, 1, 1).read("in").sectors, 5u);
}

SIMT_SCENARIO(broadcast) {
  const simt::GlobalTraffic read = run(strided, {1, 32}, 1, 32, 0).read("in");
  SIMT_EXPECT_EQUAL(read.sectors, 1u);
  SIMT_EXPECT_EQUAL(read.bytes, 128u);
}

SIMT_SCENARIO(vectors_of_sixteen_bytes) {
  const simt::Traffic traffic = run(vectors, {1, 32}, 128, 128, 1);
  SIMT_EXPECT_EQUAL(traffic.read("in").requests, 1u);
  SIMT_EXPECT_EQUAL(traffic.read("in").sectors, 16u);
  SIMT_EXPECT_EQUAL(traffic.written("out").requests, 1u);
  SIMT_EXPECT_EQUAL(traffic.written("out").bytes, 512u);
}

SIMT_SCENARIO(loop_of_requests) {
  const simt::GlobalTraffic read = run(loop, {1, 64}, 1024, 64, 1).read("in");
  SIMT_EXPECT_EQUAL(read.requests, 32u);
  SIMT_EXPECT_EQUAL(read.sectors, 128u);
}

SIMT_SCENARIO(several_passes) {
  const simt::GlobalTraffic read = run(twice, {3, 32}, 32, 96, 1).read("in");
  SIMT_EXPECT_EQUAL(read.sectors, 24u);
  SIMT_EXPECT_EQUAL(read.unique_sectors, 4u);
  SIMT_EXPECT_EQUAL(read.passes(), 6.0);
}

SIMT_SCENARIO(bank_conflicts) {
  SIMT_EXPECT_EQUAL(conflicts(banks<float>, 0), 0u);
  SIMT_EXPECT_EQUAL(conflicts(banks<float>, 1), 0u);
  SIMT_EXPECT_EQUAL(conflicts(banks<float>, 2), 1u);
  SIMT_EXPECT_EQUAL(conflicts(banks<float>, 3), 0u);
  SIMT_EXPECT_EQUAL(conflicts(banks<float>, 16), 15u);
  SIMT_EXPECT_EQUAL(conflicts(banks<float>, 32), 31u);
  SIMT_EXPECT_EQUAL(conflicts(banks<unsigned char>, 1), 0u);
  SIMT_EXPECT_EQUAL(conflicts(banks<double>, 1), 0u);
  SIMT_EXPECT_EQUAL(conflicts(banks<double>, 2), 2u);
  SIMT_EXPECT_EQUAL(conflicts(quads, 1), 0u);
  SIMT_EXPECT_EQUAL(conflicts(quads, 8), 28u);
}

SIMT_SCENARIO(sums_over_launches) {
  run(strided, {1, 32}, 32, 32, 1);
  run(strided, {1, 32}, 32, 32, 1);
  const simt::Traffic total = simt::total();
  SIMT_EXPECT_EQUAL(total.launches, 2u);
  SIMT_EXPECT_EQUAL(total.threads, 64u);
  SIMT_EXPECT_EQUAL(total.read("in").sectors, 8u);
  SIMT_EXPECT(simt::launches()[0].kernel.find("strided") != std::string::npos);
  SIMT_EXPECT(simt::hot_lines().find("traffic.cpp:") != std::string::npos);
  simt::clear_launches();
  SIMT_EXPECT_EQUAL(simt::total().launches, 0u);
}
