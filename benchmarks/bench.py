"""Compare protoseg_fast with what people would use instead: python benchmarks/bench.py --help.

Every contender first agrees with the float64 reference on the timed problem, then all take turns,
round by round, on the same arrays. Same-size features rotate over at least 400 MB of copies, so
that every contender, the plain read included, takes them from memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import LAYER, UNITS, Contender
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import protoseg_fast as psf

ROTATED_BYTES = 400e6
READ = "read the features (torch.sum)"


@dataclass(frozen=True)
class Problem:
    """What is timed: C channels of feature_size, scored at size, as units or as a layer."""

    name: str
    channels: int
    feature_size: tuple[int, ...]
    size: tuple[int, ...]
    groups: str

    @property
    def contenders(self) -> dict[str, Contender]:
        return UNITS if self.groups == "unit" else LAYER

    @property
    def nbytes(self) -> int:
        return 4 * self.channels * int(np.prod(self.feature_size))


PROBLEMS = [
    Problem("units 64 x 256²", 64, (256, 256), (256, 256), "unit"),
    Problem("layer 64 x 256²", 64, (256, 256), (256, 256), "layer"),
    Problem("units 256 x 64² -> 256²", 256, (64, 64), (256, 256), "unit"),
    Problem("units 128 x 16³ -> 128³", 128, (16, 16, 16), (128, 128, 128), "unit"),
]


def make_inputs(problem: Problem, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features (1, C, *feature_size) that know the target to varying degrees, pred, target."""
    generator = torch.Generator().manual_seed(seed)
    grids = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in problem.size), indexing="ij")
    distance = sum(grid.square() for grid in grids).sqrt()
    noise = torch.randn(problem.size, generator=generator)
    target = distance + 0.05 * noise < 0.6
    pred = torch.sigmoid(12 * (0.6 - distance) + 0.5 * noise)
    at_size = target.float()[None, None]
    strength = torch.linspace(-1.5, 1.5, problem.channels).reshape(1, -1, *(1,) * len(problem.size))
    features = torch.randn(1, problem.channels, *problem.feature_size, generator=generator)
    signal = torch.nn.functional.interpolate(at_size, problem.feature_size, mode="area")
    return features + strength * signal, pred[None, None], target[None, None]


def check(problem: Problem, inputs: tuple[Tensor, Tensor, Tensor], tolerance: float = 2e-3) -> None:
    """Every contender agrees with the specification, to what its own rounding allows."""
    features, pred, target = inputs
    few = 4 if problem.groups == "unit" else problem.channels
    expected = psf.reference.sa_score(
        features[:, :few], pred, target, groups=problem.groups
    ).flatten()
    for name, contender in problem.contenders.items():
        part = features[:, :few] if name.startswith("published, unit ") else features
        found = contender(part, pred, target).double().numpy()[: len(expected)]
        if not np.allclose(found, expected, atol=tolerance):
            raise SystemExit(f"{problem.name}: {name} disagrees with the reference.")


def time_problem(problem: Problem, rounds: int, progress: Callable[..., Any]) -> dict[str, Any]:
    """Seconds of every contender: {name: [round, ...]}."""
    features, pred, target = inputs = make_inputs(problem)
    check(problem, inputs)
    same_size = problem.feature_size == problem.size
    copies = max(2, int(ROTATED_BYTES // problem.nbytes) + 1) if same_size else 1
    rotated = [features] + [features.clone() for _ in range(copies - 1)]
    calls: dict[str, Callable[[Tensor], Any]] = {READ: lambda x: x.sum()} | {
        name: (lambda x, contender=contender: contender(x, pred, target))
        for name, contender in problem.contenders.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    turn = 0
    for _ in progress(range(rounds), description=problem.name):
        for name, call in calls.items():
            slow = name.startswith("published") and problem.groups == "unit"
            for _ in range(1 if slow else 5):
                turn += 1
                start = time.perf_counter()
                call(rotated[turn % copies])
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summarise(problem: Problem, seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """One row per contender: medians, spread, and ratios to the read and to protoseg_fast."""
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return [
        {
            "problem": asdict(problem),
            "contender": name,
            "median_s": medians[name],
            "quartiles_s": [float(q) for q in np.quantile(times, [0.25, 0.75])],
            "rounds": len(times),
            "times_read": medians[name] / medians[READ],
            "times_ours": medians[name] / medians["protoseg_fast"],
        }
        for name, times in seconds.items()
    ]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "protoseg_fast": psf.build_config(),
    }


def print_table(console: Console, problem: Problem, rows: list[dict[str, Any]]) -> None:
    table = Table(title=problem.name, title_justify="left")
    for column in ("contender", "median", "quartiles", "x read", "x protoseg_fast"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for row in rows:
        low, high = row["quartiles_s"]
        table.add_row(
            row["contender"],
            f"{row['median_s'] * 1e3:.3f} ms",
            f"{low * 1e3:.3f}..{high * 1e3:.3f}",
            f"{row['times_read']:.2f}",
            f"{row['times_ours']:.1f}",
        )
    console.print(table)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", metavar="TEXT", default="", help="problems whose name has TEXT")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    console = Console()
    info = machine()
    console.print(info)
    rows = []
    for problem in PROBLEMS:
        if arguments.only not in problem.name:
            continue
        seconds = time_problem(problem, 3 if arguments.quick else 12, track)
        rows += (mine := summarise(problem, seconds))
        print_table(console, problem, mine)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": info, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
