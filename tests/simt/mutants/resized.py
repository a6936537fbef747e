"""Bugs in counts of resized maps, and in what is prepared for them."""

from simt.mutation import mutants

MUTATIONS = [
    *mutants(
        "cuda/resized.cuh",
        "kernels/resized.cpp:enlarged",
        {
            "centre without its fine part": (
                "c.side * ((f - c.coarse) - c.fine)",
                "c.side * (f - c.coarse)",
                "thresholds_between_floats",
            ),
            "foreground always above": ("unit.above ? 1.0f : -1.0f", "1.0f"),
            "no doubt": ("size * 0x1p-47f + 1e-36f", "0.0f", "maps_that_double_decides"),
            "float is trusted too far": (
                "constexpr float float_doubt = 0x1p-19f;",
                "constexpr float float_doubt = 0x1p-24f;",
                "voxels_that_float_puts_on_the_wrong_side",
            ),
            "less doubt than roundings": (
                "constexpr float float_doubt = 0x1p-19f;",
                "constexpr float float_doubt = 0.0f;",
                "doubtful_voxels",
            ),
            "tie is foreground": ("exact > unit.threshold :", "exact >= unit.threshold :"),
            "tie below is foreground": (
                ": exact < unit.threshold;",
                ": exact <= unit.threshold;",
                "doubtful_voxels",
            ),
            "slices of the next cell": (
                "cells.z.begin[z + 1] - tile.z",
                "cells.z.begin[z] + 1 - tile.z",
                "enlarged_volumes",
            ),
            "word is the line": ("index - word * cells.lines", "index % cells.words"),
            "rows of the first word": (
                "+\n                   word * tile.slices * tile.rows;",
                ";",
            ),
            "rows of one slice": (
                "std::int64_t{tile.y} * tile.slices)",
                "std::int64_t{tile.y})",
                "enlarged_volumes",
            ),
            "columns beyond the end": ("lane.inside ? column : cells.to.x - 1", "column"),
            "columns beyond the end count": (
                "lane.inside = column < cells.to.x;",
                "lane.inside = true;",
            ),
            "upper tap as lower": (
                "cells.x.upper[lane.column] * x_stride",
                "cells.x.lower[lane.column] * x_stride",
            ),
            "stride of rows": (
                "cells.x.lower[lane.column] * x_stride",
                "cells.x.lower[lane.column]",
                "channels_last",
            ),
            "corner rows swapped": (
                "{{z[0] + y[0], z[0] + y[1], z[1] + y[0], z[1] + y[1]}}",
                "{{z[0] + y[0], z[1] + y[0], z[0] + y[1], z[1] + y[1]}}",
                "enlarged_volumes",
            ),
            "lowest of the first corner": (
                "fminf(k == 0 ? a : column.lowest, fminf(a, b))",
                "fminf(k == 0 ? a : column.lowest, a)",
                "one_voxel_that_differs",
            ),
            "highest of the first row": (
                "fmaxf(k == 0 ? a : column.highest, fmaxf(a, b))",
                "fmaxf(a, b)",
            ),
            "weights of z and y swapped": (
                "cells.z.exact[z], cells.y.exact[y],\n",
                "cells.y.exact[y], cells.z.exact[z],\n",
                "doubtful_voxels_of_volumes",
            ),
            "bits of the row before": (
                "tile.first_row + row - (warp_lanes - 1), warp_lanes",
                "tile.first_row + row - warp_lanes, warp_lanes",
                "many_rows_in_a_tile",
            ),
            "last rows left out": (
                "count_rows(mine, tile.first_row + row - left, left, bits, tally);",
                "",
            ),
            "a row too many": ("if (lane_of_thread() >= n) return;", ""),
            "whole tile by every lane": (
                "  if (lane_of_thread() != 0) return;\n  tally->count[0]",
                "  tally->count[0]",
            ),
            "whole tile of the first": ("valid_total[tile.index]", "valid_total[0]"),
            "target and output swapped": (
                "tally->count[1 + which] += __popc",
                "tally->count[2 - which] += __popc",
            ),
            "whole, swapped": (
                "tally->count[1 + which] += bits.actual_total",
                "tally->count[2 - which] += bits.actual_total",
            ),
            "return before the vote": (
                "  unsigned mine = 0;\n  int row = 0;",
                "  if (!lane.inside) return;\n  unsigned mine = 0;\n  int row = 0;",
            ),
            "vote of half a warp": (
                "__ballot_sync(all_lanes, foreground)",
                "__ballot_sync(0xffffu, foreground)",
            ),
            "lane keeps its columns": (
                "if (tile.word != lane.word) lane = lane_of",
                "if (lane.word < 0) lane = lane_of",
            ),
            "background in part": (
                "!lane.inside || column.highest < -doubt)",
                "column.highest < doubt)",
                "maps_that_double_decides",
            ),
            "foreground in part": (
                "__all_sync(all_lanes, !lane.inside || column.lowest > doubt)",
                "__any_sync(all_lanes, !lane.inside || column.lowest > doubt)",
            ),
            "empty tiles looked at": (
                "    if (tile.slices == 0 || tile.rows == 0) continue;\n",
                "",
                "reduced",
            ),
            "warps count the same": ("begin + warp_of_thread(); i < end", "begin; i < end"),
            "sum of one lane": ("warp_sum(tally.count[k])", "tally.count[k]"),
            "nothing counted as something": ("  if (!unit.anything) return;\n", ""),
            "barrier after clearing removed": (
                "counts[threadIdx.x] = 0;\n    __syncthreads();\n    count_lines",
                "counts[threadIdx.x] = 0;\n    count_lines",
            ),
            "barrier before the results removed": (
                "counts);\n    __syncthreads();\n    if (threadIdx.x < counts_of_pair)\n",
                "counts);\n    if (threadIdx.x < counts_of_pair)\n",
            ),
            "counts not cleared": (
                "if (threadIdx.x < counts_of_pair) counts[threadIdx.x] = 0;\n",
                "",
            ),
            "plane of the first channel": ("at - image * p.per_image) - p", "0) - p"),
            "threshold of the unit": ("p.threshold[pair],", "p.threshold[pair / p.targets],"),
            "results of the chunk": (
                "flush_count(p.out, at * p",
                "flush_count(p.out, (at - p.first) * p",
            ),
            "maps of the first target": (
                "- p.map_offset + target * p.target_stride",
                "- p.map_offset",
                "maps_by_group_and_target",
            ),
            "maps of all groups": (
                "- p.map_offset + target",
                "+ target",
                "maps_by_group_and_target",
            ),
            "bits of the first image": (
                "cells.valid + image * cells.tile_rows()",
                "cells.valid",
            ),
            "totals of the first target": (
                "cells.actual_total[which] + plane * cells.tiles()",
                "cells.actual_total[which]",
            ),
        },
    ),
    *mutants(
        "cuda/guide_cells.cuh",
        "kernels/resized.cpp:taps",
        {
            "upper is lower": (
                "p.upper[o] = static_cast<int>(tap.upper)",
                "p.upper[o] = static_cast<int>(tap.lower)",
            ),
            "intervals begin late": (
                "k = before + 1; k <= tap.lower",
                "k = before + 1; k < tap.lower",
            ),
            "intervals never end": (
                "p.begin[k] = static_cast<int>(p.n_out);",
                "p.begin[k] = static_cast<int>(o);",
            ),
            "end not written": ("k = tap.lower + 1; k <= p.n_in", "k = tap.lower + 1; k < p.n_in"),
            "corners not aligned": (
                "tap = resize_tap(o, p.n_in, p.n_out, p.interpolation, p.align_corners);",
                "tap = resize_tap(o, p.n_in, p.n_out, p.interpolation, false);",
            ),
            "lower is upper": (
                "p.lower[o] = static_cast<int>(tap.lower)",
                "p.lower[o] = static_cast<int>(tap.upper)",
            ),
            "exact as in float": (
                "p.exact[o] = tap.weight;",
                "p.exact[o] = static_cast<float>(tap.weight);",
            ),
            "output before it has other corners": (
                "resize_tap(o - 1, p.n_in, p.n_out, p.interpolation, p.align_corners).lower",
                "resize_tap(o - 1, p.n_in, p.n_out, p.interpolation, false).lower",
            ),
            "intervals opened by every output": (
                "    if (o > 0) before =",
                "    if (o < 0) before =",
            ),
            "taps of one block": (
                "o < p.n_out;\n       o += static_cast<std::int64_t>(gridDim.x) * threads",
                "o < threads;\n       o += static_cast<std::int64_t>(gridDim.x) * threads",
                "taps_of_long_axes",
            ),
            "second word left out": (
                "  if (shift + n > 32) bits |= packed[word + 1] << (32 - shift);\n",
                "",
                "enlarged",
            ),
            "second word always": (
                "if (shift + n > 32) bits",
                "if (shift > 0) bits",
                "many_rows_in_a_tile",
            ),
            "bits beyond the row": ("n < 32 ? bits & ((1u << n) - 1u) : bits", "bits", "enlarged"),
            "rows of one slice": (
                "first_y * slices) +",
                "first_y) +",
                "enlarged_volumes",
            ),
            "row of its neighbour": (
                "(z - first_z) * rows + (y - first_y)",
                "(y - first_y)",
                "enlarged_volumes",
            ),
            "bits of the first plane": (
                "p.packed + plane * p.words, line",
                "p.packed, line",
                "enlarged",
            ),
            "bits of the first word": (
                "line * c.to.x + word * 32, n",
                "line * c.to.x, n",
                "enlarged",
            ),
            "slices of the next cell": (
                "c.z.begin[c.z.lower[z] + 1] - first_z",
                "c.z.begin[c.z.lower[z]] + 1 - first_z",
                "enlarged_volumes",
            ),
            "words of one slice": (
                "word * slices * rows +",
                "word * rows +",
                "enlarged_volumes",
            ),
            "rows of all planes": (
                "p.rows[plane * c.tile_rows() + row]",
                "p.rows[row]",
                "enlarged",
            ),
            "totals uninitialised": (
                "    unsigned bits = 0;\n",
                "    unsigned bits;\n",
                "enlarged",
            ),
            "totals of the first tile": (
                "tile_of(p.cells, i % tiles)",
                "tile_of(p.cells, 0)",
                "enlarged",
            ),
            "totals of rows before": ("+ tile.first_row;", "+ 0;", "enlarged"),
            "totals of half": (
                "k < tile.slices * tile.rows; k += warp_lanes)\n      bits",
                "k < tile.rows; k += warp_lanes)\n      bits",
                "enlarged_volumes",
            ),
            "totals by one lane": ("    bits = warp_sum(bits);\n", "", "enlarged"),
            "totals of the first plane": (
                "p.rows + i / tiles * p.cells.tile_rows() +",
                "p.rows +",
                "enlarged",
            ),
            "totals written by every lane": (
                "if (lane_of_thread() == 0) p.total[i] = bits;",
                "p.total[i] = bits;",
                "enlarged",
            ),
            "tiles counted twice": (
                "i < p.planes * tiles; i += all_warps",
                "i < p.planes * tiles; i += warps",
                "enlarged",
            ),
            "totals of the first 32 rows": (
                "k < tile.slices * tile.rows; k += warp_lanes",
                "k < tile.slices * tile.rows && k < warp_lanes; k += warp_lanes",
                "many_rows_in_a_tile",
            ),
        },
    ),
]
