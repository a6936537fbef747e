"""Bugs in a guide's first look."""

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
            "pred above one": (
                "f.pred_highest <= ordered(1.0)",
                "f.pred_highest <= ordered(2.0)",
                "values_that_are_not_acceptable",
            ),
            "mask below zero": (
                "f.mask_lowest <= ordered(-0.0)",
                "f.mask_lowest <= ordered(1.0)",
                "values_that_are_not_acceptable",
            ),
            "target of any value": (
                "f.target_values == 0 && pred_in_range(f)",
                "pred_in_range(f)",
                "values_that_are_not_acceptable",
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
