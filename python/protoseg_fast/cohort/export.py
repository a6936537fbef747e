"""Maps of layers and units of a sweep as NIfTI files, drawn anew by the sweep's own network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from protoseg_fast.cohort.config import SweepConfig, SweepError
from protoseg_fast.cohort.layouts import Case
from protoseg_fast.cohort.models import check_device, load_model
from protoseg_fast.cohort.run import evaluating
from protoseg_fast.cohort.scoring import seeded
from protoseg_fast.cohort.store import Store
from protoseg_fast.cohort.volumes import CaseError, Volume, read_case
from protoseg_fast.network.extras import require
from protoseg_fast.network.records import WHOLE_LAYER
from protoseg_fast.network.sweep import segmentation_ability_map
from protoseg_fast.network.windows import SlidingWindow
from protoseg_fast.web.files import replacing

__all__ = ["export_map"]


def export_map(
    folder: str | Path,
    case: str,
    layer: str,
    out: str | Path,
    *,
    unit: int | str = WHOLE_LAYER,
    target: str | None = None,
    call: int = 0,
    model: nn.Module | str | None = None,
    **options: Any,
) -> int:
    """Write what a layer or unit segments in a case of a sweep to a NIfTI file.

    The case is read, and the network run, as the sweep did: the map is the one that the table's
    score is of. It lies in space where the image does, after the sweep's ``orientation`` and
    ``spacing``; without a known affine it has the identity.

    Args:
        folder: what the sweep wrote.
        case: name of the case.
        layer: name of the layer, as in the table.
        out: file to write, ``.nii`` or ``.nii.gz``: uint8, 1 in the map, of the image's size.
        unit: a channel, or "layer" for all of them together.
        target: whose prototypes; None: the first target's.
        call: which call of the layer.
        model: the network, or where its code is, as for a sweep; None: as the sweep had it.
        options: fields of `SweepConfig` that are not to be those of the sweep, such as ``device``,
            or where ``weights`` lie now.

    Returns:
        How many voxels the map has.

    Raises:
        SweepError: if there is no such sweep, case or device, the case cannot be read, the network
            cannot be loaded, or the file cannot be written.
        ValueError: if there is no such layer, unit, target or call.
        ImportError: if nibabel is missing.
    """
    nib = require("nibabel", "export")
    out = Path(out)
    if not out.name.endswith((".nii", ".nii.gz")):
        raise SweepError(f"The file must end in .nii or .nii.gz, got {out.name}.")
    store = Store(folder)
    if isinstance(model, str):
        options["model"] = model
    config = _config(store, options)
    check_device(config.device)
    try:
        volume = read_case(_case(store, case), config)
    except CaseError as error:
        raise SweepError(f"{case} cannot be read: {error}") from error
    with seeded(config):  # as the sweep: weights may be drawn
        network = model if isinstance(model, nn.Module) else load_model(config)
    with seeded(config), evaluating(network):
        drawn = _draw(network, volume, config, (layer, unit, target, call))
    values = drawn.cpu().numpy().astype(np.uint8)
    affine = np.eye(4) if volume.affine is None else np.asarray(volume.affine)
    # A slice has a third axis of length 1: readers of NIfTI expect three.
    image = nib.Nifti1Image(values if values.ndim > 2 else values[..., None], affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"{layer} {unit}"[-79:]
    try:
        with replacing(out) as temporary:
            # The suffix decides on compression.
            named = temporary.with_name(temporary.name + out.name[out.name.index(".nii") :])
            nib.save(image, named)
            named.replace(temporary)
    except OSError as error:
        raise SweepError(f"Cannot write to {out}: {error.strerror or error}.") from error
    return int(values.sum())


def _config(store: Store, options: dict[str, Any]) -> SweepConfig:
    about = store.read("config.json")
    if about is None:
        raise SweepError(f"{store.out} holds no sweep: there is no config.json.")
    given = {name: value for name, value in options.items() if value is not None}
    known = {option.name for option in dataclasses.fields(SweepConfig)}
    # Options of another version of the package are left out.
    return SweepConfig.of({k: v for k, v in about["options"].items() if k in known} | given)


def _case(store: Store, name: str) -> Case:
    entries = {entry["case"]: entry for entry in store.manifest()}
    if name not in entries:
        first = min(entries, default="")
        raise SweepError(f"{store.out} has no case {name!r}; the first is {first!r}.")
    entry = entries[name]
    if not entry["image"]:
        raise SweepError(f"Case {name!r} was no file, and cannot be read again.")
    return Case(name, entry["image"], entry["label"], entry["mask"])


def _draw(
    network: nn.Module,
    volume: Volume,
    config: SweepConfig,
    what: tuple[str, int | str, str | None, int],
) -> Tensor:
    layer, unit, target, call = what
    image = torch.from_numpy(np.ascontiguousarray(volume.image))[None]
    image = image.to(device=config.device, dtype=getattr(torch, config.dtype))
    mask = _mask(volume, config)
    window = None
    if config.roi_size is not None:
        size = config.roi_size if len(config.roi_size) > 1 else config.roi_size[0]
        window = SlidingWindow(size, config.overlap, config.window_mode, config.batch)
    sam = segmentation_ability_map(
        network,
        image,
        mask=mask,
        layers=[layer],
        groups="layer",
        activation=None if config.activation == "none" else config.activation,  # type: ignore[arg-type]
        targets=config.targets,
        metric=config.metric,  # type: ignore[arg-type]
        interpolation=config.interpolation,  # type: ignore[arg-type]
        window=window,
        scope=config.scope,  # type: ignore[arg-type]
    )
    return sam.map(layer, unit, image, target=target, call=call, mask=mask)[0]


def _mask(volume: Volume, config: SweepConfig) -> Tensor | None:
    """The voxels that counted, (1, 1, *size)."""
    mask = None if volume.mask is None else np.asarray(volume.mask, np.float32)
    if config.ignore_label is not None and volume.label is not None:
        counted = (volume.label != config.ignore_label).astype(np.float32)
        mask = counted if mask is None else counted * mask
    return None if mask is None else torch.from_numpy(np.ascontiguousarray(mask))[None, None]
