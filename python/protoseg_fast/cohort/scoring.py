"""Scoring one case: the table, what is said of the output, and a slice to look at."""

from __future__ import annotations

import contextlib
import io
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from protoseg_fast._arrays import to_numpy
from protoseg_fast.cohort.config import SweepConfig
from protoseg_fast.cohort.layouts import Case
from protoseg_fast.cohort.volumes import CaseError, Volume
from protoseg_fast.guide import Guide
from protoseg_fast.network.ability_map import SegmentationAbilityMap
from protoseg_fast.network.extras import require
from protoseg_fast.network.problems import Problems
from protoseg_fast.network.records import OUTPUT, TARGET, Record
from protoseg_fast.network.sweep import segmentation_ability_map
from protoseg_fast.network.windows import SlidingWindow

__all__ = ["Failure", "Scored", "failure_of", "score_case", "seeded"]

#: Longest edge of a preview, in pixels: larger slices are thinned out.
PREVIEW_EDGE = 256


@dataclass(frozen=True)
class Scored:
    """A case's results, as the files that `Store` writes.

    Attributes:
        info: of ``cases/<case>.json``.
        table: of ``tables/<case>.parquet``.
        preview: of ``previews/<case>.npz``; None: there is none.
        roi_size: the smaller window that an out-of-memory case was scored with; None: as asked.
    """

    info: dict[str, Any]
    table: bytes
    preview: bytes | None
    roi_size: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Failure:
    """Why a case has no results; of ``failures/<case>.json``."""

    case: str
    kind: str
    reason: str
    traceback: str


def failure_of(case: str, error: BaseException) -> Failure:
    """Describe an error that scoring or reading a case raised."""
    kind = error.kind if isinstance(error, CaseError) else "network"
    kind = "memory" if _out_of_memory(error) else kind
    text = "".join(traceback.format_exception(error))
    reason = str(error) if isinstance(error, CaseError) else f"{type(error).__name__}: {error}"
    return Failure(case, kind, reason, text)


def score_case(model: nn.Module, case: Case, volume: Volume, config: SweepConfig) -> Scored:
    """Score every chosen layer and unit of the network on a case.

    The network runs once on a case, or on a window, whose features fit into
    ``config.memory_budget``, and again on others, as `protoseg_fast.segmentation_ability_map` says.
    Where memory runs out, features are not copied, and then windows of half the size are taken.

    Raises:
        ValueError, RuntimeError: as `protoseg_fast.segmentation_ability_map`, and the network.
        MemoryError: if memory runs out with the smaller windows, too.
    """
    budgets = (config.memory_budget, 0.0) if config.memory_budget > 0 else (0.0,)
    with seeded(config):
        for budget in budgets:
            try:
                return _score(model, case, volume, config, config.roi_size, budget)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
            if config.device.startswith("cuda"):
                torch.cuda.empty_cache()
        smaller = _halved(config.roi_size, volume.image.shape[1:])
        return _score(model, case, volume, config, smaller, 0.0)


@contextlib.contextmanager
def seeded(config: SweepConfig) -> Iterator[None]:
    """Within the block, torch draws from the configured seed; the caller's draws go on after it."""
    devices = [config.device] if config.device.startswith("cuda") else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(config.seed)
        yield


def _score(
    model: nn.Module,
    case: Case,
    volume: Volume,
    config: SweepConfig,
    roi_size: tuple[int, ...] | None,
    budget: float,
) -> Scored:
    window = None
    if roi_size is not None:
        window = SlidingWindow(
            roi_size if len(roi_size) > 1 else roi_size[0],
            config.overlap,
            config.window_mode,
            config.batch,
        )
    kept = _Kept(config.previews)
    image = torch.from_numpy(np.ascontiguousarray(volume.image))[None]
    sam = segmentation_ability_map(
        model,
        image.to(device=config.device, dtype=getattr(torch, config.dtype)),
        target=_tensor(volume.label),
        mask=_tensor(volume.mask, channel=True),
        layers=list(config.layers) if len(config.layers) > 1 else config.layers[0],
        activation=None if config.activation == "none" else config.activation,  # type: ignore[arg-type]
        targets=config.targets,
        ignore_label=config.ignore_label,
        metric=config.metric,  # type: ignore[arg-type]
        interpolation=config.interpolation,  # type: ignore[arg-type]
        cases=[case.name],
        keep="auto" if budget > 0 else None,
        memory_budget=budget,
        window=window,
        scope=config.scope,  # type: ignore[arg-type]
        _observer=kept,
    )
    options: dict[str, Any] = {"metric": config.metric, "interpolation": config.interpolation}
    preview = kept.preview(volume.image, options) if config.previews else None
    info = _info(case, volume, kept.outputs())
    return Scored(info, _parquet(sam), preview, None if roi_size == config.roi_size else roi_size)


@dataclass
class _Kept:
    """What is kept of the passes: the prediction, and the features of the best unit so far."""

    units: bool
    names: Sequence[str] = ()
    arrays: tuple[Tensor, Tensor | None, Tensor | None] | None = None
    guide: Guide | None = None
    best: dict[int, tuple[float, Tensor]] = field(default_factory=dict)

    def predicted(
        self, problems: Problems, pred: Tensor, truth: Tensor | None, mask: Tensor | None
    ) -> None:
        self.names, self.arrays = problems.names, (pred, truth, mask)

    def scored(self, record: Record, guide: Guide, features: Tensor) -> None:
        if record.whole or not self.units:
            return
        self.guide = guide
        counts = record.counts[TARGET if TARGET in record.counts else OUTPUT]
        scores = np.fmax(to_numpy(counts._score("dice", "nan"))[0], -1.0)  # (units, T), -1 for NaN
        for t, unit in enumerate(scores.argmax(0)):
            score = float(scores[unit, t])
            if score > self.best.get(t, (-1.0, None))[0]:
                self.best[t] = (score, features[:, unit : unit + 1].clone())

    def outputs(self) -> dict[str, dict[str, Any]]:
        """Return Dice, Soft Dice Confidence and size of the output, for each target."""
        assert self.arrays is not None
        pred, truth, mask = self.arrays
        found = {}
        for t, name in enumerate(self.names):
            p, true = pred[0, t], None if truth is None else truth[0, t] > 0.5
            y = p > 0.5
            if mask is not None:
                counted = mask[0, 0] > 0
                p, y = torch.where(counted, p, 0), y & counted
                true = None if true is None else true & counted
            foreground, total = _count(y), float(p.sum(dtype=torch.float64))
            inside = float((p * y).sum(dtype=torch.float64))
            confidence = 2 * inside / (total + foreground) if total > 0 else 0.0
            dice = None
            if true is not None:
                both = foreground + _count(true)
                dice = 2 * _count(y & true) / both if both else None
            found[name] = {
                "dice": dice, "soft_dice_confidence": confidence, "foreground": foreground
            }  # fmt: skip
        return found

    def preview(self, image: np.ndarray[Any, Any], options: dict[str, Any]) -> bytes | None:
        """Return the slice with the largest target, or output, as an .npz file."""
        assert self.arrays is not None
        pred, truth, _ = self.arrays
        if tuple(pred.shape[2:]) != image.shape[1:] or len(image.shape) < 3:
            return None
        output = (pred[0] > 0.5).cpu().numpy()
        true = None if truth is None else (truth[0] > 0.5).cpu().numpy()
        shown = output if true is None or not true.any() else true
        axis = image.ndim - 2 if image.ndim == 4 else -1  # of the volume; -1: it is a slice
        index = 0
        if axis >= 0:
            index = int(shown.any(0).sum(axis=tuple(range(axis))).argmax())
        cut = (..., index) if axis >= 0 else (...,)
        step = max(1, -(-max(image[0][cut].shape) // PREVIEW_EDGE))
        thin = (..., slice(None, None, step), slice(None, None, step))
        shown_image = image[0][cut][thin]
        low, high = np.percentile(shown_image, (0.5, 99.5))
        grey = np.clip((shown_image - low) / max(high - low, 1e-12), 0, 1)
        arrays: dict[str, Any] = {
            "image": np.rint(255 * grey).astype(np.uint8),
            "output": output[cut][thin],
            "axis": np.int64(axis),
            "index": np.int64(index),
        }
        if true is not None:
            arrays["truth"] = true[cut][thin]
        if self.guide is not None:
            arrays["best_unit"] = self._best_unit(output.shape, options)[cut][thin]
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        return file.getvalue()

    def _best_unit(
        self, shape: tuple[int, ...], options: dict[str, Any]
    ) -> np.ndarray[Any, np.dtype[np.bool_]]:
        assert self.guide is not None
        maps = np.zeros(shape, dtype=bool)
        for t, (_, features) in self.best.items():
            maps[t] = self.guide.segment(features, **options)[0, 0, t].cpu().numpy()
        return maps


def _info(case: Case, volume: Volume, outputs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    record = case.record()
    paths: list[str] = record["image"]
    return {
        "case": case.name,
        "image": paths[0] if len(paths) == 1 else paths,
        "label": record["label"],
        "shape": list(volume.image.shape[1:]),
        "affine": None if volume.affine is None else np.asarray(volume.affine).tolist(),
        "spacing": None if volume.spacing is None else [float(s) for s in volume.spacing],
        "outputs": outputs,
        "status": "done",
    }


def _parquet(sam: SegmentationAbilityMap) -> bytes:
    file = io.BytesIO()
    require("pyarrow.parquet", "a sweep").write_table(sam.to_arrow(), file)
    return file.getvalue()


def _count(mask: Tensor) -> int:
    return int(torch.count_nonzero(mask))


def _tensor(array: Any, *, channel: bool = False) -> Tensor | None:
    if array is None:
        return None
    tensor = torch.from_numpy(np.ascontiguousarray(array))[None]
    return tensor[None] if channel else tensor


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "not enough memory" in text or "out of memory" in text or "can't allocate memory" in text
    )


def _halved(roi_size: tuple[int, ...] | None, size: Sequence[int]) -> tuple[int, ...]:
    """Windows of half the size, in multiples of 16 voxels, which most networks ask for."""
    now = list(size)
    if roi_size is not None:
        asked = list(roi_size) * (len(size) if len(roi_size) == 1 else 1)
        now = [n if a <= 0 else a for a, n in zip(asked, size, strict=True)]
    return tuple(max(16, -(-n // 32) * 16) for n in now)
