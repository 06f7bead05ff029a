"""A run folder for the tests of reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_runs import make_run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "toy", count=6, fail=[2], missing=[3])
