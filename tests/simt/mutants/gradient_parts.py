"""Bugs in the small kernels of the backward pass."""

from simt.mutation import mutants, within

STRIDE = "static_cast<std::int64_t>(gridDim.x) * threads"
TAPE = f"       i < p.count * p.targets * p.group_channels;\n       i += {STRIDE}) {{\n"
ROWS = f"       i < p.rows * lines * length; i += {STRIDE}) {{\n"
CONSTANTS = f"       i < p.images * p.rows; i += {STRIDE}) {{\n"
GUIDE = f"       i < p.images * p.voxels; i += {STRIDE}) {{\n"

MUTATIONS = [
    *mutants(
        "cuda/tape.cuh",
        "kernels/gradient_parts.cpp:tape_of_a_chunk",
        {
            "blocks step on each other": within(TAPE, STRIDE, "threads"),
            "what the grid has once": within(
                TAPE, STRIDE, "p.count * p.targets * p.group_channels"
            ),
            "one too many": within(TAPE, "i < p", "i <= p"),
            "targets left out": within(TAPE, "p.count * p.targets *", "p.count *"),
            "group of the chunk": ("group = p.first_group + pair / p", "group = pair / p"),
            "target of the group": ("target = pair % p.targets", "target = pair / p.targets"),
            "planes of the first target": (
                "(image * p.targets + target) * channels",
                "(image * p.targets) * channels",
            ),
            "channels of one group": (
                "channels = p.groups * p.group_channels;",
                "channels = p.group_channels;",
            ),
            "channel is the first": (
                "* p.group_channels + i % p.group_channels",
                "* p.group_channels",
            ),
            "positive twice": (
                "out[1] = p.prototypes[i].negative",
                "out[1] = p.prototypes[i].positive",
            ),
        },
    ),
    *mutants(
        "cuda/gradient_guide.cuh",
        "kernels/gradient_parts.cpp:constants_of_many_rows",
        {
            "constants, blocks step on each other": within(CONSTANTS, STRIDE, "threads"),
            "constants, what the grid has once": within(CONSTANTS, STRIDE, "p.images * p.rows"),
            "constants, one too many": within(CONSTANTS, "i < p", "i <= p"),
            "constants, images left out": within(CONSTANTS, "p.images * p.rows", "p.rows"),
            "constants, of the first image": (
                "i / p.rows * p.groups * p.rows + i % p.rows",
                "i % p.rows",
            ),
            "constants, of the first row": (
                "i / p.rows * p.groups * p.rows + i % p.rows",
                "i / p.rows * p.groups * p.rows",
            ),
            "constants, rows as groups": ("sum += part[group * p.rows]", "sum += part[group]"),
            "constants, accumulator uninitialised": within(
                "    double sum = 0.0;\n#pragma unroll 8\n    for (std::int64_t group",
                " = 0.0;",
                ";",
            ),
            "constants, last group left out": (
                "group < p.groups; ++group",
                "group < p.groups - 1; ++group",
            ),
        },
    ),
    *mutants(
        "cuda/gradient_maps.cuh",
        "kernels/gradient_parts.cpp:what_comes_down_along_x",
        {
            "rows, blocks step on each other": within(ROWS, STRIDE, "threads"),
            "rows, what the grid has once": within(ROWS, STRIDE, "p.rows * lines * length"),
            "rows, one too many": within(ROWS, "i < p", "i <= p"),
            "rows, lines of a slice": (
                "lines = p.cells.to.z * p.cells.to.y, length",
                "lines = p.cells.to.y, length",
            ),
            "rows, line of all": ("line = i / length % lines, row", "line = i / length, row"),
            "rows, target of the first": (
                "target = row - group * p.upstream.targets;",
                "target = 0;",
            ),
            "rows, line of the feature": (
                "line * p.cells.to.x + o",
                "line * p.cells.from.x + o",
            ),
            "rows, one voxel for all": (
                "gather(p.cells.x, k, [&](int o) {",
                "gather(p.cells.x, 0, [&](int o) {",
            ),
            "rows, shrink for along": (
                "line * p.cells.to.x + o).along;",
                "line * p.cells.to.x + o).shrink;",
            ),
        },
    ),
    *mutants(
        "cuda/gradient_maps.cuh",
        "kernels/gradient_parts.cpp:maps_of_what_comes_down",
        {
            "maps, blocks do the same": (
                "i < p.groups * p.segments; i += gridDim.x",
                "i < p.groups * p.segments; ++i",
            ),
            "maps, segments of the first": (
                "segment = i % p.segments;",
                "segment = 0;",
            ),
            "maps, padding not written": (
                "lesser((segment + 1) * totals_voxels, p.pitch)",
                "lesser((segment + 1) * totals_voxels, p.voxels)",
            ),
            "maps, sum of one thread": ("      block_sums(sum);\n", ""),
            "maps, return before the sum": (
                "      block_sums(sum);\n",
                "      if (threadIdx.x > 200) return;\n      block_sums(sum);\n",
            ),
            "maps, accumulator uninitialised": ("double sum[1] = {0.0};", "double sum[1];"),
            "maps, groups of the chunk": (
                "p.upstream.at(p.first_group + group, target, v)",
                "p.upstream.at(group, target, v)",
            ),
            "maps, sums of the first segment": (
                "* p.segments + segment] = sum[0];",
                "* p.segments] = sum[0];",
            ),
            "maps, shrink of the first group": (
                "p.shrink + group * p.pitch + v",
                "p.shrink + v",
            ),
            "maps, sums of a target that is none": (
                "threadIdx.x == 0 && target < p.targets && p.partial",
                "threadIdx.x == 0 && p.partial",
            ),
            "maps, adjoint of the first target": (
                "p.adjoint[(group * p.targets + target) * p.voxels + v]",
                "p.adjoint[group * p.targets * p.voxels + v]",
                "maps_of_an_adjoint",
            ),
        },
    ),
    *mutants(
        "cuda/gradient_guide.cuh",
        "kernels/gradient_parts.cpp:of_pred_and_mask",
        {
            "guide, blocks step on each other": within(GUIDE, STRIDE, "threads"),
            "guide, what the grid has once": within(GUIDE, STRIDE, "p.images * p.voxels"),
            "guide, one too many": within(GUIDE, "i < p", "i <= p"),
            "guide, mask of the first image": (
                "guide.mask.value(image, 0, voxel)",
                "guide.mask.value(0, 0, voxel)",
            ),
            "guide, projections of the first image": (
                "sides_at(p, image * guide.targets + target, voxel, at)",
                "sides_at(p, target, voxel, at)",
            ),
            "guide, constants of one side": (
                "p.constant[plane * p.sides + side]",
                "p.constant[plane * p.sides]",
            ),
            "guide, map of one side": (
                "(plane * p.sides + side) * p.feature_voxels",
                "plane * p.sides * p.feature_voxels",
            ),
            "guide, a side that is none": (
                "    if (side >= p.sides) break;\n",
                "",
                "of_pred_alone",
            ),
            "guide, sides swapped": (
                "mask_gradient(pred, q.value[0], q.value[1])",
                "mask_gradient(pred, q.value[1], q.value[0])",
            ),
            "guide, written to the first target": (
                "p.pred.plane(image, target) + p.pred",
                "p.pred.plane(image, 0) + p.pred",
            ),
            "guide, strides not looked at": (
                "+ p.pred.offset(voxel), gradient)",
                "+ voxel, gradient)",
            ),
            "guide, accumulator uninitialised": ("double of_mask = 0.0;", "double of_mask;"),
            "guide, double written as float": (
                "static_cast<double*>(data)[at] = value;",
                "static_cast<double*>(data)[at] = narrow;",
            ),
            "guide, resized to the nearest": (
                "{\n                                return map[(z * p.cells.from.y + y)",
                "{\n                                x = at.x[0];\n"
                "                                return map[(z * p.cells.from.y + y)",
                "of_pred_and_mask_resized",
            ),
        },
    ),
    *mutants(
        "cuda/gradient_resized.cuh",
        "kernels/gradients.cpp:upsampled",
        {
            "voxels beyond the end": ("    if (voxel < voxels) resized", "    resized"),
            "voxels of the first piece": (
                "voxel = i % p.pieces * threads + threadIdx.x;",
                "voxel = threadIdx.x;",
                "kernels/gradients.cpp:resized_of_several_pieces",
            ),
            "blocks do the same": (
                "i < p.count * p.pieces; i += gridDim.x",
                "i < p.count * p.pieces; ++i",
                "kernels/gradients.cpp:resized_of_several_pieces",
            ),
            "channels of the first group": (
                "channel = (whole - image * p.groups) * p.group_channels;",
                "channel = 0;",
            ),
            "coefficients of the first group": (
                "p.maps.coefficient + group * p.targets * p.group_channels",
                "p.maps.coefficient",
                "resized_groups_at_once",
            ),
        },
    ),
]
