"""Sweeps over cohorts: what is written, resumed, refused and recorded."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import cohorts
import protoseg_fast as psf
from protoseg_fast import cli
from protoseg_fast.cohort import Case, SweepError
from protoseg_fast.cohort.store import Store, write_whole
from protoseg_fast.cohort.summary import merge, status

OPTIONS = {
    "activation": "softmax",
    "targets": {"whole": (1, 2), "core": 2},
    "workers": 0,
    "progress": "quiet",
    "threads": 1,
}
FLAGS = ["--activation", "softmax", "--targets", "whole=1,2", "core=2", "--threads", "1"]


def command(data: Path, out: Path, model: str = "cohorts:small", *more: str) -> list[str]:
    options = ["--model", model, "--data", str(data), "--out", str(out), *FLAGS]
    return ["sweep", *options, "--progress", "quiet", "--workers", "0", *more]


def child(arguments: list[str]) -> None:
    """The command line, in a process of its own."""
    sys.exit(cli.main(arguments))


@pytest.fixture(scope="module")
def server() -> multiprocessing.context.ForkServerContext:
    """Starts processes that have imported what is slow to import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["protoseg_fast.cohort.run", "monai.networks.nets", "pandas"])
    return context


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohorts.decathlon(tmp_path_factory.mktemp("cohort") / "Task00_Balls", 12)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The merged table of a run of MONAI's UNet that nothing disturbed."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert cli.main(command(data, out, "cohorts:monai_unet")) == 0
    return merge(out).read_bytes()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return cohorts.decathlon(tmp_path / "data", 3)


def contents(out: Path, kind: str = "*") -> dict[str, bytes]:
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in out.glob(f"{kind}/*")
        if p.parent.name != "log"
    }


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in out.glob("tables/*.parquet")}


# --- what is written ------------------------------------------------------------------------------


def test_rows_are_those_of_segmentation_ability_map(tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = cohorts.small().eval()
    psf.sweep(model, tiny, out=tmp_path / "out", **OPTIONS)
    image, label = cohorts.volume(1)
    expected = psf.segmentation_ability_map(
        model,
        torch.from_numpy(image)[None, None],
        target=torch.from_numpy(label)[None],
        activation="softmax",
        targets=OPTIONS["targets"],
        cases=["ball_001"],
    )
    found = psf.SegmentationAbilityMap.load(tmp_path / "out" / "tables" / "ball_001.parquet")
    assert found.to_pandas().equals(expected.to_pandas())


def test_files_beside_the_tables(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    model = cohorts.small()
    psf.sweep(model, tiny, out=out, **OPTIONS)
    assert {p.parent.name for p in out.rglob("*.parquet")} == {"tables"}
    info = json.loads((out / "cases" / "ball_000.json").read_text())
    image, label = cohorts.volume(0)
    with torch.no_grad():
        p = model.eval()(torch.from_numpy(image)[None, None]).softmax(1)[0, 2].double().numpy()
    y, true = p > 0.5, label == 2
    assert info["shape"] == list(cohorts.SIZE)
    assert info["affine"] == cohorts.AFFINE.tolist()
    assert info["spacing"] == [1.5, 1.0, 2.0]
    core = info["outputs"]["core"]
    assert core["foreground"] == y.sum()
    assert core["dice"] == pytest.approx(2 * (y & true).sum() / (y.sum() + true.sum()))
    assert core["soft_dice_confidence"] == pytest.approx(
        2 * p[y].sum() / (p.sum() + y.sum()), abs=1e-6
    )
    config = json.loads((out / "config.json").read_text())
    assert config["decides"]["activation"] == "softmax"
    assert len(config["weights_sha256"]) == 64
    events = [json.loads(line) for line in (out / "log/part-0000-of-0001.jsonl").open()]
    assert [e["event"] for e in events] == ["start", "done", "done", "done", "end"]
    assert all(e["host"] and e["time"] for e in events)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["cases"] == {"done": 3, "missing": 0, "failed": 0}
    dices = [c["metrics"]["core"]["Dice"] for c in summary["metric_per_case"]]
    assert summary["mean"]["core"]["Dice"] == pytest.approx(np.mean(dices))


def test_preview_shows_the_best_unit(tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = cohorts.small().eval()
    psf.sweep(model, tiny, out=tmp_path / "out", **OPTIONS)
    image, label = cohorts.volume(2)
    tensor = torch.from_numpy(image)[None, None]
    sam = psf.segmentation_ability_map(
        model,
        tensor,
        target=torch.from_numpy(label)[None],
        activation="softmax",
        targets=OPTIONS["targets"],
    )
    path = tmp_path / "out" / "previews" / "ball_002.npz"
    assert path.stat().st_size < 60_000
    shown = np.load(path)
    assert shown["axis"] == 2
    assert (label > 0).sum((0, 1))[shown["index"]] == (label > 0).sum((0, 1)).max()
    assert shown["image"].dtype == np.uint8
    assert np.array_equal(shown["truth"][0], label[..., shown["index"]] > 0)
    for t, target in enumerate(("whole", "core")):
        best = sam.best(1, target=target).iloc[0]
        whole = sam.map(best["layer"], best["group"], tensor, target=target)[0]
        assert np.array_equal(shown["best_unit"][t], whole[..., shown["index"]].numpy())
    psf.sweep(model, tiny, out=tmp_path / "without", previews=False, **OPTIONS)
    assert not list((tmp_path / "without" / "previews").iterdir())


# --- interruptions --------------------------------------------------------------------------------


@pytest.mark.slow
def test_random_kills_and_a_resume_change_nothing(
    data: Path, undisturbed: bytes, tmp_path: Path, server: multiprocessing.context.BaseContext
) -> None:
    """Kills in the network, in the moment in which files are written, and while it starts."""
    out, generator = tmp_path / "out", random.Random(1)
    arguments = command(data, out, "cohorts:slow_monai_unet")
    kept: dict[str, tuple[int, int]] = {}
    for number in range(8):
        # Half-written files begin with a dot; those of the process before are removed at the start.
        awaited, longest = [("cases/.*", 0.004), ("tables/b*", 0.2), (None, 0.1)][number % 3]
        before = set(out.glob(awaited)) if awaited else set()
        process = server.Process(target=child, args=(arguments,))
        process.start()
        deadline = time.monotonic() + 60
        while awaited and set(out.glob(awaited)) <= before:
            assert time.monotonic() < deadline, "no progress"
            time.sleep(0.0005)
        time.sleep(generator.uniform(0, longest))
        assert process.is_alive(), "it was too fast to be killed"
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        now = stamps(out)
        assert kept.items() <= now.items(), "a finished file was written again"
        kept = now
    assert 2 <= len(kept) < 12
    assert cli.main(arguments) == 0
    assert kept.items() <= stamps(out).items()
    assert merge(out).read_bytes() == undisturbed
    assert not list(out.rglob("*.tmp"))


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_file_is_whole_or_as_it_was(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at any step of writing, as by a kill, the file is what it was."""

    def stop(*_arguments: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "a.parquet"
    write_whole(path, b"before")
    monkeypatch.setattr(os, step, stop)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"afterwards")
    assert path.read_bytes() == b"before"
    assert [p for p in tmp_path.iterdir() if p.suffix == ".parquet"] == [path]


@pytest.mark.slow
def test_parts_give_the_same_table(data: Path, undisturbed: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for part in (2, 0, 1):
        parts = ["--num-parts", "3", "--part-id", str(part)]
        assert cli.main(command(data, out, "cohorts:monai_unet", *parts)) == 0
    assert merge(out).read_bytes() == undisturbed


@pytest.mark.slow
def test_workers_give_the_same_table(data: Path, undisturbed: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = command(data, out, "cohorts:monai_unet", "--workers", "2", "--no-previews")
    assert cli.main(arguments) == 0
    assert merge(out).read_bytes() == undisturbed


def test_nothing_left_rewrites_nothing(tiny: Path, tmp_path: Path) -> None:
    arguments = command(tiny, tmp_path / "out")
    assert cli.main([*arguments, "--limit", "2"]) == 0
    first = stamps(tmp_path / "out")
    assert len(first) == 2
    assert cli.main(arguments) == 0
    assert cli.main([*arguments, "--continue"]) == 0
    assert first.items() <= stamps(tmp_path / "out").items()
    assert len(stamps(tmp_path / "out")) == 3


def test_overwrite_scores_again(tiny: Path, tmp_path: Path) -> None:
    arguments = command(tiny, tmp_path / "out")
    assert cli.main(arguments) == 0
    first, before = stamps(tmp_path / "out"), contents(tmp_path / "out")
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert not first.items() & stamps(tmp_path / "out").items()
    assert contents(tmp_path / "out") == before
    assert cli.main([*arguments, "--overwrite", "--metric", "cosine"]) == 0
    assert contents(tmp_path / "out") != before


def test_another_configuration_is_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(tiny, tmp_path / "out")
    assert cli.main(arguments) == 0
    before = contents(tmp_path / "out")
    assert cli.main([*arguments, "--metric", "cosine", "--normalize", "zscore"]) == 1
    message = capsys.readouterr().err
    assert "metric: 'euclidean' before, 'cosine' now" in message
    assert "normalize: 'none' before, 'zscore' now" in message
    assert "seed" not in message
    assert cli.main([*arguments, "--metric", "cosine", "--overwrite", "--limit", "1"]) == 1
    assert "would not score again" in capsys.readouterr().err
    assert contents(tmp_path / "out").items() <= before.items()


def test_other_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    psf.sweep(cohorts.small(), tiny, out=tmp_path / "out", **OPTIONS)
    with pytest.raises(SweepError, match="weights_sha256"):
        psf.sweep(cohorts.small(), tiny, out=tmp_path / "out", **OPTIONS)


def hold(out: str, ready: multiprocessing.Event) -> None:
    """Work on part 0 of 1 for ever."""
    with Store(out).part(0, 1) as log:
        log.write("start")
        ready.set()
        time.sleep(100)


def test_two_processes_on_a_part_notice_each_other(
    tiny: Path,
    tmp_path: Path,
    server: multiprocessing.context.BaseContext,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    Store(out).make()
    ready = server.Event()
    other = server.Process(target=hold, args=(str(out), ready))
    other.start()
    assert ready.wait(60)
    try:
        assert cli.main(command(tiny, out)) == 1
        assert f"process {other.pid} on" in capsys.readouterr().err
        assert not stamps(out)
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.join()
    assert cli.main(command(tiny, out)) == 0, "the lock of a killed process is gone"


# --- failures -------------------------------------------------------------------------------------


def test_bad_files_are_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    data = cohorts.decathlon(tmp_path / "data", 8)
    good = tmp_path / "good"
    assert cli.main(command(data, good)) == 0
    images = data / "imagesTr"
    whole = (images / "ball_001.nii.gz").read_bytes()
    (images / "ball_001.nii.gz").write_bytes(whole[: len(whole) // 2])
    (images / "ball_002.nii.gz").write_bytes(b"")
    (images / "ball_003.nii.gz").write_bytes(b"this is no volume")
    small = nib.Nifti1Image(np.zeros((5, 6, 7), np.uint8), cohorts.AFFINE)
    nib.save(small, data / "labelsTr" / "ball_004.nii.gz")
    nan = np.full(cohorts.SIZE, np.nan, np.float32)
    nib.save(nib.Nifti1Image(nan, cohorts.AFFINE), images / "ball_005.nii.gz")
    (images / "ball_006.nii.gz").unlink()
    out = tmp_path / "out"
    assert cli.main(command(data, out)) == 1
    kinds = {p.stem: json.loads(p.read_text())["kind"] for p in out.glob("failures/*")}
    assert kinds == {
        "ball_001": "unreadable",
        "ball_002": "unreadable",
        "ball_003": "unreadable",
        "ball_004": "shape",
        "ball_005": "nan",
        "ball_006": "unreadable",
    }
    for name in ("ball_000", "ball_007"):
        table = f"tables/{name}.parquet"
        assert (out / table).read_bytes() == (good / table).read_bytes()
    now = status(out)
    assert (now.done, now.missing) == (["ball_000", "ball_007"], [])
    assert "is empty" in now.failed["ball_002"]
    assert "(5, 6, 7)" in now.failed["ball_004"]
    assert json.loads((out / "summary.json").read_text())["cases"]["failed"] == 6
    (images / "ball_001.nii.gz").write_bytes(whole)  # mended: the resume does it
    assert cli.main(command(data, out)) == 1
    assert not (out / "failures" / "ball_001.json").exists()
    assert (out / "tables/ball_001.parquet").read_bytes() == (
        good / "tables/ball_001.parquet"
    ).read_bytes()


def test_a_window_of_other_axes_is_told(tiny: Path, tmp_path: Path) -> None:
    for roi_size in ("16,16", "16,-1"):
        arguments = command(tiny, tmp_path / roi_size, "cohorts:small", "--roi-size", roi_size)
        assert cli.main(arguments) == 1
        reasons = status(tmp_path / roi_size).failed.values()
        assert len(reasons) == 3
        assert all("roi_size must be a number or 3 of them, got (16, " in r for r in reasons)


def test_events_reach_the_log_function(tiny: Path, tmp_path: Path) -> None:
    (tiny / "imagesTr" / "ball_001.nii.gz").write_bytes(b"")
    events: list[dict] = []
    result = psf.sweep(cohorts.small(), tiny, out=tmp_path / "out", log=events.append, **OPTIONS)
    assert [(e["event"], e["case"]) for e in events] == [
        ("done", "ball_000"),
        ("failed", "ball_001"),
        ("done", "ball_002"),
    ]
    assert result.done == ["ball_000", "ball_002"]
    assert list(result.failures) == ["ball_001"]


def test_cases_may_be_arrays_and_functions(tmp_path: Path) -> None:
    image, label = cohorts.volume(0)
    cases = [
        Case("later", lambda: image[None], lambda: label),
        {"name": "array", "image": image[None], "label": label},
        {"name": "bare", "image": image[None]},
    ]
    psf.sweep(cohorts.small(), cases, out=tmp_path / "out", **OPTIONS)
    frame = pq.read_table(merge(tmp_path / "out")).to_pandas()
    assert list(frame["case"].unique()) == ["array", "bare", "later"]
    assert set(frame[frame["case"] == "bare"]["reference"]) == {"output"}
    columns = ["layer", "group", "target", "reference", "sa", "tp"]
    array, later = (frame[frame["case"] == c][columns] for c in ("array", "later"))
    assert array.reset_index(drop=True).equals(later.reset_index(drop=True))
