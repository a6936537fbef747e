"""Bugs planted into copies of the kernels, each of which a test must find."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from simt import build

SEEDS = range(4)


@dataclass(frozen=True)
class Mutation:
    """`old`, which stands once in `file`, becomes `new`; then `test` must fail.

    file: relative to the checkout, under cuda/ or cpp/.
    test: "kernels/units.cpp:scenario", or a test of pytest, "test_engine.py::test_name".
    """

    name: str
    file: str
    old: str
    new: str
    test: str

    @property
    def id(self) -> str:
        """A name for pytest."""
        return f"{Path(self.file).stem}-{re.sub(r'[^a-z0-9]+', '_', self.name.lower())}"


def mutants(file: str, test: str, changes: Mapping[str, tuple[str, ...]]) -> list[Mutation]:
    """Mutations of one file: name -> (old, new) or (old, new, test).

    Where a test is given, "scenario" means the one of that name beside `test`.
    """
    source = test.partition(":")[0]
    result = []
    for name, (old, new, *own) in changes.items():
        own_test = own[0] if own else test
        if ":" not in own_test:
            own_test = f"{source}:{own_test}"
        result.append(Mutation(name, file, old, new, own_test))
    return result


def within(context: str, old: str, new: str, *test: str) -> tuple[str, ...]:
    """A change of `old`, which stands in the file several times: in `context` it is meant."""
    return (context, context.replace(old, new), *test)


def changed(mutation: Mutation, root: Path = build.ROOT) -> str:
    """The file with the bug in it; LookupError if it has no place or there is no such test."""
    text = (root / mutation.file).read_text()
    count = text.count(mutation.old)
    if count != 1:
        raise LookupError(
            f"mutation '{mutation.name}': its text stands {count} times in {mutation.file}, "
            f"not once:\n{mutation.old}"
        )
    if mutation.old == mutation.new:
        raise LookupError(f"mutation '{mutation.name}' changes nothing")
    source, _, scenario = mutation.test.partition(":")
    if "::" not in mutation.test and scenario not in build.scenarios(build.HERE / source):
        raise LookupError(f"there is no scenario '{scenario}' in {source}")
    return text.replace(mutation.old, mutation.new)


def plant(mutation: Mutation, target: Path, root: Path = build.ROOT) -> Path:
    """A copy of the tree with the bug in it."""
    text = changed(mutation, root)
    tree = build.copy_tree(target, root)
    (tree / mutation.file).write_text(text)
    return tree


def run_test(test: str, tree: Path, *, alone: bool = False) -> build.Result:
    """Run a scenario with several schedules, or a test of pytest, on the kernels of a tree.

    alone: compile no other scenario of the file; for a tree of which nothing else is run.
    """
    if "::" in test:
        return _run_pytest(test, tree)
    source, _, scenario = test.partition(":")
    executable = build.program(build.HERE / source, tree, alone=scenario if alone else None)
    for seed in SEEDS:
        result = build.run(executable, scenario, seed)
        if not result.passed:
            return result
    return result


def _run_pytest(test: str, tree: Path) -> build.Result:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(build.HERE / test)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=build.ROOT,
        env={**os.environ, "SIMT_TREE": str(tree)},
    )
    if done.returncode not in (0, 1):  # passed, failed; else it did not run
        raise LookupError(f"{test} does not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    if "BuildError" in done.stdout:
        raise build.BuildError(done.stdout[-4000:])
    return build.Result(done.returncode == 0, done.stdout)


def outcome(mutation: Mutation, root: Path = build.ROOT) -> build.Result:
    """How the test ends with the bug planted. A bug that does not compile is an error."""
    build.CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build.CACHE) as scratch:
        return run_test(mutation.test, plant(mutation, Path(scratch) / "tree", root), alone=True)
