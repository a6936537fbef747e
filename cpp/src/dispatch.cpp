// Picks the copy of the kernels for this processor. One row per instruction set, best last.
#include "dispatch.hpp"

#include <atomic>
#include <cstdlib>

#include "protoseg/cuda.hpp"
#include "protoseg/engine.hpp"

namespace protoseg {

extern const Kernels kernels_baseline;
#if defined(PROTOSEG_X86)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

namespace {

struct InstructionSet {
  const Kernels* table;
  bool supported;
};

std::vector<InstructionSet> instruction_sets() {
  std::vector<InstructionSet> sets = {{&kernels_baseline, true}};
#if defined(PROTOSEG_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  sets.push_back({&kernels_avx2, avx2});
  sets.push_back({&kernels_avx512, avx512});
#endif
  return sets;
}

const Kernels* find(const std::string& name, const std::string& source) {
  std::string offered;
  for (const InstructionSet& set : instruction_sets()) {
    if (!set.supported) continue;
    if (name == set.table->isa) return set.table;
    offered += (offered.empty() ? "" : ", ") + std::string(set.table->isa);
  }
  throw Error(source + " names the instruction set '" + name +
              "', which this build or processor does not have; choose one of: " + offered + ".");
}

std::atomic<const Kernels*> active{nullptr};

}  // namespace

const Kernels& kernels() {
  const Kernels* table = active.load(std::memory_order_acquire);
  if (table == nullptr) {
    const char* wanted = std::getenv("PROTOSEG_ISA");
    table = find(wanted != nullptr && *wanted != '\0' ? wanted : available_isas().back(),
                 "The environment variable PROTOSEG_ISA");
    active.store(table, std::memory_order_release);
  }
  return *table;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const InstructionSet& set : instruction_sets())
    if (set.supported) names.emplace_back(set.table->isa);
  return names;
}

std::string current_isa() { return kernels().isa; }

void set_isa(const std::string& name) { active.store(find(name, "set_isa()")); }

BuildConfig build_config() {
  BuildConfig config;
  config.version = PROTOSEG_VERSION;
#if defined(__clang__)
  config.compiler = "Clang " __clang_version__;
#else
  config.compiler = "GCC " __VERSION__;
#endif
  config.build_type = PROTOSEG_BUILD_TYPE;
#if defined(PROTOSEG_OPENMP)
  config.threads = "OpenMP";
#else
  config.threads = "std::thread";
#endif
  for (const InstructionSet& set : instruction_sets())
    config.compiled_isas.emplace_back(set.table->isa);
  config.cuda = cuda_status();
  return config;
}

}  // namespace protoseg
