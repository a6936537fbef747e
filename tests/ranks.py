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
    leave()


def leave() -> None:
    """Leave the group together: a rank that is gone can take the other one with it."""
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def loss_of(seed: int) -> torch.nn.Module:
    """A small network whose forward pass is `sa_loss` of its hidden layer, of one seed's images."""
    import protoseg_fast as psf

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.conv = torch.nn.Conv2d(2, 6, 3, stride=2)
            self.head = torch.nn.Conv2d(2, 1, 1)

        def forward(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            pred = self.head(image).sigmoid()
            return psf.sa_loss(self.conv(image), pred, target, groups="unit")

    return Net()


def images_of(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (2, 2, *SIZE) and boolean targets (2, 1, *SIZE) of one rank."""
    draw = torch.Generator().manual_seed(rank)
    return torch.randn(2, 2, *SIZE, generator=draw), torch.rand(2, 1, *SIZE, generator=draw) < 0.4


def train_distributed(rank: int, folder: str) -> None:
    """One of two ranks of DistributedDataParallel: saves the gradients after one backward pass."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    model = torch.nn.parallel.DistributedDataParallel(loss_of(0))
    model(*images_of(rank)).backward()
    torch.save([p.grad for p in model.module.parameters()], Path(folder) / f"{rank}.pt")
    del model  # it uses the group
    leave()
