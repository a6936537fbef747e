"""Registers, shared memory, spills and occupancy of every CUDA kernel, as ptxas reports them.

Compiles cuda/*.cu with the flags of the build, once per architecture, no GPU needed:

    python benchmarks/cuda_resources.py            # print the table
    python benchmarks/cuda_resources.py --write    # and put it into docs/gpu.md
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "gpu.md"
JOBS = 2
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
    spill_bytes: int
    stack_bytes: int

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
    """A tool of this environment or of the system."""
    path = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{name} is not installed")
    return path


def device_commands(folder: Path) -> dict[str, tuple[list[str], list[int]]]:
    """The build's command for each source, without its targets, and the architectures."""
    configure = [find_tool("cmake"), "-S", ROOT, "-B", folder, "-G", "Ninja", "-DPROTOSEG_CUDA=ON"]
    configure += [
        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
        f"-DCMAKE_MAKE_PROGRAM={find_tool('ninja')}",
    ]
    done = subprocess.run(configure, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"cmake failed:\n{done.stdout}{done.stderr}")
    commands = {}
    for entry in json.loads((folder / "compile_commands.json").read_text()):
        if not entry["file"].endswith(".cu"):
            continue
        words = shlex.split(entry["command"])
        text = " ".join(words)
        architectures = sorted({int(a) for a in re.findall(r"code=\S*?sm_(\d+)", text)})
        kept = [word for word in words if not word.startswith("--generate-code")]
        kept = kept[: kept.index("-x")]  # what follows: -x cu -c SOURCE -o OBJECT
        commands[entry["file"]] = kept, architectures
    return commands


def compile_for(command: Sequence[str], source: str, architecture: int) -> str:
    """What ptxas says about one source on one architecture; warnings are errors."""
    with tempfile.TemporaryDirectory() as scratch:
        target = f"--gpu-architecture=sm_{architecture}"
        output = f"{scratch}/kernels.cubin"
        words = [*command, target, "-Xptxas=-v", "-Werror=all-warnings", "--cubin", source]
        done = subprocess.run([*words, "-o", output], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"nvcc failed for sm_{architecture}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


REPORT = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<architecture>\d+)\w*'"
    r".*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def parse(report: str) -> list[Usage]:
    """The kernels of a report."""
    found = [match.groupdict() for match in REPORT.finditer(report)]
    names = demangle([entry["name"] for entry in found])
    usages = []
    for entry, name in zip(found, names, strict=True):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        usages.append(
            Usage(
                kernel=name,
                architecture=int(entry["architecture"]),
                registers=int(entry["registers"]),
                shared_bytes=int(shared[1]) if shared else 0,
                spill_bytes=int(entry["stores"]) + int(entry["loads"]),
                stack_bytes=int(entry["stack"]),
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


def measure() -> list[Usage]:
    """Compile everything; all kernels on all architectures."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            (command, source, architecture)
            for source, (command, architectures) in device_commands(Path(folder)).items()
            for architecture in architectures
        ]
        with ThreadPoolExecutor(JOBS) as pool:
            reports = list(pool.map(lambda job: compile_for(*job), jobs))
    # A kernel that two sources launch is reported twice, the same both times.
    usages = {usage for report in reports for usage in parse(report)}
    return sorted(usages, key=lambda usage: (usage.kernel, usage.architecture))


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
    """Command line; the exit status is 1 if anything spills."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/gpu.md")
    arguments = parser.parse_args()
    usages = measure()
    print(table(usages))
    if arguments.write:
        write(table(usages))
    spilling = [usage for usage in usages if usage.spill_bytes]
    for usage in spilling:
        print(f"spills: {usage.kernel} on sm_{usage.architecture}: {usage.spill_bytes} bytes")
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main())
