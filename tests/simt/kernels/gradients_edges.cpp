// needs: cuda/engine.cu cuda/gradients.cu cuda/guide.cu cuda/guide_sizes.cu
// needs plain: cpp/src/*.cpp -DPROTOSEG_ISA=baseline -DPROTOSEG_VERSION="" -DPROTOSEG_BUILD_TYPE=""
//
// Gradients at the edges: what is undefined, what is refused, and what crosses the memory bus.
#include "gradients.hpp"

using namespace gradients;

// ---- at the edges ------------------------------------------------------------------------------

namespace {

// Groups of image 0 without a prototype: of a feature that is no number, or of no background.
template <class T>
void undefined(Case c, bool left_out) {
  Gradient<T> gradient(c);
  const std::int64_t plane = count_of(c.feature_size.empty() ? c.size : c.feature_size);
  const std::int64_t voxels = count_of(c.size);
  gradient.features.set(c.group_channels * plane + 1, NAN);  // image 0, group 1
  for (std::int64_t i = 0; left_out && i < c.targets * voxels; ++i)
    gradient.grad.set(c.targets * voxels + i, 0.0);
  gradient.expect_the_cpus();
  double sum = 0.0;  // that it is as the CPU has it does not say that it is no NaN
  for (std::int64_t i = 0; i < c.group_channels * plane; ++i)
    sum += gradient.found[0][c.group_channels * plane + i];
  SIMT_EXPECT(left_out ? sum == 0.0 : std::isnan(sum));
  SIMT_EXPECT(std::isnan(gradient.found[1][0]) != left_out);
}

}  // namespace

SIMT_SCENARIO(an_undefined_group) {
  for (const Metric metric : {euclidean, cosine})
    for (const bool left_out : {false, true}) {
      undefined<float>(same_size({9, 12}, 3, 2, 2, metric), left_out);
      undefined<float>(resized({5, 8}, {9, 12}, 3, 2, 2, metric), left_out);
    }
}
SIMT_SCENARIO(a_target_without_background) {
  for (const bool apart : {false, true})
    for (const Metric metric : {euclidean, cosine}) {
      Case c = same_size({9, 12}, 2, 2, 3, metric);
      if (apart) c.feature_size = {5, 8};
      Gradient<float> gradient(c);
      for (std::int64_t i = 0; i < 9 * 12; ++i) {
        gradient.pred.set(9 * 12 + i, 1.0);  // image 0, target 1: nothing may come from it
        for (std::int64_t group = 0; group < 2; ++group)
          gradient.grad.set((group * 3 + 1) * 9 * 12 + i, 0.0);
      }
      gradient.expect_the_cpus();
      SIMT_EXPECT(std::isfinite(gradient.found[0][0]));
    }
}
SIMT_SCENARIO(a_voxel_of_zeros) {
  for (const bool apart : {false, true}) {
    Case c = same_size({9, 12}, 1, 4, 1, cosine);
    if (apart) c.feature_size = {5, 8}, c.size = {15, 24};
    Gradient<float> gradient(c);
    const std::int64_t plane = apart ? 40 : 108;
    for (std::int64_t channel = 0; channel < 4; ++channel)
      for (std::int64_t v = 0; v < 20; ++v) gradient.features.set(channel * plane + v, 0.0);
    gradient.expect_the_cpus();
    for (const double x : gradient.found[0]) SIMT_EXPECT(std::isfinite(x));
  }
}
SIMT_SCENARIO(what_comes_down_is_no_number) {  // nothing lies behind the last feature
  const Case c = resized({5, 8}, {9, 12}, 3, 2, 2, cosine);
  Gradient<float> gradient(c);
  gradient.grad.set(static_cast<std::int64_t>(gradient.grad.exact.size()) - 1, NAN);
  gradient.run();
  SIMT_EXPECT(std::isnan(gradient.found[0][gradient.features.exact.size() - 1]));
  SIMT_EXPECT(std::isfinite(gradient.found[0][0]));
}
SIMT_SCENARIO(an_invalid_guide) {
  Gradient<float> gradient(same_size({9, 12}, 1, 4, 1, euclidean));
  gradient.pred.set(5, 2.0);
  gradient.run();
  SIMT_EXPECT(std::isnan(gradient.found_margin[0]) && std::isnan(gradient.found[0][0]));
}

// ---- traffic -----------------------------------------------------------------------------------

namespace {

// Bytes of the sectors that all launches of the backward pass moved, over those of the features.
template <class T>
void expect_two_reads_and_one_write(const Case& c) {
  Gradient<T> gradient(c);
  gradient.run();
  const double bytes = static_cast<double>(gradient.features.exact.size() * sizeof(T));
  const simt::GlobalTraffic read = simt::total().read("features");
  const simt::GlobalTraffic written = simt::total().written("features gradient");
  SIMT_EXPECT(32.0 * read.sectors < 2.05 * bytes);
  SIMT_EXPECT_EQUAL(32 * written.sectors, static_cast<std::uint64_t>(bytes));
  SIMT_EXPECT(read.efficiency() > 0.95 && written.efficiency() > 0.99);
  SIMT_EXPECT_EQUAL(simt::total().global_atomics, 0u);
}

}  // namespace

SIMT_SCENARIO(two_reads_and_one_write) {
  for (const Metric metric : {euclidean, cosine}) {
    expect_two_reads_and_one_write<float>(same_size({64, 64}, 2, 8, 1, metric));
    expect_two_reads_and_one_write<Half>(same_size({64, 64}, 1, 16, 1, metric));
    Case c = same_size({64, 64}, 1, 16, 1, metric);
    c.order = Order::channels_last;
    expect_two_reads_and_one_write<float>(c);
  }
}
SIMT_SCENARIO(one_write_for_many_rows) {
  Gradient<float> gradient(same_size({64, 64}, 1, 8, 3, euclidean));  // six projections, in twos
  gradient.run();
  SIMT_EXPECT_EQUAL(32 * simt::total().written("features gradient").sectors,
                    gradient.features.exact.size() * 4);
}
SIMT_SCENARIO(one_read_for_the_features_alone) {
  Case c = same_size({64, 64}, 2, 8, 2, euclidean);
  c.wanted[1] = c.wanted[2] = false;
  Gradient<float> gradient(c);
  gradient.run();
  const double bytes = static_cast<double>(gradient.features.exact.size() * 4);
  SIMT_EXPECT(32.0 * simt::total().read("features").sectors < 1.05 * bytes);
}
SIMT_SCENARIO(what_is_kept_meanwhile_is_small) {
  for (const Metric metric : {euclidean, cosine}) {
    Case c = same_size({64, 64}, 1, 64, 1, metric);
    Gradient<float> gradient(c);
    gradient.run();
    SIMT_EXPECT(gradient.workspace_bytes < gradient.features.exact.size() * 4 / 4);
  }
}

// ---- refusals ----------------------------------------------------------------------------------

namespace {

template <class Call>
bool refused(Call call) {
  try {
    call();
  } catch (const Error&) {
    return true;
  }
  return false;
}

}  // namespace

SIMT_SCENARIO(what_does_not_fit_is_refused) {
  const Case c = same_size({5, 7}, 1, 4, 1, euclidean);
  const Values<float> features(shape_of(2, 4, c.size), Order::rows, "features", 0.0, 0.0);
  const Values<float> pred(shape_of(2, 1, c.size), Order::rows, "pred", 0.05, 0.95);
  const cuda::Guide guide(pred.on_device(), nullptr, nullptr, std::nullopt,
                          {take, give_back, nullptr}, nullptr);
  const Options options;
  Output<float> out(features, "out");
  const simt::DeviceArray<std::byte> workspace(1 << 20, "workspace");
  cuda::Call call;
  call.workspace = workspace.data();
  call.workspace_bytes = 1 << 20;
  const simt::DeviceArray<double> prototypes(std::vector<double>(16, 0.5), "prototypes");
  const simt::DeviceArray<float> grad(std::vector<float>(2 * 35, 1.0f), "grad");
  const auto backward = [&](const Gradients& gradients, const cuda::Call& with) {
    const Tape<float> tape = {nullptr, prototypes.data(), nullptr};
    cuda::margin_backward(guide, features.on_device(), options, tape,
                          static_cast<const float*>(grad.data()), gradients, with);
  };
  const Gradients sound = {&out.view, nullptr, nullptr};
  SIMT_EXPECT(!refused([&] { backward(sound, call); }));
  SIMT_EXPECT(refused([&] { backward({nullptr, nullptr, &out.view}, call); }));  // no mask
  cuda::Call small = call;
  small.workspace_bytes = 256;
  SIMT_EXPECT(refused([&] { backward(sound, small); }));
  out.view.dtype = DType::float64;
  SIMT_EXPECT(refused([&] { backward(sound, call); }));
  out.view.dtype = DType::float32;
  out.view.shape[1] = 3;
  SIMT_EXPECT(refused([&] { backward(sound, call); }));
  const Tape<double> wide;
  SIMT_EXPECT(refused([&] { cuda::margin(guide, features.on_device(), options, wide, call); }));
}
