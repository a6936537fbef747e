"""The demo: train a small U-Net on a real brain scan, score all its units, write a page.

``protoseg-fast demo`` runs it. Importing this package is cheap; the demo's dependencies
(PyTorch, nilearn, matplotlib, ...) are imported by :mod:`protoseg_fast.demo.run`.
"""

from __future__ import annotations

from protoseg_fast.demo.config import DEPENDENCIES, DemoConfig, DemoError

__all__ = ["DEPENDENCIES", "DemoConfig", "DemoError"]
