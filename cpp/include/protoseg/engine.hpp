// The public C++ interface: score the layers and units of a segmentation network.
//
//   protoseg::Guide guide(pred, &target, nullptr, std::nullopt);
//   std::vector<protoseg::Counts> counts(images * groups * targets);
//   protoseg::sa_counts(guide, features, options, counts.data());
//
// Letters: N images, C channels, G groups, T targets. Every function checks its arguments and
// throws protoseg::Error; nothing is written to the caller's inputs. All functions may be called
// from several threads at once, also with the same Guide.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "protoseg/counts.hpp"
#include "protoseg/resize.hpp"
#include "protoseg/rule.hpp"
#include "protoseg/tensor.hpp"

namespace protoseg {

// The one list of option names; bindings and messages read it.
template <class Enum>
using Names = std::vector<std::pair<const char*, Enum>>;
const Names<Metric>& metric_names();
const Names<Interpolation>& interpolation_names();
const Names<Score>& score_names();
const Names<Empty>& empty_names();

struct Options {
  std::int64_t groups = 1;  // must divide C
  Metric metric = Metric::euclidean;
  Interpolation interpolation = Interpolation::linear;
  bool align_corners = false;
  double temperature = 1.0;  // tau of the cosine margin
};

struct GuideState;

// What guides the prototypes and what maps are scored against, validated once. Keeps packed
// targets and, per feature size, resized weights; borrows `pred` and `mask`, which must outlive
// it unchanged. Copies share one state.
class Guide {
 public:
  // pred   (N, T, *size) floating, in [0, 1]
  // target (N, T, *size) boolean, integer or floating, 0 or 1; null: pred > 0.5
  // mask   (N, 1, *size) boolean, integer 0/1, or finite floating weights >= 0; null: all voxels
  // binarize: average under pred > binarize instead of pred
  Guide(const TensorView& pred, const TensorView* target, const TensorView* mask,
        std::optional<double> binarize);

  std::int64_t images() const;
  std::int64_t targets() const;
  std::vector<std::int64_t> size() const;  // 1 to 3 spatial extents
  std::int64_t bytes() const;              // memory kept
  const std::shared_ptr<GuideState>& state() const { return state_; }

 private:
  std::shared_ptr<GuideState> state_;
};

// features (N, C, *feature_size): float16, bfloat16, float32 or float64 with any strides, read in
// place. feature_size may differ from size; the features are never resized, the weights and
// margins are.

// Prototypes made elsewhere, [N, T, C] each, say of a whole volume of which the features are a
// part. The maps are then drawn at these; NaN makes their groups undefined.
struct GivenPrototypes {
  const double* positive;
  const double* negative;
};

// counts [N, G, T] of the maps against the guide's target, or against its output, pred > 0.5, in
// one pass over the features; either may be null. A guide without a target has its output for one.
void sa_counts(const Guide& guide, const TensorView& features, const Options& options,
               Counts* against_target, Counts* against_output = nullptr,
               const GivenPrototypes* given = nullptr);

// The same for several divisions of the channels into groups, whose prototypes are averaged once.
// `options.groups` is not looked at.
struct Division {
  std::int64_t groups;
  Counts* against_target;
  Counts* against_output;
};
void sa_counts(const Guide& guide, const TensorView& features, const Options& options,
               const std::vector<Division>& divisions, const GivenPrototypes* given = nullptr);

// Weighted means and the sums of their weights; mean [N, T, C], weight [N, T].
struct PrototypeArrays {
  double* positive;
  double* negative;
  double* positive_weight;
  double* negative_weight;
};
void prototypes(const Guide& guide, const TensorView& features, const Options& options,
                const PrototypeArrays& out);

// map [N, G, T, *size]: 1 where margin > 0
void segment(const Guide& guide, const TensorView& features, const Options& options,
             std::uint8_t* map, const GivenPrototypes* given = nullptr);

// probability [N, G, T, *size]: sigmoid(margin); NaN where a prototype is undefined
void probability(const Guide& guide, const TensorView& features, const Options& options,
                 float* probability);
void probability(const Guide& guide, const TensorView& features, const Options& options,
                 double* probability);

// Instruction sets: what this processor and build offer, best last; the one in use. The
// environment variable PROTOSEG_ISA names the first one used; an unknown or unsupported name is
// an Error at first use.
std::vector<std::string> available_isas();
std::string current_isa();
void set_isa(const std::string& name);

struct BuildConfig {
  std::string version;
  std::string compiler;
  std::string build_type;
  std::string threads;  // "OpenMP" or "std::thread"
  std::vector<std::string> compiled_isas;
  std::string cuda;  // why CUDA is absent, or what was compiled
};
BuildConfig build_config();

}  // namespace protoseg
