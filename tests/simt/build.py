"""Compile kernels for the host and run their scenarios.

What the checkout's headers say at this moment is what runs: an object is reused only if the
compiler, the flags, and every file that went into it are the same, byte for byte.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUNTIME = HERE / "runtime"
CACHE = Path(os.environ.get("SIMT_CACHE", Path(tempfile.gettempdir()) / f"simt-{os.getuid()}"))
COMPILER = os.environ.get("CXX", "g++")
JOBS = 2

WARNINGS = ("-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-class-memaccess")
COMMON = ("-std=c++17", "-g1", "-fPIC", "-ffp-contract=off", "-pthread")
PLAIN = (*COMMON, "-O2")
# Every load and store calls the runtime. One access of the source stays one access: nothing is
# vectorised or merged. What is not initialised holds garbage.
INSTRUMENTED = (
    *COMMON,
    "-O1",
    "-fsanitize=thread",
    "--param=tsan-instrument-func-entry-exit=0",
    "-fsanitize=signed-integer-overflow,shift,integer-divide-by-zero,bounds,bool,enum,"
    "unreachable,return,float-cast-overflow,vla-bound",
    "-fno-sanitize-recover=all",
    "-ftrivial-auto-var-init=pattern",
    "-fno-tree-vectorize",
    "-fno-tree-slp-vectorize",
    "-fno-store-merging",
    "-fno-tree-loop-distribute-patterns",
)
RENAMED = ("memcpy", "memmove", "memset")  # calls that the compiler makes, not instrumented


class BuildError(Exception):
    """The compiler refused; the message is what it said."""


@dataclass(frozen=True)
class Unit:
    """A source file and how it is compiled."""

    source: Path
    instrumented: bool = True  # kernels, and host code that is compiled with them
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """How a scenario ended."""

    passed: bool
    output: str


def _run(command: Sequence[str | Path]) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        errors = re.findall(r"^.*(?:error|undefined reference).*(?:\n .*)*", done.stderr, re.M)
        raise BuildError(f"{words[0]} failed:\n" + ("\n".join(errors) or done.stderr))
    return done.stdout


@functools.cache
def _compiler_version() -> str:
    return _run([COMPILER, "--version"])


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def _file_digest(path: str) -> str | None:
    try:
        return _digest(Path(path).read_bytes())
    except OSError:
        return None


def include_directories(tree: Path = ROOT) -> list[Path]:
    """Where headers are found; `tree` holds cuda/ and cpp/include/."""
    return [RUNTIME / "include", tree / "cuda", tree / "cpp" / "include", tree / "cpp" / "src"]


def _command(unit: Unit, tree: Path) -> list[str]:
    flags = [*(INSTRUMENTED if unit.instrumented else PLAIN), *WARNINGS, *unit.flags]
    return [COMPILER, *flags, *(f"-I{path}" for path in include_directories(tree)), "-x", "c++"]


def _dependencies(makefile: str) -> list[str]:
    text = makefile.replace("\\\n", " ").partition(":")[2]
    return [name.replace("\\ ", " ") for name in re.split(r"(?<!\\)\s+", text.strip())]


def _rename_symbols(made: Path, script: Path) -> None:
    # The linker and the loader keep one copy of each function that several objects have, such as
    # those of std::string. The runtime and the C++ library must not end up with instrumented ones.
    weak = re.findall(r" W (_ZN?K?(?:St|9__gnu_cxx)\w+)$", _run(["nm", made]), re.M)
    script.write_text("".join(f"{name} simt_{name}\n" for name in [*RENAMED, *sorted(set(weak))]))
    _run(["objcopy", f"--redefine-syms={script}", made])


def compile_unit(unit: Unit, tree: Path = ROOT) -> Path:
    """The object file of a unit; `tree` is searched for the headers of the kernels."""
    command = _command(unit, tree)
    # A header that is new may hide another one, so the names count too.
    names = sorted(
        str(path)
        for directory in include_directories(tree)
        for path in directory.glob("**/*.[ch]*")
    )
    key = _digest(
        _compiler_version(), Path(__file__).read_bytes(), *command, str(unit.source), *names
    )
    objects = CACHE / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    manifest = objects / f"{key}.json"
    if manifest.exists():
        known = json.loads(manifest.read_text())
        done = objects / known["object"]
        unchanged = all(_file_digest(path) == known["files"][path] for path in known["files"])
        if unchanged and done.exists():
            return done
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        made, makefile = Path(scratch) / "unit.o", Path(scratch) / "unit.d"
        _run([*command, "-MD", "-MF", makefile, "-c", unit.source, "-o", made])
        if unit.instrumented:
            _rename_symbols(made, Path(scratch) / "renames")
        files = {path: _file_digest(path) for path in _dependencies(makefile.read_text())}
        done = objects / f"{_digest(key, json.dumps(files, sort_keys=True))}.o"
        made.replace(done)
        text = Path(scratch) / "manifest"
        text.write_text(json.dumps({"object": done.name, "files": files}))
        text.replace(manifest)
    return done


def compile_all(units: Iterable[Unit], tree: Path = ROOT) -> list[Path]:
    """The objects of several units, compiled side by side."""
    with ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(lambda unit: compile_unit(unit, tree), units))


def _runtime_units(*, main: bool) -> list[Unit]:
    sources = sorted((RUNTIME / "src").glob("*.cpp"))
    return [
        Unit(source, instrumented=False) for source in sources if main or source.name != "main.cpp"
    ]


def _link(objects: Sequence[Path], flags: Sequence[str], suffix: str) -> Path:
    key = _digest(_compiler_version(), *flags, *(path.name for path in objects))
    done = CACHE / f"{key}{suffix}"
    if not done.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            made = Path(scratch) / "linked"
            _run([COMPILER, *flags, "-pthread", "-o", made, *objects, "-ldl", "-lrt"])
            made.replace(done)
    return done


def program(*sources: Path | Unit, tree: Path = ROOT) -> Path:
    """A program of the scenarios in these sources."""
    units = [s if isinstance(s, Unit) else Unit(s) for s in sources]
    objects = compile_all([*_runtime_units(main=True), *units], tree)
    return _link(objects, ("-rdynamic",), "")


def library(
    *sources: Path | Unit, tree: Path = ROOT, flags: tuple[str, ...] = (), suffix: str = ".so"
) -> Path:
    """A shared library with the runtime in it, for ctypes or as an extension module."""
    units = [s if isinstance(s, Unit) else Unit(s) for s in sources]
    objects = compile_all([*_runtime_units(main=False), *units], tree)
    # Its own copies of everything: several such libraries may be loaded at once.
    return _link(objects, ("-shared", "-Wl,-Bsymbolic", "-Wl,--no-undefined", *flags), suffix)


def scenarios(source: Path) -> list[str]:
    """The names of the scenarios in a source file."""
    return re.findall(r"^SIMT_SCENARIO\((\w+)\)", source.read_text(), re.M)


def faults(source: Path) -> dict[str, str]:
    """Scenarios that must end with a fault, each with a regular expression."""
    return dict(re.findall(r'^SIMT_FAULT\((\w+),\s*"(.*)"\)', source.read_text(), re.M))


def run(
    executable: Path, scenario: str, seed: int = 1, *arguments: str, timeout: float = 90
) -> Result:
    """Run one scenario under one schedule. It never hangs: a launch limits itself to 20 s."""
    try:
        done = subprocess.run(
            [str(executable), scenario, str(seed), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return Result(False, f"time limit: {scenario} runs for longer than {timeout} s")
    if done.returncode < 0:
        return Result(False, f"crash: signal {-done.returncode}\n{done.stdout}{done.stderr}")
    return Result(done.returncode == 0, done.stdout + done.stderr)


def copy_tree(target: Path) -> Path:
    """A copy of the kernels' headers, to be changed."""
    for part in ("cuda", "cpp/include", "cpp/src"):
        shutil.copytree(ROOT / part, target / part)
    return target


def main() -> None:
    """Compile a file of scenarios and run it: python tests/simt/build.py FILE [NAME [SEED]] ..."""
    import argparse

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("scenario", nargs="?", help="one of the file's scenarios; all if left out")
    parser.add_argument("seeds", nargs="*", type=int, default=[], help="schedules, default 0 to 3")
    parser.add_argument("--traffic", action="store_true", help="one line of JSON per launch")
    parser.add_argument("--hot", action="store_true", help="the lines that move most")
    options = parser.parse_args()
    executable = program(options.source.resolve())
    extra = [flag for flag in ("--traffic", "--hot") if vars(options)[flag[2:]]]
    expected = faults(options.source)
    names = [options.scenario] if options.scenario else [*scenarios(options.source), *expected]
    failed = False
    for name in names:
        for seed in options.seeds or range(4):
            result = run(executable, name, seed, *extra)
            as_expected = result.passed == (name not in expected) and bool(
                re.search(expected.get(name, ""), result.output)
            )
            failed |= not as_expected
            print(f"{name}, seed {seed}: {'as expected' if as_expected else 'FAILED'}")
            if result.output and (options.scenario or not as_expected or extra):
                print(result.output.rstrip())
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
