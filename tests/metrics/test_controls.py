"""Controls of recognisers, their agreement with dlib, and the claims made of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from idbench.errors import UserError
from idbench.metrics.training.augment import COLOURS, STYLE
from idbench.metrics.validation import readers
from idbench.metrics.validation.findings import claims_of_agreement, claims_of_controls
from idbench.metrics.validation.readers import (
    CONTROLS,
    EXCHANGED,
    Agreement,
    Control,
    agreements,
    control_of,
    read_runs,
)
from idbench.prompts.avatars.identity import sample_identity


def test_controls_exchange_what_they_say():
    own, other = sample_identity(1_001), sample_identity(1_002)
    assert EXCHANGED["nothing"](own, other) == own
    shape, rest = EXCHANGED["shape"](own, other), EXCHANGED["all but shape"](own, other)
    assert shape.shape == other.shape and shape.skin == own.skin and shape.beard == own.beard
    assert rest.shape == own.shape and replace(rest, shape=other.shape) == other
    for name, fields in (("colours", COLOURS), ("hair, beard, glasses", STYLE)):
        changed = EXCHANGED[name](own, other)
        assert all(getattr(changed, field) == getattr(other, field) for field in fields)
        assert changed.shape == own.shape and changed.mole == own.mole


def test_a_clip_is_found_when_its_own_reference_is_nearest():
    references = [np.array([1.0, 0]), np.array([0, 1.0]), None]
    clips = [np.array([0.9, 0.1]), np.array([0.8, 0.2]), np.array([1.0, 0])]
    found = control_of("arcsim", "nothing", clips, references)
    assert (found.right, found.clips) == (0.5, 2), "without a reference there is no right answer"
    assert found.own == pytest.approx(0.55) and found.other == pytest.approx(0.45)
    assert control_of("arcsim", "grey", [None, None], references[:2]).clips == 0


def _ignore(note: str = "") -> None:
    pass


def _by_brightness(frame: np.ndarray, box: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A reader of colour alone."""
    x0, y0, x1, y1 = np.clip(box, 0, None).astype(int)
    colour = frame[y0:y1, x0:x1].mean((0, 1)) - 120
    return colour


def test_every_control_is_read_by_every_reader(monkeypatch):
    monkeypatch.setattr(readers, "CONTROL_FRAMES", 1)
    found = readers.read_controls(2, 0, {"arcsim": _by_brightness}, _ignore)
    assert [c.name for c in found] == list(CONTROLS)
    assert all(c.reader == "arcsim" and c.clips <= 2 for c in found)
    assert sum(c.clips for c in found) >= len(CONTROLS), "faces are found"


def _controls(shape: float, rest: float, colours: float) -> list[Control]:
    rows = {name: Control("arcsim", name, 1.0, 1.0, 0.8, 0.0, 20) for name in CONTROLS}
    rows["shape"] = replace(rows["shape"], right=shape)
    rows["all but shape"] = replace(rows["all but shape"], right=rest)
    rows["colours"] = replace(rows["colours"], own=colours)
    return [*rows.values(), *(replace(row, reader="dlib") for row in rows.values())]


def test_a_reader_of_colours_holds_fewer_claims_than_a_reader_of_shapes():
    good, bad = (list(claims_of_controls(_controls(*given)))
                 for given in ((0.1, 0.8, 0.7), (0.9, 0.1, 0.2)))
    assert all(claim.held for claim in good) and {c.metric for c in good} == {"arcsim"}
    assert [c.held for c in bad] == [False, False, True, True, False]


def test_agreement_is_the_rank_correlation_over_samples_and_systems():
    rows = {
        system: [{"arcsim": base + i, "cursim": -base - i, "dlib": base + 2 * i} for i in range(3)]
        for system, base in (("a", 0.0), ("b", 10.0), ("c", 20.0))
    }
    found = {(a.metric, a.over): a for a in agreements(rows, ("arcsim", "cursim"))}
    assert found["arcsim", "samples"].rho == pytest.approx(1) and \
        found["arcsim", "samples"].count == 9
    assert found["cursim", "systems"].rho == pytest.approx(-1) and \
        found["cursim", "systems"].count == 3
    assert agreements({"a": rows["a"][:2]}, ("arcsim",))[0].rho is None, "two are too few"


def test_agreement_needs_dlib():
    with pytest.raises(UserError, match="pip install dlib-bin"):
        read_runs([], {"arcsim": _by_brightness}, _ignore)


def test_claims_of_agreement_have_a_bar():
    high, none = claims_of_agreement(
        [Agreement("arcsim", "samples", 0.7, 20), Agreement("cursim", "systems", None, 2)])
    assert high.held and "ArcSim ranks samples as dlib does" in high.text and not none.held


def test_runs_of_one_model_with_other_settings_are_two_systems(monkeypatch, tmp_path):
    from types import SimpleNamespace as Made

    for name in ("make_detector", "read_spread", "read_rgb"):
        monkeypatch.setattr(readers, name, lambda *_: np.zeros((1, 8, 8, 3), np.uint8))
    monkeypatch.setattr(readers, "mean_vectors", lambda *_: {"dlib": np.ones(2)})
    person = Made(kind="face", image=tmp_path / "a.png")
    record = Made(sample=Made(references=[person]), video_name="v.mp4", id="s", suite_id="s")
    runs = [
        Made(name="concat_id", folder=tmp_path / folder, records=lambda: [record],
             path=lambda *parts: tmp_path)
        for folder in ("plain", "zeroed")
    ]
    found = read_runs(runs, {"dlib": _by_brightness}, _ignore)
    assert len(found) == 2
