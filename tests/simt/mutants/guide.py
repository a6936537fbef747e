"""Bugs in a guide: the first look, weights, and the adjoint of resizing."""

from simt.mutation import mutants

MUTATIONS = [
    *mutants(
        "cuda/guide_scan.cuh",
        "kernels/guide.cpp:first_look",
        {
            "negative keys": (
                "bits >> 63 ? ~bits : bits",
                "bits >> 63 ? bits : bits",
                "values_that_are_not_acceptable",
            ),
            "minus zero is less": (
                "  if (x == 0.0) x = 0.0;  // -0 is no less\n",
                "",
                "values_that_are_not_acceptable",
            ),
            "not binarized": (
                "binarized ? (pred > binarize ? 1.0 : 0.0) : pred",
                "pred",
                "first_look_binarized",
            ),
            "binarized from": (
                "(pred > binarize ?",
                "(pred >= binarize ?",
                "first_look_binarized_at_the_highest",
            ),
            "tie is output": ("pred > 0.5 ? 5u", "pred >= 0.5 ? 5u", "first_look_binarized"),
            "mask of zero counts": ("mask > 0.0 ? (pred", "mask >= 0.0 ? (pred"),
            "target outside of the mask": ("bits |= mask > 0.0 && value", "bits |= value"),
            "largest without mask": (
                "positive_weight(mask, guiding, 1.0)",
                "positive_weight(1.0, guiding, 1.0)",
            ),
            "largest of the other side": (
                "seen->largest[1] = fmax(seen->largest[1], negative",
                "seen->largest[1] = fmax(seen->largest[1], positive",
            ),
            "nan of pred not seen": (
                "seen->pred_nan = seen->pred_nan || std::isnan(pred);\n",
                "",
                "values_that_are_not_acceptable",
            ),
            "nan of mask not seen": (
                "seen->mask_nan = seen->mask_nan || std::isnan(mask);\n",
                "",
                "values_that_are_not_acceptable",
            ),
            "last value only": (
                "seen->target_values = seen->target_values || !(",
                "seen->target_values = !(",
                "values_that_are_not_acceptable",
            ),
            "range of one lane": (
                "warp_largest(highest);\n  if",
                "highest;\n  if",
            ),
            "lowest of one lane": ("low = -warp_largest(-lowest)", "low = lowest"),
            "lowest and highest swapped": (
                "atomicMax(lowest_key, ordered(-low))",
                "atomicMax(lowest_key, ordered(high))",
            ),
            "vote after the return": (
                "  const bool mask_nan = __any_sync(all_lanes, seen.mask_nan);\n",
                "  if (lane_of_thread() == 31) return;\n"
                "  const bool mask_nan = __any_sync(all_lanes, seen.mask_nan);\n",
            ),
            "largest of the image": (
                "&p.largest[2 * plane + side]",
                "&p.largest[2 * image + side]",
            ),
            "voxels once per target": (
                "  if (target == 0) add_count(p.voxel_count",
                "  add_count(p.voxel_count",
            ),
            "counts of every lane": (
                "  if (lane_of_thread() != 0) return;\n  if (pred_nan)",
                "  if (pred_nan)",
            ),
            "target counted as output": ("seen.actual[1]);\n}", "seen.actual[0]);\n}"),
            "voxels beyond the end": ("voxel < voxels ? look_at", "true ? look_at"),
            "ballot of half a warp": (
                "__ballot_sync(all_lanes, bits & 1u)",
                "__ballot_sync(0xffffu, bits & 1u)",
            ),
            "bits swapped": ("bits & 2u),\n", "bits & 4u),\n"),
            "valid per target": (
                "if (target == 0) p.valid[image * p.words + word] = valid;",
                "p.valid[image * p.words + word] = valid;",
            ),
            "pieces overlap": ("first = i % pieces * p.piece_words;", "first = i % pieces;"),
            "last piece too long": (
                "word < lesser(p.words, first + p.piece_words)",
                "word < first + p.piece_words",
            ),
            "warps of one block": (
                "i < p.images * p.targets * pieces; i += all_warps",
                "i < all_warps; i += all_warps",
            ),
            "mask of the first image": (
                "p.mask.value(image, 0, voxel) : 1.0;\n  const double pred",
                "p.mask.value(0, 0, voxel) : 1.0;\n  const double pred",
            ),
            "largest mask is one": ("ordered(limits.largest_mask)", "ordered(1.0)"),
        },
    ),
    *mutants(
        "cuda/guide_weights.cuh",
        "kernels/guide.cpp:weights_of_the_pred",
        {
            "sides swapped": ("return side == 0 ? positive", "return side == 1 ? positive"),
            "target is the plane": (
                "pred.value(image, plane % targets, voxel)",
                "pred.value(image, 0, voxel)",
            ),
            "mask left out": (
                "has_mask ? mask.value(image, 0, voxel) : 1.0;\n    return",
                "1.0;\n    return",
            ),
            "padding not zero": (
                "      if (v < p.voxels)\n        exact",
                "      if (true)\n        exact",
            ),
            "padding not written": (
                "(segment + 1) * totals_voxels, p.pitch)",
                "(segment + 1) * totals_voxels, p.voxels)",
            ),
            "not scaled": (
                "static_cast<Sum>(scale * exact)",
                "static_cast<Sum>(exact)",
                "weights_of_any_magnitude",
            ),
            "sums of what was not rounded": (
                "sum[0] += static_cast<double>(weight);",
                "sum[0] += scale * exact;",
            ),
            "accumulator of the segment before": ("double sum[1] = {0.0};", "double sum[1];"),
            "sum of one thread": ("    block_sums(sum);\n", ""),
            "rows of voxels": ("p.out[row * p.pitch + v]", "p.out[row * p.voxels + v]"),
            "scale of the last segment": ("if (segment == 0) p.scale", "if (segment == 1) p.scale"),
            "return before the barrier": (
                "    block_sums(sum);\n",
                "    if (threadIdx.x > 200) return;\n    block_sums(sum);\n",
            ),
            "adjoint of the first row": (
                "p.adjoint[row * p.voxels + v]",
                "p.adjoint[v]",
                "weights_of_any_magnitude",
            ),
            "segment left out": (
                "segment < p.segments; ++segment)\n      sum",
                "segment < p.segments - 1; ++segment)\n      sum",
            ),
            "invalid has totals": ("valid ? sum : static_cast<double>(NAN)", "sum"),
            "rows of partial": (
                "p.partial[row * p.segments + segment]",
                "p.partial[row + segment]",
            ),
            "upper weights as lower": (
                "fma(1.0 - axis.exact[o], value(o), sum)",
                "fma(axis.exact[o], value(o), sum)",
                "adjoint_of_an_axis",
            ),
            "one output left out": (
                "o < axis.begin[k + 1]; ++o",
                "o + 1 < axis.begin[k + 1]; ++o",
                "adjoint_of_an_axis",
            ),
            "first voxel has a neighbour": (
                "  if (k > 0)\n",
                "  if (k > 1)\n",
                "adjoint_of_an_axis",
            ),
            "inner of the axis": (
                "i / p.inner % p.n_in;",
                "i / p.inner % p.n_out;",
                "adjoint_of_an_axis",
            ),
            "outer of the input": (
                "/ p.n_in * p.n_out * p.inner + inner",
                "/ p.n_in * p.n_in * p.inner + inner",
                "adjoint_of_an_axis",
            ),
            "neighbours as inner": (
                "return in[o * p.inner];",
                "return in[o];",
                "adjoint_of_an_axis",
            ),
            "first plane": ("p.first_plane + row / 2", "row / 2", "adjoint_of_rows"),
            "line of the feature": (
                "line * p.cells.to.x + o",
                "line * p.cells.from.x + o",
                "adjoint_of_rows",
            ),
            "rows of both sides": (
                "static_cast<int>(row % 2),\n                              line",
                "0,\n                              line",
                "adjoint_of_rows",
            ),
            "largest of a lane": ("    largest = warp_largest(largest);\n", ""),
            "largest of the first segment": (
                "i % p.segments * totals_voxels;\n    const std::int64_t end = lesser",
                "0;\n    const std::int64_t end = lesser",
                "weights_of_any_magnitude",
            ),
            "largest beyond the end": (
                "lesser(p.voxels, first + totals_voxels)",
                "first + totals_voxels",
            ),
            "largest of warps, no atomic": (
                "atomicMax(p.largest + row, ordered(largest))",
                "p.largest[row] = ordered(largest)",
            ),
        },
    ),
    *mutants(
        "cuda/shape.cuh",
        "kernels/guide.cpp:first_look",
        {
            "largest of half a warp": (
                "T warp_largest(T value) {\n#pragma unroll\n  for (int distance = 1; distance < warp_lanes;",  # noqa: E501
                "T warp_largest(T value) {\n#pragma unroll\n  for (int distance = 1; distance < warp_lanes / 2;",  # noqa: E501
            ),
            "smallest of a warp": (
                "other > value ? other : value",
                "other < value ? other : value",
            ),
            "counts added without atomics": (
                "    atomicAdd(reinterpret_cast<unsigned long long*>(total), static_cast<unsigned long long>(count));",  # noqa: E501
                "    *total += count;",
            ),
        },
    ),
]
