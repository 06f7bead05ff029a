"""`idbench run` end to end with a third-party model and metric, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy import World

from idbench import leftovers
from idbench.files import sha256_file
from idbench.types import Video
from idbench.video import write_video


def finished(folder: Path) -> set[str]:
    return {p.parent.name for p in folder.glob("samples/*/sample.json")}


def wait_for(folder: Path, count: int) -> None:
    end = time.monotonic() + 60
    while len(finished(folder)) < count:
        assert time.monotonic() < end, "nothing was generated within a minute"
        time.sleep(0.02)


def test_third_party_model_and_metric_run_from_generation_to_table(world: World) -> None:
    done = world.run(*world.toy())
    assert done.returncode == 0, done.stderr
    assert "| toy" in done.stdout and "Sampled ↑" in done.stdout
    meta = json.loads((world.folder / "out/run.json").read_text())
    assert meta["status"] == "finished" and meta["schema"] == 1
    assert meta["counts"] == {"planned": 8, "generated": 8, "failed": 0}
    assert set(meta["timings"]) >= {"load", "generate", "encode", "decode", "score"}
    assert meta["packages"]["torch"] and meta["hardware"]["cores"]
    scores = pd.read_parquet(world.folder / "out/scores.parquet")
    assert list(scores.columns) == [
        "sample", "metric", "identity", "frame", "value", "status", "reason",
    ]
    assert len(scores) == 8 and (scores["status"] == "scored").all()


def test_repeated_run_generates_nothing_and_loads_no_torch(world: World) -> None:
    log = str(world.folder / "log")
    assert world.run(*world.toy(), TOY_LOG=log).returncode == 0
    before = Path(log).read_text()
    # A torch that cannot be imported shows that it is not imported.
    (world.folder / "block").mkdir()
    (world.folder / "block/torch.py").write_text("raise SystemExit('torch was imported')")
    path = f"{world.folder / 'block'}{os.pathsep}{world.environment['PYTHONPATH']}"
    again = world.apart(*world.toy(), TOY_LOG=log, PYTHONPATH=path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "all 8 videos are already in" in again.stderr and "| toy" in again.stdout
    assert Path(log).read_text() == before


def test_a_part_scored_otherwise_takes_the_rest_with_it(world: World) -> None:
    """One folder has one scoring: else its table would hold values of two."""
    assert world.run(*world.toy()).returncode == 0
    more = world.toy("--metric", "motion", "--limit", "2")
    assert world.run(*more).returncode == 0
    scores = pd.read_parquet(world.folder / "out/scores.parquet")
    assert scores["metric"].value_counts().to_dict() == {"sampled": 8, "motion": 8}
    # What was never scored is not asked for.
    fresh = [a if a != "out" else "fresh" for a in world.toy("--no-score")]
    assert world.run(*fresh).returncode == 0
    part = [a for a in fresh if a != "--no-score"]
    assert world.run(*part, "--limit", "2").returncode == 0
    assert len(pd.read_parquet(world.folder / "fresh/scores.parquet")) == 2


def test_same_samples_give_same_bytes_whatever_the_batch_and_limit(world: World) -> None:
    assert world.run(*world.toy("--batch", "1", "--no-score")).returncode == 0
    other = ["b" if a == "out" else a for a in world.toy("--batch", "8", "--no-score")]
    assert world.run(*other, "--limit", "3").returncode == 0
    some = finished(world.folder / "b")
    assert len(some) == 3 and some < finished(world.folder / "out")
    for sample in some:
        a, b = (world.folder / f / "samples" / sample / "video.mp4" for f in ("out", "b"))
        assert a.read_bytes() == b.read_bytes()


def test_larger_limit_extends_the_run(world: World) -> None:
    log = str(world.folder / "log")
    assert world.run(*world.toy("--limit", "2"), TOY_LOG=log).returncode == 0
    assert world.run(*world.toy("--limit", "5"), TOY_LOG=log).returncode == 0
    assert len(Path(log).read_text().split()) == 5
    assert len(pd.read_parquet(world.folder / "out/scores.parquet")) == 5
    assert json.loads((world.folder / "out/run.json").read_text())["split_size"] == 8


def test_ctrl_c_leaves_a_folder_that_resumes(world: World) -> None:
    interrupted(world, signal.SIGINT, 130)


def test_kill_9_leaves_a_folder_that_resumes(world: World) -> None:
    interrupted(world, signal.SIGKILL, -9)


def of_process(pid: int) -> str:
    """The name of a temporary file of a process that has ended."""
    name = leftovers.temporary_name("video.mp4")
    return re.sub(r"-[0-9a-f]+-[0-9a-f]+-([0-9a-f]+)\.part", rf"-{pid:x}-1-\1.part", name)


def interrupted(world: World, by: signal.Signals, code: int) -> None:
    process = world.start(*world.toy("--batch", "1"), TOY_STOP="2")
    out = world.folder / "out"
    wait_for(out, 2)
    process.send_signal(by)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in error
    kept = finished(out)
    assert 2 <= len(kept) < 8
    stamps = {s: (out / "samples" / s / "video.mp4").stat().st_mtime_ns for s in kept}
    if by == signal.SIGINT:
        assert "run the same command again" in error
        assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    # What a killed process was writing must not stay.
    leftover = out / "samples" / next(iter(kept)) / of_process(process.pid)
    leftover.write_bytes(b"half")
    again = world.run(*world.toy())
    assert again.returncode == 0, again.stderr
    assert len(finished(out)) == 8 and not leftover.exists()
    assert {s: (out / "samples" / s / "video.mp4").stat().st_mtime_ns for s in kept} == stamps


def test_folder_in_use_by_another_process_is_refused(world: World) -> None:
    process = world.start(*world.toy("--batch", "1"), TOY_STOP="1")
    try:
        wait_for(world.folder / "out", 1)
        second = world.run(*world.toy())
    finally:
        process.kill()
        process.communicate()
    assert second.returncode == 2
    assert f"in use by process {process.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def test_failed_samples_are_counted_and_the_others_kept(world: World) -> None:
    done = world.run(*world.toy("--set", "fail=park"))
    assert done.returncode == 0, done.stderr
    assert "4 of 8 samples failed" in done.stdout and "toy cannot paint this" in done.stdout
    assert "(50%)" in done.stdout
    scores = pd.read_parquet(world.folder / "out/scores.parquet")
    assert scores["status"].value_counts().to_dict() == {"scored": 4, "unscored": 4}
    assert scores["value"].isna().sum() == 4
    assert "toy cannot paint this" in (world.folder / "out/errors.log").read_text()
    log = world.folder / "log"
    world.run(*world.toy("--set", "fail=park"), TOY_LOG=str(log))
    assert not log.exists(), "failed samples are tried again only with --retry-failed"
    world.run(*world.toy("--set", "fail=park", "--retry-failed"), TOY_LOG=str(log))
    assert len(set(log.read_text().split())) == 4


def test_every_sample_failing_is_an_error(world: World) -> None:
    done = world.run(*world.toy("--set", "fail=person"))
    assert done.returncode == 2
    assert "All 8 samples failed" in done.stderr and "toy cannot paint this" in done.stderr


def test_folder_of_another_run_is_refused(world: World) -> None:
    assert world.run(*world.toy("--limit", "1")).returncode == 0
    other = world.run(*world.toy("--set", "steps=9"))
    assert other.returncode == 2
    assert "contains another run (its model settings steps is 3, not 9)" in other.stderr
    (world.folder / "mine").mkdir()
    (world.folder / "mine/photo.jpg").write_bytes(b"x")
    foreign = world.run(*["mine" if a == "out" else a for a in world.toy()])
    assert foreign.returncode == 2 and "contains other files (photo.jpg)" in foreign.stderr
    assert (world.folder / "mine/photo.jpg").read_bytes() == b"x"


def test_too_many_references_for_the_model_are_refused(world: World) -> None:
    arguments = ["run", "--model", "toy", "--split", "multi", "--suite", str(world.suite),
                 "--metric", "sampled"]
    done = world.run(*arguments, "--set", "maximum_references=1")
    assert done.returncode == 2 and "takes at most 1 reference(s)" in done.stderr
    assert world.run(*arguments).returncode == 0
    assert (world.folder / "runs/toy-tiny-multi/run.json").exists()


def test_removed_video_is_generated_again_and_changed_one_is_unscored(world: World) -> None:
    assert world.run(*world.toy()).returncode == 0
    videos = sorted((world.folder / "out").glob("samples/*/video.mp4"))
    original = videos[0].read_bytes()
    videos[0].unlink()
    assert world.run(*world.toy()).returncode == 0
    assert videos[0].read_bytes() == original
    changed = bytearray(videos[1].read_bytes())
    changed[-1] ^= 1
    videos[1].write_bytes(changed)
    (videos[1].parent / "scores.json").unlink()
    assert world.run("score", "out", "--metric", "sampled").returncode == 0
    scores = pd.read_parquet(world.folder / "out/scores.parquet")
    reasons = scores.loc[scores["sample"] == videos[1].parent.name, "reason"].tolist()
    assert reasons == ["the video was changed after it was finished"]


def test_scores_of_another_video_are_not_kept(world: World) -> None:
    """The video and its record are replaced: the stored scores are of the video before."""
    assert world.run(*world.toy("--limit", "2")).returncode == 0
    before = pd.read_parquet(world.folder / "out/scores.parquet")
    path = sorted(world.folder.glob("out/samples/*/sample.json"))[0]
    video = path.with_name("video.mp4")
    write_video(video, Video(np.zeros((2, 32, 48, 3), np.uint8), 8.0))  # it had five frames
    record = json.loads(path.read_text()) | {
        "video_sha256": sha256_file(video), "video_bytes": video.stat().st_size}
    path.write_text(json.dumps(record))
    assert world.run("score", "out", "--metric", "sampled").returncode == 0
    after = pd.read_parquet(world.folder / "out/scores.parquet")
    change = (after["value"] - before["value"]).groupby(after["sample"]).sum().to_dict()
    assert change.pop(path.parent.name) == -3 and set(change.values()) == {0.0}


def test_two_protocols_never_share_a_table(world: World) -> None:
    """A video is gone, and the rest is scored again under another protocol."""
    assert world.run(*world.toy("--limit", "2")).returncode == 0
    first, second = sorted(world.folder.glob("out/samples/*"))
    (first / "video.mp4").unlink()
    again = ["score", "out", "--metric", "sampled", "--protocol", "strict-v1"]
    assert world.run(*again).returncode == 0
    scores = pd.read_parquet(world.folder / "out/scores.parquet").set_index("sample")
    assert scores.loc[second.name, "status"] == "scored"
    assert "video is missing" in scores.loc[first.name, "reason"]
    # Without any video left, the scores stay those of one protocol.
    (second / "video.mp4").unlink()
    done = world.run("score", "out", "--metric", "sampled")
    assert done.returncode == 2 and "no video left to score with strict-v3" in done.stderr
    assert world.run(*again).returncode == 0


def change_plugin(world: World, monkeypatch: pytest.MonkeyPatch, **attributes: object) -> None:
    """What a newer version of the third-party model would say of itself."""
    import toy_plugin

    for name, value in attributes.items():
        monkeypatch.setattr(toy_plugin.Toy, name, value)


def test_a_model_that_changes_directory_moves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import toy_plugin

    (world.folder / "elsewhere").mkdir()
    paint = toy_plugin.Toy.generate

    def generate(self: object, samples: object) -> Iterator[Video]:
        for video in paint(self, samples):
            os.chdir("/")
            yield video

    monkeypatch.setattr(
        toy_plugin.Toy, "load", lambda self: os.chdir("elsewhere"), raising=False)
    monkeypatch.setattr(toy_plugin.Toy, "settings", lambda self: os.chdir("/") or {})
    monkeypatch.setattr(toy_plugin.Toy, "generate", generate)
    toy = [a if a != str(world.suite) else "tiny" for a in world.toy("--limit", "2")]
    toy[toy.index("tiny")] = "./tiny"
    done = world.run(*toy)
    assert done.returncode == 0, done.stderr
    assert "Run folder: out\n" in done.stdout and "in out\n" in done.stderr
    assert len(pd.read_parquet(world.folder / "out/scores.parquet")) == 2
    assert not any((world.folder / "elsewhere").iterdir())
    other = world.run(*[a if a != "single" else "multi" for a in toy])
    assert other.returncode == 2 and other.stderr.startswith("Error: out contains another run")


def test_a_package_that_changes_directory_when_imported_moves_nothing(
    world: World, plugin: Path
) -> None:
    moved = world.folder / "site"
    shutil.copytree(plugin, moved)
    with open(moved / "toy_plugin.py", "a") as stream:
        stream.write('\nos.chdir("/")\n')
    toy = [a if a != str(world.suite) else "./tiny" for a in world.toy("--limit", "1")]
    done = world.apart(*toy, PYTHONPATH=str(moved))
    assert done.returncode == 0 and (world.folder / "out/scores.parquet").exists(), done.stderr


@pytest.mark.parametrize("attributes, words", [
    ({"revision": "2"}, "its model revision is 1, not 2"),
    ({"weight_hashes": lambda self: {"toy.pt": "ab"}}, "its model weights toy.pt is None, not"),
    ({"settings": lambda self: {"steps": 3, "new": 1}}, "its model settings new is None, not"),
])
def test_a_changed_model_is_not_the_stored_one(
    world: World, monkeypatch: pytest.MonkeyPatch, attributes: dict[str, object], words: str
) -> None:
    """Also when all videos are there: the old table would pass for that of the new model."""
    assert world.run(*world.toy("--limit", "2")).returncode == 0
    change_plugin(world, monkeypatch, **attributes)
    done = world.run(*world.toy("--limit", "2"))
    assert done.returncode == 2 and words in done.stderr
    assert "--force" in done.stderr
    log = world.folder / "log"
    forced = world.run(*world.toy("--limit", "2", "--force"), TOY_LOG=str(log))
    assert forced.returncode == 0, forced.stderr
    assert len(log.read_text().split()) == 2
    assert world.run(*world.toy("--limit", "2")).returncode == 0


def test_force_generates_and_scores_again(world: World) -> None:
    log = str(world.folder / "log")
    assert world.run(*world.toy("--limit", "3")).returncode == 0
    assert world.run(*world.toy("--limit", "2", "--force"), TOY_LOG=log).returncode == 0
    assert len(Path(log).read_text().split()) == 2
    assert len(pd.read_parquet(world.folder / "out/scores.parquet")) == 2
    before = {p: p.stat().st_mtime_ns for p in world.folder.glob("out/samples/*/scores.json")}
    assert world.run("score", "out", "--metric", "sampled").returncode == 0
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert world.run("score", "out", "--metric", "sampled", "--force").returncode == 0
    assert all(p.stat().st_mtime_ns > stamp for p, stamp in before.items())


def test_a_damaged_sample_costs_that_sample_alone(world: World) -> None:
    assert world.run(*world.toy("--limit", "3")).returncode == 0
    path = sorted(world.folder.glob("out/samples/*/sample.json"))[0]
    path.write_text(path.read_text()[:-40])
    table = world.run("table", "out")
    assert table.returncode == 0 and "Traceback" not in table.stderr
    assert f"sample {path.parent.name} is damaged" in table.stdout.replace("\n", " ")
    log = world.folder / "log"
    assert world.run(*world.toy("--limit", "3"), TOY_LOG=str(log)).returncode == 0
    assert log.read_text().split() == [path.parent.name]


def test_several_seeds_are_pooled_with_one_cluster_an_identity(world: World) -> None:
    done = world.run(*world.toy("--seeds", "0,1,2", "--limit", "2"))
    assert done.returncode == 0, done.stderr
    scores = pd.read_parquet(world.folder / "out/scores.parquet")
    assert len(scores) == 6 and scores["value"].nunique() > 2
    table = json.loads(world.run("table", "out", "--format", "json").stdout)
    estimate = table["measured"][0]["metrics"]["sampled"]
    assert estimate["n"] == 6 and estimate["clusters"] == 2
    for seeds in ("0,1", "3,1", "0"):
        other = world.run(*world.toy("--seeds", seeds, "--limit", "2"))
        assert other.returncode == 2
        assert f"another run (its --seeds is 0,1,2, not {seeds})" in other.stderr
    for text in ("0,0", "-1", "a", "1" * 300, ""):
        refused = world.run(*world.toy("--seeds", text))
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
