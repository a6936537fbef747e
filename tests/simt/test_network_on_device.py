"""Networks traced and swept on the device: tables are the CPU's, and nothing waits on the way."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

from torch import Tensor, nn  # noqa: E402

import protoseg_fast as cpu  # noqa: E402
from markdown import blocks  # noqa: E402
from simt.engine import torch_device  # noqa: E402

SIZE = (16, 12)
TARGETS = {"all": (1, 2), "core": (2,)}


class Net(nn.Module):
    """Three classes; features that are resized, others that an in-place activation overwrites."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.down = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.twice = nn.Conv2d(6, 6, 1)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.down(self.first(x))))
        return nn.functional.interpolate(8 * self.head(x), scale_factor=2)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(3)
    return Net().eval()


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def given(image: Tensor) -> dict[str, Any]:
    """Arguments of a sweep: a label map, and what counts."""
    label = (image[:, 0] > 0.4).long() + (image[:, 0] > 0.7)
    mask = torch.ones_like(image)
    mask[..., :3] = 0
    return {"target": label, "mask": mask, "activation": "softmax", "targets": TARGETS}


def both(run: Callable[[Any], Any], memory: torch_device.TorchMemory | None = None) -> Any:
    """What a function makes of the package on the device, and of the package on the CPU."""
    expected = run(cpu)
    with torch_device.package_on_device(memory) as psf:
        return run(psf), expected


def assert_same(found: Any, expected: Any) -> None:
    found, expected = found.to_pandas(), expected.to_pandas()
    assert len(found) > 20
    assert found["sa"].between(0.05, 0.95).any()
    pd.testing.assert_frame_equal(found, expected)


def references(image: Tensor) -> tuple[Tensor, Tensor]:
    return image.clamp(0.1, 0.9), image > 0.7


def test_traced_passes_fetch_their_counts_once(model: nn.Module, image: Tensor) -> None:
    memory = torch_device.TorchMemory()
    fetched: list[int] = []

    def run(psf: Any) -> Any:
        guide = psf.Guide(*references(image))
        with psf.trace(model, ["input", "convs"], guide) as tracer, torch.no_grad():
            for _ in range(2):
                before = memory.fetched
                model(image)
                fetched.append(memory.fetched - before)
        return tracer.result()

    found, expected = both(run, memory)
    assert_same(found, expected)
    assert found.cases == [0, 1, 2, 3]
    assert fetched == [0, 0, 5, 5], "five arrays a pass, however many layers"


def test_layers_run_without_their_network_are_in_the_table(model: nn.Module, image: Tensor) -> None:
    def run(psf: Any) -> Any:
        with psf.trace(model, "first.0", psf.Guide(*references(image))) as tracer, torch.no_grad():
            model.first(image)
        return tracer.result().to_pandas()

    pd.testing.assert_frame_equal(*both(run))


@pytest.mark.parametrize("keep", [None, "memory"])
def test_a_network_and_its_maps(model: nn.Module, image: Tensor, given: Any, keep: Any) -> None:
    def run(psf: Any) -> Any:
        sam = psf.segmentation_ability_map(model, image, keep=keep, **given)
        maps = [
            sam.map("twice", unit, image, target="all", call=1, mask=given["mask"])
            for unit in ("layer", 1)
        ]
        return sam, maps

    (found, maps), (expected, expected_maps) = both(run)
    assert_same(found, expected)
    assert all(map(torch.equal, maps, expected_maps))
    assert 0 < int(maps[0].sum()) < maps[0].numel()


@pytest.mark.parametrize("scope", ["volume", "window"])
def test_windows(model: nn.Module, image: Tensor, given: Any, scope: Any) -> None:
    def run(psf: Any) -> Any:
        window = psf.SlidingWindow(8, overlap=0.5, batch_size=3)
        layers = ["first.0", "twice"]
        options = {"window": window, "scope": scope, "layers": layers, **given}
        sam = psf.segmentation_ability_map(model, image, **options)
        return sam, sam.map("twice", "layer", image, target="all", call=1)

    (found, drawn), (expected, expected_drawn) = both(run)
    assert_same(found, expected)
    assert torch.equal(drawn, expected_drawn)


def test_a_window_in_which_nothing_is_predicted(image: Tensor) -> None:
    image[..., :8, :] = 0

    def run(psf: Any) -> Any:
        return psf.segmentation_ability_map(
            nn.Sequential(nn.Identity()).eval(),
            image,
            layers="all",
            activation=None,
            window=psf.SlidingWindow(8, overlap=0.0),
            scope="window",
        ).to_pandas()

    found, expected = both(run)
    assert expected["sa"].notna().all()
    pd.testing.assert_frame_equal(found, expected)


def test_a_case_of_a_cohort(model: nn.Module, given: Any) -> None:
    image = np.random.default_rng(0).random((1, *SIZE), dtype=np.float32)

    def run(_psf: Any) -> Any:
        config, layouts, volumes, scoring = (
            importlib.import_module(f"protoseg_fast.cohort.{name}")
            for name in ("config", "layouts", "volumes", "scoring")
        )
        options = {"layers": ["convs"], "activation": "softmax", "targets": TARGETS}
        volume = volumes.Volume(image, given["target"][0].numpy(), None, None, None)
        case = layouts.Case("one", "one.npy")
        scored = scoring.score_case(model, case, volume, config.SweepConfig.of(options))
        return scored.info, scored.table, scored.preview

    found, expected = both(run)
    assert found == expected
    assert found[2] is not None


def test_wrong_values_raise(model: nn.Module, image: Tensor) -> None:
    problem = r"pred.*\[0, 1\]"
    with torch_device.package_on_device() as psf:
        guide = psf.Guide(3 * image, image > 0.5)
        with psf.trace(model, guide=guide) as tracer, pytest.raises(ValueError, match=problem):
            model(image)
        assert len(tracer.result()) == 0
        with pytest.raises(ValueError, match=problem):
            psf.segmentation_ability_map(model, image, activation=lambda x: x.sigmoid() + 1)


def test_the_page_runs(image: Tensor) -> None:
    (block,) = blocks("docs/gpu.md", "python")
    pred, target = references(image)
    with torch_device.package_on_device() as psf, mock.patch.object(Tensor, "cuda", lambda x: x):
        names = {"psf": psf, "pred": pred, "target": target, "features": torch.rand(2, 5, *SIZE)}
        names["deeper"] = torch.rand(2, 7, 4, 3)
        found = block.run(names)
        dice = found["counts"].dice
    assert torch.equal(found["scores"], dice)
    assert found["scores"].shape == (2, 5, 1)
    assert [both.target.tp.shape[1] for both in found["several"]] == [5, 7]
