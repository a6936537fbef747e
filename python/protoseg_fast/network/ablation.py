"""Switching units off while a network runs: `ablate`."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from protoseg_fast.guide import is_whole
from protoseg_fast.network.hooks import is_channels_last, uncompiled
from protoseg_fast.network.layers import ExactName, select_layers, unwrap

__all__ = ["ablate"]


@contextlib.contextmanager
def ablate(
    model: nn.Module,
    units: Mapping[Any, int | Iterable[int]],
    *,
    replace: Literal["zero", "mean"] = "zero",
    dim: int | None = None,
) -> Iterator[nn.Module]:
    """Within the block, some units of a network put out nothing, so that one sees what they do.

    A high SA score says that a unit can segment, not that the network needs it; this tells. The
    units' outputs are replaced in a copy of their layer's output, on its way to what follows:
    gradients, other people's hooks, and weights are left alone, and everything is as before
    afterwards, exceptions included. Scores that `trace` takes inside the block are of the network
    as ablated, if it is entered first. A compiled model is run uncompiled, with a warning.

    Args:
        model: the network.
        units: channels by layer, as `SegmentationAbilityMap.best` names them:
            ``{"enc.0": [3, 7]}``. Layers as in `protoseg_fast.list_layers`, but that the name of a
            layer comes before a preset, and that the image, "input", is none.
        replace: by "zero", or by the unit's "mean" over each image, which keeps its level and takes
            its shape.
        dim: the axis of the channels in what the layers put out: -1 for blocks of ViT (N, L, C)
            and Swin (N, *size, C); None: 1, and -1 for linear layers and layer norms of channels.

    Yields:
        The network inside any wrappers.

    Raises:
        ValueError: for layers or channels that do not exist (channels: as the layer runs), for
            "input", and for another ``replace``.
        TypeError: for channels, or a ``dim``, that are no integers.

    Examples:
        >>> import torch
        >>> import protoseg_fast as psf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3))
        >>> with psf.ablate(model, {"0": [1, 3]}):
        ...     output = model(torch.rand(1, 1, 8, 8))
        >>> output.abs().amax(dim=(0, 2, 3)).bool().tolist()
        [True, False, True, False]
    """
    if replace not in ("zero", "mean"):
        raise ValueError(f'replace must be "zero" or "mean", got {replace!r}.')
    if dim is not None and not is_whole(dim):
        raise TypeError(f"dim must be an int or None, got {dim!r}.")
    inner = unwrap(model)
    chosen: dict[str, tuple[nn.Module, list[int]]] = {}
    for layers, several in units.items():
        channels = _channels(several)
        found = select_layers(inner, ExactName(layers) if isinstance(layers, str) else layers)
        if found.image:
            raise ValueError(
                '"input" is the image, whose channels are changed before the network runs; a '
                'module of that name goes by ".input".'
            )
        for name, module in found.modules.items():
            chosen.setdefault(name, (module, []))[1].extend(channels)
    with contextlib.ExitStack() as stack:
        stack.enter_context(uncompiled(model))
        for name, (module, channels) in chosen.items():
            hook = _replacing(name, sorted(set(channels)), replace, dim)
            stack.callback(module.register_forward_hook(hook).remove)
        yield inner


def _replacing(
    name: str, channels: list[int], replace: str, dim: int | None
) -> Callable[[nn.Module, Any, Any], Tensor | None]:
    def hook(module: nn.Module, _args: Any, output: Any) -> Tensor | None:
        if not channels:
            return None
        if not isinstance(output, Tensor):
            raise ValueError(
                f'Layer "{name}" must put out a tensor to be ablated, got {type(output).__name__}.'
            )
        axis = dim
        if axis is None:
            axis = -1 if is_channels_last(module, output) else 1
        if not -output.dim() <= axis < output.dim() or channels[-1] >= output.shape[axis]:
            raise ValueError(
                f'Layer "{name}" puts out shape {tuple(output.shape)}, and has no unit '
                f"{channels[-1]} along axis {axis}."
            )
        ablated = output.clone()
        units = ablated.movedim(axis, 1)  # a view
        index = torch.tensor(channels, device=output.device)
        if replace == "zero":
            units.index_fill_(1, index, 0)
            return ablated
        level = output.movedim(axis, 1)[:, index]
        axes = tuple(range(2, output.dim()))
        units[:, index] = (level.mean(dim=axes, keepdim=True) if axes else level).expand_as(level)
        return ablated

    return hook


def _channels(several: int | Iterable[int]) -> list[int]:
    values = [several] if isinstance(several, numbers.Integral) else list(several)  # type: ignore[arg-type]
    for value in values:
        if not is_whole(value):
            raise TypeError(f"units must be channels (int) by layer, got {value!r}.")
        if value < 0:
            raise ValueError(f"units must be channels from 0 on, got {value}.")
    return [int(value) for value in values]
