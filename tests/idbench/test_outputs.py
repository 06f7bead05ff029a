"""No command replaces a file that it did not write."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from made_runs import made_run
from report_runs import make_run

from idbench.cli import cli
from idbench.errors import UserError
from idbench.files import check_output
from idbench.reports import report_page


@pytest.fixture
def run(tmp_path: Path) -> Path:
    values = {"arcsim": [0.5] * 4, "clipdist": [0.4] * 4}
    made_run(tmp_path / "run", "toy", values, [(f"p{i}",) for i in range(4)])
    return tmp_path / "run"


@pytest.mark.parametrize("arguments", [
    "leaderboard RUN -o RUN/run.html",
    "leaderboard RUN -o RUN/run.json",
    "leaderboard RUN -o user.txt",
    "leaderboard RUN --pack taken",
    "report RUN -o RUN/run.json",
    "check RUN --update RUN/run.json",
    "check RUN --update new.json --embeddings",
    "check RUN --against RUN --junit RUN/scores.parquet",
    "check RUN --against RUN --markdown user.txt",
    "figure tradeoff RUN -o user.png",
    "figure tradeoff RUN -o user",
    "suites embed RUN -o user.npz",
    "validate-metrics -o taken",
])
def test_a_foreign_file_is_kept(
    run: Path, arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("user.txt", "user.png", "user.npz", "new.embeddings.zip", "taken/results.json",
                 "taken/validation.json"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("mine")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = CliRunner().invoke(cli, arguments.replace("RUN", "run").split())
    assert isinstance(done.exception, UserError), done.output
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert after == before


def test_an_own_file_is_replaced(run: Path, tmp_path: Path) -> None:
    commands = [
        ["leaderboard", run, "-o", tmp_path / "board.html"],
        ["leaderboard", run, "--pack", tmp_path / "packed"],
        ["check", run, "--update", tmp_path / "reference.json"],
        ["check", run, "--against", run, "--junit", tmp_path / "j.xml", "--markdown",
         tmp_path / "m.md"],
        *(["figure", "tradeoff", run, "-o", tmp_path / f"f.{end}"]
          for end in ("pdf", "svg", "png", "webp")),
    ]
    (tmp_path / "m.md").touch()  # as CI systems hand it over
    for command in 2 * commands:
        done = CliRunner().invoke(cli, [str(part) for part in command])
        assert done.exception is None, (command, done.output)


def test_reports_of_earlier_versions_are_replaced(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / "toy", count=2)
    page = report_page.build_report([folder], folder / "report.html")
    marked = '<meta name="generator" content="idbench report">'
    page.write_text(page.read_text().replace(marked, ""))
    report_page.build_report([folder], page)
    page.write_text("<p>my notes</p>")
    with pytest.raises(UserError, match="is not a report of idbench"):
        report_page.build_report([folder], page)


def test_a_long_file_is_known_by_its_end(tmp_path: Path) -> None:
    path = tmp_path / "long.pdf"
    path.write_bytes(b"%PDF" + b"x" * 200_000)
    with pytest.raises(UserError, match="is not a figure"):
        check_output(path, "figure")
    path.write_bytes(path.read_bytes() + b"/Creator (idbench figure)")
    check_output(path, "figure")


@pytest.mark.parametrize("arguments", [
    "export RUN --to datasets --out taken",
    "study build RUN RUN -o taken",
    "train text_encoder --state taken",
    "train pairs_cache --set out=taken",
    "reproduce --limit 1 --out taken",
    "reproduce --limit 1 --out page",
    "reproduce --limit 1 --out page --beyond",
    "reproduce --limit 1 --out taken --from-scratch",
    "suites import suite --out taken",
    "convert RUN taken",
    "convert RUN user.txt",
    "run --split single --limit 1 --model avatars_truth --out taken --force",
    "run --split single --limit 1 --model avatars_truth --out pictures --force",
    "run --split single --limit 1 --model avatars_truth --out foreign --force",
])
def test_a_foreign_folder_is_kept(
    run: Path, arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("user.txt", "taken/notes.txt", "pictures/samples/a.png", "foreign/run.json",
                 "suite/anna/1.png", "suite/prompts.txt", "page/paper.html"):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        Path(name).write_text("mine")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = CliRunner().invoke(cli, arguments.replace("RUN", "run").split())
    assert isinstance(done.exception, UserError), done.output
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before
