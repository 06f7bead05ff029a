"""What is printed fits terminals of 80, 100 and 120 columns, and nothing is cut."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from made_runs import made_run
from rich.cells import cell_len
from rich.console import Console

from idbench.cli import main
from idbench.commands import doctor
from idbench.commands.listing import KINDS
from idbench.output import shortened
from idbench.reports import table_output, tables, terminal
from idbench.runs import Run

WIDTHS = (80, 100, 120)
NAMES = ("concat_id", "concat_id@base", "consisid@released", "id_animator", "vace@1.3B",
         "phantom@14B", "stand_in", "a_very_long_name_of_a_system_of_some_paper")
PEOPLE = [("a",), ("b",), ("c",), ("d",)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Runs of eight systems with the usual metrics."""
    root = tmp_path_factory.mktemp("runs")
    metrics = ("arcsim", "cursim", "viclip", "clipdist", "face_coverage")
    return [
        made_run(root / f"r{number}", name,
                 {m: [0.1 * number - 0.2, 0.31, 0.5, 0.04 * number] for m in metrics}, PEOPLE)
        for number, name in enumerate(NAMES)
    ]


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    return said.out


def check(text: str, width: int) -> None:
    for line in text.splitlines():
        assert cell_len(line.rstrip()) <= width, line
    assert "…" not in text


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_value_of_a_table_is_broken(runs: list[Run], width: int, count: int) -> None:
    made = tables.measured(runs[-count:])
    console = Console(width=width, file=io.StringIO())
    terminal.show_parts(table_output.parts(made), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    check(text, width)
    for row in (*made.rows, *made.differences):
        for found in row.estimates.values():
            assert f"{found.mean:.3f}" in text and f"[{found.low:.3f}, {found.high:.3f}]" in text
    assert all(name in "".join(text.split()) for name in NAMES[-count:])
    assert "In every row: split single" in text, "constant columns are said once"


def test_columns_are_spread_over_tables_only_where_they_must_be() -> None:
    rows = [{"system": (f"s{n}", ""), **{f"m{i} ↑": ("0.100 [0.000, 0.200]", "") for i in range(6)}}
            for n in range(5)]
    assert len(terminal.fitted(rows, 200)) == 1
    stacked = terminal.fitted(rows, 110)
    assert len(stacked) == 1 and stacked[0][0]["m0 ↑"][0] == "0.100\n[0.000, 0.200]"
    blocks = terminal.fitted(rows, 60)
    assert [list(block[0]) for block in blocks] == [
        ["system", "m0 ↑", "m1 ↑", "m2 ↑"], ["system", "m3 ↑", "m4 ↑", "m5 ↑"]]
    assert terminal.fitted(rows[:1], 40) == [terminal.turned(rows[:1])]


@pytest.mark.parametrize("width", WIDTHS)
def test_lists_and_boards_fit(
    runs: list[Run], width: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("IDBENCH_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folders = [run.folder for run in runs]
    check(shown(capsys, "table", *folders, "--format", "terminal"), width)
    for number in (1, 2, 3):
        check(shown(capsys, "table", folders[0], "--paper", number, "--format", "terminal"), width)
    board = shown(capsys, "leaderboard", *folders[:4])
    check("\n".join(board.splitlines()[:-1]), width)
    assert "rank" in board and "95% interval" in board


LISTS = [*(("list", kind, "--split", "single", "--limit", "3") for kind in KINDS),
         ("weights", "list")]


@pytest.mark.parametrize("arguments", LISTS, ids=lambda words: " ".join(words[:2]))
def test_a_list_has_one_line_a_name(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("IDBENCH_CACHE", str(tmp_path))
    rows = json.loads(shown(capsys, *arguments, "--json"))
    names = [str(next(iter(row.values()))) for row in rows]
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        lines = [line.rstrip() for line in shown(capsys, *arguments).splitlines()]
        assert [line.split(" ")[0] for line in lines[1:]] == names
        assert all(cell_len(line) <= width for line in lines)
        assert not any("…" in line[:-1] for line in lines), "only the last column is cut"
    monkeypatch.delenv("COLUMNS")
    assert "…" not in shown(capsys, *arguments), "a pipe gets everything"


def test_a_text_is_cut_where_a_clause_or_a_word_ends() -> None:
    text = "insightface pack buffalo_l (SCRFD-10G detector, ArcFace w600k_r50)"
    assert shortened(text, 80) == text
    assert shortened(text, 37) == "insightface pack buffalo_l"
    assert shortened(text, 49) == "insightface pack buffalo_l (SCRFD-10G detector"
    assert shortened("Encodes the scenes of aligned data", 20) == "Encodes the scenes…"
    assert cell_len(shortened("人" * 40, 21)) <= 21


def test_every_recipe_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(shown(capsys, "list", "recipes", "--json"))
    assert all(row["description"] for row in rows)
    said = {row["recipe"]: row["description"] for row in rows}
    assert said["aligned_latents"] == "Encodes the scenes of `aligned_data`"
    assert said["ingredients"].startswith("Ingredients' two routed faces"), "not of its parent"


def test_doctor_does_not_list_every_name() -> None:
    assert len(f"ok    registry: {doctor._registry()}") <= 80


def test_a_long_first_heading_breaks_no_value() -> None:
    value = ("0.189 [0.179, 0.198]", "")
    rows = [{"measured on avatars": (name, ""), "system": ("concat_id@multi", ""),
             **{f"m{i} ↑": value for i in range(4)}} for name in ("Ingredients", "Concat-ID")]
    for width in (116, 118, 120):
        console = Console(width=width, file=io.StringIO(), highlight=False)
        terminal.show_parts([rows], console)
        assert console.file.getvalue().count(value[0]) == 8, width  # type: ignore[attr-defined]


def test_separations_of_photographs_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from idbench.metrics.validation import photographs

    found = [photographs.Separation("ORL: 40 people", name, 400, auc, 0.5, -0.25)
             for name, auc in (("embedded ArcSim", 0.87), ("DlibSim", None))]
    monkeypatch.setattr(photographs, "measure", lambda advance: found)
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["validate-metrics", "--photographs"])
    said = capsys.readouterr().out
    assert said.count("-0.250") == 2 and all(len(line) <= 80 for line in said.splitlines())
