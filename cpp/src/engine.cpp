// The public functions: validate, choose float or double, project into the right sink.
#include "protoseg/engine.hpp"

#include "count_resized.hpp"
#include "project.hpp"
#include "units.hpp"

namespace protoseg {
namespace {

// Calls run(Problem<T>) with the T that the features ask for.
template <class Run>
void with_problem(const Guide& guide, const TensorView& features, const Options& options, Run run,
                  const std::vector<int>& asked = {0}) {
  validate_features(features, guide.state()->pred, options);
  if (features.dtype == DType::float64)
    run(Problem<double>(guide, features, options, asked));
  else
    run(Problem<float>(guide, features, options, asked));
}

// The given prototypes, or those of the features, [N, T, C].
template <class T>
std::vector<ChannelPrototypes> prototypes_at(const Problem<T>& problem,
                                             const GivenPrototypes* given) {
  if (given == nullptr) return channel_prototypes(problem);
  std::vector<ChannelPrototypes> channels(problem.images * problem.targets * problem.channels);
  for (std::size_t i = 0; i < channels.size(); ++i)
    channels[i] = {0.0, given->positive[i], given->negative[i]};
  return channels;
}

template <class T>
std::vector<Tally> count(const Problem<T>& problem, const Boundaries& boundaries) {
  if (!problem.same_size) return count_resized(problem, boundaries);
  CountSink sink(problem);
  return project_same_size(problem, boundaries, sink);
}

template <class T>
void write_counts(const Problem<T>& problem, const std::vector<Tally>& tally,
                  const std::vector<Boundary>& boundary, Counts* const counts[2]) {
  const std::int64_t targets = problem.targets;
  for (std::size_t i = 0; i < boundary.size(); ++i)
    for (std::size_t k = 0; k < problem.asked.size(); ++k) {
      const int which = problem.asked[k];
      const Tally& sum = tally[i * problem.asked.size() + k];
      const std::int64_t target = i % targets, image = i / targets / problem.groups;
      counts[which][i] = {sum.tp, sum.predicted,
                          problem.guide.actual_count[problem.guide.plane(which, image, target)],
                          problem.guide.voxel_count[image], boundary[i].defined};
    }
}

template <class Out>
void write_probability(const Guide& guide, const TensorView& features, const Options& options,
                       Out* probability) {
  with_problem(guide, features, options, [&](const auto& problem) {
    ProbabilitySink<Out> sink(problem, probability);
    project(problem, make_boundaries(problem, channel_prototypes(problem)), sink);
  });
}

}  // namespace

const Names<Metric>& metric_names() {
  static const Names<Metric> names = {{"euclidean", Metric::euclidean}, {"cosine", Metric::cosine}};
  return names;
}
const Names<Interpolation>& interpolation_names() {
  static const Names<Interpolation> names = {{"linear", Interpolation::linear},
                                             {"nearest", Interpolation::nearest}};
  return names;
}
const Names<Score>& score_names() {
  static const Names<Score> names = {{"dice", Score::dice},
                                     {"iou", Score::iou},
                                     {"precision", Score::precision},
                                     {"recall", Score::recall}};
  return names;
}
const Names<Empty>& empty_names() {
  static const Names<Empty> names = {
      {"nan", Empty::nan}, {"monai", Empty::monai}, {"one", Empty::one}, {"zero", Empty::zero}};
  return names;
}

void sa_counts(const Guide& guide, const TensorView& features, const Options& options,
               Counts* against_target, Counts* against_output, const GivenPrototypes* given) {
  sa_counts(guide, features, options, {{options.groups, against_target, against_output}}, given);
}

void sa_counts(const Guide& guide, const TensorView& features, const Options& options,
               const std::vector<Division>& divisions, const GivenPrototypes* given) {
  std::vector<ChannelPrototypes> prototypes;  // empty until the first division has made them
  const auto count_division = [&](const Division& division) {
    Counts* const counts[2] = {division.against_target, division.against_output};
    std::vector<int> asked;
    for (const int which : {0, 1})
      if (counts[which] != nullptr) asked.push_back(which);
    const auto run = [&](const auto& problem) {
      if (problem.same_size && problem.group_channels == 1 && prototypes.empty() &&
          given == nullptr) {
        auto units = count_units(problem);
        write_counts(problem, units.tally, units.boundary, counts);
        prototypes = std::move(units.prototypes);
        return;
      }
      if (prototypes.empty()) prototypes = prototypes_at(problem, given);
      const Boundaries boundaries = make_boundaries(problem, prototypes);
      write_counts(problem, count(problem, boundaries), boundaries.boundary, counts);
    };
    Options of_division = options;
    of_division.groups = division.groups;
    with_problem(guide, features, of_division, run, asked);
  };
  // Units first: they average prototypes and count in one read.
  const auto units_first = [&](bool units) {
    for (const Division& division : divisions)
      if ((features.rank > 1 && division.groups == features.shape[1]) == units)
        count_division(division);
  };
  units_first(true);
  units_first(false);
}

void prototypes(const Guide& guide, const TensorView& features, const Options& options,
                const PrototypeArrays& out) {
  with_problem(guide, features, options, [&](const auto& problem) {
    const std::vector<ChannelPrototypes> channels = channel_prototypes(problem);
    for (std::size_t i = 0; i < channels.size(); ++i) {
      out.positive[i] = channels[i].reference + channels[i].positive;
      out.negative[i] = channels[i].reference + channels[i].negative;
    }
    const auto& weights = *problem.weights;
    for (std::int64_t i = 0; i < problem.images * problem.targets; ++i) {
      out.positive_weight[i] = weights.total[2 * i] / weights.scale[2 * i];
      out.negative_weight[i] = weights.total[2 * i + 1] / weights.scale[2 * i + 1];
    }
  });
}

void segment(const Guide& guide, const TensorView& features, const Options& options,
             std::uint8_t* map, const GivenPrototypes* given) {
  with_problem(guide, features, options, [&](const auto& problem) {
    MapSink sink(problem, map);
    project(problem, make_boundaries(problem, prototypes_at(problem, given)), sink);
  });
}

void probability(const Guide& guide, const TensorView& features, const Options& options,
                 float* probability) {
  write_probability(guide, features, options, probability);
}

void probability(const Guide& guide, const TensorView& features, const Options& options,
                 double* probability) {
  write_probability(guide, features, options, probability);
}

}  // namespace protoseg
