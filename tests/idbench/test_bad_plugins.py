"""Packages that add something wrong: it is named by package, and the rest goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
from toy import World

HEAD = """
import sys
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
}
NO_VALUE = {
    "text": "ADDED = one('high')", "huge": "ADDED = one(10 ** 400)", "nan": "ADDED = one(np.nan)",
    "list": "ADDED = one([1.0])", "no list": "ADDED = metric(lambda e: 1)",
    "no scores": "ADDED = metric(lambda e: [1])", "exits": "ADDED = metric(lambda e: sys.exit(3))",
    "fails": "ADDED = metric(lambda e: 1 / 0)",
    "another name": "ADDED = metric(lambda e: [Score(e.sample.id, 'arcsim', None, None, 1.0)])",
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


@pytest.mark.parametrize("code", NO_MODEL.values(), ids=NO_MODEL)
def test_what_is_no_model_is_one_sentence(
    world: World, install, code: str  # type: ignore[no-untyped-def]
) -> None:
    install("models", code)
    toy = [a if a != "toy" else "added" for a in world.toy("--limit", "1")]
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


def test_a_seed_has_at_most_nine_digits(world: World, tmp_path: Path) -> None:
    for command in (world.toy("--seed", "9" * 300), ["study", "build", "a", "--seed", "9" * 300],
                    ["suites", "import", "tiny", "--seed", "9" * 5000]):
        done = world.run(*command)
        assert done.returncode == 2 and "--seed" in done.stderr
