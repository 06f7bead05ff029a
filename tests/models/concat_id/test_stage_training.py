"""The loop of the stages: killed and resumed, spread over processes, and what it trains on."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from kills import leftovers
from safetensors.torch import load_file
from tiny_stage import TRANSFORMER, WAN, make_cache, recipe, train_to_be_killed

from idbench.errors import UserError
from idbench.models.concat_id.training import loop, network, samples
from idbench.models.concat_id.training.recipe import StageRecipe, read

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"))


def logged(folder: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Everything that was exported: the network, and adapters where there are some."""
    files = sorted((folder / "export").rglob("*.safetensors"))
    return {name: value for file in files for name, value in load_file(file).items()}


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 4}], ids=["all", "lora"])
def test_killed_in_the_middle_of_a_checkpoint_it_resumes_to_the_same_losses(
    cache, tmp_path, changes
):
    loop.train(recipe(cache, **changes), tmp_path / "whole")
    state = tmp_path / "killed"
    child = forked.start(train_to_be_killed, cache, changes, state)
    half = state / "checkpoints" / ".00000004.part" / "optimizer.bin"
    deadline = time.monotonic() + 300
    while not half.exists() and child.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert [p.name for p in half.parents[1].iterdir() if p.name.isdigit()] == ["00000002"]
    with open(state / "log.jsonl", "a") as file:
        file.write('{"step": 5, "lo')  # as a kill in the middle of a line leaves it
    AcceleratorState._reset_state(True)
    loop.train(recipe(cache, **changes), state, resume=True)
    assert logged(state) == logged(tmp_path / "whole")
    assert [step for step, _ in logged(state)] == [1, 2, 3, 4, 5, 6]
    expected = weights(tmp_path / "whole")
    for name, value in weights(state).items():
        assert torch.equal(value, expected[name]), name
    assert not leftovers(state)


def test_two_processes_see_the_samples_of_one(cache):
    content = read(StageRecipe, recipe(cache))
    opened = samples.Cache.open(cache)
    alone = samples.StepSamples(opened, content)
    shared = [samples.StepSamples(opened, content, rank, 2) for rank in (0, 1)]
    assert (alone.accumulation, shared[0].accumulation) == (2, 1)
    for step in range(3):
        one = [alone[2 * step], alone[2 * step + 1]]
        two = [of_rank[step] for of_rank in shared]
        for a, b in zip(one, two, strict=True):
            for name in a:
                assert torch.equal(a[name], b[name]), name


def test_an_epoch_holds_every_sample_once_and_times_are_spread(cache):
    content = read(StageRecipe, recipe(cache, global_batch=7, batch=7))
    drawn = samples.StepSamples(samples.Cache.open(cache), content)
    for step in range(2):  # seven training samples: one step is an epoch
        assert sorted(drawn.key(step, j) for j in range(7)) == sorted(drawn.keys)
    assert [drawn.key(0, j) for j in range(7)] != [drawn.key(1, j) for j in range(7)]
    uniform = np.sort(drawn[0]["uniform"].numpy())
    assert ((uniform * 7).astype(int) == np.arange(7)).all()


def test_accumulated_batches_train_like_one(cache, tmp_path):
    results = []
    for batch in (4, 1):
        AcceleratorState._reset_state(True)
        folder = tmp_path / str(batch)
        loop.train(recipe(cache, batch=batch, steps=2, ema=0), folder)
        results.append((logged(folder), weights(folder)))
    (one, whole), (four, parts) = results
    assert [v for _, v in one] == pytest.approx([v for _, v in four], rel=1e-4)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-5)


def test_pixel_noise_is_fresh_and_of_the_papers_size(tmp_path):
    folder = make_cache(tmp_path, kind="garment")
    key = samples.Cache.open(folder).index.key[0]
    clean = samples.read_sample(folder, key, 1, True, None)["images"][0]
    sigmas, flipped = [], 0
    for seed in range(200):
        rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        noisy = samples.vary(clean, "garment", rng, generator)
        straight, mirrored = (noisy - clean), (noisy - clean.flip(-1))
        flipped += bool(mirrored.std() < straight.std())
        sigmas.append(float(min(straight.std(), mirrored.std())))
    assert np.log(sigmas).mean() == pytest.approx(-3.0, abs=0.12)
    assert np.log(sigmas).std() == pytest.approx(0.5, abs=0.1)
    assert 70 <= flipped <= 130
    assert len(set(sigmas)) == 200


@pytest.mark.parametrize("name", ["text_dropout", "reference_dropout"])
def test_dropout_zeroes_its_own_part_alone(cache, tmp_path, name):
    content = recipe(cache, **{"text_dropout": 0.0, "reference_dropout": 0.0, name: 1.0})
    session = loop.Session(
        read(StageRecipe, content), samples.Cache.open(cache), tmp_path
    )
    batch = next(session.batches())
    made = session.to_device(batch)
    assert bool((made.text == 0).all()) == (name == "text_dropout")
    assert bool((made.references == 0).all()) == (name == "reference_dropout")
    assert torch.equal(made.latents, batch["latents"])


def test_wan_trains_with_references_and_their_modulation(cache, tmp_path):
    content = recipe(cache, network=WAN, reference_adaln=True, steps=1, gradient_checkpointing=True)
    torch.manual_seed(0)
    before = network.load(read(StageRecipe, content)).state_dict()
    loop.train(content, tmp_path)
    after = weights(tmp_path)
    for name in ("reference_time_proj.weight", "blocks.0.reference_table", "proj_out.weight"):
        assert not torch.equal(before[name], after[name]), name


def test_a_next_stage_starts_from_the_export_of_the_one_before(cache, tmp_path):
    loop.train(recipe(cache, steps=1), tmp_path)
    content = read(StageRecipe, recipe(cache, init=str(tmp_path / "export")))
    for name, value in network.load(content).state_dict().items():
        assert torch.equal(value, weights(tmp_path)[name])
    other = recipe(cache, init=str(tmp_path / "export"), network={**TRANSFORMER, "num_layers": 3})
    with pytest.raises(UserError, match="num_layers 2, the recipe 'tiny' 3"):
        network.load(read(StageRecipe, other))
    with pytest.raises(UserError, match="trains a wan network"):
        network.load(read(StageRecipe, {**other, "network": WAN}))


def test_the_averaged_weights_are_exported(cache, tmp_path):
    made = {}
    for ema in (0.0, 0.9):
        AcceleratorState._reset_state(True)
        loop.train(recipe(cache, steps=2, ema=ema), tmp_path / str(ema))
        made[ema] = weights(tmp_path / str(ema))["proj_out.weight"]
    start = network.load(read(StageRecipe, recipe(cache))).state_dict()["proj_out.weight"]
    assert 0 < (made[0.9] - start).norm() < (made[0.0] - start).norm()
