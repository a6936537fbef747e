"""What a sweep is told, which cases it finds, and how it is split."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

import cohorts
from protoseg_fast import cli
from protoseg_fast.cohort import Case, SweepConfig, SweepError, find_cases
from protoseg_fast.cohort.models import load_model
from protoseg_fast.cohort.run import part_of
from protoseg_fast.cohort.summary import merge, status
from protoseg_fast.cohort.volumes import CaseError, read_case


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = cohorts.AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def config(tmp_path: Path, **options: object) -> SweepConfig:
    return SweepConfig.of({"out": str(tmp_path / "out"), **options})


# --- configuration --------------------------------------------------------------------------------


def test_files_and_command_line_make_the_same(tmp_path: Path) -> None:
    text = 'model = "cohorts:small"\nroi-size = [8, 8, 8]\nlayers = "convs,0"\n'
    text += "part_id = 1\nnum_parts = 3\n[targets]\nwhole = [1, 2]\ncore = 2\n"
    (tmp_path / "sweep.toml").write_text(text)
    yaml = "model: cohorts:small\nroi_size: [8, 8, 8]\nlayers: [convs, '0']\n"
    yaml += "part_id: 1\nnum_parts: 3\ntargets: {whole: [1, 2], core: 2}\n"
    (tmp_path / "sweep.yaml").write_text(yaml)
    flags = {"model": "cohorts:small", "roi_size": "8,8,8", "layers": "convs,0", "part_id": "1"}
    flags |= {"num_parts": 3, "targets": ["whole=1,2", "core=2"]}
    expected = SweepConfig.of(flags)
    assert expected.targets == {"whole": (1, 2), "core": (2,)}
    if sys.version_info >= (3, 11):
        assert SweepConfig.of(SweepConfig.read(tmp_path / "sweep.toml")) == expected
    pytest.importorskip("yaml")
    assert SweepConfig.of(SweepConfig.read(tmp_path / "sweep.yaml")) == expected


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    data = cohorts.decathlon(tmp_path / "data", 2)
    file = tmp_path / "sweep.toml"
    if sys.version_info < (3, 11):
        pytest.skip("tomllib")
    file.write_text('model = "cohorts:small"\nactivation = "sigmoid"\nworkers = 0\nlimit = 1\n')
    arguments = ["--config", str(file), "--data", str(data), "--out", str(tmp_path / "out")]
    assert cli.main(["sweep", *arguments, "--activation", "softmax", "--progress", "quiet"]) == 0
    effective = json.loads((tmp_path / "out" / "config.json").read_text())["options"]
    assert (effective["activation"], effective["limit"]) == ("softmax", 1)


def test_what_a_sweep_needs_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sweep", "--data", "somewhere"]) == 1
    assert "A sweep needs --model, --out." in capsys.readouterr().err


# --- layouts --------------------------------------------------------------------------------------


def test_decathlon(tmp_path: Path) -> None:
    cases = find_cases(cohorts.decathlon(tmp_path / "data", 3))
    assert [c.name for c in cases] == ["ball_000", "ball_001", "ball_002"]
    volume = read_case(cases[1], config(tmp_path))
    image, label = cohorts.volume(1)
    assert np.array_equal(volume.image[0], image)
    assert np.array_equal(volume.label, label)


def test_nnunet_channels(tmp_path: Path) -> None:
    image, label = cohorts.volume(0)
    for channel in range(2):
        nifti(tmp_path / "data" / "imagesTr" / f"a_{channel:04d}.nii.gz", image + channel)
    nifti(tmp_path / "data" / "labelsTr" / "a.nii.gz", label)
    (tmp_path / "data" / "dataset.json").write_text("{}")
    [case] = find_cases(tmp_path / "data")
    volume = read_case(case, config(tmp_path))
    assert case.name == "a"
    assert np.array_equal(volume.image, np.stack([image, image + 1]))
    assert volume.label is not None


def test_channels_of_a_four_dimensional_file(tmp_path: Path) -> None:
    image, _ = cohorts.volume(0)
    nifti(tmp_path / "a.nii.gz", np.stack([image, 2 * image], axis=-1))
    volume = read_case(Case("a", str(tmp_path / "a.nii.gz")), config(tmp_path))
    assert np.array_equal(volume.image, np.stack([image, 2 * image]))


def test_pictures_in_two_folders(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("images", "labels", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    pixels = generator.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    label = (pixels[..., 0] > 128).astype(np.uint8)
    for name in ("a", "b"):
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{name}.png")
    Image.fromarray(label).save(tmp_path / "data" / "labels" / "a.tif")
    Image.fromarray(label).save(tmp_path / "data" / "masks" / "a.png")
    a, b = find_cases(tmp_path / "data")
    volume = read_case(a, config(tmp_path))
    assert np.array_equal(volume.image, np.moveaxis(pixels, -1, 0))
    assert np.array_equal(volume.label, label)
    assert np.array_equal(volume.mask, label)
    assert b.label is None
    arguments = ["--model", "cohorts:flat", "--data", str(tmp_path / "data"), "--workers", "0"]
    out = tmp_path / "out"
    flags = ["--normalize", "minmax", "--progress", "quiet", "--out", str(out)]
    assert cli.main(["sweep", *arguments, *flags]) == 0
    shown = np.load(out / "previews" / "a.npz")
    assert (shown["axis"], shown["index"]) == (-1, 0)
    assert shown["image"].shape == (20, 30)


@pytest.mark.parametrize("layout", ["auto", "pair"])
def test_images_that_lie_in_the_folder_itself(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for name in ("b", "a"):
        nifti(data / f"{name}.nii.gz", cohorts.volume(0)[0])
    assert [(c.name, c.label) for c in find_cases(data, layout)] == [("a", None), ("b", None)]
    arguments = sweep_part(data, tmp_path / "out", 0)
    assert cli.main([*arguments, "--num-parts", "1", "--layout", layout]) == 0
    assert "part 0 of 1: 2 cases, no label found for 2 of them\n" in capsys.readouterr().err
    nifti(data / "labels" / "a.nii.gz", cohorts.volume(0)[1])
    a, b = find_cases(data, layout)
    assert (a.label, b.label) == (str(data / "labels" / "a.nii.gz"), None)


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_lists(tmp_path: Path, suffix: str) -> None:
    image, label = cohorts.volume(0)
    nifti(tmp_path / "some" / "i.nii.gz", image)
    nifti(tmp_path / "some" / "l.nii.gz", label)
    rows = [
        {"name": "b", "image": "some/i.nii.gz", "label": ""},
        {"name": "a", "image": "some/i.nii.gz", "label": "some/l.nii.gz"},
    ]
    path = tmp_path / f"cases.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps(rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    a, b = find_cases(path)
    assert (a.name, b.name, b.label) == ("a", "b", None)
    assert read_case(a, config(tmp_path)).label is not None


def test_wrong_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="There is no"):
        find_cases(tmp_path / "nowhere")
    with pytest.raises(SweepError, match="Found no cases"):
        find_cases(tmp_path)
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(SweepError, match="Decathlon"):
        find_cases(tmp_path)
    (tmp_path / "cases.csv").write_text("picture\na.nii\n")
    with pytest.raises(SweepError, match="CSV with a header"):
        find_cases(tmp_path / "cases.csv")


# --- volumes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["none", "zscore", "minmax", "percentile"])
def test_normalisation(tmp_path: Path, how: str) -> None:
    image = np.random.default_rng(0).normal(100, 7, (2, 20, 20, 20)).astype(np.float32)
    image[1] = 3
    found = read_case(Case("a", image), config(tmp_path, normalize=how)).image
    expected = image.copy()
    if how == "zscore":
        expected[0] = (image[0] - image[0].mean()) / image[0].std()
    elif how != "none":
        low, high = np.percentile(image[0], (0, 100) if how == "minmax" else (0.5, 99.5))
        expected[0] = np.clip((image[0] - low) / (high - low), 0, 1)
    if how != "none":
        expected[1] = 0
    assert found == pytest.approx(expected, abs=1e-4)
    assert found.dtype == np.float32


def test_orientation_and_spacing(tmp_path: Path) -> None:
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    nifti(tmp_path / "a.nii.gz", image, np.diag([-2.0, 2, 2, 1]))  # L A S
    case = Case("a", str(tmp_path / "a.nii.gz"), str(tmp_path / "a.nii.gz"))
    turned = read_case(case, config(tmp_path, orientation="RAS"))
    assert np.array_equal(turned.image[0], image[::-1])
    assert np.array_equal(turned.label, image[::-1])
    finer = read_case(case, config(tmp_path, spacing="1,1,1"))
    assert finer.spacing == (1, 1, 1)
    assert finer.image.shape == (1, 3, 5, 7)
    assert np.array_equal(finer.image[0, ::2, ::2, ::2], image)
    assert finer.label.shape == (3, 5, 7)
    assert set(np.unique(finer.label)) <= set(image.ravel())


def test_a_function_of_the_user_s_own(tmp_path: Path) -> None:
    code = "def double(case):\n    return {**case, 'image': 2 * case['image']}\n"
    code += "def broken(case):\n    raise KeyError('no')\n"
    (tmp_path / "mine.py").write_text(code)
    image = np.ones((1, 4, 4), np.float32)
    options = config(tmp_path, transform=f"{tmp_path / 'mine.py'}:double")
    assert (read_case(Case("a", image), options).image == 2).all()
    options = config(tmp_path, transform=f"{tmp_path / 'mine.py'}:broken")
    with pytest.raises(CaseError, match="KeyError"):
        read_case(Case("a", image), options)


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


# --- models ---------------------------------------------------------------------------------------


def test_weights(tmp_path: Path) -> None:
    model = cohorts.small()
    state = model.state_dict()
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "lit.pt")
    for name in ("plain.pt", "lit.pt"):
        found = load_model(config(tmp_path, model="cohorts:small", weights=str(tmp_path / name)))
        assert all(
            torch.equal(a, b) for a, b in zip(found.parameters(), model.parameters(), strict=True)
        )
        assert not found.training


def test_weights_that_are_refused(tmp_path: Path) -> None:
    torch.save(cohorts.small(), tmp_path / "module.pt")
    torch.jit.save(torch.jit.trace(cohorts.small(), torch.zeros(1, 1, 8, 8, 8)), tmp_path / "s.pt")
    torch.save(cohorts.flat().state_dict(), tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no weights")
    reasons = {
        "module.pt": r"with weights_only=True, .* \(It holds [\w.]+\.\)$",
        "text.pt": r"\(It is no such file\.\)$",
        "s.pt": "is TorchScript, whose layers call no hooks",
        "other.pt": "are not those of the model",
        "none.pt": "There are no weights",
    }
    for name, reason in reasons.items():
        with pytest.raises(SweepError, match=reason):
            load_model(config(tmp_path, model="cohorts:small", weights=str(tmp_path / name)))


def test_models_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def none():\n    return 3\n")
    reasons = {
        "cohorts": "Expected MODULE:FUNCTION",
        "nowhere_to_be_found:build": "Cannot import nowhere_to_be_found",
        "cohorts:nothing": "has no function 'nothing'",
        f"{tmp_path}/mine.py:none": "must return a torch.nn.Module, got int",
        str(tmp_path): "no MONAI bundle",
    }
    for model, reason in reasons.items():
        with pytest.raises(SweepError, match=re.escape(reason)):
            load_model(config(tmp_path, model=model))


def test_monai_bundle(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    network = {"_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": 1}
    network |= {"out_channels": 3, "channels": [8, 16, 32], "strides": [2, 2], "num_res_units": 1}
    (tmp_path / "configs").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "configs" / "inference.json").write_text(json.dumps({"network_def": network}))
    model = cohorts.monai_unet()
    torch.save(model.state_dict(), tmp_path / "models" / "model.pt")
    found = load_model(config(tmp_path, model=str(tmp_path)))
    assert all(
        torch.equal(a, b) for a, b in zip(found.parameters(), model.parameters(), strict=True)
    )


# --- parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 7, 12])
@pytest.mark.parametrize("parts", [1, 3, 5])
def test_parts_are_disjoint_and_even(count: int, parts: int) -> None:
    cases = [Case(str(i), "") for i in range(count)]
    split = [part_of(cases, k, parts) for k in range(parts)]
    assert sorted(int(c.name) for part in split for c in part) == list(range(count))
    assert max(map(len, split)) - min(map(len, split)) <= 1


def sweep_part(data: Path, out: Path, part: int) -> list[str]:
    options = ["--model", "cohorts:small", "--data", str(data), "--out", str(out)]
    flags = [
        "--activation",
        "softmax",
        "--workers",
        "0",
        "--num-parts",
        "3",
        "--part-id",
        str(part),
    ]
    return ["sweep", *options, *flags]


def test_status_says_which_part_never_ran(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = cohorts.decathlon(tmp_path / "data", 4)
    (data / "imagesTr" / "ball_000.nii.gz").write_bytes(b"")
    out = tmp_path / "out"
    assert cli.main(sweep_part(data, out, 0)) == 1
    assert "part 0 of 3: 2 cases" in capsys.readouterr().err
    assert cli.main(sweep_part(data, out, 2)) == 0
    assert cli.main(["status", str(out)]) == 1
    text = capsys.readouterr().out
    assert "done 2, missing 1, failed 1" in text
    assert "part 0 of 3: 1 of 2 done, 1 failed\n" in text
    assert "part 1 of 3: 0 of 1 done, 0 failed, never ran" in text
    assert "missing: ball_001" in text
    assert status(out).parts == [(2, 1, 1, True), (1, 0, 0, False), (1, 1, 0, True)]
    assert cli.main(["merge", str(out)]) == 1
    assert "1 cases are missing and 1 failed" in capsys.readouterr().err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["cases"] == {"done": 2, "missing": 1, "failed": 1}


def test_merge_refuses_and_exports(tmp_path: Path) -> None:
    data = cohorts.decathlon(tmp_path / "data", 3)
    out = tmp_path / "out"
    with pytest.raises(SweepError, match="holds no sweep"):
        merge(out)
    for part in range(3):
        assert cli.main(sweep_part(data, out, part)) == 0
    with pytest.raises(SweepError, match="lies below"):
        merge(out, out / "all.parquet")
    with pytest.raises(SweepError, match=r"\.parquet or \.csv"):
        merge(out, tmp_path / "all.xlsx")
    assert cli.main(["merge", str(out), "--to", str(tmp_path / "all.csv")]) == 0
    with (tmp_path / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == {"ball_000", "ball_001", "ball_002"}
    assert {p.parent.name for p in out.rglob("*.parquet")} == {"tables"}


@pytest.mark.slow
def test_slurm_script_runs_its_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a stand-in for the command, as the script's tasks would be run by Slurm."""
    data, out = cohorts.decathlon(tmp_path / "a data set", 3), tmp_path / "out"
    options = ["--model", "cohorts:small", "--data", str(data), "--out", str(out)]
    options += ["--targets", "whole=1,2", "core=2", "--activation", "softmax", "--no-previews"]
    more = ["--num-parts", "2", "--workers", "0", "--sbatch=--gres=gpu:1", "--time", "1:00"]
    assert cli.main(["slurm", *options, *more]) == 0
    text = capsys.readouterr().out
    for line in ("--array=0-1", "--time=1:00", "--gres=gpu:1", "--cpus-per-task=4"):
        assert f"#SBATCH {line}\n" in text
    (tmp_path / "sweep.sbatch").write_text(text)
    stand_in = tmp_path / "bin" / "protoseg-fast"
    stand_in.parent.mkdir()
    code = "import sys\nfrom protoseg_fast.cli import main\nsys.exit(main())\n"
    stand_in.write_text(f"#!{sys.executable}\n{code}")
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"
    modules = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    for part in range(2):
        environment = os.environ | {"PATH": path, "PYTHONPATH": modules}
        environment |= {"SLURM_ARRAY_TASK_ID": str(part), "SLURM_CPUS_PER_TASK": "1"}
        script = str(tmp_path / "sweep.sbatch")
        subprocess.run(["bash", script], env=environment, check=True, timeout=120)
    assert status(out).done == ["ball_000", "ball_001", "ball_002"]
