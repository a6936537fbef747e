"""NIfTI maps of the layers and units of a sweep: the voxels that the tables counted, in place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

for _name in ("torch", "nibabel", "pandas", "pyarrow"):
    pytest.importorskip(_name)

import nibabel as nib  # noqa: E402
import torch  # noqa: E402

from protoseg_fast import cli  # noqa: E402
from protoseg_fast.cohort import Case, SweepError, sweep  # noqa: E402
from protoseg_fast.cohort.export import export_map  # noqa: E402
from protoseg_fast.network.ability_map import SegmentationAbilityMap  # noqa: E402
from protoseg_fast.report import write_report  # noqa: E402

SIZE = (16, 12, 8)
MODEL = """
import torch

def build():
    conv = torch.nn.Conv3d
    return torch.nn.Sequential(conv(1, 3, 3, padding=1), torch.nn.ReLU(), conv(3, 3, 1))
"""
#: Oblique, unequal spacing, far from the origin.
AFFINE = np.array([[-1.9, 0.3, 0, 40], [0.3, 1.4, 0.2, -30], [0, -0.2, 3.1, 12], [0, 0, 0, 1]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two volumes with labels and masks, and a network."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels", "masks"):
        (tmp_path / kind).mkdir()
    for name in ("a", "b"):
        image = rng.normal(size=SIZE).astype(np.float32)
        label = (image > 0.3).astype(np.uint8) + (image > 1.5)
        mask = (rng.random(SIZE) > 0.2).astype(np.uint8)
        for kind, data in (("images", image), ("labels", label), ("masks", mask)):
            nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / kind / f"{name}.nii.gz")
    (tmp_path / "net.py").write_text(MODEL)
    return tmp_path


def _swept(folder: Path, *, mask: bool = False, **options) -> Path:
    kinds = ("images", "labels", "masks")[: 2 + mask]
    cases = [Case(n, *(folder / kind / f"{n}.nii.gz" for kind in kinds)) for n in ("a", "b")]
    fixed = {"progress": "quiet", "workers": 0, "layers": "convs,input", "activation": "softmax"}
    result = sweep(f"{folder / 'net.py'}:build", cases, out=folder / "out", **fixed, **options)
    assert not result.failures
    return result.out


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"roi_size": (8, 8, 8), "overlap": 0.5},
        {"roi_size": (8, 8, 8), "scope": "window", "metric": "cosine"},
        {"mask": True, "ignore_label": 2},
        {"mask": True, "roi_size": (8, 8, 8)},
        {"orientation": "RAS", "normalize": "zscore"},
        {"spacing": (2.0, 2.0, 2.0)},
    ],
    ids=str,
)
def test_map_is_what_the_table_counted(folder: Path, options: dict) -> None:
    out = _swept(folder, **options)
    table = SegmentationAbilityMap.load(out / "tables" / "b.parquet")
    rows = table.to_pandas()
    rows = rows[rows.reference == "output"]
    about = json.loads((out / "cases" / "b.json").read_text())
    mask = np.ones(about["shape"], bool)
    if options.get("mask"):
        mask = nib.load(folder / "masks" / "b.nii.gz").get_fdata() > 0
    if "ignore_label" in options:
        mask &= nib.load(folder / "labels" / "b.nii.gz").get_fdata() != options["ignore_label"]
    for layer, unit, target in (("0", 2, "2"), ("0", "layer", "1"), ("input", 0, "1")):
        path = folder / "map.nii.gz"
        voxels = export_map(out, "b", layer, path, unit=unit, target=target)
        image = nib.load(path)
        data = np.asarray(image.dataobj)
        assert data.dtype == np.uint8
        assert set(np.unique(data)) <= {0, 1}
        assert list(data.shape) == about["shape"]
        np.testing.assert_allclose(image.affine, about["affine"], atol=1e-5)
        assert voxels == data.sum()
        row = rows[(rows.layer == layer) & (rows.group == unit) & (rows.target == target)]
        assert (data.astype(bool) & mask).sum() == row.predicted.item()
    if "orientation" not in options and "spacing" not in options:
        np.testing.assert_allclose(about["affine"], AFFINE, atol=1e-5)
    assert list(folder.glob(".*")) == []


@pytest.mark.parametrize("options", [{}, {"roi_size": (8, 8, 8)}], ids=str)
def test_report_of_what_a_sweep_wrote(folder: Path, options: dict) -> None:
    """The two sides agree on the folder: nothing is lost between a sweep and its report."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from protoseg_fast.report.load import load_cohort

    out = _swept(folder, **options)
    cohort = load_cohort(out)
    assert cohort.cases == ["a", "b"]
    assert cohort.targets == ["1", "2"]
    assert cohort.labelled.all()
    assert cohort.failures == []
    assert cohort.outputs[["confidence", "foreground"]].notna().all(axis=None)
    assert cohort.layers["label"].tolist() == ["input", "0", "2"]
    html = write_report(out).read_text(encoding="utf-8")
    pictures = 4 - bool(options)  # of windows, no unit is kept
    assert html.count('<figure class="tile">') == 2 * pictures


def test_model_given_in_python_is_given_again(folder: Path) -> None:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1)).eval()
    options = {"out": folder / "out", "progress": "quiet", "workers": 0}
    out = sweep(model, [Case("a", folder / "images" / "a.nii.gz")], **options).out
    rows = SegmentationAbilityMap.load(out / "tables" / "a.parquet").to_pandas()
    row = rows[(rows.group == 1) & (rows.target == "0")]
    voxels = export_map(out, "a", "0", folder / "map.nii", unit=1, model=model)
    assert voxels == row.predicted.item()
    with pytest.raises(SweepError):
        export_map(out, "a", "0", folder / "map.nii")


def test_command(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = _swept(folder)
    monkeypatch.chdir(folder)
    assert cli.main(["export", str(out), "a", "--layer", "0", "--unit", "1"]) == 0
    assert "Wrote a-0-1.nii.gz" in capsys.readouterr().out
    assert nib.load("a-0-1.nii.gz").shape == SIZE
    for arguments, message in (
        (["c", "--layer", "0"], "no case 'c'"),
        (["a", "--layer", "0", "--unit", "9"], "below 3"),
        (["a", "--layer", "9"], "9"),
        (["a", "--layer", "0", "--target", "x"], "no target"),
        (["a", "--layer", "0", "--out", "map.png"], "must end in .nii"),
        (["a", "--layer", "0", "--out", "none/map.nii"], "Cannot write"),
    ):
        assert cli.main(["export", str(out), *arguments]) == 1
        told = capsys.readouterr().err
        assert message in told
        assert "Traceback" not in told
    assert cli.main(["export", str(folder / "labels"), "a", "--layer", "0"]) == 1
    assert "holds no sweep" in capsys.readouterr().err
