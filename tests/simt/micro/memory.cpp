// Where accesses may go, and what must have been written before.
#include "micro.hpp"

namespace {

using micro::Params;

__device__ inline int thread() { return static_cast<int>(threadIdx.x); }

template <int offset>
__global__ void global_index(Params p) {
  p.out[thread()] = p.in[thread() + offset];
}

template <int offset>
__global__ void global_store(Params p) {
  p.out[thread() + offset] = p.in[0];
}

template <int count>
__global__ void shared_index(Params p) {
  PROTOSEG_SHARED(int, first, 32);
  PROTOSEG_SHARED(int, second, 32);
  second[thread()] = 1;
  for (int i = thread(); i < count; i += 32) first[i] = i;
  __syncthreads();
  p.out[thread()] = first[thread()] + second[thread()];
}

template <int count>
__global__ void dynamic_index(Params p) {
  int* values = micro::pc::dynamic_shared<int>();
  for (int i = thread(); i < count; i += 32) values[i] = i;
  __syncthreads();
  p.out[thread()] = values[31 - thread()];
}

template <bool planted>
__global__ void shared_unwritten(Params p) {
  PROTOSEG_SHARED(int, values, 64);
  if (!planted || thread() != 7) values[thread()] = 1;
  __syncthreads();
  p.out[thread()] = values[(thread() + 1) % 32];
}

template <bool planted>
__global__ void scratch_unwritten(Params p) {
  if (!planted || thread() != 7) p.out[thread()] = 1;
  __syncthreads();
  const int next = p.out[(thread() + 1) % 32];
  __syncthreads();
  p.out[thread()] = next;
}

template <bool planted>
__global__ void output_unwritten(Params p) {
  if (!planted || thread() != 7) p.out[thread()] = 1;
}

template <class T>
__global__ void vector_load(Params p) {
  const T v = reinterpret_cast<const T*>(p.in + p.n)[thread()];
  p.out[thread()] = v.x + v.y;
}

template <class T>
__global__ void vector_store_shared(Params p) {
  PROTOSEG_SHARED(int, values, 132);
  reinterpret_cast<T*>(values)[thread()] = reinterpret_cast<const T*>(p.in)[thread()];
  __syncthreads();
  p.out[thread()] = values[thread()];
}

__global__ void vector_aligned_shared(Params p) {
  PROTOSEG_SHARED(int4, values, 32);
  values[thread()] = reinterpret_cast<const int4*>(p.in)[thread()];
  __syncthreads();
  p.out[thread()] = values[31 - thread()].z;
}

template <bool planted>
__global__ void uninitialised(Params p) {
  int sum;
  if (!planted) sum = 0;
  for (int i = 0; i < p.n; ++i) sum += p.in[i];
  p.out[thread()] = sum;
}

const int table[4] = {3, 1, 4, 1};
int variable = 5;

__global__ void constant_table(Params p) { p.out[thread()] = table[p.in[thread()] % 4]; }
__global__ void host_variable(Params p) { p.out[thread()] = variable + p.n; }

template <bool planted>
__global__ void pointer_to_local(Params p) {
  PROTOSEG_SHARED(const int*, pointers, 32);
  int own[4] = {p.in[thread()], 1, 2, 3};
  pointers[thread()] = &own[p.n % 4];
  __syncthreads();
  p.out[thread()] = *pointers[planted ? 31 - thread() : thread()];
}

__global__ void whole_struct(Params p) {
  struct Five {
    int values[5];
  };
  Five five = reinterpret_cast<const Five*>(p.in)[thread()];
  std::memcpy(p.out + 5 * thread(), &five, sizeof five);
}

template <class Index>
__global__ void far_away(Params p) {
  p.out[thread()] = p.in[static_cast<Index>(blockIdx.x) * (32 + p.n) + thread()];
}

__global__ void long_copy(Params p) {
  std::memcpy(p.out, p.in, sizeof(int) * static_cast<unsigned>(p.n));
}

}  // namespace

SIMT_SCENARIO(in_bounds) { micro::run(global_index<0>, {1, 32}, 32, 32); }
SIMT_FAULT(read_past_the_end, "out of bounds: reads 4 bytes, 0 bytes after the end of 'in'") {
  micro::run(global_index<1>, {1, 32}, 32, 32);
}
SIMT_FAULT(read_before_the_beginning,
           "out of bounds: reads 4 bytes, 4 bytes before the beginning of 'in'") {
  micro::run(global_index<-1>, {1, 32}, 32, 32);
}
SIMT_FAULT(write_past_the_end, "out of bounds: writes 4 bytes") {
  micro::run(global_store<3>, {1, 32}, 32, 32);
}
SIMT_FAULT(write_far_past_the_end, "out of bounds: writes 4 bytes") {
  micro::run(global_store<1000>, {1, 32}, 32, 32);
}
SIMT_FAULT(read_half_outside, "out of bounds: reads 16 bytes") {
  simt::DeviceArray<int> in(std::vector<int>(7, 1), "in");
  simt::DeviceArray<int> out(2, "out");
  micro::pc::launch(vector_load<int4>, {1, 2}, nullptr, {in.data(), out.data(), 0});
}
SIMT_FAULT(use_after_release, "out of bounds") {
  simt::DeviceArray<int> out(32, "out");
  int* in = static_cast<int*>(simt::allocate(128, "in"));
  simt::release(in);
  micro::pc::launch(global_index<0>, {1, 32}, nullptr, {in, out.data(), 0});
}

SIMT_SCENARIO(shared_in_bounds) { micro::run(shared_index<32>, {1, 32}, 1, 32); }
SIMT_FAULT(shared_past_the_end,
           "out of bounds: writes 4 bytes, 0 bytes after the end of shared 'first'") {
  micro::run(shared_index<33>, {1, 32}, 1, 32);
}
SIMT_SCENARIO(dynamic_in_bounds) { micro::run(dynamic_index<32>, {1, 32, 1, 128}, 1, 32); }
SIMT_FAULT(dynamic_past_the_end,
           "out of bounds: writes 4 bytes, 0 bytes after the end of shared 'dynamic") {
  micro::run(dynamic_index<33>, {1, 32, 1, 128}, 1, 32);
}
SIMT_FAULT(dynamic_not_asked_for, "out of bounds") {
  micro::run(dynamic_index<32>, {1, 32}, 1, 32);
}

SIMT_SCENARIO(shared_written) { micro::run(shared_unwritten<false>, {1, 32}, 1, 32); }
SIMT_FAULT(shared_never_written, "unwritten memory: reads 4 bytes at byte 28 of shared 'values'") {
  micro::run(shared_unwritten<true>, {1, 32}, 1, 32);
}
SIMT_SCENARIO(scratch_written) { micro::run(scratch_unwritten<false>, {1, 32}, 1, 32); }
SIMT_FAULT(scratch_never_written, "unwritten memory: reads 4 bytes at byte 28 of 'out'") {
  micro::run(scratch_unwritten<true>, {1, 32}, 1, 32);
}
SIMT_SCENARIO(output_written) { micro::run(output_unwritten<false>, {1, 32}, 1, 32); }
SIMT_FAULT(output_never_written, "unwritten memory: the host reads 'out', whose byte 28 of 128") {
  micro::run(output_unwritten<true>, {1, 32}, 1, 32);
}

SIMT_SCENARIO(aligned_vectors) {
  simt::DeviceArray<int> in(std::vector<int>(68, 1), "in");
  simt::DeviceArray<int> out(16, "out");
  for (int n : {0, 4})
    micro::pc::launch(vector_load<int4>, {1, 16}, nullptr, {in.data(), out.data(), n});
  for (int n : {0, 2, 4})
    micro::pc::launch(vector_load<int2>, {1, 16}, nullptr, {in.data(), out.data(), n});
  SIMT_EXPECT_EQUAL(simt::launches()[0].read("in").requests, 1u);
  SIMT_EXPECT_EQUAL(simt::launches()[0].read("in").bytes, 256u);
}
SIMT_FAULT(misaligned_16, "misaligned: reads 16 bytes at once") {
  micro::run(vector_load<int4>, {1, 8}, 1, 8);
}
SIMT_FAULT(misaligned_8, "misaligned: reads 8 bytes at once") {
  micro::run(vector_load<int2>, {1, 8}, 33, 8);
}
SIMT_FAULT(misaligned_array, "misaligned: reads 16 bytes at once") {
  simt::DeviceArray<int> in(std::vector<int>(64, 1), "in", 8);
  simt::DeviceArray<int> out(16, "out");
  micro::pc::launch(vector_load<int4>, {1, 16}, nullptr, {in.data(), out.data(), 0});
}
// An array of int is aligned for an int, wherever the compiler happens to put it.
SIMT_FAULT(misaligned_shared, "misaligned: writes 16 bytes at once") {
  micro::run(vector_store_shared<int4>, {1, 32}, 128, 32);
}
SIMT_SCENARIO(aligned_shared) {
  SIMT_EXPECT_EQUAL(micro::run(vector_aligned_shared, {1, 32}, 128, 32)[31], 2);
}

SIMT_FAULT(accumulator_uninitialised, "") {
  SIMT_EXPECT_EQUAL(micro::run(uninitialised<true>, {1, 32}, 5, 32)[3], 10);
}
SIMT_SCENARIO(accumulator_initialised) {
  SIMT_EXPECT_EQUAL(micro::run(uninitialised<false>, {1, 32}, 5, 32)[3], 10);
}

SIMT_SCENARIO(constants_may_be_read) {
  SIMT_EXPECT_EQUAL(micro::run(constant_table, {1, 32}, 32, 32)[2], 4);
}
SIMT_FAULT(host_variable_is_read, "host memory: reads 4 bytes") {
  variable += simt::options().seed > 100;
  micro::run(host_variable, {1, 32}, 1, 32);
}
SIMT_FAULT(host_pointer, "host memory: reads 4 bytes") {
  std::vector<int> in(32, 1);
  simt::DeviceArray<int> out(32, "out");
  micro::pc::launch(global_index<0>, {1, 32}, nullptr, {in.data(), out.data(), 0});
}
SIMT_FAULT(null_pointer, "null pointer: reads 4 bytes") {
  simt::DeviceArray<int> out(32, "out");
  micro::pc::launch(global_index<0>, {1, 32}, nullptr, {nullptr, out.data(), 0});
}
SIMT_FAULT(local_variable_of_another_thread, "local memory: reads 4 bytes") {
  micro::run(pointer_to_local<true>, {1, 32}, 32, 32);
}
SIMT_SCENARIO(own_local_variable) { micro::run(pointer_to_local<false>, {1, 32}, 32, 32); }

SIMT_SCENARIO(structs_and_copies) {
  const std::vector<int> out = micro::run(whole_struct, {1, 8}, 40, 40);
  for (int i = 0; i < 40; ++i) SIMT_EXPECT_EQUAL(out[static_cast<std::size_t>(i)], i);
  SIMT_EXPECT_EQUAL(micro::run(long_copy, {1, 1}, 300, 300)[299], 299);
}
SIMT_FAULT(struct_past_the_end, "out of bounds: reads") {
  micro::run(whole_struct, {1, 8}, 39, 40);
}
SIMT_FAULT(copy_past_the_end, "out of bounds: writes") { micro::run(long_copy, {1, 1}, 300, 299); }

// Five gigabytes of which little is touched.
SIMT_SCENARIO(far_into_a_huge_array) {
  const auto in = simt::DeviceArray<int>::zeros(std::size_t{5} << 28, "in");
  const simt::DeviceArray<int> out(32, "out");
  simt::options().blocks = {40000000};
  micro::pc::launch(far_away<long long>, {41000000, 32}, nullptr, {in.data(), out.data(), 0});
  SIMT_EXPECT_EQUAL(out.download()[31], 0);
}
SIMT_FAULT(index_of_32_bits, "out of bounds: reads|undefined behaviour: a product") {
  const auto in = simt::DeviceArray<int>::zeros(std::size_t{5} << 28, "in");
  const simt::DeviceArray<int> out(32, "out");
  simt::options().blocks = {500000};
  micro::pc::launch(far_away<int>, {41000000, 32}, nullptr, {in.data() + 8, out.data(), 5000});
}

SIMT_FAULT(upload_past_the_end, "out of bounds: upload of 8 bytes") {
  simt::DeviceArray<int> a(1, "a");
  const int values[2] = {};
  cudaMemcpyAsync(a.data(), values, 8, cudaMemcpyHostToDevice, nullptr);
}
SIMT_FAULT(copy_in_the_wrong_direction, "the source is no device memory") {
  simt::DeviceArray<int> a(1, "a");
  const int value = 0;
  cudaMemcpyAsync(a.data(), &value, 4, cudaMemcpyDeviceToDevice, nullptr);
}
SIMT_FAULT(host_code_reads_device_memory, "host code touches device memory") {
  simt::DeviceArray<int> a(1, "a");
  a.fill_bytes(0);
  SIMT_EXPECT(a.data()[0] == 0);
}
