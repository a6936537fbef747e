"""sa_loss, SALoss and deep supervision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import protoseg_fast as psf
from ranks import images_of, loss_of, train_distributed


def inputs(
    feature_size: tuple[int, ...] = (5, 6), dtype: torch.dtype = torch.float64, channels: int = 6
) -> list[torch.Tensor]:
    """Return features, pred, boolean target and mask."""
    torch.manual_seed(0)
    size = (9, 11, 7)[: len(feature_size)]
    return [
        torch.randn(2, channels, *feature_size, dtype=dtype).requires_grad_(),
        (torch.rand(2, 2, *size, dtype=dtype) * 0.9 + 0.05).requires_grad_(),
        torch.rand(2, 2, *size) < 0.4,
        (torch.rand(2, 1, *size, dtype=dtype) + 0.1).requires_grad_(),
    ]


def formula(
    x: torch.Tensor, p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, **options: Any
) -> torch.Tensor:
    """One minus soft Dice, (N, G, T), of the whole map."""
    probability = psf.probability(x, p, m, **options)
    weight, target = m[:, None], g[:, None].double()
    axes = tuple(range(3, probability.dim()))
    overlap = (weight * probability * target).sum(axes)
    return 1 - 2 * overlap / ((weight * probability).sum(axes) + (weight * target).sum(axes))


@pytest.mark.parametrize("feature_size", [(9, 11), (5, 6), (13,), (2, 3, 4)])
@pytest.mark.parametrize("groups", ["layer", "unit", 3])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_it_is_one_minus_soft_dice(
    feature_size: tuple[int, ...], groups: Any, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protoseg_fast._soft_counts._MAP_BYTES", 4000)  # groups in many parts
    x, p, g, m = inputs(feature_size)
    options = {"groups": groups, "metric": metric}
    expected = formula(x, p, g, m, **options)
    found = psf.sa_loss(x, p, g, m, reduction="none", **options)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    loss = psf.sa_loss(x, p, g, m, **options)
    assert loss.shape == ()
    assert 0 <= loss <= 1
    torch.testing.assert_close(loss, expected.mean())
    given = (x, p, m)
    wanted = torch.autograd.grad(expected.mean(), given, allow_unused=True, materialize_grads=True)
    for a, b in zip(torch.autograd.grad(loss, given), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("groups", ["layer", "unit"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_gradcheck_to_second_order(groups: str, metric: str) -> None:
    x, p, g, m = inputs((4, 5), channels=3)
    small = [t.detach()[:1].clone().requires_grad_() for t in (x, p, m)]

    def call(features: torch.Tensor, pred: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return psf.sa_loss(features, pred, g[:1], mask, groups=groups, metric=metric)

    assert torch.autograd.gradcheck(call, small)
    assert torch.autograd.gradgradcheck(call, small, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_dtypes(dtype: torch.dtype) -> None:
    x, p, g, m = inputs(dtype=torch.float32)
    half = x.detach().to(dtype).requires_grad_()
    loss = psf.sa_loss(half, p, g.to(torch.uint8), m > 0.5)
    assert loss.dtype == torch.float32
    exact = psf.sa_loss(half.double(), p.double(), g, m > 0.5)
    torch.testing.assert_close(loss.double(), exact, rtol=0, atol=1e-6)
    loss.backward()
    assert half.grad is not None
    assert half.grad.dtype == dtype


def test_undefined_groups_are_left_out() -> None:
    x, p, g, _ = (t.detach() for t in inputs(dtype=torch.float32))
    p[1, 1] = 0  # no foreground
    x[0, 0, 0, 0] = float("nan")
    x.requires_grad_()
    each = psf.sa_loss(x, p, g, groups=3, reduction="none")
    expected = torch.zeros(2, 3, 2, dtype=torch.bool)
    expected[0, 0] = expected[1, :, 1] = True
    assert torch.equal(each.isnan(), expected)
    loss = psf.sa_loss(x, p, g, groups=3)
    torch.testing.assert_close(loss, each.nanmean())
    loss.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert not x.grad[0, :2].any()
    nothing = psf.sa_loss(x, torch.zeros_like(p), g)
    assert nothing == 0
    nothing.backward()


def test_a_perfect_layer_and_an_empty_target() -> None:
    target = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    target[..., 4:9, 3:12] = True
    x = target.float() * 40
    assert psf.sa_loss(x, target.float(), target) < 1e-6
    assert psf.sa_loss(x, target.float() * 0.8 + 0.1, torch.zeros_like(target)) == 1


@pytest.mark.slow
def test_compiled_in_one_graph() -> None:
    torch.compiler.reset()
    x, p, g, m = inputs(dtype=torch.float32)
    compiled = torch.compile(psf.SALoss(groups="unit"), fullgraph=True)
    loss, expected = compiled(x, p, g, m), psf.sa_loss(x, p, g, m, groups="unit")
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(loss, (x, p, m))
    for a, b in zip(found, torch.autograd.grad(expected, (x, p, m)), strict=True):
        torch.testing.assert_close(a, b)


def test_opcheck() -> None:
    x, p, g, m = inputs(dtype=torch.float32)
    options = (3, "euclidean", 1.0, "linear", False, None)
    ops = torch.ops.protoseg_fast
    torch.library.opcheck(ops.soft_counts.default, (x, p, g, m, *options))
    grads = torch.rand(2, 2, 3, 2, dtype=torch.float64)
    tensors = [t.detach() for t in (x, p, g, m)]
    torch.library.opcheck(
        ops.soft_counts_backward.default, (*grads, *tensors, *options, [True, True, True])
    )


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"reduction": "avg"}, ValueError, "reduction must be"),
    ({"groups": 4}, ValueError, "positive divisor"),
    ({"groups": 0}, ValueError, "positive divisor"),
    ({"target": torch.zeros(2, 1, 9, 11)}, ValueError, "target must have the shape of pred"),
    ({"target": torch.full((2, 2, 9, 11), 0.5)}, ValueError, "target must be binary"),
    ({"pred": torch.full((2, 2, 9, 11), 2.0)}, ValueError, "sigmoid"),
    ({"target": torch.zeros(2, 2, 9, 11, requires_grad=True)}, ValueError, "target.detach"),
    ({"features": [1.0]}, TypeError, "features must be a torch tensor, got list"),
    ({"mask": torch.full((2, 1, 9, 11), -1.0)}, ValueError, "mask must hold finite weights"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    x, p, g, m = inputs()
    given: dict[str, Any] = {"features": x, "pred": p, "target": g, "mask": m}
    with pytest.raises(error, match=message):
        psf.sa_loss(**(given | change))


def test_a_target_is_no_variable() -> None:
    x, p, g, _ = inputs()
    target = g.double().requires_grad_()
    with pytest.raises(ValueError, match="target requires grad"):
        torch.func.grad(psf.sa_loss, argnums=2)(x.detach(), p.detach(), target.detach())
    with torch.no_grad():
        assert psf.sa_loss(x, p, target) == psf.sa_loss(x, p, g)


def test_the_module() -> None:
    x, p, g, m = inputs()
    criterion = psf.SALoss(groups="unit", metric="cosine")
    assert repr(criterion) == "SALoss(groups='unit', metric='cosine')"
    assert not criterion.state_dict()
    expected = psf.sa_loss(x, p, g, m, groups="unit", metric="cosine")
    assert torch.equal(criterion(x, p, g, m), expected)
    with pytest.raises(TypeError, match="keyword arguments of sa_loss"):
        psf.SALoss(group="unit")


# ---- deep supervision ----------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(encoder, nn.Conv2d(4, 2, 1), nn.Upsample(scale_factor=2))


def hooks(model: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


def test_deep_supervision_adds_the_loss_of_layers() -> None:
    model, image = network(), torch.randn(2, 1, 12, 12)
    target = torch.rand(2, 2, 12, 12) < 0.4
    with psf.deep_supervision(model, {"0.*": 1.0, "1": 2.0}) as supervision:
        assert supervision.weights == {"0.0": 1.0, "0.1": 1.0, "0.2": 1.0, "1": 2.0}
        pred = model(image).sigmoid()
        loss = supervision.loss(pred, target)
    assert hooks(model) == 0
    first = model[0][0](image)
    layers = [first, first.relu(), model[0](image), model[1](model[0](image))]
    losses = [psf.sa_loss(x, pred, target) for x in layers]
    torch.testing.assert_close(loss, (sum(losses) + losses[3]) / 5)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_layer_counts_as_it_was_put_out() -> None:
    """Also where an in-place activation overwrites it."""

    def model(inplace: bool) -> nn.Sequential:
        torch.manual_seed(0)
        first, act = nn.Conv2d(1, 4, 3, padding=1), nn.LeakyReLU(inplace=inplace)
        return nn.Sequential(first, nn.InstanceNorm2d(4), act, nn.Conv2d(4, 1, 1))

    image, target = torch.randn(2, 1, 12, 12), torch.rand(2, 1, 12, 12) < 0.4
    steps = []
    for network in (model(inplace=True), model(inplace=False)):
        with psf.deep_supervision(network, ["0", "1", "2"]) as supervision:
            for _ in range(2):
                network.zero_grad()
                loss = supervision.loss(network(image).sigmoid(), target)
                loss.backward()
                steps.append([loss, *(p.grad for p in network.parameters())])
    for inplace, plain in zip(steps[:2], steps[2:], strict=True):
        torch.testing.assert_close(inplace, plain)


def test_training_and_validation_in_turns() -> None:
    """In-place dropout overwrites what is before it in training only."""
    dropout = nn.Dropout2d(0.5, inplace=True)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), dropout, nn.Conv2d(4, 1, 1))
    image, target = torch.randn(1, 1, 12, 12), torch.rand(1, 1, 12, 12) < 0.4
    expected = psf.sa_loss(model[0](image), target.float(), target)
    with psf.deep_supervision(model, ["0"]) as supervision:
        for _ in range(2):
            model.eval()
            with torch.no_grad():
                model(image)
            torch.testing.assert_close(supervision.loss(target.float(), target), expected.detach())
            model.train()
            model(image)
            found = supervision.loss(target.float(), target)
            torch.testing.assert_close(found, expected)
            found.backward()
    assert model[0].weight.grad.any()


def test_the_last_output_counts_with_its_gradients() -> None:
    class Recycling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                first = self.inner(x)
            return self.inner(x + first[:, :1])

    model = Recycling()
    image, target = torch.randn(1, 1, 12, 12), torch.rand(1, 2, 12, 12) < 0.4
    with psf.deep_supervision(model, ["inner.0"]) as supervision:
        supervision.loss(model(image).sigmoid().detach(), target).backward()
    assert model.inner[0][0].weight.grad.any()


def test_copies_of_the_model_are_not_supervised() -> None:
    model = network()
    image, target = torch.randn(1, 1, 12, 12), torch.rand(1, 2, 12, 12) < 0.4
    with psf.deep_supervision(model, ["0"]) as supervision:
        average = torch.optim.swa_utils.AveragedModel(model)
        pred = model(image).sigmoid().detach()
        with torch.no_grad():
            average(image + 1)
        found = supervision.loss(pred, target)
    torch.testing.assert_close(found, psf.sa_loss(model[0](image), pred, target))


@pytest.mark.slow
def test_compiled_inside_the_block() -> None:
    model = network()
    image, target = torch.randn(1, 1, 12, 12), torch.rand(1, 2, 12, 12) < 0.4
    with psf.deep_supervision(model, ["0"]) as supervision:
        expected = supervision.loss(model(image).sigmoid(), target)
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        found = supervision.loss(compiled(image).sigmoid(), target)
    torch.testing.assert_close(found, expected)


def test_hooks_are_given_back_after_an_exception() -> None:
    model = network()
    supervision = psf.deep_supervision(model, ["1"], psf.SALoss(groups="unit"))
    wrong = torch.randn(1, 5, 12, 12)
    with pytest.raises(RuntimeError, match="channels"), supervision:
        model(wrong)
    assert hooks(model) == 0
    with supervision, pytest.raises(RuntimeError, match="already in use"):
        supervision.__enter__()
    assert hooks(model) == 0
    supervision.remove()


def test_a_name_or_the_first_pattern_that_matches_gives_the_weight() -> None:
    given = {"0*": torch.tensor(2.0), "*": 1.0, "0.1": 5}
    weights = psf.deep_supervision(network(), given).weights
    assert weights == {"0": 2.0, "0.0": 2.0, "0.1": 5.0, "0.2": 2.0, "1": 1.0, "2": 1.0}


def test_layers_that_ran_without_gradients() -> None:
    class Checkpointed(nn.Module):
        def __init__(self, reentrant: bool) -> None:
            super().__init__()
            self.inner, self.reentrant = network(), reentrant

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            run = torch.utils.checkpoint.checkpoint
            return run(self.inner, x, use_reentrant=self.reentrant)

    image = torch.randn(1, 1, 12, 12, requires_grad=True)
    target = torch.rand(1, 2, 12, 12) < 0.4
    with psf.deep_supervision(Checkpointed(reentrant=True), ["inner.0.0"]) as supervision:
        pred = supervision._model(image).sigmoid()
        with pytest.raises(RuntimeError, match=r"inner\.0\.0.* use_reentrant=False"):
            supervision.loss(pred, target)
    model = Checkpointed(reentrant=False)
    with psf.deep_supervision(model, ["inner.0.0"]) as supervision:
        supervision.loss(model(image).sigmoid().detach(), target).backward()
        with torch.no_grad():
            assert supervision.loss(model(image).sigmoid(), target) > 0
    assert model.inner[0][0].weight.grad.any()


def test_deep_supervision_refuses_what_cannot_work() -> None:
    model = network()
    with pytest.raises(ValueError, match="matches no module"):
        psf.deep_supervision(model, ["decoder.*"])
    with pytest.raises(ValueError, match="positive number, got 0"):
        psf.deep_supervision(model, {"1": 0})
    with pytest.raises(ValueError, match="positive number, got '1'"):
        psf.deep_supervision(model, {"1": "1"})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="at least one"):
        psf.deep_supervision(model, [])
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        psf.deep_supervision("model", ["1"])  # type: ignore[arg-type]
    pred = torch.rand(1, 1, 12, 12)
    with (
        psf.deep_supervision(model, ["1"]) as supervision,
        pytest.raises(RuntimeError, match=r"No features of \['1'\]"),
    ):
        supervision.loss(pred, pred > 0.5)

    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    pair = nn.Sequential(Pair())
    with psf.deep_supervision(pair, ["0"]), pytest.raises(TypeError, match="not a tensor"):
        pair(pred)


@pytest.mark.slow
def test_distributed_data_parallel_averages_its_gradients(tmp_path: Path) -> None:
    if not torch.distributed.is_available():
        pytest.skip("torch without distributed")
    torch.multiprocessing.spawn(train_distributed, args=(str(tmp_path),), nprocs=2)
    alone = []
    for rank in range(2):
        model = loss_of(0)
        model(*images_of(rank)).backward()
        alone.append([p.grad for p in model.parameters()])
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for mine, first, second in zip(found, *alone, strict=True):
            assert first.abs().sum() > 0
            torch.testing.assert_close(mine, (first + second) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_exported(dynamic: bool) -> None:
    given = (torch.randn(2, 6, 9, 11), torch.rand(2, 1, 9, 11), torch.rand(2, 1, 9, 11) < 0.4)
    dims = {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    names = ("features", "pred", "target")
    shapes = dict.fromkeys(names, dims) if dynamic else None
    module = psf.SALoss(groups="unit")
    program = torch.export.export(module, given, dynamic_shapes=shapes)
    assert "protoseg_fast.soft_counts" in str(program.graph)
    other = given
    if dynamic:
        other = (torch.randn(3, 6, 8, 5), torch.rand(3, 1, 8, 5), torch.rand(3, 1, 8, 5) < 0.4)
    torch.testing.assert_close(program.module()(*other), module(*other))
