"""Compile kernels for the host and run their scenarios.

What the checkout's headers say at this moment is what runs: an object is reused only if the
compiler, the flags, and every file that went into it are the same, byte for byte.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUNTIME = HERE / "runtime"
CACHE = Path(os.environ.get("SIMT_CACHE", Path(tempfile.gettempdir()) / f"simt-{os.getuid()}"))
# Where the kernels and the library are read from; mutation tests point it at a changed copy.
TREE = Path(os.environ.get("SIMT_TREE", ROOT))
COMPILER = os.environ.get("CXX", "g++")
JOBS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2  # of this process

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


def _file_digest(path: Path) -> str | None:
    try:
        return _digest(path.read_bytes())
    except OSError:
        return None


def include_directories(tree: Path) -> list[Path]:
    """Where headers are found; `tree` holds cuda/ and cpp/."""
    return [RUNTIME / "include", tree / "cuda", tree / "cpp" / "include", tree / "cpp" / "src"]


def _is_of(path: Path, tree: Path) -> bool:
    """Whether it is a file of the kernels or the library, which differ from tree to tree."""
    return path.is_relative_to(tree) and path.relative_to(tree).parts[0] in ("cuda", "cpp")


def _in_tree(path: Path, tree: Path) -> Path:
    """Files of the kernels and the library are taken from the tree."""
    return tree / path.relative_to(ROOT) if _is_of(path, ROOT) else path


def _portable(path: Path, tree: Path) -> str:
    """A path that is the same for all trees, the checkout being one of them."""
    return f"tree:{path.relative_to(tree)}" if _is_of(path, tree) else str(path)


def _is_current(files: dict[str, str], tree: Path) -> bool:
    return all(
        _file_digest(tree / path[5:] if path.startswith("tree:") else Path(path)) == digest
        for path, digest in files.items()
    )


def _rename_symbols(made: Path, script: Path) -> None:
    # The linker and the loader keep one copy of each function that several objects have, such as
    # those of std::string. The runtime and the C++ library must not end up with instrumented ones.
    weak = re.findall(r" W (_ZN?K?(?:St|9__gnu_cxx)\w+)$", _run(["nm", made]), re.M)
    # The C1 and C2 of a constructor stand in one group, C5, of which the linker keeps one as well.
    weak += [re.sub(r"([CD])[012](?=[EI])", r"\g<1>5", name) for name in weak]
    script.write_text("".join(f"{name} simt_{name}\n" for name in [*RENAMED, *sorted(set(weak))]))
    _run(["objcopy", f"--redefine-syms={script}", made])


def _compile(command: Sequence[str | Path], instrumented: bool, scratch: Path) -> list[Path]:
    """Makes scratch/unit.o; returns the files that went into it."""
    made, makefile = scratch / "unit.o", scratch / "unit.d"
    _run([*command, "-MMD", "-MF", makefile, "-o", made])
    if instrumented:
        _rename_symbols(made, scratch / "renames")
    names = makefile.read_text().replace("\\\n", " ").partition(":")[2].strip()
    return [Path(name.replace("\\ ", " ")) for name in re.split(r"(?<!\\)\s+", names)]


def compile_unit(unit: Unit, tree: Path = TREE) -> Path:
    """The object file of a unit; files of the kernels and the library are those of `tree`."""
    done = _compile_unit(unit, tree, wait=True)
    assert done is not None
    return done


def _compile_unit(unit: Unit, tree: Path, *, wait: bool) -> Path | None:
    """None: another process, or thread, is compiling it, and this one shall not wait."""
    source = _in_tree(unit.source.resolve(), tree)
    flags = [*(INSTRUMENTED if unit.instrumented else PLAIN), *WARNINGS, *unit.flags]
    own = source.is_relative_to(RUNTIME)  # the runtime knows nothing of the kernels
    directories = include_directories(tree)[: 1 if own else None]
    # A header that is new may hide another one, so the names count too.
    headers = sorted(
        _portable(path, tree) for folder in directories for path in folder.glob("**/*.[ch]*")
    )
    recipe = Path(__file__).read_bytes()
    key = _digest(_compiler_version(), recipe, *flags, _portable(source, tree), *headers)
    known = CACHE / "objects" / key
    known.mkdir(parents=True, exist_ok=True)
    with _turn(known / f"{'runtime' if own else _digest(str(tree))}.lock", wait) as ours:
        if not ours:
            return None
        with _compiling:
            done = _find(known, tree)
            if done is None:
                includes = [f"-I{folder}" for folder in directories]
                command = [COMPILER, *flags, *includes, "-x", "c++", "-c", str(source)]
                done = _make(known, command, unit.instrumented, tree)
            return done


_compiling = threading.BoundedSemaphore(JOBS)


@contextlib.contextmanager
def _turn(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a lock file, so that nothing is compiled twice; false if it is held and not to wait."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True  # closing the file releases the lock


def _find(known: Path, tree: Path) -> Path | None:
    for manifest in known.glob("*.json"):
        done = manifest.with_suffix(".o")
        if _is_current(json.loads(manifest.read_text()), tree) and done.exists():
            os.utime(done)
            return done
    return None


def _make(known: Path, command: Sequence[str], instrumented: bool, tree: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        scratch, start = Path(name), time.time()
        paths = _compile(command, instrumented, scratch)
        files = {_portable(path, tree): _file_digest(path) for path in paths}
        past = [path for path in paths if _in_tree(path, tree) != path]
        if past:
            raise BuildError(f"{command[-1]} includes {past[0]}, which is outside the tree {tree}")
        done = known / f"{_digest(json.dumps(files, sort_keys=True))}.o"
        (scratch / "unit.o").replace(done)
        if all(path.stat().st_mtime < start for path in paths):  # none was edited meanwhile
            (scratch / "manifest").write_text(json.dumps(files))
            (scratch / "manifest").replace(done.with_suffix(".json"))
    return done


def compile_all(units: Iterable[Unit], tree: Path = TREE) -> list[Path]:
    """The objects of several units, compiled side by side with whoever compiles the same."""
    units = list(units)
    with ThreadPoolExecutor(JOBS) as pool:
        first = list(pool.map(lambda unit: _compile_unit(unit, tree, wait=False), units))
        left = [unit for unit, done in zip(units, first, strict=True) if done is None]
        second = iter(list(pool.map(lambda unit: compile_unit(unit, tree), left)))
        return [done or next(second) for done in first]


def _runtime_units(*, main: bool) -> list[Unit]:
    sources = sorted((RUNTIME / "src").glob("*.cpp"))
    return [
        Unit(source, instrumented=False) for source in sources if main or source.name != "main.cpp"
    ]


def _link(objects: Sequence[Path], flags: Sequence[str], suffix: str) -> Path:
    key = _digest(_compiler_version(), *flags, *("/".join(path.parts[-2:]) for path in objects))
    done = CACHE / f"{key}{suffix}"
    if done.exists():
        os.utime(done)
    else:
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            made = Path(scratch) / "linked"
            _run([COMPILER, *flags, "-pthread", "-o", made, *objects, "-ldl", "-lrt"])
            made.replace(done)
    return done


def units_of(source: Path) -> list[Unit]:
    """The source and what it says it needs, in lines such as

    // needs: cuda/engine.cu cuda/guide.cu
    // needs plain: cpp/src/kernels.cpp -DPROTOSEG_ISA=baseline
    """
    units = [Unit(source)]
    for plain, words in re.findall(r"^// needs( plain)?: (.*)$", source.read_text(), re.M):
        flags = tuple(word for word in words.split() if word.startswith("-"))
        for pattern in words.split():
            paths = [] if pattern.startswith("-") else sorted(ROOT.glob(pattern))
            units += [Unit(path, instrumented=not plain, flags=flags) for path in paths]
    return units


def program(source: Path, tree: Path = TREE, alone: str | None = None) -> Path:
    """A program of the scenarios in a source file, or of one alone, which compiles faster."""
    own, *others = units_of(source)
    if alone is not None:
        own = replace(own, flags=("-DSIMT_ALONE", f"-DSIMT_ALONE_{alone}=, SIMT_COMPILED"))
    objects = compile_all([*_runtime_units(main=True), own, *others], tree)
    return _link(objects, ("-rdynamic",), "")


def library(
    *units: Unit, tree: Path = TREE, flags: tuple[str, ...] = (), suffix: str = ".so"
) -> Path:
    """A shared library with the runtime in it, for ctypes or as an extension module."""
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


def forget_old(days: float = 7) -> None:
    """Remove what was compiled and not used for some days."""
    files = (Path(folder) / name for folder, _, names in os.walk(CACHE) for name in names)
    for path in files:  # of other processes too, which remove some of them meanwhile
        with contextlib.suppress(OSError):
            stale = path.is_file() and path.stat().st_mtime < time.time() - days * 86400
            if stale and path.suffix != ".json":
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink()


def copy_tree(target: Path, root: Path = ROOT) -> Path:
    """A copy of the kernels, the library and its bindings, to be changed."""
    for part in ("cuda", "cpp"):
        shutil.copytree(root / part, target / part)
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
