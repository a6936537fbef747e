"""The benchmark suite on problems of no size: every contender is right, records and plots work.

Nothing here depends on how long anything takes.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def suite() -> Iterator[dict[str, ModuleType]]:
    """The modules of benchmarks/, by name, with one thread (a busy machine stalls two)."""
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    names = [path.stem for path in BENCHMARKS.glob("*.py")]
    threads = torch.get_num_threads()
    sys.path.insert(0, str(BENCHMARKS))
    torch.set_num_threads(1)
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        torch.set_num_threads(threads)
        sys.path.remove(str(BENCHMARKS))
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def settings(suite):
    return suite["measure"].Settings(budget_s=0.01, curve_budget_s=0.005, compiles=False)


def tiny_workloads(suite):
    """Every kind of problem: headline, and each curve at its first and last point."""
    workloads = list(suite["workloads"].HEADLINE)
    for curve in suite["workloads"].CURVES:
        points = suite["workloads"].curve_points(curve)
        workloads += [points[0], points[-1]]
    return [workload.tiny() for workload in workloads]


def test_all_contenders_agree_with_the_specification(suite, settings):
    measure = suite["measure"]
    for workload in tiny_workloads(suite):
        inputs = suite["workloads"].make_inputs(workload)
        expected = measure.oracle(workload, inputs, budget=1.0)
        for contender in measure.applicable(workload, settings):
            try:
                one = measure.prepare(contender, workload, inputs, 0.005, "cpu")
            except suite["contenders"].UnavailableError:
                continue
            with torch.inference_mode():
                scores = one.prepared.call(inputs.features)
            if contender.scores:
                shape = (workload.images, workload.group_count, workload.targets)
                assert tuple(scores.shape) == shape, (workload.name, contender.name)
                measure.verify(workload, contender.name, scores, expected)


def test_wrong_scores_are_found(suite):
    workload = suite["workloads"].HEADLINE[0].tiny()
    inputs = suite["workloads"].make_inputs(workload)
    expected = suite["measure"].oracle(workload, inputs, budget=1.0)
    right = suite["contenders"].psf.sa_score(*inputs, groups="unit")
    suite["measure"].verify(workload, "right", right, expected)
    with pytest.raises(suite["measure"].DisagreementError, match="'wrong'"):
        suite["measure"].verify(workload, "wrong", right + 0.2, expected)
    with pytest.raises(suite["measure"].DisagreementError):
        suite["measure"].verify(workload, "wrong", right * np.nan, expected)


def test_every_variant_of_the_expert_gives_the_same_scores(suite):
    expert = suite["expert"]
    for workload in (w.tiny() for w in suite["workloads"].HEADLINE):
        features, pred, target = suite["workloads"].make_inputs(workload)
        channels = workload.group_channels
        scores = [
            expert.score(features, pred, target, channels, variant)
            for variant in expert.variants(workload)
        ]
        if channels == 1:
            scores.append(expert.fusible_units(features, pred, target))
        for other in scores[1:]:
            torch.testing.assert_close(other, scores[0], atol=5e-3, rtol=0)


def test_a_few_groups_are_scaled_up_and_labelled(suite):
    workload = suite["workloads"].HEADLINE[0].tiny()
    read, loop, ours = (
        next(c for c in suite["contenders"].CONTENDERS if c.name == name)
        for name in (
            suite["contenders"].READ,
            suite["contenders"].LOOP,
            suite["contenders"].OURS,
        )
    )
    prepared = suite["contenders"].Prepared(lambda features: None)
    ready = [
        suite["measure"].Ready(contender, prepared, timed)
        for contender, timed in ((read, 6), (loop, 2), (ours, 6))
    ]
    entries = [
        suite["timing"].Entry(one.contender.name, prepared.call, [], seconds=[1.0, 2.0, 3.0])
        for one in ready
    ]
    rows = suite["measure"].summarise(workload, ready, entries)
    assert [row.median_s for row in rows] == [2.0, 6.0, 2.0]
    assert [row.times_limit for row in rows] == [1.0, 3.0, 1.0]
    assert [row.times_ours for row in rows] == [1.0, 3.0, 1.0]
    cells = dict(suite["report"].COLUMNS)
    assert cells["timed"](rows[1]) == "extrapolated from 2 of 6"
    assert cells["timed"](rows[2]) == ""


def test_a_missing_package_is_skipped_by_name(suite, settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "monai", None)
    monkeypatch.setitem(sys.modules, "monai.metrics", None)
    result = suite["measure"].measure(suite["workloads"].HEADLINE[1].tiny(), settings)
    skipped = {contender: reason for _, contender, reason in result.skipped}
    assert "ModuleNotFoundError" in skipped["expert maps, MONAI Dice"]
    assert suite["contenders"].OURS in {row.contender for row in result.rows}


def test_rounds_interleave_and_follow_the_budget(suite):
    order = []
    clock_s = {"dear": 1.0, "cheap": 0.1}
    entries = [
        suite["timing"].Entry(name, lambda _, name=name: order.append(name), [torch.zeros(1)])
        for name in clock_s
    ]

    def clock(call):
        call()
        return clock_s[order[-1]]

    suite["timing"].time_entries(entries, budget=1.0, clock=clock)
    assert [len(entry.seconds) for entry in entries] == [3, 10]
    timed = "".join(name[0] for name in order[4:])  # after two warm-ups each
    assert timed.count("cdc") >= 1
    assert "dd" not in timed


def test_peak_memory_of_a_call(suite):
    peak = suite["memory"].peak_bytes(lambda: torch.zeros(4_000_000).sum(), "cpu")
    if peak is None:
        pytest.skip("this system keeps no resettable high-water mark")
    assert 14e6 < peak < 40e6


def record(suite, **changes: float):
    """A made-up record of two problems; ``changes`` multiply times of protoseg_fast."""
    measure, contenders = suite["measure"], suite["contenders"]
    rows = []
    for name in ("steady", "shaky"):
        spread = 0.02 if name == "steady" else 0.4
        for contender, median in ((contenders.READ, 1.0), (contenders.OURS, 2.0)):
            median *= changes.get(name, 1.0) if contender == contenders.OURS else 1.0
            low, high = median * (1 - spread / 2), median * (1 + spread / 2)
            row = measure.Row(name, contender, median, low, high, low, 10, times_limit=median)
            rows.append(row)
    return suite["report"].Record({"name": "made up", "threads": 1}, {}, measure.Result(rows))


def test_check_tells_slower_from_noise(suite):
    def slower(**changes: float) -> list[str]:
        changes_found = suite["check"].compare(record(suite, **changes).result, stored)
        return [change.workload for change in changes_found if change.slower]

    stored = record(suite).result
    assert slower() == []
    assert slower(steady=1.1, shaky=1.5) == []
    assert slower(steady=1.3, shaky=1.5) == ["steady"]
    assert slower(steady=0.5, shaky=3.0) == ["shaky"]


def test_check_sets_the_exit_status(suite, tmp_path, capsys):
    stored, slow = tmp_path / "stored.json", tmp_path / "slow.json"
    record(suite).save(stored)
    record(suite, steady=2.0).save(slow)
    main = suite["bench"].main
    assert main(["--load", str(stored), "--check", str(stored)]) == 0
    assert main(["--load", str(slow), "--check", str(stored)]) == 1
    assert "SLOWER steady" in capsys.readouterr().out


def test_records_survive_a_file_and_others_are_refused(suite, tmp_path):
    path = tmp_path / "record.json"
    before = record(suite)
    before.save(path)
    assert suite["report"].Record.load(path) == before
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"schema": 0}))
    with pytest.raises(ValueError, match="no record of this benchmark"):
        suite["report"].Record.load(path)


def test_the_script_writes_json_markdown_and_plots(suite, tmp_path, capsys, monkeypatch):
    # fewer problems, and no second process: what they add is time
    headline = suite["workloads"].HEADLINE[1:3]
    monkeypatch.setattr(suite["bench"], "HEADLINE", headline)
    monkeypatch.setattr(suite["bench"], "CURVES", ("channels", "size", "resize factor", "data"))

    def add_peaks(self, result, workloads):
        for row in result.rows:
            row.peak_bytes = 1e6

    monkeypatch.setattr(suite["bench"].Prober, "add_peaks", add_peaks)
    monkeypatch.setattr(suite["bench"].Run, "network", lambda self: None)
    monkeypatch.setattr(suite["bench"].Run, "tracing", lambda self: None)
    path = tmp_path / "figures.json"
    arguments = ["--tiny", "--threads", "1", "--json", str(path), "--markdown"]
    assert suite["bench"].main([*arguments, "--plot", str(tmp_path / "plots")]) == 0
    content = json.loads(path.read_text())
    names = {workload.name for workload in headline}
    assert names <= {row["workload"] for row in content["rows"]}
    assert {plot.stem for plot in (tmp_path / "plots").iterdir()} == {
        *("channels", "size", "resize", "memory", "roofline", "other"),
    }
    printed = capsys.readouterr().out
    assert f"| {headline[0].name} |" in printed
    fields = {field.name for field in dataclasses.fields(suite["measure"].Row)}
    assert all(set(row) == fields for row in content["rows"])


@pytest.mark.slow
def test_the_network_is_scored_in_its_hooks(suite, settings):
    pytest.importorskip("nilearn")
    network = suite["network"].load(steps=1, side=32)
    result = suite["network"].measure_network(network, settings)
    names = [row.contender for row in result.rows]
    assert names[0] == suite["network"].FORWARD
    assert suite["contenders"].OURS in names
    assert not any(module._forward_hooks for module in network.blocks.values())
    workloads = [workload for workload, _ in suite["network"].activation_workloads(network)]
    assert [workload.x for workload in workloads] == list(suite["network"].SHOWN)


@pytest.mark.slow
@pytest.mark.parametrize("make", ["unet", "monai_unet"])
def test_tracing_is_timed_beside_the_forward_pass(suite, settings, make):
    tracing = suite["tracing"]
    result = tracing.measure_tracing(getattr(tracing, make), 1, 32, settings)
    if result.skipped:
        pytest.skip(str(result.skipped))
    names = [row.contender for row in result.rows]
    assert names == [tracing.FORWARD, tracing.TRACED, tracing.TABLE]
    assert "adds" in result.rows[1].note


@pytest.mark.slow
def test_peak_memory_comes_from_a_process_of_its_own(suite, settings):
    workload = suite["workloads"].HEADLINE[0].tiny()
    result = suite["measure"].measure(workload, settings)
    with suite["memory"].Prober(settings) as prober:
        prober.add_peaks(result, [workload])
    if suite["memory"].peak_bytes(lambda: None, "cpu") is None:
        pytest.skip("this system keeps no resettable high-water mark")
    assert all(row.peak_bytes is not None for row in result.rows)


def test_training_steps(suite: dict[str, ModuleType]) -> None:
    gradients = suite["gradients"]
    for problem in gradients.TINY:
        gradients.check(problem)
        seconds = gradients.times(problem, rounds=1)
        assert seconds.keys() == gradients.CONTENDERS.keys()
        assert all(len(each) == 1 for each in seconds.values())
    assert [p.name for p in gradients.PROBLEMS[:2]] == ["64 x 256²", "32 x 32³ -> 64³"]
