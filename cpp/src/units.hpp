// A unit is a threshold: two weighted sums, one comparison per voxel, two counts.
#pragma once

#include <vector>

#include "project.hpp"

namespace protoseg {

inline void count(const Kernels& kernels, const UnitThreshold<float>& unit, StoredRow f,
                  std::int64_t n, const References& references, std::int64_t offset,
                  const Soon& soon, Tally* tally) {
  (unit.above ? kernels.count_above_float : kernels.count_below_float)(
      f, unit.threshold, n, references, offset, soon, tally);
}
inline void count(const Kernels& kernels, const UnitThreshold<double>& unit, StoredRow f,
                  std::int64_t n, const References& references, std::int64_t offset,
                  const Soon& soon, Tally* tally) {
  (unit.above ? kernels.count_above_double : kernels.count_below_double)(
      f, unit.threshold, n, references, offset, soon, tally);
}

// Counts one tile of channels over a segment. One per thread.
template <class T>
class TileCounts {
 public:
  TileCounts(const Problem<T>& problem, bool planes_from_cache)
      : problem_(problem), tile_(problem, problem.tile), ahead_(problem, planes_from_cache) {}

  // unit [count, T]; tally [count, T, asked] is added to.
  void operator()(std::int64_t image, std::int64_t channel, std::int64_t count_channels,
                  std::int64_t segment, const UnitThreshold<T>* unit, Tally* tally) {
    const std::int64_t begin = segment * segment_voxels;
    const std::int64_t end = std::min(problem_.voxels, begin + segment_voxels);
    const std::int64_t piece = problem_.feature_piece();
    const auto asked = static_cast<std::int64_t>(problem_.asked.size());
    for (std::int64_t first = begin; first < end; first += piece) {
      const std::int64_t n = std::min(piece, end - first);
      const std::int64_t done = problem_.voxels - first - n;  // if counted from the last segment on
      const StoredRow* rows = tile_.read(image, channel, count_channels, first, n);
      const UnitThreshold<T>* u = unit;
      Tally* sum = tally;
      for (std::int64_t i = 0; i < count_channels; ++i)
        for (std::int64_t target = 0; target < problem_.targets; ++target, ++u, sum += asked)
          if (u->anything)
            count(problem_.kernels, *u, rows[i], n,
                  problem_.guide.compared(problem_.asked, image, target), first,
                  ahead_.of_second_pass(rows[i].data, image, channel + i, done), sum);
    }
  }

 private:
  const Problem<T>& problem_;
  TileReader<T> tile_;
  ReadAhead<T> ahead_;
};

// Units of features at `size`: tallies [N, C, T, asked], boundaries [N, C, T], and the prototypes
// [N, T, C] they come from.
template <class T>
struct UnitCounts {
  std::vector<Tally> tally;
  std::vector<Boundary> boundary;
  std::vector<ChannelPrototypes> prototypes;
};
template <class T>
UnitCounts<T> count_units(const Problem<T>& problem);

}  // namespace protoseg
