"""`segmentation_ability_map`: targets, references, one or two passes, errors, maps."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pd = pytest.importorskip("pandas")

from torch import nn  # noqa: E402

import protoseg_fast as psf  # noqa: E402
from networks import Net, all_hooks, assert_scores_by_hand, cloned_features  # noqa: E402
from protoseg_fast import segmentation_ability_map as sam  # noqa: E402

SIZE = (16, 16)


class Classes(nn.Module):
    """Four channels at the size of the image."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.last = nn.Conv2d(6, channels, 1)

    def forward(self, x):
        return self.last(torch.relu_(self.first(x)) * 5)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(1)
    return Classes().eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def label() -> torch.Tensor:
    return torch.randint(0, 4, (2, *SIZE), generator=torch.Generator().manual_seed(3))


def equal(a: psf.SegmentationAbilityMap, b: psf.SegmentationAbilityMap) -> None:
    pd.testing.assert_frame_equal(a.to_pandas(), b.to_pandas())


# --- targets --------------------------------------------------------------------------------------


def test_softmax_scores_every_class_against_the_rest(model, image, label) -> None:
    table = sam(model, image, target=label, activation="softmax")
    assert (table.cases, table.targets) == ([0, 1], ["1", "2", "3"])
    pred = model(image).softmax(1)[:, 1:].detach()
    truth = torch.stack([label == c for c in (1, 2, 3)], dim=1)
    by_hand = psf.Guide(pred, truth)
    with psf.trace(model, guide=by_hand, targets=["1", "2", "3"]) as tracer:
        model(image)
    equal(table, tracer.result())


def test_regions_are_sums_of_classes(model, image, label) -> None:
    targets = {"whole": (1, 2, 3), "core": [2, 3], "edge": 1}
    table = sam(model, image, target=label[:, None], activation="softmax", targets=targets)
    assert table.targets == ["whole", "core", "edge"]
    probability = model(image).softmax(1).detach()
    pred = torch.stack([probability[:, list(c)].sum(1) for c in ((1, 2, 3), (2, 3), (1,))], dim=1)
    truth = torch.stack([label >= 1, label >= 2, label == 1], dim=1)
    by_hand = sam(model, image, guide=psf.Guide(pred.clamp(max=1), truth), targets=targets)
    equal(table, by_hand)


@pytest.mark.parametrize(
    ("targets", "names"),
    [(["a", "b", "c"], ["a", "b", "c"]), ([1, 3], ["1", "3"]), ({"x": 0}, ["x"])],
)
def test_names_and_classes(model, image, targets, names) -> None:
    assert sam(model, image, activation="softmax", targets=targets).targets == names


def test_sigmoid_scores_every_channel(model, image, label) -> None:
    truth = torch.stack([label == c for c in range(4)], dim=1)
    table = sam(model, image, target=truth)
    assert table.targets == ["0", "1", "2", "3"]
    pred = model(image).sigmoid().detach()
    assert_scores_by_hand(table, psf.Guide(pred, truth), cloned_features(model, image))
    assert sam(model, image, targets=list("abcd")).targets == list("abcd")
    regions = {"0": 0, "1": 1, "2": 2, "3": 3}
    equal(table, sam(model, image, target=label, targets=regions))


def test_one_channel_takes_a_plain_label_map(image, label) -> None:
    model = Classes(1).eval()
    binary = label == 2
    table = sam(model, image, target=binary)
    equal(table, sam(model, image, target=binary[:, None].float()))
    equal(table, sam(model, image, target=binary.numpy()))
    region = sam(model, image, target=label, targets={"0": 2})
    equal(table, region)
    ignored = torch.where(label == 3, 255, binary.long())
    mask = (label != 3)[:, None]
    equal(
        sam(model, image, target=ignored, ignore_label=255),
        sam(model, image, target=binary, mask=mask),
    )


def test_ignore_label_becomes_the_mask(model, image, label) -> None:
    mask = torch.rand(2, 1, *SIZE) < 0.8
    marked = torch.where(label == 3, -1, label)
    table = sam(
        model, image, target=marked, mask=mask, activation="softmax", targets=[1, 2],
        ignore_label=-1,
    )  # fmt: skip
    both = mask & (label != 3)[:, None]
    equal(table, sam(model, image, target=label, mask=both, activation="softmax", targets=[1, 2]))
    assert (table.to_pandas().voxels.unique() == both.sum((1, 2, 3)).numpy()).all()


@pytest.mark.parametrize(("dtype", "ignored"), [(torch.uint8, -1), (torch.int8, 255)])
def test_ignore_label_is_none_of_the_labels_it_wraps_around_to(model, image, dtype, ignored):
    label = torch.zeros(2, *SIZE, dtype=dtype)
    label[:, :4] = torch.tensor(ignored).to(dtype)
    table = sam(model, image, target=label, activation="softmax", ignore_label=ignored)
    assert set(table.to_pandas().voxels) == {SIZE[0] * SIZE[1]}


def test_activations(model, image) -> None:
    class Probable(Classes):
        def forward(self, x):
            return super().forward(x).sigmoid()

    probable = Probable().eval()
    probable.load_state_dict(model.state_dict())
    expected = sam(model, image)
    equal(sam(probable, image, activation=None), expected)
    equal(sam(model, image, activation=torch.sigmoid), expected)
    with pytest.raises(ValueError, match="softmax"):
        sam(model, image * 100, activation=None)


def test_output_reference_is_the_networks_own_output(model, image, label) -> None:
    table = sam(model, image, target=label, activation="softmax", targets={"t": 2})
    pred = model(image).softmax(1)[:, 2:3].detach()
    frame = table.to_pandas()
    without = sam(model, image, activation="softmax", targets={"t": 2})
    assert without.references == ["output"]
    own = frame[frame.reference == "output"]
    np.testing.assert_array_equal(own.sa, without.to_pandas().sa)
    np.testing.assert_array_equal(own.actual, (pred > 0.5).sum((1, 2, 3)).numpy()[own.case])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"targets": {"a": 4}, "activation": "softmax"}, ValueError, r"classes \[4\]"),
        ({"targets": ["a"], "activation": "softmax"}, ValueError, "must name 3 targets"),
        ({"targets": ["a"]}, ValueError, "must name 4 targets"),
        ({"targets": {"a": 1}}, ValueError, "each of the network's 4 channels"),
        ({"targets": {}}, ValueError, "empty"),
        ({"targets": "tumour"}, TypeError, "dictionary"),
        ({"targets": {"a": "b"}, "activation": "softmax"}, TypeError, "int or several"),
        ({"activation": "relu"}, ValueError, '"sigmoid"'),
        ({"target": torch.zeros(2, *SIZE)}, ValueError, r"targets=\{name: labels\}"),
        ({"target": torch.zeros(2, 4, 8, 8)}, ValueError, "got"),
        ({"target": torch.zeros(2, 4, *SIZE), "ignore_label": 3}, ValueError, "label maps"),
        ({"target": torch.full((2, *SIZE), 0.5), "activation": "softmax"}, ValueError, "whole"),
        ({"target": [1]}, TypeError, "target must be a torch tensor"),
        ({"mask": "mask"}, TypeError, "mask must be a torch tensor"),
        ({"keep": "disk"}, ValueError, "keep"),
        ({"layers": "frist"}, ValueError, "first"),
        ({"layers": "first", "groups": 4}, ValueError, "not a multiple"),
        ({"prediction": 1.5}, TypeError, "prediction"),
        ({"cases": ["one"]}, ValueError, "names 1 images"),
        ({"cases": ["one", "one"]}, ValueError, "cases must all be different"),
        ({"targets": [1, "1", 2, 3]}, ValueError, "targets must all be different"),
        (
            {"targets": {1: 1, "1": 2}, "activation": "softmax"},
            ValueError,
            "targets must all be different",
        ),
        (
            {"target": torch.zeros(2, *SIZE, dtype=torch.complex64), "activation": "softmax"},
            TypeError,
            "target must be real",
        ),
        *(
            (
                {
                    "target": torch.zeros(2, *SIZE),
                    "mask": torch.ones(shape),
                    "ignore_label": 3,
                    "activation": "softmax",
                },
                ValueError,
                "mask must have",
            )
            for shape in ((1, 1, *SIZE), SIZE, (2, 1, 1, 1), (1,))
        ),
    ],
)
def test_wrong_arguments(model, image, options, error, message: str) -> None:
    before = all_hooks(model)
    with pytest.raises(error, match=message):
        sam(model, image, **options)
    assert all_hooks(model) == before


def test_softmax_of_one_channel(image) -> None:
    with pytest.raises(ValueError, match='use "sigmoid" for one'):
        sam(Classes(1).eval(), image, activation="softmax")


# --- passes ---------------------------------------------------------------------------------------


class Counting(Classes):
    passes = 0

    def forward(self, x):
        self.passes += 1
        return super().forward(x)


def test_number_of_forward_passes(image, label) -> None:
    torch.manual_seed(0)
    model = Counting().eval()
    twice = sam(model, image, target=label, activation="softmax")
    assert model.passes == 2
    once = sam(model, image, target=label, activation="softmax", keep="memory")
    assert model.passes == 3
    equal(once, twice)
    guide = psf.Guide(torch.rand(2, 1, *SIZE))
    sam(model, image, guide=guide)
    assert model.passes == 4
    needed = 4 * 2 * (6 + 4) * 16 * 16
    for budget, passes in ((needed, 5), (needed - 1, 7), (0, 9)):
        take = {"keep": "auto", "memory_budget": budget}
        equal(sam(model, image, target=label, activation="softmax", **take), twice)
        assert model.passes == passes


def test_kept_features_are_copied_before_they_are_overwritten(image) -> None:
    torch.manual_seed(0)
    model = Net().eval()  # in-place activations, and a layer that is called twice
    take = {"prediction": lambda out: nn.functional.interpolate(out, SIZE), "layers": "all"}
    equal(sam(model, image, keep="memory", **take), sam(model, image, **take))


def test_memory_budget(model, image) -> None:
    needed = 4 * 2 * (6 + 4) * 16 * 16
    sam(model, image, keep="memory", memory_budget=needed)
    before = all_hooks(model)
    with pytest.raises(ValueError, match=r'memory_budget=.* reached at layer "last"'):
        sam(model, image, keep="memory", memory_budget=needed - 1)
    assert all_hooks(model) == before


def test_random_networks_are_refused(image) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(4, 1, 1))
    with (
        pytest.warns(UserWarning, match="training mode"),
        pytest.raises(ValueError, match="dropout"),
    ):
        sam(model, image)
    with pytest.warns(UserWarning, match="training mode"):
        sam(model, image, keep="memory")
    assert model.training
    sam(model.eval(), image)


def test_numpy_image(model, image) -> None:
    equal(sam(model, image.numpy()), sam(model, image))
    with pytest.raises(ValueError, match="spatial axes"):
        sam(model, image.numpy()[0, 0])


def test_no_gradients_are_left(model, image) -> None:
    sam(model, image)
    assert all(p.grad is None for p in model.parameters())
    with torch.inference_mode():
        equal(sam(model, image), sam(model, image.clone()))


def test_several_outputs(model, image) -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x):
            out = self.net(x)
            return {"aux": out[..., :1], "out": [out, out[..., ::2, ::2]]}

    expected = sam(model, image).to_pandas()
    for prediction in ("out", lambda out: out["out"][0]):
        found = sam(Deep().eval(), image, prediction=prediction).to_pandas()
        np.testing.assert_array_equal(found.sa, expected.sa)
    with pytest.raises(ValueError, match="prediction="):
        sam(Deep().eval(), image, prediction=lambda out: out["aux"][0])


def test_threads_that_share_a_network_wait_for_each_other(model) -> None:
    images = torch.rand(6, 2, 1, *SIZE)
    expected = [sam(model, image) for image in images]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda image: sam(model, image), images))
    for a, b in zip(found, expected, strict=True):
        equal(a, b)


@pytest.mark.parametrize("prediction", [None, 0, "out"])
def test_tables_that_draw_maps_pickle(model, image, prediction) -> None:
    table = sam(model, image, prediction=prediction)
    again = pickle.loads(pickle.dumps(table))
    equal(table, again)
    assert torch.equal(table.map("first", 1, image), again.map("first", 1, image))


# --- maps -----------------------------------------------------------------------------------------


def test_map_draws_what_was_counted(model, image, label) -> None:
    table = sam(model, image, target=label, activation="softmax", targets={"a": 1, "b": (2, 3)})
    frame = table.to_pandas()
    for unit, target in ((2, "b"), ("layer", "a")):
        drawn = table.map("first", unit, image, target=target)
        assert drawn.dtype == torch.bool
        rows = frame[(frame.layer == "first") & (frame.group == unit) & (frame.target == target)]
        rows = rows[rows.reference == "target"]
        assert drawn.shape == (2, *SIZE)
        assert drawn.sum((1, 2)).tolist() == rows.predicted.tolist()
    for layer, unit, call, message in (
        ("fist", 0, 0, "no layer"),
        ("first", 6, 0, "below 6"),
        ("first", "unit", 0, "below 6"),
        ("first", 0, 1, "no call 1"),
    ):
        with pytest.raises(ValueError, match=message):
            table.map(layer, unit, image, call=call)
    with pytest.raises(ValueError, match="no target"):
        table.map("first", 0, image, target="c")


@pytest.mark.parametrize("unit", [1.5, None, True, "unit", -1, 99])
def test_maps_of_units_that_do_not_exist(model, image, unit) -> None:
    with pytest.raises(ValueError, match='unit must be "layer" or a channel below'):
        sam(model, image).map("first", unit, image)


@pytest.mark.parametrize("window", [None, 16])
def test_map_with_a_mask_draws_what_was_counted(model, image, window: int | None) -> None:
    mask = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(3)) > 0.4
    mask[..., :5, :] = False
    table = sam(model, image, mask=mask, window=window)
    rows = table.to_pandas()
    for unit in (2, "layer"):
        counted = rows[(rows.layer == "first") & (rows.group == unit)]
        counted = counted[counted.target == table.targets[0]]
        drawn = table.map("first", unit, image, mask=mask)
        assert (drawn & mask[:, 0]).sum((1, 2)).tolist() == counted.predicted.tolist()
        without = table.map("first", unit, image)
        assert (without != drawn).any()


def test_map_of_the_image(model, image) -> None:
    table = sam(model, image, layers=["input", "convs"])
    assert table.layers[0] == "input"
    drawn = table.map("input", 0, image, target="1")
    frame = table.to_pandas()
    rows = frame[(frame.layer == "input") & (frame.group == 0) & (frame.target == "1")]
    assert drawn.sum((1, 2)).tolist() == rows.predicted.tolist()
