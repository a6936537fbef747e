"""The commands ``sweep``, ``merge``, ``status`` and ``slurm``. Imports nothing heavy."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from protoseg_fast.cohort.config import DEPENDENCIES, SweepConfig, SweepError

__all__ = ["add_commands"]

#: Exit status: done, something failed.
OK, FAILED = 0, 1


def add_commands(
    commands: Any, interrupts_held: Callable[[], AbstractContextManager[None]]
) -> None:
    """Add the commands to argparse's; each sets ``run``, a function that returns the exit status.

    Within ``interrupts_held``, Ctrl-C waits: importing torch would abort the process.
    """
    sweep = commands.add_parser(
        "sweep",
        help="score every layer and unit of a model on a cohort, resumable",
        description="Score every layer and unit of a segmentation model on every case of a "
        "cohort: one Parquet file per case below OUT/tables. Run it again to go on where it "
        "stopped. Exit status 1 if a case failed; OUT/failures says why.",
    )
    add_options(sweep)
    sweep.set_defaults(run=lambda arguments: _sweep(arguments, interrupts_held))
    merge = commands.add_parser(
        "merge",
        help="join a sweep's tables to one, write summary.json",
        description="Join the tables of all cases that are done, in the order of names, to one "
        "Parquet or CSV file, and write OUT/summary.json. Exit status 1 if cases lack or failed.",
    )
    merge.add_argument("out", metavar="OUT", type=Path, help="folder of a sweep's results")
    merge.add_argument(
        "--to", metavar="FILE", type=Path, help=".parquet or .csv file (default: OUT.parquet)"
    )
    merge.set_defaults(run=lambda arguments: _merge(arguments, interrupts_held))
    status = commands.add_parser(
        "status",
        help="which cases of a sweep are done, missing, failed; which part never ran",
        description="Say which cases are done, missing and failed, and which parts never ran. "
        "Exit status 1 unless all cases are done.",
    )
    status.add_argument("out", metavar="OUT", type=Path, help="folder of a sweep's results")
    status.set_defaults(run=_status)
    slurm = commands.add_parser(
        "slurm",
        help="print a Slurm array script for a sweep",
        description="Print an array script that runs a sweep in --num-parts parts. Takes the "
        "options of sweep, and: protoseg-fast slurm ... > sweep.sbatch; sbatch sweep.sbatch.",
    )
    add_options(slurm)
    slurm.add_argument("--time", default="04:00:00", help="of a part (default: %(default)s)")
    slurm.add_argument("--memory", default="16G", help="of a part (default: %(default)s)")
    slurm.add_argument("--cpus", type=int, default=4, help="of a part (default: %(default)s)")
    slurm.add_argument("--sbatch", action="append", default=[], help="another #SBATCH option")
    slurm.set_defaults(run=_slurm)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for every field of `SweepConfig`, and ``--config``."""
    parser.add_argument("--config", metavar="FILE", help="YAML or TOML file with these options")
    parser.add_argument(
        "--continue",
        action="store_true",
        dest="_continue",
        help="go on where an earlier run stopped; always done, unless --overwrite",
    )
    for option in dataclasses.fields(SweepConfig):
        about = option.metadata
        flag = "--" + option.name.replace("_", "-")
        text = about["help"].replace("%", "%%")
        common: dict[str, Any] = {"dest": option.name, "default": None}
        if isinstance(option.default, bool):
            action = argparse.BooleanOptionalAction
            text += f" (default: {'yes' if option.default else 'no'})"
            parser.add_argument(flag, action=action, help=text, **common)
            continue
        if option.default not in (None, ""):
            default = option.default
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
            text += f" (default: {shown})"
        if about["choices"]:
            parser.add_argument(flag, choices=about["choices"], help=text, **common)
        elif about["kind"] is dict:
            parser.add_argument(flag, nargs="+", metavar="NAME=1,2", help=text, **common)
        else:
            metavar = {int: "N", float: "X"}.get(about["kind"], option.name.upper())
            metavar = f"{metavar},..." if about["many"] else metavar
            kind = str if about["many"] else about["kind"]
            parser.add_argument(flag, type=kind, metavar=metavar, help=text, **common)


def config_of(arguments: argparse.Namespace) -> SweepConfig:
    """Return the configuration: options of the command line, else of the file, else defaults.

    Raises:
        SweepError: for wrong values, and if model, data or out lack.
    """
    values = {} if arguments.config is None else SweepConfig.read(arguments.config)
    values = {name.replace("-", "_"): value for name, value in values.items()}
    for option in dataclasses.fields(SweepConfig):
        if (value := getattr(arguments, option.name)) is not None:
            values[option.name] = value
    config = SweepConfig.of(values)
    if lacking := [f"--{name}" for name in ("model", "data", "out") if not getattr(config, name)]:
        raise SweepError(f"A sweep needs {', '.join(lacking)}.")
    return config


def _sweep(
    arguments: argparse.Namespace, interrupts_held: Callable[[], AbstractContextManager[None]]
) -> int:
    config = config_of(arguments)
    _require_dependencies()
    with interrupts_held():
        from protoseg_fast.cohort.run import run
    result = run(config)
    if config.progress != "quiet":
        print(
            f"{len(result.done)} cases done, {len(result.kept)} done before, "
            f"{len(result.failures)} failed: {result.out}",
            file=sys.stderr,
        )
    for case, reason in result.failures.items():
        print(f"protoseg-fast: {case} failed: {reason}", file=sys.stderr)
    return FAILED if result.failures else OK


def _merge(
    arguments: argparse.Namespace, interrupts_held: Callable[[], AbstractContextManager[None]]
) -> int:
    _require_dependencies()
    with interrupts_held():
        from protoseg_fast.cohort.summary import merge, status
    path = merge(arguments.out, arguments.to)
    now = status(arguments.out)
    print(f"{len(now.done)} cases: {path}")
    if now.missing or now.failed:
        print(
            f"protoseg-fast: {len(now.missing)} cases are missing and {len(now.failed)} failed.",
            file=sys.stderr,
        )
        return FAILED
    return OK


def _status(arguments: argparse.Namespace) -> int:
    _require_dependencies()
    from protoseg_fast.cohort.summary import status

    now = status(arguments.out)
    print(f"done {len(now.done)}, missing {len(now.missing)}, failed {len(now.failed)}")
    for part, (cases, done, failed, started) in enumerate(now.parts):
        state = "" if started else ", never ran"
        print(f"part {part} of {now.num_parts}: {done} of {cases} done, {failed} failed{state}")
    for name, reason in now.failed.items():
        print(f"failed: {name}: {reason}")
    for name in now.missing[:20]:
        print(f"missing: {name}")
    if len(now.missing) > 20:
        print(f"missing: and {len(now.missing) - 20} more")
    return FAILED if now.missing or now.failed else OK


def _slurm(arguments: argparse.Namespace) -> int:
    from protoseg_fast.cohort.slurm import script

    resources = {"time": arguments.time, "mem": arguments.memory, "cpus-per-task": arguments.cpus}
    print(script(config_of(arguments), resources, arguments.sbatch), end="")
    return OK


def _require_dependencies() -> None:
    missing = [name for name in DEPENDENCIES if importlib.util.find_spec(name) is None]
    if missing:
        raise SweepError(
            f"This needs {', '.join(missing)}. Install what it needs with: "
            "pip install 'protoseg_fast[sweep]'"
        )
