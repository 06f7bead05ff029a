"""Training on rendered scenes: resuming, phases, what is drawn, and what is written."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from shown_commands import write_longer_recipe

from idbench import embedded
from idbench.errors import UserError
from idbench.models.concat_id import scenes
from idbench.models.concat_id.training import latents, loop, rendering, scene_samples
from idbench.models.concat_id.training.recipe import read_stage
from idbench.prompts.avatars.render import render_clip
from idbench.prompts.avatars.scene import Person, Scene
from idbench.recipes import load_recipe
from idbench.training.stop import Interrupted

from .conftest import TRANSFORMER

SETS = {
    "image_one": {"scenes": 6, "people": 1, "frames": 2, "identities": 3, "shard": 3},
    "clip_two": {"scenes": 4, "people": 2, "frames": 9, "identities": 3, "shard": 4},
}
PHASES = [{"until": 5, "cross": 0.7}, {"until": 8, "restart": True, "cross": 0.0}]


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
    made = read_stage(recipe(**changes))
    opened = scene_samples.SceneSamples(made, home)
    opened.check(made)
    return opened


def losses(folder):
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(r["step"], r.get("image_one"), r.get("clip_two")) for r in rows]


def test_losses_and_weights_are_those_of_the_loop_that_made_the_embedded_weights(home):
    """Of that loop with two threads, Muon, and a phase that restarts."""
    loop.train(recipe(phases=PHASES, optimiser="muon", threads=2), home / "whole")
    known = [(1.56762, 1), (1.582521, 1), (1.404831, 0), (1.457537, 1), (1.301136, 0),
             (1.429956, 0), (1.402627, 0), (1.448829, 0)]
    for (_, image, clip), (value, is_clip) in zip(losses(home / "whole"), known, strict=True):
        assert (clip if is_clip else image) == pytest.approx(value, rel=1e-4)
        assert (image if is_clip else clip) is None
    state = embedded.load_state("transformer_tiny")
    for name, norm in (
        ("norm_final.bias", 0.01706), ("patch_embed.text_proj.weight", 3.27725),
        ("transformer_blocks.0.attn1.to_v.weight", 3.28931),
        ("transformer_blocks.1.ff.net.2.bias", 0.29133),
    ):
        assert float(state[name].double().norm()) == pytest.approx(norm, rel=1e-3), name


def test_an_exact_reference_is_of_the_very_image(home, monkeypatch):
    by_frame = {**SETS, "image_one": {**SETS["image_one"], "by_frame": True}}
    monkeypatch.setattr(scenes, "load_recipe", lambda name: {"sets": by_frame})
    opened = samples(home, groups={"image_one": 1.0}, exact=1.0)
    known = torch.stack(opened.references)
    drawn = opened.draw("image_one", 20, 0.0, np.random.default_rng(1), exact=1.0)
    for shown, reference in zip(drawn["latents"], drawn["references"], strict=True):
        images = opened.groups["image_one"]
        place = next(i for i, r in enumerate(images) if (r.latents == shown).all())
        assert (known[images[place].own[0][place % 2]] == reference[0]).all()


def test_exact_references_need_data_that_has_them(home):
    with pytest.raises(UserError, match="No sample of image_one .* by_frame: true"):
        samples(home, groups={"image_one": 1.0}, exact=0.5)


def test_exact_references_mix_with_groups_of_clips(home, monkeypatch):
    by_frame = {**SETS, "image_one": {**SETS["image_one"], "by_frame": True}}
    monkeypatch.setattr(scenes, "load_recipe", lambda name: {"sets": by_frame})
    opened = samples(home, groups={"image_one": 0.5, "clip_two": 0.5}, exact=0.5)
    drawn = opened.draw("clip_two", 2, 0.0, np.random.default_rng(1), exact=0.5)
    assert len(drawn["latents"]) == 2


def test_two_threads_give_the_gradients_of_one(home):
    def gradients(threads):
        made = read_stage(recipe(threads=threads))
        session = loop.Session(made, samples(home), home / f"x{threads}")
        batch = session.to_device(session.samples.batch(0))
        value = session._backward(batch)
        return float(value), [p.grad.clone() for p in session.parameters if p.grad is not None]

    (one, expected), (two, actual), (plain, whole) = map(gradients, (1, 2, 0))
    assert two == pytest.approx(one, rel=1e-4) and plain == pytest.approx(one, rel=1e-4)
    for a, b, c in zip(actual, expected, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(c, b, rtol=1e-3, atol=1e-6)


def stopping_at(step: int, stop: Callable[[], None], monkeypatch) -> None:
    original = loop.Session.advance

    def advance(self, batches):
        if self.step == step:
            stop()
        return original(self, batches)

    monkeypatch.setattr(loop.Session, "advance", advance)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_killed_training_goes_on_with_the_same_losses(home, monkeypatch, optimiser):
    whole, killed = home / "whole", home / "killed"
    loop.train(recipe(optimiser=optimiser), whole)

    class Killed(Exception):
        pass

    def kill():
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        stopping_at(5, kill, patched)
        loop.train(recipe(optimiser=optimiser, checkpoint_every=2), killed)
    # The log ran ahead of the last checkpoint, at step 4: what lies after it is done again.
    assert [step for step, _, _ in losses(killed)] == [1, 2, 3, 4, 5]
    loop.train(recipe(optimiser=optimiser), killed, resume=True)
    assert losses(killed) == losses(whole)
    assert [step for step, _, _ in losses(whole)] == list(range(1, 9))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_and_no_weights(home, monkeypatch, number):
    with monkeypatch.context() as patched:
        stopping_at(3, lambda: os.kill(os.getpid(), number), patched)
        with pytest.raises(Interrupted, match="Stopped at step 4 of 8; .*--resume"):
            loop.train(recipe(checkpoint_every=100), home / "stopped")
    assert "transformer_tiny" not in embedded.entries()
    loop.train(recipe(), home / "stopped", resume=True)
    loop.train(recipe(), home / "whole")
    assert losses(home / "stopped") == losses(home / "whole")


def test_phases_change_settings_and_begin_the_learning_rate_anew():
    two = read_stage(recipe(steps=12, phases=[{"until": 8, "cross": 1.0}]))
    assert [two.at(step)["cross"] for step in range(12)] == [1.0] * 8 + [0.5] * 4
    rates = [two.rate(step) for step in range(12)]
    assert rates[:8] == [read_stage(recipe(steps=8)).rate(step) for step in range(8)]
    assert rates[8:] == [read_stage(recipe(steps=4)).rate(step) for step in range(4)]
    assert rates[7] < rates[9]


def test_a_phase_that_restarts_needs_only_the_stored_weights(home):
    whole = home / "whole"
    loop.train(recipe(phases=PHASES, optimiser="muon"), whole)
    # Only the weights of step 5 are left of the first phase. Its length is that of the phase.
    loop.train(recipe(steps=5, optimiser="muon", cross=0.7), home / "first")
    loop.train(recipe(phases=PHASES, optimiser="muon"), home / "second", resume=True)
    assert losses(home / "second") == losses(whole)[5:]
    # The moving average goes on, too: the same weights are stored.
    stored = embedded.entry("transformer_tiny")
    assert stored["steps"] == 8
    loop.train(recipe(phases=PHASES, optimiser="muon"), home / "again")
    assert embedded.entry("transformer_tiny")["sha256"] == stored["sha256"]


def test_the_embedded_stage_one_can_be_trained_on_as_the_docs_say(tmp_path):
    write_longer_recipe(tmp_path / "my_single.yaml")
    _, longer = load_recipe(str(tmp_path / "my_single.yaml"))
    step = loop.restart_of_embedded(read_stage(longer), tmp_path)
    assert step == load_recipe("single")[1]["steps"]


SHORTER = {
    "background_tokens": 0.4, "levels": {"mean": 5.0, "deviation": 7.0},
    "phases": [{"until": 5}, {"until": 8, "background_tokens": 1.0}],
}


def test_steps_on_part_of_the_tokens_keep_every_head(home):
    pool = samples(home, groups={"image_one": 1.0}, **SHORTER)
    batch = pool.batch(0)
    video, references = batch["tokens"][:, :3], batch["tokens"][:, 3:]
    assert bool((video == 1).any(1).all()) and int(video.max()) < 6  # the head and 0.4 of 5
    assert references.tolist() == [[6, 7, 8, 9, 10, 11]] * 4  # so narrow that there is no margin
    assert "tokens" not in pool.batch(5) and "heads" not in batch


def test_a_training_on_part_of_the_tokens_resumes(home, monkeypatch):
    loop.train(recipe(**SHORTER), home / "whole")
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        stopping_at(3, lambda: os.kill(os.getpid(), signal.SIGTERM), patched)
        loop.train(recipe(**SHORTER), home / "stopped")
    loop.train(recipe(**SHORTER), home / "stopped", resume=True)
    assert losses(home / "stopped") == losses(home / "whole")
    with pytest.raises(UserError, match="belongs to another training .levels None instead of"):
        loop.train(recipe(**{**SHORTER, "levels": None}), home / "stopped", resume=True)
    loop.train(recipe(), home / "all tokens")
    assert losses(home / "whole")[0] != losses(home / "all tokens")[0]


def test_the_long_recipes_build_on_each_other():
    """Each starts from weights that one before it writes, on data that one before it makes."""
    chain = (
        "long_base", "long_single", "long_continued", "long_stage2", "long_stage3", "long_multi",
        "long_multi_scratch", "long_multi3", "long_tryon", "long_background",
    )
    written, steps = set(), set()
    for name in chain:
        made = read_stage(load_recipe(name)[1])
        assert (made.name, made.data, made.latents) == (name, "long_data", "long_latents")
        assert made.init is None or made.init.removeprefix("embedded:") in written
        written.add(made.entry)
        if made.delta:
            steps.add((made.steps, made.learning_rate, str(made.batch)))
    assert len(written) == len(chain) and len(steps) == 1  # equal stages
    sets = {s.name: s for s in scenes.sets_of(load_recipe("long_data")[1])}
    assert sets["image_three"].mentions == {"expression": 0.5, "motion": 0.5}
    assert load_recipe("long_latents")[1]["data"] == "long_data"


def test_resuming_without_a_checkpoint_is_refused(home):
    with pytest.raises(UserError, match="no checkpoint in .* to resume from"):
        loop.train(recipe(), home / "nothing", resume=True)
    # Weights of the recipe's name that are not where a phase restarts do not serve either.
    loop.train(recipe(steps=3), home / "short")
    with pytest.raises(UserError, match="no checkpoint in .* to resume from"):
        loop.train(recipe(phases=PHASES), home / "other", resume=True)


def test_a_difference_is_stored_to_the_weights_it_started_from(home):
    loop.train(recipe(entry="transformer_first"), home / "first")
    second = recipe(entry="transformer_second", init="embedded:transformer_first", delta=True)
    loop.train(second, home / "second")
    entry = embedded.entry("transformer_second")
    assert entry["parent"]["name"] == "transformer_first" and entry["steps"] == 8
    assert entry["config"] == TRANSFORMER and entry["measured"]["step"] == 8
    first, made = (embedded.load_state(f"transformer_{n}") for n in ("first", "second"))
    moved = (made["proj_out.weight"] - first["proj_out.weight"]).norm()
    assert 0 < moved < first["proj_out.weight"].norm()


@pytest.mark.parametrize(("change", "said"), [
    ({"ema": 2}, "unusable value for ema"),
    ({"batch": {"film": 1}}, "unusable value for batch"),
    ({"steps": -1}, "unusable value for steps"),
    ({"phases": "all"}, "phases"),
    ({"phases": [{"cross": 1.0}]}, "must be a list of settings"),
    ({"phases": [{"until": 5}, {"until": 5}]}, "must end after"),
    ({"phases": [{"until": 5, "seed": 5}]}, "setting of a phase 'seed'"),
    ({"phases": [{"until": 5, "cross": 5}]}, "cross"),
    ({"delta": True}, "needs `entry` and embedded weights"),
    ({"groups": {"image_four": 1.0}}, "group 'image_four'"),
])
def test_a_recipe_with_faults_is_one_sentence(home, change, said):
    with pytest.raises(UserError, match=said):
        loop.train(recipe(**change), home / "x")


@pytest.mark.parametrize("sets", [None, [1], {"a": 1}, {"a": {"scenes": 1, "actors": 2}}])
def test_a_recipe_that_renders_no_scenes_is_one_sentence(sets):
    content = {"name": "mine"} if sets is None else {"name": "mine", "sets": sets}
    with pytest.raises(UserError, match="The recipe 'mine' has no usable sets of scenes"):
        scenes.sets_of(content)


def test_minutes_end_a_training_with_a_checkpoint_and_weights(home):
    loop.train(recipe(minutes=1e-6), home / "short")
    assert [p.name for p in (home / "short" / "checkpoints").iterdir()] == ["00000001"]
    assert embedded.entry("transformer_tiny")["steps"] == 1


def test_cross_references_come_from_another_scene(home):
    pool = samples(home)
    record = pool.groups["image_one"][0]
    rng = np.random.default_rng(0)
    own = {pool._reference(record, 0, 0.0, 0.0, rng) for _ in range(50)}
    cross = {pool._reference(record, 0, 1.0, 0.0, rng) for _ in range(50)}
    assert own <= set(record.own[0]) and not cross & set(record.own[0])
    known = dict(pool.of_identity[record.identities[0]])
    assert cross <= set(known)


def test_a_clips_first_latent_frame_is_also_an_image(home):
    pool = samples(home, groups={"image_two": 1.0})
    assert torch.equal(pool.groups["image_two"][0].latents, pool.groups["clip_two"][0].latents[:1])
    sizes = {name: len(records) for name, records in pool.groups.items()}
    assert sizes == {"image_one": 12, "image_two": 4, "clip_two": 4}


def test_text_and_references_are_dropped_independently_at_their_rates(home):
    pool = samples(home, batch={"image": 4000, "clip": 4000})
    batch = pool.batch(0)
    text, references = batch["keep_text"], batch["keep_references"]
    assert abs(float(references.mean()) - 0.9) < 0.02 and abs(float(text.mean()) - 0.9) < 0.02
    assert 0.003 < float(((1 - references) * (1 - text)).mean()) < 0.02
    times = (batch["uniform"] * 4000).long().sort().values
    assert torch.equal(times, torch.arange(4000))  # one time in each part


def test_groups_are_drawn_by_their_share(home):
    pool = samples(home, groups={"image_one": 3, "clip_two": 1}, batch={"image": 1, "clip": 1})
    names = [pool.batch(step)["group"] for step in range(600)]
    assert abs(names.count("clip_two") / 600 - 0.25) < 0.05


def test_processes_share_the_rows_of_a_batch(home):
    pool = samples(home)
    whole = pool.batch(3)
    parts = [next(pool.batches(pool.recipe, 3, rank, 2, False)) for rank in (0, 1)]
    for rank, part in enumerate(parts):
        assert part["group"] == whole["group"]
        assert torch.equal(part["noise"], whole["noise"][rank::2])


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
    text = lambda captions: np.zeros((len(captions), 32, 12), np.float16)  # noqa: E731
    latents.encode_shard(build_vae(VAE).eval(), text, source, target, 1, False)
    assert np.load(target / "references.npy").shape == (2, 3, 1, 4, 4, 6)
    assert not (target / "latents.npy").exists()


def test_shards_are_encoded_by_processes_and_only_where_something_is_missing(tmp_path, monkeypatch):
    sets = {"image_one": {"scenes": 4, "people": 1, "frames": 2, "identities": 2, "shard": 2}}
    monkeypatch.setattr(scenes, "load_recipe", lambda name: {"sets": sets})
    rendering.render({"sets": sets, "seed": 3, "workers": 1}, tmp_path / "data")
    content = {"data": "data", "seed": 5, "workers": 2, "threads": 1}
    assert latents.prepare(content, tmp_path / "latents") == {"shards": 2}
    shards = [tmp_path / "latents" / "image_one" / f"{k:05d}" for k in range(2)]
    names = {"latents", "references", "text", "embeddings", "garment", "background"}
    assert all({p.stem for p in shard.iterdir()} == names for shard in shards)
    assert np.load(shards[0] / "latents.npy").shape == (2, 2, 16, 16, 24)
    (shards[1] / "text.npy").unlink()
    before = {p: p.stat().st_mtime_ns for shard in shards for p in shard.iterdir()}
    monkeypatch.setattr(  # starting them again proves no more
        rendering, "in_processes", lambda function, jobs, *_: [function(*job) for job in jobs])
    latents.prepare(content, tmp_path / "latents")
    assert (shards[1] / "text.npy").exists()
    assert all(p.stat().st_mtime_ns == time for p, time in before.items())


@pytest.mark.parametrize("by_frame", [True, False])
def test_references_by_frame_show_their_frames(by_frame, monkeypatch):
    cut = []
    monkeypatch.setattr(rendering.references, "crop_face", lambda frame, *rest: cut.append(frame)
                        or np.zeros((64, 64, 3), np.uint8))
    monkeypatch.setattr(rendering.references, "crop_mask", lambda *rest: np.zeros((64, 64)))
    described = scenes.RenderSet("seen", 1, frames=2, references=6, by_frame=by_frame)
    clip = render_clip(Scene((Person(10_000, motion="turn left"),)), 2, 64, 96)
    rendering._references(clip, described, np.random.default_rng(0))
    shown = [int((frame == clip.frames[1]).all()) for frame in cut]
    assert (shown == [0, 1, 0, 1, 0, 1]) is by_frame
