"""Sweeps with files of other libraries: MetaImage and NRRD (SimpleITK), weights of safetensors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import cohorts
from networks import library
from protoseg_fast import cli
from protoseg_fast.cohort import Case, SweepConfig, SweepError
from protoseg_fast.cohort.models import read_weights
from protoseg_fast.cohort.summary import merge
from protoseg_fast.cohort.volumes import CaseError, Volume, read_case

FLAGS = ["--activation", "softmax", "--targets", "whole=1,2", "core=2", "--threads", "1"]
SPACING, ORIGIN = np.array([1.5, 0.75, 2.5]), np.array([-30.0, 12.0, 40.5])
TO_LPS = np.array([-1, -1, 1])  # what NIfTI's world (right, front, up) is times, in ITK's


def oblique() -> np.ndarray:
    """Axes of a volume, columns in NIfTI's world: turned about all three, and a mirror image."""
    (a, b), (c, d), (e, f) = ((np.cos(t), np.sin(t)) for t in (0.3, -0.2, 1.9))
    x = np.array([[1, 0, 0], [0, a, -b], [0, b, a]])
    y = np.array([[c, 0, d], [0, 1, 0], [-d, 0, c]])
    z = np.array([[e, -f, 0], [f, e, 0], [0, 0, 1]])
    return z @ y @ x @ np.diag([-1, 1, 1])


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)


def write_itk(path: Path, array: np.ndarray, axes: np.ndarray, **options: Any) -> None:
    """Write an array (x, y, z), with the axes as ITK wants them."""
    itk = library("SimpleITK")
    image = itk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(SPACING.tolist())
    image.SetOrigin((TO_LPS * ORIGIN).tolist())
    image.SetDirection((TO_LPS[:, None] * axes).ravel().tolist())
    itk.WriteImage(image, str(path), **options)


def write_nifti(path: Path, array: np.ndarray, axes: np.ndarray) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * SPACING, ORIGIN
    nib.save(nib.Nifti1Image(array, affine), path)


def read(path: Path, **options: object) -> Volume:
    config = SweepConfig.of({"out": str(path.parent / "out"), **options})
    return read_case(Case("a", str(path), label=str(path)), config)


# --- volumes --------------------------------------------------------------------------------------


def test_simpleitk_reads_what_the_tests_take_for_the_same(tmp_path: Path) -> None:
    """A judge that is neither nibabel nor this package: ITK's own reader of NIfTI."""
    itk = library("SimpleITK")
    write_nifti(tmp_path / "a.nii", values(9, 7, 5), oblique())
    write_itk(tmp_path / "a.mha", values(9, 7, 5), oblique())
    nifti, meta = (itk.ReadImage(str(tmp_path / name)) for name in ("a.nii", "a.mha"))
    np.testing.assert_allclose(nifti.GetDirection(), meta.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(nifti.GetOrigin(), meta.GetOrigin(), atol=1e-5)
    assert np.array_equal(itk.GetArrayFromImage(nifti), itk.GetArrayFromImage(meta))


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"orientation": "RAS"},
        {"spacing": [1, 1, 1]},
        {"orientation": "LPI", "spacing": [2, 1, 0.5], "normalize": "zscore"},
    ],
    ids=str,
)
def test_a_volume_is_what_its_nifti_is(name: str, options: dict, tmp_path: Path) -> None:
    array = values(9, 7, 5)
    write_nifti(tmp_path / "a.nii.gz", array, oblique())
    write_itk(tmp_path / name, array, oblique(), useCompression=True)
    expected, found = read(tmp_path / "a.nii.gz", **options), read(tmp_path / name, **options)
    assert found.image.dtype == np.float32
    assert found.image.shape == expected.image.shape
    np.testing.assert_allclose(found.image, expected.image, atol=2e-3)  # affine: float32 in NIfTI
    assert np.array_equal(found.label, expected.label)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)
    np.testing.assert_allclose(found.spacing, expected.spacing, rtol=1e-6)
    if not options:
        assert np.array_equal(found.image[0], array)
        assert np.array_equal(found.label, array)
        np.testing.assert_allclose(found.spacing, SPACING)
        np.testing.assert_allclose(found.affine[:3, :3], oblique() * SPACING, atol=1e-6)
        np.testing.assert_allclose(found.affine[:3, 3], ORIGIN, atol=1e-6)


def test_components_and_a_fourth_axis_are_channels(tmp_path: Path) -> None:
    itk = library("SimpleITK")
    array = values(9, 7, 5)
    channels = np.stack([array, 2 * array, 3 * array])
    last = np.ascontiguousarray(np.moveaxis(channels, 0, -1).transpose(2, 1, 0, 3))
    itk.WriteImage(itk.GetImageFromArray(last, isVector=True), str(tmp_path / "vector.nrrd"))
    first = np.ascontiguousarray(channels.transpose(0, 3, 2, 1))
    itk.WriteImage(itk.GetImageFromArray(first, isVector=False), str(tmp_path / "time.mha"))
    config = SweepConfig.of({"out": str(tmp_path)})
    for name in ("vector.nrrd", "time.mha"):
        volume = read_case(Case("a", str(tmp_path / name)), config)
        assert np.array_equal(volume.image, channels), name
        assert volume.spacing == (1, 1, 1)


def test_images_of_two_axes(tmp_path: Path) -> None:
    itk = library("SimpleITK")
    array = values(9, 7)
    for name, data, vector in (
        ("grey.mha", array.T, False),
        ("colours.mha", np.stack([array.T, 2 * array.T], -1), True),
    ):
        image = itk.GetImageFromArray(np.ascontiguousarray(data), isVector=vector)
        image.SetSpacing([0.5, 0.25])
        itk.WriteImage(image, str(tmp_path / name))
    config = SweepConfig.of({"out": str(tmp_path)})
    grey, colours = (
        read_case(Case("a", str(tmp_path / n)), config) for n in ("grey.mha", "colours.mha")
    )
    assert np.array_equal(grey.image, array[None])
    assert np.array_equal(colours.image, np.stack([array, 2 * array]))
    assert grey.spacing == colours.spacing == (0.5, 0.25)
    with pytest.raises(CaseError, match="spacing are for volumes"):
        read(tmp_path / "grey.mha", spacing=[1, 1, 1])


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_volumes_are_refused(name: str, compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    write_itk(path, values(9, 7, 5), oblique(), useCompression=compressed)
    whole = path.read_bytes()
    for kept in (len(whole) - 200, len(whole) // 2, 20):
        path.write_bytes(whole[:kept])
        with pytest.raises(CaseError, match=f"Cannot read .*{name}: truncated, or not") as caught:
            read(path)
        assert caught.value.kind == "unreadable"


def test_a_sweep_of_metaimages_gives_the_table_of_the_niftis(tmp_path: Path) -> None:
    """With resampling, in folders of pairs."""
    for i in range(2):
        image, label = cohorts.volume(i)
        for kind, array in (("images", image), ("labels", label)):
            for data, write, suffix in (
                ("nifti", write_nifti, ".nii.gz"),
                ("meta", write_itk, ".mha"),
            ):
                folder = tmp_path / data / kind
                folder.mkdir(parents=True, exist_ok=True)
                write(folder / f"ball_{i}{suffix}", array, np.diag([1, -1, 1]))
    tables, about = [], []
    for data in ("nifti", "meta"):
        out = tmp_path / f"{data}-out"
        arguments = ["--model", "cohorts:small", "--data", str(tmp_path / data), "--workers", "0"]
        flags = [*FLAGS, "--spacing", "1,1,2", "--orientation", "RAS", "--progress", "quiet"]
        assert cli.main(["sweep", *arguments, *flags, "--out", str(out)]) == 0
        tables.append(merge(out).read_bytes())
        info = json.loads((out / "cases" / "ball_1.json").read_text())
        about.append((info["shape"], info["outputs"], np.round(info["affine"], 4).tolist()))
    assert tables[0] == tables[1]
    assert about[0] == about[1]
    assert about[0][0] == [35, 24, 19]


def test_without_simpleitk_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004")
    with pytest.raises(CaseError, match="pip install SimpleITK"):
        read(tmp_path / "a.nrrd")


# --- weights --------------------------------------------------------------------------------------


def test_safetensors_give_the_table_of_torch_save(tmp_path: Path) -> None:
    """Also where DataParallel saved them; and another table than other weights."""
    save = library("safetensors.torch").save_file
    torch.manual_seed(3)
    state = cohorts.small().state_dict()
    torch.save(state, tmp_path / "torch.pt")
    save(state, str(tmp_path / "plain.safetensors"))
    parallel = {f"module.{name}": value for name, value in state.items()}
    save(parallel, str(tmp_path / "parallel.safetensors"))
    save({name: -value for name, value in state.items()}, str(tmp_path / "other.safetensors"))
    data = cohorts.decathlon(tmp_path / "data", 2)
    tables = {}
    for path in sorted(tmp_path.glob("*.*")):
        out = tmp_path / "out" / path.stem
        arguments = ["--model", "cohorts:small", "--weights", str(path), "--data", str(data)]
        more = ["--workers", "0", "--progress", "quiet", "--out", str(out)]
        assert cli.main(["sweep", *arguments, *FLAGS, *more]) == 0
        tables[path.stem] = merge(out).read_bytes()
    assert tables["plain"] == tables["torch"] == tables["parallel"]
    assert tables["other"] != tables["torch"]


def test_truncated_safetensors_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.safetensors"
    library("safetensors.torch").save_file(cohorts.small().state_dict(), str(path))
    whole = path.read_bytes()
    for kept in (len(whole) - 1, len(whole) // 2, 5, 0):
        path.write_bytes(whole[:kept])
        with pytest.raises(SweepError, match=r"Cannot read .*a\.safetensors: truncated"):
            read_weights(path)
    data = cohorts.decathlon(tmp_path / "data", 1)
    arguments = ["--model", "cohorts:small", "--weights", str(path), "--data", str(data)]
    assert cli.main(["sweep", *arguments, *FLAGS, "--out", str(tmp_path / "out")]) == 1
    assert "a.safetensors: truncated, or no safetensors file" in capsys.readouterr().err
