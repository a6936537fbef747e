#include "units.hpp"

namespace protoseg {
namespace {

// Tiles up to this size are summed and counted in one task: the second pass reads the cache.
constexpr std::int64_t cached_tile_bytes = std::int64_t{4} << 20;

// Sums, decides and counts whole tiles of channels. One per thread.
template <class T>
class TileUnits {
 public:
  explicit TileUnits(const Problem<T>& problem)
      : problem_(problem),
        sums_(problem, true),
        counts_(problem, true),
        partial_(problem.tile * problem.targets * 2),
        sum_(partial_.size()),
        unit_(problem.tile * problem.targets) {}

  void operator()(std::int64_t image, std::int64_t channel, std::int64_t count,
                  UnitCounts<T>& result) {
    const std::int64_t targets = problem_.targets, at = image * problem_.channels + channel;
    std::fill(sum_.begin(), sum_.end(), 0.0);
    for (std::int64_t segment = 0; segment < problem_.segments(); ++segment) {
      sums_(image, channel, count, segment, partial_.data());
      for (std::size_t i = 0; i < sum_.size(); ++i) sum_[i] += partial_[i];
    }
    for (std::int64_t i = 0; i < count * targets; ++i) {
      const std::int64_t c = channel + i / targets, target = i % targets;
      ChannelPrototypes& prototypes =
          result.prototypes[(image * targets + target) * problem_.channels + c];
      prototypes = make_prototypes(problem_, image, target,
                                   static_cast<double>(sums_.first_voxel(image, c)), &sum_[2 * i]);
      Boundary& boundary = result.boundary[at * targets + i];
      double weight;
      boundary = group_boundary(&prototypes, 1, problem_.options.metric,
                                problem_.options.temperature, &weight);
      unit_[i] = unit_threshold<T>(weight, boundary);
    }
    // From the last one on: it was summed last, and is what the second-level cache still holds.
    for (std::int64_t segment = problem_.segments() - 1; segment >= 0; --segment)
      counts_(image, channel, count, segment, unit_.data(), &result.tally[at * problem_.pairs]);
  }

 private:
  const Problem<T>& problem_;
  TileSums<T> sums_;
  TileCounts<T> counts_;
  std::vector<double> partial_, sum_;  // [tile, T, 2]
  std::vector<UnitThreshold<T>> unit_;
};

// One read from memory: tile after tile, each summed and then counted from cache.
template <class T>
void count_cached(const Problem<T>& problem, UnitCounts<T>& result) {
  const std::int64_t tiles = problem.tiles();
  parallel_for(problem.images * tiles, problem.tile * problem.voxels, [&] {
    return [&, units = TileUnits<T>(problem)](std::int64_t task) mutable {
      const std::int64_t image = task / tiles, channel = task % tiles * problem.tile;
      units(image, channel, std::min(problem.tile, problem.channels - channel), result);
    };
  });
}

// Two reads: planes beyond the cache, or too few of them for the threads, are split by segments.
template <class T>
void count_split(const Problem<T>& problem, UnitCounts<T>& result) {
  const std::int64_t tiles = problem.tiles(), segments = problem.segments();
  const std::int64_t targets = problem.targets, channels = problem.channels;
  const std::int64_t pairs = problem.pairs;
  result.prototypes = channel_prototypes(problem);
  const Boundaries boundaries = make_boundaries(problem, result.prototypes);
  std::vector<UnitThreshold<T>> unit(result.boundary.size());
  for (std::size_t i = 0; i < unit.size(); ++i) {
    const std::int64_t target = i % targets, channel = i / targets % channels;
    const std::int64_t image = i / targets / channels;
    result.boundary[i] = boundaries.boundary[i];
    unit[i] = unit_threshold<T>(boundaries.weight[(image * targets + target) * channels + channel],
                                result.boundary[i]);
  }
  std::vector<Tally> tallies(result.tally.size() * segments, Tally{0, 0});
  const std::int64_t cost = std::min(problem.voxels, segment_voxels) * problem.tile;
  parallel_for(problem.images * tiles * segments, cost, [&] {
    return [&, counts = TileCounts<T>(problem, false),
            tally = std::vector<Tally>(problem.tile * pairs)](std::int64_t task) mutable {
      const std::int64_t segment = task % segments, image = task / segments / tiles;
      const std::int64_t channel = task / segments % tiles * problem.tile;
      const std::int64_t count = std::min(problem.tile, channels - channel);
      const std::int64_t at = image * channels + channel;
      std::fill(tally.begin(), tally.end(), Tally{0, 0});
      counts(image, channel, count, segment, &unit[at * targets], tally.data());
      for (std::int64_t i = 0; i < count; ++i)
        std::copy_n(&tally[i * pairs], pairs, &tallies[((at + i) * segments + segment) * pairs]);
    };
  });
  result.tally = merge_tallies(tallies, segments, pairs);
}

}  // namespace

template <class T>
UnitCounts<T> count_units(const Problem<T>& problem) {
  UnitCounts<T> result;
  result.tally.assign(problem.images * problem.channels * problem.pairs, Tally{0, 0});
  result.boundary.resize(problem.images * problem.channels * problem.targets);
  result.prototypes.resize(result.boundary.size());
  const std::int64_t tile_bytes = problem.tile * problem.voxels * std::int64_t{sizeof(T)};
  if (tile_bytes <= cached_tile_bytes && problem.images * problem.tiles() >= max_threads())
    count_cached(problem, result);
  else
    count_split(problem, result);
  return result;
}

template UnitCounts<float> count_units(const Problem<float>&);
template UnitCounts<double> count_units(const Problem<double>&);

}  // namespace protoseg
