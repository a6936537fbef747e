"""Everything one demo run found out; the table and the page are made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from protoseg_fast.demo.config import DemoConfig
from protoseg_fast.demo.data import Slices
from protoseg_fast.demo.gallery import Gallery
from protoseg_fast.demo.published import PublishedTiming
from protoseg_fast.demo.records import TRUTH
from protoseg_fast.demo.score import Sweep
from protoseg_fast.demo.summary import Summary
from protoseg_fast.demo.unet import UNet

#: The stage of ``DemoResult.seconds`` that trained the network.
TRAINING_STAGE = "Training a U-Net"


@dataclass(frozen=True)
class DemoResult:
    """One run of the demo.

    Attributes:
        config: what was asked for.
        model: the trained network.
        losses: training loss of each step.
        training, held_out: the slices trained on and scored.
        sweep: all scores.
        summary: what they come to.
        gallery: pictures of one slice.
        published: timing of the published formulation.
        seconds: wall time per stage, in order.
    """

    config: DemoConfig
    model: UNet
    losses: list[float]
    training: Slices
    held_out: Slices
    sweep: Sweep
    summary: Summary
    gallery: Gallery
    published: PublishedTiming
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """Units scored, over all layers; image and output channels are units too."""
        return sum(layer.units for layer in self.sweep.layers)

    @property
    def scoring_ratio(self) -> float:
        """Time of scoring against the truth over that of the plain forward passes."""
        return self.sweep.scoring_s[TRUTH] / self.sweep.forward_s

    @property
    def speedup(self) -> float:
        """Estimated time of the published formulation over that of the same scores here."""
        return self.published.extrapolated_s / self.sweep.scoring_s[TRUTH]

    @property
    def page(self) -> Path:
        """Where the page is written."""
        return self.config.out / "index.html"

    @property
    def scores(self) -> Path:
        """Where the table of all scores is written."""
        return self.config.out / "scores.parquet"
