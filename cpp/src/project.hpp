// Projections of features onto the normals of their decision boundaries, handed to a sink.
#pragma once

#include <cstdint>
#include <vector>

#include "problem.hpp"
#include "sink.hpp"
#include "sums.hpp"

namespace protoseg {

// Projects one group at feature size. One per thread.
template <class T>
class Projector {
 public:
  Projector(const Problem<T>& problem, const Boundaries& boundaries)
      : problem_(problem),
        boundaries_(boundaries),
        batch_(problem.channels_last ? problem.tile : plane_batch),
        tile_(problem, batch_) {}

  // projection [T, pitch]: sum_c weight_c f_c of n <= block_voxels voxels from `first` on; square
  // [n] unless null: sum_c f_c^2.
  void operator()(std::int64_t image, std::int64_t group, std::int64_t first, std::int64_t n,
                  double* projection, std::int64_t pitch, double* square) {
    for (std::int64_t target = 0; target < problem_.targets; ++target)
      std::fill_n(projection + target * pitch, n, 0.0);
    if (square != nullptr) std::fill_n(square, n, 0.0);
    const std::int64_t begin = group * problem_.group_channels;
    const std::int64_t end = begin + problem_.group_channels;
    for (std::int64_t channel = begin; channel < end; channel += batch_) {
      const std::int64_t count = std::min(batch_, end - channel);
      const StoredRow* rows = tile_.read(image, channel, count, first, n);
      // The next batch of channels, or the first one of the next block.
      const std::int64_t stride = problem_.in_place ? problem_.features.strides[1] : 0;
      const std::int64_t ahead =
          channel + batch_ < end ? batch_ * stride : n - (channel - begin) * stride;
      for (std::int64_t target = 0; target < problem_.targets; ++target) {
        const std::int64_t at = (image * problem_.targets + target) * problem_.channels + channel;
        problem_.kernels.project(rows, &boundaries_.weight[at], count, ahead, n,
                                 projection + target * pitch);
      }
      if (square != nullptr) problem_.kernels.square(rows, count, n, square);
    }
  }

 private:
  // Planes a power of two apart share the ways of one set of the first-level cache, of which there
  // are eight; channels-last neighbours share cache lines instead.
  static constexpr std::int64_t plane_batch = 8;

  const Problem<T>& problem_;
  const Boundaries& boundaries_;
  const std::int64_t batch_;
  TileReader<T> tile_;
};

// Tallies [N, G, T, asked] of a sink that counts; zeros from one that does not.
template <class T>
std::vector<Tally> project_same_size(const Problem<T>& problem, const Boundaries& boundaries,
                                     Sink& sink);
template <class T>
void project_resized(const Problem<T>& problem, const Boundaries& boundaries, Sink& sink);

template <class T>
void project(const Problem<T>& problem, const Boundaries& boundaries, Sink& sink) {
  if (problem.same_size)
    project_same_size(problem, boundaries, sink);
  else
    project_resized(problem, boundaries, sink);
}

// Adds the tallies [tasks, n] of `parts` consecutive tasks each.
inline std::vector<Tally> merge_tallies(const std::vector<Tally>& tallies, std::int64_t parts,
                                        std::int64_t n) {
  std::vector<Tally> merged(tallies.size() / parts, Tally{0, 0});
  for (std::size_t i = 0; i < tallies.size(); ++i) {
    const std::size_t task = i / n / parts, at = i % n;
    merged[task * n + at].tp += tallies[i].tp;
    merged[task * n + at].predicted += tallies[i].predicted;
  }
  return merged;
}

}  // namespace protoseg
