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
        "grid and block swapped": (
            "{shape.grid, shape.block, shape.cluster",
            "{shape.block, shape.grid, shape.cluster",
            "test_runtime.py::test_sound_kernel_runs[grids-blocks_write_their_places]",
        ),
    },
)
