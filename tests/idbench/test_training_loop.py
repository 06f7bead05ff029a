"""The parts that all trainings share."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from idbench.errors import UserError
from idbench.files import DiskError
from idbench.training import save, schedule
from idbench.training.fit import Average, averaging_weight, fit, pace_of
from idbench.training.resumable_loop import Interrupted, Log, Pace, Progress, StopSignal, run


class Killed(Exception):
    pass


def toy(folder, *, resume=False, at=None, event=None, average=False, nan_at=None, **changes):
    """Train a regression for 12 steps with noise from torch's own generator; returns weights."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimiser = torch.optim.AdamW(model.parameters())
    kept = Average(model.parameters(), 0.9) if average else None

    def loss_of(step):
        if step == at:
            event()
        x = torch.randn(4, 3)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        return (loss * float("nan") if step == nan_at else loss), {"twice": 2 * loss.detach()}

    recipe = {"steps": 12, "log_every": 1, "checkpoint_minutes": 0.0, "peak": 0.1, **changes}
    fit(recipe, folder, {"model": model}, optimiser, loss_of, resume=resume, average=kept,
        rate=lambda step: recipe["peak"] * schedule.linear(step, 40))
    values = [] if kept is None else kept.values
    return torch.cat([value.detach().flatten() for value in (*model.parameters(), *values)])


def rows(folder):
    lines = (Path(folder) / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("minutes", "steps_per_second")}
            for line in lines]


def kill():
    raise Killed


@pytest.mark.parametrize("log_every", [1, 5])
def test_a_resumed_training_ends_as_an_uninterrupted_one(tmp_path, log_every):
    settings = {"average": True, "log_every": log_every}
    expected = toy(tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        toy(tmp_path / "cut", at=7, event=kill, **settings)
    # The log ran ahead of the last checkpoint, and its last line is cut off.
    with open(tmp_path / "cut/log.jsonl", "a") as file:
        file.write('{"step": 9, "loss": 99.0}\n{"step": 10, "lo')
    actual = toy(tmp_path / "cut", resume=True, **settings)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert [row["step"] for row in rows(tmp_path / "cut")][-1] == 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_training_after_the_step_with_a_checkpoint(tmp_path, number):
    expected, before = toy(tmp_path / "whole"), signal.getsignal(number)
    with pytest.raises(Interrupted, match="Stopped at step 4 of 12; .* --resume"):
        toy(tmp_path / "cut", at=3, event=lambda: os.kill(os.getpid(), number),
            checkpoint_minutes=9.0)
    assert signal.getsignal(number) == before
    assert save.load(tmp_path / "cut/checkpoint.pt")["progress"]["step"] == 4
    assert torch.equal(toy(tmp_path / "cut", resume=True), expected)


def test_a_checkpoint_is_not_written_again_without_a_further_step(tmp_path):
    """Where a checkpoint is a folder, the old one is removed before the new one has its name."""
    toy(tmp_path)
    before = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    toy(tmp_path, resume=True)
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns == before


def test_a_second_signal_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt), StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("not interrupted")


def test_a_signal_during_the_last_step_does_not_undo_the_training(tmp_path):
    ended = toy(tmp_path, at=11, event=lambda: os.kill(os.getpid(), signal.SIGINT))
    assert torch.equal(toy(tmp_path, resume=True), ended)


def test_an_ended_training_goes_on_when_its_recipe_asks_for_more_steps(tmp_path):
    ended = toy(tmp_path)
    assert torch.equal(toy(tmp_path, resume=True), ended)
    assert not torch.equal(toy(tmp_path, resume=True, steps=20), ended)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    toy(tmp_path)
    with pytest.raises(UserError, match="another version of this recipe"):
        toy(tmp_path, resume=True, peak=0.2)


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path, size):
    toy(tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"checkpoint\.pt is damaged; remove it"):
        toy(tmp_path, resume=True)


def test_a_checkpoint_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    synced, replaced = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("sync"), synced(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replaced(a, b)))
    save.save(tmp_path / "checkpoint.pt", {"step": 3})
    assert events == ["sync", "rename", "sync"]
    assert save.load(tmp_path / "checkpoint.pt") == {"step": 3}


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save.save(path, {"step": 3})

    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="is full; free some space"):
        save.save(path, {"step": 4})
    assert save.load(path) == {"step": 3} and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [
    RuntimeError("basic_ios::clear: iostream error"),
    SafetensorError("Error while serializing: I/O error: Input/output error (os error 5)"),
])
def test_a_disk_that_fails_is_one_sentence(tmp_path, error):
    with pytest.raises(DiskError, match="cannot be written .*error"):
        with save.saying_full(tmp_path / "checkpoint.pt"):
            raise error


def test_a_loss_that_is_not_finite_is_never_stored(tmp_path):
    with pytest.raises(UserError, match="loss is nan at step 6: training has diverged"):
        toy(tmp_path, nan_at=5, log_every=50)
    assert save.load(tmp_path / "checkpoint.pt")["progress"]["step"] == 5


@pytest.mark.parametrize("steps", [0, -1, 1.5, "many", None])
def test_a_training_without_steps_is_refused(steps):
    with pytest.raises(UserError, match="must be a whole number from 1"):
        pace_of({"steps": steps})


def test_the_time_limit_counts_all_sessions(tmp_path):
    def session(progress, minutes):
        run(progress, Pace(100, minutes), Log(tmp_path / "log.jsonl", 100), checkpoint=vars,
            advance=lambda step: {"loss": 1.0})
        return progress

    assert session(Progress(seconds=60.0), 1.0).step == 0
    assert session(Progress(seconds=60.0), 2.0).step == 100


def test_the_log_holds_means_of_the_steps_since_the_last_row(tmp_path):
    toy(tmp_path / "each")
    toy(tmp_path / "means", log_every=5)
    each, means = rows(tmp_path / "each"), rows(tmp_path / "means")
    assert [row["step"] for row in means] == [5, 10, 12]
    for row, part in zip(means, (each[:5], each[5:10], each[10:]), strict=True):
        for name in ("loss", "twice", "norm"):
            assert row[name] == pytest.approx(np.mean([p[name] for p in part]))


def test_the_average_is_warmed_up():
    """The weights of the first steps: 2/11, 3/12, ... of the old average until the decay."""
    parameter = torch.nn.Parameter(torch.tensor([8.0]))
    average = Average([parameter], 0.5)
    expected = 8.0
    for step, (kept, value) in enumerate(
        zip([2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5], range(8), strict=True), 1
    ):
        parameter.data.fill_(value)
        average.update(step)
        expected = kept * expected + (1 - kept) * value
        assert average.values[0].item() == pytest.approx(expected, rel=1e-5)
    assert averaging_weight(0.999, 10**6) == pytest.approx(0.001)
    assert averaging_weight(0.0, 5) == 1.0


def test_the_average_takes_the_place_of_the_weights_and_gives_it_back():
    parameter = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.bfloat16))
    average = Average([parameter], 0.9)
    parameter.data.fill_(3.0)
    average.update(1)
    kept = average.values[0].item()
    assert average.values[0].dtype == torch.float32 and 2.6 < kept < 2.7
    with pytest.raises(Killed), average.in_place():
        assert parameter.item() == pytest.approx(kept, rel=0.01)
        raise Killed
    assert parameter.item() == 3.0 and average.values[0].item() == kept
    average.restart()
    assert parameter.item() == pytest.approx(kept, rel=0.01)


def test_schedules():
    assert [schedule.warmup(step, 4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule.warmup(0, 0) == 1.0
    assert [schedule.linear(step, 4) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    late = [schedule.linear(step, 8, last=0.5, floor=0.3) for step in range(9)]
    assert late == [1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.3, 0.3]
    wave = [schedule.cosine(step, 4, floor=0.1) for step in (0, 2, 4, 5)]
    assert wave == pytest.approx([1.0, 0.55, 0.1, 0.1])


def test_phases_replace_settings_and_have_a_schedule_each():
    recipe = {"steps": 12, "cross": 0.5, "phases": [{"until": 8, "cross": 1.0},
                                                    {"until": 12, "restart": True}]}
    schedule.check_phases(recipe["phases"])
    at = [schedule.phase_at(step, recipe) for step in range(12)]
    assert [settings["cross"] for settings, _ in at] == [1.0] * 8 + [0.5] * 4
    assert [(settings["steps"], since) for settings, since in at] == [
        *((8, i) for i in range(8)), *((4, i) for i in range(4))]


@pytest.mark.parametrize("phases", [[{"cross": 1.0}], [{"until": 5}, {"until": 5}],
                                    [{"until": 0}]])
def test_phases_out_of_order_are_refused(phases):
    with pytest.raises(UserError, match="phases"):
        schedule.check_phases(phases)
