"""Growth of the search for partners over 1,000, 10,000 and 100,000 synthetic people.

    python -m pytest benchmarks/test_pairs_search.py --benchmark-enable -k "not 100000"

Embeddings have 512 dimensions, four for each identity. The largest size is beyond the exact
search and needs FAISS. Exact search grows with the square of the number of people.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from idbench.models.concat_id.pairs import partners, people
from idbench.models.concat_id.pairs.settings import PairSettings


def synthetic(count: int) -> people.People:
    """People whose cosine is about 0.8 to their others and 0 to all else."""
    rng = np.random.default_rng(0)
    made = people._empty(count, 512)
    base = rng.standard_normal((-(-count // 4), 512), np.float32)
    for start in range(0, count, 4096):
        part = slice(start, min(start + 4096, count))
        rows = base[np.arange(part.start, part.stop) // 4]
        rows = rows + 0.5 * rng.standard_normal(rows.shape, np.float32)
        made.vectors[part] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    made.video[:] = np.arange(count) + 1
    made.group[:], made.share[:] = 1, 0.2
    made.keys[:] = rng.integers(0, 2**63, count)
    return made


@pytest.mark.parametrize("count", [1_000, 10_000, 100_000])
def test_search_grows(benchmark, count: int) -> None:
    settings = PairSettings()
    if count > settings.exact_limit and importlib.util.find_spec("faiss") is None:
        pytest.skip("needs faiss-cpu")
    made = synthetic(count)
    wanted = partners.requests(made, settings)
    best, seen = benchmark.pedantic(
        partners.find_partners, (made, wanted, settings), rounds=1, iterations=1
    )
    benchmark.extra_info["pairs_found"] = int(seen.above.sum())
    assert (best["cross"].partner >= 0).mean() > 0.97
    found = np.flatnonzero(best["cross"].partner >= 0)
    assert (best["cross"].partner[found] // 4 == found // 4).all()
