"""Measure protoseg_fast against what people would use instead; see benchmarks/README.md.

Before anything is timed, every contender's scores are compared with the specification. Contenders
take turns round by round; figures are medians.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from check import Change, compare
from contenders import READ
from measure import DisagreementError, Result, Settings, measure, thread_count
from memory import Prober
from network import (
    NETWORK_NAME,
    Network,
    NetworkUnavailableError,
    activation_workloads,
    load,
    measure_network,
)
from plots import write_plots
from report import Record, machine, markdown, print_curve, print_record, print_workload
from rich.console import Console
from timing import peak_operations
from tracing import NETWORKS, measure_tracing
from workloads import CHANNELS, CURVES, HEADLINE, SIZE, Workload, curve_points

#: Budgets by mode, and the steps the network is trained for; tiny is for tests.
MODES: dict[str, tuple[Settings, int, int]] = {
    "full": (Settings(budget_s=3.0, curve_budget_s=0.4), 60, 256),
    "quick": (Settings(budget_s=0.5, curve_budget_s=0.1, compiles=False), 12, 256),
    "tiny": (Settings(budget_s=0.02, curve_budget_s=0.01, compiles=False), 1, 32),
}

ACTIVATIONS = "activations"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Measure protoseg_fast against what people would use instead."
    )
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="fewer rounds and points, no torch.compile: about 3 minutes",
    )
    add("--tiny", action="store_true", help="problems of no size, to try the script out")
    add("--device", default="cpu", help="cpu (default) or cuda")
    add("--threads", type=int, default=torch.get_num_threads(), help="of every contender")
    add("--only", metavar="TEXT", default="", help="problems and curves whose name has TEXT")
    add("--json", type=Path, metavar="FILE", help="write every figure here")
    add("--plot", type=Path, metavar="DIR", help="write plots here")
    add("--markdown", action="store_true", help="print tables to paste into a README")
    add("--check", type=Path, metavar="FILE", help="compare with a record; exit 1 if slower")
    add("--load", type=Path, metavar="FILE", help="measure nothing, take the figures of a record")
    arguments = parser.parse_args(argv)
    if torch.device(arguments.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no CUDA device.")
    if arguments.threads < 1:
        parser.error(f"--threads must be at least 1, got {arguments.threads}.")
    return arguments


class Run:
    """Measures what was asked for, and shows it as it comes."""

    def __init__(self, arguments: argparse.Namespace, console: Console) -> None:
        self.mode = "tiny" if arguments.tiny else "quick" if arguments.quick else "full"
        settings, self.steps, self.side = MODES[self.mode]
        self.settings = replace(settings, device=arguments.device, threads=arguments.threads)
        self.prober = Prober(self.settings)
        self.only = arguments.only
        self.console = console
        self.record = Record(machine(arguments.device, arguments.threads, self.mode))

    def __call__(self) -> None:
        """Headline table, network, curves; in this order."""
        with thread_count(self.settings.threads):
            self.record.roofs["operations_s"] = peak_operations(self.settings.device)
        with self.prober:
            self.headline()
            self.network()
            self.tracing()
            for curve in CURVES:
                self.curve(curve)

    def wanted(self, *names: str) -> bool:
        """Whether --only lets one of these names pass."""
        return any(self.only in name for name in names)

    def sized(self, workload: Workload) -> Workload:
        """The workload, or a tiny one of its kind."""
        return workload.tiny() if self.mode == "tiny" else workload

    def add(self, workloads: Sequence[Workload], memory: bool) -> None:
        """Measure workloads, one after the other."""
        result = Result()
        for workload in workloads:
            with self.console.status(workload.name):
                result += measure(workload, self.settings)
        if memory:
            with self.console.status("peak memory"):
                self.prober.add_peaks(result, workloads)
        self.record.result += result
        for workload in workloads:
            row = result.find(workload.name, READ)
            # resized and small features are read from cache, which is no roof
            if row and row.gb_per_s and not workload.resized and not workload.curve:
                roofs = self.record.roofs
                roofs["read_bytes_s"] = max(roofs.get("read_bytes_s", 0), 1e9 * row.gb_per_s)

    def headline(self) -> None:
        """The table of the README."""
        for workload in HEADLINE:
            if self.wanted(workload.name):
                self.add([self.sized(workload)], memory=True)
                print_workload(self.console, workload.name, self.record.result)

    def curve(self, curve: str) -> None:
        """One scaling curve."""
        points = curve_points(curve, quick=self.mode != "full")
        points = [point for point in points if self.wanted(point.name)]
        if points:
            self.add([self.sized(point) for point in points], memory=curve in (CHANNELS, SIZE))
            print_curve(self.console, curve, self.record.result)

    def network(self) -> None:
        """The whole U-Net, and units of some of its layers as a curve."""
        names = (NETWORK_NAME, f"curve {ACTIVATIONS}")
        if not self.wanted(*names):
            return
        try:
            with self.console.status("training the network"):
                network = load(self.steps, self.side, self.settings.device)
        except NetworkUnavailableError as reason:
            self.record.result.skipped.append((NETWORK_NAME, "all", str(reason)))
            self.console.print(f"{NETWORK_NAME} skipped: {reason}")
            return
        if self.wanted(names[0]):
            with self.console.status(NETWORK_NAME):
                self.record.result += measure_network(network, self.settings)
            print_workload(self.console, NETWORK_NAME, self.record.result)
        if self.wanted(names[1]):
            self.activations(network)

    def tracing(self) -> None:
        """What tracing whole networks adds to their forward passes."""
        for make in NETWORKS:
            if not self.wanted(f"tracing: {make.__name__}"):
                continue
            with self.console.status(f"tracing {make.__name__}"):
                result = measure_tracing(make, self.steps, self.side, self.settings)
            self.record.result += result
            for name, _, reason in result.skipped:
                self.console.print(f"tracing {name} skipped: {reason}")
            if result.rows:
                print_workload(self.console, result.rows[0].workload, self.record.result)

    def activations(self, network: Network) -> None:
        """Units of single layers of the trained network."""
        for workload, inputs in activation_workloads(network):
            with self.console.status(workload.name):
                self.record.result += measure(workload, self.settings, inputs)
        print_curve(self.console, ACTIVATIONS, self.record.result)


def print_changes(console: Console, changes: Sequence[Change]) -> bool:
    """Say what changed; whether anything became slower than noise."""
    if not changes:
        console.print("Nothing to compare: the two records share no row of protoseg_fast.")
    for change in changes:
        word = "SLOWER" if change.slower else "faster" if change.faster else "same"
        console.print(
            f"{word:6} {change.workload}: {change.contender} takes {change.ratio:.2f} of the time "
            f"({change.before:.3g} -> {change.now:.3g} times the limit, "
            f"noise up to {1 + change.noise:.2f})",
            highlight=False,
            style="bold red" if change.slower else "",
        )
    return any(change.slower for change in changes)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit status."""
    arguments = parse(argv)
    console = Console()
    if not console.is_terminal:  # a file or a log has room for the tables
        console = Console(width=180)
    before = Record.load(arguments.check) if arguments.check else None
    if arguments.load:
        record = Record.load(arguments.load)
        if not arguments.markdown:
            print_record(console, record)
    else:
        run = Run(arguments, console)
        record = run.record
        try:
            run()
        except KeyboardInterrupt:
            console.print("Interrupted; what was measured so far is kept.", style="yellow")
        except DisagreementError as error:
            console.print(str(error), style="bold red")
            return 2
    if arguments.json:
        record.save(arguments.json)
    if arguments.plot:
        for path in write_plots(record, arguments.plot):
            console.print(f"wrote {path}", highlight=False)
    if arguments.markdown:
        print(markdown(record))
    if before is None:
        return 0
    for name in ("name", "device", "threads", "mode"):
        now, then = (r.machine.get(name) for r in (record, before))
        if now != then:
            console.print(f"The records differ in {name}: {then} then, {now} now.", style="yellow")
    return 1 if print_changes(console, compare(record.result, before.result)) else 0


if __name__ == "__main__":
    sys.exit(main())
