"""Which cases a folder or a list holds: Decathlon, nnU-Net, two folders, CSV or JSON."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from protoseg_fast.cohort.config import SweepError

__all__ = ["Case", "choose", "find_cases"]

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".png", ".tif", ".tiff")


@dataclass(frozen=True)
class Case:
    """One case of a cohort.

    Attributes:
        name: unique in the cohort; the name of its files.
        image: path of the image; of several files, one per channel; or an array (C, *size); or a
            function without arguments that returns one, called when it is the case's turn.
        label: path, array or function of the label map (*size); None: none.
        mask: the same of the voxels that count (*size).
    """

    name: str
    image: Any
    label: Any = None
    mask: Any = None

    @property
    def paths(self) -> list[str]:
        """The image's files."""
        images = self.image if isinstance(self.image, list | tuple) else [self.image]
        return [str(i) for i in images if isinstance(i, str | Path)]

    def record(self) -> dict[str, Any]:
        """Return names of the files, as JSON has them; None for what is no file."""
        label, mask = (
            str(p) if isinstance(p, str | Path) else None for p in (self.label, self.mask)
        )
        return {"case": self.name, "image": self.paths, "label": label, "mask": mask}

    @classmethod
    def of(cls, value: Any, number: int) -> Case:
        """Make a case of a `Case`, a dictionary of its attributes, or (image, label, mask).

        Raises:
            SweepError: for anything else.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping) and "image" in value:
            fields = {k: value.get(k) for k in ("image", "label", "mask")}
            return cls(str(value.get("name") or _stem(fields["image"], number)), **fields)
        if isinstance(value, tuple | list) and 1 <= len(value) <= 3:
            return cls(_stem(value[0], number), *value)
        if isinstance(value, str | Path):
            return cls(_stem(value, number), value)
        raise SweepError(
            "A case must be a protoseg_fast.cohort.Case, a dictionary with image, label and mask, "
            f"or a tuple (image, label, mask); got {type(value).__name__}."
        )


def find_cases(data: str | Path, layout: str = "auto") -> list[Case]:
    """Return the cases of a folder or a list, sorted by name.

    Layouts: "msd" (``dataset.json`` with ``training``), "nnunet" (``imagesTr/NAME_0000.nii.gz``),
    "pair" (``images``, or else the folder's own files, with ``labels`` and ``masks``, if there
    are) and "list" (CSV or JSON with ``image``, and optionally ``name``, ``label``, ``mask``;
    relative to the list). NIfTI, MetaImage, NRRD, PNG and TIFF.

    Raises:
        SweepError: if there are none, names repeat, or the layout is another.
    """
    data = Path(data)
    if not data.exists():
        raise SweepError(f"There is no {data}.")
    if layout == "auto":
        layout = _recognised(data)
    cases = _LAYOUTS[layout](data)
    if not cases:
        raise SweepError(f"Found no cases in {data}, read in the layout {layout!r}.")
    return unique(cases)


def unique(cases: Iterable[Case]) -> list[Case]:
    """Return cases sorted by name.

    Raises:
        SweepError: if names repeat, or cannot be names of files.
    """
    found: dict[str, Case] = {}
    for case in cases:
        if case.name in found:
            raise SweepError(f"Two cases have the name {case.name!r}; give them names.")
        if not re.fullmatch(r"[^/\\\0]{1,200}", case.name) or case.name.startswith("."):
            raise SweepError(f"{case.name!r} cannot be the name of a case: it names its files.")
        found[case.name] = case
    return [found[name] for name in sorted(found)]


def choose(cases: Sequence[Case], wanted: Sequence[str] | None, limit: int | None) -> list[Case]:
    """Return the cases of these names or globs, and of those the first ``limit``.

    Raises:
        SweepError: for a name or glob that matches none.
    """
    chosen = list(cases)
    if wanted is not None:
        for glob in wanted:
            if not any(fnmatchcase(case.name, glob) for case in cases):
                raise SweepError(f"There is no case {glob!r}; the first is {cases[0].name!r}.")
        chosen = [c for c in cases if any(fnmatchcase(c.name, glob) for glob in wanted)]
    return chosen[:limit]


def _recognised(data: Path) -> str:
    if data.is_file():
        return "list"
    images = data / "imagesTr"
    channels = images.is_dir() and any(_channel(p) for p in images.iterdir())
    if channels:
        return "nnunet"
    return "msd" if (data / "dataset.json").exists() else "pair"


def _msd(data: Path) -> list[Case]:
    try:
        entries = json.loads((data / "dataset.json").read_text())["training"]
        return [
            Case(_stem(e["image"], 0), str(data / e["image"]), _within(data, e.get("label")))
            for e in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SweepError(
            f"{data / 'dataset.json'} is not that of a Decathlon data set, which lists its cases "
            f"as training: [{{image, label}}] ({error!r})."
        ) from error


def _nnunet(data: Path) -> list[Case]:
    images = data / "imagesTr" if (data / "imagesTr").is_dir() else data
    labels = {_stem(p, 0): p for p in _files(data / "labelsTr")}
    channels: dict[str, list[str]] = {}
    for path in _files(images):
        if match := _channel(path):
            channels.setdefault(match[1], []).append(str(path))
    return [
        Case(name, tuple(sorted(files)), _text(labels.get(name)))
        for name, files in channels.items()
    ]


def _pair(data: Path) -> list[Case]:
    names = ("images", "imagesTr", "image", "img")
    images = next((data / name for name in names if (data / name).is_dir()), data)
    folders = {"label": ("labels", "labelsTr", "label"), "mask": ("masks", "mask")}
    beside = {
        kind: {_stem(p, 0): str(p) for name in options for p in _files(data / name)}
        for kind, options in folders.items()
    }
    return [
        Case(name, str(path), beside["label"].get(name), beside["mask"].get(name))
        for path in _files(images)
        for name in [_stem(path, 0)]
    ]


def _list(data: Path) -> list[Case]:
    try:
        if data.suffix == ".json":
            rows = json.loads(data.read_text())
        else:
            with data.open(newline="") as file:
                rows = list(csv.DictReader(file))
        cases = []
        for number, row in enumerate(rows):
            image = row["image"]
            parts = image if isinstance(image, list) else image.split(";")
            files = tuple(str(data.parent / part.strip()) for part in parts)
            others = {k: _within(data.parent, row.get(k)) for k in ("label", "mask")}
            name = row.get("name") or row.get("case") or _stem(files[0], number)
            cases.append(Case(str(name), files if len(files) > 1 else files[0], **others))
        return cases
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SweepError(
            f"{data} must be a CSV with a header, or a JSON list of objects, with image and "
            f"optionally name, label and mask ({error!r})."
        ) from error


_LAYOUTS: dict[str, Callable[[Path], list[Case]]] = {
    "msd": _msd,
    "nnunet": _nnunet,
    "pair": _pair,
    "list": _list,
}


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        p for p in folder.iterdir() if p.name.endswith(SUFFIXES) and not p.name.startswith(".")
    )


def _stem(path: Any, number: int) -> str:
    if isinstance(path, list | tuple) and path:
        path = path[0]
    if not isinstance(path, str | Path):
        return f"case_{number:05d}"
    name = Path(path).name
    suffix = next((s for s in SUFFIXES if name.endswith(s)), Path(name).suffix)
    return name[: len(name) - len(suffix)]


def _channel(path: Path) -> re.Match[str] | None:
    return re.fullmatch(r"(.+)_(\d{4})", _stem(path, 0))


def _within(folder: Path, path: Any) -> str | None:
    return str(folder / path) if path else None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
