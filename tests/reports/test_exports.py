"""Exports: the real libraries read back what was written, and nothing missing becomes 0."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from idbench.commands.export import export
from idbench.errors import UserError
from idbench.exporting import hugging_face, tensorboard
from idbench.files import DiskFull
from idbench.reports import tables
from idbench.runs import Run
from idbench.score_table import wide_scores
from idbench.video import read_video


def ran(*arguments: object) -> str:
    done = CliRunner().invoke(export, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The library, offline, with its cache here."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = pytest.importorskip("datasets")
    monkeypatch.setattr(found.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found.disable_progress_bars()
    return found


def test_datasets_loads_what_was_exported(
    run_folder: Path, tmp_path: Path, datasets: Any
) -> None:
    folder = tmp_path / "out" / "dataset"
    told = json.loads(ran(run_folder, "--to", "datasets", "--out", folder, "--check", "--json"))
    assert told["loaded"] == told["rows"] and told["rows"]["videos"] == 6
    run = Run.open(run_folder)
    values, records = wide_scores(run), {r.sample.id: r for r in run.records()}

    loaded = datasets.load_dataset(str(folder), split="multi")
    assert isinstance(loaded.features["video"], datasets.Video)
    rows = list(loaded.cast_column("video", datasets.Video(decode=False)))
    assert [row["sample"] for row in rows] == run.sample_ids
    for row in rows:
        record = records[row["sample"]]
        assert row["prompt"] == record.sample.prompt
        assert row["identities"] == list(record.sample.identities)
        if record.video is None:
            assert row["video"] is None and row["reason"] == "out of memory"
            assert row["arcsim"] is None
        else:
            frames = read_video(Path(row["video"]["path"])).frames
            assert np.array_equal(frames, read_video(record.video).frames)
            assert row["frames"] == len(frames)
            expected = values.loc[row["sample"], "arcsim"]
            assert row["arcsim"] == (None if pd.isna(expected) else pytest.approx(expected))
    assert sum(row["arcsim"] is None for row in rows) == 2  # one failed, one without the person

    pictures = datasets.load_dataset(str(folder / "references"), split="train")
    by_name = {row["name"]: row["image"] for row in pictures}
    assert set(by_name) == {n for r in records.values() for n in r.sample.identities}
    reference = records[rows[0]["sample"]].sample.references[0]
    assert np.array_equal(
        np.asarray(by_name[reference.name]), np.asarray(Image.open(reference.image)))

    scores = datasets.load_dataset(str(folder / "scores"), split="train").to_pandas()
    long = pd.read_parquet(run_folder / "scores.parquet")
    assert len(scores) == len(long)
    assert scores["value"].isna().tolist() == long["value"].isna().tolist()
    assert (scores["reason"].notna() == scores["value"].isna()).all()


def test_a_folder_that_holds_something_is_left_alone(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(UserError, match="already exists"):
        ran(run_folder, "--to", "datasets", "--out", tmp_path)
    assert (tmp_path / "mine").exists() and not (tmp_path / "README.md").exists()


def test_html_in_names_is_text_in_the_card(run_folder: Path, tmp_path: Path) -> None:
    run = Run.open(run_folder)
    run.file.identity.model.name = "<img src=x>"
    run.file.identity.suite.name = "<b>suite"
    hugging_face.export(run, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text().split("---")[2]
    assert "&lt;img src=x>" in card and "<img" not in card and "<b>" not in card


def test_an_export_that_fails_leaves_nothing(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "scores.parquet").unlink()
    place = tmp_path / "out"
    with pytest.raises(UserError, match="no scores yet"):
        ran(run_folder, "--to", "datasets", "--out", place / "dataset")
    assert list(place.iterdir()) == []


def test_tensorboard_reads_what_was_exported(run_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # again: in place of the first, not beside it
        ran(run_folder, "--to", "tensorboard", "--out", tmp_path / "b", "--step", 7, "--frames", 3)
    events = EventAccumulator(str(tmp_path / "b"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    run = Run.open(run_folder)
    for name, estimate in tables.measured([run]).rows[0].estimates.items():
        (found,) = events.Scalars(f"{name}/mean")
        assert found.step == 7 and found.value == pytest.approx(estimate.mean, abs=1e-6)
        (coverage,) = events.Scalars(f"{name}/coverage")
        assert coverage.value == pytest.approx(estimate.coverage)
    assert events.Scalars("arcsim/coverage")[0].value == pytest.approx(4 / 6)
    along = events.Scalars("arcsim/along the videos")
    assert [e.step for e in along][0] == 0 and along[-1].step == 100
    assert events.Histograms("arcsim/videos")[0].histogram_value.num == 4
    tags = events.Tags()
    assert len(tags["images"]) == 5  # the failed sample has none
    picture = events.Images(tags["images"][0])[0]
    assert (picture.height, picture.width) == (64, 2 * 64 + 3 * 96)
    text = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
            for tag in tags["tensors"]}
    assert "| model.settings.steps | 8 |" in text["settings/text_summary"]
    assert "out of memory" in text["unscored/text_summary"]
    assert "ArcSim" in text["table/text_summary"]


def test_a_full_disk_leaves_the_earlier_event_file_and_no_half_one(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    ran(run_folder, "--to", "tensorboard", "--out", tmp_path / "b")
    before = list((tmp_path / "b").iterdir())

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensorboard.shutil, "copyfile", full)
    with pytest.raises(DiskFull):
        ran(run_folder, "--to", "tensorboard", "--out", tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == before


def test_a_metric_scored_nowhere_has_coverage_and_no_mean(
    run_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = run_folder / "scores.parquet"
    frame = pd.read_parquet(path)
    mine = frame["metric"] == "viclip"
    frame.loc[mine, "value"], frame.loc[mine, "reason"] = None, "no text"
    frame.to_parquet(path)
    ran(run_folder, "--to", "tensorboard", "--out", tmp_path / "b")
    events = EventAccumulator(str(tmp_path / "b"))
    events.Reload()
    assert "viclip/mean" not in events.Tags()["scalars"]
    assert events.Scalars("viclip/coverage")[0].value == 0


@pytest.mark.parametrize(("to", "more"), [("tensorboard", ()), ("datasets", ("--check",))])
def test_a_missing_extra_is_named(
    run_folder: Path, tmp_path: Path, to: str, more: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, to, None)
    with pytest.raises(UserError, match=rf"pip install idbench\[{to}\]"):
        ran(run_folder, "--to", to, "--out", tmp_path / "x", *more)


def test_options_of_another_target_are_refused(run_folder: Path) -> None:
    for arguments in (("--to", "datasets", "--frames", 2), ("--to", "tensorboard", "--check")):
        with pytest.raises(UserError, match="leave"):
            ran(run_folder, *arguments)
