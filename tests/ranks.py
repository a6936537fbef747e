"""What the ranks of a distributed test run: a spawned process must be able to import it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

SIZE = (12, 10)


def batch(seed: int, n: int = 2, targets: int = 2) -> tuple[Any, Any, Any, Any]:
    """Features, pred, target, mask; the second image has nothing to guide its first target."""
    rng = np.random.default_rng(seed)
    pred = rng.random((n, targets, *SIZE))
    if n > 1:
        pred[1, 0] = 0
    arrays = (
        rng.normal(size=(n, 6, 6, 5)), pred, rng.random(pred.shape) < 0.3,
        rng.random((n, 1, *SIZE)) < 0.9,
    )  # fmt: skip
    return tuple(map(torch.from_numpy, arrays))


def update_every_other(rank: int, folder: str) -> None:
    """One of two ranks: it sees every other batch, and must compute what one rank would."""
    from protoseg_fast.integrations.torchmetrics import SegmentationAbility

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    results = {}
    for average in ("images", "voxels"):
        metric = SegmentationAbility(6, 2, average)
        for seed in range(rank, 5, 2):  # three batches, and two
            metric.update(*batch(seed))
        results[average] = metric.compute()
    torch.save(results, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()
