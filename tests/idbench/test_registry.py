"""The registry: lazy targets, collisions, nearest names."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from idbench import registry
from idbench.errors import UserError
from idbench.registry import METRICS, MODELS, Registry, make_model, split_variant


def test_listing_imports_nothing() -> None:
    found = Registry("model", "idbench.none", {"x": "no.such.module:X"})
    assert list(found.targets()) == ["x"]
    with pytest.raises(UserError, match="cannot be loaded .No module named 'no'.; reinstall"):
        found.load("x")


def test_every_builtin_metric_describes_itself() -> None:
    for name in METRICS.targets():
        metric = METRICS.load(name)
        assert metric.name == name
        assert metric.formula and metric.source and metric.range[0] < metric.range[1]


def test_two_packages_with_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("concat_id", "other.package:Model", "idbench.models")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(UserError, match="Two packages offer a model named 'concat_id'"):
        MODELS.load("concat_id")


def test_variants() -> None:
    assert split_variant("concat_id@multi") == ("concat_id", "multi")
    assert split_variant("concat_id") == ("concat_id", None)
    with pytest.raises(UserError):
        split_variant("concat_id@")


def test_unknown_model_says_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'concat_id'"):
        make_model("concatid")
