"""What a report needs and how it fails. Light on purpose: the command line reads it."""

from __future__ import annotations

__all__ = ["DEPENDENCIES", "ReportError"]

#: Importable names of what ``pip install 'protoseg_fast[report]'`` adds, but for nibabel.
DEPENDENCIES = ("pandas", "pyarrow", "matplotlib", "jinja2")


class ReportError(RuntimeError):
    """The report cannot be made as asked; the message says why and what to do."""
