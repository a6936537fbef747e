"""The authors' forward pass, as their paper and published code state it, in our own words."""

from __future__ import annotations

import torch


def published_softmax(
    f: torch.Tensor, p: torch.Tensor, m: torch.Tensor | float = 1.0
) -> torch.Tensor:
    """Softmax (N, 2, *size) of minus the squared distances to the two prototypes."""
    dims = tuple(range(2, f.dim()))
    positive = (f * p * m).sum(dims, keepdim=True) / (p * m).sum(dims, keepdim=True)
    negative = (f * (1 - p) * m).sum(dims, keepdim=True) / ((1 - p) * m).sum(dims, keepdim=True)
    distances = [-((f - prototype) ** 2).sum(1, keepdim=True) for prototype in (negative, positive)]
    return torch.softmax(torch.cat(distances, dim=1), dim=1)
