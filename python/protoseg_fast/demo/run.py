"""The demo from end to end."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from protoseg_fast.demo.config import DemoConfig, DemoError
from protoseg_fast.demo.data import load_slices, split
from protoseg_fast.demo.degrade import DEGRADATIONS, Degradation
from protoseg_fast.demo.gallery import make_gallery
from protoseg_fast.demo.page import render_page
from protoseg_fast.demo.published import time_published
from protoseg_fast.demo.result import TRAINING_STAGE, DemoResult
from protoseg_fast.demo.score import batches, score_network
from protoseg_fast.demo.summary import summarise
from protoseg_fast.demo.table import print_result
from protoseg_fast.demo.train import train
from protoseg_fast.web.files import replacing


@dataclass
class _Stages:
    """Shows a bar per stage and keeps its wall time."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str, steps: int = 1) -> Iterator[Callable[[str], None]]:
        """Within the block, each call of the yielded function advances the bar by one step."""
        task = self.progress.add_task(name, total=steps, note="")
        start = time.perf_counter()
        yield lambda note: self.progress.update(task, advance=1, note=note)
        self.progress.update(task, completed=steps)
        self.seconds[name] = time.perf_counter() - start


def run_demo(
    config: DemoConfig,
    *,
    degradations: tuple[Degradation, ...] = DEGRADATIONS,
    console: Console | None = None,
) -> DemoResult:
    """Train, score, print the table, and write ``index.html`` and ``scores.parquet``.

    Args:
        config: what to run and where to write.
        degradations: how held-out images are spoilt; the first must leave them as they are.
        console: where to print; the terminal if omitted.

    Raises:
        DemoError: ``config.device`` is not there, ``config.out`` cannot be written, or the
            held-out blocks leave no slices.
    """
    console = console or Console()
    device = _device(config.device)
    _require_writable(config.out)
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        result = _run_stages(config, device, degradations, _Stages(progress))
    print_result(console, result)
    for path in (result.page, result.scores):
        console.print(f"Wrote {path}", highlight=False, soft_wrap=True)
    return result


def _run_stages(
    config: DemoConfig,
    device: torch.device,
    degradations: tuple[Degradation, ...],
    stage: _Stages,
) -> DemoResult:
    with stage("Loading the scan"):
        training, held_out = split(load_slices(), config.held_out, config.gap)
    with stage(TRAINING_STAGE, config.steps) as advance:
        model, losses = train(
            training,
            steps=config.steps,
            seed=config.seed,
            device=device,
            on_step=lambda loss: advance(f"loss {loss:.2f}"),
        )
    with stage("Scoring every unit", batches(len(held_out), len(degradations))) as advance:
        sweep = score_network(
            model,
            held_out,
            degradations,
            device=device,
            seed=config.seed,
            on_batch=lambda: advance(""),
        )
    with stage("Timing the published formulation"):
        published = time_published(model, held_out, sweep.layers, sweep.images, device)
    with stage("Drawing pictures"):
        summary = summarise(sweep, degradations)
        gallery = make_gallery(model, held_out, summary, device)
    result = DemoResult(
        config, model, losses, training, held_out, sweep, summary, gallery, published, stage.seconds
    )
    # Both are written before either is put in place: whoever stops the demo keeps a matching pair.
    with _replacing(result.scores) as scores, _replacing(result.page) as page:
        sweep.scores.to_parquet(scores, index=False, compression="zstd")
        page.write_text(render_page(result), encoding="utf-8")
    return result


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise DemoError(
            "--device cuda: this PyTorch finds no CUDA device. Use --device cpu, or install a "
            "PyTorch built for CUDA on a machine that has an NVIDIA GPU."
        )
    return torch.device(name)


def _require_writable(folder: Path) -> None:
    """Fail before the training rather than after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(path: Path, error: OSError) -> DemoError:
    reason = error.strerror or str(error)
    return DemoError(f"Cannot write to {path}: {reason}. Choose another folder with --out DIR.")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes ``path`` if the block succeeds; nobody sees half a file."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise _cannot_write(path, error) from error
