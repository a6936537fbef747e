"""Training steps: the probability forward and backward, against autograd of the published formula.

    python benchmarks/gradients.py             # about three minutes on two cores
    python benchmarks/gradients.py --json FILE

Contenders take turns round by round. Their gradients are compared with those of the published
formula in float64 before anything is timed. Peak memory is what a step holds beyond its inputs and
the gradients it returns, from the kernel's high-water mark, each in a process of its own (Linux).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from authors import resize, similarity
from torch import Tensor

import protoseg_fast as psf
from protoseg_fast import _formula

Call = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """One image: features (1, channels, *feature_size), pred (1, 1, *size)."""

    channels: int
    feature_size: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def name(self) -> str:
        """Such as ``64 x 256²`` or ``32 x 32³ -> 64³``."""
        power = {1: "", 2: "²", 3: "³"}[len(self.size)]
        whole = f"{self.channels} x {self.feature_size[0]}{power}"
        return whole if self.size == self.feature_size else f"{whole} -> {self.size[0]}{power}"

    def inputs(self) -> tuple[Tensor, Tensor]:
        """Return features and pred that require grad."""
        torch.manual_seed(0)
        x = torch.randn(1, self.channels, *self.feature_size)
        return x.requires_grad_(), torch.rand(1, 1, *self.size).requires_grad_()


PROBLEMS = [
    Problem(64, (256, 256), (256, 256)),
    Problem(32, (32, 32, 32), (64, 64, 64)),
    Problem(256, (64, 64), (256, 256)),
]
TINY = [Problem(4, (8, 8), (8, 8)), Problem(3, (4, 4, 4), (6, 6, 6))]


def _published(x: Tensor, p: Tensor) -> Tensor:
    return similarity(resize(x, tuple(p.shape[2:])), p)[:, 1:]


def _expert(x: Tensor, p: Tensor) -> Tensor:
    options = (1, "euclidean", 1.0, "linear", False, None)
    return _formula.margin(x, p, None, *options)[:, 0].sigmoid()


def _ours(x: Tensor, p: Tensor) -> Tensor:
    return psf.probability(x, p)[:, 0]


CONTENDERS: dict[str, Call] = {
    "published, eager": _published,
    "matrix products, eager": _expert,
    "protoseg_fast": _ours,
}


def step(call: Call, x: Tensor, p: Tensor) -> tuple[Tensor, ...]:
    """One forward and backward pass; the gradients of features and pred."""
    return torch.autograd.grad(call(x, p).square().sum(), (x, p))


def check(problem: Problem) -> None:
    """Stop if a contender's gradients are not those of the published formula in float64."""
    x, p = problem.inputs()
    exact = step(_published, *(t.detach().double().requires_grad_() for t in (x, p)))
    for name, call in CONTENDERS.items():
        for found, expected in zip(step(call, x, p), exact, strict=True):
            error = float((found.double() - expected).abs().max() / expected.abs().max())
            # Peers compute in float32, and their sums err by more.
            if not error <= (2e-5 if call is _ours else 2e-3):
                raise SystemExit(f"{name} is wrong by {error:.1e} on {problem.name}.")


def times(problem: Problem, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round of every contender."""
    x, p = problem.inputs()
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for turn in range(rounds + 1):
        for name, call in CONTENDERS.items():
            start = time.perf_counter()
            step(call, x, p)
            if turn > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def peak(problem: Problem, name: str) -> int | None:
    """Bytes beyond inputs and gradients of one step, in this process."""
    from memory import peak_bytes

    x, p = problem.inputs()
    small = Problem(2, *((4,) * len(problem.size),) * 2).inputs()
    step(CONTENDERS[name], *small)  # what is allocated once is no part of a step
    found = peak_bytes(lambda: step(CONTENDERS[name], x, p), "cpu")
    return None if found is None else max(0, found - 4 * (x.numel() + p.numel()))


def peak_apart(problems: str, index: int, name: str) -> int | None:
    """`peak` in a process of its own."""
    command = [sys.executable, __file__, "--probe", problems, str(index), name]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: int | None = json.loads(run.stdout)
    return answer


def measure(problem: Problem, problems: str, index: int, rounds: int) -> dict[str, Any]:
    """Everything about one problem, as the JSON record has it."""
    check(problem)
    seconds = times(problem, rounds)
    features = 4 * problem.channels * torch.Size(problem.feature_size).numel()
    rows = []
    for name, each in seconds.items():
        extra = peak_apart(problems, index, name)
        rows.append(
            {
                "contender": name,
                "median_s": statistics.median(each),
                "best_s": min(each),
                "peak_extra_of_features": None if extra is None else extra / features,
            }
        )
    return {"problem": problem.name, "rows": rows}


def report(record: dict[str, Any]) -> None:
    """Print one problem as a Markdown table."""
    ours = next(r for r in record["rows"] if r["contender"] == "protoseg_fast")["median_s"]
    print(f"\n| {record['problem']} | median | vs protoseg_fast | peak extra, of the features |")
    print("| --- | ---: | ---: | ---: |")
    for row in record["rows"]:
        extra = row["peak_extra_of_features"]
        shown = "" if extra is None else f"{100 * extra:.0f} %"
        ratio = row["median_s"] / ours
        print(f"| {row['contender']} | {1e3 * row['median_s']:.1f} ms | {ratio:.1f} x | {shown} |")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tiny", action="store_true", help="to try the script")
    parser.add_argument("--probe", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.probe:
        which, index, name = arguments.probe
        problem = (TINY if which == "tiny" else PROBLEMS)[int(index)]
        print(json.dumps(peak(problem, name)))
        return
    which = "tiny" if arguments.tiny else "all"
    records = []
    for index, problem in enumerate(TINY if arguments.tiny else PROBLEMS):
        records.append(measure(problem, which, index, arguments.rounds))
        report(records[-1])
    if arguments.json:
        build = psf.build_config()
        record = {"threads": arguments.threads, "torch": torch.__version__, "build": build}
        arguments.json.write_text(json.dumps(record | {"records": records}, indent=1) + "\n")


if __name__ == "__main__":
    main()
