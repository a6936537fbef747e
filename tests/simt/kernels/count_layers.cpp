// needs: cuda/engine.cu cuda/guide.cu cuda/guide_sizes.cu
// needs plain: cpp/src/validate.cpp
//
// The public call for several layers, as C++ has it: either reference may be left out, and arrays
// may lie anywhere. From Python, see test_layer_list.py.
#include "protoseg/cuda.hpp"

#include "sweep_problem.hpp"

using namespace direct;

namespace {

protoseg::cuda::CountArrays arrays_of(const Found& found) {
  return {found.out.tp[1], found.out.predicted[1], found.out.actual[1], nullptr,
          found.out.defined[1]};
}

// Scores a layer and its units, and a smaller layer's units, against one reference.
void count(bool output) {
  const auto guiding = std::make_shared<const GuideProblem>(plane_of(20, 33));
  const SweepProblem large(plane_of(20, 33), guiding, Layout::rows);
  const SweepProblem small(plane_of(7, 9), guiding, Layout::rows);
  const Found of_layer, of_units, of_small;
  std::vector<protoseg::cuda::CountArrays> arrays;
  for (const Found* found : {&of_layer, &of_units, &of_small}) arrays.push_back(arrays_of(*found));
  std::vector<protoseg::cuda::LayerCounts> layers;
  for (std::size_t i = 0; i < 3; ++i) {
    protoseg::Options options;
    options.groups = i == 0 ? 1 : channels;
    const auto& features = i < 2 ? large.features : small.features;
    layers.push_back({view_of(features, channels, DType::float32), options,
                      output ? nullptr : &arrays[i], output ? &arrays[i] : nullptr});
  }
  protoseg::cuda::Call call;
  call.workspace_bytes = workspace_bytes(guiding->guide, layers);
  const simt::DeviceArray<std::byte> workspace(call.workspace_bytes, "workspace");
  call.workspace = workspace.data();
  sa_counts(guiding->guide, layers, call);
  expect_counts(large, of_layer, 1);
  expect_counts(large, of_units, channels);
  expect_counts(small, of_small, channels);
}

}  // namespace

SIMT_SCENARIO(against_the_output_alone) { count(true); }
SIMT_SCENARIO(against_the_target_alone) { count(false); }
