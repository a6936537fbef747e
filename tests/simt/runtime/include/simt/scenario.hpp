// A program of scenarios: `program NAME SEED` runs one. Exit status 0: passed; 1: a fault or a
// wrong result, described on stderr.
#pragma once

#include <string>

#include "simt/simt.hpp"

namespace simt {

using ScenarioBody = void (*)();
struct RegisterScenario {
  RegisterScenario(const char* name, ScenarioBody body);
};
[[noreturn]] void wrong(const std::string& what, const char* file, int line);

}  // namespace simt

#define SIMT_COMPILED(name)                                                         \
  static void name##_scenario();                                                    \
  static const simt::RegisterScenario name##_registration(#name, &name##_scenario); \
  static void name##_scenario()
// Parsed, but nothing of it is instantiated.
#define SIMT_LEFT_OUT(name) \
  template <class>          \
  void name##_scenario()

// One scenario alone, which takes a fraction of the time to compile:
// -DSIMT_ALONE "-DSIMT_ALONE_name=, SIMT_COMPILED".
#define SIMT_SECOND(first, second, ...) second
#define SIMT_CHOOSE(...) SIMT_SECOND(__VA_ARGS__)
#if defined(SIMT_ALONE)
#define SIMT_SCENARIO(name) SIMT_CHOOSE(SIMT_ALONE_##name, SIMT_LEFT_OUT, )(name)
#else
#define SIMT_SCENARIO(name) SIMT_COMPILED(name)
#endif

// A scenario that has to end with a fault whose message has the regular expression `text`.
#define SIMT_FAULT(name, text) SIMT_SCENARIO(name)

#define SIMT_EXPECT(condition)                                     \
  do {                                                             \
    if (!(condition)) simt::wrong(#condition, __FILE__, __LINE__); \
  } while (false)

#define SIMT_EXPECT_EQUAL(a, b)                                                                    \
  do {                                                                                             \
    const auto simt_a = (a);                                                                       \
    const auto simt_b = (b);                                                                       \
    if (!(simt_a == simt_b))                                                                       \
      simt::wrong(                                                                                 \
          #a " == " #b ", but it is " + std::to_string(simt_a) + " and " + std::to_string(simt_b), \
          __FILE__, __LINE__);                                                                     \
  } while (false)
