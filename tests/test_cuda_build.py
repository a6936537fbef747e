"""The CUDA kernels are compiled for every architecture, without spills."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

import protoseg_fast as psf
from protoseg_fast import _core

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "cuda_resources.py"
ARCHITECTURES = {75, 80, 86, 89, 90, 100, 120}
CMAKE = shutil.which("cmake", path=sysconfig.get_path("scripts")) or shutil.which("cmake")
pytestmark = pytest.mark.skipif(
    not SCRIPT.exists() or CMAKE is None, reason="not a source tree, or no cmake"
)


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cuda_resources", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def nvcc_release() -> str | None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    printed = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release ([\d.]+)", printed)
    return found and found[1]


@pytest.mark.skipif(not _core.cuda_compiled(), reason="built without CUDA")
def test_kernels_are_compiled_for_every_architecture_without_spills() -> None:
    resources = load()
    try:
        usages = resources.measure(resources.installed())
    except FileNotFoundError as error:
        pytest.skip(str(error))
    compiled = {int(a) for a in re.findall(r"\d+", psf.build_config()["cuda"].partition(",")[0])}
    assert {usage.architecture for usage in usages} == compiled
    kernels = {usage.kernel for usage in usages}
    assert len(usages) == len(kernels) * len(compiled)
    spills = [(u.kernel, u.architecture, u.stack_bytes) for u in usages if u.stack_bytes]
    assert not spills
    if nvcc_release() == "13.0" and compiled == ARCHITECTURES:  # the table's
        assert resources.table(usages) == resources.documented(), (
            "docs/gpu.md has another table: run python benchmarks/cuda_resources.py --write"
        )


REPORT = """
Fatbin elf code:
================
arch = sm_90
code version = [1,8]

Resource usage:
 Common:
  GLOBAL:0
 Function _ZN8protoseg4cuda12units_kernelIfEEvNS0_11UnitsParamsIT_EE:
  REG:126 STACK:24 SHARED:960 LOCAL:4 CONSTANT[0]:416 TEXTURE:0 SURFACE:0 SAMPLER:0

Fatbin elf code:
================
arch = sm_75
compressed
 Function _ZN8protoseg4cuda11scan_kernelIvEEvNS0_10ScanParamsE:
  REG:64 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:416 TEXTURE:0 SURFACE:0 SAMPLER:0
"""


def test_reports_of_cuobjdump_are_understood() -> None:
    resources = load()
    units, scan = resources.parse(REPORT)
    assert (units.kernel, units.architecture) == ("units_kernel<float>", 90)
    assert (units.registers, units.shared_bytes, units.stack_bytes) == (126, 960, 28)
    assert (units.blocks, units.occupancy) == (2, 0.25)
    assert (scan.kernel, scan.architecture, scan.stack_bytes) == ("scan_kernel", 75, 0)
    assert scan.occupancy == 1.0
    assert "| `scan_kernel` |" in resources.table([scan])


def configure(folder: Path, *options: str) -> str:
    assert CMAKE is not None
    done = subprocess.run(
        [CMAKE, "-S", ROOT, "-B", folder, *options], capture_output=True, text=True, check=False
    )
    return done.stdout + re.sub(r"\s+", " ", done.stderr)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-DPROTOSEG_CUDA=OFF"], "CUDA: none, PROTOSEG_CUDA=OFF"),
        (["-DPROTOSEG_CUDA=AUTO", "-DCMAKE_CUDA_COMPILER="], "CUDA: none, nvcc was not found"),
        (["-DPROTOSEG_CUDA=ON", "-DCMAKE_CUDA_COMPILER="], "ON, but nvcc was not found"),
        (["-DPROTOSEG_CUDA=maybe"], "must be AUTO, ON or OFF, got maybe"),
    ],
)
@pytest.mark.slow
def test_the_build_says_what_was_decided(options: list[str], said: str, tmp_path: Path) -> None:
    assert said in configure(tmp_path, *options)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize(
    ("chosen", "compiled"),
    [([], ARCHITECTURES), (["-DCMAKE_CUDA_ARCHITECTURES=90"], {90})],
    ids=["all", "one"],
)
def test_architectures(chosen: list[str], compiled: set[int], tmp_path: Path) -> None:
    printed = configure(tmp_path, "-DPROTOSEG_CUDA=ON", *chosen)
    found = re.search(r"CUDA: nvcc [\d.]+, for (.*)$", printed, re.MULTILINE)
    assert found is not None, printed
    assert {int(a) for a in re.findall(r"\d+", found[1])} == compiled
