// Resizing commutes with projecting: project at feature size, then resize one map per group, in the
// order and arithmetic of the specification. Two slices at a time are kept.
#include "parallel.hpp"
#include "project.hpp"
#include "taps.hpp"

namespace protoseg {
namespace {

// Output slices [begin, end) of one image and group. One per thread.
template <class T>
class SliceResizer {
 public:
  SliceResizer(const Problem<T>& problem, const Boundaries& boundaries, const AxisTaps taps[3],
               Sink& sink)
      : problem_(problem),
        boundaries_(boundaries),
        taps_(taps),
        sink_(sink),
        projector_(problem, boundaries),
        maps_(problem.targets),
        slice_voxels_(problem.from.n[1] * problem.from.n[2]),
        slice_(make_buffer<double>(2 * maps_ * slice_voxels_)),
        blended_(make_buffer<double>(maps_ * slice_voxels_)),
        row_(make_buffer<double>(problem.from.n[2])),
        out_(make_buffer<double>(problem.guide.extent.n[2])) {
    if (!sink.needs_square()) return;
    corner_ = make_buffer<double>(4 * problem.from.n[2]);
    value_ = make_buffer<double>(problem.guide.extent.n[2]);
    square_ = make_buffer<double>(problem.guide.extent.n[2]);
  }

  void operator()(std::int64_t image, std::int64_t group, std::int64_t begin, std::int64_t end) {
    const Extent& to = problem_.guide.extent;
    held_[0] = held_[1] = -1;
    for (std::int64_t o = begin; o < end; ++o) {
      blend_slices(image, group, o);
      for (std::int64_t j = 0; j < to.n[1]; ++j) {
        if (square_) square_row(image, group, o, j);
        for (std::int64_t map = 0; map < maps_; ++map) {
          const double* blended = blended_.get() + map * slice_voxels_;
          resize_row(blended + taps_[1].lower[j] * problem_.from.n[2],
                     blended + taps_[1].upper[j] * problem_.from.n[2], taps_[1].weight[j],
                     out_.get());
          const std::int64_t first = (o * to.n[1] + j) * to.n[2];
          sink_.take({image, group, map, first, to.n[2]}, out_.get(), square_.get(),
                     boundary(image, group, map), nullptr);
        }
      }
    }
  }

 private:
  const Boundary& boundary(std::int64_t image, std::int64_t group, std::int64_t target) const {
    return boundaries_.boundary[(image * problem_.groups + group) * problem_.targets + target];
  }

  // Neighbouring slices have different parities, so each keeps its place while it is needed.
  double* slice(std::int64_t image, std::int64_t group, std::int64_t k) {
    double* slot = slice_.get() + (k % 2) * maps_ * slice_voxels_;
    if (held_[k % 2] == k) return slot;
    held_[k % 2] = k;
    const std::int64_t first = k * slice_voxels_;
    for (std::int64_t done = 0; done < slice_voxels_; done += block_voxels)
      projector_(image, group, first + done, std::min(block_voxels, slice_voxels_ - done),
                 slot + done, slice_voxels_, nullptr);
    return slot;
  }

  void blend_slices(std::int64_t image, std::int64_t group, std::int64_t o) {
    const std::int64_t lower = taps_[0].lower[o], upper = taps_[0].upper[o];
    const double* a = slice(image, group, lower);
    const double* b = slice(image, group, upper);
    problem_.kernels.blend(a, b, taps_[0].weight[o], maps_ * slice_voxels_, blended_.get());
  }

  // Two feature rows -> one output row.
  void resize_row(const double* a, const double* b, double weight, double* out) {
    problem_.kernels.blend(a, b, weight, problem_.from.n[2], row_.get());
    problem_.kernels.sample(row_.get(), taps_[2].lower.data(), taps_[2].upper.data(),
                            taps_[2].weight.data(), problem_.guide.extent.n[2], out);
  }

  // Norms do not commute with resizing: interpolate each channel's row, and add its square.
  void square_row(std::int64_t image, std::int64_t group, std::int64_t o, std::int64_t j) {
    const std::int64_t length = problem_.from.n[2], out_length = problem_.guide.extent.n[2];
    std::fill_n(square_.get(), out_length, 0.0);
    const std::int64_t slices[2] = {taps_[0].lower[o], taps_[0].upper[o]};
    const std::int64_t rows[2] = {taps_[1].lower[j], taps_[1].upper[j]};
    for (std::int64_t c = 0; c < problem_.group_channels; ++c) {
      const Plane plane = plane_of(problem_.features, image, group * problem_.group_channels + c);
      for (int y = 0; y < 2; ++y) {
        double* blended = corner_.get() + y * length;
        double* other = corner_.get() + (2 + y) * length;
        read(problem_.kernels, plane, (slices[0] * problem_.from.n[1] + rows[y]) * length, length,
             blended);
        read(problem_.kernels, plane, (slices[1] * problem_.from.n[1] + rows[y]) * length, length,
             other);
        problem_.kernels.blend(blended, other, taps_[0].weight[o], length, blended);
      }
      resize_row(corner_.get(), corner_.get() + length, taps_[1].weight[j], value_.get());
      const StoredRow value = {value_.get(), DType::float64};
      problem_.kernels.square(&value, 1, out_length, square_.get());
    }
  }

  const Problem<T>& problem_;
  const Boundaries& boundaries_;
  const AxisTaps* taps_;
  Sink& sink_;
  Projector<T> projector_;
  std::int64_t maps_;  // [T], resized side by side
  std::int64_t slice_voxels_;
  std::int64_t held_[2] = {-1, -1};
  Buffer<double> slice_;    // [2, maps, slice]
  Buffer<double> blended_;  // [maps, slice]
  Buffer<double> row_, out_, corner_, value_, square_;
};

}  // namespace

template <class T>
void project_resized(const Problem<T>& problem, const Boundaries& boundaries, Sink& sink) {
  const Extent& to = problem.guide.extent;
  AxisTaps taps[3];
  for (int slot = 0; slot < 3; ++slot) taps[slot] = axis_taps(problem.resize, to, slot);
  const std::int64_t planes = problem.images * problem.groups;
  // Ranges of output slices repeat the projection of the slices at their ends: as few as keep
  // the threads busy.
  const std::int64_t parts =
      std::min<std::int64_t>(to.n[0], planes >= 4 * max_threads() ? 1 : 4 * max_threads());
  parallel_for(planes * parts, to.voxels() * problem.targets / parts + 1, [&] {
    return
        [&, resizer = SliceResizer<T>(problem, boundaries, taps, sink)](std::int64_t task) mutable {
          const std::int64_t plane = task / parts, part = task % parts;
          resizer(plane / problem.groups, plane % problem.groups, to.n[0] * part / parts,
                  to.n[0] * (part + 1) / parts);
        };
  });
}

template void project_resized(const Problem<float>&, const Boundaries&, Sink&);
template void project_resized(const Problem<double>&, const Boundaries&, Sink&);

}  // namespace protoseg
