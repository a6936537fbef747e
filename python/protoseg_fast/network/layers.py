"""Which layers of a network are meant: presets, names, globs, patterns and types."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import torch
from torch import nn
from torch.nn.modules import activation, batchnorm, conv, instancenorm

__all__ = [
    "INPUT",
    "PRESETS",
    "ExactName",
    "LayerInfo",
    "Layers",
    "Selection",
    "names_of",
    "select_layers",
    "unwrap",
]

#: The name of the pseudo-layer whose features are the channels of the image. A module of that name
#: goes by `_MODULE_CALLED_INPUT`, which no module can have.
INPUT = "input"
_MODULE_CALLED_INPUT = ".input"

Layers: TypeAlias = "str | re.Pattern[str] | type[nn.Module] | Sequence[Any]"


class ExactName(str):
    """A layer's name as tables have it, though a preset may be called the same. That it can be
    scored is not insisted on: some of its calls may be left out.
    """


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_NORMS = (
    batchnorm._NormBase,  # batch and instance norm, and what derives from them
    instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else []),  # torch 2.4
)
_ACTIVATIONS = tuple(
    getattr(activation, name) for name in activation.__all__ if name != "MultiheadAttention"
)


@dataclass(frozen=True)
class LayerInfo:
    """One layer of a network, as `protoseg_fast.list_layers` lists it.

    Attributes:
        name: its dotted name, the first one if it has several.
        type: name of its class.
        channels: C of its features; None if it was not called or gives no features.
        feature_size: their spatial extents; None likewise.
        calls: how often one forward pass calls it.
        aliases: its other names (a module used in several places).
        read_bytes: what scoring the layer and every unit reads, over all calls: its features
            once for the units and twice for the layer. The scoring time is about this, divided by
            the memory's bandwidth. 0 if it gives no features.
        note: why it gives no features to score; "" if it does.
    """

    name: str
    type: str
    channels: int | None = None
    feature_size: tuple[int, ...] | None = None
    calls: int = 0
    aliases: tuple[str, ...] = ()
    read_bytes: int = 0
    note: str = ""


@dataclass(frozen=True)
class Selection:
    """What a choice of layers found.

    Attributes:
        modules: the chosen modules by name, in the order of the network.
        exact: those asked for by their very names; that they can be scored is insisted on.
        image: whether the channels of the image are scored as layer "input". A module of that
            name is ".input".
    """

    modules: Mapping[str, nn.Module]
    exact: frozenset[str]
    image: bool


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside DataParallel, DistributedDataParallel and torch.compile wrappers.

    Raises:
        TypeError: for anything but an nn.Module, and for TorchScript, which calls no hooks.
    """
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    inner: Any = model
    while True:
        if isinstance(inner, wrappers):
            inner = inner.module
        elif isinstance(inner, nn.Module) and hasattr(inner, "_orig_mod"):  # by torch.compile
            inner = inner._orig_mod
        else:
            break
    if isinstance(inner, torch.jit.ScriptModule):
        raise TypeError(
            "model is TorchScript, whose layers call no hooks; pass the module it was made from."
        )
    if not isinstance(inner, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(inner).__name__}.")
    return inner


def names_of(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Return every module of an unwrapped network but itself, with all its names, first one first.

    A module that is called as the image is goes by ".input". Parametrizations (spectral norm and
    the like) are left out: they make weights, not features.
    """
    found: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if module is not model and "parametrizations" not in name.split("."):
            # Under its own name, too, for globs.
            also = [_MODULE_CALLED_INPUT] if name == INPUT else []
            found.setdefault(module, []).extend([*also, name])
    return found


def select_layers(model: nn.Module, layers: Layers) -> Selection:
    """Find the layers that are meant.

    Args:
        model: the network, unwrapped.
        layers: a preset of `PRESETS`; "input", the channels of the image; the name of a module
            (any of its names) or a glob of names; a compiled regular expression, searched for in
            names; a module type; or a sequence of any of them, of which the union is taken.

    Raises:
        ValueError: for a selector that finds nothing; names like it are listed.
        TypeError: for a selector of another type.
    """
    names = names_of(model)
    selectors = [layers] if isinstance(layers, str | re.Pattern | type) else list(_iterable(layers))
    if not selectors:
        raise ValueError(f"layers is empty; choose a preset, {_offered()}, or name some layers.")
    chosen: set[nn.Module] = set()
    exact: set[nn.Module] = set()
    for selector in selectors:
        if selector == INPUT:
            continue
        found = list(_matching(names, selector))
        if not found:
            raise ValueError(_nothing_found(names, selector))
        chosen.update(found)
        if type(selector) is str and selector not in PRESETS:
            exact.update(module for module in found if selector in names[module])
    modules = {names[module][0]: module for module in names if module in chosen}
    return Selection(
        modules, frozenset(names[module][0] for module in exact), image=INPUT in selectors
    )


def is_conv(module: nn.Module) -> TypeGuard[conv._ConvNd]:
    """Convolutions and transposed convolutions."""
    return isinstance(module, conv._ConvNd)


def is_norm(module: nn.Module) -> bool:
    """Batch, instance, group, layer and local response normalisation."""
    return isinstance(module, _NORMS)


def is_activation(module: nn.Module) -> bool:
    """Activation functions that are modules."""
    return isinstance(module, _ACTIVATIONS)


def is_block(module: nn.Module) -> bool:
    """The smallest modules with a class of their own that hold a convolution or linear layer."""
    return _holds_weights(module) and not any(
        _holds_weights(inner) for inner in module.modules() if inner is not module
    )


def is_called(module: nn.Module) -> bool:
    """All but the lists and dictionaries of modules, which have no forward."""
    return not isinstance(module, nn.ModuleList | nn.ModuleDict)


#: The presets of ``layers``.
PRESETS: dict[str, Callable[[nn.Module], bool]] = {
    "convs": is_conv,
    "blocks": is_block,
    "norms": is_norm,
    "activations": is_activation,
    "all": is_called,
}


def _holds_weights(module: nn.Module) -> bool:
    own_class = type(module) not in _CONTAINERS
    inner = module.modules()
    next(inner)
    return own_class and any(isinstance(m, conv._ConvNd | nn.Linear) for m in inner)


def _is_preset(selector: str) -> bool:
    return selector in PRESETS and not isinstance(selector, ExactName)


def _matching(names: Mapping[nn.Module, list[str]], selector: Any) -> Iterator[nn.Module]:
    if isinstance(selector, type):
        if not issubclass(selector, nn.Module):
            raise TypeError(f"layers may hold types of modules, got {selector.__name__}.")
        matches: Callable[[nn.Module], Any] = lambda module: isinstance(module, selector)  # noqa: E731
    elif isinstance(selector, re.Pattern):
        matches = lambda module: any(map(selector.search, names[module]))  # noqa: E731
    elif not isinstance(selector, str):
        raise TypeError(
            "layers must be a preset, a name, a glob, a re.Pattern, a module type or a sequence "
            f"of these, got {selector!r}."
        )
    elif _is_preset(selector):
        matches = PRESETS[selector]
    elif any(selector in known for known in names.values()):
        matches = lambda module: selector in names[module]  # noqa: E731
    else:
        # re, not fnmatch.filter: names are case-sensitive on every system
        glob = re.compile(fnmatch.translate(selector))
        matches = lambda module: any(map(glob.match, names[module]))  # noqa: E731
    return (module for module in names if matches(module))


def _iterable(layers: Any) -> Iterable[Any]:
    if not isinstance(layers, Iterable):
        raise TypeError(
            "layers must be a preset, a name, a glob, a re.Pattern, a module type or a sequence "
            f"of these, got {layers!r}."
        )
    return layers


def _nothing_found(names: Mapping[nn.Module, list[str]], selector: Any) -> str:
    known = [name for several in names.values() for name in several]
    if isinstance(selector, str) and _is_preset(selector):
        return f"The network has none of the layers of the preset {selector!r}."
    if isinstance(selector, type):
        kinds = sorted({type(module).__name__ for module in names})
        return f"No layer is a {selector.__name__}; the network's types are {', '.join(kinds)}."
    wanted = selector.pattern if isinstance(selector, re.Pattern) else selector
    near = difflib.get_close_matches(wanted, known, n=5, cutoff=0.3) or known[:5]
    return (
        f"No layer matches {wanted!r}. Nearest names: {', '.join(near)}. Presets are {_offered()}; "
        "protoseg_fast.list_layers(model) lists all names."
    )


@functools.cache
def _offered() -> str:
    return ", ".join(f'"{name}"' for name in [*PRESETS, INPUT])
