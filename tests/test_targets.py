"""`segmentation_ability_map`: targets, label maps, references, wrong arguments."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pandas")

from torch import nn  # noqa: E402

import protoseg_fast as psf  # noqa: E402
from networks import (  # noqa: E402
    Classes,
    all_hooks,
    assert_same_table,
    assert_scores_by_hand,
    cloned_features,
)
from protoseg_fast import segmentation_ability_map as sam  # noqa: E402

SIZE = (16, 16)


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


def test_softmax_scores_every_class_against_the_rest(model, image, label) -> None:
    table = sam(model, image, target=label, activation="softmax")
    assert (table.cases, table.targets) == ([0, 1], ["1", "2", "3"])
    pred = model(image).softmax(1)[:, 1:].detach()
    truth = torch.stack([label == c for c in (1, 2, 3)], dim=1)
    by_hand = psf.Guide(pred, truth)
    with psf.trace(model, guide=by_hand, targets=["1", "2", "3"]) as tracer:
        model(image)
    assert_same_table(table, tracer.result())


def test_regions_are_sums_of_classes(model, image, label) -> None:
    targets = {"whole": (1, 2, 3), "core": [2, 3], "edge": 1}
    table = sam(model, image, target=label[:, None], activation="softmax", targets=targets)
    assert table.targets == ["whole", "core", "edge"]
    probability = model(image).softmax(1).detach()
    pred = torch.stack([probability[:, list(c)].sum(1) for c in ((1, 2, 3), (2, 3), (1,))], dim=1)
    truth = torch.stack([label >= 1, label >= 2, label == 1], dim=1)
    by_hand = sam(model, image, guide=psf.Guide(pred.clamp(max=1), truth), targets=targets)
    assert_same_table(table, by_hand)


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
    assert_same_table(table, sam(model, image, target=label, targets=regions))


def test_one_channel_takes_a_plain_label_map(image, label) -> None:
    model = Classes(1).eval()
    binary = label == 2
    table = sam(model, image, target=binary)
    assert_same_table(table, sam(model, image, target=binary[:, None].float()))
    assert_same_table(table, sam(model, image, target=binary.numpy()))
    region = sam(model, image, target=label, targets={"0": 2})
    assert_same_table(table, region)
    ignored = torch.where(label == 3, 255, binary.long())
    mask = (label != 3)[:, None]
    assert_same_table(
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
    assert_same_table(
        table, sam(model, image, target=label, mask=both, activation="softmax", targets=[1, 2])
    )
    assert (table.to_pandas().voxels.unique() == both.sum((1, 2, 3)).numpy()).all()


@pytest.mark.parametrize(("dtype", "ignored"), [(torch.uint8, -1), (torch.int8, 255)])
def test_ignore_label_is_none_of_the_labels_it_wraps_around_to(model, image, dtype, ignored):
    label = torch.zeros(2, *SIZE, dtype=dtype)
    label[:, :4] = torch.tensor(ignored).to(dtype)
    regions = {"a": 0, "b": 1, "c": 2, "d": 3}
    table = sam(model, image, target=label, targets=regions, ignore_label=ignored)
    assert set(table.to_pandas().voxels) == {SIZE[0] * SIZE[1]}
    with pytest.raises(ValueError, match=rf"target holds {label[0, 0, 0]}, but"):
        sam(model, image, target=label, activation="softmax", ignore_label=ignored)


def test_labels_are_classes_with_softmax(model, image, label) -> None:
    for wrong in (-1, 4, 255):
        marked = torch.where(label == 2, wrong, label)
        options = {"target": marked, "activation": "softmax", "targets": {"a": 1}}
        with pytest.raises(ValueError, match=rf"target holds {wrong}, but .* 0 to 3"):
            sam(model, image, **options)
        ignored = sam(model, image, ignore_label=wrong, **options)
        assert set(ignored.to_pandas().voxels) == set((label != 2).sum((1, 2)).tolist())
        masked = sam(model, image, mask=(label != 2)[:, None], **options)
        assert_same_table(masked, ignored)


def test_a_region_is_a_set_of_labels(model, image, label) -> None:
    options = {"target": label, "activation": "softmax"}
    assert_same_table(
        sam(model, image, targets={"a": (1, 3, 1)}, **options),
        sam(model, image, targets={"a": (1, 3)}, **options),
    )


def test_numpy_arrays_of_any_memory(model, image, label) -> None:
    expected = sam(model, image, target=label.flip(1), activation="softmax")
    flipped = label.numpy()[:, ::-1]
    swapped = flipped.astype(flipped.dtype.newbyteorder())
    frozen = flipped.copy()
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for target in (flipped, swapped, frozen, flipped.astype(np.uint16)):
            assert_same_table(sam(model, image, target=target, activation="softmax"), expected)


def test_activations(model, image) -> None:
    class Probable(Classes):
        def forward(self, x):
            return super().forward(x).sigmoid()

    probable = Probable().eval()
    probable.load_state_dict(model.state_dict())
    expected = sam(model, image)
    assert_same_table(sam(probable, image, activation=None), expected)
    assert_same_table(sam(model, image, activation=torch.sigmoid), expected)
    assert_same_table(sam(model, image, activation=torch.sigmoid_), expected)
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
        (
            {"target": torch.zeros(2, 1, *SIZE)},
            ValueError,
            'channels are independent .* activation="softmax"',
        ),
        ({"target": np.ma.zeros((2, *SIZE))}, TypeError, "target is a masked array"),
        ({"mask": np.ma.ones((2, 1, *SIZE))}, TypeError, "mask is a masked array"),
        ({"ignore_label": "2"}, TypeError, "ignore_label must be an int"),
        ({"ignore_label": [1, 2]}, TypeError, "ignore_label must be an int"),
        (
            {
                "target": torch.zeros(2, *SIZE),
                "mask": torch.full((2, 1, *SIZE), -1.0),
                "ignore_label": 0,
                "activation": "softmax",
            },
            ValueError,
            "mask",
        ),
        ({"mask": "mask"}, TypeError, "mask must be a torch tensor"),
        ({"keep": "disk"}, ValueError, "keep"),
        ({"layers": "frist"}, ValueError, "first"),
        ({"layers": "first", "groups": 4}, ValueError, "not a multiple"),
        ({"prediction": 1.5}, TypeError, "prediction"),
        ({"cases": ["one"]}, ValueError, "names 1 images"),
        ({"cases": [None, True]}, TypeError, "sequence of str or int"),
        ({"cases": "ab"}, TypeError, "sequence of str or int"),
        ({"cases": 2}, TypeError, "sequence of str or int"),
        ({"cases": b"ab"}, TypeError, "sequence of str or int"),
        ({"cases": [1, "1"]}, ValueError, "cases must all be different"),
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
