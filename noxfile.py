"""The commands of this project, for people (`nox -s quick`) and for CI (`nox --no-venv -s lint`).

Arguments after `--` go to the command: `nox -s tests -- -k resized`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "quick"]

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
EXTRAS = PROJECT["optional-dependencies"]
CPP_SOURCES = ["cpp", "cuda", "tests/cpp"]
CPP_SUFFIXES = {".cpp", ".hpp", ".cu", ".cuh"}
# Tests that drive every kernel with NumPy input; the others mostly test torch under a sanitizer.
SANITIZED_TESTS = [
    f"tests/test_{name}.py" for name in ("scores", "degenerate", "inputs", "laws", "reproducible")
]

# Tests that skip what a library is missing for, unless PROTOSEG_TEST_LIBRARIES=required.
LIBRARY_TESTS = [
    f"tests/test_{name}.py" for name in ("networks", "docs", "cohort_libraries", "cohort_queries")
]


def install(session: nox.Session, *requirements: str) -> None:
    """Install into the session's environment; with --no-venv, what is there is used."""
    if session.venv_backend != "none":
        session.install(*requirements)


def tools(*names: str) -> list[str]:
    """Return the requirements of the dev extra that begin with one of the names."""
    return [requirement for requirement in EXTRAS["dev"] if requirement.startswith(names)]


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests."""
    install(session, ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def quick(session: nox.Session) -> None:
    """Run the tests that take a few seconds at most."""
    install(session, ".[test]")
    chosen = ["-m", "not slow", "--ignore=tests/simt", *session.posargs]  # simt compiles scenarios
    session.run("pytest", *chosen, env={"HYPOTHESIS_PROFILE": "quick"})


def oldest_versions() -> list[str]:
    """Return what the package needs, in the oldest versions that it allows: numpy==1.24.*"""
    needed = {*PROJECT["dependencies"], *EXTRAS["network"], *EXTRAS["sweep"], *EXTRAS["demo"]}
    needed |= set(EXTRAS["report"])
    pairs = [requirement.split(">=") for requirement in sorted(needed)]
    return [f"{name}=={v if '.' in v else f'{v}.0'}.*" for name, v in pairs]


@nox.session(python="3.10")
def oldest(session: nox.Session) -> None:
    """Run the quick tests with the oldest Python and libraries; downloads gigabytes for torch."""
    install(session, ".[test]", *[v for v in oldest_versions() if v.startswith("torch")])
    # JAX needs a newer NumPy; tests of it are skipped.
    session.run("python", "-m", "pip", "uninstall", "--yes", "jax", "jaxlib", "ml-dtypes")
    session.install(*oldest_versions(), "array-api-strict==2.0.*")
    booleans = "test_results_are_of_the_callers_kind[array_api_strict]"  # NumPy exports none yet
    left_out = ["--ignore=tests/simt", f"--deselect=tests/test_arrays.py::{booleans}"]
    session.run("pytest", "-m", "not slow", *left_out, *session.posargs)


@nox.session
def networks(session: nox.Session) -> None:
    """Test with the networks, files and queries of other libraries, none of them left out."""
    install(session, ".[test,libraries]")
    environment = {"PROTOSEG_TEST_LIBRARIES": "required"}
    session.run("pytest", "-n", "2", *LIBRARY_TESTS, *session.posargs, env=environment)


@nox.session
def mutations(session: nox.Session) -> None:
    """Plant every bug into the CUDA kernels; `tests` plants a fortieth of them."""
    install(session, ".[test]")
    environment = {"SIMT_MUTATIONS": "all"}
    session.run("pytest", "tests/simt", "-k", "mutation", *session.posargs, env=environment)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format of Python and C++."""
    install(session, *tools("ruff", "clang-format"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    files = (path for folder in CPP_SOURCES for path in Path(folder).rglob("*"))
    cpp = sorted(str(path) for path in files if path.suffix in CPP_SUFFIXES)
    session.run("clang-format", "--dry-run", "--Werror", *cpp)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package."""
    install(session, ".[demo]", *tools("mypy"))
    session.run("mypy", *session.posargs)


@nox.session
def sanitizers(session: nox.Session) -> None:
    """Run the C++ test under ASan+UBSan and TSan, and Python tests under ASan+UBSan."""
    install(session, ".[dev]")
    for preset in ("asan", "tsan"):
        session.run("cmake", "--preset", preset)
        session.run("cmake", "--build", "--preset", preset)
        session.run("ctest", "--preset", preset)
    with tempfile.TemporaryDirectory() as folder:
        session.run(
            *("python", "-m", "pip", "install", "--quiet", ".", "--target", folder),
            *("--no-deps", "--no-build-isolation"),
            "--config-settings=cmake.define.PROTOSEG_SANITIZE=address,undefined",
            "--config-settings=cmake.define.PROTOSEG_CUDA=OFF",
        )
        # Python itself is not instrumented: the runtimes must come first, and what the
        # interpreter keeps until it exits is no leak.
        runtimes = [runtime("libasan.so"), runtime("libstdc++.so")]
        environment = {
            "PYTHONPATH": folder,
            "LD_PRELOAD": " ".join(runtimes),
            "ASAN_OPTIONS": "detect_leaks=0",
            "HYPOTHESIS_PROFILE": "quick",
        }
        loaded = f"from protoseg_fast import _core; assert _core.__file__.startswith({folder!r})"
        session.run("python", "-c", loaded, env=environment)
        chosen = session.posargs or ["-m", "not slow", *SANITIZED_TESTS]
        session.run("pytest", "-n", "2", "-p", "no:cacheprovider", *chosen, env=environment)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the speed against PyTorch; prints a table."""
    install(session, ".[demo]")
    session.run("python", "benchmarks/bench.py", *session.posargs)


def runtime(name: str) -> str:
    """Return the path of one of the compiler's runtime libraries."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"
    command = [compiler, f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
