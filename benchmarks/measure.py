"""From a workload to rows: prepare every contender, check it, time it, sum it up."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from contenders import CONTENDERS, OURS, OURS_GUIDED, READ, Contender, Prepared, UnavailableError
from timing import MIN_ROUNDS, Entry, clock_of, time_entries, time_warm
from torch import Tensor
from workloads import Inputs, Workload, make_inputs

import protoseg_fast as psf

#: Largest difference of a score from the specification, over the doubt that float32 is due.
PEER_TOLERANCE, OUR_TOLERANCE = 1e-3, 1e-6

#: Margins up to this, times the square of the features' scale, are within rounding in float32; and
#: so are those that a softmax near 1/2 cannot tell from 0, whatever the scale.
FLOAT32_ROUNDING, SOFTMAX_ROUNDING = 1e-5, 3e-7


class DisagreementError(Exception):
    """A contender's scores are not those of the specification: its time means nothing."""


@dataclass(frozen=True)
class Settings:
    """How much to measure.

    Attributes:
        device: torch device of all inputs.
        budget_s: seconds of timing per contender of the headline table.
        curve_budget_s: the same per contender and point of a curve.
        compiles: whether the contenders that compile take part.
        threads: of every contender, unless a workload says otherwise.
    """

    device: str = "cpu"
    budget_s: float = 4.0
    curve_budget_s: float = 0.6
    compiles: bool = True
    threads: int = 1

    def budget(self, workload: Workload) -> float:
        """Seconds per contender of this workload."""
        return self.curve_budget_s if workload.curve else self.budget_s


@dataclass
class Row:
    """One contender on one workload; seconds of a whole call, extrapolated where ``timed`` says so.

    Attributes:
        best_s: the fastest call, which other programs on the machine disturb least.
        times_limit: median over that of reading once, or of the forward pass of a network.
        times_ours: median over that of protoseg_fast's one-shot call; None where it was skipped.
        gb_per_s: bytes that must be read, over the median.
        share_of_read: gb_per_s over that of the read; None for a network.
        peak_bytes: most memory held during the call beyond what was there before.
        timed: groups timed, of ``groups``; less means that times are scaled up.
    """

    workload: str
    contender: str
    median_s: float
    low_s: float
    high_s: float
    best_s: float
    calls: int
    curve: str = ""
    x: float | str = 0
    groups: int = 1
    timed: int = 1
    times_limit: float = 1.0
    times_ours: float | None = None
    gb_per_s: float | None = None
    share_of_read: float | None = None
    warm_s: float | None = None
    peak_bytes: float | None = None
    note: str = ""

    @property
    def spread(self) -> float:
        """Quartile range over the median."""
        return (self.high_s - self.low_s) / self.median_s

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the row in another record."""
        return self.workload, self.contender


@dataclass
class Result:
    """Rows, and who was left out with the reason: (workload, contender, reason)."""

    rows: list[Row] = field(default_factory=list)
    skipped: list[tuple[str, str, str]] = field(default_factory=list)

    def __iadd__(self, other: Result) -> Result:
        self.rows += other.rows
        self.skipped += other.skipped
        return self

    def find(self, workload: str, contender: str) -> Row | None:
        """The row of a contender on a workload."""
        return next((row for row in self.rows if row.key == (workload, contender)), None)


@dataclass
class Ready:
    """A prepared contender and the groups it is timed on, in the order of `spread_groups`."""

    contender: Contender
    prepared: Prepared
    timed: int


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    """Everyone's number of threads."""
    previous = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def spread_groups(workload: Workload) -> list[int]:
    """All groups in a random order, of which any first few are typical."""
    return torch.randperm(workload.group_count, generator=torch.Generator().manual_seed(0)).tolist()


def take_groups(workload: Workload, features: Tensor, count: int) -> Tensor:
    """The features of the first ``count`` groups of `spread_groups`; all of them as they are."""
    if count == workload.group_count:
        return features
    groups = features.unflatten(1, (workload.group_count, workload.group_channels))
    chosen = torch.tensor(spread_groups(workload)[:count], device=features.device)
    return groups.index_select(1, chosen).flatten(1, 2)


def sample_groups(workload: Workload, budget: float) -> int:
    """How many groups to prepare the dearer contenders on: 2^22 voxels of maps per second."""
    voxels = workload.images * workload.targets * int(np.prod(workload.size))
    fitting = int(2**22 * budget / (voxels * workload.group_channels))
    return min(workload.group_count, max(2, fitting))


def prepare(
    contender: Contender, workload: Workload, inputs: Inputs, budget: float, device: str
) -> Ready:
    """Prepare a contender, and settle how many groups fit the budget."""
    most = sample_groups(workload, budget) if contender.by_group else workload.group_count
    with torch.inference_mode():
        prepared = contender.prepare(workload, inputs, take_groups(workload, inputs.features, most))
        if not contender.by_group or contender.shape_bound:
            return Ready(contender, prepared, most)
        timed = min(most, 2)
        for _ in range(2):  # what a few groups take says how many fit; those say it better
            sample = take_groups(workload, inputs.features, timed)
            prepared.call(sample)
            seconds = clock_of(device)(lambda x=sample: prepared.call(x))
            timed = max(1, min(most, int(timed * budget / (MIN_ROUNDS + 2) / seconds)))
    return Ready(contender, prepared, timed)


@dataclass(frozen=True)
class Expected:
    """What the specification says about the first groups of `spread_groups`, (N, k, T) each.

    Attributes:
        scores: SA scores in float64.
        doubt: how far float32 may be off: the share of voxels so near the boundary that its
            rounding decides them, as a difference of Dice.
    """

    scores: Tensor
    doubt: Tensor


def oracle(workload: Workload, inputs: Inputs, budget: float) -> Expected:
    """Ask the specification about as many groups as the budget allows."""
    voxels = workload.images * workload.targets * int(np.prod(workload.size))
    count = int(2**21 * budget / (voxels * workload.group_channels))
    count = min(workload.group_count, max(1, count))
    features = take_groups(workload, inputs.features, count).cpu()
    pred, target = inputs.pred.cpu(), inputs.target.cpu()
    scores = psf.reference.sa_score(features, pred, target, groups=count)
    margin = np.abs(psf.reference.margin(features, pred, groups=count))
    squares = features.double().square().unflatten(1, (count, -1)).flatten(3)
    scale = squares.amax(3).sum(2).reshape(*margin.shape[:2], *(1,) * (margin.ndim - 2))
    band = np.maximum(FLOAT32_ROUNDING * scale.numpy(), SOFTMAX_ROUNDING)
    near = (margin <= band).sum(axis=tuple(range(3, margin.ndim)))
    actual = target.flatten(2).sum(2)[:, None].numpy()
    expected = [torch.from_numpy(x) for x in (scores, 2 * near / np.maximum(actual, 1))]
    if count == workload.group_count:
        expected = [x[:, spread_groups(workload)] for x in expected]
    return Expected(*expected)


def verify(workload: Workload, contender: str, scores: Tensor, expected: Expected) -> None:
    """Compare scores (N, groups, T) with those of the specification.

    Both are of the first groups of `spread_groups`, or ``scores`` of all groups in their order.
    Peers compute in float32, and are excused from the voxels that its rounding decides.

    Raises:
        DisagreementError: naming the workload, the contender and the largest difference.
    """
    found = scores.cpu().double()
    if found.shape[1] == workload.group_count:
        found = found[:, spread_groups(workload)]
    shared = min(found.shape[1], expected.scores.shape[1])
    found, wanted = found[:, :shared], expected.scores[:, :shared]
    difference = (found - wanted).abs().masked_fill(found.isnan() & wanted.isnan(), 0)
    if contender in (OURS, OURS_GUIDED):
        excess = difference - OUR_TOLERANCE
    else:
        excess = difference.nan_to_num(1.0) - PEER_TOLERANCE - expected.doubt[:, :shared]
    if not (excess <= 0).all():
        raise DisagreementError(
            f"{workload.name}: a score of {contender!r} is {difference.max():.2g} away from the "
            "specification, so nothing was timed."
        )


def applicable(workload: Workload, settings: Settings) -> list[Contender]:
    """The contenders that take part; those that compile only in the headline table."""
    return [
        contender
        for contender in CONTENDERS
        if contender.applies(workload)
        and not (contender.compiles and (workload.curve or not settings.compiles))
    ]


def measure(workload: Workload, settings: Settings, inputs: Inputs | None = None) -> Result:
    """Check and time every contender on a workload.

    Args:
        workload: the problem.
        settings: device and budgets.
        inputs: made by `make_inputs` unless given.

    Raises:
        DisagreementError: a contender's scores are wrong.
    """
    with thread_count(workload.threads or settings.threads):
        budget = settings.budget(workload)
        inputs = inputs or make_inputs(workload, settings.device)
        expected = oracle(workload, inputs, budget)
        result, ready = Result(), []
        if not settings.compiles and not workload.curve:
            result.skipped = [
                (workload.name, contender.name, "compiling takes too long for a quick run")
                for contender in CONTENDERS
                if contender.compiles and contender.applies(workload)
            ]
        for contender in applicable(workload, settings):
            try:
                one = prepare(contender, workload, inputs, budget, settings.device)
            except UnavailableError as reason:
                result.skipped.append((workload.name, contender.name, str(reason)))
                continue
            if contender.scores:
                with torch.inference_mode():
                    scores = one.prepared.call(take_groups(workload, inputs.features, one.timed))
                verify(workload, contender.name, scores, expected)
            ready.append(one)
        entries = _entries(workload, inputs, ready)
        clock = clock_of(settings.device)
        time_entries(entries, budget, clock)
        if not workload.curve:
            whole = [
                entry
                for entry, one in zip(entries, ready, strict=True)
                if one.timed == workload.group_count
            ]
            time_warm(whole, clock)
        torch.compiler.reset()
        result.rows = summarise(workload, ready, entries)
    return result


def _entries(workload: Workload, inputs: Inputs, ready: Sequence[Ready]) -> list[Entry]:
    """Calls and the copies of the features that they rotate over."""
    copies = [inputs.features]
    copies += [inputs.features.clone() for _ in range(workload.copies() - 1)]
    parts = {workload.group_count: copies}
    for count in {one.timed for one in ready} - {workload.group_count}:
        parts[count] = [take_groups(workload, copy, count) for copy in copies]
    return [Entry(one.contender.name, one.prepared.call, parts[one.timed]) for one in ready]


def summarise(workload: Workload, ready: Sequence[Ready], entries: Sequence[Entry]) -> list[Row]:
    """One row per contender, with ratios to the read and to protoseg_fast."""
    rows = [
        dataclasses.replace(
            summarise_seconds(workload.name, entry, scale=workload.group_count / one.timed),
            curve=workload.curve,
            x=workload.x,
            groups=workload.group_count,
            timed=one.timed,
            note=one.prepared.note,
        )
        for one, entry in zip(ready, entries, strict=True)
    ]
    medians = {row.contender: row.median_s for row in rows}
    for row in rows:
        row.times_limit = row.median_s / medians[READ]
        row.share_of_read = medians[READ] / row.median_s
        row.gb_per_s = workload.limit_bytes / row.median_s / 1e9
        row.times_ours = row.median_s / medians[OURS] if OURS in medians else None
    return rows


def summarise_seconds(name: str, entry: Entry, scale: float = 1.0) -> Row:
    """Median and quartiles of an entry's calls; ratios are for the caller to fill in."""
    low, median, high = (float(scale * np.quantile(entry.seconds, q)) for q in (0.25, 0.5, 0.75))
    return Row(
        name,
        entry.name,
        median_s=median,
        low_s=low,
        high_s=high,
        best_s=scale * min(entry.seconds),
        calls=len(entry.seconds),
        warm_s=statistics.median(entry.warm_seconds) if entry.warm_seconds else None,
    )


def to_json(result: Result) -> dict[str, Any]:
    """Rows and skipped contenders as plain data."""
    return {
        "rows": [dataclasses.asdict(row) for row in result.rows],
        "skipped": [list(entry) for entry in result.skipped],
    }


def from_json(record: dict[str, Any]) -> Result:
    """The inverse of `to_json`; unknown fields of a newer record are an error that names them."""
    return Result(
        [Row(**row) for row in record["rows"]],
        [(entry[0], entry[1], entry[2]) for entry in record["skipped"]],
    )
