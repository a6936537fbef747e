// The margin and its gradients through the public interface, on the device and on the CPU in
// double, whose own gradients are tested against numerical differences.
#pragma once

#include <algorithm>
#include <optional>

#include "direct.hpp"
#include "protoseg/cuda.hpp"

namespace gradients {

using namespace direct;

using Shape = std::vector<std::int64_t>;

inline std::int64_t count_of(const Shape& shape) {
  std::int64_t count = 1;
  for (const std::int64_t n : shape) count *= n;
  return count;
}

inline Shape shape_of(std::int64_t images, std::int64_t channels, const Shape& size) {
  Shape shape = {images, channels};
  shape.insert(shape.end(), size.begin(), size.end());
  return shape;
}

enum class Order { rows, channels_last, backwards_axes };

// Strides of a dense array whose axes lie in memory in some order.
inline Shape strides_of(const Shape& shape, Order order) {
  const int rank = static_cast<int>(shape.size());
  std::vector<int> axes;  // the last one has stride 1
  for (int axis = 0; axis < rank; ++axis) axes.push_back(axis);
  if (order == Order::channels_last) std::rotate(axes.begin() + 1, axes.begin() + 2, axes.end());
  if (order == Order::backwards_axes) std::reverse(axes.begin() + 1, axes.end());
  Shape strides(rank);
  std::int64_t stride = 1;
  for (int i = rank - 1; i >= 0; --i) {
    strides[axes[i]] = stride;
    stride *= shape[axes[i]];
  }
  return strides;
}

// Where the value of a row-major index lies.
inline std::int64_t offset_at(std::int64_t index, const Shape& shape, const Shape& strides) {
  std::int64_t at = 0;
  for (int axis = static_cast<int>(shape.size()) - 1; axis >= 0; --axis) {
    at += index % shape[axis] * strides[axis];
    index /= shape[axis];
  }
  return at;
}

inline TensorView view_of(const void* data, DType dtype, const Shape& shape, const Shape& strides) {
  TensorView view;
  view.data = data;
  view.dtype = dtype;
  view.rank = static_cast<int>(shape.size());
  std::copy(shape.begin(), shape.end(), view.shape.begin());
  std::copy(strides.begin(), strides.end(), view.strides.begin());
  return view;
}

// Values of E in double on the host, and on the device in some order.
template <class E>
struct Values {
  Values(const Shape& shape_in, Order order, const std::string& name, double low, double high,
         int misalignment = 0)
      : shape(shape_in),
        strides(strides_of(shape, order)),
        memory(count_of(shape), name, misalignment * sizeof(E)) {
    std::vector<E> stored(count_of(shape));
    for (std::int64_t i = 0; i < count_of(shape); ++i) {
      const double x = low < high ? low + (high - low) * uniform() : 1.0 + normal();
      E& element = stored[offset_at(i, shape, strides)];
      element = narrow_to(E{}, x);
      exact.push_back(widen(element));
    }
    simt::upload(memory.data(), stored.data(), stored.size() * sizeof(E));
  }
  void set(std::int64_t index, double x) {
    const E element = narrow_to(E{}, x);
    simt::upload(memory.data() + offset_at(index, shape, strides), &element, sizeof(E));
    exact[index] = widen(element);
  }
  TensorView on_device() const { return view_of(memory.data(), dtype_of<E>(), shape, strides); }
  TensorView on_host() const {
    return contiguous_view(exact.data(), DType::float64, static_cast<int>(shape.size()),
                           shape.data());
  }

  Shape shape, strides;
  std::vector<double> exact;
  simt::DeviceArray<E> memory;
};

// A gradient on the device, unwritten, of the strides of its namesake.
template <class E>
struct Output {
  explicit Output(const Values<E>& like, const std::string& name, int misalignment = 0)
      : shape(like.shape),
        strides(like.strides),
        memory(like.exact.size(), name, misalignment * sizeof(E)) {
    static_cast<TensorView&>(view) = view_of(memory.data(), dtype_of<E>(), shape, strides);
  }
  std::vector<double> values() const {
    const std::vector<E> stored = memory.download();
    std::vector<double> result(stored.size());
    for (std::int64_t i = 0; i < count_of(shape); ++i)
      result[i] = widen(stored[offset_at(i, shape, strides)]);
    return result;
  }
  Shape shape, strides;
  simt::DeviceArray<E> memory;
  MutableView view;
};

struct Case {
  Shape size, feature_size;
  std::int64_t groups = 1, group_channels = 5, targets = 1;
  Metric metric = Metric::euclidean;
  bool masked = true;
  Order order = Order::rows;
  int misalignment = 0;
  Interpolation interpolation = Interpolation::linear;
  bool align_corners = false;
  std::optional<double> binarize;
  bool wanted[3] = {true, true, true};
  std::int64_t cache_bytes = 0;
  std::int64_t images = 2;
};

// Half of what is added to the last digit, and some roundings before it.
template <class T>
double tolerance() {
  if (std::is_same_v<T, Half>) return 0x1p-10;
  if (std::is_same_v<T, Bfloat>) return 0x1p-7;
  return std::is_same_v<T, float> ? 2e-5 : 1e-11;
}

// Relative to the largest value expected.
inline void expect_close(const char* what, const std::vector<double>& found,
                         const std::vector<double>& expected, double tolerance) {
  SIMT_EXPECT_EQUAL(found.size(), expected.size());
  double largest = 0.0;
  for (const double x : expected)
    if (std::isfinite(x)) largest = std::max(largest, std::fabs(x));
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(found[i]) && std::isnan(expected[i])) continue;
    if (std::fabs(found[i] - expected[i]) <= tolerance * largest) continue;
    simt::wrong(std::string(what) + " " + std::to_string(i) + ": expected " +
                    std::to_string(expected[i]) + ", found " + std::to_string(found[i]) +
                    ", largest " + std::to_string(largest),
                __FILE__, __LINE__);
  }
}

inline void* take(std::size_t bytes, cuda::Stream, void*) { return simt::allocate(bytes, "guide"); }
inline void give_back(void* pointer, cuda::Stream, void*) { simt::release(pointer); }

// Features of T, pred and mask of float (double for double), both engines.
template <class T>
class Gradient {
 public:
  using Sum = SumOf<T>;

  explicit Gradient(const Case& c)
      : c_(c),
        features(shape_of(c.images, c.groups * c.group_channels, feature_size()), c.order,
                 "features", 0.0, 0.0, c.misalignment),
        pred(shape_of(c.images, c.targets, c.size), Order::rows, "pred", 0.05, 0.95),
        mask(shape_of(c.images, 1, c.size), Order::rows, "mask", 0.1, 1.0),
        grad(shape_of(c.images, c.groups * c.targets, c.size), Order::rows, "grad", -1.0, 1.0,
             c.misalignment) {
    options.groups = c.groups;
    options.metric = c.metric;
    options.interpolation = c.interpolation;
    options.align_corners = c.align_corners;
    options.temperature = c.metric == Metric::cosine ? 3.0 : 1.0;
  }

  void expect_the_cpus() {
    const TensorView mask_view = mask.on_host();
    const protoseg::Guide guide(pred.on_host(), nullptr, c_.masked ? &mask_view : nullptr,
                                c_.binarize);
    std::vector<double> margin(grad.exact.size()), square(margin.size() / c_.targets);
    std::vector<double> prototypes(tape_prototypes());
    const Tape<double> tape = {margin.data(), prototypes.data(),
                               squares() ? square.data() : nullptr};
    protoseg::margin(guide, features.on_host(), options, tape);
    std::vector<double> expected[3];
    MutableView views[3];
    const Values<Sum>* like[2] = {&pred, &mask};
    for (int i = 0; i < 3; ++i) {
      expected[i].assign(i == 0 ? features.exact.size() : like[i - 1]->exact.size(), 0.0);
      const Shape& shape = i == 0 ? features.shape : like[i - 1]->shape;
      static_cast<TensorView&>(views[i]) = contiguous_view(
          expected[i].data(), DType::float64, static_cast<int>(shape.size()), shape.data());
    }
    protoseg::margin_backward(guide, features.on_host(), options, tape, grad.exact.data(),
                              {&views[0], &views[1], c_.masked ? &views[2] : nullptr});
    run();
    const double rounding = std::is_same_v<Sum, float> ? 2e-5 : 1e-11;
    expect_close("margin", found_margin, margin, rounding);
    const char* names[3] = {"features", "pred", "mask"};
    for (int i = 0; i < 3; ++i)
      if (wanted(i))
        expect_close(names[i], found[i], expected[i], i == 0 ? tolerance<T>() : rounding);
  }

  // Forward and backward on the device.
  void run() {
    const TensorView mask_view = mask.on_device();
    const cuda::Guide guide(pred.on_device(), nullptr, c_.masked ? &mask_view : nullptr,
                            c_.binarize, {take, give_back, nullptr}, nullptr);
    const simt::DeviceArray<Sum> margin(grad.exact.size(), "margin");
    const simt::DeviceArray<Sum> square(grad.exact.size() / c_.targets, "square");
    const simt::DeviceArray<double> prototypes(tape_prototypes(), "prototypes");
    const Tape<Sum> tape = {margin.data(), prototypes.data(), squares() ? square.data() : nullptr};
    cuda::Tuning tuning;
    tuning.cache_bytes = c_.cache_bytes;
    const TensorView view = features.on_device();
    with_workspace(cuda::workspace_bytes(guide, view, options, cuda::Task::margin, tuning), tuning,
                   [&](const cuda::Call& call) { cuda::margin(guide, view, options, tape, call); });
    const auto stored = margin.download();
    found_margin.assign(stored.begin(), stored.end());
    const Output<T> of_features(features, "features gradient", c_.misalignment);
    const Output<Sum> of_pred(pred, "pred gradient"), of_mask(mask, "mask gradient");
    const Gradients out = {wanted(0) ? &of_features.view : nullptr,
                           wanted(1) ? &of_pred.view : nullptr,
                           wanted(2) ? &of_mask.view : nullptr};
    simt::clear_launches();
    with_workspace(cuda::backward_workspace_bytes(guide, view, options, out, tuning), tuning,
                   [&](const cuda::Call& call) {
                     cuda::margin_backward(guide, view, options, tape,
                                           static_cast<const Sum*>(grad.memory.data()), out, call);
                   });
    if (wanted(0)) found[0] = of_features.values();
    if (wanted(1)) found[1] = of_pred.values();
    if (wanted(2)) found[2] = of_mask.values();
  }

  bool wanted(int which) const { return c_.wanted[which] && (which < 2 || c_.masked); }

 private:
  Case c_;

 public:
  Values<T> features;
  Values<Sum> pred, mask, grad;
  Options options;
  std::vector<double> found_margin, found[3];
  std::size_t workspace_bytes = 0;  // of the last call

 private:
  const Shape& feature_size() const { return c_.feature_size.empty() ? c_.size : c_.feature_size; }
  std::size_t tape_prototypes() const {
    return static_cast<std::size_t>(c_.images * c_.targets * c_.groups * c_.group_channels * 2);
  }
  bool squares() const { return c_.metric == Metric::cosine && c_.group_channels > 1; }
  // A workspace of just the size that was asked for.
  template <class Use>
  void with_workspace(std::size_t bytes, const cuda::Tuning& tuning, Use use) {
    workspace_bytes = bytes;
    const simt::DeviceArray<std::byte> workspace(std::max<std::size_t>(1, bytes), "workspace");
    cuda::Call call;
    call.workspace = workspace.data();
    call.workspace_bytes = bytes;
    call.tuning = tuning;
    use(call);
  }
};

template <class T>
void check(const Case& c) {
  Gradient<T>(c).expect_the_cpus();
}

inline Case same_size(const Shape& size, std::int64_t groups, std::int64_t group_channels,
                      std::int64_t targets, Metric metric) {
  Case c;
  c.size = size;
  c.groups = groups;
  c.group_channels = group_channels;
  c.targets = targets;
  c.metric = metric;
  return c;
}

inline Case resized(const Shape& feature_size, const Shape& size, std::int64_t groups,
                    std::int64_t group_channels, std::int64_t targets, Metric metric) {
  Case c = same_size(size, groups, group_channels, targets, metric);
  c.feature_size = feature_size;
  return c;
}

constexpr Metric euclidean = Metric::euclidean, cosine = Metric::cosine;

}  // namespace gradients
