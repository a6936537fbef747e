"""Sweeps by Ray: the same table, also where a worker is killed. Needs ray."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ray")
pytest.importorskip("nibabel")

import cohorts  # noqa: E402
from protoseg_fast import cli  # noqa: E402
from protoseg_fast.cohort.summary import merge  # noqa: E402


@pytest.mark.slow
def test_ray_with_a_killed_worker_gives_the_same_table(tmp_path: Path) -> None:
    data = cohorts.decathlon(tmp_path / "data", 6)
    options = ["--model", "cohorts:mortal", "--data", str(data), "--activation", "softmax"]
    options += ["--threads", "1", "--progress", "quiet", "--workers", "0"]
    local, out = tmp_path / "local", tmp_path / "out"
    assert cli.main(["sweep", *options, "--out", str(local)]) == 0
    os.environ["COHORTS_KILL_ONCE"] = str(tmp_path / "killed")
    try:
        assert cli.main(["sweep", *options, "--out", str(out), "--engine", "ray"]) == 0
    finally:
        del os.environ["COHORTS_KILL_ONCE"]
    assert (tmp_path / "killed").exists(), "no worker was killed"
    assert merge(out).read_bytes() == merge(local).read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_ray_without_a_gpu_does_not_wait_for_one(tmp_path: Path, capsys) -> None:
    data = cohorts.decathlon(tmp_path / "data", 1)
    options = ["--model", "cohorts:small", "--data", str(data), "--out", str(tmp_path / "out")]
    assert cli.main(["sweep", *options, "--engine", "ray", "--device", "cuda"]) == 1
    assert "Ray finds no GPU" in capsys.readouterr().err
