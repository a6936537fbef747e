// What C++ leaves undefined.
#include "micro.hpp"

namespace {

using micro::Params;

__device__ inline int thread() { return static_cast<int>(threadIdx.x); }

template <class Index>
__global__ void product(Params p) {
  const Index index = static_cast<Index>(p.n) * 70000 * 70000;
  p.out[thread()] = static_cast<int>(index >> 20);
}

template <class Index>
__global__ void sum(Params p) {
  const Index top = 2147483000;
  p.out[thread()] = static_cast<int>((top + 1000 * p.n) % 1000);
}

__global__ void shift(Params p) { p.out[thread()] = 1 << p.in[thread()]; }
__global__ void divide(Params p) { p.out[thread()] = 7 / p.in[thread()]; }

__global__ void local_array(Params p) {
  int values[4] = {1, 2, 3, 4};
  p.out[thread()] = values[p.in[thread()]];
}

__global__ void float_to_int(Params p) {
  p.out[thread()] = static_cast<int>(static_cast<float>(p.n) * 1e10f);
}

}  // namespace

SIMT_FAULT(product_overflows,
           "undefined behaviour: a product of signed integers overflows at undefined.cpp") {
  micro::run(product<int>, {1, 1}, 1, 1);
}
SIMT_SCENARIO(product_in_64_bits) {
  SIMT_EXPECT_EQUAL(micro::run(product<long long>, {1, 1}, 1, 1)[0], 4673);
}
SIMT_FAULT(sum_overflows, "an addition of signed integers overflows") {
  micro::run(sum<int>, {1, 1}, 1, 1);
}
SIMT_SCENARIO(sum_in_64_bits) { micro::run(sum<long long>, {1, 1}, 1, 1); }
SIMT_FAULT(shift_too_far, "a shift by") { micro::run(shift, {1, 33}, 33, 33); }
SIMT_SCENARIO(shift_in_range) { micro::run(shift, {1, 31}, 31, 31); }
SIMT_FAULT(division_by_zero, "division by zero") { micro::run(divide, {1, 1}, 1, 1); }
SIMT_FAULT(index_beyond_local_array, "an index beyond the array") {
  micro::run(local_array, {1, 5}, 5, 5);
}
SIMT_SCENARIO(index_in_local_array) { micro::run(local_array, {1, 4}, 4, 4); }
SIMT_FAULT(float_too_large_for_int, "a float that its integer type cannot hold") {
  micro::run(float_to_int, {1, 1}, 1, 1);
}
