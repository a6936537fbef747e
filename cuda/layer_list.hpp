// Host side of a list of layers: which ones go into one launch, and that launch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "layer_list.cuh"
#include "unit_sweep.hpp"

namespace protoseg::cuda {

// How a layer goes into one launch with others, if it can.
inline std::optional<Plan> listed_plan(const Sizes& sizes, const Device& device,
                                       const Tuning& tuning) {
  const bool asked = tuning.strategy == Strategy::automatic;
  if (!asked || sizes.group_channels != 1 || sizes.has_prototypes()) return std::nullopt;
  return with_type(sizes.features.dtype,
                   [&](auto type) { return shared_plan(sizes.sweep<decltype(type)>(), device); });
}

// For every layer its plan, if it goes into one launch with those of its dtype; none for the
// others, which are scored one after the other.
inline std::vector<std::optional<Plan>> plan_list(const std::vector<Sizes>& layers,
                                                  const Device& device, const Tuning& tuning) {
  struct Together {
    std::int64_t layers = 0, tiles = 0;
    bool pays(const Device& d) const { return layers > 1 && tiles >= d.multiprocessors; }
  };
  const auto dtype = [&](std::size_t i) { return layers[i].features.dtype; };
  std::map<DType, Together> of_dtype;
  std::vector<std::optional<Plan>> plans;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    plans.push_back(listed_plan(layers[i], device, tuning));
    if (!plans[i]) continue;
    Together& together = of_dtype[dtype(i)];
    ++together.layers;
    together.tiles += layers[i].images * divide_up(layers[i].channels, plans[i]->units);
  }
  for (std::size_t i = 0; i < layers.size(); ++i)
    if (plans[i] && !of_dtype[dtype(i)].pays(device)) plans[i].reset();
  return plans;
}

// Collects layers, and launches as many as fit.
template <class T>
class ListLaunch {
 public:
  explicit ListLaunch(Stream stream) : stream_(stream) {}

  void add(const Problem<T>& problem, const Plan& plan, const CountOutputs& out) {
    UnitsParams<T>& p = params_.layer[params_.layers];
    p = units_params(problem, plan, all_tiles(problem, plan), out);
    params_.first[params_.layers + 1] = params_.first[params_.layers] + p.tiles.count;
    shared_bytes_ = std::max(shared_bytes_, plan.shared_bytes);
    if (++params_.layers == most_listed<T>) start();
  }

  // What was added and is not launched yet.
  void start() {
    run(layer_list_kernel<T>, params_.first[params_.layers], stream_, params_, shared_bytes_);
    params_ = {};
    shared_bytes_ = 0;
  }

 private:
  Stream stream_;
  LayerListParams<T> params_{};
  std::int64_t shared_bytes_ = 0;
};

}  // namespace protoseg::cuda
