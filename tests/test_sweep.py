"""`segmentation_ability_map`: one or two passes, images, outputs, threads, maps."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pd = pytest.importorskip("pandas")

from torch import nn  # noqa: E402

import protoseg_fast as psf  # noqa: E402
from networks import (  # noqa: E402
    Classes,
    Net,
    all_hooks,
    assert_same_table,
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
    assert_same_table(once, twice)
    guide = psf.Guide(torch.rand(2, 1, *SIZE))
    sam(model, image, guide=guide)
    assert model.passes == 4
    needed = 4 * 2 * (6 + 4) * 16 * 16
    for budget, passes in ((needed, 5), (needed - 1, 7), (0, 9)):
        take = {"keep": "auto", "memory_budget": budget}
        assert_same_table(sam(model, image, target=label, activation="softmax", **take), twice)
        assert model.passes == passes


def test_kept_features_are_copied_before_they_are_overwritten(image) -> None:
    torch.manual_seed(0)
    model = Net().eval()  # in-place activations, and a layer that is called twice
    take = {"prediction": lambda out: nn.functional.interpolate(out, SIZE), "layers": "all"}
    assert_same_table(sam(model, image, keep="memory", **take), sam(model, image, **take))


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


@pytest.mark.parametrize("window", [None, 8])
def test_outputs_that_are_not_finite(image, window: int | None) -> None:
    """Randomness is noticed beside them; they are no randomness themselves."""

    class Masked(nn.Module):
        def __init__(self, odd: float, noise: float) -> None:
            super().__init__()
            self.conv, self.odd, self.noise = nn.Conv2d(1, 2, 1), odd, noise

        def forward(self, x):
            out = self.conv(x)
            out = out + self.noise * torch.rand_like(out)
            return torch.cat([out[..., :1] + self.odd, out[..., 1:]], dim=-1)

    options = {"activation": lambda x: x.nan_to_num().sigmoid(), "window": window}
    for odd in (float("inf"), -float("inf"), float("nan")):
        assert len(sam(Masked(odd, 0).eval(), image, **options)) > 0
        with pytest.raises(ValueError, match="randomness"):
            sam(Masked(odd, 0.1).eval(), image, **options)
    model = Masked(float("inf"), 0).eval()
    runs = iter([0.0, -float("inf"), 0.0, 0.0])
    model.register_forward_hook(lambda _module, _args, out: out + next(runs))
    with pytest.raises(ValueError, match="randomness"):
        sam(model, image, **options | {"window": window and 16})


def test_numpy_image(model, image) -> None:
    assert_same_table(sam(model, image.numpy()), sam(model, image))
    steps = (image * 255).byte()
    assert_same_table(sam(model, steps.numpy()), sam(model, steps.float()))
    buffered = nn.BatchNorm2d(1, affine=False).double().eval()
    assert len(sam(buffered, image.numpy(), layers="input")) > 0
    with pytest.raises(TypeError, match="image is a masked array"):
        sam(model, np.ma.array(image.numpy()))
    for shape in ((1, *SIZE), (4, *SIZE)):
        for call in (sam, psf.list_layers):
            with pytest.raises(ValueError, match=r"Conv2d takes .* for one image.* image\[None\]"):
                call(model, torch.rand(shape))

    class Stack(nn.Module):
        """Takes slices for channels, and convolves them in 3-D."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(1, 1, 3, padding=1)

        def forward(self, x):
            assert self.conv(x.transpose(0, 1)[:1]).dim() == 4  # a volume without a batch
            return self.conv(input=x[:, None])[:, 0]

    assert len(sam(Stack().eval(), torch.rand(2, 5, *SIZE), layers="input")) > 0
    with pytest.raises(ValueError, match="spatial axes"):
        sam(model, image.numpy()[0, 0])


def test_no_gradients_are_left(model, image) -> None:
    sam(model, image)
    assert all(p.grad is None for p in model.parameters())
    with torch.inference_mode():
        assert_same_table(sam(model, image), sam(model, image.clone()))


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
    for prediction in ("logits", 0):
        with pytest.raises(ValueError, match=r"\['aux', 'out'\], without prediction="):
            sam(Deep().eval(), image, prediction=prediction)
    with pytest.raises(ValueError, match="prediction="):
        sam(Deep().eval(), image, prediction=lambda out: out["aux"][0])


def test_threads_that_share_a_network_wait_for_each_other(model) -> None:
    images = torch.rand(6, 2, 1, *SIZE)
    whole, by_windows = sam(model, images[0]), sam(model, images[0], window=8)
    calls = [
        lambda image: sam(model, image).to_pandas(),
        lambda image: psf.list_layers(model, image).to_pandas(),
        lambda image: pd.DataFrame(whole.map("first", 0, image).flatten()),
        lambda image: pd.DataFrame(by_windows.map("first", 0, image).flatten()),
    ]
    for call in calls:
        expected = [call(image) for image in images]
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(call, images))
        for a, b in zip(found, expected, strict=True):
            pd.testing.assert_frame_equal(a, b)


@pytest.mark.parametrize("prediction", [None, 0, "out"])
def test_tables_that_draw_maps_pickle(model, image, prediction) -> None:
    table = sam(model, image, prediction=prediction)
    again = pickle.loads(pickle.dumps(table))
    assert_same_table(table, again)
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
