"""Copies of features, so that a network need not run again once its prediction is known."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor

__all__ = ["Copies", "Keep", "Output"]

Keep: TypeAlias = Literal["memory", "auto"]
#: A layer's name, the number of the call within the forward pass, and what it put out.
Output: TypeAlias = tuple[str, int, Tensor]


class Copies:
    """Copies of what the chosen layers put out, pass by pass, up to a budget of bytes.

    Args:
        keep: "memory" to raise beyond the budget; "auto" to keep the passes that fit, whole.
        budget: bytes that all copies may take.
    """

    def __init__(self, keep: Keep, budget: float) -> None:
        self._keep, self._budget, self._bytes = keep, budget, 0
        self._full = False
        self._passes: list[list[Output] | None] = []

    def begin_pass(self) -> None:
        """Take what follows as the next pass."""
        self._passes.append(None if self._full else [])

    def add(self, layer: str, call: int, features: Tensor) -> None:
        """Copy what a layer puts out, as its hook does, unless the pass does not fit.

        Raises:
            ValueError: for ``keep="memory"``, beyond the budget.
        """
        outputs = self._passes[-1]
        if outputs is None:
            return
        self._bytes += features.numel() * features.element_size()
        if self._bytes <= self._budget:
            outputs.append((layer, call, features.clone()))
        elif self._keep == "auto":
            self._passes[-1], self._full = None, True
        else:
            raise ValueError(
                f'keep="memory" would copy more than memory_budget={self._budget:.3g} bytes of '
                f'features, reached at layer "{layer}"; raise it, choose fewer layers, or take '
                'keep="auto", which runs the network again for what does not fit.'
            )

    def of(self, number: int) -> list[Output] | None:
        """Return the copies of a pass, numbered from 0; None: it did not fit."""
        return self._passes[number]

    def clear(self) -> None:
        """Forget all passes."""
        self._passes.clear()
