"""The human study's scores: preference, agreement, ranking, and the figure."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from report_runs import make_run
from rich.console import Console

from idbench.commands.study import study as command
from idbench.errors import UserError
from idbench.files import write_json
from idbench.reports import study_score, table_output, terminal
from idbench.reports.study_files import Study
from idbench.reports.study_score import bars
from idbench.runs import Run

from .test_study import SYSTEMS, answer, build_study, systems


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return systems(tmp_path_factory.mktemp("study_runs"))


def test_rates_count_systems_and_not_sides(runs: list[Run], tmp_path: Path) -> None:
    study = build_study(runs[:2], tmp_path / "st", ties=True)
    files = [
        answer(study, "anna", lambda q, *_: 0 if q == "identity" else 1),
        answer(study, "ben", lambda q, *_: 0 if q == "identity" else "tie"),
    ]
    result = study_score.score(study, files)
    by = {p.question: p for p in result.preferences}
    assert (by["identity"].wins, by["identity"].losses) == (12, 0)
    assert by["identity"].rate.mean == 1 and by["motion_alignment"].rate.mean == 0.25
    assert by["motion_naturalness"].ties == 6
    assert by["motion_alignment"].by_voter == {"anna": 0.0, "ben": 0.5}
    agreed = {a.question: a for a in result.agreements}
    assert agreed["identity"].raw == 1 and agreed["motion_alignment"].raw == 0
    assert agreed["motion_alignment"].krippendorff_alpha < 0
    assert result.voters == {"anna": 18, "ben": 18} and result.expected == 18
    # Of two systems, the shares of the figure are the rate and its rest.
    shares = [s.share.mean for s in result.strengths if s.question == "motion_alignment"]
    assert shares == [0.25, 0.75]


def test_a_coin_is_no_preference_and_a_clear_one_is_significant(tmp_path: Path) -> None:
    names = [f"i{n}" for n in range(30)]
    pair = [Run.open(make_run(tmp_path / n, name=n, count=30, people=1, seed=i,
                              identity_names=names)) for i, n in enumerate("pq")]
    study = build_study(pair, tmp_path / "st")
    rng = np.random.default_rng(0)
    files = [answer(study, name, lambda q, *_: int(rng.random() < 0.5) if q == "identity"
                    else int(rng.random() < 0.2)) for name in ("anna", "ben", "carl")]
    by = {p.question: p for p in study_score.score(study, files).preferences}
    coin, clear = by["identity"], by["motion_alignment"]
    assert coin.rate.low < 0.5 < coin.rate.high and coin.p_value > 0.05
    assert clear.rate.low > 0.5 and clear.p_value < 0.01
    assert clear.rate.low < 0.8 < clear.rate.high


def test_three_systems_are_ranked(runs: list[Run], tmp_path: Path) -> None:
    study = build_study(runs, tmp_path / "st")
    rng = np.random.default_rng(1)

    def prefers(question: str, a: int, b: int) -> int:
        better, worse = (max(a, b), min(a, b))  # the last system is the best
        return better if rng.random() < 0.85 else worse

    result = study_score.score(study, [answer(study, n, prefers) for n in ("anna", "ben")])
    ranks = {s.system: s.rank for s in result.strengths if s.question == "identity"}
    assert ranks == {SYSTEMS[2]: 1, SYSTEMS[1]: 2, SYSTEMS[0]: 3}
    text = table_output.render_parts(study_score.parts(result), "md")
    assert "Bradley-Terry" in text and "Fleiss' kappa" in text
    console = Console(width=80, file=io.StringIO(), highlight=False)
    terminal.show_parts(study_score.parts(result), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    numbers = re.findall(r"\b[01]\.\d+\b", shown)
    assert numbers and set(numbers) <= set(re.findall(r"\b[01]\.\d+\b", text)), "the same digits"
    assert "Bradley-Terry" in shown and all(len(line) <= 80 for line in shown.splitlines())
    figure = bars(result)
    heights = [p.get_height() for p in figure.axes[0].patches]
    assert len(heights) == 9
    assert heights == pytest.approx([
        100 * s.share.mean for system in SYSTEMS for s in result.strengths if s.system == system])


def test_votes_that_do_not_fit_are_refused(runs: list[Run], tmp_path: Path) -> None:
    study = build_study(runs[:2], tmp_path / "st")
    file = answer(study, "anna", lambda *_: 0)
    data = json.loads(file.read_text())
    copy = tmp_path / "copy.json"
    for change, says in (
        ({"study": "0" * 16}, "a different study"),
        ({"votes": data["votes"] + data["votes"][:1]}, "for no pair"),
        ({"votes": [{**data["votes"][0], "left": "x"}]}, "for no pair"),
        ({"votes": "none"}, "field 'votes' is wrong"),
    ):
        write_json(copy, {**data, **change})
        with pytest.raises(UserError, match=says):
            study_score.score(study, [copy])
    write_json(copy, data)
    with pytest.raises(UserError, match="votes of anna, as another file"):
        study_score.score(study, [file, copy])
    with pytest.raises(UserError, match="no votes yet"):
        study_score.score(study, [])


def test_the_commands_go_from_runs_to_a_figure(runs: list[Run], tmp_path: Path) -> None:
    folder = tmp_path / "st"

    def call(*arguments: object) -> str:
        result = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    said = call("build", runs[0].folder, runs[1].folder, "-o", folder, "--pairs", 4)
    assert "4 pairs of 4 samples by 2 systems" in said
    file = answer(Study.open(folder), "anna", lambda *_: 1)
    call("page", folder, "--voter", "ben", "-o", tmp_path / "ben.html")
    assert (tmp_path / "ben.html").stat().st_size > 10_000
    for place in (folder, file, folder / "votes"):
        found = json.loads(call("score", place, "--json"))
        assert [p["losses"] for p in found["preferences"]] == [4, 4, 4]
    moved = file.rename(tmp_path / "anna.json")
    text = call("score", moved, "--study", folder, "-o", tmp_path / "bars")
    assert "Identity consistency" in text and "0%" in text
    assert (tmp_path / "bars.pdf").is_file() and (tmp_path / "bars.png").is_file()
