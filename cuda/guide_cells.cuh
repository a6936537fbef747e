// Geometry and packed bits of features of another size: taps, rows of tiles, totals of tiles.
#pragma once

#include <cstdint>

#include "resized.cuh"

namespace protoseg::cuda {

struct TapsParams {
  std::int64_t n_in, n_out;
  Interpolation interpolation;
  bool align_corners;
  int *lower, *upper;  // [n_out]
  float* weight;       // [n_out]
  double* exact;       // [n_out]
  int* begin;          // [n_in + 1]
};

// One thread per output of an axis, which also says where the intervals begin that it opens.
template <class = void>
__global__ void __launch_bounds__(threads) taps_kernel(TapsParams p) {
  for (std::int64_t o = blockIdx.x * static_cast<std::int64_t>(threads) + threadIdx.x; o < p.n_out;
       o += static_cast<std::int64_t>(gridDim.x) * threads) {
    const Tap tap = resize_tap(o, p.n_in, p.n_out, p.interpolation, p.align_corners);
    p.lower[o] = static_cast<int>(tap.lower);
    p.upper[o] = static_cast<int>(tap.upper);
    p.weight[o] = static_cast<float>(tap.weight);
    p.exact[o] = tap.weight;
    std::int64_t before = -1;
    if (o > 0) before = resize_tap(o - 1, p.n_in, p.n_out, p.interpolation, p.align_corners).lower;
    for (std::int64_t k = before + 1; k <= tap.lower; ++k) p.begin[k] = static_cast<int>(o);
    if (o + 1 < p.n_out) continue;
    for (std::int64_t k = tap.lower + 1; k <= p.n_in; ++k) p.begin[k] = static_cast<int>(p.n_out);
  }
}

struct TileBitsParams {
  Cells cells;
  const unsigned* packed;  // [planes, words]: bits of planes, row after row without gaps
  std::int64_t planes, words;
  unsigned* rows;  // [planes, tile rows]
};

// Bits [first, first + n) of packed words, n <= 32.
__device__ __forceinline__ unsigned bits_at(const unsigned* packed, std::int64_t first, int n) {
  const std::int64_t word = first / 32;
  const int shift = static_cast<int>(first % 32);
  unsigned bits = packed[word] >> shift;
  if (shift + n > 32) bits |= packed[word + 1] << (32 - shift);
  return n < 32 ? bits & ((1u << n) - 1u) : bits;
}

// One thread per row of a tile, in the order of the output's rows.
template <class = void>
__global__ void __launch_bounds__(threads) tile_bits_kernel(TileBitsParams p) {
  const Cells& c = p.cells;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(threads) + threadIdx.x;
       i < p.planes * c.tile_rows(); i += static_cast<std::int64_t>(gridDim.x) * threads) {
    const std::int64_t plane = i / c.tile_rows(), at = i % c.tile_rows();
    const std::int64_t line = at / c.words, word = at % c.words;
    const std::int64_t z = line / c.to.y, y = line % c.to.y;
    const std::int64_t first_z = c.z.begin[c.z.lower[z]], first_y = c.y.begin[c.y.lower[y]];
    const std::int64_t slices = c.z.begin[c.z.lower[z] + 1] - first_z;
    const std::int64_t rows = c.y.begin[c.y.lower[y] + 1] - first_y;
    // as tile_of has it
    const std::int64_t row = c.words * (first_z * c.to.y + first_y * slices) +
                             word * slices * rows + (z - first_z) * rows + (y - first_y);
    const int n = static_cast<int>(lesser(32, c.to.x - word * 32));
    p.rows[plane * c.tile_rows() + row] =
        bits_at(p.packed + plane * p.words, line * c.to.x + word * 32, n);
  }
}

struct TileTotalsParams {
  Cells cells;
  const unsigned* rows;  // [planes, tile rows]
  std::int64_t planes;
  unsigned* total;  // [planes, tiles]
};

// One warp per tile.
template <class = void>
__global__ void __launch_bounds__(threads) tile_totals_kernel(TileTotalsParams p) {
  const std::int64_t tiles = p.cells.tiles();
  const std::int64_t all_warps = static_cast<std::int64_t>(gridDim.x) * warps;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * warps + warp_of_thread();
       i < p.planes * tiles; i += all_warps) {
    const Tile tile = tile_of(p.cells, i % tiles);
    const unsigned* row = p.rows + i / tiles * p.cells.tile_rows() + tile.first_row;
    unsigned bits = 0;
    for (int k = lane_of_thread(); k < tile.slices * tile.rows; k += warp_lanes)
      bits += __popc(row[k]);
    bits = warp_sum(bits);
    if (lane_of_thread() == 0) p.total[i] = bits;
  }
}

}  // namespace protoseg::cuda
