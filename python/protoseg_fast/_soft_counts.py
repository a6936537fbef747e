"""Soft confusion counts of the prototype probability, as an operator: what `sa_loss` is made of.

``torch.ops.protoseg_fast.soft_counts`` returns, for every image, group and target,

    tp = sum m P G,    predicted = sum m P        with P = sigmoid(margin)

without ever keeping P: groups are taken a few at a time, forward and backward, and the backward
pass computes their probability again. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from protoseg_fast import _formula
from protoseg_fast._arrays import inspect
from protoseg_fast.guide import Guide
from protoseg_fast.torch_ops import (
    DEVICES,
    OPTIONS,
    as_tensor,
    check_as_engine,
    core_options,
    flat,
    gradients_like,
)

__all__ = ["soft_counts"]

_MAP_BYTES = 4 << 20
"""Bytes of the probability maps that are worked on at a time, within the caches of a CPU."""
_ON_GPU = 16
"""Times as many on a GPU, to keep it busy."""

torch.library.define(
    "protoseg_fast::soft_counts",
    f"(Tensor features, Tensor pred, Tensor target, Tensor? mask, {OPTIONS}) -> (Tensor, Tensor)",
)
torch.library.define(
    "protoseg_fast::soft_counts_backward",
    "(Tensor tp_grad, Tensor predicted_grad, Tensor features, Tensor pred, Tensor target, "
    f"Tensor? mask, {OPTIONS}, bool[] needed) -> (Tensor, Tensor, Tensor)",
)


def soft_counts(
    features: Tensor, pred: Tensor, target: Tensor, mask: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    """Return tp and predicted, (N, G, T) float64; options as in `_formula.margin`.

    Devices without kernels, transforms of torch.func and forward mode go through plain torch
    operations, which keep P and do not check values.
    """
    needs_formula = _formula.is_needed(features, pred, target, mask)
    if needs_formula or features.device.type not in DEVICES:
        check_as_engine(features, pred, target, mask, options)
        return _formula_counts(features, pred, target, mask, *options)
    tp, predicted = torch.ops.protoseg_fast.soft_counts(features, pred, target, mask, *options)
    return tp, predicted


def _formula_counts(
    features: Tensor, pred: Tensor, target: Tensor, mask: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    values, undefined, odd = _formula.defined_margin(features, pred, mask, *options)
    probability = values.sigmoid().flatten(3)
    valid, actual = _voxel_weights(target, mask, probability.dtype)
    tp, predicted = ((probability * w[:, None]).sum(3).double() for w in (actual, valid))
    return _formula.put_nan(tp + odd, undefined), _formula.put_nan(predicted + odd, undefined)


def _voxel_weights(
    target: Tensor, mask: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """m (N, 1, voxels), and m G (N, T, voxels)."""
    actual = target.flatten(2).to(dtype)
    if mask is None:
        return torch.ones_like(actual[:, :1]), actual
    valid = mask.flatten(2).to(dtype)
    return valid, valid * actual


class _Chunk(NamedTuple):
    """A few groups: their channels, and what the engine keeps of their forward pass."""

    groups: slice
    channels: slice
    options: Any  # _core.Options
    tape: tuple[Tensor, ...]
    margin: Tensor  # (N, groups of the chunk, T, voxels)


def _chunks(
    guide: Guide, features: Tensor, pred: Tensor, groups: int, options: list[Any]
) -> Iterator[_Chunk]:
    if groups < 1 or features.shape[1] % groups:  # the engine says what is wrong
        whole = inspect("features", features)
        guide._core.margin_tape(whole.exported, core_options(groups, *options[1:5]))
    width = features.shape[1] // groups
    most_bytes = _MAP_BYTES * (_ON_GPU if features.is_cuda else 1)
    step = max(1, min(groups, most_bytes // (4 * pred.numel())))
    for first in range(0, groups, step):
        chosen = slice(first, min(groups, first + step))
        channels = slice(first * width, chosen.stop * width)
        wanted = core_options(chosen.stop - first, *options[1:5])
        array = inspect("features", features[:, channels])
        tape = tuple(as_tensor(x) for x in guide._core.margin_tape(array.exported, wanted))
        yield _Chunk(chosen, channels, wanted, tape, tape[0].flatten(3))


@torch.library.impl("protoseg_fast::soft_counts", ("cpu", "cuda"))
def _soft_counts(
    features: Tensor, pred: Tensor, target: Tensor, mask: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    guide = Guide(pred, target, mask, binarize=options[-1])
    groups: int = options[0]
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for chunk in _chunks(guide, features, pred, groups, list(options)):
        probability = chunk.margin.sigmoid_()
        weights = _voxel_weights(target, mask, probability.dtype)
        for sums, weight in zip(found, reversed(weights), strict=True):
            sums.append((probability * weight[:, None]).sum(3, dtype=torch.float64))
    return torch.cat(found[0], dim=1), torch.cat(found[1], dim=1)


@torch.library.register_fake("protoseg_fast::soft_counts")  # type: ignore[untyped-decorator]
def _soft_counts_fake(
    features: Tensor, pred: Tensor, target: Tensor, mask: Tensor | None, groups: int, *_: Any
) -> tuple[Tensor, Tensor]:
    shape = (pred.shape[0], groups, pred.shape[1])
    return (
        features.new_empty(shape, dtype=torch.float64),
        features.new_empty(shape, dtype=torch.float64),
    )


@torch.library.impl("protoseg_fast::soft_counts_backward", ("cpu", "cuda"))
def _soft_counts_backward(
    tp_grad: Tensor,
    predicted_grad: Tensor,
    features: Tensor,
    pred: Tensor,
    target: Tensor,
    mask: Tensor | None,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    *rest, needed = options
    guide = Guide(pred, None, mask, binarize=rest[-1])
    dtype = _formula.compute_dtype(features)
    out = gradients_like(features, pred, mask, needed)
    # Groups add up in the precision of the computation, whatever the dtypes of pred and mask.
    sums = [x.zero_() if x.dtype == dtype else torch.zeros_like(x, dtype=dtype) for x in out[1:]]
    parts = [torch.empty_like(x) for x in sums]
    weights = _voxel_weights(target, mask, dtype)
    for chunk in _chunks(guide, features, pred, rest[0], rest):
        grads = tuple(g[:, chunk.groups, :, None].to(dtype) for g in (tp_grad, predicted_grad))
        probability, grad = _margin_gradient(chunk.margin, weights, grads)
        values, prototypes, square = (flat(x) for x in chunk.tape)
        guide._core.margin_backward(
            inspect("features", features[:, chunk.channels]).exported,
            chunk.options,
            values,
            prototypes,
            square,
            flat(grad),
            inspect("gradient", out[0][:, chunk.channels]).exported if needed[0] else None,
            *(
                inspect("gradient", part).exported if need else None
                for part, need in zip(parts, needed[1:], strict=True)
            ),
        )
        for total, part, need in zip(sums, parts, needed[1:], strict=True):
            if need:
                total += part
        if needed[2]:
            actual = target.flatten(2).to(dtype)
            seen = (probability * (grads[0] * actual[:, None] + grads[1])).sum((1, 2))
            sums[1] += seen.view(sums[1].shape)
    return out[0], out[1].copy_(sums[0]), out[2].copy_(sums[1])


def _margin_gradient(
    margin: Tensor, weights: tuple[Tensor, Tensor], grads: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """P, and dL/dM = P (1 - P) (dL/dtp m G + dL/dpredicted m).

    Where nothing comes down, both are 0, also of an undefined group.
    """
    probability = margin.sigmoid()
    slope = probability * torch.sigmoid(-margin)
    valid, actual = weights
    grad = slope.mul_(grads[0] * actual[:, None] + grads[1] * valid[:, None])
    nothing = (grads[0] == 0) & (grads[1] == 0)
    return probability.masked_fill_(nothing, 0), grad.masked_fill_(nothing, 0)


@torch.library.register_fake("protoseg_fast::soft_counts_backward")  # type: ignore[untyped-decorator]
def _soft_counts_backward_fake(
    tp_grad: Tensor,
    predicted_grad: Tensor,
    features: Tensor,
    pred: Tensor,
    target: Tensor,
    mask: Tensor | None,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    return gradients_like(features, pred, mask, options[-1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, pred, target, mask, *options = inputs
    ctx.options = options
    ctx.save_for_backward(features, pred, target, mask)


def _backward(ctx: Any, tp_grad: Tensor, predicted_grad: Tensor) -> tuple[Any, ...]:
    features, pred, target, mask = ctx.saved_tensors
    needed = [ctx.needs_input_grad[i] for i in (0, 1, 3)]
    found: Any
    if torch.is_grad_enabled():  # somebody wants second derivatives
        counts = _formula_counts(features, pred, target, mask, *ctx.options)
        inputs = (features, pred, mask)
        wanted = [x for x, need in zip(inputs, needed, strict=True) if need]
        pairs = torch.autograd.grad(
            counts, wanted, (tp_grad, predicted_grad), create_graph=True, materialize_grads=True
        )
        each = iter(pairs)
        found = [next(each) if need else None for need in needed]
    else:
        found = torch.ops.protoseg_fast.soft_counts_backward(
            tp_grad, predicted_grad, features, pred, target, mask, *ctx.options, needed
        )
    first, second, third = (x if need else None for x, need in zip(found, needed, strict=True))
    return (first, second, None, third, *[None] * len(ctx.options))


torch.library.register_autograd(
    "protoseg_fast::soft_counts", _backward, setup_context=_setup_context
)
