"""Tables: values against a plain mean, coverage, differences, formats, and published rows apart."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest

from idbench.errors import UserError
from idbench.files import write_json
from idbench.reports import tables
from idbench.reports.published import comparison, published_tables
from idbench.runs import Run

PEOPLE = [("a",), ("a",), ("b",), ("b",), ("c",), ("c",)]


def make_run(
    folder: Path, name: str, values: list[float | None], protocol: str = "strict-v1"
) -> Run:
    """A finished and scored run of six samples of three people, with arcsim `values`."""
    ids = [f"{name}{i}" for i in range(len(values))]
    suite_ids = [f"s{i}" for i in range(len(values))]
    write_json(folder / "run.json", {
        "schema": 1, "status": "finished", "samples": dict(zip(suite_ids, ids, strict=True)),
        "identity": {
            "kind": "generate", "suite": {"name": "tiny", "version": "1", "sha256": "x"},
            "split": "single", "seed": 0, "model": {"name": name, "variant": None},
        },
        "scoring": {
            "protocol": {"name": protocol}, "weights": {"arcface": "1"}, "detector": "2",
            "notes": ["a note"],
        },
    })
    rows = []
    for i, value in enumerate(values):
        write_json(folder / "samples" / ids[i] / "sample.json", {
            "id": ids[i], "suite_id": suite_ids[i], "split": "single", "prompt_id": "p",
            "prompt": "p", "category": "c", "seed": 0, "truth": {}, "status": "failed",
            "reason": "r", "video": None, "video_sha256": None, "video_bytes": None,
            "shape": None, "fps": None, "seconds": 1.0,
            "references": [{"kind": "face", "name": n, "image": "x.png"} for n in PEOPLE[i]],
        })
        reason = None if value is not None else "no face"
        rows.append([ids[i], "arcsim", None, None, value, "scored", reason])
        # Rows of frames and identities must not enter the video's mean.
        rows.append([ids[i], "arcsim", PEOPLE[i][0], 0, 99.0, "scored", None])
    columns = ["sample", "metric", "identity", "frame", "value", "status", "reason"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "scores.parquet")
    return Run.open(folder)


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
    text = tables.cell(found)
    assert text.startswith("0.600 [") and text.endswith("(83 %)")


def test_differences_are_paired_over_samples_that_both_have(runs: list[Run]) -> None:
    (row,) = tables.measured(runs).differences
    found = row.estimates["arcsim"]
    assert (row.first, row.second, found.scored) == ("one", "two", 4)
    assert found.mean == pytest.approx(0.1) and found.low == pytest.approx(0.1)


def test_mixed_protocols_are_refused_naming_what_differs(tmp_path: Path, runs: list[Run]) -> None:
    other = make_run(tmp_path / "three", "three", [0.1] * 6, protocol="loose-v1")
    with pytest.raises(UserError, match="protocol name is strict-v1, asked for is loose-v1"):
        tables.measured([runs[0], other])


@pytest.mark.parametrize("form", tables.FORMATS)
def test_every_format_holds_measured_and_published_apart(runs: list[Run], form: str) -> None:
    text = tables.render(tables.measured(runs, comparison("consisid", 1)), form)
    assert "another data set" in text and "2503.14151" in text
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
        assert r"\uparrow" in text and r"83 \%" in text


def test_a_table_says_its_protocol_and_notes(runs: list[Run]) -> None:
    text = tables.render(tables.measured(runs), "md")
    assert "suite tiny 1, protocol strict-v1" in text and "Note: a note" in text
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
    assert "1 - CLIPDist" in v1.caption and v1.version == "v1"


def test_comparison_finds_tables_by_system_and_number() -> None:
    assert {t.paper for t in comparison("consisid")} == {1, None}
    assert [t.section for t in comparison(None, 2)] == ["multi"]
    with pytest.raises(UserError, match="Table 2 of the paper has no row of consisid"):
        comparison("consisid", 2)
