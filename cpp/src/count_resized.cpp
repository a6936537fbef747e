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
  UnitSlabs(const Problem<T>& problem, const Boundaries& boundaries, const ResizePlan& plan,
            std::int64_t rows)
      : problem_(problem),
        boundaries_(boundaries),
        counter_(problem.kernels, problem.guide, plan, problem.asked, rows, problem.targets),
        tile_(problem, problem.tile),
        row_(problem.from.n[2]),
        pitch_(rows * row_ + TileReader<T>::gap),
        values_(make_buffer<T>(problem.rows_of_t ? 0 : problem.tile * pitch_)),
        threshold_(problem.targets) {}

  // tally [count, T, asked]
  void operator()(std::int64_t image, std::int64_t channel, std::int64_t count, const Slab& slab,
                  Tally* tally) {
    const std::int64_t begin = slab.first_row * row_, n = slab.rows * row_;
    if (!problem_.rows_of_t) tile_.copy(image, channel, count, begin, n, values_.get(), pitch_);
    for (std::int64_t i = 0; i < count; ++i) {
      const T* values =
          problem_.rows_of_t
              ? static_cast<const T*>(tile_.read(image, channel + i, 1, begin, n)->data)
              : values_.get() + i * pitch_;
      const std::int64_t targets = problem_.targets;
      for (std::int64_t target = 0; target < targets; ++target) {
        const std::int64_t plane = image * targets + target;
        const std::int64_t group = image * problem_.groups + channel + i;
        threshold_[target] =
            unit_threshold<double>(boundaries_.weight[plane * problem_.channels + channel + i],
                                   boundaries_.boundary[group * targets + target]);
      }
      counter_(slab, values, threshold_.data(), targets, image, 0, &tally[i * problem_.pairs]);
    }
  }

 private:
  const Problem<T>& problem_;
  const Boundaries& boundaries_;
  SlabCounter<T> counter_;
  TileReader<T> tile_;
  std::int64_t row_, pitch_;
  Buffer<T> values_;  // [tile, pitch], unless the features are rows of T already
  std::vector<UnitThreshold<double>> threshold_;  // [T]
};

template <class T>
std::vector<Tally> count_units(const Problem<T>& problem, const Boundaries& boundaries,
                               const ResizePlan& plan) {
  const std::int64_t planes = problem.images * problem.tiles(), pairs = problem.pairs;
  const std::vector<Slab> slabs = make_slabs(plan, 4 * max_threads() / planes + 1);
  const auto parts = static_cast<std::int64_t>(slabs.size());
  // [N, C, parts, T, asked]
  std::vector<Tally> tallies(problem.images * problem.channels * parts * pairs, Tally{0, 0});
  const std::int64_t cost = (plan.from.voxels() + plan.to.voxels() / 8) * problem.tile / parts;
  parallel_for(planes * parts, cost + 1, [&] {
    return [&, units = UnitSlabs<T>(problem, boundaries, plan, most_rows(slabs)),
            tally = std::vector<Tally>(problem.tile * pairs)](std::int64_t task) mutable {
      const std::int64_t part = task % parts, image = task / parts / problem.tiles();
      const std::int64_t channel = task / parts % problem.tiles() * problem.tile;
      const std::int64_t count = std::min(problem.tile, problem.channels - channel);
      std::fill(tally.begin(), tally.end(), Tally{0, 0});
      units(image, channel, count, slabs[part], tally.data());
      for (std::int64_t i = 0; i < count; ++i)
        std::copy_n(&tally[i * pairs], pairs,
                    &tallies[((image * problem.channels + channel + i) * parts + part) * pairs]);
    };
  });
  return merge_tallies(tallies, parts, pairs);
}

template <class T>
std::vector<Tally> count_groups(const Problem<T>& problem, const Boundaries& boundaries,
                                const ResizePlan& plan) {
  const std::int64_t planes = problem.images * problem.groups, targets = problem.targets;
  const std::int64_t pairs = problem.pairs, asked = pairs / targets;
  const std::vector<Slab> slabs = make_slabs(plan, 4 * max_threads() / planes + 1);
  const auto parts = static_cast<std::int64_t>(slabs.size());
  const std::int64_t row = plan.from.n[2], pitch = most_rows(slabs) * row;
  std::vector<Tally> tallies(planes * parts * pairs, Tally{0, 0});
  const std::int64_t cost = pitch * problem.group_channels + plan.to.voxels() / parts;
  parallel_for(planes * parts, cost + 1, [&] {
    return [&, projector = Projector<T>(problem, boundaries),
            counter = SlabCounter<double>(problem.kernels, problem.guide, plan, problem.asked,
                                          most_rows(slabs), 1),
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
        const UnitThreshold<double> threshold = {boundary.defined, true, boundary.threshold};
        counter(slab, &values[target * pitch], &threshold, 1, image, target,
                &tallies[task * pairs + target * asked]);
      }
    };
  });
  return merge_tallies(tallies, parts, pairs);
}

}  // namespace

template <class T>
std::vector<Tally> count_resized(const Problem<T>& problem, const Boundaries& boundaries) {
  const std::shared_ptr<const ResizePlan> plan = problem.guide.plan(problem.resize);
  return problem.group_channels == 1 ? count_units(problem, boundaries, *plan)
                                     : count_groups(problem, boundaries, *plan);
}

template std::vector<Tally> count_resized(const Problem<float>&, const Boundaries&);
template std::vector<Tally> count_resized(const Problem<double>&, const Boundaries&);

}  // namespace protoseg
