"""From what a network puts out, and a label map, to independent binary problems."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from protoseg_fast._arrays import refuse_masked
from protoseg_fast.guide import is_whole
from protoseg_fast.network import devices
from protoseg_fast.network.hooks import plain
from protoseg_fast.network.records import check_distinct

__all__ = ["Activation", "Problems", "Targets", "as_tensor", "probabilities", "problems_of"]

Activation: TypeAlias = "Literal['sigmoid', 'softmax'] | Callable[[Tensor], Tensor] | None"
Targets: TypeAlias = "Mapping[str, int | Sequence[int]] | Sequence[str | int] | None"


@dataclass(frozen=True)
class Problems:
    """The T binary problems that a network solves.

    Attributes:
        names: of the targets.
        labels: the values of a label map that each target consists of; None where each has a
            channel of its own in the ground truth, too.
        classes: K of softmax, where a target's probability is the sum over its classes; None where
            it is a channel of its own (sigmoid).
    """

    names: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...] | None
    classes: int | None

    def pred(self, probability: Tensor) -> Tensor:
        """Return (N, T, *size) of the probabilities (N, K, *size) of the network's channels."""
        if self.classes is None or self.labels is None:
            return probability
        regions = [probability[:, list(labels)].sum(1) for labels in self.labels]
        return torch.stack(regions, dim=1).clamp(max=1)  # sums exceed 1 by rounding

    def truth(
        self, target: Any, pred: Tensor, mask: Tensor | None, ignore_label: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the binary ground truth (N, T, *size) beside pred, of its shape, and the voxels
        (N, 1, *size) that are not ignored, None if there is nothing to ignore.

        Raises:
            ValueError: if the target has another shape, or labels that are no integers, or, with
                softmax, no classes.
            TypeError: if it is complex.
        """
        target = as_tensor("target", target, pred.device)
        if target.is_complex():
            raise TypeError(f"target must be real, got dtype {target.dtype}.")
        shape = tuple(pred.shape)
        single = (shape[0], 1, *shape[2:])
        if tuple(target.shape) == (single[0], *single[2:]):
            target = target.unsqueeze(1)
        if tuple(target.shape) == single and (self.labels is not None or shape[1] == 1):
            counted = None
            if ignore_label is not None:  # compared in 64 bits: in 8, -1 is 255
                counted = (target if target.is_floating_point() else target.long()) != ignore_label
            if self.labels is not None:
                weighed = mask > 0 if mask is not None and mask.shape == target.shape else None
                target = _members(self._whole(target, counted, weighed), self.labels)
            elif counted is not None:
                target = torch.where(counted, target, torch.zeros_like(target))
            return target, counted
        if tuple(target.shape) == single != shape and self.labels is None:
            raise ValueError(
                f"target is a label map, but the network's {shape[1]} channels are independent of "
                'each other: with activation="softmax" they are classes; otherwise say with '
                "targets={name: labels}, channel by channel, which labels they stand for."
            )
        if tuple(target.shape) != shape:
            binary = f"binary of shape {shape}, a channel per target ({', '.join(self.names)})"
            raise ValueError(
                f"target must be a label map of shape {(single[0], *single[2:])} or {single}, or "
                f"{binary}, got {tuple(target.shape)}."
            )
        if ignore_label is not None:
            raise ValueError("ignore_label is for label maps; give the voxels that count as mask.")
        return target, None

    def _whole(self, target: Tensor, *counted: Tensor | None) -> Tensor:
        """Return a label map in int64, checked where it counts."""
        whole = target.round() if target.is_floating_point() else target
        if not torch.equal(whole, target):
            raise ValueError("target is a label map here and must hold whole numbers.")
        whole = whole.long()
        if self.classes is None:
            return whole
        wrong = (whole < 0) | (whole >= self.classes)
        for voxels in counted:
            wrong = wrong if voxels is None else wrong & voxels
        if wrong.any():
            found = whole[wrong].unique().tolist()
            raise ValueError(
                f"target holds {', '.join(map(str, found[:5]))}{', ...' * (len(found) > 5)}, but "
                f"the network's {self.classes} classes are labelled 0 to {self.classes - 1}; "
                "renumber the labels, or leave out what does not count by ignore_label or mask."
            )
        return whole


def problems_of(targets: Targets, channels: int, *, softmax: bool) -> Problems:
    """Find the binary problems of a network with so many channels. A region is a set of labels.

    Raises:
        ValueError: for names, classes or regions that do not go with the channels, and for two
            of one name.
        TypeError: for anything else than names, classes or regions.
    """
    wanted = channels - 1 if softmax else channels
    classes = channels if softmax else None
    if softmax and channels < 2:
        raise ValueError('activation="softmax" needs two channels or more; use "sigmoid" for one.')
    if targets is None:
        listed = range(1, channels) if softmax else range(channels)
        names = tuple(map(str, listed))
        return Problems(names, tuple((c,) for c in listed) if softmax else None, classes)
    if isinstance(targets, Mapping):
        names, labels = tuple(map(str, targets)), tuple(map(_labels, targets.values()))
    elif isinstance(targets, str) or not isinstance(targets, Sequence):
        raise TypeError(
            "targets must be a dictionary of names and labels, or a list of names or of classes, "
            f"got {targets!r}."
        )
    elif softmax and all(isinstance(t, numbers.Integral) for t in targets):
        names, labels = tuple(map(str, targets)), tuple(map(_labels, targets))
    else:
        if len(targets) != wanted:
            raise ValueError(
                f"targets must name {wanted} targets, as the network has {channels} channels"
                f"{', one of them background' if softmax else ''}, got {list(targets)}."
            )
        names = tuple(map(str, targets))
        check_distinct("targets", names)
        return Problems(names, tuple((c + 1,) for c in range(wanted)) if softmax else None, classes)
    if not names:
        raise ValueError("targets is empty; None means every channel.")
    check_distinct("targets", names)
    if softmax and (wrong := [c for region in labels for c in region if not 0 <= c < channels]):
        raise ValueError(f"targets has classes {wrong}, but the network has {channels} classes.")
    if not softmax and len(names) != channels:
        raise ValueError(
            f"targets must have an entry for each of the network's {channels} channels, in their "
            f"order, with the labels that the channel stands for; got {list(names)}."
        )
    return Problems(names, labels, classes)


def probabilities(logits: Tensor, activation: Activation) -> Tensor:
    """Apply the activation to what the network put out, in float32 or more, where it is scored."""
    logits = plain(logits)
    device = devices.scoring_device(logits)
    if callable(activation):
        result = activation(logits.clone())  # it may work in place
        if not isinstance(result, Tensor):
            raise TypeError(f"activation must return a tensor, got {type(result).__name__}.")
        return devices.move(plain(result), device)
    logits = devices.move(logits, device).to(torch.promote_types(logits.dtype, torch.float32))
    if activation == "sigmoid":
        return logits.sigmoid()
    if activation == "softmax":
        return logits.softmax(1)
    if activation is None:
        return logits
    raise ValueError(
        f'activation must be "sigmoid", "softmax", None or a function, got {activation!r}.'
    )


def as_tensor(name: str, value: Any, device: torch.device) -> Tensor:
    """Return a torch tensor or NumPy array as a plain tensor on that device.

    Raises:
        TypeError: for anything else, masked arrays included.
    """
    if isinstance(value, np.ndarray):
        refuse_masked(name, value)
        native = value.astype(value.dtype.newbyteorder("="), copy=False)
        shared = native.flags.writeable and min(native.strides, default=0) >= 0
        value = torch.from_numpy(native if shared else native.copy())  # which shares memory
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be a torch tensor or a NumPy array, got {type(value).__name__}."
        )
    return devices.move(plain(value), device)


def _members(whole: Tensor, labels: Sequence[tuple[int, ...]]) -> Tensor:
    found = torch.zeros(
        len(whole), len(labels), *whole.shape[2:], dtype=torch.bool, device=whole.device
    )
    for index, region in enumerate(labels):
        for label in region:  # a comparison takes a small part of isin's time
            found[:, index : index + 1] |= whole == label
    return found


def _labels(value: Any) -> tuple[int, ...]:
    values = (value,) if isinstance(value, numbers.Integral) else value
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise TypeError(f"A target's labels must be an int or several, got {value!r}.")
    if not all(map(is_whole, values)):
        raise TypeError(f"A target's labels must be an int or several, got {value!r}.")
    return tuple(dict.fromkeys(int(v) for v in values))
