"""The CUDA kernels compile for every architecture, without a warning and without spills."""

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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_kernels_compile_for_every_architecture_without_spills() -> None:
    resources = load()
    usages = resources.measure()
    assert {usage.architecture for usage in usages} == ARCHITECTURES
    kernels = {usage.kernel for usage in usages}
    assert len(usages) == len(kernels) * len(ARCHITECTURES)
    spills = [(u.kernel, u.architecture, u.spill_bytes) for u in usages if u.spill_bytes]
    assert not spills
    if (
        "release 13.0"
        in subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
    ):
        assert resources.table(usages) == resources.documented(), (
            "docs/gpu.md has another table: run python benchmarks/cuda_resources.py --write"
        )


REPORT = """
ptxas info    : Compiling entry function '_ZN8protoseg4cuda12units_kernelIfEEvNS0_11UnitsParamsIT_EE' for 'sm_90'
ptxas info    : Function properties for _ZN8protoseg4cuda12units_kernelIfEEvNS0_11UnitsParamsIT_EE
    24 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 126 registers, used 1 barriers, 24 bytes cumulative stack size, 960 bytes smem
ptxas info    : Compiling entry function '_ZN8protoseg4cuda11scan_kernelIvEEvNS0_10ScanParamsE' for 'sm_75'
ptxas info    : Function properties for _ZN8protoseg4cuda11scan_kernelIvEEvNS0_10ScanParamsE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, used 0 barriers, 416 bytes cmem[0]
"""  # noqa: E501


def test_reports_of_ptxas_are_understood() -> None:
    resources = load()
    units, scan = resources.parse(REPORT)
    assert (units.kernel, units.architecture) == ("units_kernel<float>", 90)
    assert (units.registers, units.shared_bytes, units.spill_bytes) == (126, 960, 28)
    assert (units.blocks, units.occupancy) == (2, 0.25)
    assert (scan.kernel, scan.spill_bytes, scan.occupancy) == ("scan_kernel", 0, 1.0)
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
def test_architectures_can_be_chosen(tmp_path: Path) -> None:
    printed = configure(tmp_path, "-DPROTOSEG_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=90")
    assert re.search(r"CUDA: nvcc [\d.]+, for 90$", printed, re.MULTILINE)
