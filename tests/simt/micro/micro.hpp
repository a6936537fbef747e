// What the small kernels share. Each takes `planted`: with the bug, or without.
#pragma once

#include <simt/scenario.hpp>

#include "launch.cuh"

namespace micro {

namespace pc = protoseg::cuda;

struct Params {
  const int* in;
  int* out;
  int n;
};

using Kernel = void (*)(Params);

// in = 0, 1, 2, ...; out is unwritten.
inline std::vector<int> run(Kernel kernel, const pc::LaunchShape& shape, int n_in, int n_out) {
  std::vector<int> values(static_cast<std::size_t>(n_in));
  for (int i = 0; i < n_in; ++i) values[static_cast<std::size_t>(i)] = i;
  simt::DeviceArray<int> in(values, "in");
  simt::DeviceArray<int> out(static_cast<std::size_t>(n_out), "out");
  pc::launch(kernel, shape, nullptr, Params{in.data(), out.data(), n_in});
  return out.download();
}

}  // namespace micro
