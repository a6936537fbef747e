"""Bugs on the host's side: in the drivers, the policy, and what a guide prepares."""

from simt.mutation import mutants

MUTATIONS = [
    *mutants(
        "cuda/unit_sweep.hpp",
        "kernels/sweeps.cpp:prototypes",
        {
            "workspace of one tile too few": (
                "tiles * plan.units, sizes.units())",
                "tiles, sizes.units())",
                "units_of_several_segments",
            ),
            "chunks begin at the first unit": (
                "problem.partial_sums(chunk.sums, first_unit);",
                "problem.partial_sums(chunk.sums, 0);",
            ),
            "last chunk is whole": (
                "const std::int64_t tiles = std::min(chunk.tiles, all - first);",
                "const std::int64_t tiles = chunk.tiles;",
            ),
            "weights not unscaled": (
                "p.scale = problem.kept.scale;",
                "p.scale = problem.kept.weights.total;",
            ),
            "counts of all units at once": (
                "p.units = first_unit_of(next) - first_unit_of(tiles);",
                "p.units = problem.units();",
                "units_of_several_segments",
            ),
            "thresholds of resized planes in float": (
                "!std::is_same_v<SumOf<T>, double> && !problem.resized;",
                "!std::is_same_v<SumOf<T>, double> && problem.resized;",
                "thresholds_between_floats",
            ),
            "a part left out": (
                "p.parts = divide_up(p.cells.tiles(), p.part_tiles);",
                "p.parts = p.cells.tiles() / p.part_tiles;",
                "resized_units",
            ),
            "sums of warps for any chunk": (
                "first_tile == 0 &&\n      tiles == tiles_of(problem.template sweep<T>(), plan)",
                "first_tile == 0",
                "small_units",
            ),
            "cluster of one": (
                "p, plan.shared_bytes, plan.cluster);",
                "p, plan.shared_bytes, 1);",
                "units_of_several_segments",
            ),
            "shared memory without sums": (
                "p, plan.shared_bytes, plan.cluster);",
                "p, staged_bytes_of(plan, sizeof(T)), plan.cluster);",
                "units_of_several_segments",
            ),
            "channels-last as rows": (
                "run(turned ? turned_counts_kernel<T> : unit_counts_kernel<T>",
                "run(turned ? unit_counts_kernel<T> : unit_counts_kernel<T>",
                "units_channels_last",
            ),
        },
    ),
    *mutants(
        "cuda/group_sweep.hpp",
        "kernels/sweeps.cpp:groups",
        {
            "boundaries of all groups": (
                "(range.first - range.origin) * problem.targets;\n  ProjectParams",
                "range.first * problem.targets;\n  ProjectParams",
            ),
            "units on the way are not counted": (
                "    if (beside)\n      beside->count(problem, tiles, *units);\n    else if",
                "    if",
                "units_beside_groups",
            ),
            "units on the way need no thresholds": (
                "arena.take<UnitThreshold<double>>(chunk.images * sizes.channels *",
                "arena.take<UnitThreshold<double>>(sizes.channels *",
                "units_beside_groups",
            ),
            "sums for units only": (
                "count_tiles_at_once(problem, plan, tiles, of_chunk.sums, out);",
                "count_tiles_at_once(problem, plan, tiles, nullptr, out);",
                "units_beside_groups",
            ),
            "chunk of the first image": (
                "const GroupRange range = {image * problem.groups, image * problem.groups,",
                "const GroupRange range = {0, 0,",
            ),
            "sums of the first images": (
                "plan.units, image * image_tiles,",
                "plan.units, 0,",
            ),
            "pieces without the last": (
                "p.pieces = divide_up(problem.voxels, project_voxels<T>);",
                "p.pieces = problem.voxels / project_voxels<T>;",
            ),
            "last chunk is whole": (
                "std::min(chunk.images, problem.images - image)",
                "chunk.images",
                "resized_groups_in_uneven_chunks",
            ),
            "maps of the first group": (
                "p.map_offset = range.first * p.values.channel_stride;",
                "p.map_offset = 0;",
                "resized_groups",
            ),
            "maps of one target": (
                "p.values.channel_stride = problem.targets * problem.voxels;",
                "p.values.channel_stride = problem.voxels;",
                "resized_groups",
            ),
            "voxels of the features": (
                "p.voxels = p.cells.to.voxels();",
                "p.voxels = problem.voxels;",
                "resized_groups",
            ),
            "part at the chunk's beginning": (
                "{range.origin, range.first + done,",
                "{range.origin, range.first,",
                "resized_groups_in_parts",
            ),
            "last part is whole": (
                "std::min(chunk.map_groups, range.count - done)",
                "chunk.map_groups",
                "resized_groups_in_parts",
            ),
            "thresholds of the first part": (
                "p.threshold = chunk.threshold + (range.first - range.origin) * problem.targets;",
                "p.threshold = chunk.threshold;",
                "resized_groups_in_parts",
            ),
            "boundaries of the first part": (
                "p.boundary = chunk.boundary + (range.first - range.origin) * problem.targets;",
                "p.boundary = chunk.boundary;",
                "resized_groups_in_parts",
            ),
            "normals of the first part": (
                "p.weight = chunk.weight + at * problem.group_channels;",
                "p.weight = chunk.weight;",
                "resized_groups_in_parts",
            ),
            "maps of the chunk's beginning": (
                "p.map_offset = range.first * p.values.channel_stride;",
                "p.map_offset = range.origin * p.values.channel_stride;",
                "resized_groups_in_parts",
            ),
            "no room for channels-last": (
                "rows ? 0 : turned_bytes<T>);",
                "0);",
            ),
        },
    ),
    *mutants(
        "cuda/guide_sizes.cu",
        "kernels/sweeps.cpp:prototypes",
        {
            "planes of the adjoint overlap": (
                "after_x + at_once * rows;",
                "after_x + rows / 2;",
            ),
            "axes swapped": (
                "adjoint_axis(cells.y, planes * 2 * to.z, {from.y, to.y}, from.x",
                "adjoint_axis(cells.y, planes * 2 * to.z, {to.y, from.y}, from.x",
            ),
            "adjoint of the first planes": ("p.first_plane = first;", "p.first_plane = 1;"),
            "largest not cleared": (
                "static_cast<std::size_t>(rows) * 8, as_stream(stream)));\n  LargestParams",
                "0, as_stream(stream)));\n  LargestParams",
            ),
            "weights of all images alike": (
                "w.image_stride = guide_.targets * w.target_stride;",
                "w.image_stride = w.target_stride;",
            ),
            "rows not padded": (
                "pitch_(round_up(voxels_, weight_alignment))",
                "pitch_(voxels_)",
            ),
            "masked pred serves as weights": (
                "return !guide.has_mask && !guide.binarize",
                "return !guide.binarize",
                "prototypes_of_whole_steps",
            ),
            "taps of y and x swapped": (
                "fill_taps(cells.y, {cells.from.y, cells.to.y}, resize, stream);",
                "fill_taps(cells.y, {cells.from.x, cells.to.x}, resize, stream);",
            ),
            "bits of the target": (
                "guide.references.actual[which], guide.planes()",
                "guide.references.valid, guide.planes()",
                "resized_units",
            ),
            "words of the features": (
                "cells.words = divide_up(cells.to.x, 32);",
                "cells.words = divide_up(cells.from.x, 32);",
                "resized_units",
            ),
        },
    ),
    *mutants(
        "cuda/policy.hpp",
        "kernels/policy.cpp:every_plan_is_possible",
        {
            "shared memory without the static part": (
                "return shared_bytes + static_bytes <= device.block_bytes;",
                "return true;",
                "what_is_asked_for",
            ),
            "clusters anywhere": (
                "device.clusters && !sweep.resized ? 8 : 1",
                "!sweep.resized ? 8 : 1",
                "before_hopper",
            ),
            "clusters of resized planes": (
                "device.clusters && !sweep.resized ? 8 : 1",
                "device.clusters ? 8 : 1",
            ),
            "segments lost": (
                "(segments_of(sweep) + cluster - 1) / cluster;",
                "segments_of(sweep) / cluster;",
            ),
            "resized planes in registers": (
                "if (!sweep.resized && sweep.voxels <= small_voxels)",
                "if (sweep.voxels <= small_voxels)",
            ),
            "chunks of no unit": (
                "std::max<std::int64_t>(plan.units, device.cache_bytes / 2 / (sweep.voxels * sweep.item));",  # noqa: E501
                "device.cache_bytes / 2 / (sweep.voxels * sweep.item);",
            ),
            "sectors of half": (
                "static_cast<int>(32 / sweep.item)",
                "static_cast<int>(16 / sweep.item)",
                "channels_last_by_sectors",
            ),
            "chunks of the whole cache": (
                "std::max<std::int64_t>(plan.units, device.cache_bytes / 2 /",
                "std::max<std::int64_t>(plan.units, device.cache_bytes /",
                "what_is_asked_for",
            ),
            "idle multiprocessors": (
                "    if (units > 1 && tiles_of(sweep, plan) * parts < device.multiprocessors) continue;\n",  # noqa: E501
                "",
                "resized",
            ),
        },
    ),
    *mutants(
        "cuda/unit_sweep.hpp",
        "kernels/sweeps.cpp:units_at_given_prototypes",
        {
            "given, units summed": (
                "if (!problem.has_prototypes()) launch_sums(problem, plan, tiles.first,",
                "launch_sums(problem, plan, tiles.first,",
            ),
            "given, in chunks of units": (
                "sizes.has_prototypes() ? all : std::min(all,",
                "std::min(all,",
            ),
            "given, by the strategy asked for": (
                "if (sizes.has_prototypes() && tuning.strategy",
                "if (false && tuning.strategy",
            ),
        },
    ),
    *mutants(
        "cuda/group_sweep.hpp",
        "kernels/sweeps.cpp:groups_at_given_prototypes",
        {
            "given, groups summed": (
                "if (!problem.has_prototypes())\n      launch_sums",
                "launch_sums",
            ),
            "given, image by image": (
                "  if (sizes.has_prototypes()) chunk.images = sizes.images;\n",
                "",
            ),
            "given, no room for sums": (
                "sizes.has_prototypes() ? 0 : chunk.images * sizes.channels;",
                "0;",
                "groups",
            ),
        },
    ),
    *mutants(
        "cuda/problem.hpp",
        "kernels/sweeps.cpp:groups_at_given_prototypes",
        {
            "given, sides handed on swapped": (
                "given.positive,     given.negative}",
                "given.negative, given.positive}",
            ),
            "given, not handed on": ("given.positive,     given.negative}", "nullptr, nullptr}"),
            "given, segments nevertheless": ("has_prototypes() ? 0 : this", "this"),
        },
    ),
]
