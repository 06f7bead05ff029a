"""What killed processes, failing disks and several processes at once leave behind."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from safetensors import SafetensorError
from toy import World

from idbench import files, holding, leftovers, lock
from idbench.errors import FatalError, UserError, explained
from idbench.files import DiskError, atomic_folder, atomic_path, disk_errors
from idbench.runs import Run, Shard

WAITING = """
import sys, time
from pathlib import Path
from idbench.files import atomic_folder, atomic_path
place = Path(sys.argv[1])
with atomic_path(place / "file.safetensors") as file, atomic_folder(place / "study") as folder:
    file.write_bytes(b"half")
    (folder / "part.html").write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


def hidden(folder: Path) -> set[str]:
    """What is left of temporary files anywhere in a folder."""
    return {p.name for p in folder.rglob(".*") if ".part" in p.name or ".lock-" in p.name}


def test_what_a_killed_process_was_writing_is_removed_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "place"
    writing = [subprocess.Popen([sys.executable, "-c", WAITING, str(place)],
                                stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in writing:
        assert process.stdout and process.stdout.readline() == "ready\n"
    assert len(hidden(place)) == 4
    writing[0].kill()  # not waited for: it is a zombie, which is dead too
    end = time.monotonic() + 10
    while len(hidden(place)) > 2:
        assert time.monotonic() < end
        leftovers.clear(str(place))
        time.sleep(0.05)
    assert hidden(place) and all(f"-{writing[1].pid:x}-" in name for name in hidden(place))
    foreign = place / re.sub(r"\.ib-[0-9a-f]{8}-", ".ib-00000000-", next(iter(hidden(place))))
    foreign.write_bytes(b"another machine's")
    mine = place / ".notes.part"
    mine.write_bytes(b"a user's")
    for process in writing:
        process.kill()
        process.communicate()
    leftovers.clear(str(place))
    assert hidden(place) == {foreign.name, mine.name}
    leftovers.clear(str(place), everyone=True)
    assert hidden(place) == {mine.name}


def test_the_first_write_into_a_folder_clears_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(leftovers, "_CLEARED", set())
    dead = re.sub(r"-[0-9a-f]+-[0-9a-f]+-([0-9a-f]+)\.part", r"-3fffff-1-\1.part",
                  leftovers.temporary_name("figure.svg"))
    (tmp_path / dead).write_bytes(b"half")
    with atomic_path(tmp_path / "x") as temporary:
        temporary.write_bytes(b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty") as folder:
        (folder / "x").write_bytes(b"x")
    assert (tmp_path / "empty/x").exists() and len(list(tmp_path.iterdir())) == 2


def test_a_long_name_has_a_temporary_one(tmp_path: Path) -> None:
    with atomic_path(tmp_path / f"{'ü' * 120}.png") as temporary:
        temporary.write_bytes(b"x")


@pytest.mark.parametrize("number, words", [
    (errno.EIO, "Input/output error"), (errno.ESTALE, "Stale file handle"),
    (errno.EMFILE, "Too many files are open"),
])
def test_a_disk_that_fails_is_one_sentence_and_ends_the_run(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    real, seen = os.replace, []

    def replace(source: object, target: object) -> None:
        if str(target).endswith("video.mp4"):
            seen.append(target)
            if len(seen) > 2:
                raise OSError(number, os.strerror(number))
        real(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(files.os, "replace", replace)
    done = world.run(*world.toy("--batch", "1"))
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert len(seen) == 3, "no further sample is tried"
    monkeypatch.setattr(files.os, "replace", real)
    assert not hidden(world.folder / "out")
    assert world.run(*world.toy()).returncode == 0


def test_a_full_disk_is_named_by_a_folder_that_lasts(tmp_path: Path) -> None:
    with (pytest.raises(files.DiskFull, match=f"The disk with {tmp_path} is full"),
          atomic_folder(tmp_path / "study") as folder, atomic_path(folder / "media/x")):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error, words", [
    (OSError("No space left on device"), "The disk with .* is full"),
    (OSError("221184 requested and 57216 written"), "The disk with .* is full"),
    (SafetensorError("I/O error: No space left on device (os error 28)"), "is full"),
    (SafetensorError("I/O error: Input/output error (os error 5)"), r"x\.npy cannot be written"),
])
def test_a_library_that_gives_only_words_is_understood(
    tmp_path: Path, error: Exception, words: str
) -> None:
    with pytest.raises(DiskError, match=words), disk_errors(tmp_path / "x.npy"):
        raise error


def test_a_library_that_does_not_fit_into_memory_is_not_to_be_reinstalled() -> None:
    with pytest.raises(UserError, match="failed to map segment.*; the memory is full"):
        with explained("The trainer cannot be loaded", "reinstall its package"):
            raise ImportError("libtorch_cpu.so: failed to map segment from shared object")
    with pytest.raises(UserError, match="; try device=cpu if memory is short"):
        with explained("It cannot be loaded", "try device=cpu if memory is short"):
            raise RuntimeError("CUDA out of memory")


def test_a_disk_that_fails_is_named_by_a_path_that_lasts(tmp_path: Path) -> None:
    with (pytest.raises(DiskError, match=f"{tmp_path} cannot be written"),
          atomic_folder(tmp_path / "study") as folder, atomic_path(folder / "media/x")):
        raise OSError(errno.EIO, "Input/output error")


def test_errors_of_other_kinds_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path / "x"):
        raise FileNotFoundError(errno.ENOENT, "gone")


def test_a_folder_that_is_taken_off_is_not_written_to_again(world: World) -> None:
    """As when a network folder goes away: the place where it was mounted is another folder."""
    process = world.start(*world.toy("--batch", "1"), TOY_STOP="2")
    out, away = world.folder / "out", world.folder / "away"
    end = time.monotonic() + 60
    while len(list(out.glob("samples/*/sample.json"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    out.rename(away)
    out.mkdir()
    (world.folder / "go").touch()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2 and "is not there any more" in error
    assert "Traceback" not in error and not list(out.glob("*"))
    for hidden_file in out.iterdir():
        hidden_file.unlink()
    out.rmdir()
    away.rename(out)
    kept = len(list(out.glob("samples/*/sample.json")))
    log = world.folder / "log"
    assert world.run(*world.toy(), TOY_LOG=str(log)).returncode == 0
    assert len(log.read_text().split()) == 8 - kept
    assert not hidden(out)


@pytest.mark.parametrize(("limit", "value"), [
    (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_AS, 2_000_000_000),
], ids=["64 open files", "2 GB of memory"])
def test_little_is_enough(world: World, limit: int, value: int) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "idbench.cli", *world.toy("--batch", "1")], cwd=world.folder,
        env={**os.environ, **world.environment}, capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(limit, (value, value)),
    )
    assert process.returncode == 0, process.stderr
    assert len(pd.read_parquet(world.folder / "out/scores.parquet")) == 8


def test_a_clock_that_is_set_back_changes_nothing(world: World) -> None:
    assert world.run(*world.toy("--limit", "4")).returncode == 0
    future = time.time() + 5e7
    before = {}
    for path in (world.folder / "out").rglob("*"):
        os.utime(path, (future, future))
        before[path] = path.stat().st_mtime_ns
    log = world.folder / "log"
    assert world.run(*world.toy(), TOY_LOG=str(log)).returncode == 0
    assert len(log.read_text().split()) == 4
    kept = [p for p in before if p.name in ("video.mp4", "sample.json", "scores.json")]
    assert len(kept) == 12 and all(p.stat().st_mtime_ns == before[p] for p in kept)


def test_sigterm_is_handled_as_ctrl_c(world: World) -> None:
    process = world.start(*world.toy("--batch", "1"), TOY_STOP="1")
    end = time.monotonic() + 60
    while not list((world.folder / "out").glob("samples/*/sample.json")):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143 and error.splitlines()[-1].startswith("Terminated.")
    assert json.loads((world.folder / "out/run.json").read_text())["status"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# -- several processes in one run folder


def test_a_shard_is_every_nth_item() -> None:
    assert Shard.parse("1/3").of(range(8)) == [1, 4, 7]
    for text in ("3/3", "-1/3", "1", "", "a/b", "0/0", "1/3/5", "0/99999999", "²/3"):
        with pytest.raises(UserError, match="must be I/N"):
            Shard.parse(text)


def test_parts_and_the_whole_exclude_one_another(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with lock.part(place, "shard-0-of-2"):
        with lock.part(place, "shard-1-of-2"):
            assert lock.held_parts(place) == ["shard-0-of-2", "shard-1-of-2"]
            with lock.briefly(place):
                pass
        assert in_another_process(place, "part(place, 'shard-0-of-2')") == (
            f"in use by process {os.getpid()}")
        assert "in use by" in in_another_process(place, "part(place, 'shard-0-of-3')")
        assert in_another_process(place, "part(place, 'shard-1-of-2')") == "held"
        assert "(shard-0-of-2)" in in_another_process(place, "exclusive(place)", whole=True)
    with lock.exclusive(place):
        assert "in use by" in in_another_process(place, "part(place, 'shard-0-of-2')")
    assert in_another_process(place, "exclusive(place)") == "held"
    assert not list(place.glob(".holder*")) and not list(place.glob(".lock-*"))


def in_another_process(place: Path, holding: str, whole: bool = False) -> str:
    """What comes of `lock.HOLDING` in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from idbench.lock import *\n"
        "from idbench.errors import UserError\nplace = Path(sys.argv[1])\n"
        f"try:\n  with {holding}: print('held')\nexcept UserError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(place)], capture_output=True, text=True, timeout=60)
    found = done.stdout.strip() or done.stderr
    named = re.search(r"in use by process \d+", found)
    return named[0] if named and not whole else found


@pytest.mark.parametrize("more", [(), ("--shard", "0/2")], ids=["whole", "shard"])
def test_locks_of_dead_processes_of_another_machine_hold_nothing(
    world: World, more: tuple[str, ...]
) -> None:
    assert world.run(*world.toy("--limit", "1")).returncode == 0
    out = world.folder / "out"
    parts = ["", "-shard-1-of-3", "-worker-elsewhere-77-0"]
    for part in parts:
        (out / f".lock{part}").touch()
        (out / f".holder{part}").write_text("process 77 on elsewhere")
    done = world.run(*world.toy(*more))
    assert done.returncode == 0, done.stderr
    if not more:
        assert not hidden(out) and not list(out.glob(".holder*"))


def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "scores.parquet")


def test_shards_at_once_in_one_folder_make_what_one_process_makes(world: World) -> None:
    log = world.folder / "log"
    assert world.run(*["whole" if a == "out" else a for a in world.toy()]).returncode == 0
    arguments = [world.toy("--shard", f"{i}/3", "--seeds", "0,1") for i in range(3)]
    whole = [*["whole" if a == "out" else a for a in world.toy()], "--seeds", "0,1", "--force"]
    assert world.run(*whole).returncode == 0
    running = [world.start(*a, TOY_LOG=str(log), TOY_SECONDS="0.1") for a in arguments]
    for process in running:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, out + error
    assert len(log.read_text().split()) == len(set(log.read_text().split())) == 16
    pd.testing.assert_frame_equal(
        table(world.folder / "out"), table(world.folder / "whole"), check_exact=True)
    run = Run.open(world.folder / "out")
    assert run.file.status == "finished" and run.file.counts.generated == 16
    assert run.file.timings["generate"] >= 1.6, "the times of all shards"
    assert not hidden(run.folder)
    again = world.run(*arguments[1], TOY_LOG=str(log))
    assert again.returncode == 0 and "all 6 videos are already" in again.stderr
    assert "| toy" in again.stdout
    refused = world.run(*arguments[0], "--force")
    assert refused.returncode == 2 and "--force" in refused.stderr


def test_shards_of_their_own_folders_are_merged(world: World) -> None:
    assert world.run(*world.toy()).returncode == 0
    for i in range(2):
        part = [f"part{i}" if a == "out" else a for a in world.toy("--shard", f"{i}/2")]
        done = world.run(*part)
        assert done.returncode == 0, done.stderr
        assert "| toy" not in done.stdout and "other shards are not finished" in done.stderr
        assert "has no scores yet" in world.run("table", f"part{i}").stderr
    done = world.run("merge", "part0", "part1", "-o", "joined")
    assert done.returncode == 0 and "| toy" in done.stdout, done.stderr
    pd.testing.assert_frame_equal(
        table(world.folder / "joined"), table(world.folder / "out"), check_exact=True)
    joined = Run.open(world.folder / "joined")
    assert joined.file.status == "finished" and joined.file.counts.generated == 8
    log = world.folder / "log"
    resumed = [a if a != "out" else "joined" for a in world.toy()]
    assert world.run(*resumed, TOY_LOG=str(log)).returncode == 0 and not log.exists()
    assert world.run("merge", "part1", "-o", "joined").returncode == 0, "again is harmless"
    refused = world.run("merge", "part0", "part1", "-o", "part0")
    assert refused.returncode == 2 and "is one of the runs" in refused.stderr
    other = ["other" if a == "out" else a for a in world.toy("--set", "steps=9", "--limit", "1")]
    assert world.run(*other).returncode == 0
    refused = world.run("merge", "part0", "other", "-o", "new")
    assert refused.returncode == 2 and "other is part of another run than part0" in refused.stderr
    assert not (world.folder / "new").exists()


def test_a_run_and_a_shard_are_not_in_one_folder_at_once(world: World) -> None:
    with holding.locked(world.folder / "out"):
        second = world.apart(*world.toy("--shard", "0/2"))
    assert second.returncode == 2 and f"in use by process {os.getpid()}" in second.stderr


def test_a_merged_sample_that_failed_is_taken_from_where_it_did_not(world: World) -> None:
    failing = world.toy("--set", "fail=park", "--limit", "2")
    assert world.run(*["part0" if a == "out" else a for a in failing]).returncode == 0
    working = world.toy("--limit", "2")
    assert world.run(*["part1" if a == "out" else a for a in working]).returncode == 0
    assert world.run("merge", "part0", "part1", "-o", "joined").returncode == 0
    joined = Run.open(world.folder / "joined")
    assert [r.status for r in joined.records()] == ["generated", "generated"]
    assert table(joined.folder)["value"].notna().all()
    assert "toy cannot paint this" in (joined.folder / "errors.log").read_text()


def test_parts_that_are_scored_after_merging_are_merged_again(world: World) -> None:
    part = ["part" if a == "out" else a for a in world.toy("--limit", "2")]
    assert world.run(*part, "--no-score").returncode == 0
    merge = ("merge", "part", "-o", "joined")
    assert world.run(*merge).returncode == 0
    videos = {p: p.stat().st_mtime_ns for p in (world.folder / "joined").glob("samples/*/*.mp4")}
    assert world.run(*part).returncode == 0
    assert world.run(*merge).returncode == 0
    assert len(table(world.folder / "joined")) == len(videos) == 2
    assert all(path.stat().st_mtime_ns == before for path, before in videos.items())


def test_disk_errors_of_every_kind_are_fatal() -> None:
    assert issubclass(files.DiskFull, DiskError) and issubclass(DiskError, FatalError)
