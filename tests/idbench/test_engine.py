"""The local engine: one outcome a sample, in order, whatever fails, on the device asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy import World

from idbench.embedded import WeightError
from idbench.engines import LocalEngine
from idbench.errors import UserError
from idbench.timings import Timings
from idbench.types import Sample, Video


def samples(count: int) -> list[Sample]:
    return [Sample(f"s{i}", "single", "p", f"prompt {i}", "c", (), i) for i in range(count)]


class Model:
    """Yields a video of the sample's seed; `fails` maps a sample's id to an error."""

    name, revision, maximum_references = "m", "1", 1

    def __init__(self, fails: dict[str, BaseException] | None = None, at_once: bool = False):
        self.fails, self.at_once, self.calls = fails or {}, at_once, []

    def generate(self, batch: Sequence[Sample]) -> Iterator[Video]:
        self.calls.append([s.id for s in batch])
        if self.at_once:  # A batched network fails before its first video.
            for sample in batch:
                if sample.id in self.fails:
                    raise self.fails[sample.id]
        for sample in batch:
            if sample.id in self.fails:
                raise self.fails[sample.id]
            yield Video(np.full((1, 2, 2, 3), sample.seed, np.uint8), 8.0)


def run(model: Model, count: int = 7, batch: int = 3) -> list[tuple[str, int | str | None]]:
    folder: Any = SimpleNamespace(name="m", timings=Timings())
    outcomes = LocalEngine(batch).generate(folder, model, samples(count))  # type: ignore[arg-type]
    return [
        (o.sample.id, int(o.video.frames[0, 0, 0, 0]) if o.video else o.reason) for o in outcomes
    ]


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_every_sample_once_in_order(batch: int) -> None:
    assert run(Model(), batch=batch) == [(f"s{i}", i) for i in range(7)]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 50])
@pytest.mark.parametrize("bad", [["s0"], ["s4"], ["s2", "s3", "s6"]])
def test_a_failing_sample_costs_itself_alone(at_once: bool, batch: int, bad: list[str]) -> None:
    found = run(Model({name: RuntimeError("too\nbad") for name in bad}, at_once), batch=batch)
    expected = [(f"s{i}", "RuntimeError: too bad" if f"s{i}" in bad else i) for i in range(7)]
    assert found == expected


def test_a_user_error_of_one_sample_is_its_reason() -> None:
    assert run(Model({"s1": UserError("no face; replace it.")}), 3)[1] == (
        "s1", "no face; replace it.",
    )


def test_what_every_sample_would_meet_ends_the_run() -> None:
    for error in (WeightError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            run(Model({"s4": error}))


def test_a_model_that_yields_too_little_is_said() -> None:
    class Lazy(Model):
        def generate(self, batch: Sequence[Sample]) -> Iterator[Video]:
            yield from list(super().generate(batch))[:1 if len(batch) > 1 else 0]

    found = run(Lazy(), 3)
    assert found == [("s0", 0), ("s1", "the model returned 0 videos for 1 samples"),
                     ("s2", "the model returned 0 videos for 1 samples")]


def test_a_model_that_yields_too_much_is_not_trusted() -> None:
    class Eager(Model):
        def generate(self, batch: Sequence[Sample]) -> Iterator[Video]:
            yield from super().generate(batch)
            yield from super().generate(batch)

    with pytest.raises(UserError, match="more videos than the 3 samples"):
        run(Eager())


def test_batches_are_handed_on_whole() -> None:
    model = Model()
    run(model)
    assert model.calls == [["s0", "s1", "s2"], ["s3", "s4", "s5"], ["s6"]]


def test_a_device_that_is_missing_is_one_sentence(world: World) -> None:
    done = world.run(*world.toy("--device", "cuda:99"))
    assert done.returncode == 2 and "The device 'cuda:99' cannot be used" in done.stderr
    assert not (world.folder / "out").exists()


def test_the_device_is_recorded(world: World) -> None:
    measured = world.toy("--metric", "temporal_consistency")
    assert world.run(*measured, "--device", "cpu").returncode == 0
    run = json.loads((world.folder / "out/run.json").read_text())
    assert run["engine"] == {"name": "local", "device": "cpu"}
    assert run["scoring"]["devices"] == ["cpu"]
    assert world.run(*measured).returncode == 0
    again = json.loads((world.folder / "out/run.json").read_text())
    assert again["scoring"] == run["scoring"], "nothing ran the second time"
