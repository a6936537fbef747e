"""The command line, without running anything heavy."""

from __future__ import annotations

import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

import protoseg_fast
from protoseg_fast import cli
from protoseg_fast.demo import DEPENDENCIES, DemoConfig, DemoError


def _exit_status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    return int(stopped.value.code)


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch) -> list[DemoConfig]:
    """Replaces the demo; the list receives what it was asked to run."""
    asked: list[DemoConfig] = []

    def run_demo(config: DemoConfig) -> types.SimpleNamespace:
        asked.append(config)
        return types.SimpleNamespace(page=config.out / "index.html")

    module = types.ModuleType("protoseg_fast.demo.run")
    module.run_demo = run_demo
    monkeypatch.setitem(sys.modules, "protoseg_fast.demo.run", module)
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: name)
    return asked


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_status("--help") == 0
    assert "demo" in capsys.readouterr().out


def test_demo_help_names_every_option_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_status("demo", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in ("--out DIR", "--device {cpu,cuda}", "--seed", "--steps", "--open"):
        assert option in text
    assert "the demo scores on the CPU" in text
    for default in (DemoConfig.out, DemoConfig.device, DemoConfig.seed, DemoConfig.steps):
        assert f"(default: {default})" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_status("--version") == 0
    assert capsys.readouterr().out.split() == ["protoseg-fast", protoseg_fast.__version__]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["demo", "--nonsense"],
        ["demo", "--device", "tpu"],
        ["demo", "--steps", "x"],
    ],
    ids=" ".join,
)
def test_wrong_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_status(*arguments) == 2
    assert "usage: protoseg-fast" in capsys.readouterr().err


def test_defaults_are_the_config_s(fake_run: list[DemoConfig]) -> None:
    assert cli.main(["demo"]) == 0
    assert fake_run == [DemoConfig()]


def test_options_arrive(
    fake_run: list[DemoConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(cli.webbrowser, "open", lambda url: opened.append(url) or True)
    arguments = [
        "--out",
        str(tmp_path),
        "--device",
        "cuda",
        "--seed",
        "3",
        "--steps",
        "9",
        "--open",
    ]
    assert cli.main(["demo", *arguments]) == 0
    assert fake_run == [DemoConfig(out=tmp_path, device="cuda", seed=3, steps=9)]
    assert opened == [(tmp_path / "index.html").resolve().as_uri()]


def test_no_browser_is_told(
    fake_run: list[DemoConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli.webbrowser, "open", lambda url: False)
    assert cli.main(["demo", "--open"]) == 0
    assert "found no browser" in capsys.readouterr().err


def test_ctrl_c_waits_for_imports() -> None:
    before = signal.getsignal(signal.SIGINT)
    reached = []
    with pytest.raises(KeyboardInterrupt), cli._interrupts_held():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        reached.append("end of the block")
    assert reached
    assert signal.getsignal(signal.SIGINT) is before


def test_missing_dependencies_are_all_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["demo"]) == 1
    message = capsys.readouterr().err
    assert "pip install 'protoseg_fast[demo]'" in message
    assert all(name in message for name in DEPENDENCIES)
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [(DemoError("no such luck"), 1, "no such luck"), (KeyboardInterrupt(), 130, "stopped")],
)
def test_failures_are_one_line(
    fake_run: list[DemoConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    message: str,
) -> None:
    def fail(config: DemoConfig) -> None:
        raise error

    monkeypatch.setattr(sys.modules["protoseg_fast.demo.run"], "run_demo", fail)
    assert cli.main(["demo"]) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_bad_value_is_told_without_a_traceback(
    fake_run: list[DemoConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", "--steps", "0"]) == 1
    assert "steps must be at least 1; got 0." in capsys.readouterr().err
    assert fake_run == []


def test_import_is_light() -> None:
    code = (
        "import sys, protoseg_fast.cli\n"
        f"print(*(name for name in {DEPENDENCIES!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
