// What a launch may ask for.
#include "micro.hpp"

namespace {

using micro::Params;

__global__ void nothing(Params) {}

template <int count>
__global__ void static_array(Params p) {
  PROTOSEG_SHARED(double, values, count);
  values[threadIdx.x] = 1;
  p.out[threadIdx.x] = 1;
}

void launch(const micro::pc::LaunchShape& shape) { micro::pc::launch(nothing, shape, nullptr, {}); }

}  // namespace

SIMT_SCENARIO(largest_shapes) {
  simt::options().blocks = {0};
  launch({dim3(0x7fffffff, 65535, 65535), dim3(1024)});
  launch({dim3(8), dim3(16, 1, 64), 8, 227 << 10});
}
SIMT_FAULT(grid_too_long_in_y, "launch limits: a grid of 1 x 65536 x 1") {
  launch({dim3(1, 65536), 32});
}
SIMT_FAULT(grid_too_long_in_x, "launch limits: a grid of 2147483648") {
  launch({dim3(0x80000000u), 32});
}
SIMT_FAULT(grid_empty, "launch limits: an empty grid") { launch({dim3(0), 32}); }
SIMT_FAULT(block_too_large, "launch limits: a block of 1025") { launch({1, 1025}); }
SIMT_FAULT(block_empty, "launch limits: a block of 0") { launch({1, dim3(0)}); }
SIMT_FAULT(cluster_too_large, "launch limits: a cluster of 16") { launch({16, 32, 16}); }
SIMT_FAULT(cluster_does_not_divide, "no multiple of the cluster") { launch({6, 32, 4}); }
SIMT_FAULT(cluster_on_an_old_device, "compute capability 9.0") {
  simt::device().major = 8;
  launch({8, 32, 4});
}
SIMT_FAULT(shared_not_asked_for, "were asked for with cudaFuncSetAttribute") {
  simt::launch(nothing, {1, 32, 1, 49153}, nullptr, Params{});
}
SIMT_FAULT(shared_too_large, "launch limits: 232449 bytes of shared memory") {
  simt::launch(nothing, {1, 32, 1, 232449}, nullptr, Params{});
}
SIMT_SCENARIO(shared_just_beyond_the_default) { launch({1, 32, 1, 49153}); }
SIMT_SCENARIO(shared_refused_as_an_error) {
  SIMT_EXPECT_EQUAL(micro::pc::launch(nothing, {1, 32, 1, 232449}, nullptr, {}),
                    cudaErrorInvalidValue);
}
SIMT_FAULT(static_array_too_large, "bytes of static arrays; at most 49152") {
  micro::run(static_array<6145>, {1, 32}, 1, 32);
}
SIMT_SCENARIO(static_array_largest) { micro::run(static_array<6144>, {1, 32}, 1, 32); }
