"""Every mistake a user can make: one sentence with its fix, exit code 2, no traceback."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import yaml
from toy import Done, World, make_suite

from idbench.suite import write_checksums


def refused(done: Done, *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    message = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(message) == 1, done.stderr
    for word in words:
        assert word in message[0]


def changed(arguments: list[str], option: str, value: str) -> list[str]:
    copy = list(arguments)
    copy[copy.index(option) + 1] = value
    return copy


@pytest.mark.parametrize("option, value, words", [
    ("--model", "tooy", ("Unknown model 'tooy'", "did you mean 'toy'?")),
    ("--model", "toy@", ("names no variant after @",)),
    ("--split", "singel", ("Unknown split of suite tiny 'singel'", "did you mean 'single'?")),
    ("--suite", "avatar", ("Unknown suite 'avatar'", "did you mean 'avatars'?")),
    ("--suite", "suites/nowhere", ("There is no folder suites/nowhere; check the path.",)),
    ("--model", "qqq", ("Unknown model 'qqq'. Known: ",)),
    ("--metric", "sampeld", ("Unknown metric 'sampeld'", "did you mean 'sampled'?")),
])
def test_unknown_names_say_the_nearest(
    world: World, option: str, value: str, words: tuple[str, ...]
) -> None:
    refused(world.run(*changed(world.toy(), option, value)), *words)
    assert not (world.folder / "out").exists()


@pytest.mark.parametrize("more, words", [
    (("--protocol", "strict-v"), ("Unknown protocol 'strict-v'", "did you mean 'strict-v")),
    (("--set", "setps=2"), ("Unknown setting of toy 'setps'", "did you mean 'steps'?")),
    (("--set", "steps"), ("is not KEY=VALUE",)),
    (("--limit", "0"), ("--limit",)),
    (("--engine", "spark"), ("'spark'", "local")),
    (("--sed", "1"), ("No such option", "--sed")),
])
def test_wrong_options_are_refused(
    world: World, more: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(world.run(*world.toy(*more)), *words)


def test_places_where_no_folder_can_be_are_refused(world: World) -> None:
    (world.folder / "file").write_text("x")
    refused(world.run(*changed(world.toy(), "--out", "file")), "file is a file")
    refused(world.run(*changed(world.toy(), "--out", "file/out")), "file/out cannot be created")


def test_unknown_command_says_the_nearest(world: World) -> None:
    refused(world.run("tabel"), "No such command 'tabel'", "did you mean 'table'?")
    refused(world.run("list", "model"), "did you mean 'models'?")


def test_suite_with_an_unknown_field_says_the_nearest(world: World) -> None:
    path = world.suite / "suite.yaml"
    head = yaml.safe_load(path.read_text())
    head["licens"] = head.pop("licence")
    path.write_text(yaml.safe_dump(head))
    write_checksums(world.suite)
    refused(world.run(*world.toy()), "unknown field 'licens'", "did you mean 'licence'?")


def test_changed_suite_file_is_named_with_its_hashes(world: World) -> None:
    path = world.suite / "references/p1.png"
    path.write_bytes(path.read_bytes() + b"x")
    refused(world.run(*world.toy()), "references/p1.png", "sha256", "CHECKSUMS")


def test_full_disk_keeps_what_is_finished(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_after(monkeypatch, "video.mp4", 3)
    refused(world.run(*world.toy("--batch", "1")), "The disk with", "is full", "free some space")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(world.environment["PYTHONPATH"].split(os.pathsep)[0])
    kept = list((world.folder / "out").glob("samples/*/sample.json"))
    assert len(kept) == 3
    assert not list((world.folder / "out").glob("samples/*/.*.part*"))
    log = world.folder / "log"
    assert world.run(*world.toy(), TOY_LOG=str(log)).returncode == 0
    assert len(log.read_text().split()) == 5


def full_after(monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> None:
    """The disk is full when the file `name` is written for the (count + 1)th time."""
    real, seen = os.replace, []

    def replace(source: str | Path, target: str | Path) -> None:
        if Path(target).name == name:
            seen.append(target)
            if len(seen) > count:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)


def test_tables_of_what_is_not_there(world: World) -> None:
    refused(world.run("table"), "There is no scored run under runs/")
    refused(world.run("table", "nowhere"), "nowhere contains no run: there is no such path")
    refused(world.run("table", "--compare", "consisd"), "did you mean 'consisid'?")
    refused(world.run("report", "nowhere"), "nowhere contains no run")
    assert world.run(*world.toy("--no-score", "--limit", "1")).returncode == 0
    refused(world.run("table", "out"), "has no scores yet", "idbench score out")


def test_mixed_suites_are_refused_naming_the_difference(world: World) -> None:
    assert world.run(*world.toy("--limit", "2")).returncode == 0
    other = make_suite(world.folder / "second", people=5)
    arguments = changed(changed(world.toy("--limit", "2"), "--suite", str(other)), "--out", "b")
    assert world.run(*arguments).returncode == 0
    refused(world.run("table", "out", "b"), "cannot share a table", "suite sha256")


def test_run_of_a_newer_idbench_is_refused(world: World) -> None:
    folder = world.folder / "new"
    folder.mkdir()
    (folder / "run.json").write_text('{"schema": 99}')
    refused(world.run("table", "new"), "written by a newer idbench", "update idbench")
    (folder / "run.json").write_text('{"schema": ')
    refused(world.run("table", "new"), "not valid JSON")
