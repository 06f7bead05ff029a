"""Damaged files of every kind: one sentence and exit code 2, or one sample lost; no traceback.

Each field of each model is attacked with every wrong value (`attack.VALUES`). A value that the
model refuses must be refused by the commands that read the file; one that it takes (any text is
a name) must not make them fail in another way.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import attack
import numpy as np
import pandas as pd
import pytest
import yaml
from report_runs import make_run
from toy import Done, World, make_suite

from idbench import suite
from idbench.bundles import CONTENT, Bundle
from idbench.errors import UserError
from idbench.measured_files import ReferenceFile
from idbench.records import FacesFile, RunFile, SampleFile, ScoresFile
from idbench.reports.study_files import Study, Votes
from idbench.schemas import MODELS
from idbench.score_table import COLUMNS
from idbench.stored import Stored, validate
from idbench.submissions import Submission

FAST = ("table one", "check one --against two", "check two --against one", "diff one two",
        "leaderboard one -o new.html", "check one --update new.json")
SLOW = ("report one -o new.html", "figure strip one -o new.png", "figure curves one -o new.png",
        "export one --to datasets --out new", "export one --to tensorboard --out new",
        "study build one two -o new", "figure tradeoff one two -o new.png")
EVERY = 9
"""Of the values that a model refuses, the share that a command reads: they all read by the model.

It shares no divisor with the number of values, so that each comes at some place of each file."""
VOTES = ("study score study", "study score study/votes/anna.json --json")


@dataclass
class Kind:
    """A kind of file: its model, one such file in the world, and the commands that read it.

    `sample` says that a damaged one costs its sample alone.
    """

    model: type[Stored]
    pattern: str
    fast: tuple[str, ...]
    slow: tuple[str, ...] = ()
    sample: bool = False


KINDS = {
    "run.json": Kind(RunFile, "one/run.json", FAST, SLOW),
    "sample.json": Kind(SampleFile, "one/samples/*/sample.json", FAST, SLOW, sample=True),
    "scores.json": Kind(ScoresFile, "one/samples/*/scores.json", ("table one",), SLOW[:1], True),
    "faces.json": Kind(FacesFile, "one/samples/*/faces.json", ("table one",), SLOW[:2], True),
    "reference": Kind(ReferenceFile, "reference.json", (
        "check one --against reference.json", "check reference.json --against one",
        "diff reference.json one", "leaderboard reference.json -o new.html")),
    "submission": Kind(Submission, "sub/submission.json", (
        "leaderboard sub -o new.html", "leaderboard sub --validate")),
    "results": Kind(ReferenceFile, "sub/results.json", (
        "leaderboard sub -o new.html", "check one --against sub")),
    "study": Kind(Study, "study/study.json", (
        *VOTES, "study page study --voter ben -o new.html")),
    "votes": Kind(Votes, "study/votes/anna.json", VOTES),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two runs of two samples, a reference, a submission, and a study with votes."""
    folder = tmp_path_factory.mktemp("attack")
    for i, name in enumerate(("one", "two")):
        make_run(folder / name, name=name, count=2, people=1, seed=i)
    world = World(folder, folder)
    for line in ("check one --update reference.json", "leaderboard one --pack sub",
                 "study build one two -o study"):
        assert world.run(*line.split()).returncode == 0
    study = Study.open(folder / "study")
    votes = Votes.of(study, "anna")
    for trial in study.trials("anna"):
        for question in study.questions:
            votes.put({"pair": trial.pair, "question": question, "choice": "left"})
    return world


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def run(world: World, line: str) -> Done:
    """Run a command, and remove what it wrote."""
    done = world.run(*line.split())
    for new in world.folder.glob("new*"):
        shutil.rmtree(new) if new.is_dir() else new.unlink()
    return done


def refusal(kind: Kind, data: bytes, where: object = "") -> str:
    """Why the model refuses `data`; empty: it does not."""
    try:
        validate(kind.model, data, where, kind.model.FIX)
    except UserError as error:
        return str(error)
    return ""


def fault(
    world: World, kind: Kind, data: bytes, lines: tuple[str, ...], turn: int
) -> str | None:
    """What is wrong with how `data`, in the place of the file, is read.

    The commands take turns; one in `EVERY` of what the model refuses is enough.
    """
    path = next(world.folder.glob(kind.pattern))
    refused = refusal(kind, data, path)
    if refused and (str(path) not in refused or "\n" in refused):
        return f"not one sentence that names the file: {refused}"
    if refused and turn % EVERY:
        return None
    line = lines[turn // EVERY % len(lines)]
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        done = run(world, line)
    finally:
        path.write_bytes(before)
    said = f"`{line}` gave {done.returncode}: {done.stderr[-800:]}"
    if done.returncode not in (0, 1, 2):
        return said
    if done.returncode == 2 and not done.stdout.startswith("CANNOT BE COMPARED"):
        return None if done.stderr.startswith("Error: ") else said
    if refused and not kind.sample and not (done.returncode == 1 and "--validate" in line):
        return f"{said}, but should be: {refused}"
    return None


def test_every_written_key_is_in_the_schema(world: World, kind: Kind) -> None:
    for path in world.folder.glob(kind.pattern):
        file = kind.model.read(path)
        assert attack.extras(file) == []
        assert file.json_text() == path.read_text(), "a file that is read and written is the same"
    assert kind.model in [model for _, model in MODELS.values()]


def test_whole_files(world: World, kind: Kind) -> None:
    whole = next(world.folder.glob(kind.pattern)).read_bytes()
    contents = {**attack.FILES, "cut": whole[:len(whole) // 2], "cut short": whole[:-3]}
    faults = {name: found for turn, (name, data) in enumerate(contents.items())
              if (found := fault(world, kind, data, kind.fast, EVERY * turn))}
    assert not faults


def test_every_field(world: World, kind: Kind) -> None:
    value = json.loads(next(world.folder.glob(kind.pattern)).read_bytes())
    found = list(attack.places(kind.model, value))
    assert len(found) >= len(kind.model.model_fields)
    faults = [
        (*attacked, said) for turn, attacked in enumerate(product(found, attack.VALUES))
        if (said := fault(world, kind, attack.changed(value, *attacked), kind.fast, turn))
    ]
    assert not faults, "\n".join(map(str, faults))


@pytest.mark.parametrize("name", ["missing", "list", "text", "number", "negative", "huge", "null"])
def test_many_fields_at_once(world: World, name: str) -> None:
    """The slow commands read files in which every field that may have a value has it."""
    first = list(attack.VALUES).index(name)
    for turn, kind in enumerate((k for k in KINDS.values() if k.slow), first):
        value = json.loads(next(world.folder.glob(kind.pattern)).read_bytes())
        for place in attack.places(kind.model, value):
            with suppress(KeyError, IndexError, TypeError):  # a place that was changed with another
                data = attack.changed(value, place, name)
                value = value if refusal(kind, data) else json.loads(data)
        said = fault(world, kind, json.dumps(value).encode(), kind.slow, EVERY * turn)
        assert said is None, (kind.pattern, said)


def test_every_field_of_a_bundle() -> None:
    """Only reading: scores from a bundle need the networks' keys."""
    path = Path(__file__).parents[2] / "references/concat_id-multi.embeddings.zip"
    with zipfile.ZipFile(path) as archive:
        value = json.loads(archive.read(CONTENT))
    kind = Kind(Bundle, "", ())
    value["samples"] = value["samples"][:1]
    assert refusal(kind, json.dumps(value).encode()) == ""
    told = [refusal(kind, attack.changed(value, place, name), CONTENT)
            for place in attack.places(Bundle, value) for name in attack.VALUES]
    assert len(told) > 500 and all(one.startswith(CONTENT) or not one for one in told)


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_of_the_scores(world: World, column: str) -> None:
    path = world.folder / "one/scores.parquet"
    before, table = path.read_bytes(), pd.read_parquet(path)
    wrong = {
        "missing": table.drop(columns=column),
        **{name: table.assign(**{column: value}) for name, value in
           (("text", "x"), ("number", 5), ("infinity", np.inf), ("null", None),
            ("lists", pd.Series([[1]] * len(table))))},
    }
    refused = ("missing", "lists", *(("text", "infinity") if column == "value" else ()))
    try:
        for name, damaged in wrong.items():
            damaged.to_parquet(path)
            for line in FAST:
                done = run(world, line)
                assert done.returncode in (0, 1, 2), (name, line, done.stderr)
                if name in refused:
                    assert done.returncode == 2 and f"{path.name} is damaged" in done.stderr
    finally:
        path.write_bytes(before)


# -- the commands that write a run


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, plugin: Path) -> Iterator[World]:
    """A run of two samples that `run` made, of a model and a metric that need no network."""
    folder = tmp_path_factory.mktemp("written")
    world = World(folder, make_suite(folder / "tiny"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(plugin))
        done = world.run(*world.toy("--limit", "2"))
        assert done.returncode == 0, done.stderr
        yield world


@pytest.mark.parametrize("name", ["run.json", "sample.json", "scores.json", "faces.json"])
def test_run_and_score_go_on_or_refuse(written: World, name: str) -> None:
    """A damaged run.json is refused; a damaged sample is made again and costs no other."""
    whole = written.folder / "out"
    shutil.copytree(whole, written.folder / "kept", dirs_exist_ok=True)
    path = next(whole.glob(name if name == "run.json" else f"samples/*/{name}"))
    value = json.loads(path.read_bytes())
    commands = (written.toy("--limit", "2"), ["score", "out", "--metric", "sampled"])
    names = list(attack.VALUES)
    faults = []
    for i, place in enumerate(attack.places(KINDS[name].model, value)):
        for command, what in ((commands[i % 2], names[i % len(names)]), (commands[0], "missing")):
            data = attack.changed(value, place, what)
            path.write_bytes(data)
            done = written.run(*command)
            both = pd.read_parquet(whole / "scores.parquet")["value"].notna().sum() == 2
            lost = command[0] == "run" and not both and refusal(KINDS[name], data)
            if done.returncode not in (0, 2) or (done.returncode == 0 and lost):
                faults.append((command[0], place, what, done.stdout[-300:], done.stderr[-1500:]))
            shutil.rmtree(whole)
            shutil.copytree(written.folder / "kept", whole)
    assert not faults, "\n".join(map(str, faults))


# -- suites, which people write by hand

SUITE_FILES = {
    "suite.yaml": suite.SuiteFile, "prompts.jsonl": suite.PromptRow,
    "splits/single.jsonl": suite.SplitRow,
}


@pytest.mark.parametrize("file", [*SUITE_FILES, "identities.json"])
def test_suites(file: str, tmp_path: Path) -> None:
    folder = make_suite(tmp_path / "tiny")
    path = folder / file
    text = path.read_text() if path.exists() else '{"p0": {"seed": 1}}'
    lines = [text] if file.endswith((".yaml", ".json")) else text.splitlines()
    value = yaml.safe_load(lines[0])
    found = list(attack.places(SUITE_FILES[file], value)) if file in SUITE_FILES else [("p0",)]
    # Too deep nesting stops the parser, a second later, before it knows of a field: once is enough.
    contents = {f"{place}: {name}": attack.changed(value, place, name)
                for place in found for name in attack.VALUES
                if name != "nested" or place == found[0]}
    faults = {}
    for name, data in {**contents, **attack.FILES}.items():
        path.write_bytes(data + "".join(f"\n{line}" for line in lines[1:]).encode())
        suite.write_checksums(folder)
        try:
            loaded = suite.load_suite(folder)
            for split in loaded.splits:
                loaded.samples(split)
            assert isinstance(loaded.identities, dict)
        except UserError as error:
            if "\n" in str(error):
                faults[name] = str(error)
        except Exception as error:
            faults[name] = repr(error)
    assert not faults
