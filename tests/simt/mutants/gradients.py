"""Bugs in the backward kernels."""

from simt.mutation import mutants

EDGES = "kernels/gradients_edges.cpp"

MUTATIONS = [
    *mutants(
        "cuda/gradient_maps.cuh",
        "kernels/gradients.cpp:groups_and_targets",
        {
            "odd target's zeros left out": (
                "targets == 1 ? 1 : round_up(targets, 2)",
                "targets == 1 ? 1 : targets",
            ),
            "map of the target before": (
                "(group * rows + target) * p.pitch + v] = along",
                "(group * rows) * p.pitch + v] = along",
            ),
            "padding not cleared": (
                "v < p.voxels && target < p.targets",
                "target < p.targets",
            ),
            "norm of another group": (
                "square[group * voxels + voxel]",
                "square[voxel]",
                "a_layer_of_cosine",
            ),
            "shrink of the last target alone": (
                "(target > 0 ? *shrink : Sum(0)) + ",
                "",
                "a_layer_of_cosine",
            ),
            "rows of the first group": (
                "p.upstream.at(p.first_group + group, target, line",
                "p.upstream.at(group, target, line",
                "resized_of_any_strides",
            ),
        },
    ),
    *mutants(
        "cuda/gradient_groups.cuh",
        "kernels/gradients.cpp:groups_and_targets",
        {
            "sums of the target before": ("* 2 + target % 2;", "* 2;"),
            "sums of the pair before": (
                "(unit * p.segments * pairs + target / 2) * 2",
                "(unit * p.segments * pairs) * 2",
            ),
            "first segment alone": (
                "segment < p.segments; ++segment, own",
                "segment < 1; ++segment, own",
                "several_segments",
            ),
            "prototypes of the first target": (
                "(image * p.targets + target) * channels + channel + c",
                "image * p.targets * channels + channel + c",
            ),
            "scale left out": (
                "gradient.negative / weight_total[1]",
                "gradient.negative",
            ),
            "constant of one side": ("constant[1] += mean[1];", "constant[1] += mean[0];"),
            "nothing is left out": (
                "(!undefined || group.any())",
                "true",
                f"{EDGES}:an_undefined_group",
            ),
            "undefined is zero": (
                "ChannelGradient{nan, nan, nan}",
                "ChannelGradient{0.0, 0.0, 0.0}",
                f"{EDGES}:an_undefined_group",
            ),
            "sums before all threads have them": (
                "  __device__ bool any() const {",
                "  __device__ bool any() const {\n    if (threadIdx.x > 64) return false;",
                f"{EDGES}:an_undefined_group",
            ),
        },
    ),
    *mutants(
        "cuda/gradient_sweep.cuh",
        "kernels/gradients.cpp:groups_and_targets",
        {
            "projection starts again": (
                "p.first_group > 0 && row + r < rows()",
                "false",
                "in_chunks",
            ),
            "targets after the first lost": (
                "for (std::int64_t target = 1; target < p_.targets; ++target)",
                "for (std::int64_t target = 1; target < 1; ++target)",
            ),
            "rows after the second lost": (
                "while (row < p.targets * p.sides)",
                "while (row < 0)",
            ),
            "written once for each pair of rows": (
                "p.out.data != nullptr && row == 0",
                "p.out.data != nullptr",
                f"{EDGES}:one_write_for_many_rows",
            ),
            "inactive target projects": (
                "if (p_.active[group * p_.targets + target] == 0) continue;",
                "",
                f"{EDGES}:an_undefined_group",
            ),
            "no barrier before the write": (
                "      __syncthreads();\n      unstage_elements",
                "      unstage_elements",
                "channels_last",
            ),
            "no barrier before the next channels": (
                "      __syncthreads();  // nobody reads the channels before any more\n",
                "",
                "channels_last",
            ),
            "channels of the wrong place": (
                "out.plane(image, channel + u) + out.offset(first + v)",
                "out.plane(image, channel) + out.offset(first + v)",
                "channels_last",
            ),
            "read although nothing needs it": (
                "p.sides > 0 || p.maps.shrink != nullptr;",
                "true;",
                f"{EDGES}:one_read_for_the_features_alone",
            ),
        },
    ),
    *mutants(
        "cuda/gradient_resized.cuh",
        "kernels/gradients.cpp:upsampled",
        {
            "weights of the other tap": (
                "shrink * wz[1 - z] * wy[1 - y] * wx[1 - x]",
                "shrink * wz[z] * wy[1 - y] * wx[1 - x]",
            ),
            "a corner is forgotten": ("    add_all<0, 1, 0>(at, shrink);\n", ""),
            "neighbour of the wrong row": (
                "(y - 1) * tensor.y_stride",
                "(y - 1) * tensor.x_stride",
            ),
            "beyond the edge": (
                "at[2] + x < 1 || at[2] + x > n[2]",
                "false",
                f"{EDGES}:what_comes_down_is_no_number",
            ),
            "targets after the first lost": (
                "for (std::int64_t target = 1; target < p.targets; ++target)",
                "for (std::int64_t target = 1; target < 1; ++target)",
            ),
            "shrink of the first group": (
                "p.maps.shrink + group * p.maps.shrink_pitch",
                "p.maps.shrink",
                "resized_groups_at_once",
            ),
        },
    ),
    *mutants(
        "cuda/gradient_guide.cuh",
        "kernels/gradients.cpp:groups_and_targets",
        {
            "constants of one group": ("group < p.groups; ++group", "group < 1; ++group"),
            "prototypes not taken off": (
                "value - p.constant[plane * p.sides + side]",
                "value",
            ),
            "mask left out": (
                "pred_gradient(mask, q.value[0] - q.value[1])",
                "pred_gradient(1.0, q.value[0] - q.value[1])",
            ),
            "binarized pred has a gradient": (
                "guide.binarized ? 0.0 : pred",
                "pred",
                "without_a_mask",
            ),
            "last target's mask alone": ("of_mask += mask_gradient", "of_mask = mask_gradient"),
        },
    ),
    *mutants(
        "cuda/tape.cuh",
        "kernels/gradients.cpp:groups_and_targets",
        {"channel of the first group": ("(group - image * p.groups) * p.group_channels +", "")},
    ),
]
