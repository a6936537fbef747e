"""What belongs to a forward pass, and to which network: its own calls, copies, what is left out."""

from __future__ import annotations

import copy
import gc
import io
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pd = pytest.importorskip("pandas")

from torch import nn  # noqa: E402

import protoseg_fast as psf  # noqa: E402
from networks import Net, all_hooks  # noqa: E402


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(1)
    return Net().eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def guide(image) -> psf.Guide:
    return psf.Guide(image.clamp(0.1, 0.9), image > 0.7)


class Flipped(nn.Module):
    """Test-time augmentation by calls of itself; or what is asked for is done within a call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 1, 1)
        self.interrupt = False

    def forward(self, x, flip: bool = True, within=None):
        if self.interrupt:
            raise KeyboardInterrupt
        if within is not None:
            return within(self)
        if flip:
            return (self(x, flip=False) + self(x.flip(-1), flip=False).flip(-1)) / 2
        return self.head(self.conv(x).relu())


@pytest.mark.parametrize("keep", [None, "memory", "auto"])
def test_a_network_that_calls_itself_is_in_one_pass(image, keep: str | None) -> None:
    model = Flipped().eval()
    sam = psf.segmentation_ability_map(
        model, image, layers=["input", "conv"], keep=keep, groups="unit"
    )
    frame = sam.to_pandas()
    assert sam.cases == [0, 1]
    assert frame[frame.layer == "conv"].groupby("call").size().tolist() == [6, 6]
    with torch.no_grad():
        guide, flipped = psf.Guide(model(image).sigmoid()), image.flip(-1)
        for call, x in enumerate([image, flipped]):
            found = frame[(frame.layer == "conv") & (frame.call == call)].sa
            expected = guide.sa_score(model.conv(x), groups="unit")
            np.testing.assert_array_equal(found, expected.flatten())
    for call, x in enumerate([image, image, flipped]):
        found = frame[(frame.layer == "input") & (frame.call == call)].sa
        np.testing.assert_array_equal(found, guide.sa_score(x, groups="unit").flatten())


@pytest.mark.parametrize("window", [None, 8])
def test_a_network_that_is_scored_within_its_own_call(image, window: int | None) -> None:
    """As Lightning does, which calls validation steps through the module."""
    model = Flipped().eval()

    def score(network):
        sam = psf.segmentation_ability_map(network, image, window=window)
        return sam.to_pandas(), sam.map("conv", 0, image)

    table, drawn = model(image, within=score)
    expected, also = score(model)
    pd.testing.assert_frame_equal(table, expected)
    assert torch.equal(drawn, also)

    def trace(network):
        with psf.trace(network, guide=psf.Guide(image)) as tracer, torch.no_grad():
            network(image)
            network(image)
        return tracer.result()

    table = model(image, within=trace)
    assert table.cases == [0, 1, 2, 3]
    assert set(table.to_pandas().call) == {0, 1}


def test_tools_may_wrap_the_call_of_modules(image, monkeypatch) -> None:
    original = nn.Module._call_impl

    def timed(*args, **kwargs):
        return original(*args, **kwargs)

    timed.__code__ = timed.__code__.replace(co_name="_call_impl")
    monkeypatch.setattr(nn.Module, "_call_impl", timed)
    sam = psf.segmentation_ability_map(Flipped().eval(), image)
    assert set(sam.to_pandas().call) == {0, 1}


def test_hooks_that_an_interrupt_left_behind_do_nothing(model, image, guide, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch.utils.hooks.RemovableHandle, "remove", lambda handle: None)
        with psf.trace(model, guide=guide) as tracer:
            model(image)
    expected = len(tracer.result())
    model(image)
    assert len(tracer.result()) == expected
    del tracer
    model(image)


def test_an_interrupted_pass_leaves_nothing_behind(image) -> None:
    """For this thread, nor for others."""
    model = Flipped().eval()
    with psf.trace(model, guide=psf.Guide(image)) as tracer, torch.no_grad():
        model.interrupt = True
        with pytest.raises(KeyboardInterrupt):
            model(image)
        model.interrupt = False
        with ThreadPoolExecutor(1) as pool:
            pool.submit(model, image).result()
        model(image)
        model.interrupt = True
        with pytest.raises(KeyboardInterrupt):
            model(image)
        model.interrupt = False
        model(image)
    assert tracer.result().cases == [0, 1, 2, 3, 4, 5]


def test_copies_of_the_network_are_other_networks(model, image, guide) -> None:
    before = all_hooks(model)
    with psf.trace(model, guide=guide) as tracer:
        model(image)
        expected = len(tracer.result())
        stored = io.BytesIO()
        torch.save(model, stored)
        stored.seek(0)
        for other in (copy.deepcopy(model), torch.load(stored, weights_only=False)):
            other(image)
            other.encoder[0](image)
    assert len(tracer.result()) == expected
    assert all_hooks(model) == before


def test_nothing_waits_for_the_garbage_collector(model, image) -> None:
    gc.collect()
    gc.disable()
    try:
        guide = psf.Guide(image)
        with psf.trace(model, guide=guide) as tracer:
            model(image)
        left = weakref.ref(tracer), weakref.ref(guide)
        del tracer, guide
        assert [kept() for kept in left] == [None, None]
    finally:
        gc.enable()


def test_reset_forgets_calls_of_layers_without_the_network(model, image, guide) -> None:
    block = model.encoder[0]
    with psf.trace(model, "encoder.0.conv", guide) as tracer:
        block(image)
        tracer.reset()
        block(image)
    assert set(tracer.result().to_pandas().call) == {0}
    with psf.trace(model, "encoder.0.conv", guide) as tracer:
        with pytest.raises(RuntimeError, match="channels"):
            model(torch.rand(2, 3, 16, 16))
        tracer.reset()
        block(image)
    assert len(tracer.result()) > 0


def test_layers_that_are_not_called(model, image, guide) -> None:
    with psf.trace(model, guide=guide) as tracer:
        model(image)
    assert tracer.skipped == {"unused": "is not called"}
    before = all_hooks(model)
    with psf.trace(model, ["unused", "head"], guide) as tracer:
        model(image)  # another pass may call it
        assert tracer.skipped == {"unused": "is not called"}
        model.unused(torch.rand(2, 4, 8, 8))
        model(image)
    assert tracer.result().layers == ["head"]
    for options in ({}, {"keep": "memory"}, {"guide": guide}):
        with pytest.raises(ValueError, match='calls no layer "unused"'):
            psf.segmentation_ability_map(model, image, layers=["unused", "head"], **options)
    assert all_hooks(model) == before
    (listed,) = psf.list_layers(model, image, layers="unused")
    assert listed.note == "is not called"


class Branches(nn.Module):
    """Calls a layer on bright images only."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.bright = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 2, 1)

    def forward(self, x):
        if x.mean() > 0.5:
            self.bright(x)
        return self.head(x)


@pytest.mark.parametrize("keep", [None, "memory"])
@pytest.mark.parametrize("layers", ["convs", ["head", "bright"]])
def test_layers_that_some_windows_call(layers, keep: str | None) -> None:
    model, image = Branches().eval(), torch.zeros(1, 1, 16, 16)
    image[..., :8] = torch.rand(16, 8) / 2 + 0.5
    sam = psf.segmentation_ability_map(model, image, layers=layers, window=8, keep=keep)
    assert sorted(sam.layers) == ["bright", "head"]
    assert sam.map("bright", "layer", image).shape == (1, 16, 16)
    with pytest.raises(ValueError, match="no call 0"):
        sam.map("bright", "layer", 0 * image)
    with pytest.raises(ValueError, match='calls no layer "bright"'):
        psf.segmentation_ability_map(
            model, 0 * image, layers=["head", "bright"], window=8, keep=keep
        )


class Odd(nn.Module):
    """Puts out what the engine cannot read."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x):
        if self.kind == "sparse":
            return x.to_sparse()
        if self.kind == "empty":
            return x[:, :0]
        if self.kind == "float8":
            return x.to(torch.float8_e5m2)
        return x.to_mkldnn()


KINDS = {"sparse": "sparse", "empty": "empty", "float8": "float8"}
if torch.backends.mkldnn.is_available():
    KINDS["mkldnn"] = "mkldnn"


@pytest.mark.parametrize(("kind", "message"), KINDS.items())
def test_features_that_cannot_be_read_are_left_out(image, guide, kind: str, message: str) -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.odd = nn.Conv2d(1, 1, 1), Odd(kind)

        def forward(self, x):
            self.odd(x)
            return self.head(x)

    model = Beside().eval()
    sam = psf.segmentation_ability_map(model, image, layers="all")
    assert sam.layers == ["head"]
    (_, listed) = psf.list_layers(model, image)
    assert message in listed.note
    with pytest.raises(ValueError, match=f'Layer "odd" puts out .*{message}'):
        psf.segmentation_ability_map(model, image, layers="odd")
