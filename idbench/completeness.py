"""How much of a split was measured: what may be ranked, and what is only a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idbench.measurements import Measurement
from idbench.suite import load_suite, suite_names

if TYPE_CHECKING:
    import pandas as pd

Key = tuple[tuple[str, ...], str]
"""What a sample is of: its identities and its prompt's id, whatever its seed."""


@dataclass(frozen=True)
class Share:
    """How many of a split's samples were measured, of all that are known, counted by `Key`."""

    measured: int
    of: int

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.measured >= self.of

    def __str__(self) -> str:
        return f"{self.measured} of {self.of} samples"


def present(values: pd.DataFrame, metrics: Sequence[str]) -> pd.Series:
    """Which rows of `values` (columns `status` and `metrics`) were measured: not a failed sample
    without any value."""
    return (values["status"] != "failed") | values[list(metrics)].notna().any(axis=1)


def keys(values: pd.DataFrame) -> list[Key]:
    """The key of each row, from its columns `identities` and `prompt_id`."""
    return [
        (tuple(people), str(prompt))
        for people, prompt in zip(values["identities"], values["prompt_id"], strict=True)
    ]


def shares(groups: Sequence[tuple[set[Key], set[Key], int]]) -> list[Share]:
    """The share of each system in what all systems of a split were asked for together.

    Args:
        groups: per system, the keys it has, those it was asked for, and how many samples of an
            unfinished run have no known key yet.
    """
    together = set().union(*(asked | has for has, asked, _ in groups)) if groups else set()
    return [
        Share(len(has), max(len(together), len(has) + unfinished))
        for has, _, unfinished in groups
    ]


def shares_of(group: Sequence[Measurement]) -> list[Share]:
    """`shares` of measurements of one split."""
    return shares([(_present_keys(one), set(keys(one.values)), len(one.missing)) for one in group])


def share_of_suite(measured: Measurement) -> Share:
    """The share of the suite's split: as installed, else by the size kept with the values; where
    neither is known, of what was asked for."""
    known = _split_keys(measured)
    if known is None:
        share = shares_of([measured])[0]
        return Share(share.measured, max(share.of, measured.split_size or 0))
    values = measured.values[present(measured.values, measured.metrics)]
    has = {known.get(str(i), key) for i, key in zip(values.index, keys(values), strict=True)}
    whole = set(known.values())
    return Share(len(whole & has), len(whole))


def _present_keys(measured: Measurement) -> set[Key]:
    values = measured.values
    return set(keys(values[present(values, measured.metrics)]))


def _split_keys(measured: Measurement) -> dict[str, Key] | None:
    """The key of each sample of the split by suite id; None where the suite is not installed."""
    suite = measured.suite
    if suite.name not in suite_names():
        return None
    loaded = load_suite(suite.name)
    if loaded.sha256 != suite.sha256:
        return None
    return {
        sample.id: (tuple(sample.identities), str(sample.prompt_id))
        for sample in loaded.samples(measured.split, None, measured.seed)
    }
