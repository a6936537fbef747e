// Every precondition on shapes, dtypes and options, one sentence each. Values are checked where
// they are read (guide.cpp), with the messages of this file.
#pragma once

#include <string>

#include "kernels.hpp"
#include "protoseg/engine.hpp"

namespace protoseg {

std::string shape_text(const TensorView& view);
std::string dtype_name(DType dtype);

void validate_guide(const TensorView& pred, const TensorView* target, const TensorView* mask,
                    std::optional<double> binarize);
// A gradient of `like`: its shape, a floating dtype, every element with a place of its own.
void validate_gradient(const std::string& name, const TensorView& gradient, const TensorView& like);
// pred: the guide's, whose shape features must go with.
void validate_features(const TensorView& features, const TensorView& pred, const Options& options);

[[noreturn]] void throw_pred_range(const Range& range);
[[noreturn]] void throw_target_values();
[[noreturn]] void throw_mask_values(DType dtype, const Range& range);

}  // namespace protoseg
