// Projections of features onto the normals of their decision boundaries, and what becomes of them:
// counts, a map, probabilities, or a map at feature size that is resized afterwards.
#pragma once

#include <cstdint>

#include "channels_last.cuh"
#include "count.cuh"

namespace protoseg::cuda {

enum class Sink : std::int32_t {
  counts,
  map,
  probability,
  wide_probability,
  projection,
  margin,
  wide_margin,
};

// Whether what a sink writes depends on norms.
__device__ __forceinline__ bool takes_norms(Sink sink) {
  return sink != Sink::counts && sink != Sink::map && sink != Sink::projection;
}

struct ProjectParams {
  Tensor features;
  std::int64_t first_group, count;  // groups [first, first + count) of all N x G
  Divisor groups;
  std::int64_t group_channels, targets;
  Divisor pieces;            // of a plane, of project_voxels each
  const double* weight;      // [count, T, group_channels]
  const Boundary* boundary;  // [count, T]
  Metric metric;
  Sink sink;
  void* map;     // [N, G, T, voxels] of the sink's type; a projection's is [count, T, voxels]
  void* square;  // [N, G, voxels] of the sink's type: squared norms; null: not asked for
  References references;
  CountOutputs out;
};

// Targets that are projected together; with more of them, the next come from the cache.
constexpr int project_targets = 2;

// Voxels of one block. Where memory is not in rows, a sector of channels is turned at a time.
template <class T>
constexpr int project_voxels = row_voxels<SumOf<T>>;

// What one thread adds up: projections and squared norms of its step of voxels.
template <class T>
struct Projection {
  static constexpr int count = step<SumOf<T>>;
  double sum[project_targets][count] = {};
  double square[count] = {};

  __device__ void add(const T (&value)[count], const double (&weight)[project_targets],
                      bool squares) {
#pragma unroll
    for (int k = 0; k < count; ++k) {
      const double f = widen(value[k]);
#pragma unroll
      for (int t = 0; t < project_targets; ++t) sum[t][k] = fma(f, weight[t], sum[t][k]);
      if (squares) square[k] = fma(f, f, square[k]);
    }
  }
};

// One block's voxels [first, first + n) of one group.
struct ProjectTask {
  std::int64_t group;  // of the chunk
  std::int64_t image, channel, first, n;
};

__device__ __forceinline__ void load_normals(const ProjectParams& p, const ProjectTask& task,
                                             std::int64_t target, int targets, std::int64_t channel,
                                             double (&weight)[project_targets]) {
#pragma unroll
  for (int t = 0; t < project_targets; ++t)
    weight[t] = t < targets
                    ? p.weight[(task.group * p.targets + target + t) * p.group_channels + channel]
                    : 0.0;
}

// Channels in their order, from rows in memory.
template <class T>
__device__ __forceinline__ void project_rows(const ProjectParams& p, const ProjectTask& task,
                                             std::int64_t target, int targets, bool squares,
                                             Projection<T>* projection) {
  const std::int64_t v = threadIdx.x * Projection<T>::count;
  if (v >= task.n) return;
  const T* row = static_cast<const T*>(p.features.data) +
                 p.features.plane(task.image, task.channel) + task.first;
#pragma unroll 4
  for (std::int64_t c = 0; c < p.group_channels; ++c, row += p.features.channel_stride) {
    T value[Projection<T>::count];
    load_step(row, v, task.n, value);
    double weight[project_targets];
    load_normals(p, task, target, targets, c, weight);
    projection->add(value, weight, squares);
  }
}

// The same from memory of any layout, by way of shared memory.
template <class T>
__device__ __forceinline__ void project_elements(const ProjectParams& p, const ProjectTask& task,
                                                 std::int64_t target, int targets, bool squares,
                                                 T* staged, Projection<T>* projection) {
  const std::int64_t v = threadIdx.x * Projection<T>::count;
  for (std::int64_t c = 0; c < p.group_channels; c += neighbours<T>) {
    const int here = static_cast<int>(lesser(neighbours<T>, p.group_channels - c));
    __syncthreads();  // nobody reads the channels before any more
    stage_elements(p.features, task.image, task.channel + c, here, task.first, task.n, staged,
                   turned_pitch<T>);
    __syncthreads();
    for (int k = 0; k < here && v < task.n; ++k) {
      T value[Projection<T>::count];
      load_aligned(staged + k * turned_pitch<T> + v, value);
      double weight[project_targets];
      load_normals(p, task, target, targets, c + k, weight);
      projection->add(value, weight, squares);
    }
  }
}

// ---- sinks -------------------------------------------------------------------------------------

__device__ __forceinline__ bool foreground_at(double projection, const Boundary& boundary) {
  return boundary.defined && is_foreground(projection, boundary.threshold);
}

// What a sink makes of a voxel, given its projection and, for the cosine metric, its squared norm.
template <Sink sink>
struct Voxel {  // probability, wide_probability
  using Out = std::conditional_t<sink == Sink::probability, float, double>;
  static __device__ Out of(double projection, double square, Metric metric,
                           const Boundary& boundary) {
    if (!boundary.defined) return static_cast<Out>(NAN);
    return static_cast<Out>(probability_of(margin(projection, square, metric, boundary)));
  }
};
template <>
struct Voxel<Sink::map> {
  using Out = std::uint8_t;
  static __device__ Out of(double projection, double, Metric, const Boundary& boundary) {
    return foreground_at(projection, boundary);
  }
};
template <>
struct Voxel<Sink::projection> {
  using Out = double;
  static __device__ Out of(double projection, double, Metric, const Boundary&) {
    return projection;
  }
};

template <class T>
struct MarginVoxel {
  using Out = T;
  static __device__ Out of(double projection, double square, Metric metric,
                           const Boundary& boundary) {
    if (!boundary.defined) return static_cast<Out>(NAN);
    return static_cast<Out>(margin(projection, square, metric, boundary));
  }
};
template <>
struct Voxel<Sink::margin> : MarginVoxel<float> {};
template <>
struct Voxel<Sink::wide_margin> : MarginVoxel<double> {};

// Calls f(Voxel<sink>{}) of a sink that writes a map.
template <class F>
__device__ __forceinline__ void with_voxel(Sink sink, F f) {
  if (sink == Sink::map) return f(Voxel<Sink::map>{});
  if (sink == Sink::probability) return f(Voxel<Sink::probability>{});
  if (sink == Sink::wide_probability) return f(Voxel<Sink::wide_probability>{});
  if (sink == Sink::margin) return f(Voxel<Sink::margin>{});
  if (sink == Sink::wide_margin) return f(Voxel<Sink::wide_margin>{});
  f(Voxel<Sink::projection>{});
}

template <class T>
__device__ __forceinline__ void count_projection(const ProjectParams& p, const ProjectTask& task,
                                                 std::int64_t target,
                                                 const double (&sum)[Projection<T>::count],
                                                 const Boundary& boundary, unsigned* counts) {
  const std::int64_t v = task.first + threadIdx.x * Projection<T>::count;
  const PackedRow bits = packed_row(p.references, p.out, task.image, target, p.targets);
  unsigned long long packed = 0;
  if (v < task.first + task.n && boundary.defined) {
    unsigned foreground = 0;
#pragma unroll
    for (int k = 0; k < Projection<T>::count; ++k)
      foreground |= static_cast<unsigned>(foreground_at(sum[k], boundary)) << k;
    packed = count_bits(foreground, bits.valid[v / 32] >> v % 32,
                        bits.actual[0] ? bits.actual[0][v / 32] >> v % 32 : 0u,
                        bits.actual[1] ? bits.actual[1][v / 32] >> v % 32 : 0u);
  }
  add_warp_counts(packed, counts);
}

template <class T>
__device__ __forceinline__ void write_projection(const ProjectParams& p, const ProjectTask& task,
                                                 std::int64_t target,
                                                 const Projection<T>& projection, int t,
                                                 const Boundary& boundary) {
  const std::int64_t voxels = p.features.extent.voxels();
  const std::int64_t group = p.sink == Sink::projection ? task.group : p.first_group + task.group;
  const std::int64_t at = (group * p.targets + target) * voxels + task.first;
  const std::int64_t v = threadIdx.x * Projection<T>::count;
  with_voxel(p.sink, [&](auto voxel) {
    using Out = typename decltype(voxel)::Out;
    Out value[Projection<T>::count];
#pragma unroll
    for (int k = 0; k < Projection<T>::count; ++k)
      value[k] = voxel.of(projection.sum[t][k], projection.square[k], p.metric, boundary);
    store_step(static_cast<Out*>(p.map) + at, v, task.n, value);
    if (p.square == nullptr || target > 0) return;
#pragma unroll
    for (int k = 0; k < Projection<T>::count; ++k)
      value[k] = static_cast<Out>(projection.square[k]);
    store_step(static_cast<Out*>(p.square) + group * voxels + task.first, v, task.n, value);
  });
}

// Hands the projections of up to project_targets targets to the sink.
template <class T>
__device__ __forceinline__ void sink_projection(const ProjectParams& p, const ProjectTask& task,
                                                std::int64_t target, int targets,
                                                const Projection<T>& projection, unsigned* counts) {
#pragma unroll
  for (int t = 0; t < project_targets; ++t) {
    if (t >= targets) break;
    const Boundary boundary = p.boundary[task.group * p.targets + target + t];
    if (p.sink == Sink::counts)
      count_projection<T>(p, task, target + t, projection.sum[t], boundary,
                          counts + t * counts_of_pair);
    else
      write_projection(p, task, target + t, projection, t, boundary);
  }
}

// Blocks per multiprocessor that registers allow; three of double spill on sm_75.
template <class T>
constexpr int project_blocks = sizeof(T) == sizeof(double) ? 2 : 3;

// One block per group and piece of its voxels.
template <class T>
__global__ void __launch_bounds__(threads, project_blocks<T>) project_kernel(ProjectParams p) {
  PROTOSEG_SHARED(unsigned, counts, project_targets* counts_of_pair);
  const std::int64_t voxels = p.features.extent.voxels();
  const bool squares = needs_square(p.metric) && takes_norms(p.sink);
  for (std::int64_t i = blockIdx.x; i < p.count * p.pieces; i += gridDim.x) {
    const std::int64_t group = p.first_group + i / p.pieces,
                       first = i % p.pieces * project_voxels<T>;
    const ProjectTask task = {i / p.pieces, group / p.groups, group % p.groups * p.group_channels,
                              first, lesser(project_voxels<T>, voxels - first)};
    for (std::int64_t target = 0; target < p.targets; target += project_targets) {
      const int here = static_cast<int>(lesser(project_targets, p.targets - target));
      Projection<T> projection;
      if (p.features.layout == Layout::rows)
        project_rows(p, task, target, here, squares, &projection);
      else
        project_elements(p, task, target, here, squares, dynamic_shared<T>(), &projection);
      if (threadIdx.x < project_targets * counts_of_pair) counts[threadIdx.x] = 0;
      __syncthreads();
      sink_projection(p, task, target, here, projection, counts);
      __syncthreads();
      if (p.sink == Sink::counts && static_cast<int>(threadIdx.x) < here * counts_of_pair)
        flush_count(p.out, group * p.targets + target + threadIdx.x / counts_of_pair,
                    threadIdx.x % counts_of_pair, counts[threadIdx.x]);
    }
  }
}

}  // namespace protoseg::cuda
