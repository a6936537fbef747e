"""The code that a page of the documentation shows, to be run as printed."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: the heading it is under, its first line's number, its text."""

    page: str
    heading: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def imports(self) -> list[str]:
        """Return the modules that Python code imports."""
        nodes = list(ast.walk(ast.parse(self.text)))
        names = [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
        return names + [n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module]

    def run(self, names: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run Python code, which finds these names; returns them and those it has bound."""
        found = dict(names or {})
        text = "\n" * (self.line - 1) + self.text  # so that tracebacks name the page's line
        exec(compile(text, str(ROOT / self.page), "exec"), found)
        return found


def blocks(page: str, language: str) -> list[Block]:
    """Return the blocks of a language in a page, whose path is relative to the repository."""
    found: list[Block] = []
    heading, fence, held = "", None, list[str]()
    for number, line in enumerate((ROOT / page).read_text().splitlines(), start=1):
        if line.startswith("```"):
            if fence is None:
                fence, held = line[3:], []
            else:
                if fence == language:
                    first = number - len(held)
                    found.append(Block(page, heading, first, "\n".join(held) + "\n"))
                fence = None
        elif fence is not None:
            held.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
    return found
