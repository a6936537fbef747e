"""The command line: ``protoseg-fast``. Imports nothing heavy, so that ``--help`` is immediate."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from protoseg_fast import __version__
from protoseg_fast.cohort.command import add_commands
from protoseg_fast.cohort.config import SweepError
from protoseg_fast.demo.config import DEPENDENCIES, DEVICES, DemoConfig, DemoError
from protoseg_fast.report.command import register as register_report
from protoseg_fast.report.errors import ReportError

#: Exit status: done, failed (the message says why), stopped with Ctrl-C. argparse exits with 2.
OK, FAILED, INTERRUPTED = 0, 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments without the program's name; ``sys.argv[1:]`` if omitted.

    Returns:
        The exit status.

    Raises:
        SystemExit: from argparse, for ``--help``, ``--version`` (0) and wrong options (2).
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (DemoError, ReportError, SweepError) as error:
        print(f"protoseg-fast: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("protoseg-fast: stopped.", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="protoseg-fast",
        description="How well could every layer and unit of a segmentation network have segmented "
        "the target on its own?",
    )
    parser.add_argument("--version", action="version", version=f"protoseg-fast {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="train a small U-Net on a real brain scan, score all its units, write a page",
        description="Train a small 2-D U-Net on axial slices of the MNI ICBM152 T1 scan (it comes "
        "with nilearn; nothing is downloaded), score the image, every convolution block, every "
        "unit and the output on held-out slices, print a table, and write DIR/index.html and "
        "DIR/scores.parquet. Takes about two minutes on two idle CPU cores.",
    )
    demo.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=DemoConfig.out,
        help="folder to write to (default: %(default)s)",
    )
    demo.add_argument(
        "--device",
        choices=DEVICES,
        default=DemoConfig.device,
        help="where the network runs; the demo scores on the CPU, to which each layer's features "
        "are copied with cuda (default: %(default)s)",
    )
    demo.add_argument(
        "--seed",
        type=int,
        default=DemoConfig.seed,
        help="of weights, crops and degradations (default: %(default)s)",
    )
    demo.add_argument(
        "--steps",
        type=int,
        default=DemoConfig.steps,
        help="training steps (default: %(default)s)",
    )
    demo.add_argument("--open", action="store_true", help="open the page in a browser when done")
    demo.set_defaults(run=_demo)
    add_commands(commands, _interrupts_held)
    register_report(commands, _interrupts_held)
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    missing = [name for name in DEPENDENCIES if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(
            f"the demo needs {', '.join(missing)}. Install what it needs with: "
            "pip install 'protoseg_fast[demo]'"
        )
    config = DemoConfig(
        out=arguments.out, device=arguments.device, seed=arguments.seed, steps=arguments.steps
    )
    with _interrupts_held():
        from protoseg_fast.demo.run import run_demo

    result = run_demo(config)
    if arguments.open and not webbrowser.open(result.page.resolve().as_uri()):
        print(f"protoseg-fast: found no browser to open {result.page} with.", file=sys.stderr)
    return OK


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Within the block, Ctrl-C waits until its end. Importing torch would abort the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
