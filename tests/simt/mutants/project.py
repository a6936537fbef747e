"""Bugs in projections, in their sinks, and in maps that are resized afterwards."""

from simt.mutation import mutants

MUTATIONS = [
    *mutants(
        "cuda/project.cuh",
        "kernels/project.cpp:counts_of_floats",
        {
            "accumulator uninitialised": (
                "double sum[project_targets][count] = {};",
                "double sum[project_targets][count];",
            ),
            "norms uninitialised": (
                "double square[count] = {};",
                "double square[count];",
                "probabilities_of_cosine",
            ),
            "barrier before the sink removed": (
                "counts[threadIdx.x] = 0;\n      __syncthreads();\n",
                "counts[threadIdx.x] = 0;\n",
            ),
            "barrier before the results removed": (
                "      __syncthreads();\n      if (p.sink == Sink::counts &&",
                "      if (p.sink == Sink::counts &&",
            ),
            "counts not cleared": (
                "if (threadIdx.x < project_targets * counts_of_pair) counts[threadIdx.x] = 0;\n",
                "",
            ),
            "return before the barrier": (
                "      __syncthreads();\n      sink_projection",
                "      if (threadIdx.x * Projection<T>::count >= task.n) return;\n"
                "      __syncthreads();\n      sink_projection",
            ),
            "tie is foreground": (
                "is_foreground(projection, boundary.threshold)",
                "projection >= boundary.threshold",
                "ties",
            ),
            "undefined is foreground": (
                "return boundary.defined && is_fore",
                "return is_fore",
                "a_map",
            ),
            "normals of the first target": (
                "(task.group * p.targets + target + t) * p.group_channels + channel",
                "(task.group * p.targets + target) * p.group_channels + channel",
            ),
            "normals of a target that is none": (
                "t < targets\n                    ? p.weight",
                "t < project_targets\n                    ? p.weight",
            ),
            "boundary of the first target": (
                "p.boundary[task.group * p.targets + target + t]",
                "p.boundary[task.group * p.targets + target]",
            ),
            "channels of the first group": ("group % p.groups * p.group_channels", "0"),
            "group of the chunk": (
                "p.first_group + i / p.pieces,\n                       first",
                "i / p.pieces,\n                       first",
            ),
            "last piece is whole": (
                "lesser(project_voxels<T>, voxels - first)};",
                "project_voxels<T>};",
            ),
            "bits of the piece": (
                "const std::int64_t v = task.first + threadIdx.x * Projection<T>::count;",
                "const std::int64_t v = threadIdx.x * Projection<T>::count;",
            ),
            "voxels beyond the end counted": (
                "if (v < task.first + task.n && boundary.defined)",
                "if (boundary.defined)",
            ),
            "counts of both targets together": ("counts + t * counts_of_pair", "counts"),
            "counts of a target lost": (
                "< here * counts_of_pair)",
                "< counts_of_pair)",
            ),
            "third target of the first": (
                "const int here = static_cast<int>(lesser(project_targets, p.targets - target));\n"
                "      Projection",
                "const int here = project_targets;\n      Projection",
            ),
            "barrier before staging removed": (
                "    __syncthreads();  // nobody reads the channels before any more\n",
                "",
                "counts_of_channels_last",
            ),
            "barrier after staging removed": (
                "                   turned_pitch<T>);\n    __syncthreads();\n",
                "                   turned_pitch<T>);\n",
                "counts_of_channels_last",
            ),
            "normals of the first channels": (
                "load_normals(p, task, target, targets, c + k, weight);",
                "load_normals(p, task, target, targets, k, weight);",
                "counts_of_channels_last",
            ),
            "channels staged again": (
                "task.channel + c, here, task.first",
                "task.channel, here, task.first",
                "counts_of_channels_last",
            ),
            "map of the chunk's group": (
                "p.sink == Sink::projection ? task.group : p.first_group + task.group",
                "task.group",
                "a_map",
            ),
            "projection of all groups": (
                "p.sink == Sink::projection ? task.group : p.first_group + task.group",
                "p.first_group + task.group",
                "a_resized_map",
            ),
            "map of the first piece": (
                "* p.targets + target) * voxels + task.first;",
                "* p.targets + target) * voxels;",
                "a_map",
            ),
            "undefined has a probability": (
                "    if (!boundary.defined) return static_cast<Out>(NAN);\n"
                "    return static_cast<Out>(probability_of(",
                "    return static_cast<Out>(probability_of(",
                "probabilities",
            ),
            "norm of the first voxel": (
                "projection.square[k], p.metric",
                "projection.square[0], p.metric",
                "probabilities_of_cosine",
            ),
            "norms left out": (
                "needs_square(p.metric) && takes_norms(p.sink)",
                "needs_square(p.metric) && !takes_norms(p.sink)",
                "probabilities_of_cosine",
            ),
        },
    ),
    *mutants(
        "cuda/load.cuh",
        "kernels/project.cpp:a_map",
        {
            "store beyond the end": ("if (first + k < n) row[first + k]", "row[first + k]"),
            "store to any address": (
                "sizeof(Word) == 0;\n    if (aligned && first",
                "sizeof(Word) == 0;\n    if (first",
            ),
            "step beyond the end": (
                "out[k] = first + k < n ? row[first + k] : T{};",
                "out[k] = row[first + k];",
                "counts_of_floats",
            ),
            "step from any address": (
                "if (aligned && first + count <= n) return load_aligned",
                "if (first + count <= n) return load_aligned",
                "counts_of_misaligned_rows",
            ),
            "last voxel of a step left out": (
                "if (first + k < n) row[first + k] = value[k];",
                "if (first + k + 1 < n) row[first + k] = value[k];",
            ),
        },
    ),
    *mutants(
        "cuda/resize_map.cuh",
        "kernels/project.cpp:a_resized_map",
        {
            "tap above as below": (
                "{cells.x.lower[x], cells.x.upper[x]}",
                "{cells.x.lower[x], cells.x.lower[x]}",
            ),
            "weights of z and y swapped": (
                "{cells.z.exact[z], cells.y.exact[y], cells.x.exact[x]}",
                "{cells.y.exact[y], cells.z.exact[z], cells.x.exact[x]}",
            ),
            "slice of the wrong axis": (
                "const std::int64_t z = line / cells.to.y, y = line - z * cells.to.y;\n  return",
                "const std::int64_t z = line / cells.to.x, y = line - z * cells.to.x;\n  return",
            ),
            "first map for all targets": ("(k * p.targets + target) * from;", "k * from;"),
            "map of all groups": (
                "p.projection + (k * p.targets",
                "p.projection + (group * p.targets",
            ),
            "rows of the output": (
                "(z * p.cells.from.y + y) * p.cells.from.x + x",
                "(z * p.cells.from.y + y) * p.cells.to.x + x",
            ),
            "to the chunk's group": (
                "[(group * p.targets + target) * voxels + voxel]",
                "[(k * p.targets + target) * voxels + voxel]",
            ),
            "boundary of the first target": ("p.boundary[k * p.targets + target]", "p.boundary[k]"),
            "threads step on each other": (
                "i += static_cast<std::int64_t>(gridDim.x) * threads",
                "i += threads",
            ),
            "norm of the first group": (
                "group % p.groups * p.group_channels;",
                "0;",
                "resized_probabilities_of_cosine",
            ),
            "norm of one channel": (
                "c < p.group_channels; ++c) {\n    const std::int64_t plane",
                "c < 1; ++c) {\n    const std::int64_t plane",
                "resized_probabilities_of_cosine",
            ),
            "no norms": (
                "needs_square(p.metric) && takes_norms(p.sink)",
                "needs_square(p.metric) && !takes_norms(p.sink)",
                "resized_probabilities_of_cosine",
            ),
            "norms of rows": (
                "plane + z * p.features.z_stride + y * p.features.y_stride + "
                "x * p.features.x_stride",
                "plane + z * p.features.z_stride + y * p.features.y_stride + x",
                "resized_probabilities_of_cosine",
            ),
        },
    ),
]
