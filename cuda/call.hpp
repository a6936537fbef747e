// What every public call checks before it puts work on the stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "problem.hpp"
#include "validate.hpp"

namespace protoseg::cuda {

inline Sizes checked(const Guide& guide, const TensorView& features, const Options& options,
                     const GivenPrototypes* given = nullptr) {
  const GuideState& state = *guide.state();
  check_device(state);
  validate_features(features, state.pred_view, options);
  return {state, features, options, given};
}

inline void check_workspace(const Call& call, std::size_t bytes) {
  if (call.workspace_bytes < bytes || (bytes > 0 && call.workspace == nullptr))
    throw Error("the workspace must have " + std::to_string(bytes) +
                " bytes, see workspace_bytes; got " + std::to_string(call.workspace_bytes) + ".");
  if (reinterpret_cast<std::uintptr_t>(call.workspace) % memory_alignment != 0)
    throw Error("the workspace must be aligned to 256 bytes.");
}

template <class T>
void check_tape(const TensorView& features) {
  if ((features.dtype == DType::float64) != std::is_same_v<T, double>)
    throw Error("The tape must be double for float64 features, and float for all others.",
                Error::Kind::type);
}

}  // namespace protoseg::cuda
