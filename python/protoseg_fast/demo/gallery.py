"""Pictures of one held-out slice: the scan, the truth, and what single units make of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import protoseg_fast as psf
from protoseg_fast.demo.data import TARGETS, Slices
from protoseg_fast.demo.score import predict, visit_layers
from protoseg_fast.demo.summary import LayerSummary, Summary
from protoseg_fast.demo.unet import UNet
from protoseg_fast.web.svg import FALSE_ALARM, HIT, REGIONS, outline, overlay_uri, png_uri

MARGIN = 4  # voxels kept around the brain


@dataclass(frozen=True)
class UnitPicture:
    """The map of one unit on the shown slice.

    Attributes:
        title: "best", "worst", or "only" for a layer of one unit.
        unit: index of the unit.
        mean_sa: its mean SA over the held-out slices.
        sa: its SA on this slice.
        overlay: PNG data URI, the size of the slice: hits and false alarms.
    """

    title: str
    unit: int
    mean_sa: float
    sa: float
    overlay: str


@dataclass(frozen=True)
class Gallery:
    """Attributes:
    number: the shown slice's number in the volume.
    width, height: of every picture, in voxels.
    scan: PNG data URI of the slice.
    truth, output: overlays of both tissues, PNG data URIs.
    outlines: per target, SVG path data of the ground truth's outline.
    units: per target and layer name, the pictures of its best and worst unit.
    """

    number: int
    width: int
    height: int
    scan: str
    truth: str
    output: str
    outlines: list[str]
    units: dict[str, dict[str, list[UnitPicture]]]


def make_gallery(model: UNet, slices: Slices, summary: Summary, device: torch.device) -> Gallery:
    """Pictures of the middle one of the held-out ``slices``."""
    middle = len(slices) // 2
    shown = slices[middle : middle + 1]
    pred = predict(model, shown.image, device)
    guide = psf.Guide(pred, shown.target, shown.mask)
    frame = _frame(shown.mask[0, 0])
    units: dict[str, dict[str, list[UnitPicture]]] = {target: {} for target in TARGETS}
    by_name = {
        target: {entry.layer.name: entry for entry in summary.layers[target]} for target in TARGETS
    }

    def visit(name: str, features: Tensor) -> None:
        for t, target in enumerate(TARGETS):
            entry = by_name[target][name]
            chosen = _extremes(entry)
            few = features[:, list(chosen.values())]
            maps = guide.segment(few, groups="unit")[0, :, t] & shown.mask[0]
            scores = guide.sa_score(few, groups="unit")[0, :, t]
            units[target][name] = [
                UnitPicture(
                    title=title,
                    unit=unit,
                    mean_sa=float(entry.unit_sa[unit]),
                    sa=float(score),
                    overlay=_agreement(frame, unit_map, shown.target[0, t]),
                )
                for (title, unit), unit_map, score in zip(chosen.items(), maps, scores, strict=True)
            ]

    visit_layers(model, shown.image, pred, device, visit)
    scan = display(shown.image[0, 0], frame)
    return Gallery(
        number=int(shown.number[0]),
        width=scan.shape[1],
        height=scan.shape[0],
        scan=png_uri(np.round(255 * scan).astype(np.uint8)),
        truth=_tissues(frame, shown.target[0]),
        output=_tissues(frame, (pred[0] > 0.5) & shown.mask[0]),
        outlines=[outline(display(region, frame)) for region in shown.target[0]],
        units=units,
    )


Frame = tuple[slice, slice]


def _frame(mask: Tensor) -> Frame:
    """The box around the brain, with a margin, in a slice (H, W)."""
    sides = []
    for axis in (1, 0):
        inside = torch.nonzero(mask.any(dim=axis))[:, 0]
        sides.append(slice(max(int(inside[0]) - MARGIN, 0), int(inside[-1]) + 1 + MARGIN))
    return sides[0], sides[1]


def display(plane: Tensor, frame: Frame) -> NDArray[Any]:
    """A slice (x, y) as an image (row, column): the nose points up, left is left."""
    array: NDArray[Any] = plane[frame].numpy()[:, ::-1].T
    return array


def _extremes(entry: LayerSummary) -> dict[str, int]:
    if entry.layer.units == 1:
        return {"only": 0}
    return {"best": entry.best, "worst": entry.worst}


def _agreement(frame: Frame, unit_map: Tensor, truth: Tensor) -> str:
    """Overlay of a unit's map (H, W): right where it meets the truth, else a false alarm."""
    return _overlay(frame, [(unit_map & truth, HIT), (unit_map & ~truth, FALSE_ALARM)])


def _tissues(frame: Frame, regions: Tensor) -> str:
    """Overlay of all targets, regions (T, H, W)."""
    return _overlay(frame, list(zip(regions, REGIONS, strict=True)))


def _overlay(frame: Frame, parts: list[tuple[Tensor, tuple[int, int, int, int]]]) -> str:
    return overlay_uri([(display(region, frame).astype(bool), colour) for region, colour in parts])
