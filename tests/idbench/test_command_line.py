"""The command line as a whole: exit codes, --quiet and --verbose, --json, colour."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest
from made_runs import made_run

from idbench import cli as command_line
from idbench import output
from idbench.cli import COMMANDS, cli
from idbench.commands.listing import KINDS
from idbench.errors import UserError


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        command_line.main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture(autouse=True)
def _usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_level", output.USUAL)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """A run and one that is clearly worse."""
    people = [[f"a{i}"] for i in range(12)]
    values = [0.5 + 0.01 * (i % 3) for i in range(12)]
    good = made_run(tmp_path / "good", "m", {"arcsim": values}, people)
    bad = made_run(tmp_path / "bad", "m", {"arcsim": [v - 0.3 for v in values]}, people)
    return [str(good.folder), str(bad.folder)]


# Exit codes, as docs/command-line.md lists them.

def test_0_is_done_and_1_is_a_judgement(runs: list[str]) -> None:
    good, bad = runs
    assert exit_code("check", good, "--against", good) == 0
    assert exit_code("check", bad, "--against", good) == 1


@pytest.mark.parametrize("arguments", [
    (), ("nonsense",), ("run",), ("list", "nonsense"), ("table", "nowhere"),
    ("table", "--nonsense"), ("check", "nowhere", "--against", "nowhere"),
])
def test_2_is_a_mistake_that_the_message_mends(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.strip() and "Traceback" not in said.err


@pytest.mark.parametrize(("error", "code", "told"), [
    (KeyboardInterrupt(), 130, "run the same command again"),
    (RuntimeError("a fault"), 70, "RuntimeError: a fault"),
    (OSError(28, "No space left on device"), 2, "disk is full"),
    (PermissionError(13, "Permission denied"), 2, "Permission denied"),
    (MemoryError(), 2, "memory is full"),
    (ImportError("libx.so: failed to map segment from shared object"), 2, "memory is full"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "memory is full"),
    (UserError("Mend it."), 2, "Error: Mend it."),
])
def test_what_ends_a_command_has_its_code(
    error: BaseException, code: int, told: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setitem(KINDS, "models", fail)
    assert exit_code("list", "models") == code
    assert told in capsys.readouterr().err


def test_a_reader_that_goes_away_is_141() -> None:
    code = "from idbench.cli import main; main(['list', 'samples', '--split', 'single', '--json'])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as started:
        assert started.stdout and started.stderr
        started.stdout.close()
        assert started.wait(60) == 141
        assert started.stderr.read() == b""


def test_the_page_lists_every_exit_code() -> None:
    page = (Path(__file__).parents[2] / "docs/command-line.md").read_text(encoding="utf-8")
    for code in (0, 1, 2, 70, 130, 141):
        assert f"\n| {code} |" in page


# How much is said.

@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_leaves_results_and_errors_alone(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code("table", "--paper", "1") == 0
    usual = capsys.readouterr()
    assert "published rows only" in usual.err
    words = ("table", "--paper", "1")
    assert exit_code(*(("-q", *words) if place == "before" else (*words, "--quiet"))) == 0
    quiet = capsys.readouterr()
    assert quiet.err == "" and quiet.out == usual.out
    assert exit_code("-q", "table", "nowhere") == 2
    assert "nowhere contains no run" in capsys.readouterr().err


def test_quiet_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    from idbench.progress import steps

    for level, shown in ((output.USUAL, True), (output.QUIET, False)):
        output.set_level(level)
        with steps("generate", 1) as step:
            step()
        assert ("generate: 1 of 1" in capsys.readouterr().err) is shown


def test_verbose_says_where_an_error_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("table", "nowhere", "--verbose") == 2
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("Error: nowhere contains no run")
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"
    assert exit_code("table", "nowhere") == 2  # the level is of one call
    assert "Traceback" not in capsys.readouterr().err


def test_quiet_and_verbose_together_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("-q", "list", "models", "-v") == 2
    assert "not both" in capsys.readouterr().err


def every_command() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        below = command.commands if isinstance(command, click.Group) else {}
        found += [(name, other) for other in below] or [(name,)]
    return found


@pytest.mark.parametrize("names", every_command(), ids=" ".join)
def test_every_command_explains_itself_and_knows_the_levels(
    names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*names, "--help") == 0
    said = capsys.readouterr().out
    assert "--quiet" in said and "--verbose" in said
    assert len(said.splitlines()) > 5


# JSON and colour.

@pytest.mark.parametrize("kind", list(KINDS))
def test_every_list_is_json_too(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("list", kind, "--split", "single", "--limit", "2", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows and all(isinstance(row, dict) for row in rows)


def test_commands_that_show_runs_speak_json(
    runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("table", *runs), ("diff", *runs), ("check", runs[0], "--against", runs[0])):
        assert exit_code(*words, "--json") == 0
        assert json.loads(capsys.readouterr().out)


def test_doctor_speaks_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from idbench.commands import doctor

    def ill() -> str:
        raise UserError("mend it")

    monkeypatch.setattr(doctor, "CHECKS", {"a": lambda: "well", "b": ill})
    assert exit_code("doctor", "--json") == 1
    assert json.loads(capsys.readouterr().out) == [
        {"check": "a", "ok": True, "told": "well"}, {"check": "b", "ok": False, "told": "mend it"}]


def coloured(code: str, **more: str) -> bool:
    """Whether Python code writes colours to a terminal. Bold and italic are none."""
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    environment |= {"FORCE_COLOR": "1", "TERM": "xterm-256color", **more}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=environment, check=True)
    said = done.stdout + done.stderr
    assert "\x1b[" in said
    codes = [int(n) for found in re.findall(r"\x1b\[([\d;]+)m", said) for n in found.split(";")]
    return any(30 <= n <= 49 or 90 <= n <= 107 for n in codes)


def test_no_color_is_respected(runs: list[str]) -> None:
    bar = "from idbench.progress import steps\nwith steps('generate', 1) as step: step()"
    assert coloured(bar)
    assert not coloured(bar, NO_COLOR="1")
    table = f"from idbench.cli import cli\ncli(['table', '--format', 'terminal', *{runs!r}])"
    assert not coloured(table, NO_COLOR="1")


# Speed.

def test_every_command_of_the_help_can_be_loaded() -> None:
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None and command.name == name


def test_help_takes_at_most_four_times_the_import_of_click() -> None:
    def seconds(code: str) -> float:
        """Least of several, of the processor: another process on the machine is no regression."""
        found = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(found)

    helped = seconds("from idbench.cli import main; main(['--help'])")
    assert helped <= 4 * seconds("import click")


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_a_console_that_lacks_a_character_shows_another(tmp_path: Path, encoding: str) -> None:
    made_run(tmp_path / "mine", "mine", {"arcsim": [0.5, 0.6]}, [("é",), ("ü",)])
    done = subprocess.run(
        [sys.executable, "-m", "idbench.cli", "table", str(tmp_path / "mine")],
        capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert b"ArcSim ^" in done.stdout


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "2>&- >&-", "2>/dev/full"])
def test_closed_streams_change_no_exit_code(tmp_path: Path, closed: str) -> None:
    for arguments, code in (("table nothing", 2), ("list models", 0)):
        done = subprocess.run(
            f"{sys.executable} -m idbench.cli {arguments} {closed}", shell=True, cwd=tmp_path)
        assert done.returncode == code, arguments


def test_one_bad_run_does_not_stop_the_table_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("good", "cut", "torn"):
        made_run(tmp_path / "runs" / name, name, {"arcsim": [0.5]}, [("p0",)])
    (tmp_path / "runs/cut/run.json").write_text("{")
    (tmp_path / "runs/torn/scores.parquet").write_text("no parquet")
    assert exit_code("table") == 0
    shown = capsys.readouterr()
    assert "| good " in shown.out and "| torn" not in shown.out
    assert shown.err.count("Left out: runs/") == 2 and "scores.parquet is damaged" in shown.err
    assert exit_code("table", "runs/cut") == 2, "named, it is an error"


@pytest.mark.parametrize(("words", "said"), [
    (["run"], "Missing option '--model'. See `idbench run --help`."),
    (["study", "build"], "See `idbench study build --help`."),
])
def test_what_is_missing_is_described_in_the_help(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*words) == 2 and said in capsys.readouterr().err
