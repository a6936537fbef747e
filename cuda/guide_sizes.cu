// What a guide keeps per feature size: weights, brought down by the adjoint of resizing, and cells.
#include <algorithm>
#include <limits>
#include <vector>

#include "adjoint.hpp"
#include "check.hpp"
#include "grid.hpp"
#include "guide.hpp"
#include "guide_cells.cuh"
#include "guide_weights.cuh"

namespace protoseg::cuda {
namespace {

// Rows of weights are aligned for vectors of either type, and padded to whole steps.
constexpr std::int64_t weight_alignment = 8;

// Doubles that the adjoint may need for a moment, in planes side by side: 64 MiB, or one plane's.
constexpr std::int64_t adjoint_values = std::int64_t{8} << 20;

bool is_aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

// The pred can serve as weights where it lies, w and 1 - w: aligned rows of whole steps.
template <class Sum>
bool pred_is_weights(const GuideState& guide) {
  const Tensor& pred = guide.pred;
  const std::int64_t vector = step<Sum>;
  const DType dtype = std::is_same_v<Sum, float> ? DType::float32 : DType::float64;
  return !guide.has_mask && !guide.binarize && pred.dtype == dtype && pred.layout == Layout::rows &&
         is_aligned(pred.data) && guide.extent.voxels() % vector == 0 &&
         (guide.images == 1 || pred.image_stride % vector == 0) &&
         (guide.targets == 1 || pred.channel_stride % vector == 0);
}

// ---- taps and cells ----------------------------------------------------------------------------

AxisTaps take_taps(Arena& arena, const AxisSizes& n) {
  AxisTaps taps;
  taps.lower = arena.take<int>(n.n_out);
  taps.upper = arena.take<int>(n.n_out);
  taps.weight = arena.take<float>(n.n_out);
  taps.exact = arena.take<double>(n.n_out);
  taps.begin = arena.take<int>(n.n_in + 1);
  return taps;
}

void fill_taps(const AxisTaps& taps, const AxisSizes& n, const Resize& resize, Stream stream) {
  TapsParams p{};
  p.n_in = n.n_in;
  p.n_out = n.n_out;
  p.interpolation = resize.interpolation;
  p.align_corners = resize.align_corners;
  p.lower = const_cast<int*>(taps.lower);
  p.upper = const_cast<int*>(taps.upper);
  p.weight = const_cast<float*>(taps.weight);
  p.exact = const_cast<double*>(taps.exact);
  p.begin = const_cast<int*>(taps.begin);
  run_elements(taps_kernel<>, n.n_out, stream, p);
}

// Taps are 32-bit numbers.
void check_axes(const Extent& extent) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  if (extent.z > most || extent.y > most || extent.x > most)
    throw Error("features of another size than pred must have fewer than 2^31 voxels along each "
                "axis.");
}

// Geometry without bits.
Cells take_geometry(const GuideState& guide, const Resize& resize, Arena& arena) {
  check_axes(resize.from);
  check_axes(guide.extent);
  Cells cells;
  cells.resized = true;
  cells.from = resize.from;
  cells.to = guide.extent;
  cells.words = divide_up(cells.to.x, 32);
  cells.lines = cells.from.z * cells.from.y;
  cells.z = take_taps(arena, {cells.from.z, cells.to.z});
  cells.y = take_taps(arena, {cells.from.y, cells.to.y});
  cells.x = take_taps(arena, {cells.from.x, cells.to.x});
  return cells;
}

void fill_geometry(const Cells& cells, const Resize& resize, Stream stream) {
  fill_taps(cells.z, {cells.from.z, cells.to.z}, resize, stream);
  fill_taps(cells.y, {cells.from.y, cells.to.y}, resize, stream);
  fill_taps(cells.x, {cells.from.x, cells.to.x}, resize, stream);
}

struct PackedPlanes {
  const unsigned* packed;
  std::int64_t planes;
  const unsigned* rows;
  const unsigned* total;
};

// The valid bits, the output's, and the target's if there is one.
std::vector<PackedPlanes> take_bits(const GuideState& guide, Cells& cells, Arena& arena) {
  std::vector<PackedPlanes> all;
  const auto take = [&](const unsigned* packed, std::int64_t planes) {
    all.push_back({packed, planes, arena.take<unsigned>(planes * cells.tile_rows()),
                   arena.take<unsigned>(planes * cells.tiles())});
    return all.back();
  };
  const PackedPlanes valid = take(guide.references.valid, guide.images);
  cells.valid = valid.rows;
  cells.valid_total = valid.total;
  for (int which = 1; which >= 0; --which) {
    const bool own = which == 1 || guide.has_target;
    const PackedPlanes actual =
        own ? take(guide.references.actual[which], guide.planes()) : all.back();
    cells.actual[which] = actual.rows;
    cells.actual_total[which] = actual.total;
  }
  return all;
}

void fill_bits(const GuideState& guide, const Cells& cells, const PackedPlanes& of, Stream stream) {
  TileBitsParams bits{};
  bits.cells = cells;
  bits.packed = of.packed;
  bits.planes = of.planes;
  bits.words = guide.references.words;
  bits.rows = const_cast<unsigned*>(of.rows);
  run_elements(tile_bits_kernel<>, of.planes * cells.tile_rows(), stream, bits);
  TileTotalsParams totals{};
  totals.cells = cells;
  totals.rows = of.rows;
  totals.planes = of.planes;
  totals.total = const_cast<unsigned*>(of.total);
  run(tile_totals_kernel<>, divide_up(of.planes * cells.tiles(), warps), stream, totals);
}

// ---- weights -----------------------------------------------------------------------------------

// out [N, T, 2, from]: U^T (m p) and U^T (m (1 - p)), axis by axis, the last one first, which
// leaves the least. A few planes at a time.
void adjoint(const GuideState& guide, const Cells& cells, double* out, Stream stream) {
  const Extent &from = cells.from, &to = cells.to;
  const std::int64_t rows = 2 * to.z * to.y * from.x, columns = 2 * to.z * from.y * from.x;
  const std::int64_t at_once =
      std::clamp<std::int64_t>(adjoint_values / (rows + columns), 1, guide.planes());
  const Buffer scratch(guide.allocator, stream, at_once * (rows + columns) * 8);
  double* const after_x = static_cast<double*>(scratch.data());
  double* const after_y = after_x + at_once * rows;
  for (std::int64_t first = 0; first < guide.planes(); first += at_once) {
    const std::int64_t planes = std::min(at_once, guide.planes() - first);
    AdjointRowsParams p{};
    p.guiding = guide.guiding();
    p.cells = cells;
    p.first_plane = first;
    p.planes = planes;
    p.out = after_x;
    run_elements(adjoint_rows_kernel<>, planes * rows, stream, p);
    adjoint_axis(cells.y, planes * 2 * to.z, {from.y, to.y}, from.x, after_x, after_y, stream);
    adjoint_axis(cells.z, planes * 2, {from.z, to.z}, from.y * from.x, after_y,
                 out + first * 2 * from.voxels(), stream);
  }
}

void find_largest(const double* weight, std::int64_t rows, std::int64_t voxels,
                  unsigned long long* largest, Stream stream) {
  PROTOSEG_CUDA_CHECK(
      cudaMemsetAsync(largest, 0, static_cast<std::size_t>(rows) * 8, as_stream(stream)));
  LargestParams p{};
  p.weight = weight;
  p.rows = rows;
  p.voxels = voxels;
  p.segments = divide_up(voxels, totals_voxels);
  p.largest = largest;
  run(largest_kernel<>, rows * p.segments, stream, p);
}

// Scales, narrows and adds up the weights of one feature size.
template <class Sum>
class WeightMaker {
 public:
  WeightMaker(const GuideState& guide, const Resize& resize)
      : guide_(guide),
        resize_(resize),
        rows_(guide.planes() * 2),
        voxels_(resize.from.voxels()),
        pitch_(round_up(voxels_, weight_alignment)),
        in_place_(guide.same_size(resize.from) && pred_is_weights<Sum>(guide)) {}

  std::unique_ptr<KeptWeights<Sum>> make(Stream stream) {
    auto kept = std::make_unique<KeptWeights<Sum>>();
    Arena measure;
    lay_out(measure, *kept);
    kept->buffer = Buffer(guide_.allocator, stream, static_cast<std::int64_t>(measure.used()));
    Arena arena(kept->buffer.data());
    lay_out(arena, *kept);
    if (guide_.same_size(resize_.from)) {
      fill(*kept, nullptr, guide_.largest, stream);
      return kept;
    }
    Arena sizes;
    take_geometry(guide_, resize_, sizes);
    sizes.take<double>(rows_ * voxels_);
    sizes.take<unsigned long long>(rows_);
    const Buffer scratch(guide_.allocator, stream, static_cast<std::int64_t>(sizes.used()));
    Arena memory(scratch.data());
    const Cells cells = take_geometry(guide_, resize_, memory);
    double* const exact = memory.take<double>(rows_ * voxels_);
    auto* const largest = memory.take<unsigned long long>(rows_);
    fill_geometry(cells, resize_, stream);
    adjoint(guide_, cells, exact, stream);
    find_largest(exact, rows_, voxels_, largest, stream);
    fill(*kept, exact, largest, stream);
    return kept;
  }

 private:
  void lay_out(Arena& arena, KeptWeights<Sum>& kept) {
    Weights<Sum>& w = kept.weights;
    kept.scale = w.scale = arena.take<double>(rows_);
    w.total = arena.take<double>(rows_);
    if (in_place_) {
      w.positive = static_cast<const Sum*>(guide_.pred.data);
      w.image_stride = guide_.pred.image_stride;
      w.target_stride = guide_.pred.channel_stride;
      return;
    }
    w.positive = arena.take<Sum>(rows_ * pitch_);
    w.negative = w.positive != nullptr ? w.positive + pitch_ : nullptr;
    w.target_stride = 2 * pitch_;
    w.image_stride = guide_.targets * w.target_stride;
  }

  void fill(KeptWeights<Sum>& kept, const double* exact, const unsigned long long* largest,
            Stream stream) {
    WeightsParams<Sum> p{};
    p.guiding = guide_.guiding();
    p.adjoint = exact;
    p.planes = guide_.planes();
    p.voxels = voxels_;
    p.pitch = pitch_;
    p.segments = divide_up(pitch_, totals_voxels);
    p.largest = largest;
    // A pred of floats is scaled in float, whose exponents end at 127.
    p.most_exponent = in_place_ && std::is_same_v<Sum, float> ? 126 : 1023;
    p.out = in_place_ ? nullptr : const_cast<Sum*>(kept.weights.positive);
    p.scale = const_cast<double*>(kept.scale);
    const Buffer partial(guide_.allocator, stream, rows_ * p.segments * 8);
    p.partial = static_cast<double*>(partial.data());
    run(weights_kernel<Sum>, rows_ * p.segments, stream, p);
    TotalsParams totals{};
    totals.partial = p.partial;
    totals.rows = rows_;
    totals.segments = p.segments;
    totals.total = const_cast<double*>(kept.weights.total);
    totals.findings = guide_.findings;
    totals.limits = guide_.limits;
    run_elements(totals_kernel<>, rows_, stream, totals);
  }

  const GuideState& guide_;
  const Resize& resize_;
  const std::int64_t rows_, voxels_, pitch_;
  const bool in_place_;
};

template <class Sum>
auto& weight_cache(const GuideState& guide) {
  if constexpr (std::is_same_v<Sum, float>)
    return guide.float_weights;
  else
    return guide.double_weights;
}

}  // namespace

template <class Sum>
const KeptWeights<Sum>& GuideState::weights(const Resize& resize, Stream stream) const {
  Resize key = resize;
  if (same_size(resize.from)) key = {resize.from, Interpolation::linear, false};
  const std::lock_guard<std::mutex> lock(mutex);
  auto& cache = weight_cache<Sum>(*this);
  const auto found = cache.find(key);
  if (found != cache.end()) return *found->second;
  return *cache.emplace(key, WeightMaker<Sum>(*this, key).make(stream)).first->second;
}
template const KeptWeights<float>& GuideState::weights(const Resize&, Stream) const;
template const KeptWeights<double>& GuideState::weights(const Resize&, Stream) const;

const KeptCells& GuideState::cells(const Resize& resize, Stream stream) const {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = kept_cells.find(resize);
  if (found != kept_cells.end()) return *found->second;
  auto made = std::make_unique<KeptCells>();
  Arena measure;
  Cells sizes = take_geometry(*this, resize, measure);
  take_bits(*this, sizes, measure);
  made->buffer = Buffer(allocator, stream, static_cast<std::int64_t>(measure.used()));
  Arena arena(made->buffer.data());
  made->cells = take_geometry(*this, resize, arena);
  const std::vector<PackedPlanes> planes = take_bits(*this, made->cells, arena);
  fill_geometry(made->cells, resize, stream);
  for (const PackedPlanes& of : planes) fill_bits(*this, made->cells, of, stream);
  return *kept_cells.emplace(resize, std::move(made)).first->second;
}

}  // namespace protoseg::cuda
