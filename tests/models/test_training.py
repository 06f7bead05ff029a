"""Training on rendered scenes: resuming, phases, and what is written."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest
import torch
from shown_commands import write_longer_recipe

from idbench import embedded
from idbench.errors import UserError
from idbench.models.concat_id import scenes
from idbench.models.concat_id.training import loop, setup
from idbench.models.concat_id.training.recipe import read_stage
from idbench.recipes import load_recipe
from idbench.training.resumable_loop import Interrupted

from .conftest import TRANSFORMER, recipe, samples

PHASES = [{"until": 5, "cross": 0.7}, {"until": 8, "restart": True, "cross": 0.0}]


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
    phases = [{"until": 8, "cross": 1.0}, {"until": 12, "restart": True}]
    two = read_stage(recipe(steps=12, phases=phases))
    assert [two.at(step)["cross"] for step in range(12)] == [1.0] * 8 + [0.5] * 4
    rates = [two.rate(step) for step in range(12)]
    assert rates[:8] == [read_stage(recipe(steps=8)).rate(step) for step in range(8)]
    assert rates[8:] == [read_stage(recipe(steps=4)).rate(step) for step in range(4)]
    assert rates[7] < rates[9]
    assert [step for step in range(12) if two.restarts_at(step)] == [8]


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
    step = setup.restart_of_embedded(read_stage(longer), tmp_path)
    assert step == load_recipe("single")[1]["steps"]


SHORTER = {
    "background_tokens": 0.4, "levels": {"mean": 5.0, "deviation": 7.0},
    "phases": [{"until": 5}, {"until": 8, "background_tokens": 1.0}],
}


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
    ({"groups": {}}, "unusable value for groups"),
    ({"evaluation": {"identites": 4}}, "unusable value for evaluation.identites"),
    ({"evaluation": {"each": 0}}, "unusable value for evaluation.each"),
    ({"phases": [{"until": 5, "groups": {}}]}, "groups"),
])
def test_a_recipe_with_faults_is_one_sentence(home, change, said):
    with pytest.raises(UserError, match=said):
        loop.train(recipe(**change), home / "x")


def test_minutes_end_a_training_with_a_checkpoint_and_weights(home):
    loop.train(recipe(minutes=1e-6), home / "short")
    assert [p.name for p in (home / "short" / "checkpoints").iterdir()] == ["00000001"]
    assert embedded.entry("transformer_tiny")["steps"] == 1
