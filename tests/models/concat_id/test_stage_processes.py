"""Two processes train what one does: by DDP through `accelerate launch`, by FSDP with halves.

accelerate gives FSDP to GPUs alone; the test tells it that these two processes, which talk by
gloo, are such. What is proven so is the loop's part: losses, averages, checkpoints and export of
weights of which each process holds a half.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import forked
import pytest
import torch
import yaml
from accelerate.commands.launch import launch_command, launch_command_parser
from safetensors.torch import load_file
from tiny_stage import WAN, make_cache, recipe

import idbench.models.concat_id
from idbench.models.concat_id.training import loop

LAUNCH = Path(idbench.models.concat_id.__file__).parent / "launch"
FSDP = """
import json, sys
from pathlib import Path
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
torch.set_num_threads(1)
PartialState(cpu=True)
Accelerator.end_training = lambda self: None  # the processes go on to talk to each other
from idbench.models.concat_id.training import loop
from idbench.models.concat_id.training.recipe import StageRecipe, read
from idbench.models.concat_id.training.samples import Cache
from idbench.training.resumable_loop import Interrupted
agree = loop.Session._agree
for content, state in json.loads(sys.argv[1]):
    AcceleratorState._reset_state()  # it remembers the blocks of the family before
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    loop.Session._agree = lambda self, stop: self.step == 2
    try:
        loop.train(content, state)
        raise AssertionError("not stopped")
    except Interrupted:
        assert not (Path(state) / "export").exists()
    loop.Session._agree = agree
    loop.train(content, state, resume=True)
    made = read(StageRecipe, content)
    session = loop.Session(made, Cache.open(Path(made.cache)), Path(state) / "again")
    assert session.accelerator.is_fsdp2 and session.accelerator.num_processes == 2
    own = sum(v.numel() for v in session.average.values)
    whole = sum(p.numel() for p in session.parameters)
    assert all(isinstance(p, DTensor) for p in session.parameters)
    assert 0.4 * whole < own < 0.6 * whole, (own, whole)
    print("SHARDED")
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def spread(tmp_path, monkeypatch):
    """Two processes of a program on this machine, by `accelerate launch` and a file of ours.

    accelerate's launcher reads the file and prepares the environment. torchrun, which it hands the
    program to, is replaced: the processes are forked with the variables that torchrun sets.
    """
    def run(asked):
        shared = {"WORLD_SIZE": asked.nproc_per_node, "LOCAL_WORLD_SIZE": asked.nproc_per_node,
                  "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(asked.master_port)}
        children = []
        for rank in range(int(asked.nproc_per_node)):
            own = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            module = ["-m"] if asked.module else []
            program = [*module, asked.training_script, *asked.training_script_args]
            children.append(
                forked.start(forked.python, program, own, tmp_path / f"said{rank}"))
        for rank, child in enumerate(children):
            child.join(600)
            assert child.exitcode == 0, (tmp_path / f"said{rank}").read_text()[-4000:]

    monkeypatch.setattr("torch.distributed.run.run", run)

    def launch(config: str, *arguments: object) -> str:
        launch_command(launch_command_parser().parse_args([
            "--config_file", str(LAUNCH / config), "--num_processes", "2",
            "--main_process_port", "0", *map(str, arguments)]))
        return "".join((tmp_path / f"said{rank}").read_text() for rank in range(2))

    return launch


def logged(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Everything that was exported: the network, and adapters where there are some."""
    files = sorted((folder / "export").rglob("*.safetensors"))
    return {name: value for file in files for name, value in load_file(file).items()}


def alike(one: Path, other: Path) -> None:
    assert logged(one) == pytest.approx(logged(other), rel=2e-4)
    expected = weights(other)
    for name, value in weights(one).items():
        torch.testing.assert_close(value, expected[name], rtol=2e-3, atol=2e-5, msg=name)


def test_two_processes_by_accelerate_launch_give_the_losses_of_one(tmp_path, spread):
    content = recipe(make_cache(tmp_path / "cache"), validate_every=2)
    loop.train(content, tmp_path / "one")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    spread("ddp.yaml", "-m", "idbench.cli", "train", path, "--state", tmp_path / "two")
    assert len(logged(tmp_path / "two")) == 6
    alike(tmp_path / "two", tmp_path / "one")


def test_sharded_weights_train_and_resume_like_whole_ones(tmp_path, spread):
    """CogVideoX and Wan, in one launch: starting the processes takes longer than training."""
    cache, jobs = make_cache(tmp_path / "cache"), []
    for name, changes in (("cogvideox", {}), ("wan", {"network": WAN, "steps": 4})):
        content = recipe(cache, validate_every=2, **changes)
        loop.train(content, tmp_path / name / "one")
        jobs.append([content, str(tmp_path / name / "two")])
    script = tmp_path / "fsdp.py"
    script.write_text(FSDP)
    said = spread("fsdp.yaml", script, json.dumps(jobs))
    assert said.count("SHARDED") == 4
    for name in ("cogvideox", "wan"):
        alike(tmp_path / name / "two", tmp_path / name / "one")


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero2"])
def test_the_launch_files_are_accelerates(name):
    """accelerate refuses a file with keys that it does not know."""
    from accelerate.commands.config.config_args import load_config_from_file

    path = LAUNCH / f"{name}.yaml"
    read = load_config_from_file(str(path))
    assert read.num_processes == 8 and read.mixed_precision == "bf16"
    expected = {"ddp": "MULTI_GPU", "fsdp": "FSDP", "zero2": "DEEPSPEED"}
    assert read.distributed_type == expected[name]
    if name == "zero2":
        assert read.deepspeed_config["zero_stage"] == 2
