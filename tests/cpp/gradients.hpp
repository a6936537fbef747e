// Tests of the margin and its gradients through the public interface. Part of test_engine.cpp.
#pragma once

#include "harness.hpp"
#include "protoseg/gradients.hpp"

namespace {

// A problem in double with two targets and a mask, its tape, and L = sum of weight x margin.
struct GradientProblem {
  Array<double> features, pred, mask, weight;
  Options options;
  std::vector<double> margin_values, prototypes, square;

  GradientProblem(const Shape& feature_size, const Shape& size, Metric metric,
                  std::int64_t groups) {
    const auto shape = [](std::int64_t channels, const Shape& spatial) {
      Shape result = {2, channels};
      result.insert(result.end(), spatial.begin(), spatial.end());
      return result;
    };
    features = make<double>(shape(4, feature_size), spread, 1);
    const auto inside = [](std::mt19937& random) { return 0.05 + 0.9 * uniform(random); };
    pred = make<double>(shape(2, size), inside, 2);
    mask = make<double>(shape(1, size), inside, 3);
    Shape maps = shape(groups * 2, size);
    weight = make<double>(maps, spread, 4);
    options.metric = metric;
    options.groups = groups;
    options.temperature = metric == Metric::cosine ? 3.0 : 1.0;
    margin_values.resize(weight.data.size());
    prototypes.resize(2 * 2 * 4 * 2);
    square.resize(weight.data.size() / 2);
  }

  Tape<double> tape() {
    const bool squares = needs_square(view_of(features), options);
    return {margin_values.data(), prototypes.data(), squares ? square.data() : nullptr};
  }

  double loss() {
    const TensorView mask_view = view_of(mask);
    const Guide guide(view_of(pred), nullptr, &mask_view, std::nullopt);
    margin(guide, view_of(features), options, tape());
    double sum = 0.0;
    for (std::size_t i = 0; i < weight.data.size(); ++i) sum += weight.data[i] * margin_values[i];
    return sum;
  }

  // Gradients of features, pred and mask, after loss().
  std::vector<std::vector<double>> gradients() {
    std::vector<std::vector<double>> result;
    MutableView views[3];
    for (const Array<double>* array : {&features, &pred, &mask}) {
      result.emplace_back(array->data.size(), -1.0);
      static_cast<TensorView&>(views[result.size() - 1]) =
          view_of(result.back().data(), DType::float64, array->shape);
    }
    const TensorView mask_view = view_of(mask);
    const Guide guide(view_of(pred), nullptr, &mask_view, std::nullopt);
    margin_backward(guide, view_of(features), options, tape(), weight.data.data(),
                    {&views[0], &views[1], &views[2]});
    return result;
  }
};

const std::vector<std::pair<Shape, Shape>>& gradient_sizes() {
  static const std::vector<std::pair<Shape, Shape>> sizes = {
      {{50}, {50}},     {{50}, {17}},           {{5, 7}, {5, 7}},
      {{3, 8}, {7, 5}}, {{2, 3, 4}, {2, 3, 4}}, {{2, 3, 4}, {5, 2, 7}}};
  return sizes;
}

void test_gradients_against_differences() {
  constexpr double step = 1e-6;
  for (const auto& [feature_size, size] : gradient_sizes())
    for (const Metric metric : {Metric::euclidean, Metric::cosine})
      for (const std::int64_t groups : {1, 2}) {
        GradientProblem problem(feature_size, size, metric, groups);
        problem.loss();
        const auto found = problem.gradients();
        Array<double>* arrays[3] = {&problem.features, &problem.pred, &problem.mask};
        for (int which = 0; which < 3; ++which)
          for (std::size_t i = 0; i < arrays[which]->data.size(); i += 3) {
            double& x = arrays[which]->data[i];
            const double kept = x;
            x = kept + step;
            const double above = problem.loss();
            x = kept - step;
            const double below = problem.loss();
            x = kept;
            CHECK(near(found[which][i], (above - below) / (2 * step), 2e-6));
          }
      }
}

void test_gradients_have_the_same_bits_on_every_instruction_set() {
  const std::string previous = current_isa();
  for (const Metric metric : {Metric::euclidean, Metric::cosine}) {
    std::vector<std::vector<double>> first;
    for (const std::string& isa : available_isas()) {
      set_isa(isa);
      GradientProblem problem({70, 61}, {90, 97}, metric, 2);
      problem.loss();
      const auto found = problem.gradients();
      if (first.empty()) first = found;
      CHECK(found == first);
    }
  }
  set_isa(previous);
}

void test_gradients_refuse_what_does_not_fit() {
  GradientProblem problem({5, 7}, {5, 7}, Metric::euclidean, 1);
  problem.loss();
  const Guide guide(view_of(problem.pred), nullptr, nullptr, std::nullopt);
  std::vector<double> out(problem.features.data.size());
  const auto refused = [&](const TensorView& view, bool as_mask) {
    MutableView gradient;
    static_cast<TensorView&>(gradient) = view;
    Gradients gradients;
    (as_mask ? gradients.mask : gradients.features) = &gradient;
    try {
      margin_backward(guide, view_of(problem.features), problem.options, problem.tape(),
                      problem.weight.data.data(), gradients);
    } catch (const Error&) {
      return true;
    }
    return false;
  };
  TensorView right = view_of(out.data(), DType::float64, problem.features.shape);
  CHECK(!refused(right, false));
  TensorView wrong = right;
  wrong.shape[1] = 3;
  CHECK(refused(wrong, false));
  wrong = right;
  wrong.dtype = DType::int64;
  CHECK(refused(wrong, false));
  wrong = right;
  wrong.strides[1] = 0;
  CHECK(refused(wrong, false));
  CHECK(refused(view_of(out.data(), DType::float64, {2, 1, 5, 7}), true));  // no mask
  const Tape<float> narrow;
  bool thrown = false;
  try {
    margin(guide, view_of(problem.features), problem.options, narrow);
  } catch (const Error&) {
    thrown = true;
  }
  CHECK(thrown);
}

}  // namespace
