"""Choosing layers: presets, names, globs, patterns, types; near misses; aliases; what is listed."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pandas")

from torch import nn  # noqa: E402

import protoseg_fast as psf  # noqa: E402
from networks import Net  # noqa: E402


def chosen(layers) -> list[str]:
    return [info.name for info in psf.list_layers(Net(), layers=layers)]


CONVS = ["encoder.0.conv", "encoder.1.conv", "unused", "head"]


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ("convs", CONVS),
        ("norms", ["encoder.0.norm", "encoder.1.norm"]),
        ("activations", ["encoder.0.act", "encoder.1.act"]),
        ("blocks", ["encoder.0", "encoder.1"]),
        ("encoder.0.conv", ["encoder.0.conv"]),
        ("encoder.?.conv", CONVS[:2]),
        ("shared", ["encoder.1"]),  # any name finds it; the first one names it
        ("shared.*", ["encoder.1.conv", "encoder.1.norm", "encoder.1.act"]),
        (re.compile(r"\.conv$"), CONVS[:2]),
        (nn.InstanceNorm2d, ["encoder.0.norm", "encoder.1.norm"]),
        (["head", nn.ReLU, re.compile("0.conv"), "head"],
         ["encoder.0.conv", "encoder.0.act", "encoder.1.act", "head"]),
        (["input", "head"], ["input", "head"]),
    ],
)  # fmt: skip
def test_selectors(layers, names: list[str]) -> None:
    assert chosen(layers) == names


def test_all_is_every_module_that_can_be_called() -> None:
    names = chosen("all")
    assert "encoder" not in names
    assert {"encoder.0", "encoder.0.conv", "unused", "pool", "gate", "head"} <= set(names)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ("encoder.0.cnov", ValueError, "encoder.0.conv"),
        ("decoder.*", ValueError, "Nearest names"),
        ("Convs", ValueError, '"convs"'),
        (re.compile("nowhere"), ValueError, "No layer matches 'nowhere'"),
        (nn.Conv3d, ValueError, "Conv2d"),
        ([], ValueError, "empty"),
        (["head", "haed"], ValueError, "head"),
        (3, TypeError, "preset"),
        ([3], TypeError, "preset"),
        (int, TypeError, "types of modules"),
    ],
)
def test_what_finds_nothing_says_what_there_is(layers, error, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        chosen(layers)


def test_a_preset_that_the_network_has_none_of() -> None:
    with pytest.raises(ValueError, match="none of the layers of the preset 'norms'"):
        psf.list_layers(nn.Sequential(nn.Conv2d(1, 1, 1)), layers="norms")


def test_listing_tells_shapes_calls_aliases_and_cost() -> None:
    model = Net().eval()
    image = torch.rand(2, 1, 16, 16)
    listed = {info.name: info for info in psf.list_layers(model, image, ["input", "all"])}
    conv = listed["encoder.1.conv"]
    assert (conv.type, conv.channels, conv.feature_size, conv.calls) == ("Conv2d", 4, (16, 16), 2)
    assert conv.aliases == ("shared.conv",)
    assert conv.read_bytes == 3 * 4 * (2 * 4 * (16 * 16 + 8 * 8))
    assert listed["input"].channels == 1
    assert listed["unused"].note == "is not called"
    assert "shape (2, 4)" in listed["gate"].note
    text = str(psf.list_layers(model, image, "convs"))
    assert re.search(r"encoder\.1\.conv +Conv2d +4 +16x16 +2", text)
    assert list(psf.list_layers(model, image).to_pandas()["name"]) == chosen("all")


def test_models_that_are_none() -> None:
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        psf.list_layers("model")
    scripted = torch.jit.trace(nn.Conv2d(1, 1, 1), torch.rand(1, 1, 4, 4))
    with pytest.raises(TypeError, match="TorchScript"):
        psf.list_layers(scripted)
