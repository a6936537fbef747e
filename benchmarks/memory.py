"""Peak extra memory of every contender, measured in a process of its own.

On Linux the kernel keeps the high-water mark of the resident memory of a process, and resets it on
request; the difference to the resident memory before a call is what the call held at most, whoever
allocated it. Free memory is given back to the system first, so that it is not reused unseen. On a
GPU, PyTorch's allocator keeps the same mark. Elsewhere nothing is measured.

As a script: settings are its argument; reads workloads from standard input, one a line, and answers
each with a line of peaks, all as JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from contenders import UnavailableError
from measure import Result, Settings, applicable, prepare, take_groups, thread_count
from workloads import Workload, make_inputs

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(call: Callable[[], Any], device: str) -> int | None:
    """Most bytes held during a call beyond those before it; None where nobody can tell."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        CLEAR.write_text("5")
    except OSError:
        return None
    before = _resident("VmRSS")
    call()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def measure_peaks(workload: Workload, settings: Settings) -> list[tuple[str, float]]:
    """(contender, bytes) of every contender that can be measured."""
    budget = settings.budget(workload)
    inputs = make_inputs(workload, settings.device)
    found = []
    for contender in applicable(workload, settings):
        with contextlib.suppress(UnavailableError):
            one = prepare(contender, workload, inputs, budget, settings.device)
            features = take_groups(workload, inputs.features, one.timed)
            with torch.inference_mode():
                one.prepared.call(features)  # what is allocated once is no part of a call
                peak = peak_bytes(lambda one=one, f=features: one.prepared.call(f), settings.device)
            if peak is not None:
                scale = workload.group_count / one.timed if contender.memory_by_group else 1
                found.append((contender.name, float(peak * scale)))
    torch.compiler.reset()
    return found


class Prober:
    """A process of its own that measures peaks on request; started when first needed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process is not None:
            self.process.communicate()  # the end of its input ends it

    def add_peaks(self, result: Result, workloads: Sequence[Workload]) -> None:
        """Fill in ``peak_bytes`` of the rows of these workloads.

        Raises:
            RuntimeError: the process died; what it said went to standard error.
        """
        for workload in workloads:
            for contender, peak in self._ask(workload):
                row = result.find(workload.name, contender)
                if row is not None:
                    row.peak_bytes = peak

    def _ask(self, workload: Workload) -> list[tuple[str, float]]:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__, json.dumps(dataclasses.asdict(self.settings))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for the main process, which ends this one
                env=os.environ | {"OMP_NUM_THREADS": str(self.settings.threads)},
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(dataclasses.asdict(workload)), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"measuring the memory of {workload.name} failed")
        return [(contender, peak) for contender, peak in json.loads(answer)]


def main() -> None:
    """Answer requests until there are no more."""
    settings = Settings(**json.loads(sys.argv[1]))
    with thread_count(settings.threads):
        for line in sys.stdin:
            fields = json.loads(line)
            sizes = {name: tuple(fields[name]) for name in ("size", "feature_size")}
            print(json.dumps(measure_peaks(Workload(**(fields | sizes)), settings)), flush=True)


if __name__ == "__main__":
    main()
