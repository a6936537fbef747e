// The weights of prototypes at feature size.
#include "adjoint.hpp"

namespace protoseg {
namespace {

// Both weights of one image and target at `size`. One per thread.
class WeightMaps {
 public:
  WeightMaps(const Kernels& kernels, const GuideState& guide, std::int64_t image,
             std::int64_t target)
      : kernels_(kernels),
        guide_(guide),
        image_(image),
        target_(target),
        mask_(make_buffer<double>(rows_at_once(guide.extent) * guide.extent.n[2])) {}

  void operator()(std::int64_t, std::int64_t first, std::int64_t n, double* out,
                  std::int64_t pitch) {
    const double one[2] = {1.0, 1.0};
    guide_.read_pred(kernels_, image_, target_, first, n, out);
    const double* mask = guide_.read_mask(kernels_, image_, first, n, mask_.get());
    kernels_.weights_double(out, mask, one, n, out, out + pitch);
  }

 private:
  const Kernels& kernels_;
  const GuideState& guide_;
  const std::int64_t image_, target_;
  Buffer<double> mask_;
};

}  // namespace

void adjoint_weights(const Kernels& kernels, const GuideState& guide, const Resize& resize,
                     std::int64_t image, std::int64_t target, double* positive, double* negative) {
  adjoint_maps(
      kernels, resize, guide.extent, 1, 2,
      [&] { return WeightMaps(kernels, guide, image, target); },
      [&](std::int64_t, std::int64_t map, std::int64_t first, std::int64_t n,
          const double* values) {
        std::copy_n(values, n, (map == 0 ? positive : negative) + first);
      });
}

}  // namespace protoseg
