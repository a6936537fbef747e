"""What a demo run can be told. Light on purpose: the command line reads its defaults here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Importable names of what ``pip install 'protoseg_fast[demo]'`` adds.
DEPENDENCIES = ("torch", "nilearn", "matplotlib", "pandas", "pyarrow", "rich", "jinja2")

DEVICES = ("cpu", "cuda")


class DemoError(RuntimeError):
    """The demo cannot run as asked; the message says why and what to do."""


@dataclass(frozen=True)
class DemoConfig:
    """One demo run.

    Attributes:
        out: folder that receives ``index.html`` and ``scores.parquet``; made if missing.
        device: where the network runs. The demo scores on the CPU.
        seed: seeds the network's weights, the training crops and the image degradations.
        steps: training steps.
        held_out: blocks of axial slices, as half-open ranges of slice numbers, kept from
            training and used for every score. The defaults lie at z = -36..-29 mm
            (cerebellum, temporal lobes), 0..7 mm (basal ganglia) and 36..43 mm (above the
            ventricles).
        gap: slices on either side of a held-out block that are not trained on either, so that
            a held-out slice has no near-identical neighbour in the training set.
    """

    out: Path = Path("protoseg-demo")
    device: str = "cpu"
    seed: int = 0
    steps: int = 180
    held_out: tuple[tuple[int, int], ...] = ((36, 44), (72, 80), (108, 116))
    gap: int = 5

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise DemoError(f"device must be one of {', '.join(DEVICES)}; got {self.device!r}.")
        if self.steps < 1:
            raise DemoError(f"steps must be at least 1; got {self.steps}.")
        if not 0 <= self.seed < 2**63:
            raise DemoError(f"seed must be at least 0 and less than 2^63; got {self.seed}.")
