"""Cases as tasks of Ray actors, each of which holds a copy of the model. Needs ray.

Actors read and score; the process that asked for the sweep writes, so that the results' folder need
not be shared, but data, weights and the model's code must be.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from protoseg_fast.cohort.config import SweepConfig, SweepError
from protoseg_fast.cohort.layouts import Case
from protoseg_fast.cohort.models import check_device, load_model
from protoseg_fast.cohort.scoring import Failure, Scored, failure_of, score_case, seeded
from protoseg_fast.cohort.volumes import read_case

__all__ = ["outcomes"]

#: How often a case is tried whose actor died, before it is taken to be the case's fault.
TRIES = 3

Result = tuple[Case, "Scored | Failure", dict[str, float]]


class Worker:
    """What an actor does: it loads the model once, then reads and scores cases."""

    def __init__(self, config: SweepConfig, threads: int, folder: str) -> None:
        if Path(folder).is_dir():
            os.chdir(folder)  # relative paths, and modules beside them
        sys.path.insert(0, folder)
        torch.set_num_threads(threads)  # as many as here: Ray allows one, which rounds otherwise
        check_device(config.device)
        with seeded(config):
            self.model = load_model(config)
        self.config = config

    def score(self, case: Case) -> tuple[Scored | Failure, dict[str, float]]:
        """Read and score a case; returns what came of it, and the seconds of both."""
        start = ready = time.perf_counter()
        outcome: Scored | Failure
        try:
            volume = read_case(case, self.config)
            ready = time.perf_counter()
            outcome = score_case(self.model, case, volume, self.config)
        except Exception as error:
            outcome = failure_of(case.name, error)
        return outcome, {"waited": ready - start, "scored": time.perf_counter() - ready}

    def pid(self) -> int:
        """Return the actor's process."""
        return os.getpid()


def outcomes(cases: Sequence[Case], config: SweepConfig) -> Iterator[Result]:
    """Score cases on a cluster; yields their results in the order in which they end.

    Raises:
        SweepError: if ray is missing, or a cluster or the model cannot be had.
    """
    try:
        import ray
    except ImportError as error:
        raise SweepError("engine ray needs: pip install 'protoseg_fast[ray]'") from error
    started = not ray.is_initialized()
    if started:
        try:
            # PYTHONPATH: where modules of --model are found, as without Ray.
            environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}
            ray.init(
                address=config.ray_address or None,
                runtime_env=environment,
                log_to_driver=False,
                include_dashboard=False,
            )
        except Exception as error:
            raise SweepError(f"Cannot reach a Ray cluster: {error}") from error
    try:
        yield from _Cluster(ray, config).run(cases)
    finally:
        if started:
            ray.shutdown()


class _Cluster:
    def __init__(self, ray: Any, config: SweepConfig) -> None:
        self.ray, self.config = ray, config
        threads = config.threads or torch.get_num_threads()
        gpus = 1 if config.device.startswith("cuda") else 0
        if gpus and not config.ray_address and not ray.cluster_resources().get("GPU"):
            # Only clusters elsewhere may grow; here, an actor would wait forever.
            raise SweepError(f"device is {config.device}, but Ray finds no GPU on this machine.")
        # Placed by their cores, but never more than the machine has: then they share them.
        cores = int(ray.cluster_resources().get("CPU", 1)) // config.ray_actors
        self.actor = ray.remote(Worker).options(num_cpus=min(threads, cores), num_gpus=gpus)
        self.given = (config, threads, str(Path.cwd()))

    def run(self, cases: Sequence[Case]) -> Iterator[Result]:
        waiting, tries = deque(cases), dict.fromkeys((case.name for case in cases), 0)
        running: dict[Any, tuple[Any, Case]] = {}  # by the task's reference
        idle = [self._new() for _ in range(min(self.config.ray_actors, len(cases)))]
        while waiting or running:
            while waiting and idle:
                actor, case = idle.pop(), waiting.popleft()
                tries[case.name] += 1
                running[actor.score.remote(case)] = (actor, case)
            ended, _ = self.ray.wait(list(running), num_returns=1)
            actor, case = running.pop(ended[0])
            try:
                outcome, seconds = self.ray.get(ended[0])
                idle.append(actor)
            except self.ray.exceptions.RayActorError as error:
                idle.append(self._new())
                if tries[case.name] < TRIES:
                    waiting.appendleft(case)
                    continue
                outcome, seconds = failure_of(case.name, error), {}
            yield case, outcome, seconds

    def _new(self) -> Any:
        """Start an actor; its model is loaded when this returns."""
        actor = self.actor.remote(*self.given)
        try:
            self.ray.get(actor.pid.remote())
        except self.ray.exceptions.RayActorError as error:
            reason = str(error).strip().splitlines()[-1]  # of the actor's traceback
            reason = reason.removeprefix(f"{SweepError.__module__}.{SweepError.__qualname__}: ")
            raise SweepError(f"An actor could not load the model: {reason}") from error
        return actor
