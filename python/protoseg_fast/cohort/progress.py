"""What is seen of a sweep while it runs: a bar, JSON lines, or nothing."""

from __future__ import annotations

import json
import sys
from types import TracebackType
from typing import Any

from protoseg_fast.network.extras import require

__all__ = ["Progress"]


class Progress:
    """Within the block, shows cases done, rate, time left and failures.

    Args:
        how: "bar" (to stderr), "json" (an object per event, to stdout), "quiet".
        title: what is swept.
        total: cases to do.
    """

    def __init__(self, how: str, title: str, total: int) -> None:
        self.how, self.title, self.total = how, title, total
        self.done = self.failed = 0
        self._bar: Any = None
        if how == "bar":
            rich = require("rich.progress", "progress")
            self._bar = rich.Progress(
                rich.TextColumn("{task.description}"),
                rich.BarColumn(),
                rich.MofNCompleteColumn(),
                rich.TextColumn(
                    "{task.fields[rate]} cases/min, failed: {task.fields[failed]}, left:"
                ),
                rich.TimeRemainingColumn(),
                console=require("rich.console", "progress").Console(stderr=True),
            )
            self._task = self._bar.add_task(title, total=total, rate="?", failed=0)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def event(self, event: dict[str, Any]) -> None:
        """Show that a case is done, or failed."""
        failed = event["event"] == "failed"
        self.failed += failed
        self.done += not failed
        if self.how == "json":
            print(json.dumps(event), flush=True)
        if self._bar is None:
            return
        if failed:
            self._bar.console.print(
                f"failed: {event['case']}: {event['reason']}", style="red", markup=False
            )
        speed = self._bar.tasks[0].speed
        rate = "?" if speed is None else f"{60 * speed:.3g}"
        self._bar.update(self._task, advance=1, failed=self.failed, rate=rate)

    def say(self, text: str) -> None:
        """Print a line, unless quiet."""
        if self.how == "json":
            print(json.dumps({"event": "note", "text": text}), flush=True)
        elif self.how == "bar":
            print(text, file=sys.stderr)
