"""`idbench score`: finished videos by reference, manifest, suite, and run folder."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toy import World

from idbench.differences import scoring_differences
from idbench.provenance import opencv_version
from idbench.runs import Run
from idbench.suite import load_suite
from idbench.types import Video
from idbench.video import read_video, write_video


@pytest.fixture
def clips(world: World) -> list[Path]:
    """Two videos and two pictures in the world's folder."""
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        frames = rng.integers(0, 255, (4, 32, 48, 3), dtype=np.uint8)
        write_video(world.folder / "videos" / f"{name}.mp4", Video(frames, 8.0))
        Image.fromarray(frames[0]).save(world.folder / f"{name}.png")
    return sorted((world.folder / "videos").iterdir())


def scores(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "scores.parquet")


def test_single_video_with_a_reference(world: World, clips: list[Path]) -> None:
    done = world.run("score", "videos/one.mp4", "--reference", "one.png", "--metric", "sampled")
    assert done.returncode == 0, done.stderr
    assert "| one" in done.stdout
    run = world.folder / "runs/score-one"
    assert len(scores(run)) == 1
    (record,) = [json.loads(p.read_text()) for p in run.glob("samples/*/sample.json")]
    assert record["source"] == "videos/one.mp4" and record["shape"] is None
    assert (run / record["references"][0]["image"]).is_file()


def test_unreadable_video_is_a_failed_sample(world: World, clips: list[Path]) -> None:
    data = clips[0].read_bytes()
    clips[0].write_bytes(data[: len(data) // 2])
    done = world.run("score", "videos", "--reference", "one.png", "--metric", "sampled")
    assert done.returncode == 0, done.stderr
    found = scores(world.folder / "runs/score-videos")
    assert sorted(found["status"]) == ["scored", "unscored"]
    assert "cannot be read" in found["reason"].dropna().item()
    assert "(50%)" in done.stdout and "Traceback" not in done.stderr
    assert "1 of 2 samples failed" in done.stdout and "one.mp4 cannot be read" in done.stdout
    alone = world.run("score", str(clips[0]), "--reference", "one.png", "--metric", "sampled")
    assert alone.returncode == 2 and "The only sample failed because the video" in alone.stderr
    assert "samples failed" not in alone.stdout, "it is said once"
    assert ".;" not in alone.stderr and ".." not in alone.stderr


def test_other_files_of_a_folder_are_skipped_and_named(world: World, clips: list[Path]) -> None:
    folder = world.folder / "videos"
    (folder / "._one.mp4").write_bytes(b"macOS keeps metadata here")
    (folder / "notes.docx").write_bytes(b"x")
    (folder / "deeper").mkdir()
    shutil.copy(clips[0], folder / "deeper/inner.mp4")
    (folder / "empty").mkdir()
    for suffix in (".ts", ".mpg", ".wmv", ".flv", ".vob", ".asf"):
        transcode(clips[0], folder / f"other{suffix}")
    done = world.run("score", "videos", "--reference", "one.png", "--metric", "sampled")
    assert done.returncode == 0, done.stderr
    assert "2 files were skipped (not a video, or not of a sample): deeper, notes.docx" in (
        done.stderr)
    found = scores(world.folder / "runs/score-videos")
    assert len(found) == 8 and found["value"].notna().all(), found


def transcode(source: Path, target: Path) -> None:
    codec = {".wmv": "wmv2", ".asf": "wmv2", ".flv": "flv1"}.get(target.suffix, "mpeg2video")
    with av.open(str(target), "w") as container:
        stream = container.add_stream(codec, rate=25)
        frames = read_video(source).frames
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for array in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("reference", ["text.png", "videos/one.mp4"])
def test_a_reference_that_is_no_picture_is_refused_at_once(
    world: World, clips: list[Path], reference: str
) -> None:
    (world.folder / "text.png").write_text("no picture")
    done = world.run("score", "videos/one.mp4", "--reference", reference, "--metric", "sampled")
    assert done.returncode == 2 and f"The image {reference} cannot be read" in done.stderr
    assert "Traceback" not in done.stderr and not (world.folder / "runs").exists()


def test_another_reference_is_another_run(world: World, clips: list[Path]) -> None:
    """Both would go to the same default folder; the second must not take the first one's place."""
    score = ("score", "videos/one.mp4", "--metric", "sampled", "--reference")
    assert world.run(*score, "one.png").returncode == 0
    other = world.run(*score, "two.png")
    assert other.returncode == 2
    assert "contains another run (of other videos, references or prompts)" in other.stderr
    video = world.run("score", "videos/one.mp4", "--manifest", "any.csv")
    assert video.returncode == 2 and "videos/one.mp4 is not a folder; with --man" in video.stderr
    assert world.run(*score, "one.png").returncode == 0
    prompt = world.run(*score, "one.png", "--prompt", "another")
    assert prompt.returncode == 2 and "of other videos, references or prompts" in prompt.stderr
    assert world.run(*score, "two.png", "--out", "runs/two").returncode == 0
    beside = ("score", "videos/two.mp4", "--metric", "sampled", "--reference", "two.png")
    assert world.run(*beside, "--out", "runs/two").returncode == 2
    assert world.run(*score, "two.png", "--force", "--out", "runs/two").returncode == 0


@pytest.mark.parametrize("name", ["a/b", "/../../outside", "x" * 300, "Zoé " * 60])
def test_the_default_folder_of_any_name_lies_under_runs(
    world: World, clips: list[Path], name: str
) -> None:
    arguments = ("score", "videos/one.mp4", "--reference", "one.png", "--metric", "sampled")
    done = world.run(*arguments, "--name", name)
    assert done.returncode == 0, done.stderr
    (folder,) = (world.folder / "runs").iterdir()
    assert (folder / "scores.parquet").is_file() and not (world.folder / "outside").exists()
    other = world.run(*arguments, "--name", name + "y")
    assert other.returncode == 0 and len(list((world.folder / "runs").iterdir())) == 2


def test_two_folders_with_equal_file_names_are_scored_together(
    world: World, clips: list[Path]
) -> None:
    for name, clip in zip(("anna", "ben"), clips, strict=True):
        (world.folder / name).mkdir()
        clip.rename(world.folder / name / "clip.mp4")
    done = world.run("score", "anna", "ben", "--reference", "one.png", "--metric", "sampled")
    assert done.returncode == 0, done.stderr
    assert scores(world.folder / "runs/score-anna")["sample"].nunique() == 2


def test_names_in_either_unicode_form_are_one_name(world: World, clips: list[Path]) -> None:
    clips[0].rename(world.folder / "videos" / unicodedata.normalize("NFD", "Zoé.mp4"))
    (world.folder / "list.csv").write_text(
        "video,reference\nvideos/" + unicodedata.normalize("NFC", "Zoé.mp4") + ",one.png\n")
    done = world.run("score", "--manifest", "list.csv", "--metric", "sampled")
    assert done.returncode == 0, done.stderr
    assert scores(world.folder / "runs/score-list")["value"].notna().all()


ROWS = 'video;prompt;reference\nvideos/one.mp4;"a café; at night";one.png;\n'


@pytest.mark.parametrize("data, words", [
    (ROWS.replace(";\n", "\n").encode("utf-16"), ""),
    (ROWS.replace(";\n", "\n").encode("utf-8-sig"), ""),
    (ROWS.replace(";\n", "\n").replace(";", "\t").encode(), ""),
    (ROWS.replace(";\n", "\n").encode("cp1252"), "is not UTF-8 text; save it as UTF-8"),
    (ROWS.replace("png;", "png;x").encode(),
     "line 2 has more columns than the first line; put text"),
    (ROWS.encode(), ""),
    (ROWS.replace("\n", ";;\n").encode(), ""),
    (b"sep=;\r\n" + ROWS.encode(), ""),
    (ROWS.replace("video;prompt;reference", " Video ;PROMPT; reference").encode(), ""),
    (b"sep=\n" + ROWS.encode(), "line 1 must name one separator"),
    (b"sep=;\n" + ROWS.replace("one.png", "x.png").replace("videos/one.mp4", "").encode(),
     "line 3: the field 'video'"),
    (ROWS.encode("utf-32"), ""),
    (ROWS.encode("utf-16-le"), "is not UTF-8 text; save it as UTF-8"),
    (ROWS.replace("prompt", "video").encode(), "has two columns named 'video'"),
    (b"video,reference\n\n\nvideos/one.mp4,one.png\nvideos/one.mp4,x.png\n", "x.png is missing"),
    (b"video,reference\n\"videos/one.mp4\n\",one.png\n,one.png\n", "line 4"),
    (b"video,refrence\nvideos/one.mp4,one.png\n", "'refrence': did you mean 'reference'?"),
    (b"video,reference\n" + b"v" * 200_000 + b",one.png\n", "File name too long"),
])
def test_manifests_as_spreadsheets_write_them(
    world: World, clips: list[Path], data: bytes, words: str
) -> None:
    (world.folder / "list.csv").write_bytes(data)
    done = world.run("score", "--manifest", "list.csv", "--metric", "sampled")
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if words else 0), done.stderr
    assert words in done.stdout + done.stderr


@pytest.mark.parametrize("line, words", [
    ('{"video": "videos/one.mp4", "reference": "one.png", "prompt": "a\u2028b\u0085c"}', ""),
    ('{"video": "videos/one.mp4", "reference": "one.png", "prompt": "\\ud800"}', "surrogate"),
    ('{"video": ["a"], "reference": "one.png"}', "the field 'video' is wrong"),
    ('{"video": "videos/one.mp4", "reference": {"a": 1}}', "'reference"),
    ('{"video": "videos/one.mp4", "reference": "one.png", "prompt": 5}', ""),
    ("[" * 100_000, "not valid JSON"),
])
def test_json_lines_of_every_kind(
    world: World, clips: list[Path], line: str, words: str
) -> None:
    (world.folder / "list.jsonl").write_text(line + "\n", encoding="utf-8")
    done = world.run("score", "--manifest", "list.jsonl", "--metric", "sampled")
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if words else 0), done.stderr
    assert words in done.stderr


@pytest.mark.parametrize("suffix", [".xlsx", ".xlsm"])
def test_spreadsheets_are_named(world: World, suffix: str) -> None:
    (world.folder / f"list{suffix}").write_bytes(b"PK")
    done = world.run("score", "--manifest", f"list{suffix}")
    assert done.returncode == 2 and "is a spreadsheet; save it as CSV" in done.stderr


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_manifest(world: World, clips: list[Path], form: str) -> None:
    manifest = world.folder / f"list.{form}"
    if form == "csv":
        manifest.write_text(
            "video,prompt,reference\nvideos/one.mp4,two people,one.png;two.png\n"
            "videos/gone.mp4,a person,one.png\n"
        )
    else:
        rows = [
            {"video": "videos/one.mp4", "prompt": "two people",
             "references": ["one.png", "two.png"]},
            {"video": "videos/gone.mp4", "prompt": "a person", "reference": "one.png"},
        ]
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = world.run("score", "--manifest", manifest.name, "--metric", "sampled", "--name", "kling")
    assert done.returncode == 0, done.stderr
    assert "| kling" in done.stdout and "there is no video" in done.stdout
    found = scores(world.folder / "runs/score-kling")
    assert sorted(found["status"]) == ["scored", "unscored"]


def test_manifest_with_an_unknown_field_says_the_nearest(world: World) -> None:
    (world.folder / "list.csv").write_text("video,promt,reference\na.mp4,x,b.png\n")
    done = world.run("score", "--manifest", "list.csv")
    assert done.returncode == 2
    assert "list.csv line 1 has an unknown column 'promt': did you mean 'prompt'?" in done.stderr


def test_manifest_without_a_heading_says_so(world: World) -> None:
    (world.folder / "list.csv").write_text("a.mp4,a person,b.png\n")
    done = world.run("score", "--manifest", "list.csv")
    assert done.returncode == 2 and "line 1 names no column" in done.stderr
    assert "such as video,prompt,reference." in done.stderr


def test_what_does_not_belong_together_is_named(world: World) -> None:
    (world.folder / "runs/old").mkdir(parents=True)
    (world.folder / "runs/old/run.json").write_text("{}")
    (world.folder / "a.png").write_bytes(b"")
    for arguments, told in (
        (("runs",), f"runs contains runs; pass one of them, such as {Path('runs/old')}"),
        (("runs/old", "--reference", "a.png"), "runs/old is a run folder; score it without"),
        (("runs/old", "--prompt", "x"), "--prompt goes with --reference"),
        (("--manifest", "list.csv", "--prompt", "x"), "--prompt goes with --reference"),
    ):
        done = world.run("score", *arguments)
        assert done.returncode == 2 and told in done.stderr, (arguments, done.stderr)


def test_videos_of_a_suite_by_sample_id(world: World, clips: list[Path]) -> None:
    samples = load_suite(world.suite).samples("single")
    folder = world.folder / "theirs"
    folder.mkdir()
    for sample in samples[:3]:
        (folder / f"{sample.id}.mp4").write_bytes(clips[0].read_bytes())
    listed = world.run("list", "samples", "--suite", str(world.suite), "--split", "single",
                       "--json")
    assert [row["id"] for row in json.loads(listed.stdout)] == [s.id for s in samples]
    done = world.run("score", "theirs", "--suite", str(world.suite), "--split", "single",
                     "--metric", "sampled")
    assert done.returncode == 0, done.stderr
    assert "5 of 8 samples failed" in done.stdout
    some = world.run("score", "theirs", "--suite", str(world.suite), "--split", "single",
                     "--metric", "sampled", "--limit", "4", "--out", "some")
    assert some.returncode == 0, some.stderr
    for command in (["--validate"], ["--pack", "packed"]):
        refused = world.run("leaderboard", "some", *command)
        assert refused.returncode in (1, 2)
        assert "some has 3 of the 8 samples of single" in refused.stdout + refused.stderr
    found = scores(world.folder / "runs/score-theirs")
    assert found["status"].value_counts().to_dict() == {"unscored": 5, "scored": 3}
    # A later delivery of the rest is taken up, and what is scored is kept.
    for sample in samples[3:]:
        (folder / f"{sample.id}.mp4").write_bytes(clips[1].read_bytes())
    again = world.run("score", "theirs", "--suite", str(world.suite), "--split", "single",
                      "--metric", "sampled")
    assert again.returncode == 0, again.stderr
    found = scores(world.folder / "runs/score-theirs")
    assert found["status"].value_counts().to_dict() == {"scored": 8}


def test_other_videos_in_the_same_folder_do_not_mix(world: World, clips: list[Path]) -> None:
    arguments = ["--reference", "one.png", "--metric", "sampled", "--name", "x"]
    assert world.run("score", "videos", *arguments).returncode == 0
    assert len(scores(world.folder / "runs/score-x")) == 2
    assert world.run("score", "videos/two.mp4", *arguments).returncode == 0
    assert len(scores(world.folder / "runs/score-x")) == 1


def test_missing_things_are_named(world: World, clips: list[Path]) -> None:
    for arguments, words in (
        (("videos/x.mp4", "--reference", "one.png"), "The video videos/x.mp4 is missing"),
        (("videos/one.mp4", "--reference", "x.png"), "The reference image x.png is missing"),
        (("videos/one.mp4",), "Pass what the videos should show"),
        (("videos", "--suite", str(world.suite), "--split", "single"), "No video in videos is"),
        (("videos", "--reference", "one.png", "--split", "single"), "Pass only one of"),
    ):
        done = world.run("score", *arguments)
        assert done.returncode == 2 and words in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_run_without_scores_is_scored_later(world: World) -> None:
    assert world.run(*world.toy("--no-score")).returncode == 0
    assert not (world.folder / "out/scores.parquet").exists()
    log = world.folder / "log"
    assert world.run("score", "out", "--metric", "sampled", TOY_LOG=str(log)).returncode == 0
    assert len(scores(world.folder / "out")) == 8 and not log.exists()


@pytest.mark.parametrize("file, key, value", [
    ("samples/*/sample.json", "references.0.image", "../../one.png"),
    ("samples/*/sample.json", "references.0.image", "/etc/passwd"),
    ("samples/*/sample.json", "video", "../../../one.mp4"),
    ("run.json", "samples", {"a": "../b"}),
])
def test_stored_paths_stay_inside_the_run(
    world: World, clips: list[Path], file: str, key: str, value: object
) -> None:
    score = ("score", "videos/one.mp4", "--reference", "one.png", "--metric", "sampled")
    assert world.run(*score, "--out", "out").returncode == 0
    (path,) = (world.folder / "out").glob(file)
    record = json.loads(path.read_text())
    *places, last = key.split(".")
    part = record
    for place in places:
        part = part[int(place) if place.isdigit() else place]
    part[last] = value
    path.write_text(json.dumps(record))
    run = world.folder / "out"
    if file == "run.json":
        done = world.run("table", "out")
        assert done.returncode == 2 and "'samples.a' is wrong" in done.stderr, done.stderr
    else:
        opened = Run.open(run)
        assert opened.records() == [] and "inside the folder" in str(opened.damaged) or (
            "plain name" in str(opened.damaged))


def test_another_opencv_is_another_scoring(
    world: World, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    score = ("score", "videos/one.mp4", "--reference", "one.png", "--metric", "sampled")
    assert world.run(*score, "--out", "out").returncode == 0
    run = world.folder / "out"
    about = json.loads((run / "run.json").read_text())
    assert about["scoring"]["opencv"] == opencv_version() != "missing"
    # A run that was scored before the version was recorded is not another scoring.
    old = {**about, "scoring": {k: v for k, v in about["scoring"].items() if k != "opencv"}}
    (run / "run.json").write_text(json.dumps(old))
    scored = next(run.glob("samples/*/scores.json"))
    before = scored.stat().st_mtime_ns
    assert world.run(*score, "--out", "out").returncode == 0
    assert scored.stat().st_mtime_ns == before
    unknown = Run.open(run).file.scoring
    assert unknown.opencv is None
    (run / "run.json").write_text(json.dumps(about))
    known = Run.open(run).file.scoring
    assert not any(scoring_differences(known, unknown).values())
    other = known.model_copy(update={"opencv": "4.0"})
    assert scoring_differences(known, other)["detector"]
    # Another version now: asked for, and then everything is measured again.
    monkeypatch.setattr("idbench.scoring.opencv_version", lambda: "4.0")
    done = world.run(*score, "--out", "out")
    assert done.returncode == 2 and "OpenCV" in done.stderr
    (run / "embeddings").mkdir(exist_ok=True)
    (run / "embeddings/old").write_text("of the other version")
    assert world.run("score", "out", "--metric", "sampled").returncode == 0
    assert Run.open(run).file.scoring.opencv == "4.0"
    assert scored.stat().st_mtime_ns != before and not (run / "embeddings/old").exists()
