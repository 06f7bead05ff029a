"""What the training loop adds to a bare step, and what references add to a forward pass.

    python -m pytest benchmarks/test_training_step.py --benchmark-enable

Both are ratios within one run: the two sides take turns, and the median of their ratios counts.
On a CPU the time is that of the process, which other work on the machine does not change; what
worker processes read ahead is not in it, so the waiting for them is bounded on its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from idbench.models.concat_id.conditioning import denoise
from idbench.models.concat_id.training import loop, network, objective, samples
from idbench.models.concat_id.training.recipe import StageRecipe, read

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from tiny_stage import TRANSFORMER, make_cache, recipe  # noqa: E402

ROUNDS = 9
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


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def median_ratio(first: Callable[[], object], second: Callable[[], object]) -> float:
    """Median of first / second, taking turns, after one round to warm up."""
    ratios = [seconds(first) / seconds(second) for _ in range(ROUNDS + 1)]
    return float(np.median(ratios[1:]))


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
        objective.loss(bare, session.objective, held).mean().backward()
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


@pytest.mark.parametrize("references", [1, 2, 3])
def test_references_cost_what_as_many_frames_of_the_base_cost(benchmark, references) -> None:
    """The base's cost per token of the longer sequence: that of N + M frames without references.

    The network is the same; what could cost more is the concatenation, the positions, the cut.
    """
    torch.manual_seed(0)
    transformer = network.build(read(StageRecipe, recipe(Path("unused"), network=NETWORK))).eval()
    frames, shape = 9, (4, 16, 24)
    z, held = torch.randn(1, frames, *shape), torch.randn(1, references, *shape)
    text, when = torch.randn(1, 8, 12), torch.tensor([500])
    longer = torch.cat([z, held], dim=1)
    with torch.inference_mode():
        ratio = median_ratio(
            lambda: denoise(transformer, z, held, text, when),
            lambda: denoise(transformer, longer, None, text, when),
        )
        benchmark.pedantic(denoise, (transformer, z, held, text, when), rounds=3, iterations=1)
    benchmark.extra_info["ratio"] = ratio
    print(f"\n{references} references / as many frames more {ratio:.3f}")
    assert ratio <= 1.05
