// Counts of features of another size: units as they lie, groups projected at feature size first.
#include "count_resized.hpp"

#include "parallel.hpp"
#include "project.hpp"
#include "slab.hpp"

namespace protoseg {
namespace {

std::int64_t most_rows(const std::vector<Slab>& slabs) {
  std::int64_t most = 0;
  for (const Slab& slab : slabs) most = std::max(most, slab.rows);
  return most;
}

// Slabs of a tile of channels. One per thread.
template <class T>
class UnitSlabs {
 public:
  UnitSlabs(const Problem<T>& problem, const Boundaries& boundaries, const Cells& cells,
            std::int64_t rows)
      : problem_(problem),
        boundaries_(boundaries),
        counter_(problem.kernels, cells, rows),
        tile_(problem, problem.tile),
        pitch_(rows * cells.from.n[2]),
        row_(cells.from.n[2]),
        values_(make_buffer<T>(problem.rows_of_t ? 0 : problem.tile * pitch_)) {}

  // tally [count, T]
  void operator()(std::int64_t image, std::int64_t channel, std::int64_t count, const Slab& slab,
                  Tally* tally) {
    const std::int64_t begin = slab.first_row * row_, n = slab.rows * row_;
    for (std::int64_t done = 0; !problem_.rows_of_t && done < n; done += block_voxels) {
      const std::int64_t here = std::min(block_voxels, n - done);
      const StoredRow* rows = tile_.read(image, channel, count, begin + done, here);
      for (std::int64_t i = 0; i < count; ++i)
        convert(problem_.kernels, rows[i].dtype, rows[i].data, 1, here,
                values_.get() + i * pitch_ + done);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const T* values =
          problem_.rows_of_t
              ? static_cast<const T*>(tile_.read(image, channel + i, 1, begin, n)->data)
              : values_.get() + i * pitch_;
      for (std::int64_t target = 0; target < problem_.targets; ++target) {
        const std::int64_t plane = image * problem_.targets + target;
        const double weight = boundaries_.weight[plane * problem_.channels + channel + i];
        const Boundary& boundary =
            boundaries_
                .boundary[(image * problem_.groups + channel + i) * problem_.targets + target];
        counter_(slab, values, unit_threshold<double>(weight, boundary), image, plane,
                 &tally[i * problem_.targets + target]);
      }
    }
  }

 private:
  const Problem<T>& problem_;
  const Boundaries& boundaries_;
  SlabCounter<T> counter_;
  TileReader<T> tile_;
  std::int64_t pitch_, row_;
  Buffer<T> values_;  // [tile, pitch], unless the features are rows of T already
};

template <class T>
std::vector<Tally> count_units(const Problem<T>& problem, const Boundaries& boundaries,
                               const Cells& cells) {
  const std::int64_t planes = problem.images * problem.tiles(), targets = problem.targets;
  const std::vector<Slab> slabs = make_slabs(cells, 4 * max_threads() / planes + 1);
  const auto parts = static_cast<std::int64_t>(slabs.size());
  // [N, C, parts, T]
  std::vector<Tally> tallies(problem.images * problem.channels * parts * targets, Tally{0, 0});
  const std::int64_t cost = (cells.from.voxels() + cells.to.voxels() / 8) * problem.tile / parts;
  parallel_for(planes * parts, cost + 1, [&] {
    return [&, units = UnitSlabs<T>(problem, boundaries, cells, most_rows(slabs)),
            tally = std::vector<Tally>(problem.tile * targets)](std::int64_t task) mutable {
      const std::int64_t part = task % parts, image = task / parts / problem.tiles();
      const std::int64_t channel = task / parts % problem.tiles() * problem.tile;
      const std::int64_t count = std::min(problem.tile, problem.channels - channel);
      std::fill(tally.begin(), tally.end(), Tally{0, 0});
      units(image, channel, count, slabs[part], tally.data());
      for (std::int64_t i = 0; i < count; ++i)
        std::copy_n(&tally[i * targets], targets,
                    &tallies[((image * problem.channels + channel + i) * parts + part) * targets]);
    };
  });
  return merge_tallies(tallies, parts, targets);
}

template <class T>
std::vector<Tally> count_groups(const Problem<T>& problem, const Boundaries& boundaries,
                                const Cells& cells) {
  const std::int64_t planes = problem.images * problem.groups, targets = problem.targets;
  const std::vector<Slab> slabs = make_slabs(cells, 4 * max_threads() / planes + 1);
  const auto parts = static_cast<std::int64_t>(slabs.size());
  const std::int64_t row = cells.from.n[2], pitch = most_rows(slabs) * row;
  std::vector<Tally> tallies(planes * parts * targets, Tally{0, 0});
  const std::int64_t cost = pitch * problem.group_channels + cells.to.voxels() / parts;
  parallel_for(planes * parts, cost + 1, [&] {
    return [&, projector = Projector<T>(problem, boundaries),
            counter = SlabCounter<double>(problem.kernels, cells, most_rows(slabs)),
            values = std::vector<double>(targets * pitch)](std::int64_t task) mutable {
      const Slab& slab = slabs[task % parts];
      const std::int64_t image = task / parts / problem.groups;
      const std::int64_t group = task / parts % problem.groups;
      const std::int64_t n = slab.rows * row;
      for (std::int64_t done = 0; done < n; done += block_voxels)
        projector(image, group, slab.first_row * row + done, std::min(block_voxels, n - done),
                  &values[done], pitch, nullptr);
      for (std::int64_t target = 0; target < targets; ++target) {
        const Boundary& boundary =
            boundaries.boundary[(image * problem.groups + group) * targets + target];
        counter(slab, &values[target * pitch], {boundary.defined, true, boundary.threshold}, image,
                image * targets + target, &tallies[task * targets + target]);
      }
    };
  });
  return merge_tallies(tallies, parts, targets);
}

}  // namespace

template <class T>
std::vector<Tally> count_resized(const Problem<T>& problem, const Boundaries& boundaries) {
  std::vector<Tally> result(problem.images * problem.groups * problem.pairs);
  const std::size_t asked = problem.asked.size();
  for (std::size_t k = 0; k < asked; ++k) {
    const std::shared_ptr<const Cells> cells =
        problem.guide.cells(problem.resize, problem.asked[k]);
    const std::vector<Tally> tallies = problem.group_channels == 1
                                           ? count_units(problem, boundaries, *cells)
                                           : count_groups(problem, boundaries, *cells);
    for (std::size_t i = 0; i < tallies.size(); ++i) result[i * asked + k] = tallies[i];
  }
  return result;
}

template std::vector<Tally> count_resized(const Problem<float>&, const Boundaries&);
template std::vector<Tally> count_resized(const Problem<double>&, const Boundaries&);

}  // namespace protoseg
