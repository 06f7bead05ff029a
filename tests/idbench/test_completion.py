"""What a shell is offered at the end of a line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from idbench.cli import main

Completed = Callable[[str], list[str]]


@pytest.fixture
def completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Completed:
    """What bash is offered at the end of a line; below, a new process is asked too."""
    def offered(line: str) -> list[str]:
        monkeypatch.setenv("_IDBENCH_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        with pytest.raises(SystemExit) as ended:
            main([])
        assert not ended.value.code
        return [row.partition(",")[2] for row in capsys.readouterr().out.splitlines() if row]

    return offered


@pytest.mark.parametrize(("line", "offered"), [
    ("idbench tab", {"table"}),
    ("idbench run --model con", {"concat_id", "concat_id@multi"}),
    ("idbench run --suite av", {"avatars"}),
    ("idbench run --split m", {"multi", "multi3"}),
    ("idbench run --metric arc", {"arcsim"}),
    ("idbench run --metric +mot", {"+motion"}),
    ("idbench score --protocol str", {"strict-v3"}),
    ("idbench list sui", {"suites"}),
    ("idbench train cur", {"curricularface"}),
])
def test_names_are_completed(line: str, offered: set[str], completed: Completed) -> None:
    found = completed(line)
    assert offered <= set(found)
    assert all(name.startswith(line.split()[-1]) for name in found)


def test_splits_are_those_of_the_named_suite(tmp_path: Path, completed: Completed) -> None:
    (tmp_path / "suite.yaml").write_text("splits: {mine: 3}\n")
    assert completed(f"idbench run --suite {tmp_path} --split ") == ["mine"]
    (tmp_path / "suite.yaml").write_text("splits: [broken")
    assert completed(f"idbench run --suite {tmp_path} --split ") == []


def test_completing_imports_no_heavy_library() -> None:
    code = (
        "import os, sys\nfrom idbench.cli import main\n"
        "for line in ('idbench run --model c', 'idbench run --split s', 'idbench run --metric a',\n"
        "             'idbench run --protocol s', 'idbench run --suite a', 'idbench train c'):\n"
        "    os.environ.update(_IDBENCH_COMPLETE='bash_complete', COMP_WORDS=line, COMP_CWORD='3'\n"
        "                      if 'run' in line else '2')\n"
        "    try:\n        main()\n    except SystemExit:\n        pass\n"
        "print('HEAVY', [m for m in ('torch', 'pandas', 'scipy', 'transformers') if m in "
        "sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []" and "plain,avatars" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_clicks(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["completion", shell])
    assert not ended.value.code
    assert f"_IDBENCH_COMPLETE={shell}_complete" in capsys.readouterr().out
