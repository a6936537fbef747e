"""Scoring volumes larger than the network's window: sums of windows are those of the volume.

Prototypes of windows merge, and so do counts, since every voxel is weighed and counted in one
window only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from protoseg_fast.counts import Counts, Prototypes
from protoseg_fast.guide import Groups, Guide
from protoseg_fast.network import devices
from protoseg_fast.network.copies import Copies
from protoseg_fast.network.hooks import LayerHooks, Visit
from protoseg_fast.network.layers import Layers
from protoseg_fast.network.predictor import Predictor, something_else
from protoseg_fast.network.records import WHOLE_LAYER, Record, fitting, score_layers
from protoseg_fast.network.windows import Grid, Slices, Window

__all__ = ["VolumeGuide", "WindowSweep"]

Chunk = list[tuple[int, Window]]  # number of the image, and the window


def place(first: int | slice, slices: Slices, *, channels: bool = True) -> tuple[Any, ...]:
    """Return the index of a box in (N, C, *size), or in (N, *size)."""
    return (first, slice(None), *slices) if channels else (first, *slices)


@dataclass(frozen=True)
class VolumeGuide:
    """Arrays of whole volumes, padded to the windows: pred, target (N, T, *), mask (N, 1, *).

    They stay in memory of the CPU, which large volumes need; windows are scored on ``device``.
    """

    pred: Tensor
    target: Tensor | None
    mask: Tensor | None
    binarize: float | None
    device: torch.device

    @classmethod
    def of(
        cls,
        sweep: WindowSweep,
        arrays: tuple[Tensor, Tensor | None, Tensor | None],
        binarize: float | None,
    ) -> VolumeGuide:
        """Pad pred, target and mask of the size of the image, which are checked as a guide's."""
        Guide(*arrays, binarize=binarize).check()
        pred, target, mask = (None if a is None else sweep.grid.pad(a) for a in arrays)
        assert pred is not None
        return cls(pred, target, mask, binarize, devices.scoring_device(sweep.image))

    def part(self, chunk: Chunk) -> Guide:
        """Return the guide of some windows, in which only their own voxels count."""

        def crop(volume: Tensor) -> Tensor:
            return torch.stack([volume[place(n, w.place)] for n, w in chunk])

        roi = [s.stop - s.start for s in chunk[0][1].place]
        mask = torch.ones(len(chunk), 1, *roi) if self.mask is None else crop(self.mask)
        own = torch.zeros_like(mask)
        for i, (_, window) in enumerate(chunk):
            box = place(i, window.own)
            own[box] = mask[box]
        target = None if self.target is None else devices.move(crop(self.target), self.device)
        pred, own = devices.move(crop(self.pred), self.device), devices.move(own, self.device)
        return Guide(pred, target, own, binarize=self.binarize)


@dataclass
class WindowSweep:
    """One network on one batch of padded volumes, window by window.

    Attributes:
        network, image, grid: what is run, on what (N, C, *padded), in which windows.
        layers, hooking: see `LayerHooks`.
        groups, options: see `protoseg_fast.trace`.
        copies: where the prediction leaves features for the passes after it; None: nowhere.
        skipped: layers that were left out, and why.
    """

    network: Predictor
    image: Tensor
    grid: Grid
    layers: Layers
    groups: Sequence[Groups]
    options: dict[str, Any]
    hooking: dict[str, Any]
    copies: Copies | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    _prints: list[Tensor] = field(default_factory=list)
    _at_once: int = 0  # windows of the run

    def predict(self) -> Tensor:
        """Return the blended output (N, K, *size): one forward pass of every window."""
        importance = self.grid.geometry.importance(self.grid.roi)
        total = torch.zeros(self.grid.padded)
        blended: Tensor | None = None
        with self._copying():
            for chunk in self._chunks():
                if self.copies is not None:
                    self.copies.begin_pass()
                logits = self._run(chunk).cpu().float()
                if tuple(logits.shape[2:]) != self.grid.roi:
                    raise ValueError(
                        f"The network must put out the size of the window {self.grid.roi}, got "
                        f"{tuple(logits.shape[2:])}; resize it with prediction=."
                    )
                if blended is None:
                    blended = torch.zeros(len(self.image), logits.shape[1], *self.grid.padded)
                for (n, window), output in zip(chunk, logits, strict=True):
                    blended[place(n, window.place)] += output * importance
                    if n == 0:
                        total[window.place] += importance
                self._prints.append(_fingerprint(logits))
        assert blended is not None  # a grid has a window
        return (blended / total)[place(slice(None), self.grid.inside)]

    def prototypes(self, guide: VolumeGuide) -> dict[tuple[str, int], list[Prototypes]]:
        """Return every call's prototypes, one per image: one forward pass of every window that
        was not copied.
        """
        resize = {k: v for k, v in self.options.items() if k != "metric"}
        found: dict[tuple[str, int], dict[int, Prototypes]] = {}
        spoilt: list[tuple[tuple[str, int], int, Any]] = []  # and channels (C) that are not finite

        def visit(chunk: Chunk, part: Guide, layer: str, call: int, features: Tensor) -> None:
            merged = found.setdefault((layer, call), {})
            every = part.prototypes(features, **resize)
            weight = every._arrays["positive_weight"] + every._arrays["negative_weight"]
            if not weight.all():  # a window without weight has no say, but for this
                sound = _finite(part, features)
                spoilt.extend(
                    ((layer, call), n, ~one) for (n, _), one in zip(chunk, sound, strict=True)
                )
            for i, prototypes in _split(every):
                n = chunk[i][0]
                merged[n] = merged[n] + prototypes if n in merged else prototypes

        self._pass(guide, visit)
        for key, n, channels in spoilt:
            for name in ("positive", "negative"):
                found[key][n]._arrays[name][:, :, channels] = float("nan")
        return {key: [merged[n] for n in sorted(merged)] for key, merged in found.items()}

    def records(
        self,
        guide: VolumeGuide,
        prototypes: dict[tuple[str, int], list[Prototypes]] | None,
        cases: Sequence[int | str],
        targets: Sequence[str],
    ) -> list[Record]:
        """Return the counts of whole volumes: one forward pass of every window that was not copied.

        ``prototypes`` of the volumes; None: each window has its own.
        """
        sums: dict[tuple[str, int, Groups], _Sum] = {}

        def visit(chunk: Chunk, part: Guide, layer: str, call: int, features: Tensor) -> None:
            given = None
            if prototypes is not None:
                given = _joined([prototypes[layer, call][n] for n, _ in chunk])
            divisions, reason = fitting(self.groups, features.shape[1])
            if reason:
                self.skipped[layer] = reason
            (found,) = score_layers(part, [(features, divisions, given)], self.options)
            for groups, counts in zip(divisions, found, strict=True):
                if given is None:
                    _forgive_windows_without_guide(part, features, counts)
                key = (layer, call, groups)
                if key not in sums:
                    sums[key] = _Sum(tuple(features.shape[2:]), features.shape[1])
                sums[key].add([n for n, _ in chunk], counts)

        self._pass(guide, visit)
        return [
            Record(
                layer, call, groups == WHOLE_LAYER, cases, targets, total.counts(), total.size,
                total.channels,
            )
            for (layer, call, groups), total in sums.items()
        ]  # fmt: skip

    def maps(
        self,
        guide: VolumeGuide,
        prototypes: dict[tuple[str, int], list[Prototypes]] | None,
        call: int,
        pick: Callable[[Tensor], slice],
    ) -> Tensor | None:
        """Return what some channels of the chosen layer segment, (N, *size) bool; None if it has
        no such call.
        """
        drawn = torch.zeros(len(self.image), *self.grid.padded, dtype=torch.bool)
        seen = False

        def visit(chunk: Chunk, part: Guide, layer: str, number: int, features: Tensor) -> None:
            nonlocal seen
            if number != call:
                return
            seen = True
            channels = pick(features)
            given = None
            if prototypes is not None:
                given = _joined([prototypes[layer, call][n] for n, _ in chunk], channels)
            maps = part.segment(features[:, channels], given, **self.options)[:, 0, 0]
            for (n, window), one in zip(chunk, maps, strict=True):
                own = one[window.own].cpu()
                drawn[place(n, window.place, channels=False)][window.own] = own

        self._pass(guide, visit)
        return drawn[place(slice(None), self.grid.inside, channels=False)] if seen else None

    def _chunks(self) -> Iterator[Chunk]:
        pairs = [(n, window) for n in range(len(self.image)) for window in self.grid.windows]
        step = self.grid.geometry.batch_size
        return (pairs[i : i + step] for i in range(0, len(pairs), step))

    def _run(self, chunk: Chunk) -> Tensor:
        windows = [self.image[place(n, w.place)] for n, w in chunk]
        self._at_once = len(chunk)
        return self.network.logits(torch.stack(windows))

    @contextlib.contextmanager
    def _copying(self) -> Iterator[None]:
        """Within the block, every run leaves copies, if they are asked for."""
        if self.copies is None:
            yield
            return
        with self._hooks(self.copies.add) as hooks:
            yield
        self.skipped.update(hooks.skipped)

    def _hooks(self, visit: Visit) -> LayerHooks:
        def unfit(features: Tensor) -> str | None:
            if features.dim() == self.image.dim() and len(features) == self._at_once:
                return None
            return f"puts out shape {tuple(features.shape)} for {self._at_once} windows"

        return LayerHooks(self.network.model, self.layers, visit, unfit=unfit, **self.hooking)

    def _pass(
        self, guide: VolumeGuide, visit: Callable[[Chunk, Guide, str, int, Tensor], None]
    ) -> None:
        """Visit the features of every window: their copies, or those of a run with hooks."""
        chunk: Chunk = []
        part: Guide | None = None
        lent: set[str] = set()

        def lend(layer: str, call: int, features: Tensor) -> None:
            assert part is not None
            lent.add(layer)
            visit(chunk, part, layer, call, devices.beside(part, features))

        hooks = self._hooks(lend)
        with contextlib.ExitStack() as stack:
            hooked = False
            for number, chunk in enumerate(self._chunks()):
                part = guide.part(chunk)
                copied = None if self.copies is None else self.copies.of(number)
                if copied is not None:
                    for output in copied:
                        lend(*output)
                    continue
                if not hooked:
                    stack.enter_context(hooks)
                    hooked = True
                after = _fingerprint(self._run(chunk).cpu().float())
                before = self._prints[number]
                if not torch.allclose(before, after, rtol=1e-4, atol=1e-6):
                    raise something_else()
        hooks.check_called(lent)
        self.skipped.update(hooks.skipped)


class _Sum:
    """Counts of one call of a layer, summed over the windows of each image."""

    def __init__(self, size: tuple[int, ...], channels: int) -> None:
        self.size, self.channels = size, channels
        self._images: dict[str, dict[int, Counts]] = {}

    def add(self, images: Sequence[int], counts: dict[str, Counts]) -> None:
        for reference, batch in counts.items():
            sums = self._images.setdefault(reference, {})
            for i, part in _split(batch):
                n = images[i]
                sums[n] = sums[n] + part if n in sums else part

    def counts(self) -> dict[str, Counts]:
        return {
            reference: _joined([sums[n] for n in sorted(sums)])
            for reference, sums in self._images.items()
        }


def _split(parts: Any) -> Iterator[tuple[int, Any]]:
    """The images of Counts or Prototypes, one by one."""
    for i in range(len(next(iter(parts._arrays.values())))):
        arrays = tuple(array[i : i + 1] for array in parts._arrays.values())
        yield i, type(parts)._from_core(arrays, parts._kind)


def _joined(parts: Sequence[Any], channels: slice | None = None) -> Any:
    """Counts or Prototypes of several images together; of prototypes, some channels only."""
    concatenate = parts[0]._library.concatenate
    arrays = [concatenate([part._arrays[name] for part in parts]) for name in parts[0]._arrays]
    if channels is not None:
        arrays = [array[..., channels] if array.ndim == 3 else array for array in arrays]
    return type(parts[0])._from_core(tuple(arrays), parts[0]._kind)


def _forgive_windows_without_guide(
    guide: Guide, features: Tensor, counts: dict[str, Counts]
) -> None:
    """A window in which nothing, or everything, is predicted has a map that is all background.

    That makes no volume's score undefined; a feature that is not finite does.
    """
    weights = guide.prototypes(features[:, :1])
    empty = (weights._arrays["positive_weight"] == 0) | (weights._arrays["negative_weight"] == 0)
    if not empty.any():
        return
    finite = _finite(guide, features)
    for part in counts.values():
        defined = part._arrays["defined"]
        n, g, _ = defined.shape
        sound = finite.reshape(n, g, -1).all(2)[:, :, None]
        part._arrays["defined"] = defined | (empty[:, None] & sound)


def _finite(guide: Guide, features: Tensor) -> Any:
    """Whether all of a channel is finite, (N, C), as counts are kept: in NumPy on the CPU."""
    finite = features.isfinite().flatten(2).all(2)
    return finite.numpy() if guide._kind.device == "cpu" else finite


def _fingerprint(logits: Tensor) -> Tensor:
    """A few numbers (N, 5) that two equal outputs share: mean, mean size, and weighted mean of what
    is finite; how many values are not, and where.
    """
    flat = logits.flatten(1).double()
    ramp = torch.linspace(0, 1, flat.shape[1], dtype=torch.float64)

    def means(values: Tensor) -> list[Tensor]:
        return [x.mean(1) for x in (values, values.abs(), values * ramp)]

    found = means(flat)
    none = torch.zeros(len(flat), dtype=torch.float64)
    if found[1].isfinite().all():  # as a rule; to look at every value takes three times as long
        return torch.stack([*found, none, none], dim=1)
    odd = flat.isnan() + 2 * flat.isposinf() + 3 * flat.isneginf()
    finite = means(torch.where(odd > 0, 0, flat))
    return torch.stack([*finite, odd.sum(1), (odd * ramp).sum(1)], dim=1)
