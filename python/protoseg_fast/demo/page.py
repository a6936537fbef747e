"""The page: one HTML file with everything inside it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import nilearn
import torch
from markupsafe import Markup

import protoseg_fast as psf
from protoseg_fast.demo.data import TARGETS, Z_ORIGIN
from protoseg_fast.demo.figures import (
    KINDS,
    layer_profile,
    quality_scatter,
    unit_histograms,
)
from protoseg_fast.demo.records import OUTPUT, TRUTH
from protoseg_fast.demo.result import TRAINING_STAGE, DemoResult
from protoseg_fast.demo.score import BATCH, IMAGE_LAYER, OUTPUT_LAYER
from protoseg_fast.demo.summary import GOOD_SA, LayerSummary, Summary
from protoseg_fast.web.template import MINUS, environment

TEMPLATE = "page.html.j2"

# What a correlation of at least this much is called.
FOLLOWS = {"follows": 0.7, "loosely follows": 0.4}
HARDLY = "hardly follows"
UNCLEAR = "cannot be compared with"


def render_page(result: DemoResult) -> str:
    """The page of ``result`` as HTML text."""
    templates = environment(Path(__file__).parent)
    templates.filters["millimetres"] = _millimetres
    return templates.get_template(TEMPLATE).render(**_context(result))


def _context(result: DemoResult) -> dict[str, Any]:
    summary = result.summary
    return {
        "result": result,
        "summary": summary,
        "sweep": result.sweep,
        "gallery": result.gallery,
        "targets": TARGETS,
        "charts": _charts(result),
        "blocks": [
            layer.name
            for layer in result.sweep.layers
            if layer.name not in (IMAGE_LAYER, OUTPUT_LAYER)
        ],
        "image_layer": IMAGE_LAYER,
        "output_layer": OUTPUT_LAYER,
        "good_sa": GOOD_SA,
        "findings": {target: _profile_finding(summary.layers[target]) for target in TARGETS},
        "kinds": {name: kind.label for name, kind in KINDS.items()},
        "scoring_s": {
            "truth": result.sweep.scoring_s[TRUTH],
            "output": result.sweep.scoring_s[OUTPUT],
        },
        "position": [
            (start + Z_ORIGIN, stop - 1 + Z_ORIGIN) for start, stop in result.config.held_out
        ],
        "shown_z": result.gallery.number + Z_ORIGIN,
        "batch": BATCH,
        "versions": {
            "protoseg_fast": psf.__version__,
            "PyTorch": torch.__version__,
            "nilearn": nilearn.__version__,
        },
        "verdicts": {target: _verdict(summary, target) for target in TARGETS},
        "agreement": math.ceil(1e4 * result.published.difference) / 1e4,
        "training_stage": TRAINING_STAGE,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def _charts(result: DemoResult) -> dict[str, dict[str, Markup]]:
    """Per target: the profile, the histograms and the scatter plot."""
    summary = result.summary
    charts = {}
    for t, target in enumerate(TARGETS):
        layers = summary.layers[target]
        charts[target] = {
            "profile": layer_profile(layers, summary.baseline[target], f"profile{t}"),
            "histograms": unit_histograms(layers, summary.baseline[target], f"histograms{t}"),
            "scatter": quality_scatter(
                summary.quality[summary.quality.target == target],
                target,
                summary.correlation[target],
                f"scatter{t}",
            ),
        }
    return charts


def _profile_finding(layers: list[LayerSummary]) -> dict[str, Any]:
    """The facts a reader would look for in the layer profile of one target."""
    by_name = {entry.layer.name: entry for entry in layers}
    blocks = [e for e in layers if e.layer.name not in (IMAGE_LAYER, OUTPUT_LAYER)]
    gaps = [abs(entry.truth - entry.output) for entry in blocks]
    return {
        "image": by_name[IMAGE_LAYER].truth,
        "output": by_name[OUTPUT_LAYER].truth,
        "best": max(blocks, key=lambda entry: entry.truth),
        "worst": min(blocks, key=lambda entry: entry.truth),
        "above_image": sum(entry.truth > by_name[IMAGE_LAYER].truth for entry in blocks),
        "unit_beats_layer": sum(entry.unit_sa[entry.best] > entry.truth for entry in blocks),
        "blocks": len(blocks),
        "mean_gap": sum(gaps) / len(gaps),
    }


def _verdict(summary: Summary, target: str) -> dict[str, str]:
    """How mean SA follows Dice, in words: over all images, and by kind, strongest first."""
    places: dict[str, list[str]] = {}
    for kind, by_target in summary.by_kind.items():
        places.setdefault(_follows(by_target[target].pearson), []).append(KINDS[kind].place)
    return {
        "overall": _follows(summary.correlation[target].pearson),
        "by_kind": "; ".join(
            f"{word} Dice {_enumerated(places[word])}"
            for word in (*FOLLOWS, HARDLY, UNCLEAR)
            if word in places
        ),
    }


def _follows(pearson: float) -> str:
    if not math.isfinite(pearson):
        return UNCLEAR
    return next((word for word, least in FOLLOWS.items() if pearson >= least), HARDLY)


def _enumerated(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _millimetres(value: int) -> str:
    return str(value).replace("-", MINUS)
