"""What the commands on cohorts refuse: a line that names the argument, before a case is touched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

for _name in ("torch", "nibabel", "pandas", "pyarrow", "matplotlib"):
    pytest.importorskip(_name)

import torch  # noqa: E402

import cohorts  # noqa: E402
from protoseg_fast import cli  # noqa: E402
from protoseg_fast.cohort import SweepConfig, SweepError  # noqa: E402

QUIET = ["--workers", "0", "--progress", "quiet"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return cohorts.decathlon(tmp_path / "data", 2)


def command(data: Path, out: Path, *more: str) -> list[str]:
    options = ["--model", "cohorts:small", "--data", str(data), "--out", str(out)]
    return ["sweep", *options, "--activation", "softmax", *QUIET, *more]


def refusal(capsys: pytest.CaptureFixture[str], arguments: Sequence[object]) -> str:
    """The line that a command which fails prints."""
    capsys.readouterr()
    assert cli.main([str(a) for a in arguments]) == 1
    [line] = capsys.readouterr().err.splitlines()
    return line.removeprefix("protoseg-fast: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "convs"}, "Unknown options: layer"),
        ({"metric": "manhattan"}, "metric must be one of euclidean, cosine; got 'manhattan'"),
        ({"part_id": 3, "num_parts": 3}, "part_id must be from 0 to num_parts - 1 = 2; got 3"),
        ({"overlap": 1.0}, "overlap must be at least 0 and less than 1"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"roi_size": "a,b"}, "roi_size: cannot use 'a,b'"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"targets": ["whole:1"]}, "NAME=LABEL"),
        ({"batch": 1.5}, "batch: cannot use 1.5"),
        ({"previews": "maybe"}, "previews: cannot use 'maybe'"),
        ({"part_id": -1}, "part_id must be at least 0; got -1"),
        ({"roi_size": [16.5, 16, 16]}, "roi_size: cannot use [16.5, 16, 16]"),
        ({"roi_size": []}, "roi_size must be one extent for all axes, or one for each of at most"),
        ({"roi_size": "8,8,8,8"}, "of at most 3; got [8, 8, 8, 8]"),
        ({"spacing": "1,1"}, "spacing must be 3 lengths above 0; got [1.0, 1.0]"),
        ({"spacing": "0,1,1"}, "spacing must be 3 lengths above 0"),
        ({"spacing": [1, -1, 1]}, "spacing must be 3 lengths above 0"),
        ({"spacing": "1,nan,1"}, "spacing must be 3 lengths above 0"),
        ({"spacing": "1,inf,1"}, "spacing must be 3 lengths above 0"),
        ({"orientation": "XYZ"}, "of R or L, A or P, and S or I, in any order, such as RAS; got"),
        ({"orientation": "RAL"}, "orientation must be one letter for each axis"),
        ({"orientation": "RA"}, "orientation must be one letter for each axis"),
        ({"ignore_label": 2**63}, f"ignore_label must be from {-(2**63)} to {2**63 - 1}; got"),
        ({"ignore_label": "x"}, "ignore_label: cannot use 'x'"),
        ({"seed": str(2**64)}, f"seed must be from {-(2**63)} to {2**64 - 1}; got {2**64}"),
        ({"threads": 2**31}, f"threads must be from 1 to {2**31 - 1}"),
        ({"limit": float("inf")}, "limit: cannot use inf"),
        ({"memory_budget": "much"}, "memory_budget: cannot use 'much'"),
        ({"dtype": "float"}, "dtype must be one of float32, bfloat16, float16; got 'float'"),
    ],
)
def test_wrong_options_are_sentences(options: dict, message: str) -> None:
    with pytest.raises(SweepError, match=re.escape(message)):
        SweepConfig.of(options)


def test_the_ends_of_what_is_allowed() -> None:
    ends = {"ignore_label": -(2**63), "seed": 2**64 - 1, "threads": 2**31 - 1, "part_id": 0}
    found = SweepConfig.of({**ends, "roi_size": "-1,16", "spacing": "1e-3,1,9"})
    assert {name: getattr(found, name) for name in ends} == ends
    assert (found.roi_size, found.spacing) == ((-1, 16), (0.001, 1, 9))
    for orientation in ("", "ras", "PIR", "SLA"):
        assert SweepConfig.of({"orientation": orientation}).orientation == orientation


def test_wrong_options_touch_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for option, value in (("orientation", "XYZ"), ("spacing", "0,1,1"), ("roi-size", "8,8,8,8")):
        told = refusal(capsys, command(data, out, f"--{option}", value))
        assert told.startswith(f"{option.replace('-', '_')} must be")
    assert not out.exists()


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "meta", "xla", ""])
def test_devices_that_are_not_there(
    device: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    told = refusal(capsys, command(data, out, "--device", device))
    assert told.startswith("device must be one that torch has here (cpu")
    assert f"); got {device!r}: " in told
    assert not out.exists()
    assert cli.main(command(data, out)) == 0
    export = ["export", out, "ball_000", "--layer", "0", "--out", tmp_path / "a.nii"]
    assert refusal(capsys, [*export, "--device", device]) == told


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refusal(capsys, command(data, tmp_path / "out", "--device", "cuda"))
    assert told.startswith("device must be one that torch has here (cpu); got 'cuda': ")


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("layers", "convs,nope", "layers: No layer matches 'nope'. Nearest names: "),
        ("layers", "norms", "layers: The network has none of the layers of the preset 'norms'."),
        ("model", "cohorts:nothing", "cohorts has no function 'nothing'."),
        ("transform", "nowhere_to_be_found:prepare", "Cannot import nowhere_to_be_found: "),
        ("weights", "none.pt", "There are no weights none.pt."),
    ],
)
def test_what_is_refused_leaves_the_folder_as_it_was(
    option: str,
    value: str,
    reason: str,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The next run, mended, is not held to it; and a table is not removed for it."""
    out = tmp_path / "out"
    wrong = command(data, out, f"--{option}", value)
    assert refusal(capsys, wrong).startswith(reason)
    assert refusal(capsys, [*wrong, "--engine", "ray"]).startswith(reason)  # and starts no actor
    assert cli.main(command(data, out)) == 0
    before = {p: p.read_bytes() for p in out.rglob("*.*")}
    assert refusal(capsys, [*wrong, "--overwrite"]).startswith(reason)
    assert {p: p.read_bytes() for p in out.rglob("*.*")} == before


def test_merge_writes_beside_the_folder_however_it_is_called(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert cli.main(command(data, out)) == 0
    (tmp_path / "link").symlink_to(out)
    for folder, name in ((out, "."), (out / "tables", ".."), (tmp_path, "out"), (tmp_path, "link")):
        monkeypatch.chdir(folder)
        merged = tmp_path / ("link.parquet" if name == "link" else "out.parquet")
        assert cli.main(["merge", name]) == 0
        merged.unlink()
    assert {p.parent.name for p in tmp_path.rglob("*.parquet")} == {"tables"}


def test_files_and_folders_in_each_other_s_place_are_told(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(command(data, out)) == 0
    folder, file = tmp_path / "folder.parquet", tmp_path / "file"
    folder.mkdir()
    file.touch()
    wrong = {
        ("merge", out, "--to", folder): f"Cannot write to {folder}: Is a directory.",
        ("merge", out, "--to", file / "x.csv"): f"Cannot write to {file / 'x.csv'}: ",
        ("merge", file): f"{file} holds no sweep",
        ("status", file): f"{file} holds no sweep",
        ("report", out, "--out", "."): "Cannot write to .: Is a directory.",
        ("report", out, "--out", folder): f"Cannot write to {folder}: Is a directory.",
        (*command(data, tmp_path / "new"), "--weights", folder): "There are no weights",
    }
    for arguments, reason in wrong.items():
        assert refusal(capsys, arguments).startswith(reason)
