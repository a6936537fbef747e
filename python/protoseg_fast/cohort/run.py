"""The loop of a sweep: `sweep`, resumable at any moment."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import protoseg_fast
from protoseg_fast.cohort.config import SweepConfig, SweepError, digest
from protoseg_fast.cohort.layouts import Case, choose, find_cases, unique
from protoseg_fast.cohort.models import (
    check_device,
    check_layers,
    file_hash,
    load_model,
    state_hash,
)
from protoseg_fast.cohort.progress import Progress
from protoseg_fast.cohort.reading import volumes
from protoseg_fast.cohort.scoring import Failure, Scored, failure_of, score_case, seeded
from protoseg_fast.cohort.store import Log, Store
from protoseg_fast.cohort.summary import write_summary
from protoseg_fast.cohort.volumes import find_function
from protoseg_fast.network.devices import why_on_the_cpu

__all__ = ["SweepResult", "part_of", "run", "sweep"]

#: Called with every event: a dictionary with "event" ("done", "failed"), "case", and numbers.
LogFunction = Callable[[dict[str, Any]], None]
Outcome = Scored | Failure


@dataclass(frozen=True)
class SweepResult:
    """What a sweep did.

    Attributes:
        out: the folder of the results.
        done: names of the cases that this run scored.
        kept: names of those that were done before.
        failures: why others could not be scored, by name.
    """

    out: Path
    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def sweep(
    model: nn.Module | str,
    cases: str | Path | Iterable[Any],
    *,
    out: str | Path,
    log: LogFunction | None = None,
    **options: Any,
) -> SweepResult:
    """Score every layer and unit of a network on the cases of a cohort; go on where it stopped.

    Cases that are done are kept, whatever killed the run that did them. A case that cannot be
    read or scored is recorded, and the others go on.

    Args:
        model: a network, run in eval mode; or MODULE:FUNCTION, FILE.py:FUNCTION, or the folder of a
            MONAI bundle, built once with ``weights``.
        cases: a folder or list (see ``protoseg_fast.cohort.find_cases``), or an iterable of
            `protoseg_fast.cohort.Case`, dictionaries with ``image`` and optionally ``name``,
            ``label`` and ``mask``, or tuples (image, label, mask). Each of these is a path, an
            array ((C, *size); label and mask (*size)), or a function that returns an array, called
            when it is the case's turn. Results are in the order of names.
        out: folder of the results; see ``protoseg_fast.cohort.store``.
        log: called with an event, a dictionary, as each case ends; for experiment trackers.
        options: fields of `protoseg_fast.cohort.SweepConfig`, but ``cases``. With ``workers`` above
            0, a script needs ``if __name__ == "__main__":``, as with any processes that Python
            spawns.

    Returns:
        What was done; the results are in ``out``.

    Raises:
        SweepError: for wrong options, a device or layers that do not exist, a model or data that
            cannot be loaded, a folder with results of another configuration, or another process
            on the same part.
    """
    given = {**options, "out": str(out)}
    if isinstance(model, str):
        given["model"] = model
    if isinstance(cases, str | Path):
        config = SweepConfig.of(given | {"data": str(cases)})
        return run(config, None if isinstance(model, str) else model, log=log)
    listed = unique(Case.of(value, i) for i, value in enumerate(cases))
    return run(SweepConfig.of(given), None if isinstance(model, str) else model, listed, log)


def run(
    config: SweepConfig,
    model: nn.Module | None = None,
    cases: Sequence[Case] | None = None,
    log: LogFunction | None = None,
) -> SweepResult:
    """Run what a configuration says; a model and cases given here take the place of its own."""
    if config.engine == "local":  # Ray's actors may have other devices
        check_device(config.device)
    if config.transform:
        find_function(config.transform)
    listed = find_cases(config.data, config.layout) if cases is None else cases
    return _Sweep(config, model, log).run(choose(listed, config.cases, config.limit))


def part_of(cases: Sequence[Case], part_id: int, num_parts: int) -> list[Case]:
    """Return a part of the cases: every num_parts-th, as nnU-Net; sizes differ by at most one."""
    return list(cases[part_id::num_parts])


class _Sweep:
    def __init__(self, config: SweepConfig, model: nn.Module | None, log: LogFunction | None):
        self.config, self.given, self.tell = config, model, log
        self.store = Store(config.out)

    def run(self, cases: list[Case]) -> SweepResult:
        config = self.config
        mine = part_of(cases, config.part_id, config.num_parts)
        self.store.make()
        with self.store.part(config.part_id, config.num_parts) as log:
            self.store.tidy()
            about = describe(config, self.given)
            done = set() if config.overwrite else self.store.names("tables")
            done &= {case.name for case in mine}
            left = [case for case in mine if case.name not in done]
            # Before anything is written or removed: what is refused leaves no trace.
            network = self._network() if left else None
            if config.overwrite:
                for case in mine:
                    self.store.forget(case.name)
            self.store.settle(about, replace=config.overwrite)
            self.store.register(cases)
            result = SweepResult(self.store.out, kept=sorted(done))
            log.write("start", config=about["hash"], cases=len(mine), left=len(left))
            title = f"part {config.part_id} of {config.num_parts}"
            with Progress(config.progress, title, len(left)) as progress:
                progress.say(f"{title}: {_told(mine, len(done))}")
                if slow := why_on_the_cpu(config.device):
                    progress.say(slow)
                if left:
                    self._work(left, network, result, log, progress)
            log.write("end", done=len(result.done), failed=len(result.failures))
            self._summarise()
        return result

    def _network(self) -> nn.Module | None:
        """The network, which has the layers asked for; None: Ray's actors load it again."""
        config = self.config
        ray = config.engine == "ray"
        if ray and self.given is not None:
            raise SweepError("engine ray needs the model as text, MODULE:FUNCTION.")
        here = dataclasses.replace(config, device="cpu") if ray else config
        with threads(config.threads), seeded(here):
            network = load_model(here) if self.given is None else self.given
        check_layers(network, config.layers)
        return None if ray else network

    def _work(
        self,
        left: list[Case],
        network: nn.Module | None,
        result: SweepResult,
        log: Log,
        progress: Progress,
    ) -> None:
        start = time.perf_counter()
        for case, outcome, seconds in self._outcomes(left, network):
            event: dict[str, Any]
            if isinstance(outcome, Failure):
                self.store.fail(outcome)
                result.failures[case.name] = outcome.reason
                event = {"event": "failed", "reason": outcome.reason, "kind": outcome.kind}
            else:
                self.store.keep(outcome)
                result.done.append(case.name)
                event = {"event": "done", "outputs": outcome.info["outputs"]}
                if outcome.roi_size is not None:
                    event["roi_size"] = list(outcome.roi_size)
            count = len(result.done) + len(result.failures)
            event |= {"case": case.name, "seconds": seconds, "count": count, "total": len(left)}
            log.write(**event)
            progress.event(event | {"elapsed": time.perf_counter() - start})
            if self.tell is not None:
                self.tell(event)

    def _outcomes(
        self, left: list[Case], network: nn.Module | None
    ) -> Iterator[tuple[Case, Outcome, dict[str, float]]]:
        if network is None:
            from protoseg_fast.cohort.ray_engine import outcomes

            yield from outcomes(left, self.config)
            return
        with threads(self.config.threads), evaluating(network):
            yield from score_all(network, left, self.config)

    def _summarise(self) -> None:
        """Write summary.json when the last part ends; merge does so at any time."""
        known = {entry["case"] for entry in self.store.manifest()}
        if not known - self.store.names("tables") - self.store.names("failures"):
            write_summary(self.store)


def score_all(
    model: nn.Module, cases: Sequence[Case], config: SweepConfig
) -> Iterator[tuple[Case, Outcome, dict[str, float]]]:
    """Read and score cases; yields their results, and the seconds that each step took."""
    start = time.perf_counter()
    for case, volume in volumes(cases, config):
        ready = time.perf_counter()
        outcome: Outcome
        if isinstance(volume, Exception):
            outcome = failure_of(case.name, volume)
        else:
            try:
                outcome = score_case(model, case, volume, config)
            except Exception as error:
                outcome = failure_of(case.name, error)
        end = time.perf_counter()
        yield case, outcome, {"waited": ready - start, "scored": end - ready}
        start = time.perf_counter()


def _told(cases: Sequence[Case], done: int) -> str:
    """How many cases there are; labels that were not found, as where names differ, are told."""
    kept = f", {done} of them done before" if done else ""
    bare = sum(case.label is None for case in cases)
    return f"{len(cases)} cases{kept}" + (f", no label found for {bare} of them" if bare else "")


def describe(config: SweepConfig, model: nn.Module | None) -> dict[str, Any]:
    """Return what config.json holds; "decides" is what a resume must have in common."""
    decides = config.deciding()
    if model is not None:
        decides |= {"model": type(model).__qualname__, "weights_sha256": state_hash(model)}
    elif config.weights:
        if not Path(config.weights).is_file():
            raise SweepError(f"There are no weights {config.weights}.")
        decides["weights_sha256"] = file_hash(config.weights)
    if config.model.rpartition(":")[0].endswith(".py"):
        with contextlib.suppress(OSError):
            decides["model_sha256"] = file_hash(config.model.rpartition(":")[0])
    return {
        "decides": decides,
        "hash": digest(decides),
        "options": config.all(),
        "weights_sha256": decides.get("weights_sha256"),
        "git_revision": _git_revision(),
        "versions": {
            "protoseg_fast": protoseg_fast.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Within the block, torch has so many threads; None: as many as it had."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block, the network is in eval mode."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _git_revision() -> str | None:
    """The revision of the repository in the current directory, which often holds the model."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()
    return None
