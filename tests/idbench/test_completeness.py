"""How much of a split was measured."""

from __future__ import annotations

import pandas as pd

from idbench.measurements import Key, Share, keys, present, shares

ANN, BOB, PAIR = (("ann",), "p1"), (("bob",), "p1"), (("ann", "bob"), "p2")


def test_a_failed_sample_counts_only_where_it_has_a_value() -> None:
    values = pd.DataFrame({
        "identities": [("ann",), ("bob",), ("ann", "bob")], "prompt_id": ["p1", "p1", "p2"],
        "status": ["failed", "failed", "generated"], "arcsim": [0.5, None, None], "viclip": None,
    })
    assert [tuple(row) for row in present(values)["identities"]] == [("ann",), ("ann", "bob")]
    assert len(present(values.drop(columns="arcsim"))) == 1
    assert keys(values) == [ANN, BOB, PAIR]


def table(asked: set[Key], measured: set[Key]) -> pd.DataFrame:
    """Samples of the keys `asked` for; those that were not `measured` failed."""
    rows = [(*key, "generated" if key in measured else "failed") for key in sorted(asked)]
    return pd.DataFrame(rows, columns=["identities", "prompt_id", "status"])


def test_shares_are_of_what_all_were_asked_for_together() -> None:
    every: set[Key] = {ANN, BOB, PAIR}
    whole, part, other = table(every, every), table({ANN}, {ANN}), table({BOB}, {BOB})
    assert shares([(whole, 0), (part, 0)]) == [Share(3, 3), Share(1, 3)]
    assert shares([(part, 0), (other, 0)]) == [Share(1, 2), Share(1, 2)]
    assert shares([(table(every, {ANN}), 0)]) == [Share(1, 3)], "asked for, not measured"
    assert shares([(part, 2), (other, 0)]) == [Share(1, 3), Share(1, 2)]
    assert shares([(part, 1), (whole, 0)]) == [Share(1, 3), Share(3, 3)]
    assert shares([]) == []
    assert Share(3, 3).whole and not Share(2, 3).whole and str(Share(2, 3)) == "2 of 3 samples"
