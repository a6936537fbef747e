"""Who is timed: what people would use instead, what reads the features once, and protoseg_fast.

A contender is prepared for a workload and then takes features (N, C, *feature_size) to scores
(N, G, T), which must agree with the specification before anything is timed. One that cannot take
part raises `UnavailableError` with the reason.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import authors
import expert
import torch
from torch import Tensor
from workloads import Inputs, Workload

import protoseg_fast as psf

Call = Callable[[Tensor], Any]

READ = "read once (torch.sum)"
OURS = "protoseg_fast"
OURS_GUIDED = "protoseg_fast, guide at hand"


class UnavailableError(Exception):
    """Says in a sentence why a contender cannot take part."""


@dataclass
class Prepared:
    """A contender ready for one workload: what to call, and what the table should say about it."""

    call: Call
    note: str = ""


@dataclass(frozen=True)
class Contender:
    """One row of the tables.

    Attributes:
        name: what tables and records call it.
        prepare: binds it to a workload; ``sample`` is what it is tuned on and warmed up with:
            the features, or those of a few groups where all would take too long.
        by_group: cost is proportional to the groups, so a few may be timed and scaled up.
        memory_by_group: its peak memory is proportional to the groups as well.
        scores: what it returns are scores, to be checked.
        compiles: takes seconds to prepare; timed in the headline table only.
        shape_bound: compiled for as many groups as it is prepared on.
        applies: which workloads it can do.
    """

    name: str
    prepare: Callable[[Workload, Inputs, Tensor], Prepared]
    by_group: bool = False
    memory_by_group: bool = False
    scores: bool = True
    compiles: bool = False
    shape_bound: bool = False
    applies: Callable[[Workload], bool] = lambda workload: True


def _read(workload: Workload, inputs: Inputs, sample: Tensor) -> Prepared:
    if not workload.resized:
        return Prepared(lambda features: features.sum())
    target = inputs.target.view(torch.int8)
    return Prepared(
        lambda features: (features.sum(), inputs.pred.sum(), target.sum(dtype=torch.int32)),
        note="features, pred and target; all may be in cache",
    )


def _published(
    score: Callable[..., Tensor], compiled: bool
) -> Callable[[Workload, Inputs, Tensor], Prepared]:
    def prepare(workload: Workload, inputs: Inputs, sample: Tensor) -> Prepared:
        module = torch.compile(authors.similarity, dynamic=False) if compiled else None

        def call(features: Tensor) -> Tensor:
            return score(
                module or authors.similarity,
                features,
                inputs.pred,
                inputs.target,
                workload.group_channels,
            )

        if not compiled:
            return Prepared(call)
        one_by_one = score is authors.score_one_by_one
        return _compiled(call, sample[:, : workload.group_channels] if one_by_one else sample)

    return prepare


def _compiled(call: Call, sample: Tensor) -> Prepared:
    """The call after its first compilation, which may fail for want of a compiler."""
    try:
        call(sample)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        reason = f"torch.compile: {type(error).__name__}: {lines[0]}"
        raise UnavailableError(reason) from error
    return Prepared(call)


def _expert(workload: Workload, inputs: Inputs, sample: Tensor) -> Prepared:
    variant = expert.fastest(workload, inputs, sample)
    channels = workload.group_channels
    return Prepared(
        lambda features: expert.score(features, inputs.pred, inputs.target, channels, variant),
        note=f"fastest of {len(expert.variants(workload))} variants: {variant}",
    )


def _expert_compiled(workload: Workload, inputs: Inputs, sample: Tensor) -> Prepared:
    fused = torch.compile(expert.fusible_units, dynamic=False)
    return _compiled(lambda features: fused(features, inputs.pred, inputs.target), sample)


def _maps_and(
    package: str, make_dice: Callable[[Any], Callable[[Tensor, Tensor], Tensor]]
) -> Callable[[Workload, Inputs, Tensor], Prepared]:
    """The expert's maps, scored by the Dice of a metrics package: (1, U, *size) -> (U,)."""

    def prepare(workload: Workload, inputs: Inputs, sample: Tensor) -> Prepared:
        try:
            dice = make_dice(importlib.import_module(package))
        except (ImportError, AttributeError) as error:
            raise UnavailableError(f"{type(error).__name__}: {error}") from error
        variant = expert.fastest(workload, inputs, sample)

        def call(features: Tensor) -> Tensor:
            images = zip(features, inputs.pred, inputs.target, strict=True)
            return torch.stack([_image_scores(workload, dice, variant, *image) for image in images])

        return Prepared(call, note="the expert's maps, its Dice")

    return prepare


def _image_scores(
    workload: Workload,
    dice: Callable[[Tensor, Tensor], Tensor],
    variant: expert.Variant,
    features: Tensor,
    pred: Tensor,
    target: Tensor,
) -> Tensor:
    """Scores (G, T) of one image by a metrics package."""
    if workload.group_channels == 1:
        maps = expert.unit_maps(features, pred, variant)
    else:
        by_group = expert.group_maps(features, pred, workload.group_channels)
        maps = ((t, by_group[:, t]) for t in range(len(pred)))
    scores: list[list[Tensor]] = [[] for _ in pred]
    for t, foreground in maps:
        scores[t].append(dice(foreground[None], target[t].expand_as(foreground)[None]).flatten())
    return torch.stack([torch.cat(parts) for parts in scores], dim=1)


def _monai(module: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda maps, target: module.compute_dice(maps, target, ignore_empty=False)


def _torchmetrics(module: Any) -> Callable[[Tensor, Tensor], Tensor]:
    dice_score = module.dice_score

    def dice(maps: Tensor, target: Tensor) -> Tensor:
        return dice_score(maps, target, maps.shape[1], average="none", input_format="one-hot")

    return dice


def _ours(guided: bool) -> Callable[[Workload, Inputs, Tensor], Prepared]:
    def prepare(workload: Workload, inputs: Inputs, sample: Tensor) -> Prepared:
        def one_shot(features: Tensor) -> Tensor:
            groups = features.shape[1] // workload.group_channels
            return psf.sa_score(features, inputs.pred, inputs.target, groups=groups)

        if inputs.features.device.type != "cpu":
            try:
                one_shot(sample)
            except TypeError as error:  # a build without this device says so
                raise UnavailableError(str(error)) from error
        if not guided:
            return Prepared(one_shot)
        guide = psf.Guide(inputs.pred, inputs.target)
        return Prepared(
            lambda features: guide.sa_score(
                features, groups=features.shape[1] // workload.group_channels
            )
        )

    return prepare


def _units(workload: Workload) -> bool:
    return workload.group_channels == 1


def _many_groups(workload: Workload) -> bool:
    return workload.group_count > 1


_LOOP, _BATCH = authors.score_one_by_one, authors.score_batched

#: In the order of the tables.
CONTENDERS = [
    Contender(READ, _read, scores=False),
    Contender("published, one by one", _published(_LOOP, compiled=False), by_group=True),
    Contender(
        "published, batched",
        _published(_BATCH, compiled=False),
        by_group=True,
        memory_by_group=True,
        applies=_many_groups,
    ),
    Contender(
        "published, one by one, torch.compile",
        _published(_LOOP, compiled=True),
        by_group=True,
        compiles=True,
    ),
    Contender(
        "published, batched, torch.compile",
        _published(_BATCH, compiled=True),
        by_group=True,
        memory_by_group=True,
        compiles=True,
        shape_bound=True,
        applies=_many_groups,
    ),
    Contender("expert PyTorch", _expert, by_group=True),
    Contender(
        "expert PyTorch, torch.compile",
        _expert_compiled,
        by_group=True,
        memory_by_group=True,
        compiles=True,
        shape_bound=True,
        applies=_units,
    ),
    Contender("expert maps, MONAI Dice", _maps_and("monai.metrics", _monai), by_group=True),
    Contender(
        "expert maps, torchmetrics Dice",
        _maps_and("torchmetrics.functional.segmentation", _torchmetrics),
        by_group=True,
    ),
    Contender(OURS, _ours(guided=False)),
    Contender(OURS_GUIDED, _ours(guided=True)),
]

#: What the main comparisons are with.
LOOP, BATCHED, EXPERT = (CONTENDERS[i].name for i in (1, 2, 5))
