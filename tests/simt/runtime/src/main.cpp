// The program around scenarios.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <utility>
#include <vector>

#include "simt/scenario.hpp"

namespace simt {

namespace {
std::vector<std::pair<std::string, ScenarioBody>>& scenarios() {
  static std::vector<std::pair<std::string, ScenarioBody>> list;
  return list;
}
}  // namespace

RegisterScenario::RegisterScenario(const char* name, ScenarioBody body) {
  scenarios().emplace_back(name, body);
}

void wrong(const std::string& what, const char* file, int line) {
  const std::string path = file;
  throw Failure("wrong result: expected " + what + "\n  at " + path.substr(path.rfind('/') + 1) +
                ":" + std::to_string(line) + "\n  seed " + std::to_string(options().seed));
}

}  // namespace simt

int main(int count, char** arguments) {
  if (count == 2 && !std::strcmp(arguments[1], "--list")) {
    for (const auto& scenario : simt::scenarios()) std::printf("%s\n", scenario.first.c_str());
    return 0;
  }
  if (count < 3) {
    std::fprintf(stderr, "usage: %s --list | SCENARIO SEED [--traffic] [--hot]\n", arguments[0]);
    return 2;
  }
  simt::options().seed = std::strtoull(arguments[2], nullptr, 10);
  for (const auto& [name, body] : simt::scenarios()) {
    if (name != arguments[1]) continue;
    try {
      body();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      return 1;
    }
    for (int i = 3; i < count; ++i) {
      if (!std::strcmp(arguments[i], "--hot")) std::printf("%s", simt::hot_lines().c_str());
      if (std::strcmp(arguments[i], "--traffic")) continue;
      for (const simt::Traffic& traffic : simt::launches())
        std::printf("%s\n", traffic.json().c_str());
    }
    return 0;
  }
  std::fprintf(stderr, "no scenario '%s'\n", arguments[1]);
  return 2;
}
