"""What a stage says while it trains: words on standard error, an answer on standard output."""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager

import pytest
import yaml
from accelerate.state import AcceleratorState
from tiny_stage import make_cache, recipe

from idbench.cli import main
from idbench.models.concat_id.training import loop, samples

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(tmp_path, capsys):
    """Trains by a recipe on the command line; what it said on the two streams."""
    cache = make_cache(tmp_path / "cache")

    def command(
        *options: str, state: str = "state", code: int = 0, **changes: object
    ) -> tuple[str, str]:
        AcceleratorState._reset_state(True)
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(recipe(cache, **changes)))
        with pytest.raises(SystemExit) as stopped:
            main(["train", str(path), "--state", str(tmp_path / state), *options])
        assert (stopped.value.code or 0) == code
        said = capsys.readouterr()
        return said.out, said.err

    return command


def test_each_row_of_the_log_is_said_in_words(run, tmp_path):
    out, err = run(steps=3)
    rows = [json.loads(line) for line in (tmp_path / "state/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert f"step {row['step']} of 3: loss {row['loss']:.4g}, learning rate " in err
    assert out.startswith("tiny:\n  step: 3\n") and "Stopped" not in err


def test_json_is_all_of_the_output(run):
    out, err = run("--json", steps=2)
    assert json.loads(out)["step"] == 2 and "step 2 of 2: " in err


def test_no_more_readers_than_cores_are_started(run, monkeypatch):
    """torch warns of more, and they only get into each other's way."""
    started = []

    class Spy(samples.DataLoader):
        def __init__(self, *arguments, num_workers=0, **named):
            started.append(num_workers)
            super().__init__(*arguments, **named)

    monkeypatch.setattr(samples, "DataLoader", Spy)
    monkeypatch.setattr(samples, "cores", lambda: 2)
    for workers in (1, 8):
        run(state=f"state{workers}", steps=1, workers=workers)
    assert started == [1, 2]


@pytest.fixture
def stopped_at_two(monkeypatch):
    """A context in which SIGTERM comes during the second step."""
    original = loop.Session.advance

    def advance(session, batches):
        if session.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(session, batches)

    @contextmanager
    def context():
        with monkeypatch.context() as patched:
            patched.setattr(loop.Session, "advance", advance)
            yield

    return context


def test_a_training_that_is_stopped_says_how_to_go_on(run, stopped_at_two, tmp_path):
    with stopped_at_two():
        _, err = run(steps=5, code=130)
    assert "Stopped at step 2 of 5; continue with the same command and --resume." in err
    assert not (tmp_path / "state" / "export").exists()


def test_a_training_that_is_stopped_between_rows_logs_the_same_means(
    run, tmp_path, stopped_at_two
):
    with stopped_at_two():
        run(steps=6, log_every=3, state="stopped", code=130)
    run("--resume", steps=6, log_every=3, state="stopped")
    run(steps=6, log_every=3, state="whole")
    means = [
        [json.loads(line)["loss"] for line in (tmp_path / state / "log.jsonl").open()]
        for state in ("stopped", "whole")
    ]
    assert len(means[0]) == 2 and means[0] == means[1]


def test_to_evaluate_leaves_the_log_of_a_training_that_goes_on(run, tmp_path):
    run(steps=2)
    log = tmp_path / "state" / "log.jsonl"
    with log.open("a") as stream:
        stream.write('{"step": 3, "loss": 1.0}\n')
    before = log.read_text()
    run("--evaluate", steps=2)
    assert log.read_text() == before
