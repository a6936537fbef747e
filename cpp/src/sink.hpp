// What becomes of projections: counts, a map, or probabilities.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "problem.hpp"
#include "protoseg/gradients.hpp"
#include "protoseg/rule.hpp"

namespace protoseg {

// Voxels [first, first + n) of one image, group and target.
struct Row {
  std::int64_t image, group, target, first, n;
};

class Sink {
 public:
  virtual ~Sink() = default;
  // projection [n]: sum_c weight_c (U f_c); square [n]: squared norm of U f, if needs_square. Only
  // a sink that counts has a tally [asked].
  virtual void take(const Row& row, const double* projection, const double* square,
                    const Boundary& boundary, Tally* tally) = 0;
  virtual bool needs_square() const { return false; }
};

class CountSink final : public Sink {
 public:
  template <class T>
  explicit CountSink(const Problem<T>& problem)
      : kernels_(problem.kernels), guide_(problem.guide), asked_(problem.asked) {}
  void take(const Row& row, const double* projection, const double*, const Boundary& boundary,
            Tally* tally) override {
    if (boundary.defined)
      kernels_.count_above_double({projection, DType::float64}, boundary.threshold, row.n,
                                  guide_.compared(asked_, row.image, row.target), row.first,
                                  {projection, true}, tally);
  }

 private:
  const Kernels& kernels_;
  const GuideState& guide_;
  const std::vector<int>& asked_;
};

// Element (image, group, target, first) of an output [N, G, T, voxels].
class OutputIndex {
 public:
  template <class T>
  explicit OutputIndex(const Problem<T>& problem)
      : groups_(problem.groups),
        targets_(problem.targets),
        voxels_(problem.guide.extent.voxels()) {}
  std::int64_t operator()(const Row& row) const {
    return ((row.image * groups_ + row.group) * targets_ + row.target) * voxels_ + row.first;
  }

 private:
  std::int64_t groups_, targets_, voxels_;
};

class MapSink final : public Sink {
 public:
  template <class T>
  MapSink(const Problem<T>& problem, std::uint8_t* map)
      : kernels_(problem.kernels), index_(problem), map_(map) {}
  void take(const Row& row, const double* projection, const double*, const Boundary& boundary,
            Tally*) override {
    std::uint8_t* out = map_ + index_(row);
    if (boundary.defined)
      kernels_.decide(projection, boundary.threshold, row.n, out);
    else
      std::fill_n(out, row.n, std::uint8_t{0});
  }

 private:
  const Kernels& kernels_;
  OutputIndex index_;
  std::uint8_t* map_;
};

template <class Out>
class ProbabilitySink final : public Sink {
 public:
  template <class T>
  ProbabilitySink(const Problem<T>& problem, Out* probability)
      : metric_(problem.options.metric), index_(problem), probability_(probability) {}
  bool needs_square() const override { return protoseg::needs_square(metric_); }
  void take(const Row& row, const double* projection, const double* square,
            const Boundary& boundary, Tally*) override {
    Out* out = probability_ + index_(row);
    if (!boundary.defined) {
      std::fill_n(out, row.n, std::numeric_limits<Out>::quiet_NaN());
      return;
    }
    for (std::int64_t i = 0; i < row.n; ++i) {
      const double squared_norm = square != nullptr ? square[i] : 0.0;
      out[i] =
          static_cast<Out>(probability_of(margin(projection[i], squared_norm, metric_, boundary)));
    }
  }

 private:
  Metric metric_;
  OutputIndex index_;
  Out* probability_;
};

// The margin for training, and the norms that its gradient needs.
template <class T>
class MarginSink final : public Sink {
 public:
  MarginSink(const Problem<T>& problem, const Tape<T>& tape)
      : metric_(problem.options.metric), targets_(problem.targets), index_(problem), tape_(tape) {}
  bool needs_square() const override { return protoseg::needs_square(metric_); }
  void take(const Row& row, const double* projection, const double* square,
            const Boundary& boundary, Tally*) override {
    T* out = tape_.margin + index_(row);
    if (tape_.square != nullptr && row.target == 0) keep_square(row, square);
    if (!boundary.defined) {
      std::fill_n(out, row.n, std::numeric_limits<T>::quiet_NaN());
      return;
    }
    for (std::int64_t i = 0; i < row.n; ++i)
      out[i] = static_cast<T>(
          margin(projection[i], square != nullptr ? square[i] : 0.0, metric_, boundary));
  }

 private:
  void keep_square(const Row& row, const double* square) {
    // [N, G, voxels]: the index [N, G, T, voxels] of target 0 has T planes for each of these.
    T* out = tape_.square + (index_(row) - row.first) / targets_ + row.first;
    for (std::int64_t i = 0; i < row.n; ++i) out[i] = static_cast<T>(square[i]);
  }

  Metric metric_;
  std::int64_t targets_;
  OutputIndex index_;
  const Tape<T> tape_;
};

}  // namespace protoseg
