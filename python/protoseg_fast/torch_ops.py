"""PyTorch operators: the engine under autograd, torch.compile and torch.export. Imports torch.

``torch.ops.protoseg_fast.margin`` and its backward are registered for the CPU and for CUDA in plain
Python; they call the compiled engine over DLPack, on CUDA on the current stream and with memory of
torch's allocator. To add a device, register its kernels for the operators with
``torch.library.impl`` and name it in `DEVICES`.

Autocast: the operators take features of every floating dtype as they are and accumulate float16 and
bfloat16 in float32, so no autocast rule casts anything, and the margin is always float32 (float64
for float64 features).

Second derivatives go through `_formula`, plain torch operations, so backward operators have no
autograd formula of their own. So does everything under transforms of torch.func (grad, vmap, ...)
and in forward mode (torch.autograd.forward_ad), which do not support operators with an autograd
formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from protoseg_fast import _core, _formula
from protoseg_fast._arrays import inspect
from protoseg_fast.guide import (
    Groups,
    Guide,
    _check_types,
    _core_options,
    _group_count,
    _number,
)

__all__ = [
    "DEVICES",
    "OPTIONS",
    "as_tensor",
    "check_as_engine",
    "core_options",
    "flat",
    "gradients_like",
    "margin",
    "operator_options",
    "sigmoid",
]

DEVICES = ("cpu", "cuda") if _core.cuda_compiled() else ("cpu",)
"""Device types that the operators have kernels for."""

OPTIONS = (
    "SymInt groups, str metric, float temperature, str interpolation, bool align_corners, "
    "float? binarize"
)
torch.library.define(
    "protoseg_fast::margin",
    f"(Tensor features, Tensor pred, Tensor? mask, {OPTIONS}) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "protoseg_fast::margin_backward",
    "(Tensor grad, Tensor features, Tensor pred, Tensor? mask, Tensor margin, Tensor prototypes, "
    f"Tensor square, {OPTIONS}, bool[] needed) -> (Tensor, Tensor, Tensor)",
)
torch.library.define("protoseg_fast::sigmoid", "(Tensor margin) -> Tensor")
torch.library.define(
    "protoseg_fast::sigmoid_backward", "(Tensor grad, Tensor probability) -> Tensor"
)


def margin(
    features: Tensor,
    pred: Tensor,
    mask: Tensor | None = None,
    *,
    groups: Groups = 1,
    metric: str = "euclidean",
    temperature: float = 1.0,
    interpolation: str = "linear",
    align_corners: bool = False,
    binarize: float | None = None,
) -> Tensor:
    """Return the margin (N, G, T, *size), differentiable in features, pred and mask.

    Arguments and errors are those of `protoseg_fast.probability`, which is its sigmoid.

    Returns:
        (N, G, T, *size) float32, float64 for float64 features; NaN where a prototype is undefined
        or a feature of the group is not finite. Where the gradient that comes back is exactly 0,
        NaN sends nothing further back.
    """
    options = operator_options(
        features, groups, metric, temperature, interpolation, align_corners, binarize
    )
    if _formula.is_needed(features, pred, mask):
        check_as_engine(features, pred, None, mask, options)
        return _formula.margin(features, pred, mask, *options)
    if not torch.compiler.is_compiling():
        features, pred = _plain(features), _plain(pred)
        mask = None if mask is None else _plain(mask)
    out: Tensor = torch.ops.protoseg_fast.margin(features, pred, mask, *options)[0]
    return out


def operator_options(
    features: Tensor,
    groups: Groups,
    metric: str,
    temperature: float,
    interpolation: str,
    align_corners: bool,
    binarize: float | None,
) -> tuple[int, str, float, str, bool, float | None]:
    """The options of the operators, in their order and of their types.

    Raises:
        TypeError, ValueError: as `protoseg_fast.probability`, in so far as no engine is needed.
    """
    _check_types(align_corners, metric=metric, interpolation=interpolation)
    return (
        _group_count(groups, features),
        metric,
        _number("temperature", temperature),
        interpolation,
        bool(align_corners),
        None if binarize is None else _number("binarize", binarize),
    )


def check_as_engine(
    features: Tensor, pred: Tensor, target: Tensor | None, mask: Tensor | None, options: Any
) -> None:
    """Raise what the engine raises for such shapes, dtypes and options. No values are looked at.

    For what goes through `_formula`, whose tensors the engine cannot always read.
    """
    if torch.compiler.is_compiling():
        return
    given = (None if x is None else _zeros(x.dtype, x.shape) for x in (pred, target, mask))
    core = Guide(*given, binarize=options[-1])._core
    wanted = core_options(*options[:-1])

    def try_features(shape: Sequence[int]) -> None:
        core.prototypes(inspect("features", _zeros(features.dtype, shape)).exported, wanted)

    try:  # one voxel is as good as all, and costs nothing
        try_features([*features.shape[:2], *(min(n, 1) for n in features.shape[2:])])
    except ValueError:
        pass
    else:
        return
    try_features(features.shape)  # for the shape that the message has


def _zeros(dtype: torch.dtype, shape: Sequence[int]) -> np.ndarray:
    """Zeros of a dtype (float16 for bfloat16), which take no memory."""
    name = str(dtype).removeprefix("torch.")
    zero = np.zeros((), "float16" if name == "bfloat16" else name)
    return np.broadcast_to(zero, tuple(shape))


def sigmoid(margin: Tensor) -> Tensor:
    """Return the sigmoid of a margin, in whose gradient 0 times NaN is 0: see docs/gradients.md.

    Where the gradient that comes back is exactly 0, NaN sends nothing further back.
    """
    if _formula.is_needed(margin):
        return _formula.sigmoid(margin)
    if torch.compiler.is_compiling():  # makes one loop of what it is told
        needs_grad = torch.is_grad_enabled() and margin.requires_grad
        return _formula.sigmoid(margin) if needs_grad else margin.sigmoid()
    out: Tensor = torch.ops.protoseg_fast.sigmoid(margin)
    return out


def _plain(tensor: Tensor) -> Tensor:
    """The tensor without its subclass: results are plain tensors, as those of the engine are."""
    if type(tensor) in (Tensor, torch.nn.Parameter):
        return tensor
    plain: Tensor = tensor.as_subclass(Tensor)
    return plain


def core_options(
    groups: int, metric: str, temperature: float, interpolation: str, align_corners: bool
) -> _core.Options:
    """The options of the engine, in the operators' order."""
    return _core_options(groups, metric, interpolation, align_corners, temperature)


def as_tensor(array: Any) -> Tensor:
    """A result of the engine: NumPy's on the CPU, already torch's on CUDA."""
    tensor: Tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
    return tensor


def flat(tensor: Tensor) -> Any:
    """A tape for the engine, where arrays have at most five axes and these are contiguous."""
    return inspect("tape", tensor.contiguous().view(-1)).exported


@torch.library.impl("protoseg_fast::margin", ("cpu", "cuda"))
def _margin(
    features: Tensor,
    pred: Tensor,
    mask: Tensor | None,
    groups: int,
    metric: str,
    temperature: float,
    interpolation: str,
    align_corners: bool,
    binarize: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    guide = Guide(pred, None, mask, binarize=binarize)
    options = core_options(groups, metric, temperature, interpolation, align_corners)
    tape = guide._core.margin_tape(inspect("features", features).exported, options)
    values, prototypes, square = (as_tensor(array) for array in tape)
    return values, prototypes, square


@torch.library.register_fake("protoseg_fast::margin")  # type: ignore[untyped-decorator]
def _margin_fake(
    features: Tensor, pred: Tensor, mask: Tensor | None, groups: int, metric: str, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    n, targets = pred.shape[:2]
    size = pred.shape[2:]
    dtype = _formula.compute_dtype(features)
    squares = metric == "cosine" and features.shape[1] != groups
    return (
        features.new_empty((n, groups, targets, *size), dtype=dtype),
        features.new_empty((n, targets, features.shape[1], 2), dtype=torch.float64),
        features.new_empty((n, groups, *size) if squares else (0,), dtype=dtype),
    )


@torch.library.impl("protoseg_fast::margin_backward", ("cpu", "cuda"))
def _margin_backward(
    grad: Tensor,
    features: Tensor,
    pred: Tensor,
    mask: Tensor | None,
    values: Tensor,
    prototypes: Tensor,
    square: Tensor,
    groups: int,
    metric: str,
    temperature: float,
    interpolation: str,
    align_corners: bool,
    binarize: float | None,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    guide = Guide(pred, None, mask, binarize=binarize)
    out = gradients_like(features, pred, mask, needed)
    features_grad, pred_grad, mask_grad = (
        inspect("gradient", x).exported if need else None
        for x, need in zip(out, needed, strict=True)
    )
    guide._core.margin_backward(
        inspect("features", features).exported,
        core_options(groups, metric, temperature, interpolation, align_corners),
        flat(values),
        flat(prototypes),
        flat(square),
        flat(grad),
        features_grad,
        pred_grad,
        mask_grad,
    )
    return out


@torch.library.register_fake("protoseg_fast::margin_backward")  # type: ignore[untyped-decorator]
def _margin_backward_fake(
    grad: Tensor, features: Tensor, pred: Tensor, mask: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return gradients_like(features, pred, mask, rest[-1])


def gradients_like(
    features: Tensor, pred: Tensor, mask: Tensor | None, needed: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Unwritten gradients; empty ones where none is needed."""
    given = (features, pred, pred if mask is None else mask)
    first, second, third = (
        torch.empty_like(x) if need else x.new_empty((0,))
        for x, need in zip(given, needed, strict=True)
    )
    return first, second, third


def _setup_context(
    ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]
) -> None:
    features, pred, mask, *options = inputs
    values, prototypes, square = output
    ctx.options = options
    ctx.mark_non_differentiable(prototypes, square)
    # The euclidean gradient does not look at the margin; any small tensor stands for it.
    kept = values if options[1] == "cosine" else square
    ctx.save_for_backward(features, pred, mask, kept, prototypes, square)
    ctx.size = tuple(values.shape)


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    features, pred, mask, values, prototypes, square = ctx.saved_tensors
    needed = list(ctx.needs_input_grad[:3])
    if torch.is_grad_enabled():  # somebody wants second derivatives
        gradients = _formula_gradients(grad, features, pred, mask, ctx.options, needed)
    else:
        found = torch.ops.protoseg_fast.margin_backward(
            grad, features, pred, mask, values, prototypes, square, *ctx.options, needed
        )
        gradients = [x if need else None for x, need in zip(found, needed, strict=True)]
    return (*gradients, *[None] * len(ctx.options))


def _formula_gradients(
    grad: Tensor,
    features: Tensor,
    pred: Tensor,
    mask: Tensor | None,
    options: list[Any],
    needed: list[bool],
) -> list[Tensor | None]:
    inputs = (features, pred, mask)
    wanted = [x for x, need in zip(inputs, needed, strict=True) if need and x is not None]
    values = _formula.margin(features, pred, mask, *options)
    found = iter(
        torch.autograd.grad(values, wanted, grad, create_graph=True, materialize_grads=True)
    )
    return [next(found) if need else None for need in needed]


torch.library.register_autograd("protoseg_fast::margin", _backward, setup_context=_setup_context)


@torch.library.impl("protoseg_fast::sigmoid", "default")
def _sigmoid(margin: Tensor) -> Tensor:
    return margin.sigmoid()


@torch.library.impl("protoseg_fast::sigmoid_backward", "default")
def _sigmoid_backward(grad: Tensor, probability: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten.sigmoid_backward(grad, probability)
    if found.is_cpu and not found.sum().isnan():  # to look takes a tenth of the time
        return found
    return found.masked_fill_(grad == 0, 0)


@torch.library.register_fake("protoseg_fast::sigmoid")  # type: ignore[untyped-decorator]
def _sigmoid_fake(margin: Tensor) -> Tensor:
    return margin.sigmoid()


@torch.library.register_fake("protoseg_fast::sigmoid_backward")  # type: ignore[untyped-decorator]
def _sigmoid_backward_fake(grad: Tensor, probability: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten.sigmoid_backward(grad, probability)
    return found


def _save_probability(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _backward_of_sigmoid(ctx: Any, grad: Tensor) -> Tensor:
    (p,) = ctx.saved_tensors
    if torch.is_grad_enabled():  # somebody wants second derivatives
        p = p.masked_fill(p.isnan() & (grad == 0), 0)
        return grad * (p * (1 - p))
    found: Tensor = torch.ops.protoseg_fast.sigmoid_backward(grad, p)
    return found


torch.library.register_autograd(
    "protoseg_fast::sigmoid", _backward_of_sigmoid, setup_context=_save_probability
)
