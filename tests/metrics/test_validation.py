"""`validate-metrics`: avatars that move by a known amount, and what is found of them."""

from __future__ import annotations

import json
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from idbench.metrics.validation.experiments import (
    AXES,
    FACE_METRICS,
    Preference,
    Reading,
    between,
    render_head,
    wordings,
)
from idbench.metrics.validation.findings import find
from idbench.prompts.avatars.identity import sample_identity as person
from idbench.prompts.avatars.scene import Garment, Person, Scene
from idbench.prompts.language import describe, tokens
from idbench.prompts.sampling import EDITS, edited
from idbench.statistics import area_under_curve


def test_identities_move_in_a_straight_line_and_end_at_the_other():
    first, second = person(1001), person(1002)
    assert between(first, second, 0.0) == first
    end = between(first, second, 1.0)
    assert end.shape["nose_width"] == pytest.approx(second.shape["nose_width"])
    assert np.allclose(end.skin, second.skin) and end.hair_style == second.hair_style
    half = between(first, second, 0.5)
    assert half.shape["jaw_width"] == pytest.approx(
        (first.shape["jaw_width"] + second.shape["jaw_width"]) / 2
    )
    shape = between(first, second, 1.0, shape_only=True)
    assert shape.skin == first.skin and shape.beard == first.beard
    assert shape.shape["nose_width"] == pytest.approx(second.shape["nose_width"])


def test_one_thing_moves_at_a_time():
    start = render_head(person(1001), 64)
    assert np.array_equal(start, render_head(person(1001), 64, expression="laugh", strength=0.0))
    turned = render_head(person(1001), 64, yaw=0.4).astype(int)
    moved = np.abs(turned - start).max(-1) > 12
    assert moved[10:45, 30:66].mean() > 0.2, "the head turned"
    assert moved[:, :10].mean() < 0.02, "the background stayed"


@pytest.mark.parametrize("attribute", ["expression", "motion", "garment", "background"])
def test_an_edit_changes_one_attribute(attribute):
    scene = Scene((Person(1001, "smile", "nod", Garment("red", "striped")),), "park")
    other = edited(scene, attribute, np.random.default_rng(0))
    changed = {
        "expression": other.people[0].expression != "smile",
        "motion": other.people[0].motion != "nod",
        "garment": other.people[0].garment != scene.people[0].garment,
        "background": other.background != "park",
    }
    assert [name for name, is_other in changed.items() if is_other] == [attribute]


@pytest.mark.parametrize("attribute", EDITS)
def test_of_the_wordings_the_one_is_taken_in_which_the_prompts_differ_least(attribute):
    scene = Scene((Person(1001, "smile", "nod", Garment("red", "striped")),), "park")
    other = edited(scene, attribute, np.random.default_rng(3))

    def alike(one: str, two: str) -> float:
        return SequenceMatcher(None, tokens(one), tokens(two)).ratio()

    pairs = []
    for draws in (1, 5, 40):
        one, two = wordings(scene, other, np.random.default_rng(7), draws)
        assert one != two, "the edit is said"
        seeds = np.random.default_rng(7).integers(2**31, size=draws).tolist()
        drawn = [
            tuple(describe(s, np.random.default_rng(seed), EDITS) for s in (scene, other))
            for seed in seeds
        ]
        assert (one, two) in drawn, "both in one wording"
        assert alike(one, two) == max(alike(*pair) for pair in drawn)
        pairs.append((one, two))
    first, _, last = (alike(*pair) for pair in pairs)
    assert last >= first and last > 0.75
    assert wordings(scene, other, np.random.default_rng(7), 40) == pairs[-1]


def test_auc_counts_pairs():
    assert area_under_curve([3, 2], [1, 0]) == 1.0
    assert area_under_curve([0, 1], [2, 3]) == 0.0
    assert area_under_curve([1, 1], [1, 1]) == 0.5
    assert area_under_curve([1, 3], [2]) == 0.5
    assert area_under_curve([], [1]) is None


def _readings(metric, falls, wobble=0.0):
    """Readings that fall by `falls` to another identity and by `wobble` along other axes."""
    rows = []
    for number, who in enumerate("abc"):
        for axis in AXES:
            amount = falls if axis in ("identity", "shape") else wobble
            for share in (0.0, 0.5, 1.0):
                rows.append(Reading(axis, who, share, metric, 0.9 - 0.01 * number - amount * share))
    return rows


def test_a_metric_that_does_what_it_should_holds_its_claims_and_a_bad_one_does_not():
    good = _readings("arcsim", 0.8, 0.05)
    bad = _readings("cursim", 0.1, 0.6)  # follows the pose more than the person
    dist = _readings("clipdist", -0.5, -0.2)
    preferences = [Preference(i, e, 0.5, 0.2 if e != "motion" else 0.7)
                   for i in range(4) for e in ("expression", "motion", "garment", "background")]
    found = find(good + bad + dist, preferences)
    held = {c.text: c.held for c in found.claims if c.metric == "arcsim"}
    assert len(held) == 6 and all(held.values())
    wrong = [c for c in found.claims if c.metric == "cursim" and not c.held]
    assert {"stays when only yaw", "tells own faces"} <= {
        key for c in wrong for key in ("stays when only yaw", "tells own faces") if key in c.text
    }
    assert found.spearman["arcsim"]["identity"].mean == pytest.approx(-1.0)
    assert found.auc["arcsim"] == 1.0 and found.auc["clipdist"] == 1.0
    preferred = found.prefers_true_prompt
    assert preferred["motion"].mean == 0.0 and preferred["garment"].mean == 1.0


def test_what_was_not_measured_is_not_held():
    rows = [Reading(axis, "a", share, m, None, "no face in the frame")
            for m in FACE_METRICS for axis in AXES for share in (0.0, 0.5, 1.0)]
    found = find(rows, [Preference(0, "expression", float("nan"), float("nan"))])
    assert not any(c.held for c in found.claims if c.metric != "viclip")
    assert found.scored["arcsim"]["yaw"] == 0.0
    assert found.auc["arcsim"] is None


def test_the_command_writes_a_page_on_the_embedded_networks(tmp_path: Path):
    from idbench.commands.validate_metrics import validate_metrics

    done = CliRunner().invoke(validate_metrics, [
        "-o", str(tmp_path), "--people", "2", "--steps", "3", "--clips", "2", "--controls", "2",
        "--json",
    ])
    assert done.exit_code == 0, done.output
    data = json.loads((tmp_path / "validation.json").read_text())
    assert data["sizes"]["people"] == 2 and data["protocol"] == "strict-v3"
    for metric in ("arcsim", "cursim"):
        assert data["spearman"][metric]["identity"]["mean"] < -0.4
        assert data["auc"][metric] > 0.8
        assert data["scored"][metric]["identity"] > 0.8
    page = (tmp_path / "validation.html").read_text()
    assert page.count("<svg") == len(AXES) and "ArcSim falls as the identity" in page


def test_a_protocol_of_one_metric_claims_nothing_of_the_others(tmp_path: Path):
    from idbench.commands.validate_metrics import validate_metrics

    done = CliRunner().invoke(validate_metrics, [
        "-o", str(tmp_path), "--people", "2", "--steps", "3", "--clips", "2",
        "--protocol", "clipdist-face", "--json",
    ])
    assert done.exit_code == 0, done.output
    claims = json.loads((tmp_path / "validation.json").read_text())["claims"]
    assert {claim["metric"] for claim in claims} == {"clipdist"}
