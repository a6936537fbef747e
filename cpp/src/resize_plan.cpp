#include "resize_plan.hpp"

#include <algorithm>
#include <cmath>

#include "taps.hpp"

namespace protoseg {
namespace {

// Voxels of an output slice that are at work together.
constexpr std::int64_t band_voxels = std::int64_t{1} << 15;

std::vector<Interval> intervals(const AxisTaps& taps, std::int64_t longest) {
  std::vector<Interval> result;
  const auto n = static_cast<std::int64_t>(taps.lower.size());
  for (std::int64_t o = 0; o < n; ++o) {
    if (result.empty() || taps.lower[o] != result.back().lower ||
        taps.upper[o] != result.back().upper || o - result.back().begin == longest)
      result.push_back({taps.lower[o], taps.upper[o], o, o});
    result.back().end = o + 1;
  }
  return result;
}

}  // namespace

ResizePlan::ResizePlan(const Extent& to_in, const Resize& resize) : from(resize.from), to(to_in) {
  AxisTaps taps[3];
  for (int slot = 0; slot < 3; ++slot) {
    taps[slot] = axis_taps(resize, to, slot);
    exact[slot] = std::move(taps[slot].weight);
  }
  slices = intervals(taps[0], longest_interval);
  rows = intervals(taps[1], std::max<std::int64_t>(1, band_voxels / to.n[2]));
  z_lower = std::move(taps[0].lower);
  z_upper = std::move(taps[0].upper);
  y_lower = std::move(taps[1].lower);
  y_upper = std::move(taps[1].upper);
  x_lower = std::move(taps[2].lower);
  x_upper = std::move(taps[2].upper);
  set_bands();
  set_octets();
  set_weights();
}

void ResizePlan::set_bands() {
  const auto n = static_cast<std::int64_t>(rows.size());
  for (std::int64_t i = 0; i < n; ++i) {
    if (bands.empty() || (rows[i].end - rows[bands.back().begin].begin) * to.n[2] > band_voxels)
      bands.push_back({i, i});
    bands.back().end = i + 1;
  }
}

void ResizePlan::set_octets() {
  octets_ = (to.n[2] + 31) / 32 * 4;
  x_lower.resize(8 * octets_, x_lower.back());
  x_upper.resize(8 * octets_, x_upper.back());
  exact[2].resize(8 * octets_, exact[2].back());
  gathered = from.n[2] > to.n[2];
  for (std::int64_t o = 0; o < octets_; o += 2)
    near_ = near_ && x_lower[8 * o + 15] - x_lower[8 * o] < 8;
  for (std::int64_t o = 0; o < octets_; ++o) {
    octet_first_.push_back(x_lower[8 * (near_ ? o & ~std::int64_t{1} : o)]);
    const std::int64_t first_of_four = x_lower[8 * (o & ~std::int64_t{3})];
    if (o % 4 == 0) first_of_four_.push_back(first_of_four);
    for (int k = 0; k < 8; ++k) {
      const std::int64_t lower = x_lower[8 * o + k];
      octet_index_.push_back(static_cast<std::int16_t>(lower - first_of_four));
      for (int byte = 0; byte < 2; ++byte)
        octet_bytes_.push_back(static_cast<std::uint8_t>(2 * (lower - octet_first_.back()) + byte));
    }
  }
}

// Weights in fixed point, and what resizing along each axis may lose.
void ResizePlan::set_weights() {
  coarse_error = 0.0;
  for (int axis = 0; axis < 3; ++axis) {
    double worst = 0.0;
    bool resized = false;
    for (const double weight : exact[axis]) {
      const double steps = std::min(32767.0, std::round(weight * 0x1p15));
      worst = std::max(worst, std::fabs(steps * 0x1p-15 - weight));
      resized = resized || weight != 0.0;
      coarse[axis].push_back(static_cast<std::int16_t>(steps));
    }
    if (resized) coarse_error += 0.5 + (coarse_steps + 2.0) * worst;
  }
}

std::int64_t ResizePlan::most_band_voxels() const {
  std::int64_t most = 0;
  for (const Band& band : bands)
    most = std::max(most, rows[band.end - 1].end - rows[band.begin].begin);
  return most * to.n[2];
}

std::int64_t ResizePlan::most_band_rows() const {
  std::int64_t most = 0;
  for (const Band& band : bands)
    most = std::max(most, rows[band.end - 1].upper - rows[band.begin].lower + 1);
  return most;
}

std::int64_t ResizePlan::bytes() const {
  const auto intervals = static_cast<std::int64_t>(slices.size() + rows.size() + bands.size());
  const std::int64_t tap = 2 * 8 + 8 + 2;  // lower and upper, exact and coarse weight
  return intervals * std::int64_t{sizeof(Interval)} + (to.n[0] + to.n[1]) * tap +
         octets_ * (8 * (tap + 2) + 16 + 10);
}

}  // namespace protoseg
