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


@pytest.mark.parametrize("name", NETWORKS)
def test_three_lines_equal_scores_by_hand(name: str) -> None:
    model, image = make(name)
    label = torch.randint(0, 2, (len(image), *image.shape[2:]))
    before = all_hooks(model)
    table = psf.segmentation_ability_map(model, image, target=label, activation="softmax")
    assert all_hooks(model) == before
    assert table.references == ["target", "output"]
    with torch.no_grad():
        pred = first_tensor(model(image)).softmax(1)[:, 1:]
    guide = psf.Guide(pred, (label == 1)[:, None])
    features = cloned_features(model, image)
    fitting = {k: f for k, f in features.items() if f.dim() == image.dim()}
    assert_scores_by_hand(table, guide, fitting, targets=["1"])
    assert not table.best(3).empty


@pytest.mark.parametrize("name", NETWORKS)
def test_hooks_are_given_back_after_an_exception_inside_forward(name: str) -> None:
    model, image = make(name)
    last = [m for m in model.modules() if isinstance(m, torch.nn.modules.conv._ConvNd)][-1]

    def fail(*_: object) -> None:
        raise KeyError("inside forward")

    handle = last.register_forward_pre_hook(fail)
    before = all_hooks(model)
    with pytest.raises(KeyError, match="inside forward"):
        psf.segmentation_ability_map(model, image, activation="softmax", keep="memory")
    guide = psf.Guide(torch.rand(len(image), 1, *image.shape[2:]))
    with pytest.raises(KeyError, match="inside forward"), psf.trace(model, guide=guide):
        model(image)
    assert all_hooks(model) == before
    handle.remove()
