#include "project.hpp"

namespace protoseg {

template <class T>
std::vector<Tally> project_same_size(const Problem<T>& problem, const Boundaries& boundaries,
                                     Sink& sink) {
  constexpr std::int64_t chunk = 2 * block_voxels;
  const std::int64_t chunks = (problem.voxels + chunk - 1) / chunk;
  const std::int64_t planes = problem.images * problem.groups, targets = problem.targets;
  const std::int64_t pairs = problem.pairs, asked = pairs / targets;
  std::vector<Tally> tallies(planes * chunks * pairs, Tally{0, 0});
  const std::int64_t cost = std::min(chunk, problem.voxels) * problem.group_channels;
  parallel_for(planes * chunks, cost, [&] {
    return [&, projector = Projector<T>(problem, boundaries),
            projection = std::vector<double>(targets * block_voxels),
            square = std::vector<double>(sink.needs_square() ? block_voxels : 0)](
               std::int64_t task) mutable {
      const std::int64_t image = task / chunks / problem.groups;
      const std::int64_t group = task / chunks % problem.groups;
      const std::int64_t begin = task % chunks * chunk;
      const std::int64_t end = std::min(problem.voxels, begin + chunk);
      double* squares = square.empty() ? nullptr : square.data();
      for (std::int64_t first = begin; first < end; first += block_voxels) {
        const std::int64_t n = std::min(block_voxels, end - first);
        projector(image, group, first, n, projection.data(), block_voxels, squares);
        for (std::int64_t target = 0; target < targets; ++target)
          sink.take({image, group, target, first, n}, &projection[target * block_voxels], squares,
                    boundaries.boundary[(image * problem.groups + group) * targets + target],
                    &tallies[task * pairs + target * asked]);
      }
    };
  });
  return merge_tallies(tallies, chunks, pairs);
}

template std::vector<Tally> project_same_size(const Problem<float>&, const Boundaries&, Sink&);
template std::vector<Tally> project_same_size(const Problem<double>&, const Boundaries&, Sink&);

}  // namespace protoseg
