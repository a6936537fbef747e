"""Bugs in counts by segments, and in small planes."""

from simt.mutation import mutants

MUTATIONS = [
    *mutants(
        "cuda/count.cuh",
        "kernels/counts.cpp:segments_of_floats",
        {
            "tie is foreground": (
                "side * widen(value[k]) > threshold) << k;\n    const int word",
                "side * widen(value[k]) >= threshold) << k;\n    const int word",
            ),
            "always above": ("unit.above ? Sum(1) : Sum(-1);", "Sum(1);"),
            "nothing counted as something": ("  if (!unit.anything) return;\n", ""),
            "barrier after clearing removed": (
                "      clear_counts(counts);\n      __syncthreads();\n",
                "      clear_counts(counts);\n",
            ),
            "barrier before the results removed": (
                "      __syncthreads();\n      flush_counts",
                "      flush_counts",
            ),
            "counts not cleared": ("      clear_counts(counts);\n", "", "many_targets"),
            "counts cleared in part": ("< pair_counts)", "< pair_counts - 1)", "many_targets"),
            "mask of 9 bits": ("& 0x1fffff;", "& 0x1ff;", "segments_that_are_all_foreground"),
            "words of the first image": (
                "references.valid + image * references.words",
                "references.valid",
            ),
            "references of the first target": (
                "(image * targets + target) * references.words;",
                "image * targets * references.words;",
            ),
            "words of the first segment": (
                "packed_row(p.references, p.out, tile.image, target + t, p.targets).from(first);",
                "packed_row(p.references, p.out, tile.image, target + t, p.targets);",
            ),
            "blocks do the same": (
                "i < p.tiles.count * p.segments; i += gridDim.x",
                "i < p.tiles.count * p.segments; ++i",
            ),
            "last segment is whole": (
                "static_cast<int>(lesser(segment_voxels<SumOf<T>>, voxels - first));",
                "static_cast<int>(segment_voxels<SumOf<T>>);",
            ),
            "targets beyond the last": (
                "here = static_cast<int>(lesser(target_tile, p.targets - target));",
                "here = target_tile;",
            ),
            "counts of the first plane": (
                "count_segment(staged + u * pitch, n",
                "count_segment(staged, n",
            ),
            "units of the first image": (
                "unit = tile.image * p.tiles.channels + tile.channel;",
                "unit = tile.channel;",
            ),
            "shift forgotten": ("bits.valid[word] >> shift,", "bits.valid[word],"),
            "references swapped": (
                "__popc(foreground & target)) << 21",
                "__popc(foreground & output)) << 21",
            ),
            "not masked": ("__popc(foreground & valid)", "__popc(foreground)"),
            "threshold of the chunk's first unit": (
                "(unit + u - p.first_unit) * p.targets + target + t], bits",
                "u * p.targets + target + t], bits",
            ),
            "one row too few": (
                "v < n; v += row_voxels<Sum>) {\n    T value",
                "v + step<Sum> < n; v += row_voxels<Sum>) {\n    T value",
            ),
            "adds only once": (
                "(target * most_units + unit) * counts_of_pair",
                "unit * counts_of_pair",
            ),
            "results of the first target": (
                "(unit + u) * targets + target + t, i % counts_of_pair",
                "(unit + u) * targets + t, i % counts_of_pair",
                "many_targets",
            ),
            "one output missing": (
                "for (int k = 0; k < 2; ++k)\n      if (out.predicted[k]",
                "for (int k = 0; k < 1; ++k)\n      if (out.predicted[k]",
            ),
            "shared atomics are none": (
                "if (count != 0) atomicAdd(counts + lane_of_thread(), count);",
                "if (count != 0) counts[lane_of_thread()] += count;",
            ),
            "32-bit places": (
                "const std::int64_t plane = (image * targets + target) * references.words;",
                "const int plane = (image * targets + target) * int(references.words);",
                "kernels/huge.cpp:references_beyond_2_31_words",
            ),
        },
    ),
    *mutants(
        "cuda/small_units.cuh",
        "kernels/counts.cpp:small_planes",
        {
            "step of another lane": (
                "(k * warp_lanes + lane_of_thread()) * step<Sum>",
                "(k * warp_lanes + threadIdx.x) * step<Sum>",
            ),
            "first step only": (
                "if (k * warp_lanes * step<Sum> >= n_) break;",
                "if (k > 0) break;",
            ),
            "weights beyond the end": (
                "if (voxel(k) < n_) {\n        Sum",
                "if (true) {\n        Sum",
            ),
            "voxels beyond the end": (
                "      if (voxel(k) >= n_) continue;\n",
                "",
            ),
            "tie is foreground": (
                "side * widen(value_[k][j]) > threshold",
                "side * widen(value_[k][j]) >= threshold",
                "small_planes_that_tie",
            ),
            "sides swapped": ("sum[side] = k == 0 ? warp", "sum[1 - side] = k == 0 ? warp"),
            "reference of the first unit": (
                "reference_(widen(f.at<T>(image, channel, 0)))",
                "reference_(widen(f.at<T>(image, 0, 0)))",
            ),
            "channel is the unit": (
                "plane(p.features, image, unit - image * p.channels)",
                "plane(p.features, image, unit % 3)",
            ),
            "warps of a block only": (
                "unit < p.units; unit += all_warps",
                "unit < p.units; unit += warps",
                "small_planes_of_many_blocks",
            ),
            "units left out": (
                "static_cast<std::int64_t>(gridDim.x) * warps;\n  for (std::int64_t unit",
                "static_cast<std::int64_t>(gridDim.x) * threads;\n  for (std::int64_t unit",
            ),
            "totals of the first target": (
                "(image * p.targets + target) * 2;\n  Boundary",
                "image * p.targets * 2;\n  Boundary",
            ),
            "word of the first voxels": ("word = voxel(k) / 32", "word = k"),
            "results of the first target": (
                "const std::int64_t at = unit * p.targets + target;",
                "const std::int64_t at = unit * p.targets;",
            ),
            "counts of one lane": ("return warp_sum(packed);", "return packed;"),
            "counts of two": (
                "if (lane_of_thread() < counts_of_pair)\n    flush_count",
                "if (lane_of_thread() < counts_of_pair - 1)\n    flush_count",
            ),
            "in double not at all": (
                "if (needs_double(sum[side])) sum[side] = wide[side];",
                "static_cast<void>(wide);",
                "small_planes_of_special_values",
            ),
            "strides not looked at": (
                "row[f.offset(voxel(k) + j)]",
                "row[voxel(k) + j]",
                "small_planes_channels_last",
            ),
            "sums of one side": (
                "lane_of_thread() == 0 ? sum[0] : sum[1]",
                "sum[0]",
                "small_sums",
            ),
            "written by every lane": (
                "  if (lane_of_thread() == 0)\n    write_known",
                "  write_known",
            ),
            "return before the shuffle": (
                "const SmallUnit<T> plane(",
                "if (lane_of_thread() >= p.features.extent.voxels()) continue;\n"
                "    const SmallUnit<T> plane(",
            ),
        },
    ),
]
