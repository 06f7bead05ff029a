"""Packages that add something wrong: it is named by package, and the rest goes on."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from toy import World

from idbench.registry import METRICS

HEAD = """
import sys
from dataclasses import replace
import numpy as np
from idbench.metrics.base import Metric
from idbench.types import Score, Video

def metric(scores, **more):
    return Metric(name="added", title="Added", higher_is_better=True, range=(0.0, 9.0),
                  formula="x", source="a test", scores=scores, networks=(), **more)

def one(value):
    return metric(lambda e: [Score(e.sample.id, "added", None, None, value)])

class Model:
    name = "added"
    revision = "1"
    variant = None
    maximum_references = 2
    def __init__(self, variant=None, count=1): self.count = int(count)
    def settings(self): return {}
    def weight_hashes(self): return {}
    def generate(self, samples):
        for _ in samples:
            yield Video(np.zeros((3, 32, 48, 3), np.uint8), 8.0)
"""


@pytest.fixture
def install(world: World, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Installs a package `bad-plugin` whose entry point `added` is the value of `code`."""

    def make(group: str, code: str) -> None:
        site = world.folder / "bad"
        info = site / "bad_plugin-2.0.dist-info"
        info.mkdir(parents=True)
        (site / "bad_plugin.py").write_text(f"{HEAD}\n{code}\n")
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-plugin\nVersion: 2.0\n")
        (info / "entry_points.txt").write_text(f"[idbench.{group}]\nadded = bad_plugin:ADDED\n")
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, "bad_plugin", raising=False)

    yield make
    sys.modules.pop("bad_plugin", None)


NO_METRIC = {
    "text": "ADDED = 'x'", "a class": "class ADDED: pass", "nothing": "", "exits": "sys.exit(3)",
    "fails": "1 / 0", "imports": "import no_such_package",
    "a duck": "class Duck:\n    scores, networks = print, ()\nADDED = Duck()",
    "another name": "ADDED = replace(one(1.0), name='other')",
    "a number as name": "ADDED = replace(one(1.0), name=3)",
    "a number as title": "ADDED = replace(one(1.0), title=3)",
    "a number as note": "ADDED = replace(one(1.0), note=3)",
    "no range": "ADDED = replace(one(1.0), range=None)",
    "a range of text": "ADDED = replace(one(1.0), range=('a', 'b'))",
    "a range that is turned": "ADDED = replace(one(1.0), range=(1.0, 0.0))",
    "no direction": "ADDED = replace(one(1.0), higher_is_better=None)",
    "no networks": "ADDED = replace(one(1.0), networks=None)",
    "an unknown network": "ADDED = replace(one(1.0), networks=('arcfase',))",
    "shown somewhere": "ADDED = replace(one(1.0), shown='somewhere')",
    "applies to nothing": "ADDED = replace(one(1.0), applies_to=None)",
}
NO_VALUE = {
    "text": "ADDED = one('high')", "huge": "ADDED = one(10 ** 400)", "nan": "ADDED = one(np.nan)",
    "list": "ADDED = one([1.0])", "no list": "ADDED = metric(lambda e: 1)",
    "no scores": "ADDED = metric(lambda e: [1])", "exits": "ADDED = metric(lambda e: sys.exit(3))",
    "fails": "ADDED = metric(lambda e: 1 / 0)",
    "another name": "ADDED = metric(lambda e: [Score(e.sample.id, 'arcsim', None, None, 1.0)])",
    "another sample": "ADDED = metric(lambda e: [Score('x', 'added', None, None, 1.0)])",
    "twice": "ADDED = metric(lambda e: 2 * [Score(e.sample.id, 'added', None, None, 1.0)])",
    "complex": "ADDED = one(1j)", "a time": "ADDED = one(np.timedelta64(3))",
    "frame below 0": "ADDED = metric(lambda e: [Score(e.sample.id, 'added', None, -1, 1.0)])",
    "frame of text": "ADDED = metric(lambda e: [Score(e.sample.id, 'added', None, '1', 1.0)])",
    "huge frame": "ADDED = metric(lambda e: [Score(e.sample.id, 'added', None, 10 ** 30, 1.0)])",
    "person 3": "ADDED = metric(lambda e: [Score(e.sample.id, 'added', 3, None, 1.0)])",
    "half a letter": "def f(e): raise ValueError('\\udcff')\nADDED = metric(f)",
    "no message": "class E(Exception):\n    def __str__(self): 1 / 0\n"
                  "def f(e): raise E()\nADDED = metric(f)",
}
VALUES = {
    "yes": ("True", 1.0), "numpy's yes": ("np.bool_(True)", 1.0),
    "whole": ("np.int64(2)", 2.0), "half": ("np.float16(0.5)", 0.5),
}
NO_MODEL = {
    "text": "ADDED = 'x'", "nothing": "", "exits": "sys.exit(3)",
    "a function": "def ADDED(variant=None): return 1",
    "init exits": "class ADDED(Model):\n    def __init__(self, variant=None): sys.exit(3)",
    "init fails": "class ADDED(Model):\n    def __init__(self, variant=None): 1 / 0",
    "settings": "class ADDED(Model):\n    def settings(self): return {'a': float('nan')}",
    "keys": "class ADDED(Model):\n    def settings(self): return {('a', 1): 1}",
    "circle": "class ADDED(Model):\n    def settings(self): a = {}; a['a'] = a; return a",
    "hashes": "class ADDED(Model):\n    def weight_hashes(self): return {'a': 1}",
    "no settings": "class ADDED(Model):\n    def settings(self): return 3",
    "kind": "class ADDED(Model):\n    kind = 'x'",
    "abilities": "class ADDED(Model):\n    abilities = 'x'",
    "check fails": "class ADDED(Model):\n    def check(self, samples): 1 / 0",
    "check exits": "class ADDED(Model):\n    def check(self, samples): sys.exit(3)",
    "no id": "class ADDED(Model):\n    def sample_id(self, sample): return None",
    "id above": "class ADDED(Model):\n    def sample_id(self, sample): return '../' + sample.id",
    "one id": "class ADDED(Model):\n    def sample_id(self, sample): return 'same'",
    "id fails": "class ADDED(Model):\n    def sample_id(self, sample): 1 / 0",
    "load exits": "class ADDED(Model):\n    def load(self): sys.exit(3)",
    "load fails": "class ADDED(Model):\n    def load(self): 1 / 0",
}
NO_VIDEO = {
    "text": "yield 'x'", "number": "yield 3", "exits": "sys.exit(3); yield",
    "fails": "1 / 0; yield",
    "array": "yield np.zeros(3)", "no frames": "yield Video(np.zeros((0, 8, 8, 3), np.uint8), 8.0)",
    "floats": "yield Video(np.zeros((3, 8, 8, 3)), 8.0)", "none": "return; yield",
    "rate": "yield Video(np.zeros((3, 32, 48, 3), np.uint8), float('nan'))",
}


@pytest.mark.parametrize("code", NO_METRIC.values(), ids=NO_METRIC)
def test_what_is_no_metric_is_named_and_left_out(
    world: World, install, code: str  # type: ignore[no-untyped-def]
) -> None:
    install("metrics", code)
    asked = world.run(*world.toy("--metric", "added"))
    assert asked.returncode == 2 and "bad-plugin 2.0" in asked.stderr
    assert asked.stderr.count("\n") == 1 and "Traceback" not in asked.stderr
    listed = world.run("list", "metrics")
    assert listed.returncode == 0 and "arcsim" in listed.stdout and "Left out" in listed.stderr


@pytest.mark.parametrize("name", ["cluster", "status"])
def test_a_metric_has_not_the_name_of_a_column(name: str) -> None:
    with pytest.raises(ValueError, match="a column of the tables"):
        replace(METRICS.load("arcsim"), name=name)


@pytest.mark.parametrize("code", NO_VALUE.values(), ids=NO_VALUE)
def test_what_is_no_value_costs_that_metric_alone(
    world: World, install, code: str  # type: ignore[no-untyped-def]
) -> None:
    install("metrics", code)
    done = world.run(*world.toy("--metric", "added", "--limit", "1"))
    assert done.returncode == 0, done.stderr
    scores = pd.read_parquet(world.folder / "out/scores.parquet").set_index("metric")
    assert scores["status"].to_dict() == {"sampled": "scored", "added": "unscored"}
    assert scores.loc["added", "reason"].startswith("scoring failed: ")
    assert "Traceback" in (world.folder / "out/errors.log").read_text()


@pytest.mark.parametrize(("code", "value"), VALUES.values(), ids=VALUES)
def test_a_number_of_any_kind_is_a_value(
    world: World, install, code: str, value: float  # type: ignore[no-untyped-def]
) -> None:
    install("metrics", f"""
ADDED = metric(lambda e: [
    Score(e.sample.id, "added", None, np.int64(1), {code}),
    Score(e.sample.id, "added", "p\\udcff", None, None, "half a letter: \\udcff"),
    Score(e.sample.id, "added", None, None, {code})])
""")
    done = world.run(*world.toy("--metric", "added", "--limit", "1"))
    assert done.returncode == 0, done.stderr
    scores = pd.read_parquet(world.folder / "out/scores.parquet")
    found = scores[(scores["metric"] == "added") & scores["identity"].isna()]
    assert found["value"].tolist() == [value, value] and found["frame"].tolist()[0] == 1
    (reason,) = scores.loc[scores["identity"] == "p\\udcff", "reason"]
    assert reason == "half a letter: \\udcff"


def test_wrong_weights_of_a_metric_are_named(
    world: World, install  # type: ignore[no-untyped-def]
) -> None:
    install("metrics", "ADDED = replace(one(1.0), weights=lambda: {'a': 1})")
    done = world.run(*world.toy("--metric", "added", "--limit", "1"))
    assert done.returncode == 2 and "bad-plugin 2.0 does not name its weights" in done.stderr


@pytest.mark.parametrize("code", NO_MODEL.values(), ids=NO_MODEL)
def test_what_is_no_model_is_one_sentence(
    world: World, install, code: str  # type: ignore[no-untyped-def]
) -> None:
    install("models", code)
    toy = [a if a != "toy" else "added" for a in world.toy("--limit", "2")]
    done = world.run(*toy)
    assert done.returncode == 2 and "added" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "Error: The model" in done.stderr
    assert world.run(*[a if a != "out" else "fine" for a in world.toy()]).returncode == 0


@pytest.mark.parametrize("code", NO_VIDEO.values(), ids=NO_VIDEO)
def test_what_is_no_video_is_a_failed_sample(
    world: World, install, code: str  # type: ignore[no-untyped-def]
) -> None:
    install("models", f"""
class ADDED(Model):
    def generate(self, samples):
        for sample in samples:
            if sample.prompt_id == "park":
                {code}
                return
            yield from super().generate([sample])
""")
    toy = [a if a != "toy" else "added" for a in world.toy("--limit", "2")]
    done = world.run(*toy)
    assert done.returncode == 0, done.stderr
    assert "1 of 2 samples failed" in done.stdout and "Traceback" not in done.stderr
    assert (world.folder / "out" / "scores.parquet").is_file()


def test_a_model_does_not_change_what_is_asked(
    world: World, install  # type: ignore[no-untyped-def]
) -> None:
    install("models", """
class ADDED(Model):
    def generate(self, samples):
        for sample in samples:
            sample.truth["face"] = float("nan")
            yield from super().generate([sample])
""")
    toy = [a if a != "toy" else "added" for a in world.toy("--limit", "2")]
    assert world.run(*toy).returncode == 0
    for path in (world.folder / "out").glob("samples/*/sample.json"):
        assert "face" not in json.loads(path.read_text())["truth"]


def test_what_a_package_says_of_itself_commands_no_terminal(
    world: World, install  # type: ignore[no-untyped-def]
) -> None:
    install("metrics", "ADDED = replace(one(1.0), title='\\x1b[31mred', note='\\x1b[31mred')")
    commands = (world.toy("--metric", "added", "--limit", "1"), ["table", "out"],
                ["list", "metrics"], ["list", "metrics", "added"])
    for command in commands:
        done = world.run(*command)
        assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr
    assert "\\u001b[31mred" in done.stdout


def test_a_seed_has_at_most_nine_digits(world: World, tmp_path: Path) -> None:
    for command in (world.toy("--seed", "9" * 300), ["study", "build", "a", "--seed", "9" * 300],
                    ["suites", "import", "tiny", "--seed", "9" * 5000]):
        done = world.run(*command)
        assert done.returncode == 2 and "--seed" in done.stderr
