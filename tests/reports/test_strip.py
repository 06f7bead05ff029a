"""The strip: references, and evenly spaced frames of each run's video of a sample."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from report_runs import FRAMES, make_run

from idbench.errors import UserError
from idbench.reports.strip import CHARACTERS, WIDTH, strip
from idbench.runs import Run
from idbench.video import read_video


def _pictures(figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def test_frames_are_the_evenly_spaced_ones_of_each_run(tmp_path: Path) -> None:
    runs = [Run.open(make_run(tmp_path / "runs" / n, seed=i, count=3))
            for i, n in enumerate("ab")]
    pictures = _pictures(strip(runs, ["one", "two"], samples=1, frames=3))
    assert len(pictures) == 2 + 2 * 3  # two references, a row of three frames a run
    for run, row in zip(runs, (pictures[2:5], pictures[5:]), strict=True):
        whole = read_video(run.records()[1].video).frames  # the middle of three samples
        for shown, index in zip(row, (0, FRAMES // 2, FRAMES - 1), strict=True):
            assert np.array_equal(shown, whole[index])


def test_names_of_systems_and_prompts_are_said_as_plain_text(tmp_path: Path) -> None:
    prompt = "A $x_{$ <b> person " * 12
    folder = make_run(tmp_path / "runs" / "a", count=2, prompts=[prompt])
    other = make_run(tmp_path / "runs" / "b", count=2, prompts=[prompt], seed=1)
    runs = [Run.open(f) for f in (folder, other)]
    figure = strip(runs, ["toy_$^", "other"], samples=1)
    figure.savefig(tmp_path / "strip.pdf")  # a formula would fail here
    texts = [t.get_text() for t in figure.texts]
    assert {"toy_$^", "other"} <= set(texts)
    assert " ".join(t for t in texts if t not in ("toy_$^", "other")) == prompt.strip()
    quiet = strip(runs, ["a", "b"], samples=1, prompts=False)
    assert [t.get_text() for t in quiet.texts] == ["a", "b"]


def test_wide_letters_take_the_room_of_two(tmp_path: Path) -> None:
    prompt = "雪の中で人が話す。" * 20
    run = Run.open(make_run(tmp_path / "runs" / "a", count=1, prompts=[prompt]))
    lines = [t.get_text() for t in strip([run], ["a"]).texts]
    assert "".join(lines) == prompt
    assert max(map(len, lines)) <= -(-int(WIDTH * CHARACTERS) // 2)


def test_a_missing_video_of_one_run_leaves_its_place_with_the_reason(tmp_path: Path) -> None:
    runs = [Run.open(make_run(tmp_path / "runs" / "a", count=1)),
            Run.open(make_run(tmp_path / "runs" / "b", count=1, fail=[0]))]
    figure = strip(runs, ["a", "b"], frames=4)
    assert len(_pictures(figure)) == 2 + 4
    assert "out of memory" in "".join(t.get_text() for a in figure.axes for t in a.texts)


def test_samples_are_chosen_by_name(run_folder: Path) -> None:
    run = Run.open(run_folder)
    wanted = run.records()[4]
    figure = strip([run], ["toy"], only=[wanted.suite_id[:8]])
    assert figure.texts[0].get_text() == wanted.sample.prompt
    with pytest.raises(UserError, match="begins with 'nothing'"):
        strip([run], ["toy"], only=["nothing"])


def test_a_folder_without_videos_and_runs_without_shared_samples_are_refused(
    tmp_path: Path,
) -> None:
    empty = Run.open(make_run(tmp_path / "runs" / "a", count=1))
    shutil.rmtree(empty.folder / "samples")
    with pytest.raises(UserError, match="no finished video"):
        strip([empty], ["a"])
    runs = [Run.open(make_run(tmp_path / "runs" / n, count=1, prompts=[n])) for n in ("b", "c")]
    with pytest.raises(UserError, match="share no sample"):
        strip(runs, ["b", "c"])
