"""What the training loop adds to a bare step.

    python -m pytest benchmarks/test_training_step.py --benchmark-enable

Time is that of the process, which other work on the machine hardly changes; what worker processes
read ahead is not in it, so the waiting for them is bounded on its own.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from idbench.models.concat_id.training import loop, network, objective, samples
from idbench.models.concat_id.training.recipe import StageRecipe, read

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests" / "helpers")]
from interleaved import median_ratio  # noqa: E402
from tiny_stage import TRANSFORMER, make_cache, recipe  # noqa: E402

NETWORK = {
    **TRANSFORMER, "num_attention_heads": 4, "attention_head_dim": 64, "num_layers": 4,
    "sample_height": 16, "sample_width": 24,
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_step_costs_at_most_a_tenth_more_than_a_bare_loop(benchmark, tmp_path) -> None:
    cache = make_cache(tmp_path / "cache", references=1, latents=(9, 4, 16, 24))
    content = recipe(
        cache, network=NETWORK, frames=33, height=64, width=96, references=1, global_batch=1,
        batch=1, steps=1000, workers=1, gradient_checkpointing=False, log_every=1000,
    )
    session = loop.Session(read(StageRecipe, content), samples.Cache.open(cache), tmp_path)
    batches = session.batches()
    held = session.to_device(next(batches))
    bare = network.Denoiser(network.load(session.recipe).train())
    optimiser = torch.optim.AdamW(bare.parameters(), lr=1e-5, betas=(0.9, 0.95))

    def bare_step() -> None:
        objective.loss(bare, session.family, held).mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    waited: list[float] = []

    def timed() -> dict[str, torch.Tensor]:
        start = time.perf_counter()
        batch = next(batches)
        waited.append(time.perf_counter() - start)
        return batch

    reading = iter(timed, None)
    ratio = median_ratio(lambda: session.advance(reading), bare_step)
    benchmark.pedantic(lambda: session.advance(reading), rounds=3, iterations=1)
    start = time.perf_counter()
    session.advance(reading)
    share = float(np.median(waited)) / (time.perf_counter() - start)
    benchmark.extra_info.update(ratio=ratio, share_of_waiting=share)
    print(f"\nstep / bare loop {ratio:.3f}, waiting for data {share:.1%} of a step")
    assert ratio <= 1.10
    assert share <= 0.05
