// Names of options as the values of the library.
#pragma once

#include <string>
#include <vector>

#include "array.hpp"
#include "protoseg/engine.hpp"

namespace protoseg_python {

using protoseg::Options;

template <class Enum>
Enum parse(const char* argument, const std::string& name, const protoseg::Names<Enum>& names) {
  std::string offered;
  for (const auto& [offered_name, value] : names) {
    if (name == offered_name) return value;
    offered += (offered.empty() ? "\"" : ", \"") + std::string(offered_name) + "\"";
  }
  throw Error(std::string(argument) + " must be one of " + offered + ", got \"" + name + "\".");
}

template <class Enum>
std::vector<std::string> listed(const protoseg::Names<Enum>& names) {
  std::vector<std::string> result;
  for (const auto& entry : names) result.emplace_back(entry.first);
  return result;
}

inline Options make_options(std::int64_t groups, const std::string& metric,
                            const std::string& interpolation, bool align_corners,
                            double temperature) {
  Options options;
  options.groups = groups;
  options.metric = parse("metric", metric, protoseg::metric_names());
  options.interpolation = parse("interpolation", interpolation, protoseg::interpolation_names());
  options.align_corners = align_corners;
  options.temperature = temperature;
  return options;
}

}  // namespace protoseg_python
