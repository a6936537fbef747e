// Counts of a resized map: what corners decide is counted by prepared totals, the rest is evaluated
// in float, and in double where float does not know the sign.
//
// Outputs between the same feature voxels along z and y form a line of cells; 32 neighbours of them
// along x are a tile, one word of packed bits for each of its rows. A warp takes a tile: its lanes
// are the columns.
#pragma once

#include <cmath>
#include <cstdint>

#include "count.cuh"
#include "protoseg/resize.hpp"

namespace protoseg::cuda {

// The taps of one axis, see resize_tap; outputs [begin[k], begin[k + 1]) have the lower tap k.
struct AxisTaps {
  const int* lower = nullptr;     // [n_out]
  const int* upper = nullptr;     // [n_out]
  const float* weight = nullptr;  // [n_out]
  const double* exact = nullptr;  // [n_out], the same weights
  const int* begin = nullptr;     // [n_in + 1]
};

// What counting at a feature size needs, prepared once per guide. Planes of [N] or [N, T].
struct Cells {
  bool resized = false;  // false: features have the size of the pred, all else is unset
  Extent from, to;
  AxisTaps z, y, x;
  std::int64_t words = 0;                 // of an output row
  Divisor lines;                          // from.z x from.y
  const unsigned* valid = nullptr;        // [N, rows of tiles]
  const unsigned* actual[2] = {};         // [N, T, rows of tiles]
  const unsigned* valid_total = nullptr;  // [N, tiles]: voxels
  const unsigned* actual_total[2] = {};   // [N, T, tiles]: of the target, of the output

  __host__ __device__ std::int64_t tiles() const { return lines * words; }
  __host__ __device__ std::int64_t tile_rows() const { return to.z * to.y * words; }
};

// A plane of features, or a map projected from them.
template <class V>
struct Plane {
  const V* data;
  std::int64_t z_stride, y_stride, x_stride;
};

template <class V>
__device__ __forceinline__ Plane<V> contiguous_plane(const V* data, const Extent& extent) {
  return {data, extent.y * extent.x, extent.x, 1};
}

// The bits and totals of one image and target.
struct CellBits {
  const unsigned *valid, *actual[2], *valid_total, *actual_total[2];
};

__device__ __forceinline__ CellBits cell_bits(const Cells& cells, const CountOutputs& out,
                                              std::int64_t image, std::int64_t target,
                                              std::int64_t targets) {
  const std::int64_t plane = image * targets + target;
  CellBits bits = {cells.valid + image * cells.tile_rows(),
                   {nullptr, nullptr},
                   cells.valid_total + image * cells.tiles(),
                   {nullptr, nullptr}};
  for (int which = 0; which < 2; ++which) {
    if (out.tp[which] == nullptr) continue;
    bits.actual[which] = cells.actual[which] + plane * cells.tile_rows();
    bits.actual_total[which] = cells.actual_total[which] + plane * cells.tiles();
  }
  return bits;
}

struct Tally {
  unsigned count[counts_of_pair] = {};  // predicted, tp against target and output
};

// Values are centred on the threshold, so that foreground is where they are positive.
struct Centre {
  float side;  // -1: foreground lies below the threshold
  float coarse, fine;
  double threshold;
  // Beyond what grows with the corners: errors of a threshold in two floats and of the double
  // evaluation, 2^-48 and 2^-49 of the threshold; and room for subnormal numbers.
  float doubt;
};

__device__ __forceinline__ Centre centre_of(const UnitThreshold<double>& unit) {
  const float coarse = static_cast<float>(unit.threshold);
  const float fine = static_cast<float>(unit.threshold - static_cast<double>(coarse));
  const float size = static_cast<float>(std::fabs(unit.threshold));
  return {unit.above ? 1.0f : -1.0f, coarse, fine, unit.threshold, size * 0x1p-47f + 1e-36f};
}

__device__ __forceinline__ float centred(const Centre& c, float f) {
  return c.side * ((f - c.coarse) - c.fine);
}
__device__ __forceinline__ float centred(const Centre& c, double f) {
  return c.side * static_cast<float>(f - c.threshold);
}

// Of the largest corner: what all roundings of a float evaluation stay below. Centring errs by 2,
// each of three interpolations by 5 units of 2^-24.
constexpr float float_doubt = 0x1p-19f;

// A warp's tile: outputs [z, z + slices) x [y, y + rows) x its lanes' columns.
struct Tile {
  int z, slices, y, rows;
  std::int64_t index, word, first_row;  // in totals, of the row, in packed words
};

// Tiles are numbered word by word, so that a warp stays in its columns.
__device__ __forceinline__ Tile tile_of(const Cells& cells, std::int64_t index) {
  const std::int64_t word = index / cells.lines, line = index - word * cells.lines;
  const std::int64_t z = line / cells.from.y, y = line - z * cells.from.y;
  Tile tile;
  tile.index = index;
  tile.word = word;
  tile.z = cells.z.begin[z];
  tile.slices = cells.z.begin[z + 1] - tile.z;
  tile.y = cells.y.begin[y];
  tile.rows = cells.y.begin[y + 1] - tile.y;
  tile.first_row = cells.words * (tile.z * cells.to.y + std::int64_t{tile.y} * tile.slices) +
                   word * tile.slices * tile.rows;
  return tile;
}

// The column of a lane, and where its taps are in a row of features.
struct Lane {
  std::int64_t word = -1;
  std::int64_t column;  // of the last voxel if the lane has none
  bool inside;          // this lane has a column
  std::int64_t lower, upper;
  float weight;
};

__device__ __forceinline__ Lane lane_of(const Cells& cells, std::int64_t word,
                                        std::int64_t x_stride) {
  const std::int64_t column = word * warp_lanes + lane_of_thread();
  Lane lane;
  lane.word = word;
  lane.inside = column < cells.to.x;
  lane.column = lane.inside ? column : cells.to.x - 1;
  lane.lower = cells.x.lower[lane.column] * x_stride;
  lane.upper = cells.x.upper[lane.column] * x_stride;
  lane.weight = cells.x.weight[lane.column];
  return lane;
}

// The rows of features around a tile, [2 z + y].
template <class V>
struct CornerRows {
  const V* row[4];
};

template <class V>
__device__ __forceinline__ CornerRows<V> corner_rows(const Cells& cells, const Plane<V>& plane,
                                                     const Tile& tile) {
  const V* z[2] = {plane.data + cells.z.lower[tile.z] * plane.z_stride,
                   plane.data + cells.z.upper[tile.z] * plane.z_stride};
  const std::int64_t y[2] = {cells.y.lower[tile.y] * plane.y_stride,
                             cells.y.upper[tile.y] * plane.y_stride};
  return {{z[0] + y[0], z[0] + y[1], z[1] + y[0], z[1] + y[1]}};
}

// The corners of a column, resized along x, and how far from 0 they reach.
struct Column {
  float row[4];
  float lowest, highest;
};

template <class V>
__device__ __forceinline__ Column look(const CornerRows<V>& corners, const Lane& lane,
                                       const Centre& centre) {
  Column column;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const float a = centred(centre, widen(corners.row[k][lane.lower]));
    const float b = centred(centre, widen(corners.row[k][lane.upper]));
    column.row[k] = fmaf(lane.weight, b - a, a);
    column.lowest = fminf(k == 0 ? a : column.lowest, fminf(a, b));
    column.highest = fmaxf(k == 0 ? a : column.highest, fmaxf(a, b));
  }
  return column;
}

// One voxel as the specification has it: along z, then y, then x, in double.
template <class V>
__device__ __forceinline__ double interpolate(const CornerRows<V>& corners, const Lane& lane,
                                              double z_weight, double y_weight, double x_weight) {
  double value[2];
  for (int k = 0; k < 2; ++k) {
    const std::int64_t tap = k == 0 ? lane.lower : lane.upper;
    const double a = lerp(widen(corners.row[0][tap]), widen(corners.row[2][tap]), z_weight);
    const double b = lerp(widen(corners.row[1][tap]), widen(corners.row[3][tap]), z_weight);
    value[k] = lerp(a, b, y_weight);
  }
  return lerp(value[0], value[1], x_weight);
}

// Rows [first, first + n) of a tile, n <= 32: each lane has the word of its own.
__device__ __forceinline__ void count_rows(unsigned foreground, std::int64_t first, int n,
                                           const CellBits& bits, Tally* tally) {
  if (lane_of_thread() >= n) return;
  const std::int64_t at = first + lane_of_thread();
  tally->count[0] += __popc(foreground & bits.valid[at]);
  for (int which = 0; which < 2; ++which)
    if (bits.actual[which] != nullptr)
      tally->count[1 + which] += __popc(foreground & bits.actual[which][at]);
}

// A tile that is all foreground.
__device__ __forceinline__ void count_whole(const Tile& tile, const CellBits& bits, Tally* tally) {
  if (lane_of_thread() != 0) return;
  tally->count[0] += bits.valid_total[tile.index];
  for (int which = 0; which < 2; ++which)
    if (bits.actual_total[which] != nullptr)
      tally->count[1 + which] += bits.actual_total[which][tile.index];
}

// Every voxel of a tile that its corners do not decide.
template <class V>
__device__ __forceinline__ void evaluate(const Cells& cells, const Tile& tile,
                                         const CornerRows<V>& corners, const Lane& lane,
                                         const Column& column, float doubt,
                                         const UnitThreshold<double>& unit, const CellBits& bits,
                                         Tally* tally) {
  unsigned mine = 0;
  int row = 0;
  for (int s = 0; s < tile.slices; ++s) {
    const int z = tile.z + s;
    const float z_weight = cells.z.weight[z];
    const float a = fmaf(z_weight, column.row[2] - column.row[0], column.row[0]);
    const float b = fmaf(z_weight, column.row[3] - column.row[1], column.row[1]);
    for (int r = 0; r < tile.rows; ++r, ++row) {
      const int y = tile.y + r;
      const float value = fmaf(cells.y.weight[y], b - a, a);
      bool foreground = value > doubt;
      const bool doubtful = lane.inside && !(std::fabs(value) > doubt);
      if (__any_sync(all_lanes, doubtful) && doubtful) {
        const double exact = interpolate(corners, lane, cells.z.exact[z], cells.y.exact[y],
                                         cells.x.exact[lane.column]);
        foreground = unit.above ? exact > unit.threshold : exact < unit.threshold;
      }
      const unsigned word = __ballot_sync(all_lanes, foreground);
      if (lane_of_thread() == row % warp_lanes) mine = word;
      if (row % warp_lanes == warp_lanes - 1)
        count_rows(mine, tile.first_row + row - (warp_lanes - 1), warp_lanes, bits, tally);
    }
  }
  const int left = row % warp_lanes;
  count_rows(mine, tile.first_row + row - left, left, bits, tally);
}

// Tiles [begin, end) of a plane, dealt out to the warps of the block; adds to counts [3] in shared
// memory.
template <class V>
__device__ __forceinline__ void count_lines(const Cells& cells, const Plane<V>& plane,
                                            const UnitThreshold<double>& unit, const CellBits& bits,
                                            std::int64_t begin, std::int64_t end,
                                            unsigned* counts) {
  if (!unit.anything) return;
  const Centre centre = centre_of(unit);
  Tally tally;
  Lane lane;
  for (std::int64_t i = begin + warp_of_thread(); i < end; i += warps) {
    const Tile tile = tile_of(cells, i);
    if (tile.slices == 0 || tile.rows == 0) continue;
    if (tile.word != lane.word) lane = lane_of(cells, tile.word, plane.x_stride);
    const CornerRows<V> corners = corner_rows(cells, plane, tile);
    const Column column = look(corners, lane, centre);
    const float largest = fmaxf(column.highest, -column.lowest);
    const float doubt = fmaf(largest, float_doubt, centre.doubt);
    if (__all_sync(all_lanes, !lane.inside || column.highest < -doubt)) continue;
    if (__all_sync(all_lanes, !lane.inside || column.lowest > doubt))
      count_whole(tile, bits, &tally);
    else
      evaluate(cells, tile, corners, lane, column, doubt, unit, bits, &tally);
  }
#pragma unroll
  for (int k = 0; k < counts_of_pair; ++k) {
    const unsigned sum = warp_sum(tally.count[k]);
    if (lane_of_thread() == 0 && sum != 0) atomicAdd(counts + k, sum);
  }
}

// ---- on its own --------------------------------------------------------------------------------

// Planes of units, [N, C], or maps of groups, [groups from `first` on, T].
struct ResizedCountsParams {
  Tensor values;
  std::int64_t map_offset;     // of the first map; 0 for units
  std::int64_t target_stride;  // between maps of one group; 0: all targets share the unit's plane
  std::int64_t first, count;   // units or groups
  Divisor per_image, targets;
  std::int64_t part_tiles;                 // of one block
  Divisor parts;                           // of all tiles
  const UnitThreshold<double>* threshold;  // [count, T]
  Cells cells;
  CountOutputs out;
};

template <class V>
__device__ __forceinline__ Plane<V> plane_of(const ResizedCountsParams& p, std::int64_t at,
                                             std::int64_t image, std::int64_t target) {
  const std::int64_t offset =
      p.values.plane(image, at - image * p.per_image) - p.map_offset + target * p.target_stride;
  return {static_cast<const V*>(p.values.data) + offset, p.values.z_stride, p.values.y_stride,
          p.values.x_stride};
}

// One block per plane, target and part of its tiles.
template <class V>
__global__ void __launch_bounds__(threads, 2) resized_counts_kernel(ResizedCountsParams p) {
  PROTOSEG_SHARED(unsigned, counts, counts_of_pair);
  for (std::int64_t i = blockIdx.x; i < p.count * p.targets * p.parts; i += gridDim.x) {
    const std::int64_t pair = i / p.parts, begin = i % p.parts * p.part_tiles;
    const std::int64_t at = p.first + pair / p.targets, target = pair % p.targets;
    const std::int64_t image = at / p.per_image;
    if (threadIdx.x < counts_of_pair) counts[threadIdx.x] = 0;
    __syncthreads();
    count_lines(p.cells, plane_of<V>(p, at, image, target), p.threshold[pair],
                cell_bits(p.cells, p.out, image, target, p.targets), begin,
                lesser(p.cells.tiles(), begin + p.part_tiles), counts);
    __syncthreads();
    if (threadIdx.x < counts_of_pair)
      flush_count(p.out, at * p.targets + target, threadIdx.x, counts[threadIdx.x]);
  }
}

}  // namespace protoseg::cuda
