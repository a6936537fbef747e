"""Tracing the networks that people use: scores by hand, hooks given back."""

from __future__ import annotations

import pytest
import torch

import protoseg_fast as psf
from networks import (
    NETWORKS,
    all_hooks,
    assert_scores_by_hand,
    cloned_features,
    make,
)
from protoseg_fast.network.hooks import first_tensor


@pytest.mark.parametrize("name", NETWORKS)
def test_trace_equals_scores_by_hand(name: str) -> None:
    model, image = make(name)
    with torch.no_grad():
        pred = first_tensor(model(image)).softmax(1)[:, 1:]
    size = pred.shape[2:]
    target = torch.rand(len(image), 1, *size) < 0.3
    mask = torch.rand(len(image), 1, *size) < 0.9
    guide = psf.Guide(pred, target, mask)
    features = cloned_features(model, image)
    fitting = {k: f for k, f in features.items() if f.dim() == image.dim()}
    assert len(fitting) >= 5
    before, training = all_hooks(model), [m.training for m in model.modules()]
    with torch.inference_mode(), psf.trace(model, guide=guide) as tracer:
        model(image)
    assert all_hooks(model) == before
    assert [m.training for m in model.modules()] == training
    assert_scores_by_hand(tracer.result(), guide, fitting)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_listed(name: str) -> None:
    model, image = make(name)
    listed = psf.list_layers(model, image, layers="convs")
    assert {(i.name, c) for i in listed for c in range(i.calls)} == set(
        cloned_features(model, image)
    )
    for preset in ("blocks", "norms", "activations"):
        found = psf.list_layers(model, image, layers=preset)
        assert len(found) > 0
        assert any(info.channels for info in found)
    everything = psf.list_layers(model, image)
    assert len({info.name for info in everything}) == len(everything)
