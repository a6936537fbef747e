// The margin for training: a forward pass that keeps what the backward pass needs, and the backward
// pass. The probability is sigmoid(margin). docs/gradients.md derives it. Part of the public C++
// interface, see engine.hpp.
#pragma once

#include "protoseg/engine.hpp"

namespace protoseg {

// The margin, and what the backward pass needs. T is float, double for float64 features.
template <class T>
struct Tape {
  T* margin = nullptr;  // [N, G, T, *size]; NaN where a prototype is undefined
  // [N, T, C, 2]: positive and negative, relative to the channel's first voxel
  double* prototypes = nullptr;
  // [N, G, *size]: squared norms of the features; null unless `needs_square`
  T* square = nullptr;
};
bool needs_square(const TensorView& features, const Options& options);

// Fills the tape.
void margin(const Guide& guide, const TensorView& features, const Options& options,
            const Tape<float>& tape);
void margin(const Guide& guide, const TensorView& features, const Options& options,
            const Tape<double>& tape);

// A strided array to be written.
struct MutableView : TensorView {};

// Gradients asked for; null: not. Each has the shape of its namesake, any floating dtype and any
// strides above 0 that give every element its own place. All elements are written.
struct Gradients {
  const MutableView* features = nullptr;
  const MutableView* pred = nullptr;
  const MutableView* mask = nullptr;  // only for a guide with a mask
};

// Gradients of L, given `grad` [N, G, T, *size], contiguous: dL/dmargin. Guide, features and
// options are those of the forward pass; the euclidean metric does not look at the tape's margin.
// Features are read twice (three times for cosine and another size), their gradient is written
// once.
void margin_backward(const Guide& guide, const TensorView& features, const Options& options,
                     const Tape<float>& tape, const float* grad, const Gradients& out);
void margin_backward(const Guide& guide, const TensorView& features, const Options& options,
                     const Tape<double>& tape, const double* grad, const Gradients& out);

}  // namespace protoseg
