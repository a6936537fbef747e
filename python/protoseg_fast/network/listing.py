"""What layers a network has: `list_layers`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from protoseg_fast.network.extras import require
from protoseg_fast.network.hooks import LayerHooks, Pick, ReshapeTransform, first_tensor
from protoseg_fast.network.layers import INPUT, LayerInfo, Layers, names_of
from protoseg_fast.network.predictor import batches_only
from protoseg_fast.network.turns import one_thread_at_a_time

__all__ = ["LayerList", "list_layers"]

#: Features are read once for the units and twice for the layer.
_READS = 3


class LayerList(list[LayerInfo]):
    """The layers that `protoseg_fast.list_layers` found: a list that prints as a table."""

    def to_pandas(self) -> Any:
        """Return the list as a DataFrame, one row per layer, one column per attribute."""
        frame = require("pandas", "to_pandas").DataFrame
        return frame([vars(layer) for layer in self], columns=list(LayerInfo.__dataclass_fields__))

    def __str__(self) -> str:
        head = ("name", "type", "channels", "feature size", "calls", "reads MB")
        rows = [
            (
                info.name,
                info.type,
                str(info.channels or "-"),
                "x".join(map(str, info.feature_size or ())) or "-",
                str(info.calls),
                info.note or f"{info.read_bytes / 1e6:.1f}",
            )
            for info in self
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in [head, *rows]
        )

    __repr__ = __str__


@one_thread_at_a_time
def list_layers(
    model: nn.Module,
    example: Tensor | Sequence[Any] | None = None,
    layers: Layers = "all",
    *,
    output: Pick = None,
    reshape_transform: ReshapeTransform = None,
) -> LayerList:
    """List the layers of a network, to choose from, with what their features look like.

    Runs the network once on ``example``, without gradients, in the mode it is in.

    Args:
        model: the network.
        example: an image (N, C, *size), or a sequence of the arguments of the network; None:
            nothing is run, and the list has names and types only.
        layers: which layers: a preset, "convs" (convolutions), "blocks" (the smallest modules with
            a class of their own that hold a convolution or linear layer), "norms",
            "activations", "all" (every module); "input", the channels of the image; a name,
            or a glob of names ("encoder.*"); a compiled regular expression, which is
            searched for in names; a type of modules; or a sequence of any of these.
        output, reshape_transform: see `protoseg_fast.trace`.

    Returns:
        A list of `LayerInfo` in the order of the network, that prints as a table. A module with
        several names is listed once, by the first.

    Raises:
        ValueError: for layers that match nothing, with the nearest names.
        TypeError: for arguments of other types.
    """
    seen: dict[str, list[Tensor]] = {}

    def visit(name: str, call: int, features: Tensor) -> None:
        seen.setdefault(name, []).append(torch.empty_like(features, device="meta"))

    def unfit(features: Tensor) -> str | None:
        fits = 3 <= features.dim() <= 5
        return None if fits else f"puts out shape {tuple(features.shape)}"

    hooks = LayerHooks(
        model,
        layers,
        visit,
        unfit=unfit,
        insist=False,
        output=output,
        reshape_transform=reshape_transform,
    )
    if example is not None:
        args = (example,) if isinstance(example, Tensor) else tuple(example)
        with contextlib.ExitStack() as stack:
            if (image := first_tensor(args)) is not None:
                stack.enter_context(batches_only(hooks.model.modules(), image))
            stack.enter_context(hooks)
            stack.enter_context(torch.no_grad())
            model(*args)
    names = names_of(hooks.model)
    found = LayerList()
    if hooks.selection.image:
        found.append(_info(INPUT, "image", (), seen.get(INPUT, []), ""))
    for name, module in hooks.selection.modules.items():
        aliases = tuple(names[module][1:])
        note = hooks.skipped.get(name, "")
        found.append(_info(name, type(module).__name__, aliases, seen.get(name, []), note))
    return found


def _info(
    name: str, kind: str, aliases: tuple[str, ...], features: list[Tensor], note: str
) -> LayerInfo:
    if not features:
        return LayerInfo(name, kind, aliases=aliases, note=note)
    return LayerInfo(
        name,
        kind,
        channels=features[0].shape[1],
        feature_size=tuple(features[0].shape[2:]),
        calls=len(features),
        aliases=aliases,
        read_bytes=sum(_READS * x.numel() * x.element_size() for x in features),
    )
