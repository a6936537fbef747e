"""Bugs on the way from sums to prototypes, boundaries and thresholds."""

from simt.mutation import mutants, within

STRIDE = "static_cast<std::int64_t>(gridDim.x) * threads"
LOOP = (
    f"       i < p.units * targets; i += {STRIDE}) {{\n"
    "    const std::int64_t unit = p.sums.first_unit + i / targets, target = i % targets;\n"
    "    const std::int64_t image = unit / p.sums.channels"
)
UNITS, PROTOTYPES = f"{LOOP};", f"{LOOP}, channel"

MUTATIONS = [
    *mutants(
        "cuda/boundary.cuh",
        "kernels/boundary.cpp:of_groups",
        {
            "prototypes swapped": (
                "sum[0] / total[0], sum[1] / total[1]",
                "sum[1] / total[1], sum[0] / total[0]",
            ),
            "last segment lost": (
                "segment < p.segments; ++segment, at",
                "segment < p.segments - 1; ++segment, at",
            ),
            "segments of the first target": (
                "(unit * p.segments * p.targets + target) * 2",
                "unit * p.segments * p.targets * 2",
            ),
            "stride of one target": ("at += 2 * p.targets", "at += 2"),
            "total of the first target": (
                "p.total + (image * p.targets + target) * 2",
                "p.total + image * p.targets * 2",
            ),
            "chunk starts at the first unit": (
                "image * p.channels + channel - p.first_unit",
                "image * p.channels + channel",
            ),
            "undefined is forgotten": ("part[3] == 0.0", "true"),
            "squares swapped": (
                "sums.positive_square = part[1];\n  sums.negative_square = part[2];",
                "sums.positive_square = part[2];\n  sums.negative_square = part[1];",
                "of_groups_of_cosine",
            ),
            "channels beyond the block": (
                "c = threadIdx.x; c < channels; c += threads) {\n      prototypes",
                "c = threadIdx.x; c < threads && c < channels; c += threads) {\n      prototypes",
                "of_wide_groups",
            ),
            "one channel as a group": ("if (channels == 1)", "if (false)", "of_groups_of_one"),
            "actual of the wrong target": (
                "actual_count[which][image * targets + target]",
                "actual_count[which][image * targets]",
                "kernels/units.cpp:in_one_block",
            ),
            "threshold not made exact": ("if (!in_float) return", "if (true) return", "of_units"),
            "unit of the chunk": (
                "p.sums.first_unit + i / targets, target = i % targets;\n    const std::int64_t image = unit / p.sums.channels;",  # noqa: E501
                "i / targets, target = i % targets;\n    const std::int64_t image = unit / p.sums.channels;",  # noqa: E501
                "of_units",
            ),
            "scale forgotten": (
                "p.sums.total[2 * plane + 1] / p.scale[2 * plane + 1]",
                "p.sums.total[2 * plane + 1]",
                "prototypes",
            ),
            "means without reference": (
                "found.reference + found.negative",
                "found.negative",
                "prototypes",
            ),
        },
    ),
    *mutants(
        "cuda/boundary.cuh",
        "kernels/boundary.cpp:of_units",
        {
            "units, blocks step on each other": within(UNITS, STRIDE, "threads"),
            "units, what the grid has once": within(UNITS, STRIDE, "p.units * targets"),
            "units, one too many": within(UNITS, "i < p.units", "i <= p.units"),
            "units, the last left out": within(UNITS, "i < p.units", "i + 1 < p.units"),
            "units, the first target": within(UNITS, "target = i % targets", "target = 0"),
            "units, image of the chunk": within(
                UNITS, "image = unit / p", "image = (unit - p.sums.first_unit) / p"
            ),
            "units, channel is the unit": (
                "prototypes_of(p.sums, image, unit - image * p.sums.channels, target)",
                "prototypes_of(p.sums, image, unit, target)",
            ),
            "units, known at the chunk's place": (
                "write_known(p.out, p.references, unit * targets + target, image,",
                "write_known(p.out, p.references, i, image,",
            ),
            "units, known of the first image": (
                "write_known(p.out, p.references, unit * targets + target, image,",
                "write_known(p.out, p.references, unit * targets + target, 0,",
            ),
            "units, thresholds of one target": (
                "    p.threshold[i] =\n",
                "    p.threshold[i / targets] =\n",
            ),
            "units, doubles compared as floats": (
                "p.temperature, p.exact_in_float, &boundary",
                "p.temperature, true, &boundary",
                "of_units_for_doubles",
            ),
        },
    ),
    *mutants(
        "cuda/boundary.cuh",
        "kernels/boundary.cpp:of_groups",
        {
            "groups, blocks do the same": (
                "i < p.groups_total * targets; i += gridDim.x",
                "i < p.groups_total * targets; ++i",
            ),
            "groups, targets left out": (
                "i < p.groups_total * targets; i += gridDim.x",
                "i < p.groups_total; i += gridDim.x",
            ),
            "groups, one scratch for all": ("p.prototypes + i * channels", "p.prototypes"),
            "groups, normals of the first": ("p.weight + i * channels + c", "p.weight + c"),
            "groups, channels of the first": (
                "first = group % p.groups * channels",
                "first = 0",
            ),
            "groups, written by every thread": ("    if (threadIdx.x != 0) continue;\n", ""),
            "groups, return before the sums": (
                "    const GroupSums sums = block_sum(mine);\n",
                "    if (threadIdx.x >= channels) return;\n"
                "    const GroupSums sums = block_sum(mine);\n",
            ),
            "groups, normal of another channel": (
                "channel_weight(sums, prototypes[c], p.metric)",
                "channel_weight(sums, prototypes[channels - 1 - c], p.metric)",
            ),
        },
    ),
    *mutants(
        "cuda/boundary.cuh",
        "kernels/boundary.cpp:prototypes",
        {
            "prototypes, blocks step on each other": within(PROTOTYPES, STRIDE, "threads"),
            "prototypes, what the grid has once": within(PROTOTYPES, STRIDE, "p.units * targets"),
            "prototypes, one too many": within(PROTOTYPES, "i < p.units", "i <= p.units"),
            "prototypes, unit of the chunk": within(PROTOTYPES, "p.sums.first_unit + ", ""),
            "prototypes, plane of the target": (
                "plane = image * targets + target, at",
                "plane = target, at",
            ),
            "prototypes, channels of the first plane": (
                "at = plane * p.sums.channels + channel;",
                "at = channel;",
            ),
            "prototypes, weights by every channel": ("    if (channel != 0) continue;\n", ""),
            "prototypes, scale of another plane": (
                "p.sums.total[2 * plane] / p.scale[2 * plane]",
                "p.sums.total[2 * plane] / p.scale[plane]",
            ),
        },
    ),
    *mutants(
        "cuda/boundary.cuh",
        "kernels/boundary.cpp:given_of_groups",
        {
            "given, averages nevertheless": ("if (p.positive != nullptr) {", "if (false) {"),
            "given, sides swapped": (
                "p.positive[at], p.negative[at]",
                "p.negative[at], p.positive[at]",
            ),
            "given, the first image": ("plane = image * p.targets + target", "plane = target"),
            "given, the first target": (
                "plane = image * p.targets + target",
                "plane = image * p.targets",
            ),
            "given, targets before images": (
                "at = plane * p.channels + channel",
                "at = (target * 3 + image) * p.channels + channel",
            ),
            "given, channels of the first plane": (
                "at = plane * p.channels + channel",
                "at = channel",
            ),
            "given, place in the chunk": (
                "at = plane * p.channels + channel",
                "at = plane * p.channels + channel - p.first_unit",
            ),
            "given, relative to the first voxel": (
                "found = {0.0 * p.total[2 * plane], p.positive[at]",
                "found = {p.features.value(image, channel, 0), p.positive[at]",
            ),
            "given, invalid guides pass": (
                "found = {0.0 * p.total[2 * plane], p.positive[at]",
                "found = {0.0, p.positive[at]",
            ),
            "given, totals of another plane": (
                "found = {0.0 * p.total[2 * plane], p.positive[at]",
                "found = {0.0 * p.total[plane], p.positive[at]",
                "given_of_units",
            ),
        },
    ),
]
