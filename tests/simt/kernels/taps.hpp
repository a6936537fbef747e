// What scenarios of resizing share.
#pragma once

#include "direct.hpp"
#include "guide_cells.cuh"

namespace direct {

// Taps of one axis, made by the kernel.
struct DeviceTaps {
  DeviceTaps(std::int64_t in, std::int64_t out, Interpolation interpolation = Interpolation::linear,
             bool align_corners = false)
      : n_in(in),
        n_out(out),
        lower(n_out, "lower"),
        upper(n_out, "upper"),
        weight(n_out, "weight"),
        exact(n_out, "exact"),
        begin(n_in + 1, "begin") {
    TapsParams p{};
    p.n_in = n_in;
    p.n_out = n_out;
    p.interpolation = interpolation;
    p.align_corners = align_corners;
    p.lower = lower.data();
    p.upper = upper.data();
    p.weight = weight.data();
    p.exact = exact.data();
    p.begin = begin.data();
    start(taps_kernel<>, 1, p);
    for (std::int64_t o = 0; o < n_out; ++o)
      tap.push_back(resize_tap(o, n_in, n_out, interpolation, align_corners));
  }
  AxisTaps taps() const {
    return {lower.data(), upper.data(), weight.data(), exact.data(), begin.data()};
  }
  void expect_taps() const {
    const auto l = lower.download(), u = upper.download(), b = begin.download();
    const auto e = exact.download();
    const auto w = weight.download();
    for (std::int64_t o = 0; o < n_out; ++o) {
      SIMT_EXPECT_EQUAL(l[o], tap[o].lower);
      SIMT_EXPECT_EQUAL(u[o], tap[o].upper);
      SIMT_EXPECT_EQUAL(e[o], tap[o].weight);
      SIMT_EXPECT_EQUAL(w[o], static_cast<float>(tap[o].weight));
    }
    for (std::int64_t k = 0; k <= n_in; ++k) {
      std::int64_t before = 0;
      while (before < n_out && tap[before].lower < k) ++before;
      SIMT_EXPECT_EQUAL(b[k], before);
    }
  }

  std::int64_t n_in, n_out;
  std::vector<Tap> tap;
  simt::DeviceArray<int> lower, upper;
  simt::DeviceArray<float> weight;
  simt::DeviceArray<double> exact;
  simt::DeviceArray<int> begin;
};

}  // namespace direct
