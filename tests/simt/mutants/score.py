"""Bugs in scores, and in grids."""

from simt.mutation import mutants

MUTATIONS = [
    *mutants(
        "cuda/score.cuh",
        "kernels/score.cpp:scores_of_every_kind",
        {
            "threads of one block": (
                "i += static_cast<std::int64_t>(gridDim.x) * threads",
                "i += std::int64_t{1} << 40",
            ),
            "blocks step on each other": (
                "i += static_cast<std::int64_t>(gridDim.x) * threads",
                "i += threads",
            ),
            "one too many": ("i < p.count;", "i <= p.count;"),
            "last one left out": ("i < p.count;", "i + 1 < p.count;"),
            "first block only": (
                "blockIdx.x * static_cast<std::int64_t>(threads) + threadIdx.x",
                "threadIdx.x",
            ),
            "map and target swapped": (
                "counts.predicted = p.counts.predicted[i]",
                "counts.predicted = p.counts.actual[i]",
            ),
            "32-bit counts": (
                "counts.tp = p.counts.tp[i]",
                "counts.tp = static_cast<unsigned>(p.counts.tp[i])",
            ),
            "undefined has a score": (
                "counts.defined = p.counts.defined[i] != 0;",
                "counts.defined = true;",
            ),
            "empty is always nan": ("p.which, p.empty)", "p.which, Empty::nan)"),
        },
    ),
    *mutants(
        "cuda/grid.hpp",
        "kernels/score.cpp:grids_within_their_limits",
        {
            "more blocks than a grid has": (
                "std::min(blocks, most_blocks / cluster) * cluster",
                "blocks * cluster",
            ),
            "clusters not counted": (
                "std::min(blocks, most_blocks / cluster) * cluster",
                "std::min(blocks, most_blocks)",
            ),
            "nothing is launched": ("  if (blocks <= 0) return;\n", ""),
            "elements of warps": ("divide_up(elements, threads)", "divide_up(elements, warps)"),
            "elements in whole blocks": ("divide_up(elements, threads)", "elements / threads"),
            "limit beyond 32 bits": ("std::int64_t{1} << 30;", "std::int64_t{1} << 32;"),
            "blocks of a warp": (
                "shape.block = dim3(threads);",
                "shape.block = dim3(warp_lanes);",
                "grids_have_what_is_asked_for",
            ),
            "no shared memory": (
                "shape.shared_bytes = static_cast<std::size_t>(shared_bytes);",
                "shape.shared_bytes = 0;",
                "grids_have_what_is_asked_for",
            ),
            "no cluster": (
                "  shape.cluster = static_cast<unsigned>(cluster);\n",
                "",
                "grids_have_what_is_asked_for",
            ),
            "error is dropped": (
                "PROTOSEG_CUDA_CHECK(launch(kernel, shape, as_stream(stream), params));",
                "static_cast<void>(launch(kernel, shape, as_stream(stream), params));",
                "grids_that_are_refused",
            ),
        },
    ),
]
