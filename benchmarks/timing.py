"""Timing side by side: every contender in turn, round after round, in the same conditions."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

MIN_ROUNDS, MAX_ROUNDS = 3, 30

#: Cheap contenders are called several times a round, so that the first call after another
#: contender, with its threads and its cache, is not all there is.
BURST = 5
CHEAP_S = 0.02

Clock = Callable[[Callable[[], Any]], float]


def cpu_clock(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def cuda_clock(call: Callable[[], Any]) -> float:
    """Seconds between two events around one call."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) / 1e3


def clock_of(device: str) -> Clock:
    """The clock of a device."""
    return cuda_clock if torch.device(device).type == "cuda" else cpu_clock


@dataclass
class Entry:
    """One contender's calls: it rotates over ``features``."""

    name: str
    call: Callable[[Tensor], Any]
    features: Sequence[Tensor]
    seconds: list[float] = field(default_factory=list)
    warm_seconds: list[float] = field(default_factory=list)
    estimate: float = 0.0
    turn: int = 0

    def time_next(self, clock: Clock) -> float:
        """Seconds of a call on the next copy of the features."""
        self.turn = (self.turn + 1) % len(self.features)
        features = self.features[self.turn]
        return clock(lambda: self.call(features))

    @property
    def burst(self) -> int:
        """Calls per round."""
        return BURST if self.estimate < CHEAP_S else 1

    def rounds(self, budget: float) -> int:
        """How many rounds fit a budget of seconds."""
        return min(MAX_ROUNDS, max(MIN_ROUNDS, int(budget / (self.estimate * self.burst))))


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection and no autograd."""
    gc.collect()
    gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        gc.enable()


def time_entries(entries: Sequence[Entry], budget: float, clock: Clock) -> None:
    """Fill in the seconds of every entry, about ``budget`` of them each.

    Each is warmed up; then all take turns. Cheap ones get up to 30 rounds, dear ones at least 3,
    spread evenly over the time that the others take.
    """
    with quiet():
        for entry in entries:
            entry.time_next(clock)
            entry.estimate = entry.time_next(clock)
        rounds = [entry.rounds(budget) for entry in entries]
        most = max(rounds, default=0)
        for turn in range(most):
            for entry, wanted in zip(entries, rounds, strict=True):
                if (turn + 1) * wanted // most > turn * wanted // most:
                    entry.seconds += [entry.time_next(clock) for _ in range(entry.burst)]


def time_warm(entries: Sequence[Entry], clock: Clock, calls: int = 10) -> None:
    """Fill in the seconds of cheap entries on one copy of the features, cached if it fits."""
    with quiet():
        for entry in entries:
            if entry.estimate > 5 * CHEAP_S:
                continue
            times = [clock(lambda e=entry: e.call(e.features[0])) for _ in range(calls + 2)]
            entry.warm_seconds = times[2:]


def peak_operations(device: str, n: int = 1024, calls: int = 5) -> float:
    """Operations per second of a float32 matrix product: the roof of the roofline."""
    a = torch.randn(n, n, device=device)
    with quiet():
        return 2 * n**3 / min(clock_of(device)(lambda: a @ a) for _ in range(calls))
