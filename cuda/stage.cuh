// Planes, or parts of them, brought into shared memory as they are stored: rows of neighbouring
// channels, each padded with zeros to whole vectors.
#pragma once

#include <cstdint>

#include "load.cuh"

namespace protoseg::cuda {

// Elements between the rows of neighbouring channels.
template <class T>
__host__ __device__ constexpr std::int64_t staged_pitch(std::int64_t voxels) {
  return round_up(voxels, 16 / static_cast<std::int64_t>(sizeof(T)));
}

// A plane, or a part of it, that is a row in memory: [n]. Where it is aligned, several loads are on
// their way before the first is stored.
template <class T>
__device__ __forceinline__ void stage_row(const T* source, std::int64_t n, T* out) {
  constexpr int at_once = 4;
  const int skew = skew_of(source);
  const int vectors = static_cast<int>(divide_up(n, vector_elements<T>));
  const int whole = skew == 0 ? static_cast<int>(n / vector_elements<T>) : 0;
  const uint4* from = reinterpret_cast<const uint4*>(source);
  uint4* to = reinterpret_cast<uint4*>(out);
  int i = threadIdx.x;
  for (; i + (at_once - 1) * threads < whole; i += at_once * threads) {
    uint4 vector[at_once];
#pragma unroll
    for (int k = 0; k < at_once; ++k) vector[k] = from[i + k * threads];
#pragma unroll
    for (int k = 0; k < at_once; ++k) to[i + k * threads] = vector[k];
  }
#pragma unroll 1
  for (; i < vectors; i += threads)
    to[i] = load_vector(source, skew, static_cast<std::int64_t>(i) * vector_elements<T>, n);
}

// The same from memory of any layout. Neighbouring threads read neighbouring channels where these
// are neighbours in memory, otherwise neighbouring voxels.
template <class T>
__device__ __forceinline__ void stage_elements(const Tensor& f, std::int64_t image,
                                               std::int64_t channel, int channels,
                                               std::int64_t first, std::int64_t n, T* out,
                                               std::int64_t pitch) {
  const int padded = static_cast<int>(staged_pitch<T>(n));
  const bool by_channel = f.layout == Layout::channels_last;
  for (int i = threadIdx.x; i < padded * channels; i += threads) {
    const int u = by_channel ? i % channels : i / padded;
    const int v = by_channel ? i / channels : i % padded;
    out[u * pitch + v] = v < n ? f.at<T>(image, channel + u, first + v) : T{};
  }
}

// out [channels, pitch]: voxels [first, first + n) of `channels` channels. The block has to
// synchronise before it reads them.
template <class T>
__device__ __forceinline__ void stage(const Tensor& f, std::int64_t image, std::int64_t channel,
                                      int channels, std::int64_t first, std::int64_t n, T* out,
                                      std::int64_t pitch) {
  if (f.layout != Layout::rows)
    return stage_elements(f, image, channel, channels, first, n, out, pitch);
  for (int u = 0; u < channels; ++u)
    stage_row(static_cast<const T*>(f.data) + f.plane(image, channel + u) + first, n,
              out + u * pitch);
}

}  // namespace protoseg::cuda
