"""One command on a machine with a GPU: is the CUDA engine right, and how fast is it?

    python benchmarks/gpu_check.py --build      # pip install for this GPU, then everything
    python benchmarks/gpu_check.py --dry-run    # without a GPU: its logic, on the SIMT runtime

Each section runs in a process of its own with a time limit: one that fails leaves the others'
results. Writes benchmarks/results/gpu-DATE.json and prints a table; see docs/gpu.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
SCHEMA = 1

#: Section and seconds it may take; in this order, which ends with what can be missed.
SECTIONS = {
    "environment": 60,
    "correctness": 120,
    "reproducible": 30,
    "values": 30,
    "gradients": 60,
    "graph": 30,
    "streams": 30,
    "libraries": 30,
    "tracing": 45,
    "bandwidth": 30,
    "sweeps": 60,
    "network": 45,
    "together": 30,
    "memcheck": 45,
    "racecheck": 45,
    "initcheck": 45,
    "synccheck": 45,
    "peers": 90,
    "strategies": 45,
}
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
TOTAL_S = 470.0  # all sections together; what does not fit is left out, and the record says so


def environment(dry_run: bool) -> dict[str, Any]:
    """What everything is measured on."""
    import numpy
    import torch
    from gpu.device import open_device

    device = open_device(dry_run)
    found: dict[str, Any] = {
        "ok": True,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "torch": torch.__version__,
        "protoseg_fast": device.psf.build_config(),
        "cpus": os.cpu_count(),
        "device": "SIMT runtime" if dry_run else torch.cuda.get_device_name(),
    }
    query = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv"]
    if not dry_run and shutil.which("nvidia-smi"):
        found["nvidia_smi"] = subprocess.run(command, capture_output=True, text=True).stdout
    return found


def sanitizer(tool: str, dry_run: bool) -> dict[str, Any]:
    """A small set of the correctness cases under compute-sanitizer; our kernels only."""
    inner = [sys.executable, __file__, "--section", "correctness", "--small"]
    if dry_run:
        command = [*inner, "--dry-run"]  # the command that would run below the tool
    elif (path := shutil.which("compute-sanitizer")) is None:
        return {"ok": None, "skipped": "compute-sanitizer is not installed"}
    else:
        command = [path, "--tool", tool, "--error-exitcode", "99"]
        command += ["--kernel-regex", "kns=protoseg", "--target-processes", "all", *inner]
    # torch's cache would hide what lies beyond an array's end
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    text = done.stdout + done.stderr
    summary = re.findall(r"ERROR SUMMARY: .*|RACECHECK SUMMARY: .*", text)
    ok = done.returncode == 0 and (dry_run or bool(summary))
    return {"ok": ok, "summary": summary, "output": "" if ok else text[-3000:]}


def run_section(name: str, dry_run: bool, small: bool) -> dict[str, Any]:
    """Run a section in this process."""
    if name in SANITIZERS:
        return sanitizer(name, dry_run)
    if name == "environment":
        return environment(dry_run)
    from gpu import correctness, networks, timings, training
    from gpu.device import open_device

    modules = (correctness, networks, timings, training)
    section = next(getattr(module, name) for module in modules if hasattr(module, name))
    return section(open_device(dry_run), small)


def isolated(name: str, arguments: argparse.Namespace, limit: float) -> dict[str, Any]:
    """Run a section in a process of its own; whatever happens to it is a result."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--section", name, "--output", str(output)]
        command += ["--dry-run"] if arguments.dry_run else []
        command += ["--small"] if arguments.small or arguments.dry_run else []
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            text, _ = process.communicate(timeout=limit)
            problem = f"exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # with what it started
            text, _ = process.communicate()
            problem = f"took longer than {limit:.0f} s"
        if output.exists():
            result = json.loads(output.read_text())
        else:
            result = {"ok": False, "problem": problem, "output": text[-3000:]}
    return result | {"seconds": round(time.perf_counter() - start, 1)}


def build() -> dict[str, Any]:
    """Install this checkout for the GPU at hand, with what is installed already."""
    import torch

    major, minor = torch.cuda.get_device_capability() if torch.cuda.is_available() else (9, 0)
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "."]
    command += ["-C", "cmake.define.PROTOSEG_CUDA=ON"]
    command += ["-C", f"cmake.define.CMAKE_CUDA_ARCHITECTURES={major}{minor}"]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    result = {"ok": done.returncode == 0, "seconds": round(time.perf_counter() - start, 1)}
    return (
        result if done.returncode == 0 else result | {"output": (done.stdout + done.stderr)[-3000:]}
    )


def describe(name: str, result: dict[str, Any]) -> list[str]:
    """Lines of the table for one section."""
    state = {True: "ok", None: "skipped"}.get(result.get("ok"), "FAILED")
    note = result.get("skipped") or result.get("problem") or ""
    if "cases" in result:
        note = f"{result['cases']} cases, {len(result['failures'])} wrong"
    if "copy_bytes_s" in result:
        note = f"copy {result['copy_bytes_s'] / 1e9:.0f} GB/s"
    if "share" in result:
        note = f"{result['scores']} scores cost {result['share']:.1%} of the forward pass"
    lines = [f"{name:14} {state:8} {result.get('seconds', 0):6.1f} s  {note}"]
    lines += [f"    {f['case']}: {f['error']}" for f in result.get("failures", [])[:5]]
    lines += [f"    {error}" for error in result.get("errors", [])[:5]]
    lines += [f"    {line}" for line in result.get("summary", [])]
    if state == "FAILED" and result.get("output"):
        lines += [f"    {line}" for line in result["output"].splitlines()[-6:]]
    for row in result.get("rows", []):
        if "share_of_copy" in row:
            tuning = " ".join(str(v) for v in row.get("tuning", {}).values())
            lines.append(
                f"    {row['name']:34} {tuning:14} {1e6 * row['device_s']:9.1f} µs on the device "
                f"{1e6 * row['call_s']:9.1f} µs per call {row['share_of_copy']:7.1%} of copy"
            )
        elif "together" in row:
            apart, joined = (1e6 * row[key]["device_s"] for key in ("apart", "together"))
            lines.append(f"    {row['name']:40} {apart:9.1f} µs apart, {joined:9.1f} µs together")
        elif "contender" in row:
            lines.append(
                f"    {row['workload']:28} {row['contender']:40} {1e3 * row['median_s']:9.3f} ms"
            )
    return lines


def save(record: dict[str, Any], path: Path) -> None:
    """Write what there is so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--build", action="store_true", help="pip install the checkout for this GPU first")
    add("--dry-run", action="store_true", help="on the host's SIMT runtime, tiny sizes")
    add("--small", action="store_true", help="some cases of every kind, tiny sizes")
    add("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    add("--json", type=Path, help="where the record goes; default benchmarks/results/gpu-DATE.json")
    add("--document", action="store_true", help="only write what was run into docs/gpu.md")
    add("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    add("--output", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit status is 1 if a section failed."""
    arguments = parse(argv)
    if arguments.section:
        try:
            result = run_section(arguments.section, arguments.dry_run, arguments.small)
        except Exception as error:
            result = {"ok": False, "problem": f"{type(error).__name__}: {error}"}
            result["output"] = traceback.format_exc()[-3000:]
        if arguments.output:
            save(result, arguments.output)
        else:
            print(json.dumps(result, indent=1))
        return 0 if result["ok"] is not False else 1
    if arguments.document:
        from gpu import document

        document.update(RESULTS)
        return 0
    date = time.strftime("%Y-%m-%d")
    record: dict[str, Any] = {"schema": SCHEMA, "date": date, "dry_run": arguments.dry_run}
    record["sections"] = {}
    path = arguments.json or (None if arguments.dry_run else RESULTS / f"gpu-{date}.json")
    start = time.perf_counter()
    if arguments.build:
        record["sections"]["build"] = build()
        print("\n".join(describe("build", record["sections"]["build"])), flush=True)
    for name, limit in SECTIONS.items():
        if arguments.only and name not in arguments.only:
            continue
        left = TOTAL_S - (time.perf_counter() - start)
        if left < 5 and not arguments.dry_run:
            result: dict[str, Any] = {"ok": None, "skipped": "no time left"}
        else:  # the first section of a dry run may compile the runtime
            result = isolated(name, arguments, 600 if arguments.dry_run else min(limit, left))
        record["sections"][name] = result
        print("\n".join(describe(name, result)), flush=True)
        if path:
            save(record, path)
    failed = [name for name, result in record["sections"].items() if result["ok"] is False]
    print(f"failed: {', '.join(failed)}" if failed else "all sections ok", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
