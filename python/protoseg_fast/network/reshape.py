"""Features of transformers as (N, C, *size): ready functions for ``reshape_transform``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

__all__ = ["swin_reshape_transform", "vit_reshape_transform"]


def vit_reshape_transform(
    grid: Sequence[int], prefix_tokens: int = 0
) -> Callable[[Tensor], Tensor]:
    """Return a function that lays tokens (N, L, C) out as features (N, C, *grid), as in ViT.

    Args:
        grid: how many patches along each axis of the image; their product is L - prefix_tokens.
        prefix_tokens: class and register tokens in front, which are dropped.

    Returns:
        A function for ``reshape_transform``. It leaves what has not 3 axes, or another number of
        tokens, as it is. Its result is a view; nothing is copied.

    Examples:
        >>> import torch
        >>> vit_reshape_transform((14, 14), prefix_tokens=1)(torch.rand(2, 197, 768)).shape
        torch.Size([2, 768, 14, 14])
    """
    shape = tuple(grid)
    length = prefix_tokens + math.prod(shape)

    def transform(tokens: Tensor) -> Tensor:
        if tokens.dim() != 3 or tokens.shape[1] != length:
            return tokens
        return tokens[:, prefix_tokens:].transpose(1, 2).unflatten(2, shape)

    return transform


def swin_reshape_transform(features: Tensor) -> Tensor:
    """Return features (N, *size, C), as Swin's blocks put them out, as (N, C, *size).

    A view; nothing is copied. For networks that also have convolutions, choose the layers that it
    is for: ``reshape_transform={"encoder.layers*": swin_reshape_transform}``.
    """
    return features.movedim(-1, 1)
