"""Bugs in the one way to start a kernel."""

from simt.mutation import mutants

MUTATIONS = mutants(
    "cuda/launch.cuh",
    "micro/limits.cpp:largest_shapes",
    {
        "large shared memory is not asked for": (
            "if (shape.shared_bytes > default_shared_bytes)",
            "if (shape.shared_bytes > 1000 * default_shared_bytes)",
        ),
        "error is dropped": (
            "if (error != cudaSuccess) return error;",
            "",
            "shared_refused_as_an_error",
        ),
        "error is success": (
            "if (error != cudaSuccess) return error;",
            "if (error != cudaSuccess) return cudaSuccess;",
            "shared_refused_as_an_error",
        ),
        "more shared memory by default": (
            "default_shared_bytes = 48 << 10;",
            "default_shared_bytes = 64 << 10;",
            "shared_just_beyond_the_default",
        ),
        "asked for one byte late": (
            "if (shape.shared_bytes > default_shared_bytes)",
            "if (shape.shared_bytes > default_shared_bytes + 1)",
            "shared_just_beyond_the_default",
        ),
        "half of it asked for": (
            "static_cast<int>(shape.shared_bytes));",
            "static_cast<int>(shape.shared_bytes / 2));",
        ),
        "no cluster": (
            "shape.cluster, shape.shared_bytes}, stream",
            "1, shape.shared_bytes}, stream",
            "micro/clusters.cpp:cluster_adds_up",
        ),
        "no shared memory": (
            "shape.cluster, shape.shared_bytes}, stream",
            "shape.cluster, 0}, stream",
            "kernels/sums.cpp:odd_rows_of_floats",
        ),
        "grid and block swapped": (
            "{shape.grid, shape.block, shape.cluster",
            "{shape.block, shape.grid, shape.cluster",
            "test_runtime.py::test_sound_kernel_runs[grids-blocks_write_their_places]",
        ),
    },
)
