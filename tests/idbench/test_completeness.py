"""How much of a split was measured."""

from __future__ import annotations

import pandas as pd

from idbench.measurements import Share, keys, present, shares

ANN, BOB, PAIR = (("ann",), "p1"), (("bob",), "p1"), (("ann", "bob"), "p2")


def test_a_failed_sample_counts_only_where_it_has_a_value() -> None:
    values = pd.DataFrame({
        "identities": [("ann",), ("bob",), ("ann", "bob")], "prompt_id": ["p1", "p1", "p2"],
        "status": ["failed", "failed", "generated"], "arcsim": [0.5, None, None], "viclip": None,
    })
    assert present(values, ["arcsim", "viclip"]).tolist() == [True, False, True]
    assert present(values, ["viclip"]).tolist() == [False, False, True]
    assert keys(values) == [ANN, BOB, PAIR]


def test_shares_are_of_what_all_were_asked_for_together() -> None:
    whole, part, other = {ANN, BOB, PAIR}, {ANN}, {BOB}
    assert shares([(whole, whole, 0), (part, part, 0)]) == [Share(3, 3), Share(1, 3)]
    assert shares([(part, part, 0), (other, other, 0)]) == [Share(1, 2), Share(1, 2)]
    assert shares([(part, whole, 0)]) == [Share(1, 3)], "asked for, not measured"
    assert shares([(part, part, 2), (other, other, 0)]) == [Share(1, 3), Share(1, 2)]
    assert shares([(part, part, 1), (whole, whole, 0)]) == [Share(1, 3), Share(3, 3)]
    assert shares([]) == []
    assert Share(3, 3).whole and not Share(2, 3).whole and str(Share(2, 3)) == "2 of 3 samples"
