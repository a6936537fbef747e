// The CUDA side of the interface in a build without CUDA: a normal state that every call names.
#include "protoseg/cuda.hpp"

namespace protoseg {
namespace {

[[noreturn]] void not_compiled() { throw Error("CUDA not available: built without CUDA."); }

}  // namespace

bool cuda_compiled() { return false; }

std::string cuda_status() { return "built without CUDA"; }

bool cuda_available(std::string* reason) {
  if (reason != nullptr) *reason = "built without CUDA";
  return false;
}

namespace cuda {

struct GuideState {};

Guide::Guide(const TensorView&, const TensorView*, const TensorView*, std::optional<double>,
             const Allocator&, Stream) {
  not_compiled();
}
void Guide::prepare(const TensorView&, const Options&, Stream) const { not_compiled(); }
void Guide::check(Stream) const { not_compiled(); }
std::int64_t Guide::images() const { not_compiled(); }
std::int64_t Guide::targets() const { not_compiled(); }
std::vector<std::int64_t> Guide::size() const { not_compiled(); }
std::int64_t Guide::bytes() const { not_compiled(); }

std::size_t workspace_bytes(const Guide&, const TensorView&, const Options&, Task, const Tuning&,
                            const GivenPrototypes*) {
  not_compiled();
}
void sa_counts(const Guide&, const TensorView&, const Options&, const CountArrays*,
               const CountArrays*, const Call&, const GivenPrototypes*) {
  not_compiled();
}
void sa_counts(const Guide&, const std::vector<LayerCounts>&, const Call&) { not_compiled(); }
std::size_t workspace_bytes(const Guide&, const std::vector<LayerCounts>&, const Tuning&) {
  not_compiled();
}
void score(const CountArrays&, std::int64_t, Score, Empty, double*, Stream) { not_compiled(); }
void prototypes(const Guide&, const TensorView&, const Options&, const PrototypeArrays&,
                const Call&) {
  not_compiled();
}
void segment(const Guide&, const TensorView&, const Options&, std::uint8_t*, const Call&,
             const GivenPrototypes*) {
  not_compiled();
}
void probability(const Guide&, const TensorView&, const Options&, float*, const Call&) {
  not_compiled();
}
void probability(const Guide&, const TensorView&, const Options&, double*, const Call&) {
  not_compiled();
}

void margin(const Guide&, const TensorView&, const Options&, const Tape<float>&, const Call&) {
  not_compiled();
}
void margin(const Guide&, const TensorView&, const Options&, const Tape<double>&, const Call&) {
  not_compiled();
}
std::size_t backward_workspace_bytes(const Guide&, const TensorView&, const Options&,
                                     const Gradients&, const Tuning&) {
  not_compiled();
}
void margin_backward(const Guide&, const TensorView&, const Options&, const Tape<float>&,
                     const float*, const Gradients&, const Call&) {
  not_compiled();
}
void margin_backward(const Guide&, const TensorView&, const Options&, const Tape<double>&,
                     const double*, const Gradients&, const Call&) {
  not_compiled();
}

}  // namespace cuda
}  // namespace protoseg
