"""Tables: values against a plain mean, coverage, differences, formats, and published rows apart."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from made_runs import made_run
from rich.console import Console
from toy import World

from idbench.commands.table import table
from idbench.errors import UserError
from idbench.output import escape_markdown
from idbench.reports import columns, table_output, tables, terminal
from idbench.reports.published import comparison, published_tables
from idbench.reports.video_values import video_values
from idbench.runs import Run
from idbench.statistics import holm, sign_flip

PEOPLE = [("a",), ("a",), ("b",), ("b",), ("c",), ("c",)]


def make_run(
    folder: Path, name: str, values: list[float | None], people: Any = PEOPLE, **more: Any
) -> Run:
    """A finished and scored run with arcsim `values`."""
    return made_run(folder, name, more.pop("all", {"arcsim": values}), people, **more)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return [
        make_run(tmp_path / "one", "one", [0.5, 0.6, 0.4, None, 0.7, 0.8]),
        make_run(tmp_path / "two", "two", [0.4, 0.5, 0.3, 0.9, 0.6, None]),
    ]


def test_means_leave_the_unscored_out_and_coverage_counts_them(runs: list[Run]) -> None:
    found = tables.measured(runs).rows[0].estimates["arcsim"]
    assert found.mean == pytest.approx((0.5 + 0.6 + 0.4 + 0.7 + 0.8) / 5)
    assert (found.n, found.scored, found.clusters) == (6, 5, 3)
    text = columns.cell(found)
    assert text.startswith("0.600 [") and text.endswith("(83%)")


def test_differences_are_paired_over_samples_that_both_have(runs: list[Run]) -> None:
    (row,) = tables.measured(runs).differences
    found = row.estimates["arcsim"]
    assert (row.first, row.second, found.scored) == ("one", "two", 4)
    assert found.mean == pytest.approx(0.1) and found.low == pytest.approx(0.1)


@pytest.mark.parametrize(("change", "words"), [
    ({"protocol": "loose-v1"}, "protocol name: strict-v3 / loose-v1"),
    ({"suite": {"name": "tiny", "version": "2", "sha256": "y"}},
     "suite version: 1 / 2; suite sha256: x / y"),
    ({"weights": {"arcface": "2"}}, "weights arcface: 1 / 2"),
    ({"version": "idbench 0.2.0"}, "version of arcsim: idbench 0.1.0 / idbench 0.2.0"),
])
def test_what_was_measured_otherwise_is_refused_naming_what_differs(
    tmp_path: Path, runs: list[Run], change: dict[str, Any], words: str
) -> None:
    other = make_run(tmp_path / "three", "three", [0.1] * 6, **change)
    with pytest.raises(UserError, match=re.escape(words)):
        tables.measured([runs[0], other])
    assert not tables.unlike(runs[0], runs[1]) and tables.unlike(runs[0], other)


def test_files_that_a_metric_reads_besides_the_networks_count_where_both_have_it(
    tmp_path: Path, runs: list[Run]
) -> None:
    first, second = runs[:2]
    expression = {"metric_weights": {"expression.safetensors": "1"}}
    first.save(scoring=first.file.scoring.model_copy(update=expression))
    assert len(tables.measured([first, second]).rows) == 2, "the second has no such metric"
    second.save(scoring=second.file.scoring.model_copy(update=expression))
    assert len(tables.measured([first, second]).rows) == 2
    expression = {"metric_weights": {"expression.safetensors": "2"}}
    second.save(scoring=second.file.scoring.model_copy(update=expression))
    with pytest.raises(UserError, match="weights expression.safetensors: 1 / 2"):
        tables.measured([first, second])


def test_found_runs_that_cannot_share_a_table_get_one_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, opencv in (("a", "4.9"), ("b", "4.10"), ("c", "4.9")):
        run = make_run(tmp_path / "runs" / name, name, [0.5] * 6)
        run.save(scoring=run.file.scoring.model_copy(update={"opencv": opencv}))
    monkeypatch.chdir(tmp_path)
    table.main(["--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert [[row["system"] for row in one["measured"]] for one in found] == [["a", "c"], ["b"]]


MANY = [(f"p{i // 2}",) for i in range(24)]
LEVEL = [0.4 + 0.02 * (i % 7) for i in range(24)]


def three(tmp_path: Path) -> list[Run]:
    """`low` is surely worse than `high`; `near` differs from `high` by chance alone."""
    noise = [0.05 * (-1) ** (i // 2) for i in range(24)]
    return [
        make_run(tmp_path / "low", "low", [v - 0.1 + 0.1 * n for v, n in zip(
            LEVEL, noise, strict=True)], MANY),
        make_run(tmp_path / "high", "high", LEVEL, MANY),
        make_run(tmp_path / "near", "near", [v - 0.002 + n for v, n in zip(
            LEVEL, noise, strict=True)], MANY),
    ]


def test_best_is_bold_and_second_underlined_only_where_it_is_surely_worse(tmp_path: Path) -> None:
    low, high, near = three(tmp_path)
    marked = tables.measured([low, high])
    assert [row.marks.get("arcsim") for row in marked.rows] == ["second", "best"]
    text = table_output.render(marked, "md")
    assert "**0.4" in text and "<u>0.3" in text and "Bold: best" in text
    assert r"\underline{0.3" in table_output.render(marked, "latex")
    close = tables.measured([high, near])
    assert [row.marks.get("arcsim") for row in close.rows] == ["best", None]
    assert "<u>" not in table_output.render(close, "md")
    assert "Bold" not in table_output.render(tables.measured([high]), "md")


def test_the_lower_is_best_where_lower_is_better_and_splits_are_apart(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", "a", [], all={"swap_rate": [0.1] * 6, "arcsim": [0.2] * 6})
    b = make_run(tmp_path / "b", "b", [], all={"swap_rate": [0.2] * 6, "arcsim": [0.3] * 6})
    c = make_run(tmp_path / "c", "c", [0.9] * 6, split="multi")
    assert [r.marks for r in tables.measured([a, b, c]).rows] == [
        {}, {"arcsim": "best"}, {}]  # swap_rate is not shown; alone in its split, none is best
    assert tables.measured([a, b, c]).differences[0].split == "single"
    lower = make_run(tmp_path / "d", "d", [], all={"not_measured": [0.1] * 6})
    higher = make_run(tmp_path / "e", "e", [], all={"not_measured": [0.2] * 6})
    assert tables.measured([higher, lower]).rows[1].marks == {"not_measured": "best"}


def test_differences_are_taken_from_the_compared_system(tmp_path: Path) -> None:
    runs = three(tmp_path)
    found = tables.measured(runs, compare="high").differences
    assert [(d.first, d.second) for d in found] == [("low", "high"), ("near", "high")]
    assert found[0].estimates["arcsim"].mean == pytest.approx(-0.1)
    raw = [sign_flip([a - b for a, b in zip(
        video_values(runs[i])["arcsim"], video_values(runs[1])["arcsim"],
        strict=True)], MANY) for i in (0, 2)]
    assert [d.p_values["arcsim"] for d in found] == holm(raw)
    assert found[0].p_values["arcsim"] < 0.01 < 0.5 < found[1].p_values["arcsim"]
    assert "p under 0.001" in table_output.render(tables.measured(runs, compare="high"), "md")
    # Hidden metrics are no claims of the table, and cost the others nothing.
    assert [(d.first, d.second) for d in tables.measured(runs).differences] == [
        ("low", "high"), ("low", "near")]


def test_compare_on_the_command_line(tmp_path: Path) -> None:
    three(tmp_path / "runs")
    world = World(tmp_path, tmp_path)
    done = world.run("table", "--compare", "high", "--json")
    assert done.returncode == 0
    assert [d["second"] for d in json.loads(done.stdout)["differences"]] == ["high", "high"]
    both = world.run("table", "runs/low", "runs/high", "--compare", "consisid")
    assert "low - high" in both.stdout and "ConsisID" in both.stdout
    wrong = world.run("table", "--compare", "hig")
    assert wrong.returncode == 2 and "did you mean 'high'" in wrong.stderr
    assert "p under" in world.run("table", "runs/low", "runs/high", "--format", "terminal").stdout


def test_a_terminal_shows_bold_and_underline_and_reads_no_markup(tmp_path: Path) -> None:
    low, high, _ = three(tmp_path)
    low.file.identity.model.name = "[red]low|x"
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=200, color_system="standard")
    terminal.show_parts(table_output.parts(tables.measured([low, high])), console)
    text = stream.getvalue()
    assert "\x1b[1m0.4" in text and "\x1b[4m0.3" in text and "[red]low|x" in text


def test_hostile_names_stay_text_in_every_format(tmp_path: Path) -> None:
    low, high, _ = three(tmp_path)
    low.file.identity.model.name = "<script>a|b\n\\input{x}&%$#_^~"
    made = tables.measured([low, high])
    assert "<script>" not in table_output.render(made, "html")
    page = table_output.render(made, "md")
    assert "<script>" not in page and "a\\|b " in page
    assert escape_markdown("p < 0.001, I > III, R&D, 'a'") == "p < 0.001, I > III, R&D, 'a'"
    assert escape_markdown("\x1b[31mred") == r"\\u001b[31mred"
    assert escape_markdown("<b>&lt; **x**</b>\n|") == r"&lt;b>&amp;lt; \*\*x\*\*&lt;/b> \|"
    source = table_output.render(made, "latex")
    assert r"a\textbar{}b \textbackslash{}input\{x\}\&\%\$\#\_" in source
    low.file.identity.model.name = "=cmd|' /C calc'!A0"
    high.file.identity.model.name = "\x1b[31mred"
    made = tables.measured([low, high])
    assert ",'=cmd|' /C calc'!A0," in table_output.render(made, "csv")
    stream = io.StringIO()
    terminal.show_parts(
        table_output.parts(made), Console(file=stream, force_terminal=True, width=200))
    assert "\\u001b[31mred" in stream.getvalue() and "\x1b[31m" not in stream.getvalue()
    assert table_output.latex("_^~") == r"\_\textasciicircum{}\textasciitilde{}"


def test_latex_is_booktabs_with_balanced_rows(tmp_path: Path, runs: list[Run]) -> None:
    source = table_output.render(tables.measured(runs, comparison("consisid")), "latex")
    tabulars = re.findall(r"\\begin\{tabular\}\{(l+)\}(.*?)\\end\{tabular\}", source, re.DOTALL)
    assert len(tabulars) == 4
    for letters, body in tabulars:
        assert [body.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1] * 3
        for line in body.strip().splitlines():
            if line.endswith(r"\\"):
                assert len(re.findall(r"(?<!\\)&", line)) == len(letters) - 1
                assert line.count("{") == line.count("}")
    outside = re.sub(r"\\begin.*?\\end\{tabular\}", "", source, flags=re.DOTALL)
    assert all(line.startswith("%") for line in outside.splitlines() if line.strip())
    compiler = shutil.which("pdflatex") or shutil.which("tectonic")
    if compiler:
        document = ("\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
                    f"{source}\n\\end{{document}}\n")
        (tmp_path / "table.tex").write_text(document, encoding="utf-8")
        subprocess.run([compiler, "table.tex"], cwd=tmp_path, check=True, capture_output=True,
                       stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("form", tables.FORMATS)
def test_every_format_holds_measured_and_published_apart(runs: list[Run], form: str) -> None:
    first = [table for table in comparison("consisid") if table.paper == 1]
    text = table_output.render(tables.measured(runs, first), form)
    assert "a separate data set" in text and "2503.14151" in text
    assert "0.600" in text or "0.6" in text
    assert text.index("two") < text.index("ConsisID")
    if form == "json":
        data = json.loads(text)
        assert [r["system"] for r in data["measured"]] == ["one", "two"]
        assert data["published"][0]["rows"][1]["values"]["arcsim"] == 0.432
    if form == "csv":
        frame = pd.read_csv(io.StringIO(text))
        assert frame.loc[frame["system"] == "Concat-ID", "data"].str.contains("Published").all()
        assert not frame.loc[frame["system"] == "one", "data"].str.contains("Published").any()
    if form == "latex":
        assert r"\uparrow" in text and r"83\%" in text


def test_a_table_says_its_protocol_and_notes(runs: list[Run]) -> None:
    text = table_output.render(tables.measured(runs), "md")
    assert "suite tiny 1, protocol strict-v3" in text and "Note: a note" in text
    assert "Published" not in text


PRINTED = {
    (1, "single", "ConsisID"): (0.432, 0.451, 0.237, 0.303),
    (1, "single", "ID-Animator"): (0.289, 0.304, 0.204, 0.297),
    (1, "single", "Concat-ID"): (0.442, 0.466, 0.242, 0.325),
    (1, "multi", "Ingredients"): (0.293, 0.316, 0.199, 0.407),
    (1, "multi", "Concat-ID"): (0.492, 0.514, 0.190, 0.410),
    (3, "single", "Concat-ID Stage I"): (0.560, 0.581, 0.237, 0.274),
    (3, "single", "Concat-ID Stage II"): (0.185, 0.200, 0.248, 0.434),
    (3, "single", "Concat-ID Stage III"): (0.442, 0.466, 0.242, 0.325),
}


def test_published_numbers_are_those_printed() -> None:
    found = {
        (t.paper, t.section, r.label): tuple(r.values.values())
        for t in published_tables() for r in t.rows if len(r.values) == 4
    }
    assert found == PRINTED


def test_both_readings_of_table_3_are_kept_and_add_up() -> None:
    v3, v1 = [t for t in published_tables() if t.paper == 3]
    for ours, printed in zip(v3.rows, v1.rows, strict=True):
        assert ours.label == printed.label
        assert ours.values["clipdist"] + printed.values["clipdist_printed"] == pytest.approx(1)
    assert "1 - CLIPDist" in v1.caption and v1.source.version == "v1"


def test_comparison_finds_tables_by_system() -> None:
    assert {t.paper for t in comparison("consisid")} == {1, None}
    assert [t.section for t in published_tables() if t.paper == 2] == ["multi"]
    with pytest.raises(UserError, match="Unknown published system 'consisit': did you mean"):
        comparison("consisit")


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_narrow_terminal_cuts_no_cell(tmp_path: Path, width: int) -> None:
    """Columns become rows where the terminal is too narrow for them."""
    from rich.console import Console

    from idbench.reports import table_output

    values = {name: [0.1, 0.2, 0.4] for name in ("arcsim", "cursim", "viclip", "clipdist")}
    run = made_run(tmp_path / "one", "one", values, [("a",), ("b",), ("c",)])
    made = tables.measured([run])
    console = Console(width=width, record=True, file=io.StringIO())
    terminal.show_parts(table_output.parts(made), console)
    text = console.export_text()
    for estimate in made.rows[0].estimates.values():
        assert columns.cell(estimate) in text
    assert max(map(len, text.splitlines())) <= width


def test_nothing_is_minus_zero() -> None:
    from idbench.statistics import Estimate

    found = Estimate(-0.0001, -0.0002, 0.5, 9, 9, 9)
    assert columns.cell(found) == "0.000 [0.000, 0.500]"


def test_a_part_of_a_split_is_never_bold(tmp_path: Path) -> None:
    whole = [0.5 + 0.01 * (i % 4) for i in range(8)]
    people = [(f"p{i}",) for i in range(8)]
    runs = [
        made_run(tmp_path / "all", "all", {"arcsim": whole}, people),
        made_run(tmp_path / "less", "less", {"arcsim": [0.4] * 8}, people),
        made_run(tmp_path / "best", "best", {"arcsim": [*whole[:2], None, 0.53] + [None] * 4},
                 people),
    ]
    found = tables.measured(runs)
    assert [row.marks.get("arcsim") for row in found.rows] == ["best", "second", None]
    assert any("best has 3 of 8 samples of single" in note for note in found.notes)
    alone = tables.measured([runs[0], runs[2]])
    assert [dict(row.marks) for row in alone.rows] == [{}, {}]


def test_the_share_scored_is_of_the_samples_that_a_metric_applies_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "one", "one", [0.5, 0.6, 0.4, None, 0.7, None])
    before = tables.measured([run]).rows[0].estimates["arcsim"]
    assert (before.n, before.scored) == (6, 4)
    last = run.records()[-1].id
    rules = [lambda sample: sample.id != last, lambda sample: False]
    for rule, asked in zip(rules, (5, 4), strict=True):
        monkeypatch.setattr("idbench.reports.video_values.metric_of",
                            lambda name, rule=rule: SimpleNamespace(applies_to=rule))
        after = tables.measured([run]).rows[0].estimates["arcsim"]
        assert (after.n, after.scored) == (asked, 4), "what has a value counts, whatever the rule"
        assert after.mean == before.mean
