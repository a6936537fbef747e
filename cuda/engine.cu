// The public functions of the CUDA side: validate, lay out the workspace, launch.
#include <string>

#include "count_layers.hpp"

#ifndef PROTOSEG_CUDA_ARCHITECTURES  // the build says
#define PROTOSEG_CUDA_ARCHITECTURES "unknown"
#endif

namespace protoseg {

bool cuda_compiled() { return true; }

bool cuda_available(std::string* reason) {
  int driver = 0, runtime = 0, devices = 0;
  std::string why;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const auto version = [](int v) {
    return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
  };
  if (error == cudaErrorInsufficientDriver || driver == 0)
    why = driver == 0 ? "no NVIDIA driver found"
                      : "the NVIDIA driver knows CUDA up to " + version(driver) +
                            ", this build needs " + version(runtime);
  else if (error != cudaSuccess)
    why = cudaGetErrorString(error);
  else if (devices == 0)
    why = "no CUDA device found";
  if (error != cudaSuccess) cudaGetLastError();
  if (reason != nullptr) *reason = why;
  return why.empty();
}

std::string cuda_status() {
  std::string reason;
  const std::string compiled = "compiled for sm " PROTOSEG_CUDA_ARCHITECTURES;
  if (cuda_available(&reason)) return compiled + ", available";
  return compiled + ", not available: " + reason;
}

namespace cuda {
namespace {

// Takes what a task needs between kernels, as the task itself does.
template <class T>
std::size_t measure(const GuideState& guide, const Sizes& sizes, Task task, const Tuning& tuning) {
  const Device device = device_of(guide, tuning);
  Arena arena;
  if (task == Task::prototypes) {
    take_unit_chunk<T>(sizes, sums_plan<T>(sizes, device), false, arena);
  } else if (task == Task::sa_counts) {
    take_counts_chunk<T>(sizes, device, tuning, false, arena);
  } else {
    take_group_chunk<T>(sizes, device, arena);
  }
  return arena.used();
}

std::size_t measure(const GuideState& guide, const Sizes& sizes, Task task, const Tuning& tuning) {
  return with_type(sizes.features.dtype,
                   [&](auto type) { return measure<decltype(type)>(guide, sizes, task, tuning); });
}

// Validates, and calls run(problem, arena) with the problem of the features' type.
template <class Run>
void with_problem(const Guide& guide, const TensorView& features, const Options& options,
                  const Call& call, Task task, const GivenPrototypes* given, Run run) {
  const Sizes sizes = checked(guide, features, options, given);
  const GuideState& state = *guide.state();
  const std::size_t bytes = measure(state, sizes, task, call.tuning);
  check_workspace(call, bytes);
  with_type(sizes.features.dtype, [&](auto type) {
    const Problem<decltype(type)> problem(state, sizes, call);
    Arena arena(call.workspace);
    run(problem, arena);
  });
}

void write_map(const Guide& guide, const TensorView& features, const Options& options, Task task,
               const SinkRequest& request, const Call& call,
               const GivenPrototypes* given = nullptr) {
  with_problem(guide, features, options, call, task, given,
               [&](const auto& problem, Arena& arena) { project_groups(problem, arena, request); });
}

template <class T>
void fill_tape(const Guide& guide, const TensorView& features, const Options& options,
               const Tape<T>& tape, const Call& call) {
  check_tape<T>(features);
  const Sink sink = std::is_same_v<T, double> ? Sink::wide_margin : Sink::margin;
  write_map(guide, features, options, Task::margin,
            {sink, tape.margin, {}, tape.square, tape.prototypes}, call);
}

}  // namespace

std::size_t workspace_bytes(const Guide& guide, const TensorView& features, const Options& options,
                            Task task, const Tuning& tuning, const GivenPrototypes* given) {
  return measure(*guide.state(), checked(guide, features, options, given), task, tuning);
}

void Guide::prepare(const TensorView& features, const Options& options, Stream stream) const {
  const Sizes sizes = checked(*this, features, options);
  with_type(sizes.features.dtype, [&](auto type) {
    Call call;
    call.stream = stream;
    const Problem<decltype(type)> problem(*state_, sizes, call);
  });
}

std::size_t workspace_bytes(const Guide& guide, const std::vector<LayerCounts>& layers,
                            const Tuning& tuning) {
  return CountedLayers(guide, layers, tuning).workspace_bytes();
}

void sa_counts(const Guide& guide, const std::vector<LayerCounts>& layers, const Call& call) {
  const CountedLayers counted(guide, layers, call.tuning);
  check_workspace(call, counted.workspace_bytes());
  counted.start(call.stream);
  counted.count(call);
}

void sa_counts(const Guide& guide, const TensorView& features, const Options& options,
               const CountArrays* against_target, const CountArrays* against_output,
               const Call& call, const GivenPrototypes* given) {
  sa_counts(guide, {{features, options, against_target, against_output, given}}, call);
}

void prototypes(const Guide& guide, const TensorView& features, const Options& options,
                const PrototypeArrays& out, const Call& call) {
  with_problem(guide, features, options, call, Task::prototypes, nullptr,
               [&](const auto& problem, Arena& arena) { compute_prototypes(problem, arena, out); });
}

void segment(const Guide& guide, const TensorView& features, const Options& options,
             std::uint8_t* map, const Call& call, const GivenPrototypes* given) {
  write_map(guide, features, options, Task::segment, {Sink::map, map, {}}, call, given);
}

void probability(const Guide& guide, const TensorView& features, const Options& options,
                 float* probability, const Call& call) {
  write_map(guide, features, options, Task::probability, {Sink::probability, probability, {}},
            call);
}

void probability(const Guide& guide, const TensorView& features, const Options& options,
                 double* probability, const Call& call) {
  write_map(guide, features, options, Task::probability, {Sink::wide_probability, probability, {}},
            call);
}

void margin(const Guide& guide, const TensorView& features, const Options& options,
            const Tape<float>& tape, const Call& call) {
  fill_tape(guide, features, options, tape, call);
}
void margin(const Guide& guide, const TensorView& features, const Options& options,
            const Tape<double>& tape, const Call& call) {
  fill_tape(guide, features, options, tape, call);
}

}  // namespace cuda
}  // namespace protoseg
