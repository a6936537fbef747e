#include "validate.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

namespace protoseg {
namespace {

[[noreturn]] void value_error(const std::string& message) {
  throw Error(message, Error::Kind::value);
}
[[noreturn]] void type_error(const std::string& message) {
  throw Error(message, Error::Kind::type);
}

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.6g", x);
  const bool rounded_to_one = x > 1.0 && std::strtod(text, nullptr) == 1.0;  // and so allowed
  if (rounded_to_one) std::snprintf(text, sizeof(text), "%.17g", x);
  return text;
}

// Rank, emptiness and index arithmetic, which hold for every array.
void check_array(const std::string& name, const std::string& layout, const TensorView& view) {
  if (view.rank < 3 || view.rank > max_rank)
    value_error(name + " must have 3 to 5 axes " + layout +
                " with 1 to 3 spatial axes, got shape " + shape_text(view) + ".");
  std::int64_t elements = 1;
  for (int axis = 0; axis < view.rank; ++axis) {
    if (view.shape[axis] <= 0)
      value_error(name + " must not be empty, got shape " + shape_text(view) + ".");
    if (elements > std::numeric_limits<std::int64_t>::max() / 16 / view.shape[axis])
      value_error(name + " has more elements than 64-bit indices can count, shape " +
                  shape_text(view) + ".");
    elements *= view.shape[axis];
  }
  if (view.data == nullptr) value_error(name + " has no data (null pointer).");
  if (reinterpret_cast<std::uintptr_t>(view.data) % static_cast<unsigned>(item_size(view.dtype)))
    value_error(name + " is not aligned to its element size; copy it first.");
}

// The axes (from `first` on) of `view` that must equal those of `pred`.
void check_like_pred(const std::string& name, const TensorView& view, const TensorView& pred,
                     bool one_channel) {
  TensorView expected = pred;
  if (one_channel) expected.shape[1] = 1;
  bool equal = view.rank == pred.rank;
  for (int axis = 0; equal && axis < pred.rank; ++axis)
    equal = view.shape[axis] == expected.shape[axis];
  if (!equal)
    value_error(name + " must have shape " + shape_text(expected) +
                (one_channel ? " (N, 1, *size)" : " (N, T, *size)") + " to go with pred of shape " +
                shape_text(pred) + ", got " + shape_text(view) + ".");
}

}  // namespace

std::string shape_text(const TensorView& view) {
  std::string text = "(";
  for (int axis = 0; axis < view.rank && axis < max_rank; ++axis)
    text += (axis > 0 ? ", " : "") + std::to_string(view.shape[axis]);
  return text + ")";
}

std::string dtype_name(DType dtype) {
  switch (dtype) {
    case DType::boolean: return "bool";
    case DType::int8: return "int8";
    case DType::uint8: return "uint8";
    case DType::int16: return "int16";
    case DType::uint16: return "uint16";
    case DType::int32: return "int32";
    case DType::uint32: return "uint32";
    case DType::int64: return "int64";
    case DType::uint64: return "uint64";
    case DType::float16: return "float16";
    case DType::bfloat16: return "bfloat16";
    case DType::float32: return "float32";
    case DType::float64: return "float64";
  }
  return "unknown";
}

void validate_guide(const TensorView& pred, const TensorView* target, const TensorView* mask,
                    std::optional<double> binarize) {
  check_array("pred", "(N, T, *size)", pred);
  if (!is_floating(pred.dtype))
    type_error("pred must hold probabilities in a floating dtype (float16, bfloat16, float32 or "
               "float64), got " +
               dtype_name(pred.dtype) +
               "; convert a hard segmentation with .astype or .float() first.");
  if (target != nullptr) {
    check_array("target", "(N, T, *size)", *target);
    check_like_pred("target", *target, pred, false);
  }
  if (mask != nullptr) {
    check_array("mask", "(N, 1, *size)", *mask);
    check_like_pred("mask", *mask, pred, true);
  }
  if (binarize && !(*binarize >= 0.0 && *binarize <= 1.0))
    value_error("binarize must be a threshold in [0, 1] or None, got " + number(*binarize) + ".");
}

void validate_features(const TensorView& features, const TensorView& pred, const Options& options) {
  check_array("features", "(N, C, *feature_size)", features);
  if (!is_floating(features.dtype))
    type_error("features must be float16, bfloat16, float32 or float64, got " +
               dtype_name(features.dtype) + "; convert them to float32 first.");
  if (features.rank != pred.rank)
    value_error("features and pred must have the same number of spatial axes, got features of "
                "shape " +
                shape_text(features) + " and pred of shape " + shape_text(pred) + ".");
  if (features.shape[0] != pred.shape[0])
    value_error("features and pred must hold the same number of images N, got features of shape " +
                shape_text(features) + " and pred of shape " + shape_text(pred) + ".");
  const std::int64_t channels = features.shape[1];
  if (options.groups < 1 || channels % options.groups != 0)
    value_error("groups must be a positive divisor of the " + std::to_string(channels) +
                " channels of features (1 or \"layer\" for all together, " +
                std::to_string(channels) + " or \"unit\" for each alone), got " +
                std::to_string(options.groups) + ".");
  if (!(options.temperature > 0.0) || !std::isfinite(options.temperature))
    value_error("temperature must be a positive finite number, got " + number(options.temperature) +
                ".");
  if (options.metric == Metric::euclidean && options.temperature != 1.0)
    value_error("temperature scales the cosine margin only; the euclidean margin has none, so "
                "leave temperature at 1 or choose metric=\"cosine\".");
  if (options.interpolation == Interpolation::nearest && options.align_corners)
    value_error("align_corners=True has no meaning for interpolation=\"nearest\"; leave it False "
                "or choose interpolation=\"linear\".");
}

void validate_gradient(const std::string& name, const TensorView& gradient,
                       const TensorView& like) {
  check_array("the gradient of " + name, "like " + name, gradient);
  bool fits = gradient.rank == like.rank && is_floating(gradient.dtype);
  for (int axis = 0; fits && axis < like.rank; ++axis)
    fits = gradient.shape[axis] == like.shape[axis] &&
           (gradient.strides[axis] > 0 || gradient.shape[axis] == 1);
  if (!fits)
    value_error("the gradient of " + name + " must be floating, of shape " + shape_text(like) +
                " and with strides above 0, got " + dtype_name(gradient.dtype) + " of shape " +
                shape_text(gradient) + ".");
}

void throw_pred_range(const Range& range) {
  if (range.has_nan)
    value_error("pred contains NaN; it must hold probabilities in [0, 1], such as the sigmoid or "
                "softmax of a network's logits.");
  value_error("pred must hold probabilities in [0, 1], but its values span [" +
              number(range.lowest) + ", " + number(range.highest) +
              "]; if these are logits, apply sigmoid (or softmax over classes) first.");
}

void throw_target_values() {
  value_error("target must be binary: every value 0 or 1 (or False and True), one target per "
              "class; turn class indices into masks with target == k.");
}

void throw_mask_values(DType dtype, const Range& range) {
  if (range.has_nan) value_error("mask contains NaN; it must hold finite weights >= 0.");
  if (!is_floating(dtype))
    value_error("an integer mask must hold only 0 and 1, but its values span [" +
                number(range.lowest) + ", " + number(range.highest) + "]; pass mask > 0.");
  value_error("mask must hold finite weights >= 0, but its values span [" + number(range.lowest) +
              ", " + number(range.highest) + "].");
}

}  // namespace protoseg
