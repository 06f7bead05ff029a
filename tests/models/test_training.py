"""The training loop: resuming, dropout, what is and is not in the loss."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from shown_commands import write_longer_recipe

from idbench.errors import UserError
from idbench.models.concat_id import data, latents, schedule
from idbench.models.concat_id import train as training
from idbench.models.concat_id.latents import Batch
from idbench.models.concat_id.networks import build_scheduler
from idbench.prompts.avatars.scene import Person, Scene
from idbench.recipes import load_recipe

from .conftest import TRANSFORMER

SETS = {
    "image_one": {"scenes": 6, "people": 1, "frames": 2, "identities": 3, "shard": 3},
    "clip_two": {"scenes": 4, "people": 2, "frames": 9, "identities": 3, "shard": 4},
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with encoded random shards; the data recipe describes them."""
    monkeypatch.setattr(data, "load_recipe", lambda name: {"sets": SETS})
    rng = np.random.default_rng(0)
    for described in data.sets_of({"sets": SETS}):
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
            shapes = {"latents": (frames, 4, 4, 6), "references": (3, 2, 4, 4, 6), "text": (32, 12)}
            for name, shape in shapes.items():
                array = rng.normal(size=(described.shard, *shape)).astype(np.float16)
                np.save(encoded / f"{name}.npy", array)
    return tmp_path


def recipe(**changes):
    return {
        "name": "tiny", "entry": "transformer_tiny", "data": "data", "latents": "latents",
        "seed": 7, "threads": 1, "bfloat16": False, "network": TRANSFORMER, "references": 1,
        "cross": 0.5, "groups": {"image_one": 0.5, "clip_two": 0.5},
        "batch": {"image": 4, "clip": 2}, "steps": 8, "optimiser": "adamw",
        "learning_rate": 1e-3, "weight_decay": 0.01, "warmup": 2, "decay": 0.5, "clip": 1.0,
        "ema": 0.9, "text_dropout": 0.1, "reference_dropout": 0.1, "log_every": 1,
        "sample_every": 1000, "checkpoint_minutes": 0.0, "device": "cpu", **changes,
    }


def losses(folder):
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(r["step"], r.get("image_one"), r.get("clip_two")) for r in rows]


def test_two_workers_give_the_gradients_of_one(home):
    def gradients(workers):
        run = training.Run(recipe(workers=workers), home / "x", torch.device("cpu"), False)
        batch = training.load_pool(recipe(), home / "x").draw(
            "clip_two", 4, 2, 0.5, np.random.default_rng(0)
        )
        generator = torch.Generator().manual_seed(0)
        loss = run._backward(training.add_noise(batch, run.alphas, generator))
        return loss, [p.grad.clone() for p in run.parameters]

    (one, expected), (two, actual) = gradients(1), gradients(2)
    assert two == pytest.approx(one, rel=1e-4)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_killed_training_goes_on_with_the_same_losses(home, monkeypatch, tmp_path, optimiser):
    monkeypatch.setenv("IDBENCH_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    whole = home / "whole"
    training.train(recipe(optimiser=optimiser), whole)

    killed = home / "killed"

    class Killed(Exception):
        pass

    original = training.Run.advance

    def advance(self, batch, rate):
        if self.step == 5:
            raise Killed
        return original(self, batch, rate)

    monkeypatch.setattr(training.Run, "advance", advance)
    with pytest.raises(Killed):
        training.train(recipe(optimiser=optimiser), killed)
    monkeypatch.setattr(training.Run, "advance", original)
    # The log ran ahead of the last checkpoint: what lies after it is done again.
    with open(killed / "log.jsonl", "a") as file:
        file.write(json.dumps({"step": 6, "image_one": 99.0}) + "\n")
    training.train(recipe(optimiser=optimiser), killed, resume=True)
    assert losses(killed) == losses(whole)
    assert [step for step, _, _ in losses(whole)] == list(range(1, 9))


def test_phases_change_settings_and_begin_the_learning_rate_anew():
    two = recipe(steps=12, phases=[{"until": 8, "cross": 1.0}])
    crosses = [schedule.phase_at(step, two)[0]["cross"] for step in range(12)]
    assert crosses == [1.0] * 8 + [0.5] * 4
    rates = [schedule.learning_rate(step, two) for step in range(12)]
    alone = [schedule.learning_rate(step, recipe(steps=8)) for step in range(8)]
    assert rates[:8] == alone
    assert rates[8:] == [schedule.learning_rate(step, recipe(steps=4)) for step in range(4)]
    assert rates[7] < rates[9]


def test_a_phase_that_restarts_needs_only_the_stored_weights(home, monkeypatch, tmp_path):
    monkeypatch.setenv("IDBENCH_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    phases = [{"until": 5}, {"until": 8, "restart": True, "cross": 0.0}]
    whole = home / "whole"
    training.train(recipe(phases=phases, optimiser="muon"), whole)
    # Only the weights of step 5 are left of the first phase. Its length is that of the phase.
    training.train(recipe(steps=5, optimiser="muon"), home / "first")
    training.train(recipe(phases=phases, optimiser="muon"), home / "second", resume=True)
    assert losses(home / "second") == losses(whole)[5:]
    # The moving average goes on, too: the same weights are stored.
    from idbench import embedded

    stored = embedded.entry("transformer_tiny")
    assert stored["steps"] == 8
    training.train(recipe(phases=phases, optimiser="muon"), home / "again")
    assert embedded.entry("transformer_tiny")["sha256"] == stored["sha256"]


def test_the_embedded_stage_one_can_be_trained_on_as_the_docs_say(tmp_path):
    write_longer_recipe(tmp_path / "my_single.yaml")
    _, longer = load_recipe(str(tmp_path / "my_single.yaml"))
    step = training.restart_of_embedded(longer, tmp_path / "checkpoint.pt")
    assert step == load_recipe("single")[1]["steps"]


def test_resuming_without_a_checkpoint_is_refused(home, monkeypatch, tmp_path):
    monkeypatch.setenv("IDBENCH_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    with pytest.raises(UserError, match="no .*checkpoint.pt to resume from"):
        training.train(recipe(), home / "nothing", resume=True)
    # Weights of the recipe's name that are not where a phase restarts do not serve either.
    training.train(recipe(steps=3), home / "short")
    with pytest.raises(UserError, match="checkpoint.pt to resume from"):
        phases = [{"until": 5}, {"until": 8, "restart": True}]
        training.train(recipe(phases=phases), home / "other", resume=True)


@pytest.mark.parametrize(("change", "said"), [
    ({"ema": None}, "lacks ema"),
    ({"phases": "all"}, "a list of settings"),
    ({"phases": [{"cross": 1.0}]}, "a list of settings"),
    ({"phases": [{"until": 5}, {"until": 5}]}, "must end after"),
])
def test_a_recipe_with_faults_is_one_sentence(home, change, said):
    content = {k: v for k, v in recipe(**change).items() if v is not None}
    with pytest.raises(UserError, match=said):
        training.train(content, home / "x")


def test_minutes_end_a_training_with_a_checkpoint_and_weights(home, monkeypatch, tmp_path):
    from idbench import embedded

    monkeypatch.setenv("IDBENCH_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    training.train(recipe(minutes=0.0), home / "short")
    assert (home / "short" / "checkpoint.pt").exists()
    assert embedded.entry("transformer_tiny")["steps"] == 0


def test_cross_references_come_from_another_scene(home):
    pool = training.load_pool(recipe(), home / "x")
    record = pool.groups["image_one"][0]
    rng = np.random.default_rng(0)
    own = {pool._reference(record, 0, 0.0, rng) for _ in range(50)}
    cross = {pool._reference(record, 0, 1.0, rng) for _ in range(50)}
    assert own <= set(record.own[0]) and not cross & set(record.own[0])
    scenes = dict(pool.of_identity[record.identities[0]])
    assert cross <= set(scenes)


def test_a_clips_first_latent_frame_is_also_an_image(home):
    pool = training.load_pool(recipe(groups={"image_two": 1.0}), home / "x")
    assert torch.equal(pool.groups["image_two"][0].latents, pool.groups["clip_two"][0].latents[:1])
    assert pool.sizes() == {"image_one": 12, "image_two": 4, "clip_two": 4}


def test_text_and_references_are_dropped_independently_at_their_rates(monkeypatch):
    seen = []

    def fake(transformer, noisy, references, text, times, clip_frames):
        seen.append((references.flatten(1).any(1), text.flatten(1).any(1)))
        return torch.zeros_like(noisy)

    monkeypatch.setattr(training, "denoise", fake)
    size = 4000
    one = torch.ones(size, 1, 1, 1, 1)
    batch = Batch(torch.randn(size, 1, 1, 1, 1), one, one[..., 0, 0])
    alphas = build_scheduler().alphas_cumprod.float()
    inputs = training.add_noise(batch, alphas, torch.Generator().manual_seed(0), 0.1, 0.1)
    training.velocity_loss(None, inputs)
    references, text = (kept.float() for kept in seen[0])
    assert abs(float(references.mean()) - 0.9) < 0.02 and abs(float(text.mean()) - 0.9) < 0.02
    both = float(((1 - references) * (1 - text)).mean())
    assert 0.003 < both < 0.02


def test_the_loss_is_the_error_of_x0_weighted_by_one_over_one_minus_alpha(transformer, inputs):
    batch = Batch(inputs["latents"], inputs["references"], inputs["text"])
    alphas = build_scheduler().alphas_cumprod.float()
    inputs_of = training.add_noise(batch, alphas, torch.Generator().manual_seed(3), 0.0, 0.0)
    loss = training.velocity_loss(transformer, inputs_of)
    # The same draws, written out anew.
    generator = torch.Generator().manual_seed(3)
    times = ((torch.arange(2) + torch.rand(2, generator=generator)) / 2 * len(alphas)).long()
    times = times[torch.randperm(2, generator=generator)]
    a = alphas[times].view(-1, 1, 1, 1, 1)
    noise = torch.randn(batch.latents.shape, generator=generator)
    noisy = a.sqrt() * batch.latents + (1 - a).sqrt() * noise
    v = training.denoise(transformer, noisy, batch.references, batch.text, times)
    x0 = a.sqrt() * noisy - (1 - a).sqrt() * v
    weighted = ((x0 - batch.latents).square() / (1 - a)).mean((1, 2, 3, 4))
    torch.testing.assert_close(loss, weighted, rtol=1e-3, atol=1e-5)


def test_an_unknown_group_is_refused(home):
    with pytest.raises(UserError, match="unknown group"):
        training.train(recipe(groups={"image_four": 1.0}), home / "x")


def test_groups_are_drawn_by_their_share():
    rng = np.random.default_rng(0)
    names = [schedule.pick_group({"image_one": 3, "clip_one": 1}, rng) for _ in range(2000)]
    assert abs(names.count("clip_one") / 2000 - 0.25) < 0.04


def test_every_group_says_how_many_people_it_shows():
    assert latents.GROUPS["clip_two"] == 2 and latents.GROUPS["image_three"] == 3


def test_square_portraits_become_references_and_no_samples(tmp_path):
    from idbench.models.concat_id.autoencoder import build_vae

    from .conftest import VAE

    source, target = tmp_path / "portrait" / "00000", tmp_path / "latents"
    source.mkdir(parents=True)
    arrays = {
        "frames": (2, 1, 24, 24, 3), "faces": (2, 1, 24, 24), "references": (2, 3, 1, 16, 24, 3),
    }
    for name, shape in arrays.items():
        np.save(source / f"{name}.npy", np.zeros(shape, np.uint8))
    np.save(source / "boxes.npy", np.zeros((2, 1, 3, 4), np.float32))
    truth = [{"caption": "a person", "scene": asdict(Scene((Person(10_000),)))}] * 2
    (source / "truth.json").write_text(json.dumps(truth))
    latents.encode_shard(build_vae(VAE).eval(), None, source, target, 1, False)
    assert np.load(target / "references.npy").shape == (2, 3, 1, 4, 4, 6)
    assert not (target / "latents.npy").exists()


def test_shards_are_encoded_by_processes_and_only_where_something_is_missing(tmp_path, monkeypatch):
    sets = {"image_one": {"scenes": 4, "people": 1, "frames": 2, "identities": 2, "shard": 2}}
    monkeypatch.setattr(data, "load_recipe", lambda name: {"sets": sets})
    data.render({"sets": sets, "seed": 3, "workers": 1}, tmp_path / "data")
    content = {"data": "data", "seed": 5, "workers": 2, "threads": 1}
    assert latents.prepare(content, tmp_path / "latents") == {"shards": 2}
    shards = [tmp_path / "latents" / "image_one" / f"{k:05d}" for k in range(2)]
    names = {"latents", "references", "text", "embeddings", "garment", "background"}
    assert all({p.stem for p in shard.iterdir()} == names for shard in shards)
    assert np.load(shards[0] / "latents.npy").shape == (2, 2, 16, 16, 24)
    (shards[1] / "text.npy").unlink()
    before = {p: p.stat().st_mtime_ns for shard in shards for p in shard.iterdir()}
    latents.prepare(content, tmp_path / "latents")
    assert (shards[1] / "text.npy").exists()
    assert all(p.stat().st_mtime_ns == time for p, time in before.items())
