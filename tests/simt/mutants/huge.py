"""Places in 32 bits."""

from simt.mutation import mutants

UNITS = "kernels/huge.cpp:sums_and_counts_of_the_last_unit"
GUIDE = "kernels/huge_guide.cpp:first_look_at_the_last_image"

MUTATIONS = [
    *mutants(
        "cuda/load.cuh",
        UNITS,
        {
            "planes in 32 bits": (
                "return image * image_stride + channel * channel_stride;",
                "return static_cast<int>(image * image_stride + channel * channel_stride);",
            ),
        },
    ),
    *mutants(
        "cuda/count.cuh",
        UNITS,
        {
            "words in 32 bits": (
                "{references.valid + image * references.words,",
                "{references.valid + static_cast<int>(image * references.words),",
                "references_beyond_2_31_words",
            ),
        },
    ),
    *mutants(
        "cuda/boundary.cuh",
        "kernels/huge.cpp:boundary_of_the_last_unit",
        {
            "segments in 32 bits": (
                "(unit * p.segments * p.targets + target) * 2",
                "static_cast<int>((unit * p.segments * p.targets + target) * 2)",
            ),
        },
    ),
    *mutants(
        "cuda/project.cuh",
        "kernels/huge.cpp:projection_of_the_last_group",
        {
            "maps in 32 bits": (
                "const std::int64_t at = (group * p.targets + target) * voxels + task.first;",
                "const auto at = static_cast<int>((group * p.targets + target) * voxels "
                "+ task.first);",
            ),
        },
    ),
    *mutants(
        "cuda/guide_weights.cuh",
        GUIDE,
        {
            "weights in 32 bits": (
                "if (p.out) p.out[row * p.pitch + v]",
                "if (p.out) p.out[static_cast<int>(row * p.pitch + v)]",
            ),
            "axes in 32 bits": (
                "const double* in = p.in + i / p.inner / p.n_in * p.n_out * p.inner + inner;",
                "const double* in = p.in + static_cast<int>(i / p.inner / p.n_in * p.n_out * "
                "p.inner) + inner;",
                "adjoint_of_the_last_rows",
            ),
        },
    ),
    *mutants(
        "cuda/resize_map.cuh",
        "kernels/huge_guide.cpp:resized_to_the_last_plane",
        {
            "maps in 32 bits": (
                "const double* map = p.projection + (k * p.targets + target) * from;",
                "const double* map = p.projection + static_cast<int>((k * p.targets + target) * "
                "from);",
            ),
            "voxels in 32 bits": (
                "static_cast<Out*>(p.map)[(group * p.targets + target) * voxels + voxel]",
                "static_cast<Out*>(p.map)[static_cast<int>((group * p.targets + target) * voxels "
                "+ voxel)]",
            ),
        },
    ),
]
