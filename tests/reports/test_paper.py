"""`table --paper`: the paper's rows by our systems, the published orders tested, nothing mixed."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import made_run
from rich.console import Console
from toy import World

from idbench.errors import UserError
from idbench.reports import paper, paper_output
from idbench.reports.paper import CONTROL, SECTIONS, STAGES, Slot
from idbench.runs import Run

PEOPLE = [(f"p{i // 3}",) for i in range(36)]
LEVELS = {"concat_id@single": 0.5, "concat_id@stage2": 0.2, "concat_id@stage3": 0.2}


def stage(folder: Path, system: str, level: float, **more: object) -> Run:
    rng = np.random.default_rng(sum(map(ord, system)))
    noise = rng.normal(0, 0.02, len(PEOPLE))
    values = {
        "arcsim": level + noise, "cursim": level + noise, "viclip": 0.2 + 0 * noise,
        "clipdist": 0.5 - level / 2 + noise,
    }
    return made_run(folder / system, system, {k: v.tolist() for k, v in values.items()},
                    PEOPLE, **more)


@pytest.fixture
def stages(tmp_path: Path) -> list[Run]:
    return [stage(tmp_path / "runs", system, level) for system, level in LEVELS.items()]


def test_every_published_row_has_a_slot_and_every_order_is_the_printed_one() -> None:
    for section in SECTIONS:
        printed = {row.label: row.values for row in section.published[0].rows}
        labels = [slot.label for slot in section.slots if slot.label != CONTROL]
        assert labels == list(printed), section.title
        assert section.claims
        for claim in section.claims:
            values = [printed[label][claim.metric] for label in claim.labels]
            assert values == sorted(values, reverse=True) and len(set(values)) == len(values)
    assert {s.paper for s in SECTIONS} == {1, 2, 3}


def test_table_3_says_which_orders_hold(stages: list[Run]) -> None:
    (table,) = paper.build(3, [stages])
    assert [row.system for row in table.rows] == [*LEVELS, None]  # the control was not run
    assert table.rows[0].estimates["arcsim"].mean == pytest.approx(0.5, abs=0.02)
    verdicts = {(s.metric, s.first, s.second): s.verdict for s in table.steps}
    one, two, three = STAGES
    assert verdicts[("arcsim", one, three)] == "holds"
    assert verdicts[("clipdist", three, one)] == "holds"
    assert verdicts[("arcsim", three, two)] == "not significant"
    (step,) = [s for s in table.steps if (s.metric, s.first, s.second) == ("arcsim", one, three)]
    assert step.published == pytest.approx(0.560 - 0.442)
    assert step.measured is not None and step.measured.clusters == 12
    # Twelve identities, 4096 sign patterns: the smallest p is 2 / 4096, times six steps by Holm.
    assert step.p_value == pytest.approx(6 * 2 / 4096, rel=0.6)


def test_an_order_the_other_way_is_reversed(tmp_path: Path) -> None:
    runs = [stage(tmp_path, "concat_id@single", 0.1), stage(tmp_path, "concat_id@stage3", 0.6)]
    (table,) = paper.build(3, [runs])
    verdicts = {(s.metric, s.first): s.verdict for s in table.steps if s.second != STAGES[1]}
    assert verdicts[("arcsim", STAGES[0])] == "reversed"
    assert table.rows[1].system is None
    assert table.rows[1].how == "idbench run --model concat_id@stage2 --split single"
    assert [s.verdict for s in table.steps if s.first == STAGES[1]] == ["not measured"]


def test_table_2_is_of_each_person(tmp_path: Path) -> None:
    pairs = [(f"p{i}", f"q{i}") for i in range(8)]
    runs = []
    both = {"concat_id@multi_scratch": (0.1, 0.2), "concat_id@multi": (0.6, 0.3)}
    for system, levels in both.items():
        made = made_run(tmp_path / system, system, {"arcsim": [0.0] * 8, "cursim": [0.0] * 8},
                        pairs, split="multi")
        frame = pd.read_parquet(tmp_path / system / "scores.parquet")
        rows = [
            (f"{system}-s{i}", metric, name, None, level + 0.001 * i, "scored", None)
            for i, names in enumerate(pairs) for metric in ("arcsim", "cursim")
            for name, level in zip(names, levels, strict=True)
        ]
        more = pd.DataFrame(rows, columns=frame.columns).astype({"frame": "Int64"})
        pd.concat([frame, more]).to_parquet(tmp_path / system / "scores.parquet")
        runs.append(made)
    (table,) = paper.build(2, [runs])
    means = [row.estimates["arcsim"].mean for row in table.rows]
    assert means == pytest.approx([0.1035, 0.2035, 0.6035, 0.3035])
    assert len(table.steps) == 4 and all(s.verdict == "holds" for s in table.steps)


def test_concat_id_trained_alike_comes_first_and_another_is_named(tmp_path: Path) -> None:
    runs = [stage(tmp_path, "concat_id@stage3", 0.4), stage(tmp_path, "consisid", 0.3)]
    single, multi = paper.build(1, [runs])
    assert [row.system for row in single.rows] == [None, "consisid", "concat_id@stage3"]
    assert any("Concat-ID is concat_id@stage3 here" in note for note in single.notes)
    assert all(row.system is None for row in multi.rows)
    runs.append(stage(tmp_path, "concat_id@equal", 0.5))
    single, _ = paper.build(1, [runs])
    assert single.rows[2].system == "concat_id@equal" and not single.notes


def test_the_group_with_most_rows_is_used_and_mixed_runs_are_refused(
    stages: list[Run], tmp_path: Path
) -> None:
    other = stage(tmp_path / "more", "concat_id@single", 0.9, protocol="loose-v1")
    (table,) = paper.build(3, [[other], stages])
    assert table.rows[0].run == str(stages[0].folder)
    with pytest.raises(UserError, match="cannot share a table"):
        paper.build(3, [[other, *stages[1:]]])


def test_runs_of_different_size_are_told(tmp_path: Path) -> None:
    runs = [stage(tmp_path, "concat_id@single", 0.5)]
    runs.append(made_run(tmp_path / "b", "concat_id@stage2", {"arcsim": [0.2] * 6}, PEOPLE[:6],
                         planned=["later"]))
    (table,) = paper.build(3, [runs])
    assert any("different numbers of samples" in note for note in table.notes)
    assert any("concat_id@stage2 has 6 of the 7 samples" in note for note in table.notes)
    assert table.steps[1].first == STAGES[2]


@pytest.mark.parametrize("form", ["md", "latex", "html", "csv", "json"])
def test_every_form_keeps_published_rows_apart(stages: list[Run], form: str) -> None:
    text = paper_output.render(paper.build(3, [stages]), form)
    assert "not comparable with the rows above" in text and "printed" in text
    if form == "json":
        (section,) = json.loads(text)["sections"]
        assert section["orders"][0]["verdict"] and section["published"][0]["rows"]
        assert section["measured"][0]["metrics"]["arcsim"]["n"] == 36
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert {"measured", "paired difference"} < {row["data"] for row in rows}


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x", "\tx"])
def test_a_spreadsheet_runs_no_name_as_a_formula(stages: list[Run], name: str) -> None:
    (table,) = paper.build(3, [stages])
    row = replace(table.rows[0], system=name)
    text = paper_output.render([replace(table, rows=(row,))], "csv")
    systems = {row["system"] for row in csv.DictReader(io.StringIO(text)) if row["system"]}
    assert systems == {f"'{name}"}


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_cuts_no_cell(stages: list[Run], width: int) -> None:
    built = paper.build(3, [[*stages[:2]]])
    console = Console(width=width, file=io.StringIO(), highlight=False)
    paper_output.show(built, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line.rstrip()) <= width for line in shown.splitlines())
    flat = "".join(shown.split())
    assert "ArcSim:I>III" in flat or width == 80
    assert re.search(r"Notrun:[^.]+\.`idbenchrun--model", flat)
    assert not re.search(r"\[[^\]\s]+,\s*$", shown, re.MULTILINE), "no interval is broken"


def test_the_command_uses_runs_and_refuses_compare(stages: list[Run], tmp_path: Path) -> None:
    world = World(tmp_path, tmp_path)
    done = world.run("table", "--paper", "3")
    assert done.returncode == 0, done.stderr
    assert "Table 3, training stages, measured" in done.stdout and "| holds" in done.stdout
    done = world.run("table", "--paper", "1", "--compare", "consisid")
    assert done.returncode == 2 and "leave out --compare" in done.stderr
    shown = world.run("table", "--paper", "1").stdout
    assert "not run; " in shown and "concat_id@stage3" in shown


def test_the_page_holds_all_and_escapes(stages: list[Run]) -> None:
    tables = [t for number in (1, 2, 3) for t in paper.build(number, [stages])]
    page = paper_output.page(tables, ["made by <b>me</b>"])
    assert "tested here: not measured" in page and "of 6 hold" in page
    assert page.count("<h2>") == 4 and "&lt;b&gt;" in page and "src=" not in page
    assert re.search(r"\[\S+,\u00a0\S+\]", page), "no interval is broken"
    assert page.count("Published orders, tested here") == 4, "not again below the heading"


def test_how_to_run_a_row_is_what_works_here(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Slot("X", ("concat_id@new", "concat_id@stage3"))
    assert rows.how("single") == "idbench run --model concat_id@stage3 --split single"
    alone = Slot("X", ("stage3",))
    assert alone.how("single") == "idbench train stage3; idbench run --model stage3 --split single"
    assert Slot("X", ("nobody",)).how("single") == "this version has no embedded weights of it"
