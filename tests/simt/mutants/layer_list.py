"""Bugs in units of several layers that take one launch, and in who takes it."""

from simt.mutation import mutants

SHARED = "test_layer_list.py::test_a_layer_and_units"

MUTATIONS = [
    *mutants(
        "cuda/layer_list.cuh",
        "kernels/layer_list.cpp:of_several_sizes",
        {
            "the next layer only": (
                "while (i >= p.first[layer + 1]) ++layer;",
                "if (i >= p.first[layer + 1]) ++layer;",
            ),
            "a layer has one tile more": ("i >= p.first[layer + 1]", "i > p.first[layer + 1]"),
            "tile of the list": (", i - p.first[layer], ", ", i, "),
            "parameters of the first layer": ("of = p.layer[layer];", "of = p.layer[0];"),
            "begins with the second layer": ("layer = 0;", "layer = 1;"),
            "last layer left out": ("i < p.first[p.layers];", "i < p.first[p.layers - 1];"),
            "a tile too many": ("i < p.first[p.layers];", "i <= p.first[p.layers];"),
            "blocks take one tile": (
                "i += gridDim.x)",
                "i += p.first[p.layers])",
                "fewer_blocks_than_tiles",
            ),
            "stride of threads": (
                "i += gridDim.x)",
                "i += blockDim.x)",
                "fewer_blocks_than_tiles",
            ),
            "planes lie where the first layer has them": (
                "staged_behind(sums, of)",
                "staged_behind(sums, p.layer[0])",
                "fewer_blocks_than_tiles",
            ),
            "not resized": ("sweep_tile<T, true>(", "sweep_tile<T, false>("),
        },
    ),
    *mutants(
        "cuda/layer_list.hpp",
        "kernels/layer_list.cpp:of_several_sizes",
        {
            "tiles begin at zero": (
                "params_.first[params_.layers] + p.tiles.count;",
                "p.tiles.count;",
            ),
            "shared memory of the last layer": (
                "shared_bytes_ = std::max(shared_bytes_, plan.shared_bytes);",
                "shared_bytes_ = plan.shared_bytes;",
            ),
            "a list that is full is not started": (
                "if (++params_.layers == most_listed<T>) start();",
                "++params_.layers;",
                "more_than_a_launch_holds",
            ),
            "layers that were started stay": (
                "    params_ = {};\n",
                "",
                "more_than_a_launch_holds",
            ),
            "groups are taken for units": (
                "sizes.group_channels != 1",
                "sizes.group_channels == 0",
                "who_goes_together",
            ),
            "given prototypes are not looked at": (
                " || sizes.has_prototypes()",
                "",
                "who_goes_together",
            ),
            "whatever strategy is asked for": (
                "tuning.strategy == Strategy::automatic;",
                "true;",
                "who_goes_together",
            ),
            "one layer is a list": ("layers > 1 && ", "", "who_goes_together"),
            "too few tiles": (
                "tiles >= d.multiprocessors",
                "tiles > d.multiprocessors",
                "who_goes_together",
            ),
            "one image's tiles": (
                "layers[i].images * divide_up(",
                "divide_up(",
                "who_goes_together",
            ),
            "dtypes together": (
                "return layers[i].features.dtype;",
                "return DType::float32;",
                "dtypes_go_by_themselves",
            ),
        },
    ),
    *mutants(
        "cuda/policy.hpp",
        "kernels/layer_list.cpp:who_goes_together",
        {
            "layers of the guide's size are listed": (
                "  if (!sweep.resized) return std::nullopt;\n",
                "",
            ),
            "two blocks are enough for a list": (
                "Strategy::resident, 1, 3, 1);",
                "Strategy::resident, 1, 2, 1);",
            ),
        },
    ),
    *mutants(
        "cuda/count_layers.hpp",
        "test_layer_list.py::test_counts_are_those_of_each_layer_alone",
        {
            "counts of the first layer only": (
                "i < layers_.size(); ++i) {\n      const std::int64_t count",
                "i < 1; ++i) {\n      const std::int64_t count",
            ),
            "counts of groups for units": (
                "} else if (problem.group_channels == 1) {",
                "} else if (true) {",
            ),
            "a list that is never launched": ("    list.start();\n", ""),
            "workspace of the last layer": (
                "most = std::max(most, arena.used());",
                "most = arena.used();",
            ),
            "units of the layer before are shared": (
                "i > 0 && units_follow(i - 1)",
                "i > 0 && units_follow(i)",
                f"{SHARED}_share_their_sums",
            ),
            "workspace of groups alone": (
                "roles_[i] == Role::with_units, arena);",
                "false, arena);",
                f"{SHARED}_share_their_sums",
            ),
            "units of other features are shared": (
                "layers_[i].features == layers_[i + 1].features && ",
                "",
                f"{SHARED}_of_other_features",
            ),
            "units are shared at given prototypes": (
                "units.group_channels == 1 && !given &&",
                "units.group_channels == 1 && (!given || given) &&",
                "test_layer_list.py::test_layers_and_their_units_at_given_prototypes_and_their_own",
            ),
            "nothing against the output alone": (
                "if (arrays == nullptr) continue;\n      out.tp",
                "if (arrays == nullptr) break;\n      out.tp",
                "kernels/count_layers.cpp:against_the_output_alone",
            ),
            "voxels are not written": (
                "if (arrays->voxels == nullptr) continue;",
                "continue;",
            ),
        },
    ),
    *mutants(
        "cuda/zeroed.hpp",
        "kernels/layer_list.cpp:counts_start_at_zero_wherever_they_lie",
        {
            "arrays that do not follow each other as one": (
                "if (array != end_) {",
                "if (begin_ == nullptr) {",
            ),
            "the first of two is forgotten": ("      clear();\n      begin_", "      begin_"),
            "a gap is overlooked": ("if (array == end_) end_ += count;", "end_ += count;"),
            "only arrays of zeros are taken": ("if (array == end_) end_ += count;", ""),
        },
    ),
]
