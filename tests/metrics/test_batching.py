"""Videos scored in windows: the same values and order as one by one, and bounded memory."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toy import World

from idbench import scoring, video_scorer
from idbench.embedded import WeightError
from idbench.files import write_json
from idbench.metrics.embedder import Embedder
from idbench.metrics.faces.crops import TEMPLATE
from idbench.metrics.faces.detect import Faces
from idbench.metrics.scorer import Scorer
from idbench.runs import Run
from idbench.score_table import COLUMNS, collect
from idbench.timings import Timings
from idbench.types import Video
from idbench.video import Clip, UnreadableVideo, count_frames, read_chosen, write_video

SIZES = [(64, 96), (64, 96), (96, 64), (48, 48), (64, 96), (72, 128)]
"""Of the videos, height and width."""
BAD = 2
"""Of the rows, the one whose file is no video."""


def find_faces(detector, frames, settings):
    """As many faces as the first pixel says (0 to 2), side by side: no network, any size."""
    found = []
    for frame in frames:
        count, width = int(frame[0, 0].mean()) // 100, frame.shape[1]
        boxes = [[x, 4, x + width / 2 - 4, 40] for x in (2, width / 2)][:count]
        marks = [TEMPLATE / 112 * 40 + (x, 2) for x in (2, width / 2)][:count]
        found.append(Faces(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(marks, np.float32).reshape(-1, 5, 2), np.ones(count, np.float32),
        ))
    return found


@pytest.fixture
def world(tiny_weights, tmp_path, monkeypatch) -> World:
    """Six videos of four sizes with one and two people and none, and in between a file that is no
    video; `videos.jsonl` names them all."""
    monkeypatch.setattr("idbench.metrics.embedder.find_faces", find_faces)
    # dlib's network takes longer than all others together; one test below has it.
    monkeypatch.setattr(scoring, "_photographs", lambda samples: False)
    rng = np.random.default_rng(0)
    rows = []
    for i, (height, width) in enumerate(SIZES):
        frames = rng.integers(0, 255, (2 + i % 3, height, width, 3), dtype=np.uint8)
        frames[:, :8, :8] = (150, 250, 150, 150, 250, 0)[i]
        write_video(tmp_path / f"v{i}.mp4", Video(frames, 8.0))
        people = 2 if i in (1, 4) else 1
        for p in range(people):
            frames[0, :8, :8] = 150
            Image.fromarray(frames[p]).save(tmp_path / f"r{i}{p}.png")
        rows.append({"video": f"v{i}.mp4", "prompt": f"a man {i % 3}",
                     "references": [f"r{i}{p}.png" for p in range(people)]})
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 30)
    rows.insert(BAD, {**rows[0], "video": "bad.mp4"})
    (tmp_path / "videos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return World(tmp_path, tmp_path)


def score(world: World, out: str, *more: str) -> pd.DataFrame:
    done = world.run("score", "--manifest", "videos.jsonl", "--out", out, "--name", "x", *more)
    assert done.returncode == 0, done.stdout + done.stderr
    found = pd.read_parquet(world.folder / out / "scores.parquet")
    found["reason"] = found["reason"].str.replace(f"{out}/samples", "RUN/samples")
    return found


def test_values_and_order_do_not_depend_on_what_is_scored_with_them(world, monkeypatch):
    """Bit for bit: neither on the window, nor on the number of threads."""
    monkeypatch.setattr(scoring, "_photographs", lambda samples: True)
    monkeypatch.setattr(video_scorer, "WINDOW", 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = score(world, "alone")
    for window, threads in ((3, 1), (8, 4)):
        monkeypatch.setattr(video_scorer, "WINDOW", window)
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        monkeypatch.setattr("idbench.metrics.networks.loader.cores", lambda: 4)
        together = score(world, f"window{window}")
        pd.testing.assert_frame_equal(together, alone, check_exact=True)
        for path in (world.folder / "alone/samples").glob("*/faces.json"):
            other = world.folder / f"window{window}/samples" / path.parent.name / "faces.json"
            assert json.loads(path.read_text()) == json.loads(other.read_text())
    assert {"own_minus_other", "arcsim", "cursim", "viclip", "clipdist", "dlibsim"} <= set(
        alone["metric"])
    samples = alone["sample"].drop_duplicates().tolist()
    unscored = alone[alone["sample"] == samples[BAD]]
    assert (unscored["status"] == "unscored").all()
    assert unscored["reason"].str.contains("cannot be read").all()
    arcsim = alone[(alone["metric"] == "arcsim") & alone["identity"].isna()]
    # The bad file and the video without a face; the others have their value.
    assert arcsim["value"].isna().sum() == 2 and len(arcsim) == len(SIZES) + 1
    assert arcsim["value"].dropna().nunique() == len(SIZES) - 1


def test_references_with_several_faces_or_none_are_told_of(world):
    """r11 and r41 show two faces; here v5's person none."""
    picture = np.zeros((72, 128, 3), np.uint8)
    Image.fromarray(picture).save(world.folder / "r50.png")
    score(world, "run")
    run = json.loads((world.folder / "run/run.json").read_text())
    notes = {name.split("-")[0]: note for name, note in run["scoring"]["reference_notes"].items()}
    two = "2 faces in the image; the largest is used"
    assert notes == {"r11": two, "r41": two, "r50": "no face was found"}
    # From the cache, and of a part of the samples, it is the same.
    next((world.folder / "run/samples").glob("*/scores.json")).unlink()
    done = world.run("score", "run")
    assert done.returncode == 0, done.stderr
    assert json.loads((world.folder / "run/run.json").read_text())["scoring"] == run["scoring"]
    several, nobody = (line for line in done.stdout.splitlines() if "Reference" in line)
    assert "Reference r11-" in several and ", r41-" in several and several.endswith(f"{two}.")
    assert nobody.startswith("Note: Reference r50-") and nobody.endswith(": no face was found.")
    assert world.run("report", "run", "-o", "page.html").returncode == 0
    page = (world.folder / "page.html").read_text()
    assert f": {two}." in page and ": no face was found." in page


def test_what_fails_in_a_window_costs_itself_alone(world, monkeypatch):
    good = score(world, "good")
    samples = good["sample"].drop_duplicates().tolist()
    whole = Scorer._measure

    def measure(self, sample, clip, embeddings):
        if sample.id == samples[4]:
            raise RuntimeError("too\nbad")
        return whole(self, sample, clip, embeddings)

    monkeypatch.setattr(Scorer, "_measure", measure)
    found = score(world, "failing")
    bad = found["sample"] == samples[4]
    assert (found[bad]["reason"] == "scoring failed: RuntimeError: too bad").all()
    others = good[good["sample"] != samples[4]].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[~bad].reset_index(drop=True), others)
    assert "RuntimeError" in (world.folder / "failing/errors.log").read_text()
    # What failed is tried again, and nothing else is.
    monkeypatch.setattr(Scorer, "_measure", whole)
    tried = []
    every = Scorer.score_all
    monkeypatch.setattr(
        Scorer, "score_all",
        lambda self, items: tried.extend(sample.id for sample, _ in items) or every(self, items),
    )
    pd.testing.assert_frame_equal(score(world, "failing"), good)
    assert tried == [samples[4]]


def test_what_every_video_would_meet_ends_the_scoring(world, monkeypatch):
    """Also where the thread that reads ahead meets it."""
    def gone(self, path, digest):
        raise WeightError("The weight file x is missing; restore it.")

    monkeypatch.setattr(Scorer, "open", gone)
    done = world.run("score", "--manifest", "videos.jsonl", "--out", "run", "--name", "x")
    assert done.returncode == 2 and "The weight file x is missing" in done.stderr
    assert not list((world.folder / "run/samples").glob("*/scores.json"))
    assert not [t for t in threading.enumerate() if t.name.startswith("read ahead")]


@pytest.fixture
def interrupt(monkeypatch):
    """`interrupt(n)`: Ctrl-C at the n-th window; what it returns lets scoring go on."""
    whole = Scorer.score_all

    def at(window: int):
        calls = []

        def interrupted(self, items):
            calls.append(len(items))
            if len(calls) == window:
                raise KeyboardInterrupt
            return whole(self, items)

        monkeypatch.setattr(Scorer, "score_all", interrupted)
        return lambda: monkeypatch.setattr(Scorer, "score_all", whole)

    return at


def test_scores_of_before_do_not_pass_for_those_of_an_interrupted_scoring(
    world, monkeypatch, interrupt
):
    monkeypatch.setattr(video_scorer, "WINDOW", 2)
    score(world, "run")
    go_on = interrupt(2)
    assert world.run("score", "run", "--protocol", "consisid-v1").returncode == 130
    table = world.run("table", "run")
    assert table.returncode == 2 and "has no scores yet" in table.stderr
    go_on()
    assert world.run("score", "run", "--protocol", "consisid-v1").returncode == 0
    found = pd.read_parquet(world.folder / "run/scores.parquet")
    assert set(found["metric"]) == {"arcsim", "cursim", "face_coverage", "not_measured"}


@pytest.fixture
def no_work(monkeypatch):
    """From `no_work()` on no network is loaded, and nothing decoded that can be."""
    def forbidden(*_, **__):
        raise AssertionError("a network was loaded, or a video decoded")

    def decoded(path, choose):
        read_chosen(path, choose)
        forbidden()

    def switch():
        monkeypatch.setattr(Embedder, "network", forbidden)
        monkeypatch.setattr("idbench.metrics.scorer.read_chosen", decoded)

    return switch


def test_scoring_again_decodes_nothing_and_runs_no_network(world, no_work):
    wanted = score(world, "run")
    for path in (world.folder / "run/samples").glob("*/scores.json"):
        path.unlink()
    no_work()
    pd.testing.assert_frame_equal(score(world, "run"), wanted)
    # Another protocol, of the same embeddings.
    pair = [part for name in ("arcsim", "cursim", "face_coverage") for part in ("--metric", name)]
    done = world.run("score", "run", "--protocol", "strict-v2", *pair)
    assert done.returncode == 0, done.stderr
    again = pd.read_parquet(world.folder / "run/scores.parquet")
    assert set(again["metric"]) == {"arcsim", "cursim", "face_coverage"}
    assert not again["reason"].str.contains("failed", na=False).any()
    assert again[again["metric"] == "arcsim"]["value"].notna().any()


def test_scoring_from_the_cache_imports_nothing_that_takes_long():
    code = (
        "import sys, idbench.metrics.scorer, idbench.scoring as f\n"
        "f.Scoring.of('strict-v3', ()).key\n"
        "print([m for m in ('torch', 'scipy.stats', 'scipy.optimize') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout


def test_the_table_of_scores_has_the_same_types_whatever_is_in_it(world):
    score(world, "run")
    run = Run.open(world.folder / "run")
    full = pd.read_parquet(collect(run))
    for path in (world.folder / "run/samples").glob("*/scores.json"):
        data = json.loads(path.read_text())
        write_json(path, {**data, "scores": [["arcsim", None, None, 0.5, None]]})
    few = pd.read_parquet(collect(run))
    assert len(few) == len(SIZES) + 1 and few["reason"].isna().all()
    for path in (world.folder / "run/samples").glob("*/scores.json"):
        path.unlink()
    none = pd.read_parquet(collect(run))
    assert len(none) == 0
    for found in (full, few, none):
        assert {name: str(kind) for name, kind in found.dtypes.items()} == COLUMNS


def test_ctrl_c_keeps_what_is_finished(world, monkeypatch, interrupt):
    monkeypatch.setattr(video_scorer, "WINDOW", 2)
    go_on = interrupt(3)
    done = world.run("score", "--manifest", "videos.jsonl", "--out", "run", "--name", "x")
    assert done.returncode == 130
    assert len(list((world.folder / "run/samples").glob("*/scores.json"))) == 4
    assert not [t for t in threading.enumerate() if t.name.startswith("read ahead")]
    go_on()
    assert score(world, "run")["sample"].nunique() == len(SIZES) + 1


class _Counted(dict):
    """Frames whose life is counted."""


class _Record:
    video_sha256 = "-"

    def __init__(self, path: Path) -> None:
        self.video = path


@pytest.mark.parametrize("each", [0, 100])
def test_memory_is_bounded_by_the_window_and_by_bytes(request, monkeypatch, each):
    """`each`: bytes of a video; a window holds 250 of them."""
    monkeypatch.setattr(video_scorer, "WINDOW", 4)
    monkeypatch.setattr(video_scorer, "WINDOW_BYTES", 250)
    monkeypatch.setattr(video_scorer, "sha256_file", lambda path: "-")
    alive: set[int] = set()
    most = opened = 0

    class Fake:
        def open(self, path, digest):
            nonlocal most, opened
            frames = _Counted({0: np.zeros((each, 1, 1), np.uint8)})
            opened += 1
            number = opened
            alive.add(number)
            weakref.finalize(frames, alive.discard, number)
            most = max(most, len(alive))
            return Clip(1, 8.0, frames)

    seen = []
    records = [_Record(Path(str(i))) for i in range(60)]
    gc.freeze()
    request.addfinalizer(gc.unfreeze)
    for window in video_scorer._windows(SimpleNamespace(timings=Timings()), records, Fake()):
        seen += [record.video.name for record, _ in window]
        assert len(window) <= (3 if each else 4)
        del window
        gc.collect()  # quick, as it looks at nothing older than this test
    assert seen == [str(i) for i in range(60)]
    # A window, as many read ahead, and no more.
    assert 1 < most <= (6 if each else 8)


def test_only_frames_that_are_looked_at_are_kept(tmp_path, monkeypatch):
    frames = np.random.default_rng(0).integers(0, 255, (20, 16, 24, 3), dtype=np.uint8)
    path = tmp_path / "v.mp4"
    write_video(path, Video(frames, 8.0))
    asked = []

    def choose(count):
        asked.append(count)
        return (0, 3, 3, count - 1)

    clip = read_chosen(path, choose)
    assert asked == [20, 20] and sorted(clip.frames) == [0, 3, 19] and clip.count == 20
    assert clip.bytes == 3 * frames[0].nbytes and clip.take([3, 3]).shape == (2, 16, 24, 3)
    np.testing.assert_array_equal(clip.take(range(0, 1))[0], read_chosen(path, range).take([0])[0])
    # A header that says another number costs a second decoding, not the right frames.
    import idbench.video as video

    whole = video.decoded_frames

    def lying(path):
        for frame, about in whole(path):
            yield frame, replace(about, frames=7)

    monkeypatch.setattr(video, "decoded_frames", lying)
    again = read_chosen(path, choose)
    assert asked[2:] == [7, 20] and sorted(again.frames) == [0, 3, 19]
    np.testing.assert_array_equal(again.take([19]), clip.take([19]))
    monkeypatch.undo()
    assert count_frames(path) == 20
    with pytest.raises(UnreadableVideo, match="is missing"):
        read_chosen(tmp_path / "gone.mp4", choose)
