"""Bugs in loading, staging and weighted sums."""

from simt.mutation import mutants

MUTATIONS = [
    *mutants(
        "cuda/sums.cuh",
        "kernels/sums.cpp:odd_rows_of_floats",
        {
            "barrier before the sum of warps removed": (
                "  store_warp_sums<most_units>(lane, units, partial);\n  __syncthreads();\n",
                "  store_warp_sums<most_units>(lane, units, partial);\n",
            ),
            "no reference value": ("- static_cast<S>(reference);", ";"),
            "sides swapped": (
                "static_cast<S>(positive[k]), sum[0]",
                "static_cast<S>(negative[k]), sum[0]",
            ),
            "accumulator not cleared": (
                "Sum lane[most_units][2] = {};",
                "Sum lane[most_units][2];",
            ),
            "wrong row of weights": (
                "image * image_stride + target * target_stride",
                "image * image_stride",
            ),
            "weights of the first segment": (
                "weights.from(first), reference,",
                "weights, reference,",
            ),
            "last unit of a tile left out": (
                "if (u >= units) break;\n      T value",
                "if (u + 1 >= units) break;\n      T value",
            ),
            "one row too few": (
                "v < n; v += row_voxels<Sum>",
                "v + step<Sum> < n; v += row_voxels<Sum>",
            ),
            "tiles cross images": (
                "left < tiles.units ? static_cast<int>(left) : tiles.units",
                "tiles.units",
            ),
            "chunk starts at the first unit": ("tile.channel - p.first_unit", "tile.channel"),
            "barrier after staging removed": (
                "tile.units, reference);\n    __syncthreads();\n",
                "tile.units, reference);\n",
            ),
            "blocks do the same": (
                "i < p.tiles.count * p.segments; i += gridDim.x",
                "i < p.tiles.count * p.segments; ++i",
            ),
            "last segment is whole": (
                "static_cast<int>(lesser(segment_voxels<SumOf<T>>, voxels - first));",
                "static_cast<int>(segment_voxels<SumOf<T>>);",
            ),
            "sums of the first segment": (
                "((unit + u) * p.segments + segment) * p.targets",
                "((unit + u) * p.segments) * p.targets",
            ),
            "sums of the first target": (
                "* p.targets + target) * 2 + side] = sum",
                "* p.targets) * 2 + side] = sum",
            ),
            "sums of the other side": ("+ side] = sum;", "+ 1 - side] = sum;"),
            "units that are none": (
                "      if (u < tile.units)\n        p.sums",
                "      if (u < most_units)\n        p.sums",
            ),
            "reference of the first channel": (
                "load_references<T>(p.features, tile.image, tile.channel, tile.units",
                "load_references<T>(p.features, tile.image, 0, tile.units",
            ),
            "segments staged again": ("tile.units, first, n, staged", "tile.units, 0, n, staged"),
            "doubles not needed": (
                "!std::isfinite(sum) || (sum != 0.0 && std::fabs(sum) < 0x1p-80)",
                "!std::isfinite(sum)",
                "special_rows",
            ),
            "overflow taken for infinity": (
                "return !std::isfinite(sum) ||",
                "return",
                "special_rows",
            ),
            "scale of the other side": (
                "row.scale[1] * (Sum(1)",
                "row.scale[0] * (Sum(1)",
                "pred_as_weights",
            ),
        },
    ),
    *mutants(
        "cuda/load.cuh",
        "kernels/sums.cpp:misaligned_rows_of_halves",
        {
            "vector beyond the end": ("first - skew + 2 * count <= n", "first - skew + count <= n"),
            "alignment not looked at": ("if (skew == 0 && first", "if (first"),
            "tail not cut": ("if (first + k < n) element[k]", "element[k]"),
            "half a word off": ("w[k] >> 16 | w[k + 1] << 16", "w[k] | w[k + 1] << 16"),
            "wrong distance of words": ("w[k] = w[k + 2];", "w[k] = w[k + 1];"),
            "channels-last offset": (
                "z * z_stride + y * y_stride + x * x_stride",
                "z * z_stride + y * y_stride + x",
                "channels_last_by_elements",
            ),
            "wrong plane": (
                "image * image_stride + channel * channel_stride",
                "image * image_stride + channel",
            ),
        },
    ),
    *mutants(
        "cuda/stage.cuh",
        "kernels/sums.cpp:rows_of_floats",
        {
            "batch to the wrong place": (
                "to[i + k * threads] = vector[k]",
                "to[i + k] = vector[k]",
            ),
            "tail left out": (
                "  for (; i < vectors; i += threads)",
                "  for (; i < whole; i += threads)",
                "odd_rows_of_floats",
            ),
            "padding not cleared": (
                "v < n ? f.at<T>",
                "true ? f.at<T>",
                "channels_last_by_elements",
            ),
            "channel of the wrong unit": (
                "channel + u, first + v)",
                "channel, first + v)",
                "channels_last_by_elements",
            ),
            "planes staged over each other": (
                "              out + u * pitch);",
                "              out);",
            ),
            "wrong plane": (
                "f.plane(image, channel + u) + first",
                "f.plane(image, channel) + first",
            ),
            "wrong voxels": ("f.plane(image, channel + u) + first", "f.plane(image, channel + u)"),
            "neighbours by voxels": (
                "by_channel ? i % channels",
                "by_channel ? i / padded",
                "channels_last_by_elements",
            ),
        },
    ),
    *mutants(
        "cuda/shape.cuh",
        "kernels/sums.cpp:odd_rows_of_floats",
        {
            "half a warp": (
                "T warp_sum(T value) {\n#pragma unroll\n  for (int distance = 1; distance < warp_lanes;",  # noqa: E501
                "T warp_sum(T value) {\n#pragma unroll\n  for (int distance = 1; distance < warp_lanes / 2;",  # noqa: E501
            ),
            "mask of half a warp": ("all_lanes = 0xffffffffu", "all_lanes = 0x0000ffffu"),
            "a warp left out": ("warp = 1; warp < warps;", "warp = 1; warp < warps - 1;"),
            "warps out of step": ("sum += partial[warp * pitch]", "sum += partial[warp]"),
        },
    ),
    *mutants(
        "cuda/channels_last.cuh",
        "kernels/sums.cpp:channels_last_by_sectors",
        {
            "accumulator not cleared": ("TurnedSums<T> lane = {};", "TurnedSums<T> lane;"),
            "first row again": ("first + row, here, staged", "first, here, staged"),
            "target of its neighbour": (
                "p.weights.row(segment.tile.image, target + i,",
                "p.weights.row(segment.tile.image, target,",
            ),
            "rows of neighbours collide": (
                "+ 16 / static_cast<int>(sizeof(T));",
                "+ 0 / static_cast<int>(sizeof(T));",
            ),
            "weights of the first row": (
                "n, weights.from(segment.first + row),\n                reference, lane[i]",
                "n, weights.from(segment.first),\n                reference, lane[i]",
            ),
            "a target's sums lost": ("if (i < targets) store", "if (i == 0) store"),
            "in double of the wrong unit": (
                "reference + u, wide",
                "reference, wide",
                "special_channels_last",
            ),
            "sums of the first segment": (
                "* p.segments + at) * p.targets + target + t) * 2 + side] = sum",
                "* p.segments) * p.targets + target + t) * 2 + side] = sum",
            ),
            "reference of the first channel": (
                "load_references<T>(p.features, tile.image, tile.channel, tile.units",
                "load_references<T>(p.features, tile.image, 0, tile.units",
            ),
            "bits of the first target": (
                "packed_row(p.references, p.out, tile.image, target + t, p.targets);",
                "packed_row(p.references, p.out, tile.image, target, p.targets);",
                "kernels/counts.cpp:channels_last_by_sectors",
            ),
            "counts of the first unit": (
                "count_segment(segment.staged + u * turned_pitch<T>, n",
                "count_segment(segment.staged, n",
                "kernels/counts.cpp:channels_last_by_sectors",
            ),
            "counts of rows before": (
                "bits.from(first + row)",
                "bits.from(first)",
                "kernels/counts.cpp:channels_last_by_sectors",
            ),
            "counts not cleared": (
                "counts[k] = 0;",
                "counts[k] += 0;",
                "kernels/counts.cpp:channels_last_by_sectors",
            ),
            "barrier before staging a row removed": (
                "      __syncthreads();  // nobody reads the row before it any more\n",
                "",
            ),
            "barrier after staging a row removed": (
                "      __syncthreads();\n      use(row, here);",
                "      use(row, here);",
            ),
            "barrier after sums in double removed": (
                "(t * warps * neighbours<T> + u) * 2);\n  }\n  __syncthreads();\n",
                "(t * warps * neighbours<T> + u) * 2);\n  }\n",
                "special_channels_last",
            ),
            "targets that are none": (
                "if (t < here && u < tile.units)\n        p",
                "if (u < tile.units)\n        p",
            ),
            "barrier before the counts removed": (
                "      });\n      __syncthreads();\n      for (int k = threadIdx.x;",
                "      });\n      for (int k = threadIdx.x;",
                "kernels/counts.cpp:channels_last_by_sectors",
            ),
            "threshold of the chunk": (
                "p.threshold[(unit + u - p.first_unit) * p.targets",
                "p.threshold[u * p.targets",
                "kernels/counts.cpp:channels_last_by_sectors",
            ),
            "results of the first targets": (
                "(unit + u) * p.targets + target + t, k %",
                "(unit + u) * p.targets + t, k %",
                "kernels/counts.cpp:channels_last_by_sectors",
            ),
            "last unit not counted": (
                "if (t < here && u < tile.units)\n          flush",
                "if (t < here && u + 1 < tile.units)\n          flush",
                "kernels/counts.cpp:channels_last_by_sectors",
            ),
            "counts of one target": (
                "(t * neighbours<T> + u) * counts_of_pair",
                "u * counts_of_pair",
                "kernels/counts.cpp:channels_last_by_sectors",
            ),
        },
    ),
]
