"""Registers, shared memory, stack and occupancy of every CUDA kernel of the installed package.

cuobjdump reads them from the machine code for each architecture, no GPU needed:

    python benchmarks/cuda_resources.py            # print the table
    python benchmarks/cuda_resources.py --write    # and put it into docs/gpu.md
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "gpu.md"
THREADS = 256  # of every block, see cuda/shape.cuh

REGISTERS = 65536  # of a multiprocessor, on all architectures below
#: Architecture: warps, blocks, bytes of shared memory of a multiprocessor (CUDA programming guide).
LIMITS = {
    75: (32, 16, 64 << 10),
    80: (64, 32, 164 << 10),
    86: (48, 16, 100 << 10),
    89: (48, 24, 100 << 10),
    90: (64, 32, 228 << 10),
    100: (64, 32, 228 << 10),
    120: (48, 24, 100 << 10),
}


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture."""

    kernel: str
    architecture: int
    registers: int
    shared_bytes: int  # static
    stack_bytes: int  # of a thread, in device memory: spilled registers, arrays with an index

    @property
    def blocks(self) -> int:
        """Blocks of a multiprocessor, as far as registers and static shared memory decide."""
        warps, blocks, shared = LIMITS[self.architecture]
        of_warp = -(-self.registers * 32 // 256) * 256  # registers are given out by 256
        by_registers = REGISTERS // (of_warp * THREADS // 32)
        by_shared = shared // (self.shared_bytes + 1024) if self.shared_bytes else blocks
        return min(blocks, warps * 32 // THREADS, by_registers, by_shared)

    @property
    def occupancy(self) -> float:
        """Share of the warps that a multiprocessor can hold."""
        return self.blocks * THREADS / 32 / LIMITS[self.architecture][0]


def find_tool(name: str) -> str:
    """A tool of this environment, of a package of NVIDIA's in it, or of the system."""
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    folders = [sysconfig.get_path("scripts"), *map(str, packages.glob("*/bin"))]
    found = (shutil.which(name, path=folder) for folder in folders)
    path = next(filter(None, found), None) or shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{name} is not installed")
    return path


REPORT = re.compile(
    r"^arch = sm_(?P<architecture>\d+)"
    r"|^ *Function (?P<name>\w+):\s+"
    r"REG:(?P<registers>\d+) STACK:(?P<stack>\d+) SHARED:(?P<shared>\d+) LOCAL:(?P<local>\d+)",
    re.MULTILINE,
)


def parse(report: str) -> list[Usage]:
    """The kernels of a report: an architecture, then its kernels."""
    matches = list(REPORT.finditer(report))
    names = iter(demangle([match["name"] for match in matches if match["name"]]))
    usages, architecture = [], 0
    for match in matches:
        if match["architecture"]:
            architecture = int(match["architecture"])
            continue
        usages.append(
            Usage(
                kernel=next(names),
                architecture=architecture,
                registers=int(match["registers"]),
                shared_bytes=int(match["shared"]),
                stack_bytes=int(match["stack"]) + int(match["local"]),
            )
        )
    return usages


def demangle(names: Sequence[str]) -> list[str]:
    """Short names, such as units_kernel<float>."""
    if not names:
        return []
    text = "\n".join(names)
    done = subprocess.run(
        [find_tool("c++filt")], input=text, capture_output=True, text=True, check=True
    )
    short = []
    for line in done.stdout.splitlines():
        name = re.sub(r"^void |protoseg::cuda::", "", line.partition("(")[0])
        short.append(name.removesuffix("<void>"))
    return short


def installed() -> Path:
    """The extension module of the installed package."""
    from protoseg_fast import _core

    return Path(_core.__file__)


def measure(library: Path) -> list[Usage]:
    """All kernels of a library on all architectures."""
    command = [find_tool("cuobjdump"), "--dump-resource-usage", library]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usages = parse(report)
    # Newer architectures may count the kilobyte of shared memory in that every block costs.
    own: dict[str, int] = {}
    for usage in usages:
        own[usage.kernel] = min(usage.shared_bytes, own.get(usage.kernel, usage.shared_bytes))
    # A kernel that two sources launch is there twice, the same both times.
    once = {replace(usage, shared_bytes=own[usage.kernel]) for usage in usages}
    return sorted(once, key=lambda usage: (usage.kernel, usage.architecture))


def table(usages: Iterable[Usage]) -> str:
    """Markdown: registers and occupancy of each kernel by architecture."""
    by_kernel: dict[str, dict[int, Usage]] = {}
    for usage in usages:
        by_kernel.setdefault(usage.kernel, {})[usage.architecture] = usage
    architectures = sorted({a for row in by_kernel.values() for a in row})
    lines = [
        "| kernel | " + " | ".join(f"sm_{a}" for a in architectures) + " | shared bytes |",
        "| --- |" + " --- |" * (len(architectures) + 1),
    ]
    for kernel, row in by_kernel.items():
        cells = [f"{row[a].registers}, {row[a].occupancy:.0%}" for a in architectures]
        shared = max(usage.shared_bytes for usage in row.values())
        lines.append(f"| `{kernel}` | {' | '.join(cells)} | {shared} |")
    return "\n".join(lines)


def _marks(section: str) -> tuple[str, str]:
    return f"<!-- {section}: begin -->", f"<!-- {section}: end -->"


def documented(section: str = "cuda_resources") -> str:
    """What docs/gpu.md has in a section that a script writes."""
    begin, end = _marks(section)
    return DOCUMENT.read_text().split(begin)[1].split(end)[0].strip()


def write(text: str, section: str = "cuda_resources") -> None:
    """Replace a section of docs/gpu.md."""
    begin, end = _marks(section)
    before, rest = DOCUMENT.read_text().split(begin)
    DOCUMENT.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}")


def main() -> int:
    """Command line; the exit status is 1 if a kernel keeps anything on a stack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path, help="instead of the installed package's")
    parser.add_argument("--write", action="store_true", help="put the table into docs/gpu.md")
    arguments = parser.parse_args()
    usages = measure(arguments.library or installed())
    if not usages:
        parser.error("the library has no CUDA kernels: build it with nvcc")
    print(table(usages))
    if arguments.write:
        write(table(usages))
    spilling = [usage for usage in usages if usage.stack_bytes]
    for usage in spilling:
        print(f"spills: {usage.kernel} on sm_{usage.architecture}: {usage.stack_bytes} bytes")
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main())
