"""One file of another package adds a metric with pixels, a network and weights of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy import World

from idbench import video_scorer
from idbench.registry import METRICS, metric_version
from idbench.scoring import Scoring

MODULE = '''
"""Brightness of a video's pixels, times a weight that a network of its own holds."""
import numpy as np
from idbench.metrics.base import Metric, make_score
from idbench.metrics.networks.weight_sources import Network


def scores(embeddings):
    value = embeddings.pixels.mean() / 255 * float(embeddings.network("lamp"))
    return [make_score(embeddings.sample, "brightness", None, None, value)]


METRIC = Metric(
    name="brightness", title="Brightness", higher_is_better=False, range=(0.0, 9.0),
    formula="weight * mean / 255", source="a test", scores=scores, networks=(),
    runs=(Network("lamp", lambda source, device: np.load(source.file()), "numpy:FILE"),),
    needs_pixels=True, computed="named", applies_to=lambda sample: sample.prompt_id != "park",
)
'''


@pytest.fixture
def lamp(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module of the metric, installed; beside it the weights `one.npy` and `two.npy`."""
    site = world.folder / "lamp"
    info = site / "lamp_metric-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "lamp_metric.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lamp-metric\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[idbench.metrics]\nbrightness = lamp_metric:METRIC\n")
    for name, value in (("one", 1.0), ("two", 2.0)):
        np.save(world.folder / f"{name}.npy", value)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "lamp_metric", raising=False)
    world.environment["PYTHONPATH"] += f":{site}"
    return site / "lamp_metric.py"


def brightness(world: World) -> pd.Series:
    scores = pd.read_parquet(world.folder / "out" / "scores.parquet")
    return scores[scores["metric"] == "brightness"].set_index("sample")["value"]


def test_one_file_adds_a_metric_with_pixels_and_weights_of_its_own(
    world: World, lamp: Path
) -> None:
    named = ("--metric", "brightness", "--weights")
    done = world.run(*world.toy(*named, "lamp=numpy:one.npy"))
    assert done.returncode == 0, done.stderr
    assert "Brightness ↓" in done.stdout, "it has its column"
    once = brightness(world)
    assert len(once) == 4 and (once > 0).all(), "it does not apply to the other four samples"
    scored = json.loads((world.folder / "out" / "run.json").read_text())["scoring"]
    assert scored["metric_weights"]["lamp"].startswith("numpy:")
    assert list(scored["weight_files"]) == ["lamp/one.npy"]
    assert scored["sources"]["lamp"] == "numpy:one.npy"

    other = world.run(*world.toy(*named, "lamp=numpy:two.npy"))
    assert other.returncode == 2 and "other weights or packages (weights lamp)" in other.stderr
    again = world.run("score", "out", *named, "lamp=numpy:two.npy")
    assert again.returncode == 0, again.stderr
    pd.testing.assert_series_equal(brightness(world), 2 * once)


def test_a_network_without_weights_says_how_to_give_them(world: World, lamp: Path) -> None:
    done = world.run(*world.toy("--metric", "brightness"))
    assert done.returncode == 2
    assert "pass them with --weights lamp=numpy:FILE" in done.stderr
    done = world.run(*world.toy("--metric", "brightness", "--weights", "lamb=numpy:one.npy"))
    assert done.returncode == 2 and "did you mean 'lamp'" in done.stderr


def test_the_key_has_the_revision_and_the_source_of_a_plugin(
    world: World, lamp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert metric_version("motion") == f"idbench {METRICS.target('motion').version}", (
        "keys of earlier runs stay")
    monkeypatch.setattr("idbench.metrics.motion.METRIC", _revised("motion"))
    assert metric_version("motion").endswith(" revision 2")
    before = metric_version("brightness")
    assert before.startswith("lamp-metric 1.0 source ")
    lamp.write_text(MODULE + "# changed\n")
    assert metric_version("brightness") != before


def test_a_metric_whose_code_changed_is_computed_again(world: World, lamp: Path) -> None:
    named = ("--metric", "brightness", "--weights", "lamp=numpy:one.npy")
    assert world.run(*world.toy(*named)).returncode == 0
    once = brightness(world)
    lamp.write_text(MODULE.replace("/ 255 *", "/ 255 + 1 *"))
    done = world.apart(*world.toy(*named))
    assert done.returncode == 0, done.stderr
    assert not np.allclose(brightness(world), once), "the old table is not shown again"


def test_a_failed_sample_has_the_rows_it_would_have_had() -> None:
    from dataclasses import replace

    from idbench.types import Reference, Sample

    face = Reference("face", "ann", Path("ann.png"))
    one = Sample("s", "single", "p", "a person", "c", (face,), 0)
    names = [*Scoring.of("strict-v3", ()).metrics, "garment_similarity", "background_similarity",
             "attribute_accuracy", "garment_accuracy", "motion"]

    def rows(sample: Sample) -> set[str]:
        found = video_scorer.missing(sample, names, "the video is damaged")
        assert {row.reason for row in found} == {"the video is damaged"}
        return {row.metric for row in found}

    usual = {"arcsim", "cursim", "viclip", "clipdist", "clipdist_frame", "face_coverage",
             "identity_slope", "identity_worst", "motion"}
    assert rows(one) == usual, "no garment, no background, nobody else and no truth"
    garment = replace(one, references=(face, Reference("garment", "coat", Path("coat.png"))))
    assert rows(garment) == usual | {"garment_similarity"}
    red = {"people": [{"garment": {"colour": "red"}}]}
    assert rows(replace(one, truth=red)) == usual | {"attribute_accuracy", "garment_accuracy"}
    two = replace(one, references=(face, replace(face, name="bob")))
    assert rows(two) == usual | {
        "own_minus_other", "own_minus_other_by_order", "order", "swap_rate"}


def _revised(name: str) -> object:
    from dataclasses import replace

    return replace(METRICS.load(name), revision="2")
