// Host side of scores.
#include "score.cuh"

#include "grid.hpp"

namespace protoseg::cuda {

void score(const CountArrays& counts, std::int64_t count, Score which, Empty empty, double* scores,
           Stream stream) {
  ScoreParams p{};
  p.counts = counts;
  p.count = count;
  p.which = which;
  p.empty = empty;
  p.scores = scores;
  run_elements(score_kernel<>, count, stream, p);
}

}  // namespace protoseg::cuda
