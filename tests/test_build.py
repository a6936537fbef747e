"""The build: the C++ library on its own, what objects export, what the package links and costs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

import protoseg_fast as psf

ROOT = Path(__file__).parents[1]
CONFIG = psf.build_config()


def command(*arguments: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command and return what it printed; a failure shows all of it."""
    run = subprocess.run(
        [str(a) for a in arguments],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"{arguments} failed:\n{run.stdout}"
    return run.stdout


def tool(name: str) -> str:
    """Find a tool, in this environment first; skip the test if there is none."""
    path = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def source(name: str) -> str:
    """Return a file of the source tree; skip the test outside of one."""
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"no {name}: not a source tree")
    return path.read_text()


def cmake_version() -> str:
    found = re.search(r"project\(protoseg VERSION ([0-9.]+)", source("CMakeLists.txt"))
    assert found is not None
    return found[1]


def instruction_sets() -> set[str]:
    """Return the instruction sets that CMakeLists.txt builds kernels for."""
    return set(re.findall(r"protoseg_isa\((\w+)[ )]", source("CMakeLists.txt"))) - {"name"}


# ---- the C++ library -----------------------------------------------------------------------


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ library and its test, built once."""
    source("cpp/src/kernels.cpp")
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("cpp")
    command(
        tool("cmake"),
        *("-S", ROOT, "-B", folder, "-G", "Ninja"),
        f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
        f"-DCMAKE_CXX_COMPILER={compiler}",
        *("-DPROTOSEG_TESTS=ON", "-DPROTOSEG_CUDA=OFF", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"),
        cwd=folder,
    )
    log = command(tool("cmake"), "--build", folder, cwd=folder)
    assert "warning:" not in log, log
    return folder


@pytest.mark.slow
def test_cpp_library_links_and_passes_its_test_without_python(build: Path) -> None:
    printed = command(tool("ctest"), "--output-on-failure", "--no-tests=error", cwd=build)
    assert "100% tests passed" in printed


def kernel_objects(build: Path) -> dict[str, Path]:
    objects = build.glob("CMakeFiles/protoseg_kernels_*.dir/cpp/src/kernels.cpp.o")
    return {re.sub(r".*protoseg_kernels_(\w+)\.dir.*", r"\1", str(path)): path for path in objects}


def exported_symbols(kernels: Path) -> set[str]:
    """Return the symbols an object offers to the linker, weak and unique ones included."""
    listed = command(tool("nm"), "-C", "--defined-only", "--extern-only", kernels, cwd=ROOT)
    return {" ".join(line.split()[1:]) for line in listed.splitlines()}


# A function compiled for AVX-512 that the linker may pick for everyone (weak: W, V; unique: u)
# would crash on processors without it. Only the table of a copy may leave its object.
@pytest.mark.slow
def test_kernels_export_nothing_but_their_table(build: Path) -> None:
    objects = kernel_objects(build)
    assert set(objects) == set(CONFIG["compiled_isas"])
    for isa, path in objects.items():
        assert exported_symbols(path) <= {f"{kind} protoseg::kernels_{isa}" for kind in "DR"}, isa


@pytest.mark.slow
def test_kernels_export_nothing_more_without_optimisation(build: Path, tmp_path: Path) -> None:
    # Nothing is inlined that is not forced to be: every helper would show.
    for entry in json.loads((build / "compile_commands.json").read_text()):
        if not entry["file"].endswith("kernels.cpp"):
            continue
        path = tmp_path / "kernels.o"
        arguments = shlex.split(entry["command"])
        output = arguments.index("-o") + 1
        isa = re.sub(r".*protoseg_kernels_(\w+)\.dir.*", r"\1", arguments[output])
        arguments[output] = str(path)
        command(*arguments, "-O0", cwd=Path(entry["directory"]))
        assert exported_symbols(path) <= {f"{kind} protoseg::kernels_{isa}" for kind in "DR"}, isa


# ---- the installed package -----------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads ELF files")
def test_extension_links_neither_torch_nor_cuda_nor_python() -> None:
    from protoseg_fast import _core

    listed = command(tool("readelf"), "--dynamic", "--wide", _core.__file__, cwd=ROOT)
    needed = re.findall(r"\(NEEDED\).*\[(.+?)\.so", listed)
    runtime = {"libstdc++", "libm", "libgcc_s", "libc", "libgomp", "libomp", "libpthread"}
    assert not {name for name in needed if not name.startswith("ld-linux")} - runtime
    assert "RUNPATH" not in listed
    assert "RPATH" not in listed


def test_build_config_says_what_cmake_built() -> None:
    assert CONFIG["version"] == cmake_version()
    assert set(CONFIG["compiled_isas"]) in (instruction_sets(), {"baseline"})
    assert CONFIG["available_isas"] == psf.available_isas()
    assert CONFIG["available_isas"][0] == "baseline"
    assert set(CONFIG["available_isas"]) <= set(CONFIG["compiled_isas"])
    assert CONFIG["isa"] in CONFIG["available_isas"]
    assert CONFIG["threads"] in ("OpenMP", "std::thread")
    assert re.match(r"(GCC|Clang) \d+", CONFIG["compiler"])


def test_one_version_everywhere() -> None:
    version = cmake_version()
    assert psf.__version__ == version
    assert metadata.version("protoseg_fast") == version
    assert re.findall(r"^## \[(\d[^]]*)\]", source("CHANGELOG.md"), re.MULTILINE)[0] == version
    assert re.findall(r"^version: (.+)$", source("CITATION.cff"), re.MULTILINE) == [version]


def in_a_fresh_interpreter(code: str, folder: Path, *flags: str, **environment: str) -> str:
    return command(sys.executable, *flags, "-c", code, cwd=folder, **environment)


def test_import_leaves_heavy_libraries_alone(tmp_path: Path) -> None:
    code = (
        "import sys, protoseg_fast; print(*{name.partition('.')[0] for name in sys.modules"
        " if not name.startswith('_')})"
    )
    imported = set(in_a_fresh_interpreter(code, tmp_path).split())
    assert {"numpy", "protoseg_fast"} <= imported
    assert not imported & {"torch", "jax", "pandas", "pyarrow", "matplotlib", "nilearn", "rich"}


def test_import_costs_little_beyond_numpy(tmp_path: Path) -> None:
    code = "import numpy, protoseg_fast"
    costs = []
    for _ in range(5):  # the least disturbed of some tries
        listed = in_a_fresh_interpreter(code, tmp_path, "-X", "importtime")
        found = re.search(r"\| +(\d+) \| protoseg_fast$", listed, re.MULTILINE)
        assert found is not None
        costs.append(int(found[1]) / 1000)
    assert min(costs) < 50, f"importing takes {costs} ms beyond NumPy"


@pytest.mark.parametrize("name", CONFIG["compiled_isas"])
def test_instruction_set_from_the_environment(name: str, tmp_path: Path) -> None:
    code = """
import numpy as np
import protoseg_fast as psf
features = np.arange(40.0).reshape(1, 2, 20)
pred = np.linspace(0, 1, 20).reshape(1, 1, 20)
try:
    score = psf.sa_score(features, pred, pred > 0.5, groups="unit")
    print(psf.build_config()["isa"], score.ravel().tolist())
except ValueError as error:
    print(error)
"""
    printed = in_a_fresh_interpreter(code, tmp_path, PROTOSEG_ISA=name).strip()
    if name in psf.available_isas():
        assert printed == f"{name} [1.0, 1.0]"
    else:
        assert "PROTOSEG_ISA" in printed
        assert f"choose one of: {', '.join(psf.available_isas())}" in printed
