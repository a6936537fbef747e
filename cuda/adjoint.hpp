// Host side of the adjoint of resizing, axis by axis.
#pragma once

#include "grid.hpp"
#include "guide_weights.cuh"

namespace protoseg::cuda {

struct AxisSizes {
  std::int64_t n_in, n_out;
};

// Along y or z: in [outer, n.n_out, inner] becomes out [outer, n.n_in, inner].
inline void adjoint_axis(const AxisTaps& axis, std::int64_t outer, const AxisSizes& n,
                         std::int64_t inner, const double* in, double* out, Stream stream) {
  AdjointAxisParams p{};
  p.axis = axis;
  p.outer = outer;
  p.n_out = n.n_out;
  p.n_in = n.n_in;
  p.inner = inner;
  p.in = in;
  p.out = out;
  run_elements(adjoint_axis_kernel<>, outer * n.n_in * inner, stream, p);
}

}  // namespace protoseg::cuda
