// Units of several layers in one launch: what costs most of small layers is to launch them, and one
// alone leaves most of a device idle.
#pragma once

#include <cstdint>

#include "units.cuh"

namespace protoseg::cuda {

// As many as the parameters of a kernel may hold; more layers are more launches.
template <class T>
constexpr int most_listed = static_cast<int>((most_parameter_bytes - 2 * sizeof(std::int64_t)) /
                                             (sizeof(UnitsParams<T>) + sizeof(std::int64_t)));

template <class T>
struct LayerListParams {
  std::int64_t layers;
  std::int64_t first[most_listed<T> + 1];  // layer k has the list's tiles [first[k], first[k + 1])
  UnitsParams<T> layer[most_listed<T>];    // resident in single blocks
};

// One block per tile of any layer. Layers have to be of another size than the guide.
template <class T>
__global__ void __launch_bounds__(threads, units_blocks<T, true>)
    layer_list_kernel(const __grid_constant__ LayerListParams<T> p) {
  double* sums = dynamic_shared<double>();
  std::int64_t layer = 0;
  for (std::int64_t i = blockIdx.x; i < p.first[p.layers]; i += gridDim.x) {
    while (i >= p.first[layer + 1]) ++layer;
    const UnitsParams<T>& of = p.layer[layer];
    sweep_tile<T, true>(of, i - p.first[layer], sums, staged_behind(sums, of));
  }
}

}  // namespace protoseg::cuda
