"""`ablate`: units are replaced, nothing else changes, everything is given back."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import protoseg_fast as psf  # noqa: E402
from networks import Net, all_hooks  # noqa: E402


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 1, 16, 16)


def outputs(model: nn.Module, name: str, image: torch.Tensor) -> list[torch.Tensor]:
    """What the layer hands on, as a pre-hook of what follows sees it."""
    found = []
    handle = model.get_submodule(name).register_forward_pre_hook(
        lambda _module, args: found.append(args[0].clone())
    )
    model(image)
    handle.remove()
    return found


def test_units_are_replaced_for_what_follows(model, image) -> None:
    before, hooks = model(image), all_hooks(model)
    (features,) = outputs(model, "encoder.0.norm", image)
    with psf.ablate(model, {"encoder.0.conv": [1, 3]}):
        (found,) = outputs(model, "encoder.0.norm", image)
        assert not torch.equal(model(image), before)
    assert not found[:, [1, 3]].any()
    assert torch.equal(found[:, [0, 2]], features[:, [0, 2]])
    assert all_hooks(model) == hooks
    assert torch.equal(model(image), before)


def test_mean_keeps_the_level(model, image) -> None:
    (features,) = outputs(model, "encoder.0.norm", image)
    with psf.ablate(model, {"encoder.0.conv": 2}, replace="mean"):
        (found,) = outputs(model, "encoder.0.norm", image)
    level = features[:, 2].mean(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(found[:, 2], level.expand(2, 16, 16))
    assert torch.equal(found[:, :2], features[:, :2])


def test_several_layers_by_any_selector(model, image) -> None:
    with psf.ablate(model, {nn.Conv2d: 0, "encoder.0.conv": [1], "head": []}):
        (found,) = outputs(model, "encoder.0.norm", image)
        assert not model(image).any()
    assert not found[:, :2].any()
    assert found[:, 2:].any()


def test_names_come_before_presets() -> None:
    """Tables name a layer "blocks"; that is not the preset."""
    model = nn.Sequential()
    model.add_module("input", nn.Conv2d(1, 2, 1))
    model.add_module("blocks", nn.Conv2d(2, 2, 1))
    model.add_module("head", nn.Conv2d(2, 1, 1))
    image = torch.rand(1, 1, 8, 8)
    sam = psf.segmentation_ability_map(model.eval(), image)
    assert sam.layers == [".input", "blocks", "head"]
    for layer, module in zip(sam.layers, model, strict=True):
        found = []
        with psf.ablate(model, {layer: 0}):
            hook = module.register_forward_hook(lambda *args, found=found: found.append(args[2]))
            model(image)
        hook.remove()
        assert not found[0][:, 0].any()
        drawn = sam.map(layer, 0, image)
        guide = psf.Guide(model(image).detach().sigmoid())
        with torch.no_grad():
            features = model[: sam.layers.index(layer) + 1](image)
        assert torch.equal(drawn, guide.segment(features[:, :1])[:, 0, 0])
    assert [layer.name for layer in psf.list_layers(model, layers="inp*")] == [".input"]
    with (
        pytest.raises(ValueError, match=r'"input" is the image.*"\.input"'),
        psf.ablate(model, {"input": [0]}),
    ):
        pass


@pytest.mark.parametrize("replace", ["zero", "mean"])
def test_channels_of_tokens_are_the_last_axis(replace: str) -> None:
    class Block(nn.Linear):
        """Not known to put its channels last."""

    model = nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), Block(6, 6))
    tokens = torch.rand(2, 4, 3)
    for stop, dim in ((1, None), (2, None), (3, -1)):
        part = model[:stop]
        expected = part(tokens)
        with psf.ablate(model, {str(stop - 1): [1, 5]}, replace=replace, dim=dim):
            found = part(tokens)
        assert torch.equal(found[..., [0, 2, 3, 4]], expected[..., [0, 2, 3, 4]])
        units = expected[..., [1, 5]]
        level = units.mean(1, keepdim=True).expand_as(units)
        torch.testing.assert_close(found[..., [1, 5]], level if replace == "mean" else 0 * units)
        with (
            pytest.raises(ValueError, match="no unit 10 along axis -1"),
            psf.ablate(model, {str(stop - 1): 10}, dim=dim),
        ):
            part(tokens)


def test_equals_running_the_rest_on_features_without_the_units(model, image) -> None:
    with psf.ablate(model, {"encoder.0.act": [0, 2]}):
        found = model(image)
    x = model.encoder[0](image).clone()
    x[:, [0, 2]] = 0
    x = model.shared(nn.functional.max_pool2d(model.encoder[1](x), 2))
    x = x * model.gate(model.pool(x).flatten(1))[..., None, None]
    torch.testing.assert_close(found, model.head(x))


def test_ablated_units_are_dead_when_traced(model, image) -> None:
    guide = psf.Guide(image)
    with psf.ablate(model, {"encoder.0.conv": [1]}), psf.trace(model, guide=guide) as tracer:
        model(image)
    dead = tracer.result().dead()
    assert ["encoder.0.conv", 0, 1] in dead.values.tolist()


def test_gradients_flow_around(model, image) -> None:
    with psf.ablate(model, {"encoder.0.conv": [1]}):
        model(image).sum().backward()
    grad = model.encoder[0].conv.weight.grad
    assert not grad[1].any()


def test_hooks_are_given_back_after_exceptions(model, image) -> None:
    hooks = all_hooks(model)
    with pytest.raises(ValueError, match="no unit 9"), psf.ablate(model, {"head": 9}):
        model(image)
    with pytest.raises(KeyError), psf.ablate(model, {"head": 0}):
        raise KeyError
    assert all_hooks(model) == hooks


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="needs torch 2.6")
def test_compiled_models(model, image) -> None:
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        compiled(image)
        with pytest.warns(UserWarning, match="original modules"), psf.ablate(compiled, {"head": 0}):
            assert not compiled(image).any()


@pytest.mark.parametrize(
    ("units", "options", "error", "message"),
    [
        ({"haed": 0}, {}, ValueError, "head"),
        ({"head": -1}, {}, ValueError, "from 0 on"),
        ({"head": [0.5]}, {}, TypeError, "channels"),
        ({"head": [True]}, {}, TypeError, "channels"),
        ({"head": 0}, {"dim": 1.0}, TypeError, "dim"),
        ({"head": 0}, {"replace": "noise"}, ValueError, '"mean"'),
    ],
)
def test_wrong_arguments(model, units, options, error, message: str) -> None:
    with pytest.raises(error, match=message), psf.ablate(model, units, **options):
        pass
