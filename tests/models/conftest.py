"""Tiny random networks and scenes: every test of this folder runs without trained weights."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from idbench.models.concat_id import networks, scenes
from idbench.models.concat_id.autoencoder import build_vae
from idbench.models.concat_id.training import scene_samples
from idbench.models.concat_id.training.recipe import read_stage
from idbench.prompts.avatars.scene import Person, Scene

TRANSFORMER = {
    "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "time_embed_dim": 16,
    "text_embed_dim": 12, "in_channels": 4, "out_channels": 4, "sample_height": 4,
    "sample_width": 6, "sample_frames": 9,
}
VAE = {
    "block_out_channels": [8, 8, 8], "layers_per_block": 1, "latent_channels": 4,
    "norm_num_groups": 2, "sample_height": 16, "sample_width": 24, "scaling_factor": 0.7,
}
TEXT = {"d_model": 12, "num_layers": 1, "num_heads": 2, "d_kv": 6, "d_ff": 16}
SETS = {
    "image_one": {"scenes": 6, "people": 1, "frames": 2, "identities": 3, "shard": 3},
    "clip_two": {"scenes": 4, "people": 2, "frames": 9, "identities": 3, "shard": 4},
}
"""The sets of scenes in `home`."""


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    network = networks.build_transformer(TRANSFORMER).eval()
    with torch.no_grad():  # diffusers starts nothing at zero, but make sure that gates are open
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.fixture
def vae():
    torch.manual_seed(1)
    return build_vae(VAE).eval()


@pytest.fixture
def text():
    torch.manual_seed(2)
    tokenizer = networks.build_tokenizer(["a", "person", "smiles", "."])
    network = networks.build_text_encoder({**TEXT, "vocab_size": len(tokenizer)}).eval()
    return networks.TextEncoder(tokenizer, network)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "latents": normal(2, 3, 4, 4, 6), "references": normal(2, 2, 4, 4, 6),
        "text": normal(2, 32, 12), "times": torch.tensor([900, 300]),
    }


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with encoded random shards, weights in `weights`; one thread a process."""
    monkeypatch.setattr(scenes, "load_recipe", lambda name: {"sets": SETS})
    monkeypatch.setenv("IDBENCH_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    rng = np.random.default_rng(0)
    for described in scenes.sets_of({"sets": SETS}):
        for number in range(described.shards):
            rendered = tmp_path / "data" / described.name / f"{number:05d}"
            encoded = tmp_path / "latents" / described.name / f"{number:05d}"
            rendered.mkdir(parents=True)
            encoded.mkdir(parents=True)
            truth = []
            for i in range(described.shard):
                people = tuple(Person(10_000 + (i + p) % 3) for p in range(described.people))
                truth.append({"caption": "a person", "scene": asdict(Scene(people))})
            (rendered / "truth.json").write_text(json.dumps(truth))
            frames = 3 if described.frames == 9 else 2
            heads = np.zeros((described.shard, frames, 16, 24), np.uint8)
            heads[:, :, :8, 8:16] = 1  # one token, the second of six
            np.save(rendered / "faces.npy", heads)
            shapes = {"latents": (frames, 4, 4, 6), "references": (3, 2, 4, 4, 6), "text": (32, 12)}
            for name, shape in shapes.items():
                array = rng.normal(size=(described.shard, *shape)).astype(np.float16)
                np.save(encoded / f"{name}.npy", array)
    before = torch.get_num_threads()
    AcceleratorState._reset_state(True)
    yield tmp_path
    AcceleratorState._reset_state(True)
    torch.set_num_threads(before)


def recipe(**changes):
    """A stage on the scenes of `home`."""
    return {
        "name": "tiny", "trainer": "idbench.models.concat_id.training.loop:train",
        "entry": "transformer_tiny", "data": "data", "latents": "latents", "seed": 7, "threads": 1,
        "precision": "no", "network": TRANSFORMER, "gradient_checkpointing": False,
        "components": "embedded", "cross": 0.5, "groups": {"image_one": 0.5, "clip_two": 0.5},
        "batch": {"image": 4, "clip": 2}, "steps": 8, "learning_rate": 1e-3, "weight_decay": 0.01,
        "warmup": 2, "decay": 0.5, "lowest_rate": 0.02, "clip": 1.0, "ema": 0.9, "log_every": 1,
        "validate_every": 0, "checkpoint_every": 1, "device": "cpu", **changes,
    }


def samples(home, **changes):
    """The samples of such a stage, checked."""
    made = read_stage(recipe(**changes))
    opened = scene_samples.SceneSamples(made, home)
    opened.check(made)
    return opened
