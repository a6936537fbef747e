"""What a sweep can be told: `SweepConfig`, the one source of options, defaults and help.

Light on purpose: the command line reads its options here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

__all__ = ["DEPENDENCIES", "SweepConfig", "SweepError", "differences", "parse_targets"]

#: Importable names of what ``pip install 'protoseg_fast[sweep]'`` adds.
DEPENDENCIES = ("torch", "nibabel", "pandas", "pyarrow", "rich", "PIL", "scipy")


#: The least and the largest whole number of an option: torch's are of 64 bits, its threads of 32.
_RANGES = {
    "ignore_label": (-(2**63), 2**63 - 1),
    "batch": (1, inf),
    "seed": (-(2**63), 2**64 - 1),
    "threads": (1, 2**31 - 1),
    "limit": (1, inf),
    "workers": (0, inf),
    "num_parts": (1, inf),
    "part_id": (0, inf),
    "ray_actors": (1, inf),
}


class SweepError(RuntimeError):
    """The sweep cannot run as asked; the message says why and what to do."""


def _option(
    default: Any,
    text: str,
    *,
    kind: Any = str,
    choices: Sequence[str] | None = None,
    many: bool = False,
    decides: bool = True,
) -> Any:
    """An option. ``decides``: whether it decides what the rows are, so that a resume must have the
    same; ``many``: a comma-separated list on the command line.
    """
    about = {"help": text, "kind": kind, "choices": choices, "many": many, "decides": decides}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class SweepConfig:
    """One sweep. Every field is an option of ``protoseg-fast sweep`` and a key of a config file.

    Sizes are in voxels, spacing in the image's unit (mm in NIfTI files).

    Raises:
        SweepError: for values out of range.
    """

    model: str = _option("", "MODULE:FUNCTION, FILE.py:FUNCTION or a MONAI bundle's folder")
    weights: str = _option("", "a state_dict (.pt, .pth, read with weights_only) or .safetensors")
    data: str = _option("", "folder in a known layout, or a .csv/.json list of paths")
    out: str = _option("", "folder for the results; made if missing", decides=False)
    layout: str = _option(
        "auto",
        "how the data lies",
        choices=("auto", "msd", "nnunet", "pair", "list"),
    )
    layers: tuple[str, ...] = _option(
        ("convs",), "presets, names or globs of layers, separated by commas", many=True
    )
    targets: dict[str, tuple[int, ...]] | None = _option(  # noqa: RUF009
        None, "binary problems: NAME=1,2 for each; all classes or channels if omitted", kind=dict
    )
    activation: str = _option(
        "sigmoid",
        "what makes the network's output probabilities",
        choices=("sigmoid", "softmax", "none"),
    )
    ignore_label: int | None = _option(None, "label whose voxels do not count", kind=int)
    roi_size: tuple[int, ...] | None = _option(
        None, "extents of a sliding window; the whole volume if omitted", kind=int, many=True
    )
    overlap: float = _option(0.25, "share of the window that neighbours share", kind=float)
    window_mode: str = _option(
        "gaussian", "how predictions of windows are blended", choices=("constant", "gaussian")
    )
    batch: int = _option(1, "windows that the network takes at once", kind=int)
    scope: str = _option(
        "volume", "whose prototypes a window is scored with", choices=("volume", "window")
    )
    metric: str = _option("euclidean", "metric", choices=("euclidean", "cosine"))
    interpolation: str = _option(
        "linear", "how features are resized", choices=("linear", "nearest")
    )
    orientation: str = _option("", "turn volumes to these axes, such as RAS; as stored if omitted")
    spacing: tuple[float, ...] | None = _option(
        None, "resample volumes to this spacing; as stored if omitted", kind=float, many=True
    )
    normalize: str = _option(
        "none",
        "of each channel's intensities; percentile: 0.5 and 99.5 to 0 and 1",
        choices=("none", "zscore", "minmax", "percentile"),
    )
    transform: str = _option(
        "", "MODULE:FUNCTION or FILE.py:FUNCTION from a dictionary of arrays to another, after that"
    )
    device: str = _option("cpu", "where the network runs: cpu, cuda, cuda:1")
    dtype: str = _option(
        "float32", "the network's dtype", choices=("float32", "bfloat16", "float16")
    )
    seed: int = _option(0, "of torch, before the model is built and before every case", kind=int)
    threads: int | None = _option(
        None, "threads of the network and the engine; all cores if omitted", kind=int, decides=False
    )
    limit: int | None = _option(None, "only the first so many cases", kind=int, decides=False)
    cases: tuple[str, ...] | None = _option(
        None, "only these cases: names or globs", many=True, decides=False
    )
    memory_budget: float = _option(
        2.0**30,
        "bytes of features that may be copied, so that the network need not run again for them",
        kind=float,
        decides=False,
    )
    workers: int = _option(
        1, "processes that read ahead; 0: the one that scores reads", kind=int, decides=False
    )
    num_parts: int = _option(1, "in how many parts the cases are split", kind=int, decides=False)
    part_id: int = _option(0, "which of them this is, from 0", kind=int, decides=False)
    previews: bool = _option(True, "keep a slice of each case for the report", decides=False)
    overwrite: bool = _option(
        False, "score cases again that are done; without it they are kept", decides=False
    )
    progress: str = _option(
        "bar",
        "what is printed while it runs",
        choices=("bar", "quiet", "json"),
        decides=False,
    )
    engine: str = _option(
        "local",
        "where cases are scored: here, or by the actors of a Ray cluster",
        choices=("local", "ray"),
        decides=False,
    )
    ray_address: str = _option(
        "", "of a running cluster, such as auto; a new local one if omitted", decides=False
    )
    ray_actors: int = _option(2, "copies of the model on the cluster", kind=int, decides=False)

    def __post_init__(self) -> None:
        for name, (lowest, highest) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not lowest <= value <= highest:
                allowed = f"at least {lowest}" if highest == inf else f"from {lowest} to {highest}"
                raise SweepError(f"{name} must be {allowed}; got {value}.")
        if self.part_id >= self.num_parts:
            raise SweepError(
                f"part_id must be from 0 to num_parts - 1 = {self.num_parts - 1}; got "
                f"{self.part_id}."
            )
        if not 0 <= self.overlap < 1:
            raise SweepError(f"overlap must be at least 0 and less than 1; got {self.overlap}.")
        if not self.memory_budget >= 0:
            raise SweepError(f"memory_budget must be at least 0; got {self.memory_budget}.")
        self._check_geometry()
        for option in dataclasses.fields(self):
            choices, value = option.metadata["choices"], getattr(self, option.name)
            if choices is not None and value not in choices:
                raise SweepError(
                    f"{option.name} must be one of {', '.join(choices)}; got {value!r}."
                )

    def _check_geometry(self) -> None:
        roi_size, spacing = self.roi_size, self.spacing
        if roi_size is not None and not 1 <= len(roi_size) <= 3:
            raise SweepError(
                "roi_size must be one extent for all axes, or one for each of at most 3; got "
                f"{list(roi_size)}."
            )
        if spacing is not None and not (len(spacing) == 3 and all(0 < s < inf for s in spacing)):
            raise SweepError(f"spacing must be 3 lengths above 0; got {list(spacing)}.")
        letters = self.orientation.upper()
        pairs = ("RL", "AP", "SI")
        whole = len(letters) == 3 and all(sum(c in pair for c in letters) == 1 for pair in pairs)
        if letters and not whole:
            raise SweepError(
                "orientation must be one letter for each axis, of R or L, A or P, and S or I, in "
                f"any order, such as RAS; got {self.orientation!r}."
            )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> SweepConfig:
        """Make a configuration of options by name, as a config file or the Python API has them.

        Raises:
            SweepError: for unknown names, and values of the wrong type or out of range.
        """
        known = {option.name: option for option in dataclasses.fields(cls)}
        if unknown := [name for name in values if name.replace("-", "_") not in known]:
            raise SweepError(f"Unknown options: {', '.join(unknown)}. Known: {', '.join(known)}.")
        found = {}
        for name, value in values.items():
            option = known[name.replace("-", "_")]
            try:
                found[option.name] = _converted(option, value)
            except (TypeError, ValueError, OverflowError) as error:
                raise SweepError(f"{option.name}: cannot use {value!r} ({error}).") from error
        return cls(**found)

    @classmethod
    def read(cls, path: str | Path) -> dict[str, Any]:
        """Return the options in a YAML or TOML file.

        Raises:
            SweepError: if the file cannot be read or holds no table of options.
        """
        try:
            values = _parsed(Path(path))
        except (OSError, ValueError) as error:
            raise SweepError(f"Cannot read options from {path}: {error}") from error
        if not isinstance(values, dict):
            raise SweepError(f"{path} must hold a table of options, such as `roi_size: [64, 64]`.")
        return values

    def deciding(self) -> dict[str, Any]:
        """Return the options that decide what the rows are."""
        return {
            option.name: _plain(getattr(self, option.name))
            for option in dataclasses.fields(self)
            if option.metadata["decides"]
        }

    def all(self) -> dict[str, Any]:
        """Return all options, as JSON has them."""
        return {o.name: _plain(getattr(self, o.name)) for o in dataclasses.fields(self)}


def digest(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of options, in hexadecimal."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each option that differs."""
    names = dict.fromkeys([*before, *now])
    return [
        f"{name}: {before.get(name)!r} before, {now.get(name)!r} now"
        for name in names
        if before.get(name) != now.get(name)
    ]


def parse_targets(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Read ``NAME=1,2`` for each target.

    Raises:
        SweepError: for anything else.
    """
    found = {}
    for text in texts:
        name, equals, labels = text.partition("=")
        try:
            found[name] = tuple(int(label) for label in labels.split(","))
        except ValueError:
            equals = ""
        if not equals or not name:
            raise SweepError(f"A target must be NAME=LABEL or NAME=LABEL,LABEL; got {text!r}.")
    return found


def _converted(option: Any, value: Any) -> Any:
    kind, many = option.metadata["kind"], option.metadata["many"]
    kind = _whole if kind is int else kind
    if value is None:
        return option.default
    if kind is dict:
        if not isinstance(value, Mapping):
            return parse_targets([value] if isinstance(value, str) else value)
        labels = {k: (v if isinstance(v, list | tuple) else [v]) for k, v in value.items()}
        return {str(k): tuple(map(_whole, v)) for k, v in labels.items()}
    if many:
        parts = value.split(",") if isinstance(value, str) else value
        parts = parts if isinstance(parts, list | tuple) else [parts]
        return tuple(kind(part) for part in parts)
    if isinstance(option.default, bool):
        if not isinstance(value, bool):
            raise TypeError("true or false expected")
        return value
    return kind(value)


def _whole(value: Any) -> int:
    """A number in a text, or as a config file has it."""
    number = int(value)
    if not isinstance(value, str) and number != value:
        raise ValueError("a whole number expected")
    return number


def _parsed(path: Path) -> Any:
    toml = path.suffix == ".toml"
    try:
        parser = importlib.import_module("tomllib" if toml else "yaml")
    except ImportError as error:
        needs = "TOML needs Python 3.11; use YAML." if toml else "YAML needs: pip install pyyaml"
        raise ValueError(needs) from error
    if toml:
        return parser.loads(path.read_text())
    try:
        return parser.safe_load(path.read_text())
    except parser.YAMLError as error:
        raise ValueError(str(error)) from error


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, dict):
        return {k: list(v) for k, v in value.items()}
    return value
