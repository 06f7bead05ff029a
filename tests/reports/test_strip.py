"""The picture of a run for README and papers."""

from __future__ import annotations

from pathlib import Path

import pytest

from idbench.errors import UserError
from idbench.reports.strip import strip


def test_each_row_shows_references_and_frames(run_folder: Path, tmp_path: Path):
    figure = strip(run_folder, samples=2, frames=3)
    figure.savefig(tmp_path / "strip.png")
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) >= 2 * 4, "at least one reference and three frames a row"
    assert (tmp_path / "strip.png").stat().st_size > 5_000


def test_a_folder_without_videos_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no finished video"):
        strip(tmp_path)
