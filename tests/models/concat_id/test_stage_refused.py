"""Values, networks, caches and pairs that a stage cannot use: one sentence each, said early."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
import torch
from tiny_stage import TRANSFORMER, WAN, make_cache, recipe

from idbench.errors import UserError
from idbench.models.concat_id.training import loop, network
from idbench.models.concat_id.training.cache import CacheRecipe
from idbench.models.concat_id.training.pair_file import read_pairs
from idbench.models.concat_id.training.recipe import StageRecipe, read
from idbench.models.concat_id.training.samples import Cache

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("changes, words", [
    ({"betas": [1.5, 2]}, "betas.0"), ({"betas": [0.9, 1.0]}, "betas.1"),
    ({"learning_rate": float("inf")}, "learning_rate"), ({"clip": float("inf")}, "clip"),
    ({"validation_guidance": float("nan")}, "validation_guidance"), ({"seed": 2**63}, "seed"),
])
def test_values_that_no_training_can_use(cache, changes, words) -> None:
    with pytest.raises(UserError, match=f"unusable value for {words}"):
        read(StageRecipe, recipe(cache, **changes))


def test_an_unknown_device_of_the_cache() -> None:
    with pytest.raises(UserError, match="unusable value for device"):
        read(CacheRecipe, {"name": "x", "trainer": "x:y", "device": "gpu"})


@pytest.mark.parametrize("changes", [
    {"num_layers": 0}, {"num_attention_heads": 0}, {"attention_head_dim": 24},
    {"out_channels": 8}, {"dropout": 2}, {"activation_fn": "none"}, {"num_layers": "many"},
])
def test_networks_that_cannot_be_made(cache, changes) -> None:
    with pytest.raises(UserError, match="unusable network .*correct `network`"):
        loop.make_plan(recipe(cache, network={**TRANSFORMER, **changes}, height=32, width=48),
                       gpus=1)


@pytest.mark.parametrize("changes", [{"attention_head_dim": 7}, {"patch_size": [1, 2]}])
def test_wan_networks_that_cannot_be_made(cache, changes) -> None:
    made = read(StageRecipe, recipe(cache, network={**WAN, **changes}))
    with pytest.raises(UserError, match="unusable network"), torch.device("meta"):
        network.build(made)


@pytest.mark.parametrize("assumed, words", [
    ({"memory": -1.0}, "--gpu-memory"), ({"memory": float("nan")}, "--gpu-memory"),
    ({"overhead": -1000.0}, "--overhead"), ({"overhead": float("inf")}, "--overhead"),
    ({"peak_tflops": float("nan")}, "--peak-tflops"), ({"mfu": float("nan")}, "--mfu"),
    ({"peak_tflops": float("inf")}, "--peak-tflops"), ({"gpus": 0}, "--gpus"),
])
def test_plans_that_assume_nonsense(cache, assumed, words) -> None:
    with pytest.raises(UserError, match=words):
        loop.make_plan(recipe(cache, height=32, width=48), **{"gpus": 1, **assumed})


@pytest.mark.parametrize("made, words", [
    ({**TRANSFORMER, "text_embed_dim": 16}, "text of width 12, the network takes 16"),
    ({**WAN, "text_dim": 16}, "text of width 12, the network takes 16"),
    ({**TRANSFORMER, "in_channels": 8, "out_channels": 8},
     "latents of channels 4, the network takes 8"),
    ({**TRANSFORMER, "patch_size": 4}, "latents of columns beyond whole patches 2"),
])
def test_a_cache_of_another_networks_latents_or_text(cache, tmp_path, made, words) -> None:
    with pytest.raises(UserError, match=words):
        loop.train(recipe(cache, network=made), tmp_path / "state")


def test_a_cache_whose_own_files_are_damaged(cache, tmp_path) -> None:
    folder = shutil.copytree(cache, tmp_path / "cache")
    (folder / "index.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match="The index of the cache .* is missing or damaged"):
        Cache.open(folder)
    (folder / "index.parquet").unlink()
    with pytest.raises(UserError, match="The index of the cache .* is missing or damaged"):
        Cache.open(folder)
    (folder / "cache.json").write_text("[]")
    with pytest.raises(UserError, match="has version None, this idbench reads 1"):
        Cache.open(folder)


@pytest.mark.parametrize("row", [
    {"references": ["x.png"]}, {"references": "x.png"}, {"references": 3},
    {"references": [{"candidates": ["x.png"]}]}, {"references": [{"candidates": [{"image": 3}]}]},
    {"video": None, "references": [{"candidates": [{"image": "x.png"}]}]},
])
def test_pairs_whose_columns_hold_something_else(tmp_path, row) -> None:
    path = tmp_path / "pairs.parquet"
    pd.DataFrame([{"video": "a.mp4", "caption": "a person", **row}]).to_parquet(path)
    with pytest.raises(UserError, match="has a row that cannot be used"):
        list(read_pairs(str(path), 1))


def test_nothing_to_evaluate(cache, tmp_path) -> None:
    with pytest.raises(UserError, match="There is no checkpoint in .* to evaluate; train first"):
        loop.train(recipe(cache), tmp_path / "none", evaluate=True)
    folder = shutil.copytree(cache, tmp_path / "cache")
    index = pd.read_parquet(folder / "index.parquet")
    index.assign(split="training").to_parquet(folder / "index.parquet")
    loop.train(recipe(folder, steps=1), tmp_path / "state")
    with pytest.raises(UserError, match="has no held-out samples to evaluate on"):
        loop.train(recipe(folder, steps=1), tmp_path / "state", evaluate=True)


def test_a_diverged_training_leaves_no_checkpoint(cache, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "loss", lambda *_: torch.full((2,), torch.nan, requires_grad=True))
    with pytest.raises(UserError, match="The loss is nan at step 2: training has diverged"):
        loop.train(recipe(cache, log_every=5), tmp_path / "state")
    assert not list((tmp_path / "state").rglob("checkpoint.json"))
