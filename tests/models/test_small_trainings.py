"""The autoencoder and the text encoder, made tiny: export, interruption, resuming."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch

from idbench import cli, embedded
from idbench.models.concat_id import networks, scenes, text, vae
from idbench.recipes import load_recipe
from idbench.training.resumable_loop import Interrupted

TEXT = {
    "d_model": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8, "d_ff": 16,
    "feed_forward_proj": "gated-gelu",
}
VAE = {
    "block_out_channels": [8, 8], "layers_per_block": 1, "latent_channels": 4,
    "temporal_compression_ratio": 1, "norm_num_groups": 2, "sample_height": 16,
    "sample_width": 24, "scaling_factor": 1.0,
}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("IDBENCH_WEIGHTS", str(folder))
    return folder


def interrupt_at(monkeypatch, module, name, call):
    """Send SIGINT during the `call`-th call of `module.name`, once."""
    original, calls = getattr(module, name), []

    def called(*arguments):
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(module, name, called)


def text_recipe(**changes):
    recipe = load_recipe("text_encoder")[1]
    return {**recipe, "network": TEXT, "batch": 2, "steps": 4, "log_every": 1, **changes}


def test_an_interrupted_text_encoder_is_not_exported(weights, tmp_path, monkeypatch, capsys):
    interrupt_at(monkeypatch, text, "_batch", 2)
    path = tmp_path / "small.yaml"
    path.write_text(
        "{name: text_encoder, trainer: 'idbench.models.concat_id.text:train', seed: 41, batch: 2, "
        f"steps: 4, learning_rate: 0.002, network: {TEXT}}}"
    )
    arguments = ["train", str(path), "--state", str(tmp_path / "state")]
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 130 and "Stopped at step 2 of 4" in capsys.readouterr().err
    assert (tmp_path / "state/checkpoint.pt").exists() and not list(weights.iterdir())
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments, "--resume"])
    assert end.value.code == 0 and embedded.entry("text_encoder")["steps"] == 4
    resumed = embedded.entry("text_encoder")["sha256"]
    text.train(text_recipe(), tmp_path / "whole")
    assert embedded.entry("text_encoder")["sha256"] == resumed
    networks.load_text_encoder("text_encoder")


def test_an_empty_checkpoint_is_no_interruption(weights, tmp_path, capsys):
    (tmp_path / "state").mkdir()
    (tmp_path / "state/checkpoint.pt").touch()
    for more in ("--resume", "--evaluate"):
        with pytest.raises(SystemExit) as end:
            cli.main(["train", "text_encoder", "--state", str(tmp_path / "state"), more])
        said = capsys.readouterr().err
        assert end.value.code == 2 and "checkpoint.pt is damaged; remove it" in said


def test_a_time_limit_does_not_export(weights, tmp_path):
    with pytest.raises(Interrupted, match="time limit of 0.0 minutes"):
        text.train(text_recipe(minutes=0.0), tmp_path / "state")
    assert not list(weights.iterdir())


class Pool:
    """Random frames in place of rendered ones."""

    def __init__(self, *_):
        self.frames = [1]

    def refresh(self):
        pass

    def images(self, count, rng):
        return rng.integers(0, 255, (count, 1, 16, 24, 3), np.uint8), np.ones(
            (count, 1, 16, 24), bool)


@pytest.fixture
def vae_recipe(weights, monkeypatch):
    monkeypatch.setattr(vae, "FramePool", Pool)
    monkeypatch.setattr(vae, "measure", lambda *_: {"psnr": 1.0})
    monkeypatch.setattr(vae, "gate", lambda *_: {})
    monkeypatch.setattr(scenes, "load_recipe", lambda name: {"sets": {}})
    recipe = load_recipe("vae")[1]
    yield {**recipe, "network": VAE, "batch": 1, "steps": 3, "decoder_steps": 3, "warmup": 2,
           "log_every": 1, "evaluate_every": 2}
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("call", [2, 3, 5])
def test_an_interrupted_autoencoder_ends_as_a_whole_one(
    vae_recipe, weights, tmp_path, monkeypatch, call
):
    vae.train(vae_recipe, tmp_path / "whole")
    whole = embedded.entry("vae")
    assert whole["steps"] == 6 and whole["measured"] == {"psnr": 1.0}
    (weights / "manifest.json").unlink()
    interrupt_at(monkeypatch, vae, "_loss", call)
    with pytest.raises(Interrupted):
        vae.train(vae_recipe, tmp_path / "cut")
    assert "vae" not in embedded.entries()
    vae.train(vae_recipe, tmp_path / "cut", resume=True)
    assert embedded.entry("vae") == whole


def test_the_decoders_part_leaves_the_encoder_at_its_average(vae_recipe, tmp_path, monkeypatch):
    seen = []
    original = vae._loss
    monkeypatch.setattr(vae, "_loss", lambda network, *rest: (
        seen.append([network.encoder.conv_in.conv.weight.detach().clone(),
                     network.decoder.conv_in.conv.weight.detach().clone()]),
        original(network, *rest))[1])
    vae.train(vae_recipe, tmp_path)
    changed = [[not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
               for before, after in zip(seen, seen[1:], strict=False)]
    assert changed == [[True, True]] * 3 + [[False, True]] * 2
    trained = vae.load_trained(vae_recipe, tmp_path)
    torch.testing.assert_close(trained.encoder.conv_in.conv.weight, seen[3][0])


def test_learning_rates_of_the_shipped_weights():
    recipe = load_recipe("vae")[1]
    steps = recipe["steps"] + recipe["decoder_steps"]
    rates = np.array([vae.learning_rate(step, recipe) for step in range(steps)])
    for part, peak in ((rates[:2400], 1.2e-3), (rates[2400:], 5e-4)):
        steps = np.arange(len(part))
        wave = 0.02 + 0.49 * (1 + np.cos(np.pi * steps / len(part)))
        np.testing.assert_allclose(part, peak * np.minimum(1, (steps + 1) / 100) * wave, rtol=1e-12)


def test_the_text_encoders_learning_rate(monkeypatch, weights, tmp_path):
    given = {}
    monkeypatch.setattr(text, "fit", lambda *_, rate, **rest: given.update(rate=rate) or 1000)
    text.train(text_recipe(steps=1000), tmp_path)
    steps = np.arange(1000)
    expected = 2e-3 * np.minimum(1, np.minimum((steps + 1) / 100, 1.05 - steps / 1000))
    np.testing.assert_allclose([given["rate"](step) for step in steps], expected, rtol=1e-12)
