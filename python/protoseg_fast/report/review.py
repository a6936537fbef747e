"""Which cases to look at first, without using the ground truth, and pictures of them."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from protoseg_fast.report.analysis import TargetResult
from protoseg_fast.report.load import Cohort
from protoseg_fast.web.svg import FALSE_ALARM, HIT, REGIONS, outline, overlay_uri, png_uri

__all__ = ["SHOWN", "CaseReview", "Pictures", "review"]

#: Cases shown with pictures.
SHOWN = 8
#: With fewer cases than this, none is called low: it is among the lowest tenth of so many.
TENTHS_FROM = 10
#: Pictures are thinned out to at most this many pixels a side.
LONGEST = 384

Color = tuple[int, int, int, int]


@dataclass(frozen=True)
class Picture:
    """One tile: its caption and its overlay, a PNG data URI or "" for the bare image."""

    caption: str
    overlay: str


@dataclass(frozen=True)
class Pictures:
    """A slice of a case.

    Attributes:
        target: which target is drawn.
        image: PNG data URI of the slice.
        width, height: of the slice in pixels as it is to be shown: unequal spacing is made up for.
        columns, rows: of the slice in stored pixels.
        truth: SVG path of the outline of the truth, in stored pixels; "" without truth.
        tiles: the pictures.
        where: which slice it is, in words.
    """

    target: str
    image: str
    width: float
    height: float
    columns: int
    rows: int
    truth: str
    tiles: list[Picture]
    where: str


@dataclass(frozen=True)
class CaseReview:
    """A case in the order of review.

    Attributes:
        place: 1 is to be looked at first.
        index: of the case in the cohort.
        name: of the case.
        target: the target that brought it here.
        reasons: in words.
        values: per target: dice, mean_sa, confidence, foreground.
        pictures: None if the case is not shown or has none.
    """

    place: int
    index: int
    name: str
    target: str
    reasons: list[str]
    values: dict[str, dict[str, float]]
    pictures: Pictures | None = field(repr=False, default=None)


def review(cohort: Cohort, targets: Sequence[TargetResult]) -> list[CaseReview]:
    """Order the cases by how much they need a look.

    For each target, cases are ranked by mean SA and by Soft Dice Confidence, the lowest first and
    the undefined before them; the mean of the two ranks, as a share of the cases, is the score of
    that target. A case has the lowest score of its targets. No ground truth is used.
    """
    if not cohort.cases or not targets:
        return []
    scores = pd.DataFrame({result.name: _rank_score(result.quality) for result in targets})
    worst = scores.to_numpy().argmin(axis=1)
    order = np.argsort(scores.min(axis=1).to_numpy(), kind="stable")
    reviews = []
    for place, index in enumerate(order.tolist(), start=1):
        result = targets[worst[index]]
        pictures = _pictures(cohort, index, result.name) if place <= SHOWN else None
        reviews.append(
            CaseReview(
                place=place,
                index=index,
                name=cohort.cases[index],
                target=result.name,
                reasons=[
                    f"{each.name}: {text}" if len(targets) > 1 else text
                    for each in targets
                    if (text := _reason(each, index))
                ],
                values={each.name: _values(each.quality, index) for each in targets},
                pictures=pictures,
            )
        )
    return reviews


def _rank_score(quality: pd.DataFrame) -> NDArray[np.float64]:
    """Return (cases,) scores in (0, 1]: low is suspicious. An estimate no case has is left out."""
    known = [name for name in ("mean_sa", "confidence") if quality[name].notna().any()]
    if not known:
        return np.ones(len(quality))
    ranks = quality[known].rank(na_option="top").mean(axis=1)
    return ranks.to_numpy(float) / len(quality)


def _values(quality: pd.DataFrame, index: int) -> dict[str, float]:
    row = quality.iloc[index]
    return {name: float(row[name]) for name in ("dice", "mean_sa", "confidence", "foreground")}


def _reason(result: TargetResult, index: int) -> str:
    """Say in words what is unusual about a case for one target; "" if nothing is."""
    row = result.quality.iloc[index]
    if row["foreground"] == 0:
        return "nothing found"
    found = []
    for name, words in (("mean_sa", "mean SA"), ("confidence", "Soft Dice Confidence")):
        values = result.quality[name]
        if not values.notna().any():
            continue
        if math.isnan(row[name]):
            found.append(f"{words} undefined")
        elif len(values) >= TENTHS_FROM and row[name] <= values.quantile(0.1):
            found.append(f"low {words}")
    return ", ".join(found)


# --- pictures -------------------------------------------------------------------------------------


def _pictures(cohort: Cohort, index: int, target: str) -> Pictures | None:
    path = cohort.previews[index]
    if path is None:
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return draw(dict(stored), cohort.targets.index(target), target, cohort.details[index])
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile):
        return None  # the page says that there is no picture


def draw(stored: dict[str, NDArray[Any]], t: int, target: str, details: dict[str, Any]) -> Pictures:
    """Draw a preview: image uint8 (H, W); truth, output and best_unit bool (T, H, W), where there.

    Args:
        stored: these arrays, axis and index.
        t, target: which target.
        details: of the case; its spacing gives the picture's proportions, its affine which way up.
    """
    turn, (down, across) = _view(stored, details)
    step = max(1, math.ceil(max(stored["image"].shape) / LONGEST))
    thin = slice(None, None, step)
    image = turn(stored["image"])[thin, thin].astype(np.uint8)
    maps = {
        name: turn(stored[name][t])[thin, thin].astype(bool)
        for name in ("truth", "output", "best_unit")
        if name in stored
    }
    truth = maps.get("truth")
    tiles = [Picture("Image", "")]
    if truth is not None:
        tiles.append(Picture("Truth", overlay_uri([(truth, REGIONS[0])])))
    titles = {"output": "Network's output", "best_unit": "Best single unit"}
    tiles += [Picture(titles[n], _overlay(maps[n], truth)) for n in titles if n in maps]
    rows, columns = image.shape
    return Pictures(
        target=target,
        image=png_uri(image),
        width=columns * across / min(down, across),
        height=rows * down / min(down, across),
        columns=columns,
        rows=rows,
        truth="" if truth is None else outline(truth),
        tiles=tiles,
        where=_where(stored, details),
    )


def _overlay(region: NDArray[np.bool_], truth: NDArray[np.bool_] | None) -> str:
    parts: list[tuple[NDArray[np.bool_], Color]] = [(region, REGIONS[0])]
    if truth is not None:
        parts = [(region & truth, HIT), (region & ~truth, FALSE_ALARM)]
    return overlay_uri(parts)


def _view(
    stored: dict[str, NDArray[Any]], details: dict[str, Any]
) -> tuple[Callable[[NDArray[Any]], NDArray[Any]], tuple[float, float]]:
    """Return how to turn a slice (H, W) for display, and the extents of its pixels down and across.

    With an affine, as radiologists look at it: the head or the front up, the patient's right, or
    front, on the left. Without, as it is stored.
    """
    axis, spacing = int(stored.get("axis", -1)), details.get("spacing") or []
    axes = [a for a in range(len(spacing)) if a != axis]
    if len(axes) != 2:
        return _as_stored, (1.0, 1.0)
    down, across = (abs(float(spacing[a])) or 1.0 for a in axes)
    affine = np.array(details.get("affine") or np.zeros((4, 4)), float)
    directions = affine[:3, axes]  # NIfTI's world: to the right, the front, the head
    world = np.abs(directions).argmax(axis=0)
    signs = [directions[w, i] for i, w in enumerate(world)]
    if axis < 0 or world[0] == world[1] or 0 in signs:
        return _as_stored, (down, across)
    flips = [slice(None, None, -1 if sign > 0 else 1) for sign in signs]
    upright = world[0] > world[1]  # the stored rows run along the axis that is to be vertical

    def turn(plane: NDArray[Any]) -> NDArray[Any]:
        flipped = plane[flips[0], flips[1]]
        return flipped if upright else flipped.T

    return turn, (down, across) if upright else (across, down)


def _as_stored(plane: NDArray[Any]) -> NDArray[Any]:
    return plane


def _where(stored: dict[str, NDArray[Any]], details: dict[str, Any]) -> str:
    shape, axis = details.get("shape") or [], int(stored.get("axis", -1))
    if axis < 0 or axis >= len(shape) or "index" not in stored:
        return ""
    return f"slice {int(stored['index']) + 1} of {shape[axis]} along axis {axis + 1}"
