// The CUDA side of the public C++ interface: the operations of engine.hpp on device memory.
//
//   protoseg::cuda::Guide guide(pred, &target, nullptr, std::nullopt, allocator, stream);
//   const std::size_t bytes = workspace_bytes(guide, features, options, Task::sa_counts);
//   sa_counts(guide, features, options, &counts, nullptr, {stream, workspace, bytes});
//
// All arrays lie in memory of the current device, which stays the one that the guide was made on.
// Calls put their work on the caller's stream and return: they neither wait, nor copy anything to
// the host, nor allocate, except that what a guide keeps per feature size (see `prepare`) is made
// on first use. So a call on a prepared guide can be captured in a graph. Shapes, dtypes and
// options are checked at once, as on the CPU. The values of pred, target and mask are checked on
// the device: where one is not acceptable, every score is NaN (defined = 0), and `Guide::check`
// says why.
//
// Letters: N images, C channels, G groups, T targets. In a build without CUDA every function here
// throws protoseg::Error that says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "protoseg/engine.hpp"
#include "protoseg/gradients.hpp"
#include "protoseg/tensor.hpp"

namespace protoseg {

bool cuda_compiled();

// One sentence: what was compiled, or why CUDA is not available.
std::string cuda_status();

// True if a device can be used now; otherwise, if asked for, the reason: no driver, one too old, no
// device.
bool cuda_available(std::string* reason = nullptr);

namespace cuda {

using Stream = void*;  // a cudaStream_t

// Where the memory comes from that a guide keeps or needs for a moment. Stream-ordered: what is
// freed may still be in use by work that was put on that stream before.
struct Allocator {
  void* (*allocate)(std::size_t bytes, Stream stream, void* context) = nullptr;
  void (*free)(void* pointer, Stream stream, void* context) = nullptr;
  void* context = nullptr;
};

// How a sweep of units goes over memory; see docs/gpu.md and choose_strategy in cuda/policy.hpp.
enum class Strategy : std::int32_t {
  automatic,
  small,     // a warp holds a plane in its registers
  resident,  // a block, or a cluster of them, holds planes in shared memory
  streamed,  // a block reads planes twice, the second time from the cache
  split,     // planes are split over blocks: sums, boundaries and counts in launches of their own
};

// For tests and measurements: what the policy would otherwise choose. 0 is automatic.
struct Tuning {
  Strategy strategy = Strategy::automatic;
  int cluster = 0;               // blocks of a cluster: 1, 2, 4 or 8
  int units = 0;                 // planes of a block: 1 to 4
  std::int64_t cache_bytes = 0;  // of the second-level cache, which bounds chunks of work
  std::int64_t map_bytes = 0;    // of maps of resized features that are kept at a time
};

struct GuideState;

// What guides the prototypes and what maps are scored against, on the device. Keeps packed bits of
// target, output and mask, and per feature size the resized weights; borrows `pred` and `mask`,
// which must stay unchanged. Copies share one state.
//
// What a guide keeps is written on the stream on which it is first needed: work on another stream
// must be made to wait for that, by an event or a synchronisation.
class Guide {
 public:
  // pred   (N, T, *size) floating, in [0, 1]
  // target (N, T, *size) boolean, integer or floating, 0 or 1; null: pred > 0.5
  // mask   (N, 1, *size) boolean, integer 0/1, or finite floating weights >= 0; null: all voxels
  // binarize: average under pred > binarize instead of pred
  Guide(const TensorView& pred, const TensorView* target, const TensorView* mask,
        std::optional<double> binarize, const Allocator& allocator, Stream stream);

  // Makes what calls with such features and options need and the guide does not have yet. Calls
  // do it themselves; before a graph capture it has to be done.
  void prepare(const TensorView& features, const Options& options, Stream stream) const;

  // Waits for the stream. Throws what the CPU's Guide would have thrown: pred outside [0, 1],
  // values of target or mask that are none.
  void check(Stream stream) const;

  std::int64_t images() const;
  std::int64_t targets() const;
  std::vector<std::int64_t> size() const;  // 1 to 3 spatial extents
  std::int64_t bytes() const;              // device memory kept
  const std::shared_ptr<GuideState>& state() const { return state_; }

 private:
  std::shared_ptr<GuideState> state_;
};

// The stream, and memory on the device for what lies between two kernels of a call, aligned to 256
// bytes. It may be used again by whatever follows on the stream.
struct Call {
  Stream stream = nullptr;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
  Tuning tuning{};
};

// `given`: as for the call itself; its memory is not looked at.
enum class Task : std::int32_t { sa_counts, prototypes, segment, probability, margin };
std::size_t workspace_bytes(const Guide& guide, const TensorView& features, const Options& options,
                            Task task, const Tuning& tuning = {},
                            const GivenPrototypes* given = nullptr);

// Counts, see Counts in counts.hpp; tp, predicted, actual, defined [N, G, T]; voxels [N], or null.
// Two references may share voxels and defined, which do not depend on them.
struct CountArrays {
  std::int64_t* tp = nullptr;
  std::int64_t* predicted = nullptr;
  std::int64_t* actual = nullptr;
  std::int64_t* voxels = nullptr;
  std::uint8_t* defined = nullptr;
};

// features (N, C, *feature_size): float16, bfloat16, float32 or float64 with any strides, read in
// place. Rows and channels-last are read as fast as memory goes, other strides slower.
//
// GivenPrototypes of engine.hpp lie on the device here. Features are then read once, for the maps,
// and a strategy other than split is not looked at.

// Counts of the maps against the guide's target, or against its output, pred > 0.5, in one pass
// over the features; either may be null.
void sa_counts(const Guide& guide, const TensorView& features, const Options& options,
               const CountArrays* against_target, const CountArrays* against_output,
               const Call& call, const GivenPrototypes* given = nullptr);

// A layer, or a division of one, of several that are scored together.
struct LayerCounts {
  TensorView features;
  Options options;
  const CountArrays* against_target = nullptr;  // either may be null
  const CountArrays* against_output = nullptr;
  const GivenPrototypes* given = nullptr;
};

// The same of several layers: units of small ones that are resized take one launch together; groups
// that are followed by the units of the same features share their sums with them.
// Arrays that follow each other (tp and predicted, then actual, layer by layer) start with one
// call.
void sa_counts(const Guide& guide, const std::vector<LayerCounts>& layers, const Call& call);
std::size_t workspace_bytes(const Guide& guide, const std::vector<LayerCounts>& layers,
                            const Tuning& tuning = {});

// Scores [count] of counts [count], with the formulas of counts.hpp; voxels may be null.
void score(const CountArrays& counts, std::int64_t count, Score which, Empty empty, double* scores,
           Stream stream);

// Weighted means and the sums of their weights; mean [N, T, C], weight [N, T].
void prototypes(const Guide& guide, const TensorView& features, const Options& options,
                const PrototypeArrays& out, const Call& call);

// map [N, G, T, *size]: 1 where margin > 0
void segment(const Guide& guide, const TensorView& features, const Options& options,
             std::uint8_t* map, const Call& call, const GivenPrototypes* given = nullptr);

// probability [N, G, T, *size]: sigmoid(margin); NaN where a prototype is undefined
void probability(const Guide& guide, const TensorView& features, const Options& options,
                 float* probability, const Call& call);
void probability(const Guide& guide, const TensorView& features, const Options& options,
                 double* probability, const Call& call);

// The margin for training, and its gradients: as in gradients.hpp, on the device.

// Fills the tape; square must be there if `needs_square`.
void margin(const Guide& guide, const TensorView& features, const Options& options,
            const Tape<float>& tape, const Call& call);
void margin(const Guide& guide, const TensorView& features, const Options& options,
            const Tape<double>& tape, const Call& call);

// Workspace of margin_backward for the gradients asked for; their memory is not looked at.
std::size_t backward_workspace_bytes(const Guide& guide, const TensorView& features,
                                     const Options& options, const Gradients& wanted,
                                     const Tuning& tuning = {});

// Unlike on the CPU, the gradient of the features must have their dtype. Rows and channels-last are
// written as fast as memory goes, other strides slower. `Guide::check` is not asked: gradients of a
// guide with unacceptable values are NaN.
void margin_backward(const Guide& guide, const TensorView& features, const Options& options,
                     const Tape<float>& tape, const float* grad, const Gradients& out,
                     const Call& call);
void margin_backward(const Guide& guide, const TensorView& features, const Options& options,
                     const Tape<double>& tape, const double* grad, const Gradients& out,
                     const Call& call);

}  // namespace cuda
}  // namespace protoseg
