"""Bugs in units that are summed, decided and counted in one launch."""

from simt.mutation import mutants

MUTATIONS = [
    *mutants(
        "cuda/units.cuh",
        "kernels/units.cpp:in_a_large_cluster",
        {
            "cluster barrier before deciding removed": (
                "clear_counts(counts);\n    cluster_sync();",
                "clear_counts(counts);\n    __syncthreads();",
            ),
            "cluster barrier at the end removed": (
                "    cluster_sync();  // nobody reads this block's sums any more\n",
                "",
            ),
            "barrier after deciding removed": (
                "threshold);\n    __syncthreads();\n    if constexpr",
                "threshold);\n    if constexpr",
            ),
            "sums of this block only": (
                "cluster_map_shared(sums_, static_cast<unsigned>(rank))",
                "sums_",
            ),
            "every block has all segments": (
                "static_cast<int>(cluster_block_rank()) * p.block_segments",
                "0",
            ),
            "bits of the first segment": (".from(segment * segment_size)", ""),
            "known written by all": ("if (cluster_block_rank() == 0)", ""),
            "counts not cleared": (
                "clear_counts(counts);\n    cluster_sync();",
                "cluster_sync();",
            ),
            "threshold of the first target": (
                "threshold[t * most_units + u],\n                        bits",
                "threshold[u],\n                        bits",
            ),
            "tile of the block": ("blockIdx.x / cluster_blocks(); i <", "blockIdx.x; i <"),
            "not staged again": (
                "    stage_voxels(segment * segment_size, voxels_of(segment));\n",
                "",
                "streamed",
            ),
            "barrier after staging all removed": (
                "last - first);\n    __syncthreads();",
                "last - first);",
                "in_one_block",
            ),
            "weights of the first segment": (
                "weights.from(first), reference",
                "weights, reference",
            ),
            "barrier before the results removed": (
                "threshold, counts);\n    __syncthreads();\n    flush_counts",
                "threshold, counts);\n    flush_counts",
                "in_one_block",
            ),
            "sums of all units kept in one place": (
                "(unit() + u - p_.first_unit) * p_.segments + segment;",
                "(unit() - p_.first_unit) * p_.segments + segment;",
                "kernels/sweeps.cpp:units_beside_groups",
            ),
            "sums kept as if of all units": (
                "(unit() + u - p_.first_unit) * p_.segments + segment;",
                "(unit() + u) * p_.segments + segment;",
                "kernels/sweeps.cpp:units_beside_groups",
            ),
            "sums of the first segment kept": (
                "sums_ + (segment - first_segment_) * target_tile * (2 * most_units);",
                "sums_;",
                "kernels/sweeps.cpp:units_beside_groups",
            ),
            "sums kept by one block": (
                "if (p_.sums == nullptr || u >= tile_.units) return;",
                "if (p_.sums == nullptr || u >= tile_.units || first_segment_ > 0) return;",
                "kernels/sweeps.cpp:units_beside_groups",
            ),
            "sums of the first target kept": (
                "of[t * (2 * most_units) + threadIdx.x]",
                "of[threadIdx.x]",
                "kernels/sweeps.cpp:units_beside_groups",
            ),
            "sums kept before they are added up": (
                "add_up(target, here, reference, partial);\n    block.keep_sums(target, here);",
                "keep_sums(target, here);\n    block.add_up(target, here, reference, partial);",
                "kernels/sweeps.cpp:units_beside_groups",
            ),
            "resized against the first threshold": (
                "threshold[t * most_units + u],\n                    cell_bits",
                "threshold[u],\n                    cell_bits",
                "kernels/resized.cpp:resident_planes",
            ),
            "resized, the first plane": (
                "staged_ + u * p_.pitch, p_.features.extent",
                "staged_, p_.features.extent",
                "kernels/resized.cpp:resident_planes",
            ),
        },
    ),
    *mutants(
        "cuda/shape.cuh",
        "kernels/boundary.cpp:of_wide_groups",
        {
            "block sums: first barrier removed": (
                "  __syncthreads();  // nobody reads earlier sums any more\n",
                "",
                "kernels/boundary.cpp:of_groups",
            ),
            "block sums: second barrier removed": (
                "+ k] = value[k];\n  }\n  __syncthreads();",
                "+ k] = value[k];\n  }",
            ),
            "block sums: wrong stride": (
                "sum_of_warps(partial + k, count)",
                "sum_of_warps(partial + k, 1)",
            ),
        },
    ),
]
