"""What belongs to a forward pass, and to which network: its own calls, copies, what is left out."""

from __future__ import annotations

import copy
import gc
import io
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pandas")

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
    """Test-time augmentation by calls of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 1, 1)
        self.interrupt = False

    def forward(self, x, flip: bool = True):
        if self.interrupt:
            raise KeyboardInterrupt
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


def test_an_interrupted_pass_leaves_nothing_behind(image) -> None:
    model = Flipped().eval()
    with psf.trace(model, guide=psf.Guide(image)) as tracer, torch.no_grad():
        model.interrupt = True
        with pytest.raises(KeyboardInterrupt):
            model(image)
        model.interrupt = False
        model(image)
        model(image)
    assert tracer.result().cases == [0, 1, 2, 3]


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
    with (
        pytest.raises(ValueError, match='Layer "unused" is not called'),
        psf.trace(model, ["unused", "head"], guide) as tracer,
    ):
        model(image)
    assert len(tracer.result()) == 0
    for keep in (None, "memory"):
        with pytest.raises(ValueError, match='Layer "unused" is not called'):
            psf.segmentation_ability_map(model, image, layers="unused", keep=keep)
    assert all_hooks(model) == before
    (listed,) = psf.list_layers(model, image, layers="unused")
    assert listed.note == "is not called"


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
