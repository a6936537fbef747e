"""Bugs in the weights of a guide, and in the adjoint of resizing."""

from simt.mutation import mutants, within

STRIDE = "static_cast<std::int64_t>(gridDim.x) * threads"
TOTALS = f"       row < p.rows; row += {STRIDE}) {{\n    double sum = 0.0;\n"
ROWS = f"       i < p.planes * 2 * lines * length; i += {STRIDE}) {{\n"
AXIS = f"       i < p.outer * p.n_in * p.inner; i += {STRIDE}) {{\n"

MUTATIONS = [
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
        "cuda/guide_weights.cuh",
        "kernels/guide.cpp:totals_of_many_rows",
        {
            "totals, one row too many": within(TOTALS, "row < p.rows", "row <= p.rows"),
            "totals, the last row left out": within(TOTALS, "row < p.rows", "row + 1 < p.rows"),
            "totals, blocks step on each other": within(TOTALS, STRIDE, "threads"),
            "totals, what the grid has once": within(TOTALS, STRIDE, "p.rows"),
            "totals, accumulator uninitialised": within(TOTALS, " = 0.0;", ";"),
            "totals, one for all rows": ("    p.total[row] = valid", "    p.total[0] = valid"),
            "totals, first segment twice": (
                "p.partial[row * p.segments + segment]",
                "p.partial[row * p.segments + segment / 2]",
            ),
        },
    ),
    *mutants(
        "cuda/guide_weights.cuh",
        "kernels/guide.cpp:adjoint_of_rows",
        {
            "rows, one too many": within(ROWS, "i < p", "i <= p"),
            "rows, sides left out": within(ROWS, "p.planes * 2 *", "p.planes *"),
            "rows, blocks step on each other": within(ROWS, STRIDE, "threads"),
            "rows, what the grid has once": within(ROWS, STRIDE, "p.planes * 2 * lines * length"),
            "rows, lines of a slice": (
                "lines = p.cells.to.z * p.cells.to.y, length = p.cells.from.x;",
                "lines = p.cells.to.y, length = p.cells.from.x;",
            ),
            "rows, line of all": ("line = i / length % lines, row", "line = i / length, row"),
            "rows, row of the line": ("row = i / length / lines;", "row = i / length;"),
            "rows, one voxel for all": (
                "gather(p.cells.x, k, [&](int o) {",
                "gather(p.cells.x, 0, [&](int o) {",
            ),
        },
    ),
    *mutants(
        "cuda/guide_weights.cuh",
        "kernels/guide.cpp:adjoint_of_an_axis",
        {
            "axis, one too many": within(AXIS, "i < p", "i <= p"),
            "axis, the last left out": within(AXIS, "i < p", "i + 1 < p"),
            "axis, blocks step on each other": within(AXIS, STRIDE, "threads"),
            "axis, what the grid has once": within(AXIS, STRIDE, "p.outer * p.n_in * p.inner"),
            "axis, inner left out": (
                "/ p.n_in * p.n_out * p.inner + inner;",
                "/ p.n_in * p.n_out * p.inner;",
            ),
            "axis, first of the outer": (
                "p.in + i / p.inner / p.n_in * p.n_out * p.inner + inner;",
                "p.in + inner;",
            ),
        },
    ),
    *mutants(
        "cuda/guide_weights.cuh",
        "kernels/guide.cpp:weights_of_any_magnitude",
        {
            "largest, segments left out": (
                "i < p.rows * p.segments; i += gridDim.x",
                "i < p.rows; i += gridDim.x",
            ),
            "largest, row of the segment": (
                "row = i / p.segments, first",
                "row = i % p.rows, first",
            ),
            "largest, starts at one": ("double largest = 0.0;", "double largest = 1.0;"),
            "largest, voxels of one warp": (
                "v = first + threadIdx.x",
                "v = first + lane_of_thread()",
            ),
            "largest, of the first row": ("p.weight[row * p.voxels + v]", "p.weight[v]"),
            "largest, the smallest": (
                "largest = fmax(largest, p.weight",
                "largest = fmin(largest, p.weight",
            ),
            "largest, of the first warp": (
                "    if (lane_of_thread() == 0) atomicMax(p.largest",
                "    if (threadIdx.x == 0) atomicMax(p.largest",
            ),
            "largest, not in order": (
                "ordered(largest));",
                "static_cast<unsigned long long>(largest));",
            ),
        },
    ),
]
