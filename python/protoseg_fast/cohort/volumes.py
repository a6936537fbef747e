"""Reading a case: files to arrays, orientation, spacing, intensities. Needs no torch, so that
processes which read ahead stay small.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protoseg_fast.cohort.config import SweepConfig, SweepError
from protoseg_fast.cohort.layouts import Case

__all__ = ["CaseError", "Volume", "find_function", "read_case"]

Array = NDArray[Any]


class CaseError(Exception):
    """A case cannot be scored. ``kind`` is one word; the message says what is wrong."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind, self.message = kind, message

    def __str__(self) -> str:
        return self.message


@dataclass
class Volume:
    """A case, read.

    Attributes:
        image: (C, *size) float32.
        label: (*size) whole numbers; None: there is none.
        mask: (*size); None: all voxels count.
        affine: (4, 4) from voxels to the world's mm; None: not known.
        spacing: of the axes, in mm; None: not known.
    """

    image: Array
    label: Array | None
    mask: Array | None
    affine: Array | None
    spacing: tuple[float, ...] | None


def read_case(case: Case, config: SweepConfig) -> Volume:
    """Read a case and bring it into the form that the network takes.

    Raises:
        CaseError: of kind "unreadable", "shape", "nan" or "transform".
    """
    channels = [_read(path, config, label=False) for path in _listed(case.image)]
    first, images = channels[0], [c.data for c in channels]
    size = images[0].shape[1:]
    if wrong := [i.shape[1:] for i in images if i.shape[1:] != size]:
        raise CaseError("shape", f"The image's files differ in shape: {size} and {wrong[0]}.")
    image = np.concatenate(images).astype(np.float32, copy=False)
    if not np.isfinite(image).all():
        raise CaseError("nan", "The image holds NaN or infinite values.")
    others = {}
    for kind, source in (("label", case.label), ("mask", case.mask)):
        others[kind] = None if source is None else _beside(kind, source, size, config)
    volume = Volume(
        _normalised(image, config.normalize), others["label"], others["mask"], first.affine,
        first.spacing,
    )  # fmt: skip
    return _transformed(volume, config.transform) if config.transform else volume


def find_function(text: str) -> Any:
    """Return the function that ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION`` names.

    Modules are found through PYTHONPATH and the current directory.

    Raises:
        SweepError: if there is none, or the file cannot be run.
    """
    place, colon, name = text.rpartition(":")
    if not colon or not place or not name:
        raise SweepError(f"Expected MODULE:FUNCTION or FILE.py:FUNCTION, got {text!r}.")
    try:
        if place.endswith(".py"):
            module = _module_of(Path(place))
        else:
            if "" not in sys.path and str(Path.cwd()) not in sys.path:
                sys.path.insert(0, str(Path.cwd()))
            module = importlib.import_module(place)
    except Exception as error:
        raise SweepError(f"Cannot import {place}: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise SweepError(f"{place} has no function {name!r}.")
    return function


@dataclass
class _Read:
    """What a source holds: of images (C, *size), of labels and masks as it is."""

    data: Array
    affine: Array | None = None
    spacing: tuple[float, ...] | None = None


def _listed(image: Any) -> list[Any]:
    paths = isinstance(image, list | tuple) and all(isinstance(p, str | Path) for p in image)
    return list(image) if paths else [image]


def _read(source: Any, config: SweepConfig, *, label: bool) -> _Read:
    """An array as it is; a file's, turned and resampled."""
    if callable(source):
        source = source()
    if not isinstance(source, str | Path):
        data = np.asarray(source)
        if not label and not 2 <= data.ndim <= 4:
            raise CaseError("shape", f"An image must be (C, *size), got shape {data.shape}.")
        return _Read(data)
    path = Path(source)
    try:
        if not path.exists():
            raise CaseError("unreadable", f"There is no {path}.")
        if path.stat().st_size == 0:
            raise CaseError("unreadable", f"{path} is empty.")
        if path.name.endswith((".nii", ".nii.gz")):
            return _nifti(path, config, label=label)
        if path.name.endswith((".mha", ".mhd", ".nrrd")):
            return _itk(path, config, label=label)
        return _picture(path, label=label)
    except (CaseError, SweepError, MemoryError):
        raise
    except Exception as error:
        message = f"Cannot read {path}: {type(error).__name__}: {error}"
        raise CaseError("unreadable", message) from error


def _nifti(path: Path, config: SweepConfig, *, label: bool) -> _Read:
    import nibabel as nib

    image: Any = nib.load(path)
    return _volume(image, config, label=label, axes=min(image.ndim, 3))


def _itk(path: Path, config: SweepConfig, *, label: bool) -> _Read:
    """As if it were NIfTI; a fourth axis, or the components of a voxel, are channels."""
    import nibabel as nib

    try:
        import SimpleITK
    except ImportError as error:
        raise CaseError("unreadable", f"{path.suffix} files need: pip install SimpleITK") from error
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:  # whose reason is wrong where the file is truncated
        told = " ".join(str(error).split())
        message = f"Cannot read {path}: truncated, or not what its suffix says. SimpleITK: {told}"
        raise CaseError("unreadable", message) from error
    dimension = image.GetDimension()
    axes = min(dimension, 3)
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)
    affine[:axes, :axes] = direction[:axes, :axes] * image.GetSpacing()[:axes]
    affine[:axes, 3] = image.GetOrigin()[:axes]
    affine = np.diag([-1, -1, 1, 1]) @ affine  # ITK's world: left, back, up; NIfTI's: right, front
    data = SimpleITK.GetArrayFromImage(image).T  # from (z, y, x)
    if image.GetNumberOfComponentsPerPixel() > 1:
        data = np.moveaxis(data, 0, -1)
    nifti = nib.Nifti1Image(data.astype(np.float32), affine)
    return _volume(nifti, config, label=label, axes=axes)


def _volume(image: Any, config: SweepConfig, *, label: bool, axes: int) -> _Read:
    """The array, turned and resampled as wanted; spatial axes (so many) are first."""
    import nibabel as nib

    if axes < 3 and (config.orientation or config.spacing is not None):
        message = f"orientation and spacing are for volumes; this image has {axes} axes."
        raise CaseError("shape", message)
    if config.orientation:
        now = nib.io_orientation(image.affine)
        wanted = nib.orientations.axcodes2ornt(config.orientation.upper())
        image = image.as_reoriented(nib.orientations.ornt_transform(now, wanted))
    if config.spacing is not None:
        if not label:  # else values between whole numbers would be rounded to them
            whole = np.asanyarray(image.dataobj, dtype=np.float32)
            image = nib.Nifti1Image(whole, image.affine)
        image = _resampled(image, config.spacing, order=0 if label else 1)
    data = np.asanyarray(image.dataobj)
    zooms = tuple(float(z) for z in image.header.get_zooms()[:axes])
    data = data if label else _channels_first(data, axes)
    return _Read(data, np.asarray(image.affine, dtype=float), zooms)


def _resampled(image: Any, spacing: tuple[float, ...], *, order: int) -> Any:
    """The same axes and first voxel, at another spacing; linear (order 1) or nearest (0)."""
    import nibabel as nib
    from nibabel.processing import resample_from_to

    if image.ndim > 3:
        parts = [_resampled(part, spacing, order=order) for part in nib.four_to_three(image)]
        return nib.concat_images(parts)
    step = np.array(spacing) / image.header.get_zooms()[:3]
    shape = np.floor((np.array(image.shape) - 1) / step + 1e-6).astype(int) + 1
    affine = image.affine @ np.diag([*step, 1])
    return resample_from_to(image, (tuple(shape), affine), order=order, mode="nearest")


def _picture(path: Path, *, label: bool) -> _Read:
    from PIL import Image

    with Image.open(path) as picture:
        data = np.asarray(picture)  # of a palette, the indices: they are the labels
    return _Read(data if label else _channels_first(data, 2))


def _channels_first(data: Array, axes: int) -> Array:
    """An image's file holds channels last, if any."""
    if data.ndim == axes:
        return data[None]
    if data.ndim != axes + 1:
        raise CaseError("shape", f"Cannot take an image of shape {data.shape}.")
    return np.moveaxis(data, -1, 0)


def _beside(kind: str, source: Any, size: tuple[int, ...], config: SweepConfig) -> Array:
    data = _read(source, config, label=True).data
    while data.ndim > len(size) and 1 in (data.shape[0], data.shape[-1]):
        data = data[..., 0] if data.shape[-1] == 1 else data[0]
    if data.shape != size:
        raise CaseError("shape", f"The {kind} has shape {data.shape}, the image {size}.")
    if not np.isfinite(data).all():
        raise CaseError("nan", f"The {kind} holds NaN or infinite values.")
    if kind == "mask":
        return data.astype(np.float32)
    whole = np.rint(data)
    if not np.array_equal(whole, data):
        raise CaseError("label", "The label map holds values that are no whole numbers.")
    return whole.astype(np.int64)


def _normalised(image: Array, how: str) -> Array:
    """Each channel (C, *size) on its own, in double precision; constant channels become 0."""
    if how == "none":
        return image
    result = np.empty_like(image)
    for channel, values in zip(result, image, strict=True):
        if how == "zscore":
            low, scale = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        else:
            ends = (0.5, 99.5) if how == "percentile" else (0, 100)
            low, high = (float(v) for v in np.percentile(values, ends))
            scale = high - low
            values = np.clip(values, low, high)
        channel[...] = (values - low) / scale if scale > 0 else 0
    return result


def _transformed(volume: Volume, text: str) -> Volume:
    function = find_function(text)
    try:
        found = function(dict(vars(volume)))
        image = np.asarray(found["image"], dtype=np.float32)
    except Exception as error:
        message = f"{text} failed: {type(error).__name__}: {error}"
        raise CaseError("transform", message) from error
    label, mask = (
        None if found.get(k) is None else np.asarray(found[k]) for k in ("label", "mask")
    )
    if not np.isfinite(image).all():
        raise CaseError("nan", f"{text} returned NaN or infinite values.")
    return Volume(image, label, mask, found.get("affine"), found.get("spacing"))


def _module_of(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickles look it up
    spec.loader.exec_module(module)
    return module
