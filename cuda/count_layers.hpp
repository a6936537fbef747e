// Counting layers of one call: what is validated beforehand, where counts start, what is launched.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "call.hpp"
#include "group_sweep.hpp"
#include "layer_list.hpp"
#include "zeroed.hpp"

namespace protoseg::cuda {

// Takes what counting a layer alone needs between kernels, as counting itself does. units: those of
// the same features are counted on the way
template <class T>
void take_counts_chunk(const Sizes& sizes, const Device& device, const Tuning& tuning, bool units,
                       Arena& arena) {
  if (sizes.group_channels != 1) {
    const GroupChunk chunk = take_group_chunk<T>(sizes, device, arena);
    if (units) UnitsBeside<T>(sizes, device, tuning, chunk, arena);
    return;
  }
  const Plan plan = units_plan<T>(sizes, device, tuning);
  if (plan.strategy == Strategy::split) take_unit_chunk<T>(sizes, plan, true, arena);
}

// The layers of a call, checked. Refers to the arguments.
class CountedLayers {
 public:
  CountedLayers(const Guide& guide, const std::vector<LayerCounts>& layers, const Tuning& tuning)
      : guide_(*guide.state()),
        layers_(layers),
        tuning_(tuning),
        device_(device_of(guide_, tuning)) {
    for (const LayerCounts& layer : layers)
      sizes_.push_back(checked(guide, layer.features, layer.options, layer.given));
    plans_ = plan_list(sizes_, device_, tuning);
    for (std::size_t i = 0; i < layers.size(); ++i) roles_.push_back(role_of(i));
  }

  std::size_t workspace_bytes() const {
    std::size_t most = 0;
    for (std::size_t i = 0; i < sizes_.size(); ++i) {
      if (roles_[i] == Role::listed || roles_[i] == Role::beside) continue;
      with_type(sizes_[i].features.dtype, [&](auto type) {
        Arena arena;
        take_counts_chunk<decltype(type)>(sizes_[i], device_, tuning_,
                                          roles_[i] == Role::with_units, arena);
        most = std::max(most, arena.used());
      });
    }
    return most;
  }

  // Counts start at zero; how many voxels count is known.
  void start(Stream stream) const {
    ZeroedArrays zeroed(stream);
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const std::int64_t count = sizes_[i].images * sizes_[i].groups * sizes_[i].targets;
      for (const CountArrays* arrays : arrays_of(i)) {
        if (arrays == nullptr) continue;
        zeroed.add(arrays->tp, count);
        zeroed.add(arrays->predicted, count);
        if (arrays->voxels == nullptr) continue;
        const auto bytes = static_cast<std::size_t>(sizes_[i].images) * sizeof(std::int64_t);
        PROTOSEG_CUDA_CHECK(cudaMemcpyAsync(arrays->voxels, guide_.references.voxel_count, bytes,
                                            cudaMemcpyDeviceToDevice, as_stream(stream)));
      }
      for (const CountArrays* arrays : arrays_of(i))
        if (arrays != nullptr) zeroed.add_if_next(arrays->actual, count);
    }
    zeroed.clear();
  }

  void count(const Call& call) const {
    for (const DType dtype : {DType::float16, DType::bfloat16, DType::float32, DType::float64})
      with_type(dtype, [&](auto type) { count_of_type<decltype(type)>(dtype, call); });
  }

 private:
  enum class Role {
    alone,
    listed,      // goes into one launch with others
    with_units,  // groups; the units of the same features are the next layer, counted on the way
    beside,      // those units
  };

  Role role_of(std::size_t i) const {
    if (plans_[i]) return Role::listed;
    if (i > 0 && units_follow(i - 1)) return Role::beside;
    return units_follow(i) ? Role::with_units : Role::alone;
  }

  // Are groups followed by units of the same features, of which neither has given prototypes?
  bool units_follow(std::size_t i) const {
    if (i + 1 >= layers_.size() || plans_[i + 1]) return false;
    const Sizes &groups = sizes_[i], &units = sizes_[i + 1];
    const bool given = groups.has_prototypes() || units.has_prototypes();
    return groups.group_channels != 1 && units.group_channels == 1 && !given &&
           layers_[i].features == layers_[i + 1].features && groups.resize == units.resize;
  }

  // Those against the target and against the output, either may be null.
  std::array<const CountArrays*, 2> arrays_of(std::size_t i) const {
    return {layers_[i].against_target, layers_[i].against_output};
  }

  CountOutputs outputs(std::size_t i) const {
    CountOutputs out;
    for (std::size_t which = 0; which < 2; ++which) {
      const CountArrays* const arrays = arrays_of(i)[which];
      if (arrays == nullptr) continue;
      out.tp[which] = arrays->tp;
      out.predicted[which] = arrays->predicted;
      out.actual[which] = arrays->actual;
      out.defined[which] = arrays->defined;
    }
    return out;
  }

  template <class T>
  void count_of_type(DType dtype, const Call& call) const {
    ListLaunch<T> list(call.stream);
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      if (sizes_[i].features.dtype != dtype || roles_[i] == Role::beside) continue;
      const Problem<T> problem(guide_, sizes_[i], call);
      Arena arena(call.workspace);
      if (roles_[i] == Role::listed) {
        list.add(problem, *plans_[i], outputs(i));
      } else if (problem.group_channels == 1) {
        count_units(problem, arena, outputs(i));
      } else {
        const bool units = roles_[i] == Role::with_units;
        const CountOutputs of_units = units ? outputs(i + 1) : CountOutputs{};
        project_groups(problem, arena, {Sink::counts, nullptr, outputs(i)},
                       units ? &of_units : nullptr);
      }
    }
    list.start();
  }

  const GuideState& guide_;
  const std::vector<LayerCounts>& layers_;
  const Tuning& tuning_;
  const Device device_;
  std::vector<Sizes> sizes_;
  std::vector<std::optional<Plan>> plans_;  // of those that are listed
  std::vector<Role> roles_;
};

}  // namespace protoseg::cuda
