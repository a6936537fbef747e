// needs: cuda/guide.cu cuda/guide_sizes.cu
// needs plain: cpp/src/validate.cpp
//
// Units of several layers in one launch, and which layers those are.
#include "layer_list.hpp"

#include "sweep_problem.hpp"
#include "zeroed.hpp"

using namespace direct;

namespace {

// Layers of one guide, where their counts go, and the problems as drivers have them.
class Layers {
 public:
  explicit Layers(const std::vector<Extent>& sizes, Layout layout = Layout::rows)
      : found(sizes.size()) {
    // So few that the layers' 18 units each keep them busy together, but none alone.
    simt::device().multiprocessors = 19;
    const auto guiding = std::make_shared<const GuideProblem>(plane_of(33, 50));
    for (const Extent& size : sizes)
      problem.push_back(std::make_unique<SweepProblem>(size, guiding, layout));
  }

  const protoseg::cuda::GuideState& state() const {
    return *problem.front()->guiding->guide.state();
  }

  std::vector<Sizes> all_sizes() const {
    std::vector<Sizes> all;
    protoseg::Options options;
    options.groups = channels;
    for (const auto& one : problem)
      all.emplace_back(state(), view_of(one->features, channels, DType::float32), options);
    return all;
  }

  std::vector<std::optional<Plan>> plans() const {
    return plan_list(all_sizes(), state().device, {});
  }

  // Calls add(problem, plan, outputs) for every layer.
  template <class Add>
  void each(Add add) const {
    const protoseg::cuda::Call call;
    const std::vector<Sizes> all = all_sizes();
    for (std::size_t i = 0; i < all.size(); ++i)
      add(Problem<float>(state(), all[i], call), *plans()[i], found[i].out);
  }

  void expect_all_counts() const {
    for (std::size_t i = 0; i < problem.size(); ++i) expect_counts(*problem[i], found[i], channels);
  }

  std::vector<std::unique_ptr<SweepProblem>> problem;
  std::vector<Found> found;
};

// The third one is of two segments.
const std::vector<Extent> several = {plane_of(9, 12), plane_of(33, 11), plane_of(95, 90),
                                     plane_of(5, 7)};

// Scores the layers, and says in how many launches.
std::size_t count(const Layers& layers) {
  layers.each([](const auto&, const auto&, const auto&) {});  // what the guide keeps is made
  simt::clear_launches();
  ListLaunch<float> list(nullptr);
  layers.each([&](const auto& problem, const Plan& plan, const CountOutputs& out) {
    list.add(problem, plan, out);
  });
  list.start();
  layers.expect_all_counts();
  return simt::launches().size();
}

// How many of the layers go into one launch.
std::int64_t together(const std::vector<Sizes>& sizes, const Device& device,
                      const Tuning& tuning = {}) {
  std::int64_t count = 0;
  for (const auto& plan : plan_list(sizes, device, tuning)) count += plan.has_value();
  return count;
}

}  // namespace

SIMT_SCENARIO(of_several_sizes) { SIMT_EXPECT_EQUAL(count(Layers(several)), 1u); }
SIMT_SCENARIO(of_channels_last) {
  SIMT_EXPECT_EQUAL(count(Layers(several, Layout::channels_last)), 1u);
}
SIMT_SCENARIO(more_than_a_launch_holds) {
  constexpr std::size_t most = most_listed<float>;
  const std::vector<Extent> sizes(2 * most + 1, plane_of(3, 4));
  SIMT_EXPECT_EQUAL(count(Layers(sizes)), 3u);
  SIMT_EXPECT_EQUAL(count(Layers({sizes.begin(), sizes.begin() + most})), 1u);
  SIMT_EXPECT(sizeof(LayerListParams<float>) <= most_parameter_bytes);
  SIMT_EXPECT(sizeof(LayerListParams<double>) <= most_parameter_bytes);
}
// A block has tiles of several layers, and passes over whole layers.
SIMT_SCENARIO(fewer_blocks_than_tiles) {
  const Layers layers(several);
  for (const std::int64_t blocks : {1, 25}) {
    LayerListParams<float> p{};
    std::int64_t shared_bytes = 0;
    const Layers one(several);
    one.each([&](const auto& problem, const Plan& plan, const CountOutputs& out) {
      p.layer[p.layers] = units_params(problem, plan, all_tiles(problem, plan), out);
      p.first[p.layers + 1] = p.first[p.layers] + p.layer[p.layers].tiles.count;
      shared_bytes = std::max(shared_bytes, plan.shared_bytes);
      ++p.layers;
    });
    SIMT_EXPECT(p.first[p.layers] > blocks);
    start(layer_list_kernel<float>, blocks, p, shared_bytes);
    one.expect_all_counts();
  }
}
SIMT_SCENARIO(planes_are_read_once) {
  const Layers layers({plane_of(16, 32), plane_of(24, 32)});
  SIMT_EXPECT_EQUAL(count(layers), 1u);
  SIMT_EXPECT(features_read().passes() < 1.05);
}
SIMT_SCENARIO(who_goes_together) {
  const Layers layers(several);
  const Device device = layers.state().device;
  std::vector<Sizes> sizes = layers.all_sizes();
  SIMT_EXPECT_EQUAL(together(sizes, device), 4);
  for (const Strategy strategy : {Strategy::resident, Strategy::split})
    SIMT_EXPECT_EQUAL(together(sizes, device, tuned(strategy, 1)), 0);

  Device large = device;
  large.multiprocessors = 18;
  SIMT_EXPECT_EQUAL(together({sizes[0]}, large), 0);
  SIMT_EXPECT_EQUAL(together({sizes[0], sizes[1]}, large), 2);
  large.multiprocessors = 4 * 18;
  SIMT_EXPECT_EQUAL(together(sizes, large), 4);
  ++large.multiprocessors;
  SIMT_EXPECT_EQUAL(together(sizes, large), 0);
  Device narrow = device;  // four blocks of the second layer, and two of the third
  narrow.processor_bytes = 3 * (95 * 90 * 4 + Plan::segment_bytes + Plan::static_bytes);
  SIMT_EXPECT_EQUAL(together(sizes, narrow), 3);

  const double given = 0.0;
  sizes[0].given = {&given, &given};
  SIMT_EXPECT_EQUAL(together(sizes, device), 3);
  sizes[1].group_channels = 2;
  SIMT_EXPECT_EQUAL(together(sizes, device), 2);
  sizes[2].resized = false;
  SIMT_EXPECT_EQUAL(together(sizes, device), 0);
}
// Layers of another dtype are another launch.
SIMT_SCENARIO(dtypes_go_by_themselves) {
  const Layers layers(several);
  const Device device = layers.state().device;
  std::vector<Sizes> sizes = layers.all_sizes();
  sizes[3].features.dtype = DType::float16;
  SIMT_EXPECT_EQUAL(together(sizes, device), 3);
  SIMT_EXPECT(!plan_list(sizes, device, {})[3]);
  sizes[2].features.dtype = DType::float16;
  SIMT_EXPECT_EQUAL(together(sizes, device), 4);
}
// Arrays that follow each other are one call; to read what nobody wrote is a fault.
SIMT_SCENARIO(counts_start_at_zero_wherever_they_lie) {
  const simt::DeviceArray<std::int64_t> together(12, "counts"), apart(5, "counts");
  ZeroedArrays zeroed(nullptr);
  zeroed.add(together.data(), 3);
  zeroed.add(together.data() + 3, 3);
  zeroed.add_if_next(together.data() + 6, 3);
  zeroed.add_if_next(together.data() + 10, 2);  // a gap before it
  zeroed.add(apart.data(), 2);
  zeroed.add(apart.data() + 3, 2);
  zeroed.clear();
  const auto expect_zeros = [](const std::int64_t* first, std::size_t count) {
    std::vector<std::int64_t> found(count, -1);
    simt::download(found.data(), first, count * sizeof(std::int64_t));
    for (const std::int64_t value : found) SIMT_EXPECT_EQUAL(value, 0);
  };
  expect_zeros(together.data(), 9);
  expect_zeros(apart.data(), 2);
  expect_zeros(apart.data() + 3, 2);
  for (const std::int64_t* unwritten : {together.data() + 9, apart.data() + 2}) {
    bool fault = false;
    try {
      expect_zeros(unwritten, 1);
    } catch (const std::exception&) {
      fault = true;
    }
    SIMT_EXPECT(fault);
  }
}
