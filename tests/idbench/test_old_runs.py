"""Run folders written by older versions still load, print and report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from idbench.reports import tables
from idbench.reports.report_page import build_report
from idbench.runs import Run
from idbench.video import read_video

OLD = sorted((Path(__file__).parents[1] / "data/old_runs").iterdir())


@pytest.mark.parametrize("folder", OLD, ids=lambda path: path.name)
def test_old_run_still_loads_prints_and_reports(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    run = Run.open(copy)
    records = run.records()
    assert len(records) == len(run.sample_ids) == 2
    for record in records:
        assert record.video is not None and record.shape is not None
        assert read_video(record.video).frames.shape == record.shape
        assert all(reference.image.is_file() for reference in record.sample.references)
    row = tables.measured([run]).rows[0]
    assert row.system == "toy"
    assert row.estimates["sampled"].mean == 6.5
    assert row.estimates["arcsim"].coverage == 0 and row.estimates["viclip"].coverage == 1
    page = tmp_path / "report.html"
    build_report([copy], page)
    assert "toy" in page.read_text()
