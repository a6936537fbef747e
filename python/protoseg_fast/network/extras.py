"""Optional dependencies, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["require"]


def require(module: str, purpose: str) -> Any:
    """Import an optional module.

    Raises:
        ImportError: naming what needs it and how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise ImportError(
            f"{purpose} needs {library}; install it with: pip install 'protoseg_fast[network]'"
        ) from error
