"""What layers put out, as `trace` takes it: several tensors, tokens, channels last."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pandas")

from torch import nn  # noqa: E402

import protoseg_fast as psf  # noqa: E402


class Two(nn.Module):
    def forward(self, x):
        return {"pair": (x.mean(), x), "other": [x + 1]}


def test_output_picks_among_several() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), Two())
    image = torch.rand(1, 1, 16, 16)
    guide = psf.Guide(image)
    with torch.no_grad():
        features = model[0](image)
    for output in ("other", lambda out: out["pair"][1]):
        with psf.trace(model, layers="1", guide=guide, output=output, groups="unit") as tracer:
            model(image)
        # a unit's score does not change when a constant is added
        expected = guide.sa_score(features, groups="unit")[0, :, 0].numpy()
        np.testing.assert_allclose(tracer.result().to_pandas().sa, expected, atol=0.02)
    with psf.trace(model, layers=Two, guide=guide) as tracer:
        model(image)
    assert "shape ()" in tracer.skipped["1"]


def test_layers_without_the_wanted_output() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), Two(), nn.Identity())
    image = torch.rand(1, 1, 16, 16)
    for output in ("third", 2):
        with psf.trace(model, "all", psf.Guide(image), output=output) as tracer:
            model(image)
        assert tracer.result().layers == ["0"]
        message = f"puts out a dict of ['pair', 'other'], without output={output!r}"
        assert tracer.skipped["1"] == message
        with (
            pytest.raises(ValueError, match='Layer "1" puts out a dict of'),
            psf.trace(model, "1", psf.Guide(image), output=output),
        ):
            model(image)


class Tokens(nn.Module):
    """A patch embedding of ViT, with a class token."""

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)


class ChannelsLast(nn.Module):
    def forward(self, x):
        return x.movedim(1, -1)


@pytest.mark.parametrize(
    ("module", "transform"),
    [
        (Tokens(), psf.vit_reshape_transform((4, 2), prefix_tokens=1)),
        (ChannelsLast(), psf.swin_reshape_transform),
        (ChannelsLast(), {"1": psf.swin_reshape_transform}),
        (ChannelsLast(), {ChannelsLast: psf.swin_reshape_transform}),
    ],
)
def test_reshape_transforms(module, transform) -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 4, stride=4), module)
    image = torch.rand(2, 1, 16, 8)
    guide = psf.Guide(image)
    with torch.no_grad():
        features = model[0](image)
    with psf.trace(model, layers="1", guide=guide, reshape_transform=transform) as tracer:
        model(image)
    frame = tracer.result().to_pandas()
    assert set(frame.feature_size) == {"4x2"}
    units = frame[frame.group != "layer"].sa.to_numpy().reshape(2, 6)
    np.testing.assert_array_equal(units, guide.sa_score(features, groups="unit")[..., 0])


def test_channels_last_by_nature_is_not_mistaken_for_channels() -> None:
    """(N, H, W, C) has the axes of (N, C, H, W)."""
    size = (8, 8)
    layers = [ChannelsLast(), nn.LayerNorm(6), nn.Linear(6, 4)]
    model = nn.Sequential(nn.Conv2d(1, 6, 1), nn.LayerNorm([6, *size]), *layers)
    image = torch.rand(2, 1, *size)
    guide = psf.Guide(image)
    with psf.trace(model, layers=["norms", nn.Linear, "0"], guide=guide) as tracer:
        model(image)
    assert tracer.result().layers == ["0", "1"]
    assert set(tracer.skipped) == {"3", "4"}
    assert "channels last" in tracer.skipped["3"]
    transform = psf.swin_reshape_transform
    with psf.trace(model, layers=["3", "4"], guide=guide, reshape_transform=transform) as tracer:
        model(image)
    assert tracer.result().to_pandas().channels.unique().tolist() == [6, 4]
