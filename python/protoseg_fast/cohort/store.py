"""The folder that a sweep writes to. Every file is whole or absent, whenever the process is killed.

====================== ==========================================================================
tables/<case>.parquet  the columns of ``SegmentationAbilityMap.to_pandas()``: case, layer, call,
                       group, target, reference, sa, tp, predicted, actual, voxels, feature_size,
                       channels; ``case`` is the case's name. Nothing else below the folder ends
                       in .parquet.
cases/<case>.json      case, image (path, or several), label (path or null), shape, affine (4x4 or
                       null), spacing, outputs (of each target: dice or null,
                       soft_dice_confidence, foreground), status "done". Written before the table,
                       whose presence says that the case is done. No times, no hosts.
previews/<case>.npz    image (H, W) uint8; truth (T, H, W) bool, if there is one; output and
                       best_unit (T, H, W) bool, of the unit with the highest SA score of the case
                       against the truth, or else the output; axis and index of the slice (-1 and
                       0: the image is one). best_unit is absent for cases run by windows.
failures/<case>.json   case, reason, kind, traceback.
log/*.jsonl            times and hosts; a part's file is locked while a process works on the part.
config.json            the effective options, versions, hash of the weights, git revision.
manifest.json          all cases, sorted by name, and their files.
summary.json           in nnU-Net's habit; see `protoseg_fast.cohort.merge`.
====================== ==========================================================================

A file is written under a temporary name, flushed, and renamed. Locks are the kernel's (flock): they
end with the process, so that a killed run leaves none behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from protoseg_fast.cohort.config import SweepError, differences
from protoseg_fast.cohort.layouts import Case

if TYPE_CHECKING:
    from protoseg_fast.cohort.scoring import Failure, Scored

__all__ = ["Store", "write_whole"]

_FOLDERS = ("tables", "cases", "previews", "failures", "log")
_SUFFIX = {"tables": ".parquet", "cases": ".json", "previews": ".npz", "failures": ".json"}


class Store:
    """Results below a folder; see above."""

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)

    def make(self) -> None:
        """Make the folders that are missing.

        Raises:
            SweepError: if they cannot be made.
        """
        try:
            for name in _FOLDERS:
                (self.out / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SweepError(f"Cannot make {self.out}: {error}") from error

    def path(self, kind: str, case: str) -> Path:
        """Return the path of a case's file: of tables, cases, previews or failures."""
        return self.out / kind / f"{case}{_SUFFIX[kind]}"

    def names(self, kind: str) -> set[str]:
        """Return the names of the cases that have such a file."""
        suffix = _SUFFIX[kind]
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            entries = os.listdir(self.out / kind)
            return {e.removesuffix(suffix) for e in entries if e.endswith(suffix) and e[0] != "."}
        return set()

    def read(self, name: str) -> Any:
        """Return what a JSON file below the folder holds; None if there is none."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return json.loads((self.out / name).read_text())
        return None

    # --- results --------------------------------------------------------------------------------

    def keep(self, scored: Scored) -> None:
        """Write a case's files, its table last."""
        case = scored.info["case"]
        if scored.preview is not None:
            write_whole(self.path("previews", case), scored.preview)
        write_whole(self.path("cases", case), _json(scored.info))
        write_whole(self.path("tables", case), scored.table)
        self.path("failures", case).unlink(missing_ok=True)

    def fail(self, failure: Failure) -> None:
        """Write why a case has no results."""
        write_whole(self.path("failures", failure.case), _json(asdict(failure)))

    def forget(self, case: str) -> None:
        """Remove a case's files, its table first."""
        for kind in ("tables", "cases", "previews", "failures"):
            self.path(kind, case).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what killed processes of this machine left of temporary files."""
        for folder in (self.out, *(self.out / name for name in _FOLDERS)):
            for entry in folder.glob(f".*.{_host()}.tmp"):
                if not _alive(entry.name.split(".")[-3]):
                    entry.unlink(missing_ok=True)

    # --- what all runs share ----------------------------------------------------------------------

    def settle(self, config: Mapping[str, Any], *, replace: bool) -> None:
        """Write config.json, or check that what is there decides on the same rows.

        Raises:
            SweepError: if it does not; the message shows the differences.
        """
        path = self.out / "config.json"
        if not replace and write_first(path, _json(config)):
            return
        before = self.read("config.json")
        if before is not None and (lines := differences(before["decides"], config["decides"])):
            if not replace:
                raise SweepError(
                    f"{self.out} holds results of another configuration:\n  "
                    + "\n  ".join(lines)
                    + "\nUse another --out, or the same configuration; --overwrite scores all "
                    "cases again."
                )
            if self.names("tables"):
                raise SweepError(
                    f"{self.out} holds cases of another configuration that this run would not "
                    "score again:\n  " + "\n  ".join(lines) + "\nUse another --out."
                )
        write_whole(path, _json(config))

    def register(self, cases: Sequence[Case]) -> None:
        """Add cases to manifest.json, which holds those of all runs.

        Raises:
            SweepError: if a case of the same name has other files there.
        """
        with self._locked(self.out / "log" / "manifest.jsonl"):
            known = {entry["case"]: entry for entry in self.manifest()}
            added = {case.name: case.record() for case in cases}
            for name, record in added.items():
                if name in known and known[name] != record:
                    lines = differences(known[name], record)
                    raise SweepError(
                        f"Case {name!r} has other files in {self.out}:\n  " + "\n  ".join(lines)
                    )
            if added.keys() - known.keys():
                merged = known | added
                entries = [merged[name] for name in sorted(merged)]
                write_whole(self.out / "manifest.json", _json({"cases": entries}))

    def manifest(self) -> list[dict[str, Any]]:
        """Return all cases, sorted by name."""
        found = self.read("manifest.json")
        return [] if found is None else list(found["cases"])

    # --- parts ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def part(self, part_id: int, num_parts: int) -> Iterator[Log]:
        """Within the block, this process works on a part; lends the part's log.

        Raises:
            SweepError: if another process works on it.
        """
        path = self.out / "log" / f"part-{part_id:04d}-of-{num_parts:04d}.jsonl"
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SweepError(
                    f"Another process works on part {part_id} of {num_parts} in {self.out}: "
                    f"{_last_start(path)}. Wait for it, or stop it."
                ) from None
            yield Log(file)

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def logs(self) -> dict[str, list[dict[str, Any]]]:
        """Return the events of every part's log, by the file's name."""
        found = {}
        for path in sorted((self.out / "log").glob("part-*.jsonl")):
            found[path.stem] = list(_events(path))
        return found


class Log:
    """A part's log: one JSON object per line, with time, host and process."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._file.seek(0)
        text = self._file.read()
        self._file.seek(0, os.SEEK_END)
        if text and not text.endswith("\n"):  # a killed run's last line
            self._file.write("\n")

    def write(self, event: str, **values: Any) -> None:
        """Append an event."""
        about = {"time": time.time(), "host": socket.gethostname(), "pid": os.getpid()}
        self._file.write(json.dumps({"event": event, **about, **values}) + "\n")
        self._file.flush()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even if the machine loses power."""
    temporary = _temporary(path, content)
    os.replace(temporary, path)
    _flush_folder(path.parent)


def write_first(path: Path, content: bytes) -> bool:
    """Write a file whole, unless there is one; returns whether it was written."""
    if path.exists():
        return False
    temporary = _temporary(path, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    _flush_folder(path.parent)
    return True


def _temporary(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{_host()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _host() -> str:
    return socket.gethostname().replace(".", "-").replace("/", "-")


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return int(pid) != os.getpid()


def _events(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):  # a killed run's last line
            yield json.loads(line)


def _last_start(path: Path) -> str:
    starts = [e for e in _events(path) if e["event"] == "start"]
    return f"process {starts[-1]['pid']} on {starts[-1]['host']}" if starts else "just started"


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
