"""Hostile arguments: one sentence and exit code 2, or a legitimate result; never a traceback.

Every command gets every kind of wrong path, value and name. Nothing but the named output changes.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path

import pytest
from report_runs import make_run
from toy import World, make_suite

DEEP = "[" * 100_000
LONG = "x" * 300

FILES = {
    "empty.json": b"", "list.json": b"[]", "number.json": b"1e999", "null.json": b"null",
    "deep.json": DEEP.encode(), "cut.json": b'{"schema": 1', "schema.json": b'{"schema": 99}',
    "binary.json": bytes(range(256)) * 9, "utf16.json": '{"a": 1}'.encode("utf-16"),
    "deep.yaml": DEEP.encode(), "alias.yaml": b"a: &a [*a]", "tag.yaml": b"!!python/name:os.system",
    "rows.csv": b"video,prompt\n\0,\n", "user.txt": b"mine",
}
INPUTS = [
    "", ".", "/", "nowhere", "user.txt/below", LONG, "x/" * 2100, "loop", "loop/x", "dangling",
    "~nobody/x", "-", "\x1b[31mred", "line\nbreak", "<b>&", "=1+1", "lone\udcff", "nul\0",
    "/dev/null", "fifo", "full", "odd", "list.zip", "deep.zip", "other.zip", "no.zip", "up.zip",
    *FILES,
]
READERS = [
    "table P", "report P -o new.html", "check P --against one", "check one --against P",
    "diff P one", "merge P -o new", "merge one P -o new",
    "leaderboard P -o new.html", "leaderboard P --validate",
    "figure tradeoff P -o new.png", "figure strip P -o new.png", "export P --to datasets --out new",
    "study build P one -o new", "study score P", "study page P --voter x -o new.html",
    "suites check P --no-faces", "suites import P --out new",
    "run --model toy --split single --suite P --metric sampled --limit 1 --out new",
    "score --manifest P --metric sampled --out new",
    "score P --reference face.png --metric sampled --out new",
    "score clip.mp4 --reference P --metric sampled --out new", "train P --plan",
]
OUTPUTS = [
    "", ".", "..", "user.txt", "user.txt/below", LONG, "x/" * 2100, "loop", "loop/x", "full",
    "nul\0", "/dev/null", "fifo", "/proc/nowhere/x", "one", "one/run.json", "one/samples",
    "new-\udcff",
]
WRITERS = [
    "report one -o P", "leaderboard one -o P", "leaderboard one --pack P", "check one --update P",
    "check one --against two --junit P", "check one --against two --markdown P",
    "figure tradeoff one -o P", "export one --to datasets --out P",
    "export one --to tensorboard --out P", "merge one -o P", "study build one two -o P",
    "study page study --voter x -o P",
    "run --model toy --split single --suite tiny --metric sampled --limit 1 --out P",
    "score clip.mp4 --reference face.png --metric sampled --out P",
]
RUN = "run --model toy --split single --suite tiny --metric sampled --limit 1 --out new"
NUMBERS = [
    "", "0", "-1", "x", "nan", "inf", "-inf", "1e9", "9" * 300, "9" * 5000, "\u0663", "0x10", "1;2",
]
COUNTED = [
    f"{RUN} --limit", f"{RUN} --batch", f"{RUN} --seed", "study build one two -o new --pairs",
    "study build one two -o new --seed", "figure tradeoff one -o new.png --dpi",
    "figure strip one -o new.png --samples", "check one --against two --tolerance",
    "check one --against two --coverage-tolerance", "check one --against two --resamples",
    "export one --to tensorboard --out new --step", "table one --paper",
    "score clip.mp4 --reference face.png --metric sampled --out new --fps",
    "suites import tiny --out new --pairs", "train text_encoder --plan --gpus",
]
NAMES = [
    "", "@", "x@", "..", "../x", "/etc/passwd", LONG, "\x1b[31m", "a\nb", "os:system", "+", "%s",
    "\udcff",
]
NAMED = [
    "run --split single --suite tiny --out new --model", f"{RUN} --split", f"{RUN} --metric",
    f"{RUN} --protocol", f"{RUN} --engine", f"{RUN} --weights", f"{RUN} --suite",
    "table one --compare", "list", "list models", "leaderboard one -o new.html --metric",
    "figure tradeoff one -o new.png -x", "figure curves one -o new.png --metric",
    "check one --against two --metric", "check one --against two --allow",
    "figure strip one -o new.png --sample", "study page study -o new.html --voter",
    "suites import tiny --out new --layout", "completion", "train", "table one --format",
]
SETTINGS = [
    "", "=", "=1", "steps", "self=1", "variant=x", "nothing=1", "../x=1", "__class__=1", " =1",
    "steps=!!python/object/apply:os.system [ls]", "steps={", "steps=&a [*a]", "steps=.nan",
    f"steps={DEEP}", "steps=" + "9" * 5000, "maximum_references=x", "maximum_references=[]",
    "steps=\x1b[31m", "maximum_references=-1", "steps={1: 2}", "steps=2020-01-01", "fail=3",
]
TRAINED = [
    "trainer=os:system", "trainer=os", "entry=../x", "entry=/etc/x", "entry=new", "steps=-1",
    "steps=0", "steps=x", "steps=1.5", "steps=.nan", "self=1", "extends=base", "nothing=1",
]


def half(commands: Iterable[str], texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every second combination: each command has half of the texts, each text half of them."""
    return ((line, text) for i, line in enumerate(commands) for text in texts[i % 2::2])


CASES = {
    f"{line} {text[:30]!r}": (line if " P" in line else f"{line} P", text)
    for line, text in [
        *half(READERS, INPUTS), *product(WRITERS, OUTPUTS), *half(COUNTED, NUMBERS),
        *half(NAMED, NAMES),
        ("check one --against two --resamples", "9" * 30), *product([f"{RUN} --set"], SETTINGS),
        *product(["train text_encoder --set"], TRAINED),
    ]
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, plugin: Path) -> Iterator[World]:
    """Two runs, a suite, a study, and files of every wrong kind."""
    folder = tmp_path_factory.mktemp("hostile") / "inside"
    for i, name in enumerate(("one", "two")):
        make_run(folder / name, name=name, count=2, people=1, seed=i)
    world = World(folder, make_suite(folder / "tiny"))
    assert world.run("study", "build", "one", "two", "-o", "study").returncode == 0
    video = next(folder.glob("one/samples/*/video.*"))
    shutil.copyfile(video, folder / "clip.mp4")
    shutil.copyfile(folder / "tiny/references/p0.png", folder / "face.png")
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    (folder / "full").mkdir()
    (folder / "full/notes.txt").write_text("mine")
    for name in ("run.json", "suite.yaml", "study.json", "results.json", "submission.json"):
        (folder / "odd" / name).mkdir(parents=True)
    for name, data in (("list", "[]"), ("deep", DEEP), ("other", '{"schema": 99}')):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            archive.writestr("bundle.json", data)
    with zipfile.ZipFile(folder / "up.zip", "w") as archive:
        archive.writestr("../../escaped.json", "{}")
    (folder / "no.zip").write_bytes(b"PK\x03\x04")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "fifo")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(plugin))
        yield world


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file around `folder`, but not of what commands are asked to write."""
    found = {}
    for path in folder.parent.rglob("*"):
        name = path.relative_to(folder.parent).as_posix()
        if not name.startswith("inside/new") and not path.is_dir():
            about = path.lstat()
            found[name] = (about.st_size, about.st_mtime_ns)
    return found


@pytest.mark.parametrize("line, text", CASES.values(), ids=CASES)
def test_hostile_arguments(world: World, line: str, text: str) -> None:
    before = state(world.folder)
    done = world.run(*(text if part == "P" else part for part in line.split()))
    for new in [*world.folder.glob("new*"), *world.folder.glob("**/events.out*")]:
        shutil.rmtree(new) if new.is_dir() else new.unlink(missing_ok=True)
    assert "Traceback" not in done.stderr and "bug in idbench" not in done.stderr, done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    judged = ("check ", "leaderboard P --validate", "suites check")
    assert done.returncode in ((0, 1, 2) if line.startswith(judged) else (0, 2)), done
    if done.returncode == 2 and not done.stdout.startswith("CANNOT BE COMPARED"):
        said = done.stderr.splitlines()
        assert said and said[-1].startswith("Error: "), done.stderr
    after = state(world.folder)
    assert {name: after.get(name) for name in before} == before
    if done.returncode == 2:
        assert not after.keys() - before.keys(), "a refused command left something behind"


def test_there_are_enough() -> None:
    assert len(CASES) >= 300
